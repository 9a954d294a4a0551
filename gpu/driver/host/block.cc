// Runs the threads of a block: as a plain loop when the kernel has no barriers or the block one thread.
#include "host/block.h"

#include <stdlib.h>
#include <string.h>

namespace simt {
__thread Thread* current __attribute__((tls_model("initial-exec"))) = nullptr;
}

namespace host {

namespace {
__thread Block* running = nullptr;
constexpr size_t kArena = kSharedOptIn + 128;
}  // namespace

Block::Block(const ddgpu_host_config&) : arena_(static_cast<char*>(aligned_alloc(128, kArena)), free) {}
Block::~Block() = default;

Result Block::run(const Launch& launch, simt::Index block) {
  launch_ = &launch;
  thread_.block_idx = block;
  thread_.block_dim = launch.block;
  thread_.grid_dim = launch.grid;
  thread_.dynamic_shared = arena_.get();
  thread_.dynamic_size = launch.dynamic_shared;
  const size_t start = (launch.dynamic_shared + 127) / 128 * 128;
  thread_.shared = arena_.get() + start;
  thread_.shared_size = kSharedOptIn - start;
  result_ = CUDA_SUCCESS;
  running = this;
  return run_plain(launch);
}

Result Block::run_plain(const Launch& launch) {
  simt::current = &thread_;
  if (setjmp(out_) != 0) return result_;
  void (*const invoke)(void* const*) = launch.entry->invoke;
  for (unsigned z = 0; z < launch.block.z; z++) {
    for (unsigned y = 0; y < launch.block.y; y++) {
      for (unsigned x = 0; x < launch.block.x; x++) {
        thread_.thread_idx = {x, y, z};
        thread_.shared_used = 0;
        invoke(launch.args);
      }
    }
  }
  return CUDA_SUCCESS;
}

void* Block::shared_alloc(size_t bytes, size_t align, const simt::Site* site) {
  simt::Thread& t = *simt::current;
  const size_t at = (t.shared_used + align - 1) / align * align;
  if (at + bytes > t.shared_size) trap(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "more shared memory than the chip has", site);
  t.shared_used = at + bytes;
  return t.shared + at;
}

void Block::trap(Result code, const char* what, const simt::Site* site) {
  result_ = code;
  {
    Lock lock(driver->mutex);
    const simt::Thread& t = *simt::current;
    set_detail("kernel %s, block (%u, %u, %u), thread (%u, %u, %u), %s:%d: %s", launch_->entry->name, t.block_idx.x,
               t.block_idx.y, t.block_idx.z, t.thread_idx.x, t.thread_idx.y, t.thread_idx.z, site->file, site->line, what);
  }
  longjmp(out_, 1);
}

}  // namespace host

namespace simt {

void barrier(const Site* site) { host::running->trap(CUDA_ERROR_NOT_SUPPORTED, "barriers need fibers", site); }
void warp_sync(uint32_t, const Site* site) { barrier(site); }
uint64_t shuffle(Shuffle, uint32_t, uint64_t value, uint32_t, uint32_t, const Site* site) {
  barrier(site);
  return value;
}
uint32_t ballot(uint32_t, bool, const Site* site) {
  barrier(site);
  return 0;
}
void* shared_alloc(size_t bytes, size_t align, const Site* site) { return host::running->shared_alloc(bytes, align, site); }
void trap(const char* what, const Site* site) { host::running->trap(CUDA_ERROR_ASSERT, what, site); }

}  // namespace simt
