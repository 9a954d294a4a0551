// SiLU: y = x s(x), s the logistic function; dx = dy s(x) (1 + x (1 - s(x))).
//
// Each thread takes kElements consecutive elements. Bound: bytes (one read and one write of n reals; two reads backward).
#include "math.cuh"

namespace SIMT_VARIANT {

template <class T>
DEVICE void silu_forward_body(real* y, const real* x, long long n) {
  elements(n, [&](long long i, auto w) {
    constexpr int N = decltype(w)::n;
    const vec<T, N> a = load<N>(x + i);
    store(y + i, a * sigmoid(a));
  });
}

template <class T>
DEVICE void silu_backward_body(real* dx, const real* dy, const real* x, long long n) {
  elements(n, [&](long long i, auto w) {
    constexpr int N = decltype(w)::n;
    const vec<T, N> a = load<N>(x + i), s = sigmoid(a), one = vec<T, N>::splat(T(1));
    store(dx + i, load<N>(dy + i) * s * fma(a, one - s, one));
  });
}

KERNEL(silu_forward, kElementThreads, (real* y, const real* x, long long n), (y, x, n))
GEOMETRY(silu_forward, kElementThreads, kElements)
KERNEL(silu_backward, kElementThreads, (real* dx, const real* dy, const real* x, long long n), (dx, dy, x, n))
GEOMETRY(silu_backward, kElementThreads, kElements)

}  // namespace SIMT_VARIANT
