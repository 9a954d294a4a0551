// The OS threads of a device, and how they run a grid.
#pragma once
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "host/device.h"

namespace host {

// Name of the kernel variant that serves float or double on this machine.
const char* variant_name(Precision p);

class Block;  // runs one block at a time (block.cc)
namespace ptx {
class Executor;  // the same for PTX (ptx/executor.cc)
}

class Workers {
 public:
  Workers(int threads, const ddgpu_host_config& config);
  ~Workers();
  int threads() const { return threads_; }
  // Runs all blocks of the launch and returns when they have ended.
  Result run(const Launch& launch);

 private:
  void help(int index);
  void take_blocks(int index);
  void run_blocks(int index);

  const int threads_;
  const ddgpu_host_config config_;
  std::vector<std::unique_ptr<Block>> blocks_;             // one per thread; the engine's own first
  std::vector<std::unique_ptr<ptx::Executor>> executors_;  // one per thread, where PTX is run
  std::vector<std::thread> helpers_;
  // The launch under way, published by raising round_.
  const Launch* launch_ = nullptr;
  uint64_t total_ = 0, chunk_ = 1, launch_count_ = 0;
  std::atomic<uint64_t> next_{0};
  std::atomic<uint32_t> round_{0};
  std::atomic<int> busy_{0};
  std::atomic<int> result_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> open_{false}, stop_{false};
};

}  // namespace host
