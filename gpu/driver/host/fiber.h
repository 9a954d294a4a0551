// Stacks and switches between them.
//
// The files that switch (fiber.cc, team.cc, block.cc, and mma.cc for them) are never instrumented for TSan: what they share between the
// fibers of a block would look like races. They tell TSan instead which fiber runs and what a barrier orders.
#pragma once
#include <stddef.h>

#include "host/sanitizers.h"

namespace host {

// One thread of execution with its own stack. A default Fiber stands for the OS thread that leaves it.
class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  ~Fiber();

  // Makes the fiber begin `body(*this)` on the given stack when it is next switched to, whatever it did before. The body
  // never returns.
  void start(char* stack, size_t size, void (*body)(Fiber&));
  bool started() const { return body_ != nullptr; }
  // Stops here, on the fiber that runs now, and goes on where `to` stopped.
  void switch_to(Fiber& to);
  // For a fiber that is given up: what it did so far happened before what follows acquire(token).
  void release_of(void* token);
  // Lets the two fibers, at rest at the same place, take each other's place.
  void swap(Fiber& other);
  // Where it was started.
  char* stack() const { return stack_; }

 private:
  struct Entry;
  void arrive(void* context, Fiber* from);

  void* context_ = nullptr;  // where it stopped
  Fiber* next_ = nullptr;    // whom it switched to
  void (*body_)(Fiber&) = nullptr;
  char* stack_ = nullptr;
  size_t size_ = 0;
  void* fake_ = nullptr;  // ASan's fake stack
  void* tsan_ = nullptr;
};

// The stacks of one worker, allocated as they are first used. Below each lies a page that may not be touched.
class Stacks {
 public:
  static constexpr size_t kSize = kAsan || kTsan ? 256 << 10 : 64 << 10;  // of a stack, with its guard page
  static constexpr size_t kGuard = 4096;
  explicit Stacks(int count) : count_(count) {}
  Stacks(const Stacks&) = delete;
  ~Stacks();
  // The lowest usable byte of stack i, which has kSize - kGuard bytes; null when the machine has no memory left.
  char* at(int i);

 private:
  const int count_;
  int guarded_ = 0;  // stacks below this have their guard
  char* base_ = nullptr;
};

}  // namespace host
