// Group normalisation of x [N][HW][C] over G groups of C/G neighbouring channels, with SiLU, scale-shift and dropout fused.
//
//   mean, rstd of each (image, group) over its M = HW * C/G values; variance from centred squares; rstd = 1/sqrt(var + eps)
//   xhat = (x - mean) rstd
//   v = xhat g + b,   g = gamma (1 + scale), b = beta (1 + scale) + shift   (scale = shift = 0 without scale-shift)
//   y = v  or  v s(v), s the logistic function, or v s(v) m / (1 - p), m by dropout.cuh
// Backward, with dv = dy  or  dy s(v) (1 + v (1 - s(v))), dy m / (1 - p) in the place of dy where there is dropout, and per image and channel A = sum dv xhat, B = sum dv:
//   dx = rstd (dv g - (sum_c g B)/M - xhat (sum_c g A)/M), c over the group
//   and where the sums over pixels of dx are wanted, for the convolution that made x, those in float and rounded to reals
//   dgamma = A (1 + scale), dbeta = B (1 + scale), dscale = gamma A + beta B, dshift = B, each for one image
//
// A block owns `channels` channels of one image: whole groups, so that it needs nobody else. Its threads are lanes of W channels
// times pixel steps; each sums every steps-th pixel in runs, the steps add up in order, a warp adds the channels of a group.
// Where its part of x (backward: of x and dy) fits into shared memory, a block keeps it there from the first pass on (STAGED): every
// thread reads again what it read itself, 128 bits at a time, so that neither barriers nor bank conflicts come in. On the host, and for
// larger images, later passes read from cache. A convolution that left the statistics of its output in `partial` saves forward the
// passes for them: they are merged (Chan, Golub, LeVeque 1979) and x is read once. Bound: bytes (x once, y once; backward x, dy, dx).
#include "dropout.cuh"

namespace SIMT_VARIANT {

// kNormChannels, kNormElements: a block takes the fewest whole groups that have at least so many channels (on a GPU a sector of 32
// bytes), a multiple of kVec, and so many elements. kNormStage: the bytes that a block may keep.
// kKeep: backward stores dv in dx between its passes, where that is cheaper than to compute the sigmoid again.
#ifdef SIMT_TILES_HOST
constexpr int kNormThreads = 1, kNormChannels = 64, kNormElements = 0, kNormStage = 0;
constexpr bool kKeep = sizeof(real) == sizeof(acc);  // not where dv would be rounded
#else
constexpr int kNormThreads = 256, kNormChannels = 32 / sizeof(real), kNormElements = 4096, kNormStage = 65536;
constexpr bool kKeep = false;
#endif
constexpr int kNormRun = 32;

// How the threads of a block are spread over its channels (lanes of W) and pixels (steps).
template <int W>
struct spread {
  int lanes, steps, lane, step;
};
template <int W>
DEVICE spread<W> spread_over(int channels) {
  spread<W> s;
  s.lanes = (channels + W - 1) / W;
  if (s.lanes > kNormThreads) s.lanes = kNormThreads;
  s.steps = kNormThreads / s.lanes;
  s.lane = threadIdx.x % s.lanes;
  s.step = threadIdx.x / s.lanes;  // threads past the last whole step have none
  return s;
}

// Calls f(channel, width) for the channels of the thread's lane.
template <int W, class F>
DEVICE void lane_channels(const spread<W>& s, int channels, F f) {
  if (s.step >= s.steps) return;
  for (int c = s.lane * W; c < channels; c += s.lanes * W) {
    if (c + W <= channels) {
      f(c, width<W>{});
    } else {
      for (int i = c; i < channels; i++) f(i, width<1>{});
    }
  }
}

// sums[k * channels + c] = sum over pixels of the k-th of K vectors that add(c, width) makes: add returns the function that
// adds pixel p's values to the K running sums. part holds steps * K * channels values. Every thread may read sums afterwards. Where the
// sums are not wanted nothing is added up beyond a thread.
template <int K, int W, class T, class F>
DEVICE void channel_sums(T* sums, T* part, int hw, int channels, F add, bool wanted = true) {
  const auto s = spread_over<W>(channels);
  lane_channels<W>(s, channels, [&](int c, auto w) {
    constexpr int N = decltype(w)::n;
    auto values = add(c, w);
    vec<T, N> total[K];
    UNROLL for (int k = 0; k < K; k++) total[k] = vec<T, N>::splat(T(0));
    for (int p = s.step; p < hw;) {
      vec<T, N> run[K];
      UNROLL for (int k = 0; k < K; k++) run[k] = vec<T, N>::splat(T(0));
      for (int i = 0; i < kNormRun && p < hw; i++, p += s.steps) values(p, run);
      UNROLL for (int k = 0; k < K; k++) total[k] = total[k] + run[k];
    }
    UNROLL for (int k = 0; k < K; k++) store(part + (s.step * K + k) * channels + c, total[k]);
  });
  if (!wanted) return;
  __syncthreads();
  for (int i = threadIdx.x; i < K * channels; i += kNormThreads) {
    T total = part[i];
    for (int step = 1; step < s.steps; step++) total = total + part[step * K * channels + i];
    sums[i] = total;
  }
  __syncthreads();
}

// Calls each(c, sums) for every channel c of the block with the K sums over its group of value(c, k). The calls of a
// group come after its sums; __syncthreads before others read what each wrote.
template <int K, class T, class V, class F>
DEVICE void group_sums(int channels, int group, V value, F each) {
  for (int g = threadIdx.x / kWarp; g < channels / group; g += kNormThreads / kWarp) {
    T total[K];
    UNROLL for (int k = 0; k < K; k++) {
      total[k] = T(0);
      for (int i = threadIdx.x % kWarp; i < group; i += kWarp) total[k] = total[k] + value(g * group + i, k);
      total[k] = warp_sum(total[k]);
    }
    for (int i = threadIdx.x % kWarp; i < group; i += kWarp) each(g * group + i, total);
  }
}

// What a block works on: channels c0 ... c0 + channels of image n.
template <class T>
struct norm_block {
  long long n, first;  // first: of the block's first element in a tensor [N][HW][C]
  int c0, channels, group;
};
template <class T>
DEVICE norm_block<T> norm_block_of(int hw, int c, int groups, int per_block) {
  const int chunks = (c + per_block - 1) / per_block;
  norm_block<T> b;
  b.n = blockIdx.x / chunks;
  b.c0 = static_cast<int>(blockIdx.x % chunks) * per_block;
  b.channels = c - b.c0 < per_block ? c - b.c0 : per_block;
  b.group = c / groups;
  b.first = b.n * hw * c + b.c0;
  return b;
}

// g and b of v = xhat g + b for N channels from channel c of the tensor.
template <class T, int N>
struct affine {
  vec<T, N> g, b, gamma, beta, scale1;  // scale1 = 1 + scale
};
template <int N, class T>
DEVICE affine<T, N> affine_of(const T* gamma, const T* beta, const real* scale_shift, int c, int channels) {
  affine<T, N> a;
  a.gamma = a.g = vec<T, N>::load(gamma + c);
  a.beta = a.b = vec<T, N>::load(beta + c);
  a.scale1 = vec<T, N>::splat(T(1));
  if (scale_shift) {
    a.scale1 = T(1) + load_loose<N>(scale_shift + c);
    a.g = a.gamma * a.scale1;
    a.b = fma(a.beta, a.scale1, load_loose<N>(scale_shift + channels + c));
  }
  return a;
}

// What a block reads more than once: the N values at (pixel p, channel ch) of the block's part of a tensor. first(p, ch, f) reads them as
// f of what is there.
template <bool STAGED>
struct staged_part {
  const real* x;  // of the block's first element
  int c, channels;
  real* stage;  // [HW][channels]
  template <int N, class F>
  METHOD vec<acc, N> first(int p, int ch, F f) const {
    const vec<acc, N> v = f(load<N>(x + static_cast<long long>(p) * c + ch));
    if constexpr (STAGED) store(stage + p * channels + ch, v);
    return v;
  }
  template <int N>
  METHOD vec<acc, N> first(int p, int ch) const {
    return first<N>(p, ch, [](vec<acc, N> v) { return v; });
  }
  template <int N>
  METHOD vec<acc, N> again(int p, int ch) const {
    if constexpr (STAGED) return load<N>(stage + p * channels + ch);
    return load<N>(x + static_cast<long long>(p) * c + ch);
  }
};

// mean and rstd of the block's channels from partial [tiles][C][2], each the mean of hw / tiles pixels and their squares' sum about it.
template <class T>
DEVICE void merge_statistics(const T* partial, int tiles, int hw, int c, const norm_block<T>& b, T eps, T* mean, T* rstd) {
  const T* from = partial + (b.n * tiles * c + b.c0) * 2;
  const int entries = tiles * b.group;
  const T pixels = T(hw / tiles), count = T(entries);
  for (int g = threadIdx.x / kWarp; g < b.channels / b.group; g += kNormThreads / kWarp) {
    const auto entry = [&](int e) { return from + (static_cast<long long>(e / b.group) * c + g * b.group + e % b.group) * 2; };
    T total = T(0), squares = T(0);
    for (int e = threadIdx.x % kWarp; e < entries; e += kWarp) total = total + entry(e)[0];
    const T center = warp_sum(total) / count;
    for (int e = threadIdx.x % kWarp; e < entries; e += kWarp) {
      const T d = entry(e)[0] - center;
      squares = squares + fma(pixels * d, d, entry(e)[1]);
    }
    const T scale = T(1) / sqrt(warp_sum(squares) / (count * pixels) + eps);
    for (int i = threadIdx.x % kWarp; i < b.group; i += kWarp) {
      mean[g * b.group + i] = center;
      rstd[g * b.group + i] = scale;
    }
  }
}

template <int W, bool SILU, bool DROP, bool STAGED, class T>
DEVICE void groupnorm_forward_rows(real* y, T* stats, const T* partial, int tiles, const real* x, const T* gamma, const T* beta,
                                   const real* scale_shift, int hw, int c, const norm_block<T>& b, T eps, const Dropout& dropout,
                                   T* mean, T* rstd, T* sums, T* part, real* stage) {
  y += b.first;
  const T m = T(hw) * T(b.group);
  const staged_part<STAGED> in = {x + b.first, c, b.channels, stage};
  if (partial) {
    merge_statistics(partial, tiles, hw, c, b, eps, mean, rstd);
  } else {
    channel_sums<1, W>(sums, part, hw, b.channels, [&](int ch, auto w) {
      constexpr int N = decltype(w)::n;
      return [=](int p, vec<T, N>* run) { run[0] = run[0] + in.template first<N>(p, ch); };
    });
    group_sums<1, T>(
        b.channels, b.group, [&](int ch, int) { return sums[ch]; }, [&](int ch, const T* s) { mean[ch] = s[0] / m; });
    __syncthreads();
    channel_sums<1, W>(sums, part, hw, b.channels, [&](int ch, auto w) {
      constexpr int N = decltype(w)::n;
      const vec<T, N> center = load<N>(mean + ch);
      return [=](int p, vec<T, N>* run) {
        const vec<T, N> d = in.template again<N>(p, ch) - center;
        run[0] = fma(d, d, run[0]);
      };
    });
    group_sums<1, T>(
        b.channels, b.group, [&](int ch, int) { return sums[ch]; },
        [&](int ch, const T* s) { rstd[ch] = T(1) / sqrt(s[0] / m + eps); });
  }
  __syncthreads();
  for (int g = threadIdx.x; g < b.channels / b.group; g += kNormThreads) {
    T* out = stats + (b.n * (c / b.group) + b.c0 / b.group + g) * 2;
    out[0] = mean[g * b.group];
    out[1] = rstd[g * b.group];
  }
  const auto s = spread_over<W>(b.channels);
  lane_channels<W>(s, b.channels, [&](int ch, auto w) {
    constexpr int N = decltype(w)::n;
    const auto a = affine_of<N>(gamma, beta, scale_shift, b.c0 + ch, c);
    const vec<T, N> center = load<N>(mean + ch), scale = load<N>(rstd + ch);
    dropout_mask<DROP, N, T> mask(dropout, b.n, c, b.c0 + ch);
    for (int p = s.step; p < hw; p += s.steps) {
      const long long i = static_cast<long long>(p) * c + ch;
      const vec<T, N> pixel = partial ? in.template first<N>(p, ch) : in.template again<N>(p, ch);
      vec<T, N> v = fma((pixel - center) * scale, a.g, a.b);
      if (SILU) v = v * sigmoid(v);
      store(y + i, mask.scale(mask.zero(p, v)));
    }
  });
}

// dv of dy at v, dy m in the place of dy where there is dropout.
template <bool SILU, class M, class T, int N>
DEVICE vec<T, N> norm_slope(const M& mask, vec<T, N> dy, vec<T, N> xhat, const affine<T, N>& a) {
  if (!SILU) return dy;
  const vec<T, N> v = fma(xhat, a.g, a.b), s = sigmoid(v), one = vec<T, N>::splat(T(1));
  return mask.scale(dy) * s * fma(v, one - s, one);
}

template <int W, bool SILU, bool DROP, bool STAGED, class T>
DEVICE void groupnorm_backward_rows(real* dx, T* dgamma_beta, real* dscale_shift, T* pixel_sum, int pixel_row, real* rounded,
                                    const real* dy, const real* x, const T* gamma, const T* beta, const real* scale_shift, int hw,
                                    int c, const norm_block<T>& b, const Dropout& dropout, T* mean, T* rstd, T* sums, T* part,
                                    real* stage) {
  const staged_part<STAGED> in = {x + b.first, c, b.channels, stage};
  const staged_part<STAGED> out = {dy + b.first, c, b.channels, STAGED ? stage + hw * b.channels : stage};
  dx += b.first;
  channel_sums<2, W>(sums, part, hw, b.channels, [&](int ch, auto w) {
    constexpr int N = decltype(w)::n;
    const auto a = affine_of<N>(gamma, beta, scale_shift, b.c0 + ch, c);
    const vec<T, N> center = load<N>(mean + ch), scale = load<N>(rstd + ch);
    dropout_mask<DROP, N, T> mask(dropout, b.n, c, b.c0 + ch);
    return [=](int p, vec<T, N>* run) mutable {
      const vec<T, N> xhat = (in.template first<N>(p, ch) - center) * scale;
      const vec<T, N> kept = out.template first<N>(p, ch, [&](vec<T, N> v) { return mask.zero(p, v); });
      const vec<T, N> dv = norm_slope<SILU>(mask, kept, xhat, a);
      if (SILU && kKeep) store(dx + static_cast<long long>(p) * c + ch, dv);
      run[0] = fma(dv, xhat, run[0]);
      run[1] = run[1] + dv;
    };
  });
  const T* sum_a = sums;
  const T* sum_b = sums + b.channels;
  for (int ch = threadIdx.x; ch < b.channels; ch += kNormThreads) {
    const int k = b.c0 + ch;
    const auto a = affine_of<1>(gamma, beta, scale_shift, k, c);
    dgamma_beta[k] = sum_a[ch] * a.scale1[0];
    dgamma_beta[c + k] = sum_b[ch] * a.scale1[0];
    if (dscale_shift) {
      store(dscale_shift + k, vec<T, 1>::splat(fma(a.gamma[0], sum_a[ch], a.beta[0] * sum_b[ch])));
      store(dscale_shift + c + k, vec<T, 1>::splat(sum_b[ch]));
    }
  }
  T* const mean_a = sums;  // per channel, the group's mean of dxhat xhat and of dxhat, in the place of A and B
  T* const mean_b = sums + b.channels;
  const T m = T(hw) * T(b.group);
  __syncthreads();
  group_sums<2, T>(
      b.channels, b.group,
      [&](int ch, int k) { return affine_of<1>(gamma, beta, scale_shift, b.c0 + ch, c).g[0] * sums[k * b.channels + ch]; },
      [&](int ch, const T* s) {
        mean_a[ch] = s[0] / m;
        mean_b[ch] = s[1] / m;
      });
  __syncthreads();
  const bool wanted = pixel_sum || rounded;
  channel_sums<1, W>(
      sums, part, hw, b.channels,
      [&](int ch, auto w) {
        constexpr int N = decltype(w)::n;
        const auto a = affine_of<N>(gamma, beta, scale_shift, b.c0 + ch, c);
        const vec<T, N> center = load<N>(mean + ch), scale = load<N>(rstd + ch);
        dropout_mask<DROP, N, T> mask(dropout, b.n, c, b.c0 + ch);
        const vec<T, N> ma = load<N>(mean_a + ch), mb = load<N>(mean_b + ch);
        return [=](int p, vec<T, N>* run) mutable {
          const long long i = static_cast<long long>(p) * c + ch;
          const vec<T, N> xhat = (in.template again<N>(p, ch) - center) * scale;
          vec<T, N> dv;
          if (SILU && kKeep) {
            dv = load<N>(dx + i);
          } else {
            vec<T, N> kept = out.template again<N>(p, ch);
            if (!STAGED) kept = mask.zero(p, kept);
            dv = norm_slope<SILU>(mask, kept, xhat, a);
          }
          const vec<T, N> d = scale * (dv * a.g - mb - xhat * ma);
          store(dx + i, d);
          run[0] = run[0] + d;
        };
      },
      wanted);
  for (int ch = threadIdx.x; wanted && ch < b.channels; ch += kNormThreads) {
    if (pixel_sum) pixel_sum[b.n * pixel_row + b.c0 + ch] = sums[ch];
    if (rounded) store(rounded + b.n * c + b.c0 + ch, vec<T, 1>::splat(sums[ch]));
  }
}

// Calls run(width<W>, width<SILU>, width<STAGED>, stage): the stage lies behind K lots of sums at part. With dropout there is always SiLU.
template <bool DROP, class T, class F>
DEVICE void norm_variants(int c, int per_block, int staged, int silu, T* part, int k, F run) {
  real* const none = nullptr;
  if (!vector_rows(c)) {
    if (DROP || silu) return run(width<1>{}, width<1>{}, width<0>{}, none);
    if constexpr (!DROP) return run(width<1>{}, width<0>{}, width<0>{}, none);
  }
#ifndef SIMT_TILES_HOST
  if (staged) {
    const int spread = kNormThreads * kVec > per_block ? kNormThreads * kVec : per_block;
    real* const stage = reinterpret_cast<real*>(part + k * spread);
    if (DROP || silu) return run(width<kVec>{}, width<1>{}, width<1>{}, stage);
    if constexpr (!DROP) return run(width<kVec>{}, width<0>{}, width<1>{}, stage);
  }
#endif
  if (DROP || silu) return run(width<kVec>{}, width<1>{}, width<0>{}, none);
  if constexpr (!DROP) run(width<kVec>{}, width<0>{}, width<0>{}, none);
}

// grid: N x chunks of per_block channels. Dynamic shared memory: (2 + K) per_block + K max(per_block, kNormThreads W) sums, K = 1
// forward and 2 backward (a block's channels times steps are at most that, also where it has fewer channels than per_block), then,
// where staged, K hw per_block reals. W is kVec where that divides the channels, else 1.
template <bool DROP, class T>
DEVICE void groupnorm_forward_of(real* y, T* stats, const T* partial, int tiles, const real* x, const T* gamma, const T* beta,
                                 const real* scale_shift, int stride, int hw, int c, int groups, int per_block, int staged, T eps,
                                 int silu, Dropout dropout) {
  DYN_SHARED(T, shared);
  const auto b = norm_block_of<T>(hw, c, groups, per_block);
  if (scale_shift) scale_shift += b.n * stride;
  T *const mean = shared, *const rstd = mean + per_block, *const sums = rstd + per_block, *const part = sums + per_block;
  norm_variants<DROP>(c, per_block, staged, silu, part, 1, [&](auto w, auto fused, auto kept, real* stage) {
    groupnorm_forward_rows<decltype(w)::n, decltype(fused)::n != 0, DROP, decltype(kept)::n != 0>(
        y, stats, partial, tiles, x, gamma, beta, scale_shift, hw, c, b, eps, dropout, mean, rstd, sums, part, stage);
  });
}

template <bool DROP, class T>
DEVICE void groupnorm_backward_of(real* dx, T* dgamma_beta, int row, real* dscale_shift, T* pixel_sum, int pixel_row,
                                  real* rounded, const real* dy, const real* x, const T* gamma, const T* beta,
                                  const real* scale_shift, int stride, const T* stats, int hw, int c, int groups, int per_block,
                                  int staged, int silu, Dropout dropout) {
  DYN_SHARED(T, shared);
  const auto b = norm_block_of<T>(hw, c, groups, per_block);
  if (scale_shift) scale_shift += b.n * stride;
  if (dscale_shift) dscale_shift += b.n * stride;
  dgamma_beta += static_cast<long long>(b.n) * row;
  T *const mean = shared, *const rstd = mean + per_block, *const sums = rstd + per_block, *const part = sums + 2 * per_block;
  for (int ch = threadIdx.x; ch < b.channels; ch += kNormThreads) {
    const T* in = stats + (b.n * groups + (b.c0 + ch) / b.group) * 2;
    mean[ch] = in[0];
    rstd[ch] = in[1];
  }
  __syncthreads();
  norm_variants<DROP>(c, per_block, staged, silu, part, 2, [&](auto w, auto fused, auto kept, real* stage) {
    groupnorm_backward_rows<decltype(w)::n, decltype(fused)::n != 0, DROP, decltype(kept)::n != 0>(
        dx, dgamma_beta, dscale_shift, pixel_sum, pixel_row, rounded, dy, x, gamma, beta, scale_shift, hw, c, b, dropout, mean,
        rstd, sums, part, stage);
  });
}

template <class T>
DEVICE void groupnorm_forward_body(real* y, T* stats, const T* partial, int tiles, const real* x, const T* gamma, const T* beta,
                                   const real* scale_shift, int stride, int hw, int c, int groups, int per_block, int staged,
                                   T eps, int silu) {
  groupnorm_forward_of<false>(y, stats, partial, tiles, x, gamma, beta, scale_shift, stride, hw, c, groups, per_block, staged,
                              eps, silu, {});
}
template <class T>
DEVICE void groupnorm_forward_dropout_body(real* y, T* stats, const T* partial, int tiles, const real* x, const T* gamma,
                                           const T* beta, const real* scale_shift, int stride, int hw, int c, int groups,
                                           int per_block, int staged, T eps, const StepState* state, uint64_t offset, int site,
                                           unsigned threshold, T keep) {
  groupnorm_forward_of<true>(y, stats, partial, tiles, x, gamma, beta, scale_shift, stride, hw, c, groups, per_block, staged, eps,
                             1, {state, offset, site, threshold, keep});
}
template <class T>
DEVICE void groupnorm_backward_body(real* dx, T* dgamma_beta, int row, real* dscale_shift, T* pixel_sum, int pixel_row,
                                    real* rounded, const real* dy, const real* x, const T* gamma, const T* beta,
                                    const real* scale_shift, int stride, const T* stats, int hw, int c, int groups, int per_block,
                                    int staged, int silu) {
  groupnorm_backward_of<false>(dx, dgamma_beta, row, dscale_shift, pixel_sum, pixel_row, rounded, dy, x, gamma, beta, scale_shift,
                               stride, stats, hw, c, groups, per_block, staged, silu, {});
}
template <class T>
DEVICE void groupnorm_backward_dropout_body(real* dx, T* dgamma_beta, int row, real* dscale_shift, T* pixel_sum, int pixel_row,
                                            real* rounded, const real* dy, const real* x, const T* gamma, const T* beta,
                                            const real* scale_shift, int stride, const T* stats, int hw, int c, int groups,
                                            int per_block, int staged, const StepState* state, uint64_t offset, int site,
                                            unsigned threshold, T keep) {
  groupnorm_backward_of<true>(dx, dgamma_beta, row, dscale_shift, pixel_sum, pixel_row, rounded, dy, x, gamma, beta, scale_shift,
                              stride, stats, hw, c, groups, per_block, staged, 1, {state, offset, site, threshold, keep});
}

BLOCK_KERNEL(groupnorm_forward, kNormThreads,
             (real* y, acc* stats, const acc* partial, int tiles, const real* x, const acc* gamma, const acc* beta,
              const real* scale_shift, int stride, int hw, int c, int groups, int per_block, int staged, acc eps, int silu),
             (y, stats, partial, tiles, x, gamma, beta, scale_shift, stride, hw, c, groups, per_block, staged, eps, silu))
GEOMETRY(groupnorm_forward, kNormThreads, kNormChannels, kVec, kNormElements, kNormStage)
BLOCK_KERNEL_MIN(groupnorm_forward_dropout, kNormThreads, 2,
                 (real* y, acc* stats, const acc* partial, int tiles, const real* x, const acc* gamma, const acc* beta,
                  const real* scale_shift, int stride, int hw, int c, int groups, int per_block, int staged, acc eps,
                  const StepState* state, uint64_t offset, int site, unsigned threshold, acc keep),
                 (y, stats, partial, tiles, x, gamma, beta, scale_shift, stride, hw, c, groups, per_block, staged, eps, state,
                  offset, site, threshold, keep))
GEOMETRY(groupnorm_forward_dropout, kNormThreads, kNormChannels, kVec, kNormElements, kNormStage)
BLOCK_KERNEL_MIN(groupnorm_backward, kNormThreads, 2,
                 (real* dx, acc* dgamma_beta, int row, real* dscale_shift, acc* pixel_sum, int pixel_row, real* rounded,
                  const real* dy, const real* x, const acc* gamma, const acc* beta, const real* scale_shift, int stride,
                  const acc* stats, int hw, int c, int groups, int per_block, int staged, int silu),
                 (dx, dgamma_beta, row, dscale_shift, pixel_sum, pixel_row, rounded, dy, x, gamma, beta, scale_shift, stride,
                  stats, hw, c, groups, per_block, staged, silu))
GEOMETRY(groupnorm_backward, kNormThreads, kNormChannels, kVec, kNormElements, kNormStage)
BLOCK_KERNEL_MIN(groupnorm_backward_dropout, kNormThreads, 2,
                 (real* dx, acc* dgamma_beta, int row, real* dscale_shift, acc* pixel_sum, int pixel_row, real* rounded,
                  const real* dy, const real* x, const acc* gamma, const acc* beta, const real* scale_shift, int stride,
                  const acc* stats, int hw, int c, int groups, int per_block, int staged, const StepState* state, uint64_t offset,
                  int site, unsigned threshold, acc keep),
                 (dx, dgamma_beta, row, dscale_shift, pixel_sum, pixel_row, rounded, dy, x, gamma, beta, scale_shift, stride,
                  stats, hw, c, groups, per_block, staged, state, offset, site, threshold, keep))
GEOMETRY(groupnorm_backward_dropout, kNormThreads, kNormChannels, kVec, kNormElements, kNormStage)

}  // namespace SIMT_VARIANT
