#include "host/ptx/executor.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>

#include "host/block.h"

namespace host::ptx {

namespace {

template <class T>
void fill_row(uint8_t* at, T value) {
  for (int l = 0; l < kLanes; l++) memcpy(at + l * sizeof(T), &value, sizeof value);
}

std::string_view trimmed(std::string_view s) {
  const size_t begin = s.find_first_not_of(" \t");
  const size_t end = s.find_last_not_of(" \t\r");
  return begin == std::string_view::npos ? std::string_view() : s.substr(begin, end - begin + 1);
}

}  // namespace

std::string source_of(const Program& p, uint32_t instruction) {
  auto it = std::upper_bound(p.source.begin(), p.source.end(), instruction,
                             [](uint32_t n, const SourceLine& s) { return n < s.instruction; });
  if (it == p.source.begin()) return "";
  --it;
  const auto& files = p.module->files;
  if (it->file >= files.size() || it->line == 0) return "";
  const std::string& file = files[it->file];
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(it->line);
}

bool fault(Warp& w, const Instruction& i, int code, int lane, const char* format, ...) {
  BlockState& b = *w.block;
  char what[320];
  va_list args;
  va_start(args, format);
  vsnprintf(what, sizeof what, format, args);
  va_end(args);
  const Program& p = *b.program;
  const uint32_t instruction = static_cast<uint32_t>(&i - p.code.data());
  char who[64];
  if (lane >= 0) {
    const uint32_t t = w.index * kLanes + static_cast<uint32_t>(lane);
    snprintf(who, sizeof who, "thread (%u, %u, %u)", t % b.threads[0], t / b.threads[0] % b.threads[1],
             t / b.threads[0] / b.threads[1]);
  } else {
    snprintf(who, sizeof who, "warp %u", w.index);
  }
  const std::string source = source_of(p, instruction);
  const std::string_view text = trimmed(p.module->line(i.line)).substr(0, 100);
  b.fault = code;
  snprintf(b.detail, sizeof b.detail, "kernel %s, block (%u, %u, %u), %s, ptx line %u%s%s%s \"%.*s\": %s", p.name.c_str(),
           b.block[0], b.block[1], b.block[2], who, i.line, source.empty() ? "" : " (", source.c_str(), source.empty() ? "" : ")",
           static_cast<int>(text.size()), text.data(), what);
  return false;
}

bool shared_bounds_fault(Warp& w, const Instruction& i, int lane, uint64_t address, uint32_t bytes) {
  return fault(w, i, kIllegalAddress, lane, "%u bytes at shared address 0x%llx are not inside one variable", bytes,
               static_cast<unsigned long long>(address));
}

bool shared_fault(Warp& w, const Instruction& i, int lane, uint32_t address, uint32_t g, bool writes) {
  const SharedMemory& s = *w.block->shared;
  const auto& code = w.block->program->code;
  const uint32_t me = w.index * kLanes + static_cast<uint32_t>(lane);
  const uint32_t stamp = s.written[g], who = stamp & kThreadBits, when = stamp >> kTimeShift;
  if (stamp == kForbidden) return shared_bounds_fault(w, i, lane, address, 1u << s.shift);
  const uint32_t line = code[s.written_at[g]].line;
  if (when >= s.begin && (stamp & kStateBits) == kInFlight) {
    return fault(w, i, kLaunchFailed, lane,
                 "shared address 0x%x is the target of the cp.async at line %u, which nobody waited for", address, line);
  }
  const char* const verb = writes ? "writes" : "reads";
  if (who != me && when >= ordered_before(w, who)) {
    return fault(w, i, kLaunchFailed, lane,
                 "a race: it %s shared address 0x%x, which thread %u wrote at line %u, with no barrier between", verb, address,
                 who, line);
  }
  const uint32_t r = s.read[g], reader = r & kThreadBits;
  const std::string other = reader != me ? "thread " + std::to_string(reader) : "another thread";
  return fault(w, i, kLaunchFailed, lane,
               "a race: it writes shared address 0x%x, which %s read at line %u, with no barrier between", address, other.c_str(),
               code[s.read_at[g]].line);
}

Executor::Executor(const ddgpu_host_config& config) : order_(config.order), random_(config.seed) { block_.shared = &shared_; }

Executor::~Executor() {
  for (AsyncCopies& a : async_) free(a.copies);
  if (file_ != nullptr) munmap(file_, file_bytes_);
}

// Registers for so many warps, with the rows that never change.
void Executor::load_program(const Program& p, int warps) {
  const size_t bytes = static_cast<size_t>(p.rows) * kRowBytes * static_cast<size_t>(warps);
  if (bytes > file_bytes_) {
    if (file_ != nullptr) munmap(file_, file_bytes_);
    file_bytes_ = 0;
    void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    file_ = memory == MAP_FAILED ? nullptr : static_cast<uint8_t*>(memory);
    if (file_ == nullptr) return;
    file_bytes_ = bytes;
  }
  initial_.assign(p.rows, 0);
  for (const Constant& c : p.constants) initial_[c.row] = kAll;
  for (const SpecialRow& s : p.specials) initial_[s.row] = kAll;
  defined_.resize(static_cast<size_t>(p.rows) * warps);
  predicates_.resize(2 * static_cast<size_t>(p.predicates) * warps);
  local_.resize(static_cast<size_t>(p.local_bytes) * kLanes * warps);
  warp_.resize(static_cast<size_t>(warps));
  while (async_.size() < static_cast<size_t>(warps)) async_.emplace_back();
  for (int n = 0; n < warps; n++) {
    Warp& w = warp_[static_cast<size_t>(n)];
    w.rows = file_ + static_cast<size_t>(n) * p.rows * kRowBytes;
    w.defined = &defined_[static_cast<size_t>(n) * p.rows];
    w.predicate = &predicates_[2 * static_cast<size_t>(n) * p.predicates];
    w.predicate_defined = w.predicate + p.predicates;
    w.local = local_.data() + static_cast<size_t>(n) * p.local_bytes * kLanes;
    w.block = &block_;
    w.async = &async_[static_cast<size_t>(n)];
    w.index = static_cast<uint32_t>(n);
    for (const Constant& c : p.constants) {
      const uint64_t value = c.value + (c.symbol >= 0 ? p.module->variables[static_cast<size_t>(c.symbol)].memory : 0);
      uint8_t* const at = w.rows + static_cast<size_t>(c.row) * kRowBytes;
      if (c.wide) {
        fill_row(at, value);
      } else {
        fill_row(at, static_cast<uint32_t>(value));
      }
    }
  }
  program_ = &p;
  loaded_warps_ = warps;
}

// The special registers that a launch fixes.
void Executor::fill_specials(const Launch& launch) {
  const Program& p = *program_;
  const simt::Index d = launch.block, g = launch.grid;
  for (int n = 0; n < warps_; n++) {
    const Warp& w = warp_[static_cast<size_t>(n)];
    for (const SpecialRow& s : p.specials) {
      uint8_t* const at = w.rows + static_cast<size_t>(s.row) * kRowBytes;
      for (uint32_t l = 0; l < kLanes; l++) {
        const uint32_t t = static_cast<uint32_t>(n) * kLanes + l;
        uint32_t v = 0;
        switch (s.which) {
          case Special::tid_x: v = t % d.x; break;
          case Special::tid_y: v = t / d.x % d.y; break;
          case Special::tid_z: v = t / d.x / d.y; break;
          case Special::ntid_x: v = d.x; break;
          case Special::ntid_y: v = d.y; break;
          case Special::ntid_z: v = d.z; break;
          case Special::nctaid_x: v = g.x; break;
          case Special::nctaid_y: v = g.y; break;
          case Special::nctaid_z: v = g.z; break;
          case Special::laneid: v = l; break;
          case Special::warpid: v = static_cast<uint32_t>(n); break;
          case Special::nwarpid: v = static_cast<uint32_t>(warps_); break;
          case Special::lanemask_eq: v = 1u << l; break;
          case Special::lanemask_lt: v = (1u << l) - 1; break;
          case Special::lanemask_le: v = (2u << l) - 1; break;
          case Special::lanemask_gt: v = ~((2u << l) - 1); break;
          case Special::lanemask_ge: v = ~((1u << l) - 1); break;
          case Special::dynamic_shared: v = shared_.size - static_cast<uint32_t>(launch.dynamic_shared); break;
          default: continue;
        }
        const uint64_t wide = v;
        memcpy(at + l * (s.wide ? 8 : 4), &wide, s.wide ? 8 : 4);
      }
    }
  }
}

// Shared memory and its shadow: variables, gaps, then the dynamic part.
void Executor::open_shared(const Launch& launch) {
  const Program& p = *program_;
  const uint32_t align = std::max<uint32_t>(p.dynamic_align, 16);
  const uint32_t dynamic = (p.shared_bytes + align - 1) / align * align + p.shared_gaps;
  shared_.size = dynamic + static_cast<uint32_t>(launch.dynamic_shared);
  shared_.shift = __builtin_ctz(p.shared_granule);
  const size_t granules = (shared_.size >> shared_.shift) + 2;
  shared_bytes_.assign(shared_.size + 16, 0xff);
  shadow_.assign(4 * granules, 0);
  shared_.bytes = shared_bytes_.data();
  shared_.written = shadow_.data();
  shared_.read = shared_.written + granules;
  shared_.written_at = shared_.read + granules;
  shared_.read_at = shared_.written_at + granules;
  shared_.time = 0;
  std::fill_n(shared_.written, granules, kForbidden);
  const auto allow = [&](uint64_t begin, uint64_t bytes) {
    if (bytes > 0)
      std::fill(shared_.written + (begin >> shared_.shift), shared_.written + ((begin + bytes - 1) >> shared_.shift) + 1, 0u);
  };
  for (const Variable& v : p.shared) allow(v.at, v.bytes);
  if (p.dynamic_shared) allow(dynamic, launch.dynamic_shared);
}

void Executor::prepare(const Launch& launch) {
  const Task& task = *launch.task;
  launch_ = &launch;
  const uint32_t threads = launch.block.x * launch.block.y * launch.block.z;
  warps_ = static_cast<int>((threads + kLanes - 1) / kLanes);
  // A program that is gone may have left its address to another: launches are few enough to load it each time.
  load_program(*task.program, warps_);
  open_shared(launch);
  if (file_ == nullptr) return;
  fill_specials(launch);
  const Program& p = *program_;
  params_.assign(p.param_bytes + 8, 0);
  for (size_t n = 0; n < p.params.size(); n++) {
    memcpy(&params_[p.params[n].offset], launch.args[n], static_cast<size_t>(bytes_of(p.params[n].type)));
  }
  block_.program = &p;
  block_.params = params_.data();
  block_.ranges = task.ranges.data();
  block_.range_count = static_cast<int>(task.ranges.size());
  block_.threads[0] = launch.block.x;
  block_.threads[1] = launch.block.y;
  block_.threads[2] = launch.block.z;
  block_.taken_first = order_ == DDGPU_ORDER_REVERSE;
  block_.tally = nullptr;
  if (counting()) {
    counts_.assign(p.code.size(), Count());
    tally_.counts = counts_.data();
    tally_.touched = open_touched(task.ranges.data(), task.ranges.size());
    block_.tally = &tally_;
  }
}

// Before a block: no register holds a value, no shared memory is written.
void Executor::start(simt::Index block) {
  const Program& p = *program_;
  const uint32_t threads = block_.threads[0] * block_.threads[1] * block_.threads[2];
  block_.block[0] = block.x;
  block_.block[1] = block.y;
  block_.block[2] = block.z;
  block_.fault = 0;
  if (shared_.time >= kMostTime / 2) open_shared(*launch_);
  shared_.begin = shared_.barrier = ++shared_.time;
  shared_.unwritten_at = kNowhere;
  if (order_ == DDGPU_ORDER_RANDOM) {
    random_ = mix(random_);
    block_.taken_first = random_ & 1;
  }
  for (int n = 0; n < warps_; n++) {
    Warp& w = warp_[static_cast<size_t>(n)];
    memcpy(w.defined, initial_.data(), p.rows * sizeof(uint32_t));
    memset(w.predicate, 0, 2 * static_cast<size_t>(p.predicates) * sizeof(uint32_t));
    w.predicate[0] = w.predicate_defined[0] = w.predicate_defined[1] = kAll;
    for (const SpecialRow& s : p.specials) {
      if (s.which < Special::ctaid_x || s.which > Special::ctaid_z) continue;
      fill_row(w.rows + static_cast<size_t>(s.row) * kRowBytes,
               block_.block[static_cast<int>(s.which) - static_cast<int>(Special::ctaid_x)]);
    }
    const uint32_t lanes = threads - static_cast<uint32_t>(n) * kLanes;
    w.exists = w.live = w.active = lanes >= kLanes ? kAll : (1u << lanes) - 1;
    w.pc = 0;
    w.meet = kNowhere;
    w.depth = 0;
    w.at_barrier = false;
    w.last_range = 0;
    w.sync = 0;
    w.async->count = 0;
    memset(w.async->groups, 0, sizeof w.async->groups);
  }
}

// The warp that runs n-th up to the next barrier.
int Executor::turn(int n, uint64_t phase) {
  switch (order_) {
    case DDGPU_ORDER_REVERSE: return warps_ - 1 - n;
    case DDGPU_ORDER_AHEAD: return (n + warps_ - 1 - static_cast<int>(phase % static_cast<uint64_t>(warps_))) % warps_;
    case DDGPU_ORDER_RANDOM:
      return static_cast<int>(Walk(order_, random_ + phase, static_cast<uint64_t>(warps_))[static_cast<uint64_t>(n)]);
    default: return n;
  }
}

Result Executor::ended(Result code) {
  Lock lock(driver->mutex);
  set_detail("%s", block_.detail);
  return code;
}

Result Executor::run(const Launch& launch, uint64_t number, simt::Index block) {
  if (number != number_) {
    prepare(launch);
    number_ = number;
  }
  if (file_ == nullptr) {
    snprintf(block_.detail, sizeof block_.detail, "the machine has no memory for the registers of kernel %s",
             launch.task->program->name.c_str());
    number_ = 0;
    return ended(CUDA_ERROR_OUT_OF_MEMORY);
  }
  start(block);
  for (uint64_t phase = 0;; phase++) {
    int waiting = 0, gone = -1;
    for (int n = 0; n < warps_; n++) {
      Warp& w = warp_[static_cast<size_t>(turn(n, phase))];
      w.at_barrier = false;
      if (w.live != 0) {
        const Stop stop = interpret(w);
        if (stop == Stop::fault) return ended(static_cast<Result>(block_.fault));
        w.at_barrier = stop == Stop::barrier;
      }
      waiting += w.at_barrier;
      if (w.live != w.exists) gone = static_cast<int>(w.index);
    }
    if (waiting == 0) return CUDA_SUCCESS;
    if (gone >= 0) {
      // Threads that have returned do not come to the barrier.
      for (int n = 0; n < warps_; n++) {
        Warp& w = warp_[static_cast<size_t>(n)];
        if (!w.at_barrier) continue;
        const uint32_t returned = warp_[static_cast<size_t>(gone)].exists & ~warp_[static_cast<size_t>(gone)].live;
        fault(w, program_->code[w.pc - 1], kLaunchFailed, __builtin_ctz(w.live),
              "a barrier that lanes 0x%08x of warp %d cannot reach: they have returned", returned, gone);
        return ended(CUDA_ERROR_LAUNCH_FAILED);
      }
    }
    shared_.barrier = ++shared_.time;
    if (shared_.time >= kMostTime) {
      fault(warp_[0], program_->code[warp_[0].pc - 1], kLaunchFailed, -1,
            "more barriers in a block than the executor can tell apart");
      return ended(CUDA_ERROR_LAUNCH_FAILED);
    }
  }
}

void Executor::finish(const Launch& launch) {
  if (launch_ != &launch || block_.tally == nullptr) return;
  add_counts(*program_, tally_);
  block_.tally = nullptr;
}

}  // namespace host::ptx
