// One dialect for three compilers: clang to PTX, nvcc to PTX, clang to the host. The only header that a kernel includes.
//
// A kernel file puts everything in `namespace SIMT_VARIANT`, so that code for different instruction sets never merges at
// link time; writes bodies as `template <class T> DEVICE void name_body(...)`; and ends with KERNEL or BLOCK_KERNEL, which
// make the extern "C" entry, and GEOMETRY, which tells the launcher the block and tile sizes that the body was built with.
//
// Tiles: SIMT_TILES_HOST is the configuration for real work on a CPU (one thread a block where a kernel has barriers, long
// vector loops); otherwise the GPU's configuration, which the host device also runs, on fibers, to check what ships.
#pragma once
#include <stdint.h>

#ifndef SIMT_VARIANT
#define SIMT_VARIANT ptx
#endif

// real is what activations and their gradients are stored as; acc is what is computed in, and what parameters, their gradients,
// statistics and scalars are. A body's T is always acc.
struct bf16 {  // the upper half of a float
  uint16_t bits;
};
#if defined(SIMT_REAL_F64)
using real = double;
using acc = double;
#elif defined(SIMT_BF16)
using real = bf16;
using acc = float;
#else
using real = float;
using acc = float;
#endif

#if defined(SIMT_HOST) && !defined(SIMT_TILES_GPU)
#define SIMT_TILES_HOST 1
#endif

// Matrix products on tensor cores; the host's tiles compute the same from the same inputs without them.
#if (defined(SIMT_BF16) || defined(SIMT_TF32)) && !defined(SIMT_TILES_HOST)
#define SIMT_TENSOR 1
#endif

#ifdef SIMT_HOST
#include "kernel_abi.h"

#define DEVICE static inline __attribute__((always_inline))
#define HOST_DEVICE static inline __attribute__((always_inline))
#define METHOD inline __attribute__((always_inline))
#define RESTRICT __restrict__
#define UNROLL _Pragma("clang loop unroll(full)")

#define threadIdx (simt::current->thread_idx)
#define blockIdx (simt::current->block_idx)
#define blockDim (simt::current->block_dim)
#define gridDim (simt::current->grid_dim)

#define SIMT_SITE                                         \
  ([]() -> const simt::Site* {                            \
    static constexpr simt::Site site{__FILE__, __LINE__}; \
    return &site;                                         \
  }())

#ifdef SIMT_TILES_HOST
#define __syncthreads() ((void)0)  // BLOCK_KERNEL blocks have one thread in this configuration; the launch checks it
#define __syncwarp(mask) ((void)0)
#else
#define __syncthreads() simt::barrier(SIMT_SITE)
#define __syncwarp(mask) simt::warp_sync(mask, SIMT_SITE)
#endif

// SHARED(T, name, n): n elements of the block's shared memory. DYN_SHARED(T, name): the launch's dynamic shared memory.
#define SHARED(T, name, n) T* const name = static_cast<T*>(simt::shared_alloc(sizeof(T) * (n), 16, SIMT_SITE))
#define DYN_SHARED(T, name) T* const name = reinterpret_cast<T*>(simt::current->dynamic_shared)

namespace SIMT_VARIANT {
template <class T>
DEVICE uint64_t simt_bits(T v) {
  uint64_t b = 0;
  __builtin_memcpy(&b, &v, sizeof v);
  return b;
}
template <class T>
DEVICE T simt_from_bits(uint64_t b) {
  T v;
  __builtin_memcpy(&v, &b, sizeof v);
  return v;
}
}  // namespace SIMT_VARIANT
// Shuffles over the full warp (mask 0xffffffff), by value of 4 or 8 bytes.
#define shfl_xor(v, lane) \
  simt_from_bits<decltype(v)>(simt::shuffle(simt::Shuffle::bfly, 0xffffffffu, simt_bits(v), lane, 32, SIMT_SITE))
#define shfl_down(v, lane) \
  simt_from_bits<decltype(v)>(simt::shuffle(simt::Shuffle::down, 0xffffffffu, simt_bits(v), lane, 32, SIMT_SITE))
#define shfl_idx(v, lane) \
  simt_from_bits<decltype(v)>(simt::shuffle(simt::Shuffle::idx, 0xffffffffu, simt_bits(v), lane, 32, SIMT_SITE))
// Whether the predicate holds on any lane of the full warp.
#define any_lane(predicate) (simt::ballot(0xffffffffu, predicate, SIMT_SITE) != 0)

namespace SIMT_VARIANT {

// a, which the compiler must take for another value each time: what is computed from it stays in a loop and takes no registers around it.
DEVICE uint32_t each_time(uint32_t a) { return a; }

template <class T>
struct simt_param;
template <class T>
struct simt_param<T*> {
  static constexpr simt::Param kind = simt::Param::pointer;
  static constexpr int align = alignof(T);
};
template <>
struct simt_param<int> {
  static constexpr simt::Param kind = simt::Param::i32;
  static constexpr int align = 1;
};
template <>
struct simt_param<unsigned> {
  static constexpr simt::Param kind = simt::Param::i32;
  static constexpr int align = 1;
};
template <>
struct simt_param<long long> {
  static constexpr simt::Param kind = simt::Param::i64;
  static constexpr int align = 1;
};
template <>
struct simt_param<uint64_t> {
  static constexpr simt::Param kind = simt::Param::i64;
  static constexpr int align = 1;
};
template <>
struct simt_param<acc> {
  static constexpr simt::Param kind = simt::Param::real;
  static constexpr int align = 1;
};

template <int... I>
struct simt_indices {};
template <class... A, int... I>
DEVICE void simt_call(void (*f)(A...), void* const* args, simt_indices<I...>) {
  f(*static_cast<A*>(args[I])...);
}
template <class I, I... N>
using simt_sequence = simt_indices<static_cast<int>(N)...>;
template <class... A>
DEVICE void simt_unpack(void (*f)(A...), void* const* args) {
  simt_call(f, args, __make_integer_seq<simt_sequence, int, sizeof...(A)>{});
}
template <class... A>
constexpr simt::Entry simt_entry(const char* name, const char* variant, void (*)(A...), void (*invoke)(void* const*), int threads,
                                 bool cooperative) {
  static_assert(sizeof...(A) <= simt::max_params, "too many kernel parameters");
  return simt::Entry{name,
                     variant,
                     invoke,
                     sizeof...(A),
                     {simt_param<A>::kind...},
                     {static_cast<uint8_t>(sizeof(A))...},
                     {static_cast<uint8_t>(simt_param<A>::align)...},
                     threads,
                     cooperative};
}

}  // namespace SIMT_VARIANT

#define SIMT_STRING_(x) #x
#define SIMT_STRING(x) SIMT_STRING_(x)
#define SIMT_LIST(section_name) __attribute__((section(section_name), used, retain))

#define SIMT_ENTRY(name, max_threads, cooperative, params, args)                                           \
  static void name##_entry params { name##_body<acc> args; }                                               \
  static void name##_invoke(void* const* simt_args) { simt_unpack(name##_entry, simt_args); }              \
  static constexpr simt::Entry name##_table =                                                              \
      simt_entry(#name, SIMT_STRING(SIMT_VARIANT), name##_entry, name##_invoke, max_threads, cooperative); \
  SIMT_LIST("simt_entries") static const simt::Entry* const name##_listed = &name##_table;
#define KERNEL(name, max_threads, params, args) SIMT_ENTRY(name, max_threads, false, params, args)
#define KERNEL_MIN(name, max_threads, min_blocks, params, args) SIMT_ENTRY(name, max_threads, false, params, args)
#define BLOCK_KERNEL(name, max_threads, params, args) SIMT_ENTRY(name, max_threads, true, params, args)
#define BLOCK_KERNEL_MIN(name, max_threads, min_blocks, params, args) SIMT_ENTRY(name, max_threads, true, params, args)
#define GEOMETRY(name, ...)                                                                                     \
  static constexpr int name##_geometry[] = {__VA_ARGS__};                                                       \
  static constexpr simt::Global name##_global = {#name "_geometry", SIMT_STRING(SIMT_VARIANT), name##_geometry, \
                                                 sizeof name##_geometry};                                       \
  SIMT_LIST("simt_globals") static const simt::Global* const name##_global_listed = &name##_global;

#else  // a GPU

#ifdef __clang__
#define __device__ __attribute__((device))
#define __global__ __attribute__((global))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
#define __forceinline__ inline __attribute__((always_inline))
#include <__clang_cuda_builtin_vars.h>
#define __syncwarp(mask) __nvvm_bar_warp_sync(mask)
#define SIMT_MIN_BLOCKS 0
#else
#define SIMT_MIN_BLOCKS 1
#endif

#define DEVICE static __device__ __forceinline__
#define HOST_DEVICE static __device__ __forceinline__
#define METHOD __device__ __forceinline__
#define RESTRICT __restrict__
#define UNROLL _Pragma("unroll")

#define SHARED(T, name, n) __shared__ __attribute__((aligned(16))) T name[n]
#define DYN_SHARED(T, name)                                                  \
  extern __shared__ __attribute__((aligned(16))) char simt_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(simt_dynamic_shared)

namespace SIMT_VARIANT {
DEVICE uint32_t simt_shuffle(uint32_t v, uint32_t lane, int mode) {
  uint32_t r;
  // The last operand packs the clamp and the segment mask of shfl.sync (PTX ISA): 0x1f is a full warp.
  if (mode == 0) {
    asm volatile("shfl.sync.idx.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(r) : "r"(v), "r"(lane));
  } else if (mode == 1) {
    asm volatile("shfl.sync.down.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(r) : "r"(v), "r"(lane));
  } else {
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(r) : "r"(v), "r"(lane));
  }
  return r;
}
template <class T>
DEVICE T simt_shuffled(T v, uint32_t lane, int mode) {
  static_assert(sizeof(T) == 4, "shuffles move 4 bytes on a GPU");
  uint32_t b;
  __builtin_memcpy(&b, &v, 4);
  b = simt_shuffle(b, lane, mode);
  T r;
  __builtin_memcpy(&r, &b, 4);
  return r;
}
DEVICE uint32_t each_time(uint32_t a) {
  uint32_t r;
  asm volatile("mov.b32 %0, %1;" : "=r"(r) : "r"(a));
  return r;
}
DEVICE bool any_lane(bool predicate) {
  uint32_t r;
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %1, 0; vote.sync.any.pred p, p, 0xffffffff; selp.u32 %0, 1, 0, p; }"
               : "=r"(r)
               : "r"(static_cast<uint32_t>(predicate)));
  return r != 0;
}
}  // namespace SIMT_VARIANT
#define shfl_idx(v, lane) simt_shuffled(v, lane, 0)
#define shfl_down(v, lane) simt_shuffled(v, lane, 1)
#define shfl_xor(v, lane) simt_shuffled(v, lane, 2)

// min_blocks: with 0, ptxas chooses how many blocks a multiprocessor should hold, and may spill a little to get there; with 1
// it takes the registers that it wants. nvcc's PTX spills more readily, so there 1 is the least.
#define SIMT_ENTRY(name, max_threads, min_blocks, params, args)                                                           \
  extern "C" __global__ __launch_bounds__(max_threads,                                                                    \
                                          min_blocks > SIMT_MIN_BLOCKS ? min_blocks : SIMT_MIN_BLOCKS) void name params { \
    name##_body<acc> args;                                                                                                \
  }
#define KERNEL(name, max_threads, params, args) SIMT_ENTRY(name, max_threads, 0, params, args)
#define KERNEL_MIN(name, max_threads, min_blocks, params, args) SIMT_ENTRY(name, max_threads, min_blocks, params, args)
#define BLOCK_KERNEL(name, max_threads, params, args) SIMT_ENTRY(name, max_threads, 0, params, args)
#define BLOCK_KERNEL_MIN(name, max_threads, min_blocks, params, args) SIMT_ENTRY(name, max_threads, min_blocks, params, args)
#define GEOMETRY(name, ...) extern "C" __device__ __constant__ __attribute__((used)) const int name##_geometry[] = {__VA_ARGS__};

#endif

// vec<T, N>: N values in registers on a GPU, in SIMD registers on the host (nvcc rejects vector_size). load and store take
// any address aligned to T; *_aligned ones take an address aligned to 16 bytes and N·sizeof(T) a multiple of 16.
namespace SIMT_VARIANT {

#ifdef SIMT_HOST
template <class T, int N>
struct vec {
  typedef T type __attribute__((ext_vector_type(N)));
  typedef T loose __attribute__((ext_vector_type(N), aligned(sizeof(T))));
  typedef T tight __attribute__((ext_vector_type(N), aligned(16)));
  type v;
  DEVICE vec splat(T a) { return {type(a)}; }
  DEVICE vec load(const T* p) { return {*reinterpret_cast<const loose*>(p)}; }
  DEVICE vec load_aligned(const T* p) { return {*reinterpret_cast<const tight*>(p)}; }
  inline __attribute__((always_inline)) void store(T* p) const { *reinterpret_cast<loose*>(p) = v; }
  inline __attribute__((always_inline)) void store_aligned(T* p) const { *reinterpret_cast<tight*>(p) = v; }
  inline __attribute__((always_inline)) T operator[](int i) const { return v[i]; }
  inline __attribute__((always_inline)) void set(int i, T a) { v[i] = a; }
};
template <class T, int N>
DEVICE vec<T, N> operator+(vec<T, N> a, vec<T, N> b) {
  return {a.v + b.v};
}
template <class T, int N>
DEVICE vec<T, N> operator-(vec<T, N> a, vec<T, N> b) {
  return {a.v - b.v};
}
template <class T, int N>
DEVICE vec<T, N> operator*(vec<T, N> a, vec<T, N> b) {
  return {a.v * b.v};
}
template <class T, int N>
DEVICE vec<T, N> fma(vec<T, N> a, vec<T, N> b, vec<T, N> c) {
  return {__builtin_elementwise_fma(a.v, b.v, c.v)};
}
template <class T, int N>
DEVICE vec<T, N> fma(T a, vec<T, N> b, vec<T, N> c) {
  return fma(vec<T, N>::splat(a), b, c);
}
DEVICE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
template <class T, int N>
struct vec {
  T v[N];
  static __device__ __forceinline__ vec splat(T a) {
    vec r;
    UNROLL for (int i = 0; i < N; i++) r.v[i] = a;
    return r;
  }
#ifdef __clang__
  typedef T quad __attribute__((ext_vector_type(16 / sizeof(T))));  // one load in LLVM, too: nothing parts it
#else
  struct alignas(16) quad {
    T v[16 / sizeof(T)];
    __device__ __forceinline__ T& operator[](int i) { return v[i]; }
    __device__ __forceinline__ const T& operator[](int i) const { return v[i]; }
  };
#endif
  static constexpr int quads = N * static_cast<int>(sizeof(T)) / 16;
  static __device__ __forceinline__ vec load(const T* p) {
    vec r;
    UNROLL for (int i = 0; i < N; i++) r.v[i] = p[i];
    return r;
  }
  static __device__ __forceinline__ vec load_aligned(const T* p) {
    vec r;
    UNROLL for (int q = 0; q < quads; q++) {
      const quad b = reinterpret_cast<const quad*>(p)[q];
      UNROLL for (int i = 0; i < N / quads; i++) r.v[q * (N / quads) + i] = b[i];
    }
    return r;
  }
  __device__ __forceinline__ void store(T* p) const { UNROLL for (int i = 0; i < N; i++) p[i] = v[i]; }
  __device__ __forceinline__ void store_aligned(T* p) const {
    UNROLL for (int q = 0; q < quads; q++) {
      quad b;
      UNROLL for (int i = 0; i < N / quads; i++) b[i] = v[q * (N / quads) + i];
      reinterpret_cast<quad*>(p)[q] = b;
    }
  }
  __device__ __forceinline__ T operator[](int i) const { return v[i]; }
  __device__ __forceinline__ void set(int i, T a) { v[i] = a; }
};
template <class T, int N>
DEVICE vec<T, N> operator+(vec<T, N> a, vec<T, N> b) {
  UNROLL for (int i = 0; i < N; i++) a.v[i] = a.v[i] + b.v[i];
  return a;
}
template <class T, int N>
DEVICE vec<T, N> operator-(vec<T, N> a, vec<T, N> b) {
  UNROLL for (int i = 0; i < N; i++) a.v[i] = a.v[i] - b.v[i];
  return a;
}
template <class T, int N>
DEVICE vec<T, N> operator*(vec<T, N> a, vec<T, N> b) {
  UNROLL for (int i = 0; i < N; i++) a.v[i] = a.v[i] * b.v[i];
  return a;
}
DEVICE float fma(float a, float b, float c) {
  float r;
  asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(r) : "f"(a), "f"(b), "f"(c));
  return r;
}
template <class T, int N>
DEVICE vec<T, N> fma(vec<T, N> a, vec<T, N> b, vec<T, N> c) {
  UNROLL for (int i = 0; i < N; i++) c.v[i] = fma(a.v[i], b.v[i], c.v[i]);
  return c;
}
template <class T, int N>
DEVICE vec<T, N> fma(T a, vec<T, N> b, vec<T, N> c) {
  UNROLL for (int i = 0; i < N; i++) c.v[i] = fma(a, b.v[i], c.v[i]);
  return c;
}
#endif

}  // namespace SIMT_VARIANT
