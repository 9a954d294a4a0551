// One block of a launch on one OS thread.
#pragma once
#include <setjmp.h>

#include <memory>
#include <vector>

#include "host/device.h"

namespace host {

// SplitMix64: a bijection that spreads its input over 64 bits.
inline uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

class Block {
 public:
  explicit Block(const ddgpu_host_config& config);
  ~Block();
  Result run(const Launch& launch, simt::Index block);

  // What the kernel calls (kernel_abi.h).
  void* shared_alloc(size_t bytes, size_t align, const simt::Site* site);
  [[noreturn]] void trap(Result code, const char* what, const simt::Site* site);

 private:
  Result run_plain(const Launch& launch);

  simt::Thread thread_{};
  std::unique_ptr<char, void (*)(void*)> arena_;
  jmp_buf out_;
  Result result_ = CUDA_SUCCESS;
  const Launch* launch_ = nullptr;
};

}  // namespace host
