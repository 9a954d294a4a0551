// The update of all weights at once: flat arenas p, m, v, ema, g of n elements.
//
//   square_sum   partial[b] = sum of g^2 over the b-th chunk of elements
//   grad_norm    norm = sqrt(sum of partial)
//   adam         g <- g min(1, max_norm / (norm + 1e-6))                      (max_norm 0: as it is)
//                g <- g + decay p             (Adam with L2),  p <- p - lr decay p   (decoupled: AdamW)
//                m <- m + (1 - beta1) (g - m),  v <- beta2 v + (1 - beta2) g^2
//                p <- p - lr / correction1 * m / (sqrt(v) / sqrt(correction2) + epsilon)
//                ema <- ema + (1 - ema_decay) (p - ema),  rounded <- p as reals, where it is not null
//   round_reals  y = x as reals
//
// as torch.optim.Adam and AdamW (foreach=False) after clip_grad_norm_. Learning rate, ema_decay, correction = 1 -
// beta^k come from StepState, the norm from grad_norm: a captured graph serves every step. Zeros between tensors stay
// zeros. square_sum: a block takes a chunk, whose size the launcher chooses from nothing but a constant; a thread sums
// every kNormThreads-th vector in runs, then lanes fold, then warps, then the block; grad_norm does the same with one
// block over the partial sums. adam: a thread takes kElements elements. Bound: bytes (g once; adam: five reads and four
// writes).
#include "math.cuh"
#include "state.cuh"

namespace SIMT_VARIANT {

#ifdef SIMT_TILES_HOST
constexpr int kNormThreads = 1, kNormVec = 64;
#else
constexpr int kNormThreads = 256, kNormVec = kVec;
#endif
constexpr int kNormRun = 32;

// Sum of f(value) over the values at x, on thread 0. part: kNormThreads / kWarp values of shared memory.
template <class T, class F>
DEVICE T ordered_sum(const T* x, long long count, T* part, F f) {
  using V = vec<T, kNormVec>;
  V total = V::splat(T(0)), run = total;
  T rest = T(0);
  int left = kNormRun;
  const long long step = kNormThreads * kNormVec;
  for (long long i = static_cast<long long>(threadIdx.x) * kNormVec; i < count; i += step) {
    if (i + kNormVec > count) {
      for (long long k = i; k < count; k++) rest = rest + f(vec<T, 1>::load(x + k))[0];
      break;
    }
    run = run + f(load<kNormVec>(x + i));
    if (--left == 0) {
      total = total + run;
      run = V::splat(T(0));
      left = kNormRun;
    }
  }
  return block_sum<kNormThreads>(sum(total + run) + rest, part);
}

// grid: ceil(n / chunk); chunk is a multiple of kNormVec.
template <class T>
DEVICE void square_sum_body(T* partial, const T* g, long long n, int chunk) {
  SHARED(T, part, kNormThreads / kWarp);
  const long long first = static_cast<long long>(blockIdx.x) * chunk;
  const T total = ordered_sum(g + first, n - first < chunk ? n - first : chunk, part, [](auto a) { return a * a; });
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// grid: 1.
template <class T>
DEVICE void grad_norm_body(T* norm, const T* partial, int count) {
  SHARED(T, part, kNormThreads / kWarp);
  const T total = ordered_sum(partial, count, part, [](auto a) { return a; });
  if (threadIdx.x == 0) norm[0] = sqrt(total);
}

// rest1 = 1 - beta1, rest2 = 1 - beta2.
template <class T>
DEVICE void adam_body(T* p, T* m, T* v, T* ema, real* rounded, const T* g, const T* norm, const StepState* state, long long n,
                      T rest1, T beta2, T rest2, T epsilon, T decay, int decoupled, T max_norm) {
  const T rate = static_cast<T>(state->learning_rate);
  const T size = rate / static_cast<T>(state->correction1);
  const T scale = T(1) / sqrt(static_cast<T>(state->correction2));
  const T average = static_cast<T>(1.0 - state->ema_decay);
  T clip = T(1);
  if (max_norm > T(0)) {
    clip = max_norm / (norm[0] + T(1e-6));
    clip = clip > T(1) ? T(1) : clip;  // a NaN stays
  }
  const T l2 = decoupled ? T(0) : decay, keep = decoupled ? T(1) - rate * decay : T(1);
  elements(n, [&](long long i, auto w) {
    constexpr int N = decltype(w)::n;
    using V = vec<T, N>;
    V weight = load<N>(p + i);
    const V grad = fma(l2, weight, clip * load<N>(g + i));
    V first = load<N>(m + i);
    first = fma(rest1, grad - first, first);
    const V second = fma(rest2 * grad, grad, beta2 * load<N>(v + i));
    const V step = first / fma(scale, sqrt(second), V::splat(epsilon));
    weight = fma(-size, step, keep * weight);
    const V mean = load<N>(ema + i);
    store(m + i, first);
    store(v + i, second);
    store(p + i, weight);
    if (rounded) store(rounded + i, weight);
    store(ema + i, fma(average, weight - mean, mean));
  });
}

template <class T>
DEVICE void round_reals_body(real* y, const T* x, long long n) {
  elements(n, [&](long long i, auto w) { store(y + i, load<decltype(w)::n>(x + i)); });
}

BLOCK_KERNEL(square_sum, kNormThreads, (acc * partial, const acc* g, long long n, int chunk), (partial, g, n, chunk))
GEOMETRY(square_sum, kNormThreads)
BLOCK_KERNEL(grad_norm, kNormThreads, (acc * norm, const acc* partial, int count), (norm, partial, count))
GEOMETRY(grad_norm, kNormThreads)
KERNEL(adam, kElementThreads,
       (acc * p, acc* m, acc* v, acc* ema, real* rounded, const acc* g, const acc* norm, const StepState* state, long long n,
        acc rest1, acc beta2, acc rest2, acc epsilon, acc decay, int decoupled, acc max_norm),
       (p, m, v, ema, rounded, g, norm, state, n, rest1, beta2, rest2, epsilon, decay, decoupled, max_norm))
GEOMETRY(adam, kElementThreads, kElements)
KERNEL(round_reals, kElementThreads, (real* y, const acc* x, long long n), (y, x, n))
GEOMETRY(round_reals, kElementThreads, kElements)

}  // namespace SIMT_VARIANT
