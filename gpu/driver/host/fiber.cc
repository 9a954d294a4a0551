#include "host/fiber.h"

#include <sys/mman.h>

#include <atomic>
#include <boost/context/detail/fcontext.hpp>
#include <utility>

namespace host {

using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

struct Fiber::Entry {
  static void run(transfer_t t) {
    Fiber* const from = static_cast<Fiber*>(t.data);
    Fiber* const self = from->next_;
    self->arrive(t.fctx, from);
    self->body_(*self);
    __builtin_trap();
  }
};

Fiber::~Fiber() {
#ifdef DDGPU_TSAN
  if (body_ != nullptr) __tsan_destroy_fiber(tsan_);
#endif
}

void Fiber::start(char* stack, size_t size, void (*body)(Fiber&)) {
#ifdef DDGPU_TSAN
  if (body_ != nullptr) __tsan_destroy_fiber(tsan_);
  tsan_ = __tsan_create_fiber(0);
#endif
  permit(stack, size);
  body_ = body;
  stack_ = stack;
  size_ = size;
  fake_ = nullptr;
  context_ = make_fcontext(stack + size, size, Entry::run);
}

void Fiber::switch_to(Fiber& to) {
  next_ = &to;
#ifdef DDGPU_ASAN
  __sanitizer_start_switch_fiber(&fake_, to.stack_, to.size_);
#endif
#ifdef DDGPU_TSAN
  if (body_ == nullptr) tsan_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to.tsan_, __tsan_switch_to_fiber_no_sync);
#endif
  const transfer_t t = jump_fcontext(to.context_, this);
  arrive(t.fctx, static_cast<Fiber*>(t.data));
}

void Fiber::release_of(void* token) {
#ifdef DDGPU_TSAN
  void* const self = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(tsan_, __tsan_switch_to_fiber_no_sync);
  __tsan_release(token);
  __tsan_switch_to_fiber(self, __tsan_switch_to_fiber_no_sync);
#else
  (void)token;
#endif
}

void Fiber::swap(Fiber& other) {
  std::swap(context_, other.context_);
  std::swap(body_, other.body_);
  std::swap(stack_, other.stack_);
  std::swap(size_, other.size_);
  std::swap(fake_, other.fake_);
  std::swap(tsan_, other.tsan_);
}

inline void Fiber::arrive(void* context, Fiber* from) {
  from->context_ = context;
#ifdef DDGPU_ASAN
  const void* stack;
  __sanitizer_finish_switch_fiber(fake_, &stack, &from->size_);
  from->stack_ = static_cast<char*>(const_cast<void*>(stack));
#endif
}

namespace {
// Each guard splits a mapping in two, and a process may have 65,530 mappings; past this many, stacks go without.
constexpr int kMostGuards = 16384;
std::atomic<int> guards{0};
}  // namespace

Stacks::~Stacks() {
  if (base_ == nullptr) return;
  permit(base_, count_ * kSize);
  munmap(base_, count_ * kSize);
  guards -= guarded_;
}

char* Stacks::at(int i) {
  if (base_ == nullptr) {
    void* const memory =
        mmap(nullptr, count_ * kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    base_ = static_cast<char*>(memory);
  }
  for (; guarded_ <= i; guarded_++) {
    if (guards++ < kMostGuards) mprotect(base_ + guarded_ * kSize, kGuard, PROT_NONE);
  }
  return base_ + i * kSize + kGuard;
}

}  // namespace host
