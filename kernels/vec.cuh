// What every kernel needs around vec<T, N>: the vector width of the configuration, loads that are 128 bits wide on a GPU,
// loops over spans of elements, and sums over a warp. One source serves both tile configurations: on the host a block has
// one thread, a warp has one lane (kWarp), and vectors are long; on a GPU the same loops stride over 32 lanes of 4 values.
#pragma once
#include "simt.cuh"

#ifdef SIMT_HOST
#pragma clang diagnostic ignored "-Wpsabi"  // vectors by value: every function that takes one is always inlined
#endif

namespace SIMT_VARIANT {

#ifdef SIMT_TILES_HOST
constexpr int kWarp = 1;                              // lanes that share a warp sum
constexpr int kVec = 16;                              // values per vector
constexpr int kElementThreads = 1, kElements = 4096;  // elementwise kernels: threads per block, consecutive elements per thread
#else
constexpr int kWarp = 32;
constexpr int kVec = sizeof(real) == 2 ? 8 : 4;  // 128 bits of bf16 or float
constexpr int kElementThreads = 256, kElements = kVec;
#endif

// width<N> as an argument carries N into a lambda.
template <int N>
struct width {
  static constexpr int n = N;
};

// load<N>(p): N values at p. In the GPU configuration p is aligned to the N values, to 16 bytes at most; on the host tiles any
// address will do.
template <int N, class T>
DEVICE vec<T, N> load(const T* p) {
  static_assert(sizeof(T) >= 4, "bf16 has functions of its own");
#ifndef SIMT_TILES_HOST
  if constexpr (N > 1) return vec<T, N>::load_aligned(p);
#endif
  return vec<T, N>::load(p);
}
template <class T, int N>
DEVICE void store(T* p, vec<T, N> a) {
#ifndef SIMT_TILES_HOST
  if constexpr (N > 1) return a.store_aligned(p);
#endif
  a.store(p);
}

// bf16 is read as float, exactly, and written rounded to nearest even; every NaN becomes 0x7fff, as cvt.rn.bf16 has it.
#ifdef SIMT_HOST
template <int N>
struct bf16_lanes {
  typedef uint16_t type __attribute__((ext_vector_type(N)));
#ifdef SIMT_TILES_HOST
  typedef type memory __attribute__((aligned(2)));
#else
  typedef type memory __attribute__((aligned(N * 2 < 16 ? N * 2 : 16)));
#endif
  typedef uint32_t words __attribute__((ext_vector_type(N)));
};
template <int N>
DEVICE vec<float, N> load(const bf16* p) {
  using L = bf16_lanes<N>;
  const typename L::type bits = *reinterpret_cast<const typename L::memory*>(p);
  const typename L::words w = __builtin_convertvector(bits, typename L::words) << 16;
  vec<float, N> r;
  __builtin_memcpy(&r, &w, sizeof w);
  return r;
}
template <int N>
DEVICE void store(bf16* p, vec<float, N> a) {
  using L = bf16_lanes<N>;
  typename L::words w;
  __builtin_memcpy(&w, &a, sizeof w);
  w = (w & 0x7fffffffu) > 0x7f800000u ? typename L::words(0x7fff0000u) : w + 0x7fffu + (w >> 16 & 1u);
  *reinterpret_cast<typename L::memory*>(p) = __builtin_convertvector(w >> 16, typename L::type);
}
#else
template <int N>
struct bf16_words {  // N / 2 words, the lower value in the lower half
#ifdef __clang__
  typedef uint32_t type __attribute__((ext_vector_type(N / 2)));
#else
  struct alignas(N * 2) type {
    uint32_t w[N / 2];
    __device__ __forceinline__ uint32_t& operator[](int i) { return w[i]; }
    __device__ __forceinline__ uint32_t operator[](int i) const { return w[i]; }
  };
#endif
};
DEVICE float bf16_bits_as_float(uint32_t bits) {
  float r;
  __builtin_memcpy(&r, &bits, 4);
  return r;
}
template <int N>
DEVICE vec<float, N> load(const bf16* p) {
  vec<float, N> r;
  if constexpr (N == 1) {
    r.v[0] = bf16_bits_as_float(static_cast<uint32_t>(p->bits) << 16);
  } else {
    constexpr int M = N > 8 ? 8 : N;
    UNROLL for (int q = 0; q < N / M; q++) {
      const typename bf16_words<M>::type b = reinterpret_cast<const typename bf16_words<M>::type*>(p)[q];
      UNROLL for (int i = 0; i < M / 2; i++) {
        r.v[q * M + 2 * i] = bf16_bits_as_float(b[i] << 16);
        r.v[q * M + 2 * i + 1] = bf16_bits_as_float(b[i] & 0xffff0000u);
      }
    }
  }
  return r;
}
template <int N>
DEVICE void store(bf16* p, vec<float, N> a) {
  if constexpr (N == 1) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(p->bits) : "f"(a.v[0]));
  } else {
    constexpr int M = N > 8 ? 8 : N;
    UNROLL for (int q = 0; q < N / M; q++) {
      typename bf16_words<M>::type b;
      UNROLL for (int i = 0; i < M / 2; i++) {
        uint32_t w;  // the first source becomes the upper half
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w) : "f"(a.v[q * M + 2 * i + 1]), "f"(a.v[q * M + 2 * i]));
        b[i] = w;
      }
      reinterpret_cast<typename bf16_words<M>::type*>(p)[q] = b;
    }
  }
}
#endif

// The type that values stored as T are computed in.
template <class T>
struct accumulator {
  using type = T;
};
template <>
struct accumulator<bf16> {
  using type = float;
};
template <class T>
using acc_of = typename accumulator<T>::type;

// As load and store, of an address of which only the alignment of one value is known.
template <int N, class P>
DEVICE vec<acc_of<P>, N> load_loose(const P* p) {
#ifdef SIMT_TILES_HOST
  return load<N>(p);
#else
  vec<acc_of<P>, N> a;
  UNROLL for (int i = 0; i < N; i++) a.set(i, load<1>(p + i)[0]);
  return a;
#endif
}
template <class P, class T, int N>
DEVICE void store_loose(P* p, vec<T, N> a) {
#ifdef SIMT_TILES_HOST
  store(p, a);
#else
  UNROLL for (int i = 0; i < N; i++) store(p + i, vec<T, 1>::splat(a[i]));
#endif
}

// True where rows of c elements start at addresses that load<kVec> may take.
DEVICE bool vector_rows(int c) {
#ifdef SIMT_TILES_HOST
  (void)c;
  return true;
#else
  return c % kVec == 0;
#endif
}

// True where load<kVec> may take p itself.
template <class P>
DEVICE bool vector_start(const P* p) {
#ifdef SIMT_TILES_HOST
  (void)p;
  return true;
#else
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
#endif
}

#ifdef SIMT_HOST
template <class T, int N>
DEVICE vec<T, N> operator/(vec<T, N> a, vec<T, N> b) {
  return {a.v / b.v};
}
#else
template <class T, int N>
DEVICE vec<T, N> operator/(vec<T, N> a, vec<T, N> b) {
  UNROLL for (int i = 0; i < N; i++) a.v[i] = a.v[i] / b.v[i];
  return a;
}
#endif
template <class T, int N>
DEVICE vec<T, N> operator*(T a, vec<T, N> b) {
  return vec<T, N>::splat(a) * b;
}
template <class T, int N>
DEVICE vec<T, N> operator+(T a, vec<T, N> b) {
  return vec<T, N>::splat(a) + b;
}

// Lanewise maximum; a NaN in b wins, so that it is seen in the result.
template <class T, int N>
DEVICE vec<T, N> max(vec<T, N> a, vec<T, N> b) {
#ifdef SIMT_HOST
  return {a.v >= b.v ? a.v : b.v};
#else
  UNROLL for (int i = 0; i < N; i++) a.v[i] = a.v[i] >= b.v[i] ? a.v[i] : b.v[i];
  return a;
#endif
}

// Sum and maximum of a vector's values, by halves: (v0 + v_{N/2}) ... in a fixed tree. N is a power of two.
template <class T, int N>
struct fold {
  static METHOD T sum(vec<T, N> a) {
    vec<T, N / 2> r;
#ifdef SIMT_HOST
    r.v = a.v.lo + a.v.hi;
#else
    UNROLL for (int i = 0; i < N / 2; i++) r.v[i] = a.v[i] + a.v[i + N / 2];
#endif
    return fold<T, N / 2>::sum(r);
  }
  static METHOD T max(vec<T, N> a) {
    vec<T, N / 2> lo, hi;
#ifdef SIMT_HOST
    lo.v = a.v.lo, hi.v = a.v.hi;
#else
    UNROLL for (int i = 0; i < N / 2; i++) lo.v[i] = a.v[i], hi.v[i] = a.v[i + N / 2];
#endif
    return fold<T, N / 2>::max(SIMT_VARIANT::max(lo, hi));
  }
};
template <class T>
struct fold<T, 1> {
  static METHOD T sum(vec<T, 1> a) { return a[0]; }
  static METHOD T max(vec<T, 1> a) { return a[0]; }
};
template <class T, int N>
DEVICE T sum(vec<T, N> a) {
  return fold<T, N>::sum(a);
}
template <class T, int N>
DEVICE T maximum(vec<T, N> a) {
  return fold<T, N>::max(a);
}

// Sum and maximum over the lanes of a warp, the same on every lane. Every lane must call them.
template <class T>
DEVICE T warp_sum(T a) {
#ifndef SIMT_TILES_HOST
  UNROLL for (int lane = 16; lane > 0; lane /= 2) a = a + shfl_xor(a, lane);
#endif
  return a;
}
template <class T>
DEVICE T warp_max(T a) {
#ifndef SIMT_TILES_HOST
  UNROLL for (int lane = 16; lane > 0; lane /= 2) {
    const T b = shfl_xor(a, lane);
    a = a >= b ? a : b;
  }
#endif
  return a;
}

// Sum over the THREADS threads of a block, by warps, then warp after warp; the value is valid on thread 0. part: shared
// memory for THREADS / kWarp values. Every thread must call it.
template <int THREADS, class T>
DEVICE T block_sum(T a, T* part) {
  a = warp_sum(a);
  if constexpr (THREADS > kWarp) {
    if (threadIdx.x % kWarp == 0) part[threadIdx.x / kWarp] = a;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int i = 1; i < THREADS / kWarp; i++) a = a + part[i];
    }
  }
  return a;
}

// Calls f(i, width<W>) for the whole vectors of [first, end) and f(i, width<1>) for the rest.
template <int W, class F>
DEVICE void spans(long long first, long long end, F f) {
  long long i = first;
  for (; i + W <= end; i += W) f(i, width<W>{});
  for (; i < end; i++) f(i, width<1>{});
}

// The elements of an elementwise kernel that belong to this thread, as spans.
template <class F>
DEVICE void elements(long long n, F f) {
  const long long first = (static_cast<long long>(blockIdx.x) * kElementThreads + threadIdx.x) * kElements;
  spans<kVec>(first, first + kElements < n ? first + kElements : n, f);
}

// The same for a tensor of rows of c elements where the body needs (row, channel): a thread takes kRowChannels consecutive
// channels of kRows consecutive rows. f(row, channel, width).
#ifdef SIMT_TILES_HOST
constexpr int kRowThreads = 1, kRows = 64, kRowChannels = 1 << 30;
#else
constexpr int kRowThreads = 256, kRows = 1, kRowChannels = kVec;
#endif
template <class F>
DEVICE void row_elements(long long rows, int c, F f) {
  const int chunks = c / kRowChannels + (c % kRowChannels != 0);
  const long long thread = static_cast<long long>(blockIdx.x) * kRowThreads + threadIdx.x;
  const long long first = thread / chunks * kRows;
  const int c0 = static_cast<int>(thread % chunks) * kRowChannels;
  const int c1 = c - c0 > kRowChannels ? c0 + kRowChannels : c;
  const long long end = first + kRows < rows ? first + kRows : rows;
  for (long long row = first; row < end; row++) {
    if (vector_rows(c)) {
      spans<kVec>(c0, c1, [&](long long i, auto w) { f(row, static_cast<int>(i), w); });
    } else {
      for (int i = c0; i < c1; i++) f(row, i, width<1>{});
    }
  }
}

}  // namespace SIMT_VARIANT
