// What the arithmetic units give at most: chains of fused multiply-adds in registers. The ceiling that ddgpu bench measures itself against.
//
//   out[i] = Σ over kChains chains of a ← a·m + b, `steps` times each, from a = 1 + chain
//
// i is a thread's vector of kPeakWidth values; no chain waits for another, and there are enough of them to hide the latency of an FMA. Each
// block computes the same number of values. Bound: FLOPs, 2·kChains·steps per value.
#include "vec.cuh"

namespace SIMT_VARIANT {

// kChains vectors of accumulators fit the registers (AVX-512 and NEON have 32, AVX2 16) beside m and b.
#ifdef SIMT_TILES_HOST
constexpr int kPeakThreads = 1;
#if defined(__AVX512F__)
constexpr int kPeakWidth = 16, kChains = 16;
#elif defined(__AVX2__)
constexpr int kPeakWidth = 8, kChains = 12;
#else
constexpr int kPeakWidth = 4, kChains = 24;
#endif
#else
constexpr int kPeakThreads = 256, kPeakWidth = 4, kChains = 4;
#endif

template <class T>
DEVICE void peak_body(T* out, int steps, T m, T b) {
  using V = vec<T, kPeakWidth>;
  const V mul = V::splat(m), add = V::splat(b);
  V a[kChains];
  UNROLL for (int i = 0; i < kChains; i++) a[i] = V::splat(T(1 + i));
  for (int s = 0; s < steps; s++) {
    UNROLL for (int i = 0; i < kChains; i++) a[i] = fma(a[i], mul, add);
  }
  V sum = a[0];
  UNROLL for (int i = 1; i < kChains; i++) sum = sum + a[i];
  store(out + (static_cast<long long>(blockIdx.x) * kPeakThreads + threadIdx.x) * kPeakWidth, sum);
}

KERNEL(peak, kPeakThreads, (acc * out, int steps, acc m, acc b), (out, steps, m, b))
GEOMETRY(peak, kPeakThreads, kPeakWidth, kChains)

}  // namespace SIMT_VARIANT
