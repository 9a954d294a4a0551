// Hands the blocks of a grid to a device's threads.
#include "host/workers.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "host/block.h"
#include "host/ptx/executor.h"

namespace host {

namespace {

// How long a helper looks for the next launch before it sleeps; waking it costs the engine about as much.
constexpr auto kSpin = std::chrono::microseconds(30);

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void futex_wait(std::atomic<uint32_t>* word, uint32_t seen) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}
void futex_wake_all(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

}  // namespace

Workers::Workers(int threads, const ddgpu_host_config& config) : threads_(threads), config_(config) {
  for (int i = 0; i < threads; i++) blocks_.push_back(std::make_unique<Block>(config));
  for (int i = 0; i < threads && config.ptx; i++) executors_.push_back(std::make_unique<ptx::Executor>(config));
  for (int i = 1; i < threads; i++) helpers_.emplace_back([this, i] { help(i); });
}

Workers::~Workers() {
  stop_ = true;
  round_++;
  futex_wake_all(&round_);
  for (auto& helper : helpers_) helper.join();
}

// A helper may join a round only while open_ names it, and the engine closes the round before it waits for those that joined:
// whoever raises busy_ after the close sees it and leaves the launch alone.
Result Workers::run(const Launch& launch) {
  launch_ = &launch;
  total_ = static_cast<uint64_t>(launch.grid.x) * launch.grid.y * launch.grid.z;
  chunk_ = std::max<uint64_t>(1, total_ / (static_cast<uint64_t>(threads_) * 8));
  launch_count_++;
  next_.store(0, std::memory_order_relaxed);
  result_.store(0, std::memory_order_relaxed);
  const bool alone = launch.task != nullptr && ptx::counting();  // what is counted is not shared
  if (threads_ > 1 && total_ > 1 && !alone) {
    open_.store(true);
    round_.fetch_add(1);
    if (sleepers_.load() > 0) futex_wake_all(&round_);
    take_blocks(0);
    open_.store(false);
    while (busy_.load() > 0) pause_cpu();
  } else {
    take_blocks(0);
  }
  if (alone) executors_[0]->finish(launch);
  return static_cast<Result>(result_.load());
}

void Workers::help(int index) {
  uint32_t seen = 0;
  for (;;) {
    const auto end = Clock::now() + kSpin;
    while (round_.load() == seen) {
      if (Clock::now() < end) {
        pause_cpu();
        continue;
      }
      sleepers_++;
      futex_wait(&round_, seen);
      sleepers_--;
    }
    seen = round_.load();
    if (stop_) return;
    busy_++;
    if (open_.load()) take_blocks(index);
    busy_--;
  }
}

void Workers::take_blocks(int index) {
  blocks_[index]->next_launch();
  run_blocks(index);
  blocks_[index]->join();
}

void Workers::run_blocks(int index) {
  const Launch& launch = *launch_;
  const uint64_t total = total_, chunk = chunk_;
  const Walk walk(config_.order, config_.seed ^ mix(launch_count_), total);
  for (;;) {
    const uint64_t first = next_.fetch_add(chunk, std::memory_order_relaxed);
    if (first >= total) return;
    for (uint64_t i = first; i < std::min(first + chunk, total); i++) {
      const uint64_t at = walk[i];
      const simt::Index block{static_cast<unsigned>(at % launch.grid.x),
                              static_cast<unsigned>(at / launch.grid.x % launch.grid.y),
                              static_cast<unsigned>(at / launch.grid.x / launch.grid.y)};
      const Result r =
          launch.task == nullptr ? blocks_[index]->run(launch, block) : executors_[index]->run(launch, launch_count_, block);
      if (r != CUDA_SUCCESS) {
        int none = 0;
        result_.compare_exchange_strong(none, r);
        next_.store(total);
        return;
      }
    }
  }
}

}  // namespace host
