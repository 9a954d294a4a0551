// Scaling: y = x * s.
//
// Each thread takes kElements consecutive elements. Bound: bytes (n reals read, n written). y may be x.
#include "vec.cuh"

namespace SIMT_VARIANT {

template <class T>
DEVICE void scale_body(real* y, const real* x, long long n, T s) {
  elements(n, [&](long long i, auto w) {
    constexpr int N = decltype(w)::n;
    store(y + i, s * load<N>(x + i));
  });
}

KERNEL(scale, kElementThreads, (real* y, const real* x, long long n, acc s), (y, x, n, s))
GEOMETRY(scale, kElementThreads, kElements)

}  // namespace SIMT_VARIANT
