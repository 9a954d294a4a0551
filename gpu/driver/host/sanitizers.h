// Which sanitizer the build has, and what the host device tells it.
#pragma once
#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DDGPU_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if __has_feature(thread_sanitizer) || defined(DDGPU_TSAN_RUNTIME)
#define DDGPU_TSAN 1
#include <sanitizer/tsan_interface.h>
#endif
#endif

namespace host {

#ifdef DDGPU_ASAN
constexpr bool kAsan = true;
inline void forbid(void* p, size_t n) { __asan_poison_memory_region(p, n); }
inline void permit(void* p, size_t n) { __asan_unpoison_memory_region(p, n); }
#else
constexpr bool kAsan = false;
inline void forbid(void*, size_t) {}
inline void permit(void*, size_t) {}
#endif

// What a thread did before release(token) happened before what follows acquire(token) in another.
#ifdef DDGPU_TSAN
constexpr bool kTsan = true;
inline void release(void* token) { __tsan_release(token); }
inline void acquire(void* token) { __tsan_acquire(token); }
#else
constexpr bool kTsan = false;
inline void release(void*) {}
inline void acquire(void*) {}
#endif

}  // namespace host
