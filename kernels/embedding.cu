// Embeddings of time and class.
//
//   timestep_embedding  y[n] = (sin(2 pi t[n] f_i), cos(2 pi t[n] f_i)), i < dim/2; flip: cosines first; an odd dim
//   ends with a 0.
//                       frequencies f_i = exp(-ln(max_period) i / (dim/2 - freq_shift)) / 2 pi come in turns, as hi +
//                       lo: freq [2][dim/2].
//   embedding_forward   y[n] = x[n] + table[label[n]], rows of c; NaN where the label is not in 0 ... classes - 1
//   embedding_backward  partial[s * stride + k * c + j] = sum over the images i of shard s with label k, in order, of
//   dy[i][j]
//
// t f has more digits than a float: t hi = p + e exactly (fma), the whole turns of p go first, then e and t lo are
// added; sine and cosine are good to 1e-6 for |t f| < 2^22 turns. embedding_backward assigns the whole [classes][c] of
// every shard, 0 where a class does not occur. A thread takes kRowChannels elements of kRows rows (rows of frequencies;
// rows (shard, class)). Bound: bytes; embedding_backward reads the labels of its shard for every row, from cache.
#include "math.cuh"

namespace SIMT_VARIANT {

// Adding it rounds to an integer: 1.5 2^23, 1.5 2^52.
template <class T>
constexpr T whole_turns_bias() {
  return sizeof(T) == 4 ? T(12582912.0) : T(6755399441055744.0);
}

template <class T>
DEVICE void timestep_embedding_body(real* y, const T* t, const T* freq, int rows, int dim, int flip) {
  const int half = dim / 2;
  row_elements(rows, half, [&](long long row, int i, auto w) {
    constexpr int N = decltype(w)::n;
    using V = vec<T, N>;
    const V time = V::splat(t[row]), bias = V::splat(whole_turns_bias<T>());
    const V hi = V::load(freq + i), lo = V::load(freq + half + i);
    const V p = time * hi;
    const V rest = fma(time, lo, fma(time, hi, T(-1) * p));
    V sine, cosine;
    sincos_turns(p - ((p + bias) - bias) + rest, sine, cosine);
    real* to = y + row * dim;
    store_loose(to + i, flip ? cosine : sine);
    store_loose(to + half + i, flip ? sine : cosine);
    if (dim % 2 && i + N == half) store(to + dim - 1, vec<T, 1>::splat(T(0)));
  });
}

template <class T>
DEVICE void embedding_forward_body(real* y, const real* x, const T* table, const int* labels, int rows, int c, int classes) {
  row_elements(rows, c, [&](long long row, int ch, auto w) {
    constexpr int N = decltype(w)::n;
    const int label = labels[row];
    const bool known = label >= 0 && label < classes;
    const vec<T, N> add =
        known ? load<N>(table + static_cast<long long>(label) * c + ch) : vec<T, N>::splat(T(__builtin_nanf("")));
    store(y + row * c + ch, load<N>(x + row * c + ch) + add);
  });
}

// images: how many there are; shard s has those from s * size.
template <class T>
DEVICE void embedding_backward_body(T* partial, long long stride, const real* dy, const int* labels, int images, int shards,
                                    int size, int c, int classes) {
  row_elements(static_cast<long long>(shards) * classes, c, [&](long long row, int ch, auto w) {
    constexpr int N = decltype(w)::n;
    const long long shard = row / classes, begin = shard * size;
    const int label = static_cast<int>(row % classes);
    const long long end = images - begin > size ? begin + size : images;
    vec<T, N> total = vec<T, N>::splat(T(0));
    for (long long i = begin; i < end; i++) {
      if (labels[i] == label) total = total + load<N>(dy + i * c + ch);
    }
    total.store(partial + shard * stride + static_cast<long long>(label) * c + ch);
  });
}

KERNEL(timestep_embedding, kRowThreads, (real* y, const acc* t, const acc* freq, int rows, int dim, int flip),
       (y, t, freq, rows, dim, flip))
GEOMETRY(timestep_embedding, kRowThreads, kRows, kRowChannels)
KERNEL(embedding_forward, kRowThreads,
       (real* y, const real* x, const acc* table, const int* labels, int rows, int c, int classes),
       (y, x, table, labels, rows, c, classes))
GEOMETRY(embedding_forward, kRowThreads, kRows, kRowChannels)
KERNEL_MIN(embedding_backward, kRowThreads, 1,
           (acc * partial, long long stride, const real* dy, const int* labels, int images, int shards, int size, int c,
            int classes),
           (partial, stride, dy, labels, images, shards, size, c, classes))
GEOMETRY(embedding_backward, kRowThreads, kRows, kRowChannels)

}  // namespace SIMT_VARIANT
