// One block of a launch on one OS thread.
#pragma once
#include <setjmp.h>

#include <memory>

#include "host/device.h"
#include "host/team.h"

namespace host {

// SplitMix64: a bijection that spreads its input over 64 bits.
inline uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Item i of 0 … total-1 in an order of the launch: the identity, its reverse, or a walk that a seed decides.
struct Walk {
  uint64_t total, step, offset;
  bool reverse;
  Walk(int order, uint64_t seed, uint64_t total);
  uint64_t operator[](uint64_t i) const {
    return reverse ? total - 1 - i : step == 1 && offset == 0 ? i : (offset + i * step) % total;
  }
};

class Block {
 public:
  explicit Block(const ddgpu_host_config& config);
  ~Block();
  Result run(const Launch& launch, simt::Index block);
  // The next blocks are of another launch.
  void next_launch() { round_++; }
  // What the blocks since the last join did happened before what the caller does next.
  void join() { team_.join(); }
  Team* team() { return &team_; }

  // What the kernel calls (kernel_abi.h).
  void* shared_alloc(size_t bytes, size_t align, const simt::Site* site);
  void* keep(int slot, size_t bytes, uint64_t tag, bool* kept);
  [[noreturn]] void trap(Result code, const char* what, const simt::Site* site);
  void check_shared(const void* p, size_t bytes, const simt::Site* site);
  void async_copy(void* shared, const void* global, const simt::Site* site);
  // Of the running thread.
  Copies& copies() { return on_team_ ? team_.copies() : copies_; }
  // Leaves the description of an error of the running thread.
  void report(const char* what, const simt::Site* site);
  // Whether the threads are fibers; a plain loop runs one thread after the other to its end.
  bool on_team() const { return on_team_; }
  int threads() const { return threads_; }

 private:
  struct Array {
    const simt::Site* site;
    char* memory;
    size_t bytes;
  };
  static constexpr int kMostArrays = 64;
  struct Kept {
    char* memory = nullptr;
    size_t bytes = 0;
    uint64_t tag = 0, round = 0;
  };

  void open_shared();
  char* take_shared(size_t bytes, size_t align);
  Result run_plain();
  bool holds(const void* p) const { return p >= arena_ && p < arena_ + used_; }

  const int order_;
  uint64_t seed_;
  simt::Thread thread_{};
  char* arena_ = nullptr;
  size_t used_ = 0;   // of the arena, gaps included
  size_t asked_ = 0;  // of the chip's shared memory
  Array arrays_[kMostArrays];
  int array_count_ = 0;
  Kept kept_[2];
  uint64_t round_ = 0;  // counts launches
  jmp_buf out_;
  Result result_ = CUDA_SUCCESS;
  const Launch* launch_ = nullptr;
  bool on_team_ = false;
  int threads_ = 0;
  Copies copies_;  // of a thread that is no fiber
  Team team_;
};

// The block that runs on this OS thread.
extern __thread Block* running_block;

}  // namespace host
