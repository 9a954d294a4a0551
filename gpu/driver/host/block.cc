// Runs the threads of a block: on fibers where a kernel has barriers, else as a plain loop.
#include "host/block.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <numeric>

namespace simt {
__thread Thread* current __attribute__((tls_model("initial-exec"))) = nullptr;
}

namespace host {

__thread Block* running_block = nullptr;

namespace {

// ASan: poisoned bytes between the arrays of a block.
constexpr size_t kGap = kAsan ? 256 : 0;
constexpr size_t kArena = 2 * kSharedOptIn + 64 * (kGap + 128);

// New shared memory holds 0xFF bytes (NaN). Not memset, which TSan would take for a write of the thread that declares an
// array first.
__attribute__((no_builtin("memset"))) void poison(char* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) p[i] = static_cast<char>(0xFF);
}

}  // namespace

Walk::Walk(int order, uint64_t seed, uint64_t total) : total(total), step(1), offset(0), reverse(order == DDGPU_ORDER_REVERSE) {
  if (order != DDGPU_ORDER_RANDOM) return;
  // (offset + i·step) mod total visits every item once, as step and total have no common factor.
  const uint64_t random = mix(seed);
  offset = random % total;
  step = total > 2 ? 1 + mix(random) % (total - 1) : 1;
  while (std::gcd(step, total) != 1) step++;
}

Block::Block(const ddgpu_host_config& config) : order_(config.order), seed_(config.seed), team_(config) {
  arena_ = static_cast<char*>(mmap(nullptr, kArena, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}
Block::~Block() {
  permit(arena_, kArena);
  munmap(arena_, kArena);
  for (const Kept& k : kept_) {
    if (k.memory != nullptr) munmap(k.memory, k.bytes);
  }
}

Result Block::run(const Launch& launch, simt::Index block) {
  launch_ = &launch;
  threads_ = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
  thread_.block_idx = block;
  thread_.block_dim = launch.block;
  thread_.grid_dim = launch.grid;
  // TSan sees a race only between fibers, so all threads are.
  on_team_ = threads_ > 1 && (launch.entry->cooperative || kTsan);
  result_ = CUDA_SUCCESS;
  running_block = this;
  open_shared();
  return on_team_ ? team_.run(launch, thread_) : run_plain();
}

Result Block::run_plain() {
  simt::current = &thread_;
  if (setjmp(out_) != 0) return result_;
  void (*const invoke)(void* const*) = launch_->entry->invoke;
  void* const* const args = launch_->args;
  const simt::Index d = launch_->block;
  if (order_ == DDGPU_ORDER_FORWARD || order_ == DDGPU_ORDER_AHEAD || threads_ == 1) {
    for (unsigned z = 0; z < d.z; z++) {
      for (unsigned y = 0; y < d.y; y++) {
        for (unsigned x = 0; x < d.x; x++) {
          thread_.thread_idx = {x, y, z};
          copies_.reset();
          invoke(args);
        }
      }
    }
    return CUDA_SUCCESS;
  }
  const Walk walk(order_, seed_++, static_cast<uint64_t>(threads_));
  for (int i = 0; i < threads_; i++) {
    const unsigned at = static_cast<unsigned>(walk[static_cast<uint64_t>(i)]);
    thread_.thread_idx = {at % d.x, at / d.x % d.y, at / d.x / d.y};
    copies_.reset();
    invoke(args);
  }
  return CUDA_SUCCESS;
}

void Block::open_shared() {
  if (kTsan) {
    // To TSan this is new memory: the blocks of a launch are not ordered, and would seem to race for the arena.
    mmap(arena_, kArena, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  }
  forbid(arena_, kArena);
  used_ = asked_ = 0;
  array_count_ = 0;
  thread_.dynamic_shared = take_shared(launch_->dynamic_shared, 128);
}

char* Block::take_shared(size_t bytes, size_t align) {
  const size_t at = (used_ + align - 1) / align * align;
  used_ = at + bytes + kGap;
  asked_ = (asked_ + align - 1) / align * align + bytes;
  permit(arena_ + at, bytes);
  poison(arena_ + at, bytes);
  return arena_ + at;
}

void* Block::shared_alloc(size_t bytes, size_t align, const simt::Site* site) {
  for (int i = 0; i < array_count_; i++) {
    if (arrays_[i].site == site) return arrays_[i].memory;
  }
  if ((asked_ + align - 1) / align * align + bytes > launch_->shared_limit) {
    trap(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "static and dynamic shared memory beyond the limit", site);
  }
  if (array_count_ == kMostArrays)
    trap(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "more shared arrays than the host device keeps", site);
  Array& a = arrays_[array_count_++];
  a = {site, take_shared(bytes, align), bytes};
  return a.memory;
}

void* Block::keep(int slot, size_t bytes, uint64_t tag, bool* kept) {
  Kept& k = kept_[slot];
  const bool same = k.round == round_ && k.tag == tag && k.bytes >= bytes;
  if (kept != nullptr) *kept = same;
  if (k.bytes < bytes) {
    // Whole huge pages: the matrices of a convolution lie in hundreds of small ones otherwise.
    constexpr size_t kPage = 2 << 20;
    bytes = (bytes + kPage - 1) / kPage * kPage;
    if (k.memory != nullptr) munmap(k.memory, k.bytes);
    k = {};
    void* const p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
      static constexpr simt::Site site{__FILE__, __LINE__};
      trap(CUDA_ERROR_OUT_OF_MEMORY, "no memory for a thread to work in", &site);
    }
    madvise(p, bytes, MADV_HUGEPAGE);
    k.memory = static_cast<char*>(p);
    k.bytes = bytes;
  }
  k.tag = tag;
  k.round = round_;
  return k.memory;
}

void Block::report(const char* what, const simt::Site* site) {
  Lock lock(driver->mutex);
  const simt::Thread& t = *simt::current;
  set_detail("kernel %s, block (%u, %u, %u), thread (%u, %u, %u), %s:%d: %s", launch_->entry->name, t.block_idx.x, t.block_idx.y,
             t.block_idx.z, t.thread_idx.x, t.thread_idx.y, t.thread_idx.z, site->file, site->line, what);
}

void Block::trap(Result code, const char* what, const simt::Site* site) {
  report(what, site);
  if (on_team_) team_.abandon(code);
  result_ = code;
  longjmp(out_, 1);
}

void Block::check_shared(const void* p, size_t bytes, const simt::Site* site) {
  if (reinterpret_cast<uintptr_t>(p) % bytes != 0) trap(CUDA_ERROR_MISALIGNED_ADDRESS, "misaligned shared address", site);
  if (!holds(p)) trap(CUDA_ERROR_INVALID_ADDRESS_SPACE, "an address that is not of the block's shared memory", site);
}

void Block::async_copy(void* shared, const void* global, const simt::Site* site) {
  check_shared(shared, 16, site);
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0) trap(CUDA_ERROR_MISALIGNED_ADDRESS, "misaligned global address", site);
  if (holds(global)) trap(CUDA_ERROR_INVALID_ADDRESS_SPACE, "the source of cp.async is shared memory", site);
  copies().add({shared, global});
}

namespace {

// The running block's team; null for a block of one thread, which waits for nobody.
Team* team_of(const simt::Site* site) {
  Block& block = *running_block;
  if (block.on_team()) return block.team();
  if (block.threads() > 1)
    block.trap(CUDA_ERROR_LAUNCH_FAILED, "a KERNEL calls a barrier or warp collective: make it a BLOCK_KERNEL", site);
  return nullptr;
}

Team& warp_of(const simt::Site* site) {
  Team* const team = team_of(site);
  if (team == nullptr) running_block->trap(CUDA_ERROR_LAUNCH_FAILED, "a matrix instruction in a block of one thread", site);
  return *team;
}

}  // namespace

}  // namespace host

namespace simt {

using host::running_block;
using host::team_of;
using host::warp_of;

void barrier(const Site* site) {
  if (host::Team* const team = team_of(site)) team->barrier(site);
}
void warp_sync(uint32_t mask, const Site* site) {
  if (host::Team* const team = team_of(site)) team->warp_sync(mask, site);
}
uint64_t shuffle(Shuffle mode, uint32_t mask, uint64_t value, uint32_t lane, uint32_t width, const Site* site) {
  if (host::Team* const team = team_of(site)) return team->shuffle(mode, mask, value, lane, width, site);
  const bool own = (mode == Shuffle::idx || mode == Shuffle::bfly) ? lane % width == 0 : mode == Shuffle::up || lane == 0;
  return own ? value : ~0ull;
}
uint32_t ballot(uint32_t mask, bool predicate, const Site* site) {
  if (host::Team* const team = team_of(site)) return team->ballot(mask, predicate, site);
  return predicate ? 1 : 0;
}
void mma(Product kind, int m, int n, float* d, const uint32_t* a, const uint32_t* b, const Site* site) {
  warp_of(site).mma(kind, m, n, d, a, b, site);
}
void ldmatrix(int matrices, bool transposed, const uint32_t* row, uint32_t* r, const Site* site) {
  warp_of(site).ldmatrix(matrices, transposed, row, r, site);
}
void check_shared(const void* p, size_t bytes, const Site* site) { running_block->check_shared(p, bytes, site); }
void async_copy(void* shared, const void* global, const Site* site) { running_block->async_copy(shared, global, site); }
void async_commit() { running_block->copies().commit(); }
bool async_arrived(int pending, Copy* copy) { return running_block->copies().take(pending, copy); }
void* shared_alloc(size_t bytes, size_t align, const Site* site) { return running_block->shared_alloc(bytes, align, site); }
void* keep(int slot, size_t bytes, uint64_t tag, bool* kept) { return running_block->keep(slot, bytes, tag, kept); }
void trap(const char* what, const Site* site) { running_block->trap(CUDA_ERROR_ASSERT, what, site); }

}  // namespace simt
