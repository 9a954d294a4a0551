// Sampling: the start x ~ N(0, 1), the time of a step, and the update that every first-order sampler with a clipped
// prediction is,
//
//   x0 = A x + B out,   x0 <- max(-Clip, min(Clip, x0)),   x <- C x0 + D x + E out + Sigma z,   z ~ N(0, 1).
//
// x, out [N][per_image], t [N]; input is x as the network reads it, in reals; table rows are (Time, A, B, C, D, E, Sigma, Clip), row state.step belongs to this step,
// Clip is infinite for none. A NaN of the network stays a NaN. z: purpose 5 at (image, step), image = first + n; the
// start: purpose 4 at step 0. Steps with Sigma = 0 draw nothing. A block takes kImageElements elements of an image, a
// thread kDraw at a time. Bound: bytes (x read and written, out read), on a CPU the generator.
#include "philox.cuh"

namespace SIMT_VARIANT {

constexpr int kRowLength = 8;

template <class T, int N>
DEVICE vec<T, N> clip_keep_nan(vec<T, N> a, T bound) {
#ifdef SIMT_HOST
  using V = typename vec<T, N>::type;
  const V low = V(-bound), high = V(bound);
  a.v = a.v < low ? low : a.v;
  a.v = a.v > high ? high : a.v;
#else
  UNROLL for (int i = 0; i < N; i++) {
    a.v[i] = a.v[i] < -bound ? -bound : a.v[i];
    a.v[i] = a.v[i] > bound ? bound : a.v[i];
  }
#endif
  return a;
}

// grid: N x chunks of kImageElements.
template <class T>
DEVICE void sample_start_body(T* x, real* input, const StepState* state, int per_image) {
  image_part(per_image, [&](int n, int first, int end) {
    const RandomStream s = random_stream(state->seed, kDrawStart, state->first + n, 0);
    T* to = x + static_cast<long long>(n) * per_image;
    real* in = input + static_cast<long long>(n) * per_image;
    image_pieces(per_image, first, end, [&](auto piece) {
      const vec<T, kDraw> start = random_normals<T>(s, piece.e);
      piece.store(to, start);
      piece.store(in, start);
    });
  });
}

template <class T>
DEVICE void sample_time_body(T* t, const T* table, const StepState* state, long long n) {
  const T time = table[state->step * kRowLength];
  elements(n, [&](long long i, auto w) {
    constexpr int N = decltype(w)::n;
    store(t + i, vec<T, N>::splat(time));
  });
}

// grid: N x chunks of kImageElements.
template <class T>
DEVICE void sample_update_body(T* x, real* input, const real* out, const T* table, const StepState* state, int per_image) {
  const T* row = table + state->step * kRowLength;
  const T a = row[1], b = row[2], c = row[3], d = row[4], e = row[5], sigma = row[6], clip = row[7];
  image_part(per_image, [&](int n, int first, int end) {
    const RandomStream s = random_stream(state->seed, kDrawSampling, state->first + n, state->step);
    const real* net = out + static_cast<long long>(n) * per_image;
    T* image = x + static_cast<long long>(n) * per_image;
    real* in = input + static_cast<long long>(n) * per_image;
    image_pieces(per_image, first, end, [&](auto piece) {
      const vec<T, kDraw> xt = piece.load(image), y = piece.load(net);
      const vec<T, kDraw> x0 = clip_keep_nan(fma(a, xt, b * y), clip);
      vec<T, kDraw> next = fma(c, x0, fma(d, xt, e * y));
      if (sigma > T(0)) next = fma(sigma, random_normals<T>(s, piece.e), next);
      piece.store(image, next);
      piece.store(in, next);
    });
  });
}

KERNEL(sample_start, kImageThreads, (acc * x, real* input, const StepState* state, int per_image), (x, input, state, per_image))
GEOMETRY(sample_start, kImageThreads, kImageElements)
KERNEL(sample_time, kElementThreads, (acc * t, const acc* table, const StepState* state, long long n), (t, table, state, n))
GEOMETRY(sample_time, kElementThreads, kElements)
KERNEL(sample_update, kImageThreads,
       (acc * x, real* input, const real* out, const acc* table, const StepState* state, int per_image),
       (x, input, out, table, state, per_image))
GEOMETRY(sample_update, kImageThreads, kImageElements)

}  // namespace SIMT_VARIANT
