// Sums in a fixed order.
//
//   pixel_sum   out[n * row + c] = sum over pixels p of x[n][p][c], x [N][HW][C]; where `rounded` is not null, also in
//               rounded[n][c] as reals, and then out may be null
//   shard_sum   partial[s * stride + k] = sum over the images i of shard s, in order, of per_image[i * row + k], k < c;
//               0 for an empty shard
//   shard_sum_reals  the same of perImage in reals
//   tree_sum    out[k] = ((p0 + p1) + (p2 + p3)) + ((p4 + p5) + (p6 + p7)), p_s = partial[s * stride + k], count a power of two
//
// pixel_sum: a block takes kSumChannels channels of one image; a lane of kVec channels sums every kSumLanes-th pixel in runs of
// kRun, then lanes add up in order. shard_sum, tree_sum: a thread takes kElements elements, as
// vectors where all rows let it. No order depends on the batch.
// Bound: bytes.
#include "vec.cuh"

namespace SIMT_VARIANT {

constexpr int kRun = 32;  // a sum of L pixels has an error of about (kRun + L / kRun) roundings
#ifdef SIMT_TILES_HOST
constexpr int kSumThreads = 1, kSumChannels = 64, kSumVec = 32;
#else
constexpr int kSumThreads = 256, kSumChannels = 32;
#endif

// Adds up pixels first, first + step, ... of the N channels at x, in runs.
template <int N, class P, class T = acc_of<P>>
DEVICE vec<T, N> sum_pixels(const P* x, int first, int step, int hw, int c) {
  vec<T, N> total = vec<T, N>::splat(T(0));
  for (long long p = first; p < hw;) {
    vec<T, N> run = vec<T, N>::splat(T(0));
    for (int i = 0; i < kRun && p < hw; i++, p += step) run = run + load<N>(x + p * c);
    total = total + run;
  }
  return total;
}

// grid: N x ceil(C / kSumChannels).
template <class T>
DEVICE void pixel_sum_body(T* out, int row, real* rounded, const real* x, int hw, int c) {
  const int chunks = (c + kSumChannels - 1) / kSumChannels;
  const int n = blockIdx.x / chunks, c0 = blockIdx.x % chunks * kSumChannels;
  const int width_ = c - c0 < kSumChannels ? c - c0 : kSumChannels;
  const real* from = x + static_cast<long long>(n) * hw * c + c0;
#ifdef SIMT_TILES_HOST
  spans<kSumVec>(0, width_, [&](long long i, auto w) {
    constexpr int N = decltype(w)::n;
    const vec<T, N> total = sum_pixels<N>(from + i, 0, 1, hw, c);
    if (out) store(out + static_cast<long long>(n) * row + c0 + i, total);
    if (rounded) store(rounded + static_cast<long long>(n) * c + c0 + i, total);
  });
#else
  constexpr int kSumLanes = kSumThreads * kVec / kSumChannels;
  SHARED(T, part, kSumLanes * kSumChannels);
  if (vector_rows(c)) {
    const int i = threadIdx.x % (kSumChannels / kVec) * kVec, lane = threadIdx.x / (kSumChannels / kVec);
    if (i < width_) store(part + lane * kSumChannels + i, sum_pixels<kVec>(from + i, lane, kSumLanes, hw, c));
  } else {
    const int i = threadIdx.x % kSumChannels;
    for (int lane = threadIdx.x / kSumChannels; lane < kSumLanes; lane += kSumThreads / kSumChannels) {
      if (i < width_) store(part + lane * kSumChannels + i, sum_pixels<1>(from + i, lane, kSumLanes, hw, c));
    }
  }
  __syncthreads();
  if (threadIdx.x < static_cast<unsigned>(width_)) {
    T total = T(0);
    for (int lane = 0; lane < kSumLanes; lane++) total = total + part[lane * kSumChannels + threadIdx.x];
    if (out) out[static_cast<long long>(n) * row + c0 + threadIdx.x] = total;
    if (rounded) store(rounded + static_cast<long long>(n) * c + c0 + threadIdx.x, vec<T, 1>::splat(total));
  }
#endif
}

// Elements that a thread of shard_sum takes at a time: 16 bytes.
#ifdef SIMT_TILES_HOST
template <class P>
constexpr int shard_sum_vec = kVec;
#else
template <class P>
constexpr int shard_sum_vec = sizeof(P) == 2 ? 8 : 4;
#endif

// grid: count x ceil(C / elements per block). images: how many there are; shard s has those from s * size.
template <class T, class P>
DEVICE void shard_sum_of(T* partial, long long stride, const P* per_image, int row, int images, int size, int c) {
  const int chunk = kElementThreads * kElements;
  const int chunks = (c + chunk - 1) / chunk;
  const int s = blockIdx.x / chunks;
  const int first = static_cast<int>(blockIdx.x) % chunks * chunk, last = c - first > chunk ? first + chunk : c;
  const int image = s * size, rows = images - image > size ? size : images - image;
  const P* const from = per_image + static_cast<long long>(image) * row;
  T* const to = partial + s * stride;
  // Elements begin … end, N at a time by neighbouring threads.
  const auto sweep = [&](int begin, int end, auto w) {
    constexpr int N = decltype(w)::n;
    for (int k = begin + static_cast<int>(threadIdx.x) * N; k < end; k += kElementThreads * N) {
      vec<T, N> total = vec<T, N>::splat(T(0));
      const P* x = from + k;
      for (int i = 0; i < rows; i++, x += row) total = total + load<N>(x);
      store(to + k, total);
    }
  };
  constexpr int V = shard_sum_vec<P>;
  const bool aligned = vector_rows(row) && vector_rows(static_cast<int>(stride % kVec));
  const int whole = aligned && vector_start(partial) && vector_start(per_image) ? first + (last - first) / V * V : first;
  sweep(first, whole, width<V>{});
  sweep(whole, last, width<1>{});
}

template <class T>
DEVICE void shard_sum_body(T* partial, long long stride, const T* per_image, int row, int images, int size, int c) {
  shard_sum_of(partial, stride, per_image, row, images, size, c);
}
template <class T>
DEVICE void shard_sum_reals_body(T* partial, long long stride, const real* per_image, int row, int images, int size, int c) {
  shard_sum_of(partial, stride, per_image, row, images, size, c);
}

template <int COUNT, int N>
struct tree {
  template <class T>
  DEVICE vec<T, N> sum(const T* p, long long stride) {
    return tree<COUNT / 2, N>::sum(p, stride) + tree<COUNT / 2, N>::sum(p + COUNT / 2 * stride, stride);
  }
};
template <int N>
struct tree<1, N> {
  template <class T>
  DEVICE vec<T, N> sum(const T* p, long long) {
    return load<N>(p);
  }
};

template <class T>
DEVICE void tree_sum_body(T* out, const T* partial, long long stride, int count, long long n) {
  const auto with = [&](auto shards) {
    const auto body = [&](long long i, auto w) {
      constexpr int N = decltype(w)::n;
      store(out + i, tree<decltype(shards)::n, N>::sum(partial + i, stride));
    };
    if (vector_rows(static_cast<int>(stride % kVec))) {
      elements(n, body);
    } else {
      const long long first = (static_cast<long long>(blockIdx.x) * kElementThreads + threadIdx.x) * kElements;
      for (long long i = first; i < first + kElements && i < n; i++) body(i, width<1>{});
    }
  };
  switch (count) {
    case 1: return with(width<1>{});
    case 2: return with(width<2>{});
    case 4: return with(width<4>{});
    case 8: return with(width<8>{});
    case 16: return with(width<16>{});
    case 32: return with(width<32>{});
  }
}

BLOCK_KERNEL(pixel_sum, kSumThreads, (acc * out, int row, real* rounded, const real* x, int hw, int c),
             (out, row, rounded, x, hw, c))
GEOMETRY(pixel_sum, kSumThreads, kSumChannels)
KERNEL(shard_sum, kElementThreads, (acc * partial, long long stride, const acc* per_image, int row, int images, int size, int c),
       (partial, stride, per_image, row, images, size, c))
GEOMETRY(shard_sum, kElementThreads, kElements)
KERNEL(shard_sum_reals, kElementThreads,
       (acc * partial, long long stride, const real* per_image, int row, int images, int size, int c),
       (partial, stride, per_image, row, images, size, c))
GEOMETRY(shard_sum_reals, kElementThreads, kElements)
KERNEL(tree_sum, kElementThreads, (acc * out, const acc* partial, long long stride, int count, long long n),
       (out, partial, stride, count, n))
GEOMETRY(tree_sum, kElementThreads, kElements)

}  // namespace SIMT_VARIANT
