// y = a + b over n elements.
//
// Each thread adds ELEMS consecutive elements. Bound: bytes (two reads and one write of n reals).
#include "simt.cuh"

namespace SIMT_VARIANT {

#ifdef SIMT_TILES_HOST
constexpr int kAddThreads = 1, kAddElems = 4096;
#else
constexpr int kAddThreads = 256, kAddElems = 4;
#endif

template <class T>
DEVICE void add_body(T* RESTRICT y, const T* a, const T* b, long long n) {
  const long long first = (static_cast<long long>(blockIdx.x) * kAddThreads + threadIdx.x) * kAddElems;
  const long long end = first + kAddElems < n ? first + kAddElems : n;
  for (long long i = first; i < end; i++) y[i] = a[i] + b[i];
}

KERNEL(add, kAddThreads, (real* y, const real* a, const real* b, long long n), (y, a, b, n))
GEOMETRY(add, kAddThreads, kAddElems)

}  // namespace SIMT_VARIANT
