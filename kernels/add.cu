// y = a + b over n elements.
//
// Each thread adds kElements consecutive elements. Bound: bytes (two reads and one write of n reals).
#include "vec.cuh"

namespace SIMT_VARIANT {

template <class T>
DEVICE void add_body(real* y, const real* a, const real* b, long long n) {
  elements(n, [&](long long i, auto w) {
    constexpr int N = decltype(w)::n;
    store(y + i, load<N>(a + i) + load<N>(b + i));
  });
}

KERNEL(add, kElementThreads, (real* y, const real* a, const real* b, long long n), (y, a, b, n))
GEOMETRY(add, kElementThreads, kElements)

}  // namespace SIMT_VARIANT
