// 3×3 convolutions of stride 1 on the host in a quarter of the multiplications: F(4×4, 3×3) of Lavin & Gray, Fast Algorithms for
// Convolutional Neural Networks, 2016.
//
//   y = Aᵀ[(G w Gᵀ) ⊙ (Bᵀ d B)]A   for each tile y of 4×4 outputs, d its 6×6 inputs; ⊙ is summed over the input channels
//
// so that each of the 36 positions is a matrix product: M[tile][o] = Σ_c V[tile][c]·U[c][o]. G, B and A evaluate polynomials at the
// points 0, ±3/4, ±3/2, ∞. With those the error against float64 is about twice a direct float32 convolution's, of 128 channels
// 1.1e-6 to 0.6e-6; with the usual 0, ±1, ±2, ∞ it is four times (Barabasz et al., Error Analysis and Improving the Accuracy of
// Winograd Convolution, 2020, on the choice of points).
//
// A block has some tiles and BN output channels. U is made by the first block of a launch that a thread runs, and kept for its
// next ones; V and M stay in the second-level cache. Each sum is one chain of fused multiply-adds in ascending c, and a tile is of
// one image, so that results do not depend on the division into blocks and launches.
//
//   U [36][BN/TN][K][TN]     V [36][K/16][tiles][16]     M [36][BN/TN][tiles][TN]
//
// Of BN = 64 columns U takes 9 KiB for each input channel; V and M take 1.3 MiB at most. All are memory of the OS thread
// (simt::keep), which no plan counts. To make U again for each block, 512 channels at a time, would bound it, but was slower in
// the two forward passes with more channels than that in which it was timed.
//
// The weight gradient is the adjoint: dw = Gᵀ[(Bᵀ d B) ⊙ (A dy Aᵀ)]G, where ⊙ is summed over the tiles of a shard in ascending order. A block
// has up to 64 input channels and BN output channels of a shard; its sums stay in the second-level cache.
//
//   V [36][64/16][tiles][16]     D = A dy Aᵀ [36][BN/TN][tiles][TN]     S [36][BN/TN][64][TN]
#pragma once
#include "indirect.cuh"

namespace SIMT_VARIANT {

// Outputs and inputs of a tile along one axis, positions of a tile, channels of a V row, and tiles and channels of which V is kept.
constexpr int kTileOut = 4, kTileIn = 6, kPositions = kTileIn * kTileIn, kChannels = 16, kTilesMost = 48, kChannelsMost = 128;

// Whether this way is taken. It sees the geometry of one image alone. Channels are whole vectors on every instruction set; fewer of
// them would not pay for the transforms of x and y, nor fewer tiles for that of w, nor tiles that reach far over the image.
HOST_DEVICE bool winograd_pays(int kh, int kw, int stride, int cin, int cout, int out_height, int out_width) {
  const int tiles = (out_height + kTileOut - 1) / kTileOut * ((out_width + kTileOut - 1) / kTileOut);
  return kh == 3 && kw == 3 && stride == 1 && cin % kChannels == 0 && cout % kChannels == 0 && cin >= 32 && cout >= 32 &&
         tiles >= 4 && tiles * kTileOut * kTileOut * 2 <= out_height * out_width * 3;
}

// The entries that may take it.
template <class C, bool ALIGNED>
constexpr bool winograd_tile = ALIGNED && C::BN >= 32;

// The points ±p and ±q, and what the transforms have of them.
template <class T>
struct Points {
  static constexpr T p = T(0.75), q = T(1.5), p2 = p * p, q2 = q * q, p3 = p2 * p, q3 = q2 * q;
  static constexpr T at0 = T(1 / (0.5625 * 2.25));                 // 1/Π of the differences to the other points
  static constexpr T atp = T(1 / (2 * 0.5625 * (0.5625 - 2.25)));  // of p and of −p
  static constexpr T atq = T(1 / (2 * 2.25 * (2.25 - 0.5625)));
};

// Bᵀd of six values.
template <class T, int W>
DEVICE void winograd_input(vec<T, W> (&r)[6], const vec<T, W> (&d)[6]) {
  using P = Points<T>;
  const vec<T, W> ep = fma(-P::q2, d[2], d[4]), op = fma(-P::q2, d[1], d[3]);
  const vec<T, W> eq = fma(-P::p2, d[2], d[4]), oq = fma(-P::p2, d[1], d[3]);
  r[0] = fma(P::p2 * P::q2, d[0], fma(-(P::p2 + P::q2), d[2], d[4]));
  r[1] = fma(P::p, op, ep);
  r[2] = fma(-P::p, op, ep);
  r[3] = fma(P::q, oq, eq);
  r[4] = fma(-P::q, oq, eq);
  r[5] = fma(P::p2 * P::q2, d[1], fma(-(P::p2 + P::q2), d[3], d[5]));
}

// G g of three values.
template <class T, int W>
DEVICE void winograd_weights(vec<T, W> (&r)[6], const vec<T, W> (&g)[3]) {
  using P = Points<T>;
  const vec<T, W> ep = fma(P::atp * P::p2, g[2], P::atp * g[0]), op = (P::atp * P::p) * g[1];
  const vec<T, W> eq = fma(P::atq * P::q2, g[2], P::atq * g[0]), oq = (P::atq * P::q) * g[1];
  r[0] = P::at0 * g[0];
  r[1] = ep + op;
  r[2] = ep - op;
  r[3] = eq + oq;
  r[4] = eq - oq;
  r[5] = g[2];
}

// Aᵀm of six values.
template <class T, int W>
DEVICE void winograd_output(vec<T, W> (&y)[4], const vec<T, W> (&m)[6]) {
  using P = Points<T>;
  const vec<T, W> sp = m[1] + m[2], dp = m[1] - m[2], sq = m[3] + m[4], dq = m[3] - m[4];
  y[0] = m[0] + sp + sq;
  y[1] = fma(P::q, dq, P::p * dp);
  y[2] = fma(P::q2, sq, P::p2 * sp);
  y[3] = fma(P::p3, dp, fma(P::q3, dq, m[5]));
}

// A dy of four values.
template <class T, int W>
DEVICE void winograd_gradient(vec<T, W> (&r)[6], const vec<T, W> (&y)[4]) {
  using P = Points<T>;
  const vec<T, W> ep = fma(P::p2, y[2], y[0]), op = fma(P::p3, y[3], P::p * y[1]);
  const vec<T, W> eq = fma(P::q2, y[2], y[0]), oq = fma(P::q3, y[3], P::q * y[1]);
  r[0] = y[0];
  r[1] = ep + op;
  r[2] = ep - op;
  r[3] = eq + oq;
  r[4] = eq - oq;
  r[5] = y[3];
}

// Gᵀs of six values.
template <class T, int W>
DEVICE void winograd_sums(vec<T, W> (&w)[3], const vec<T, W> (&s)[6]) {
  using P = Points<T>;
  const vec<T, W> ep = s[1] + s[2], op = s[1] - s[2], eq = s[3] + s[4], oq = s[3] - s[4];
  w[0] = fma(P::atq, eq, fma(P::atp, ep, P::at0 * s[0]));
  w[1] = fma(P::atq * P::q, oq, (P::atp * P::p) * op);
  w[2] = fma(P::atq * P::q2, eq, fma(P::atp * P::p2, ep, s[5]));
}

// The images that are read, and how their tiles lie: tile (n, i, j) has outputs (4i…, 4j…) and inputs from (4i−pad_top, 4j−pad_left).
template <class T>
struct Tiles {
  const real* x;
  int height, width, channels, pad_top, pad_left, tiles_y, tiles_x;

  // V of channels c0… c0 + count of tile q.
  METHOD void transform(T* V, long long plane, long long chunk, const Pixel& q, int c0, int count) const {
    const int y0 = q.i * kTileOut - pad_top, x0 = q.j * kTileOut - pad_left;
    const real* const corner = x + ((static_cast<long long>(q.n) * height + y0) * width + x0) * channels + c0;
    const int across = channels, down = width * channels;
    if (y0 >= 0 && x0 >= 0 && y0 + kTileIn <= height && x0 + kTileIn <= width) {
      transform(V, plane, chunk, count, [=](int i, int j) { return corner + i * down + j * across; });
      return;
    }
    const real* at[kTileIn][kTileIn];
    for (int i = 0; i < kTileIn; i++) {
      const bool row = static_cast<unsigned>(y0 + i) < static_cast<unsigned>(height);
      for (int j = 0; j < kTileIn; j++) {
        const bool inside = row && static_cast<unsigned>(x0 + j) < static_cast<unsigned>(width);
        at[i][j] = inside ? corner + i * down + j * across : Zeros<real>::values;
      }
    }
    transform(V, plane, chunk, count, [&](int i, int j) { return at[i][j]; });
  }
  template <class F>
  METHOD void transform(T* V, long long plane, long long chunk, int count, F at) const {
    constexpr int W = wide;
    for (int c = 0; c < count; c += W) {
      vec<T, W> rows[kTileIn][kTileIn], d[kTileIn], r[kTileIn];
      UNROLL for (int i = 0; i < kTileIn; i++) {
        UNROLL for (int j = 0; j < kTileIn; j++) d[j] = factor<W>(at(i, j) + c);
        winograd_input(rows[i], d);
      }
      T* to = V + c / kChannels * chunk + c % kChannels;
      UNROLL for (int j = 0; j < kTileIn; j++) {
        UNROLL for (int i = 0; i < kTileIn; i++) d[i] = rows[i][j];
        winograd_input(r, d);
        UNROLL for (int i = 0; i < kTileIn; i++) r[i].store(to + (i * kTileIn + j) * plane);
      }
    }
  }
};

template <class T>
DEVICE Tiles<T> tiles_of(const real* x, int height, int width, int channels, int pad_top, int pad_left, int out_height,
                         int out_width) {
  return {x,
          height,
          width,
          channels,
          pad_top,
          pad_left,
          (out_height + kTileOut - 1) / kTileOut,
          (out_width + kTileOut - 1) / kTileOut};
}

// U of W columns from the nine taps' weights.
template <class T, int W>
DEVICE void winograd_taps(T* U, long long plane, const vec<T, W> (&w)[3][3]) {
  vec<T, W> columns[3][kTileIn], g[3], r[kTileIn];
  UNROLL for (int b = 0; b < 3; b++) {
    UNROLL for (int a = 0; a < 3; a++) g[a] = w[a][b];
    winograd_weights(columns[b], g);
  }
  UNROLL for (int i = 0; i < kTileIn; i++) {
    UNROLL for (int b = 0; b < 3; b++) g[b] = columns[b][i];
    winograd_weights(r, g);
    UNROLL for (int j = 0; j < kTileIn; j++) r[j].store(U + (i * kTileIn + j) * plane);
  }
}

// The forward's weights [3][3][K][N]: columns n0… n0 + count.
template <class T, class C>
struct ForwardTaps {
  const real* w;
  int K, N;

  METHOD void transform(T* U, long long plane, int n0, int count) const {
    constexpr int W = C::TN < wide ? C::TN : wide;
    for (int k = 0; k < K; k++) {
      for (int n = 0; n < count; n += W) {
        vec<T, W> taps[3][3];
        UNROLL for (int t = 0; t < 9; t++) {
          taps[t / 3][t % 3] = factor<W>(w + (static_cast<long long>(t) * K + k) * N + n0 + n);
        }
        winograd_taps(U + (n / C::TN * K + k) * C::TN + n % C::TN, plane, taps);
      }
    }
  }
};

// The data gradient's: the kernel turned around, and its input and output channels exchanged. w [3][3][N][K].
template <class T, class C>
struct BackwardTaps {
  const real* w;
  int K, N;

  METHOD void transform(T* U, long long plane, int n0, int count) const {
    constexpr int W = wide;
    static_assert(C::TN % W == 0, "a panel holds whole vectors");
    for (int n = 0; n < count; n += W) {
      for (int k = 0; k < K; k += W) {
        alignas(64) T turned[9][W][W];
        for (int t = 0; t < 9; t++) {
          transpose<W>(turned[8 - t][0], w + (static_cast<long long>(t) * N + n0 + n) * K + k, K);
        }
        for (int e = 0; e < W; e++) {
          vec<T, W> taps[3][3];
          UNROLL for (int t = 0; t < 9; t++) taps[t / 3][t % 3] = vec<T, W>::load(turned[t][e]);
          winograd_taps(U + (n / C::TN * K + k + e) * C::TN + n % C::TN, plane, taps);
        }
      }
    }
  }
};

// acc[TM][TN] = (first ? 0 : acc) + Σ_k V[k/16][row][k%16]·U[k][TN].
template <class T, class C>
DEVICE void winograd_multiply(T* acc, const T* V, long long chunk, const T* U, int count, bool first) {
  vec<T, C::TN> c[C::TM];
  if (first) {
    UNROLL for (int i = 0; i < C::TM; i++) c[i] = vec<T, C::TN>::splat(0);
  } else {
    UNROLL for (int i = 0; i < C::TM; i++) c[i] = vec<T, C::TN>::load(acc + i * C::TN);
  }
  for (int k = 0; k < count; k += kChannels, V += chunk) {
#pragma clang loop unroll_count(4)
    for (int e = 0; e < kChannels; e++) {
      const vec<T, C::TN> b = vec<T, C::TN>::load(U);
      UNROLL for (int i = 0; i < C::TM; i++) c[i] = fma(V[i * kChannels + e], b, c[i]);
      U += C::TN;
    }
  }
  UNROLL for (int i = 0; i < C::TM; i++) c[i].store(acc + i * C::TN);
}

// The block's part of the product of images and taps, given to the sink. out_height × out_width: of an output image.
template <class T, class C, class Taps, class Sink>
DEVICE void winograd(const Tiles<T>& x, const Taps& taps, Sink& sink, int images, int N, int out_height, int out_width) {
  constexpr int TM = C::TM, TN = C::TN, W = TN < wide ? TN : wide, line = 64 / sizeof(T);
  static_assert(kTilesMost % TM == 0, "whole micro-tiles");
  const int K = x.channels, per_image = x.tiles_y * x.tiles_x, all = images * per_image;
  const int eighth = (all + 8 * TM - 1) / (8 * TM) * TM;  // at least eight blocks, so that threads end together
  const int most = eighth > kTilesMost ? kTilesMost : eighth < kTilesMost / 2 ? kTilesMost / 2 : eighth;
  const int t0 = static_cast<int>(blockIdx.x) * most, n0 = static_cast<int>(blockIdx.y) * C::BN;
  if (t0 >= all) return;
  const int count = all - t0 < most ? all - t0 : most, rows = (count + TM - 1) / TM * TM;
  const int columns = N - n0 < C::BN ? N - n0 : C::BN, panels = (columns + TN - 1) / TN;
  const int depth = K < kChannelsMost ? K : kChannelsMost;

  // A plane is a line longer than it need be, so that the 36 planes do not share one set of the cache.
  const long long planeU = static_cast<long long>(panels) * K * TN + line, planeV = depth * rows + line,
                  planeM = panels * rows * TN + line;
  bool kept = false;
  T* const U = static_cast<T*>(simt::keep(0, planeU * kPositions * sizeof(T), blockIdx.y, &kept));
  T* const V = static_cast<T*>(simt::keep(1, (planeV + planeM) * kPositions * sizeof(T), 0, nullptr));
  T* const M = V + planeV * kPositions;
  if (!kept) taps.transform(U, planeU, n0, columns);

  const Pixel first = Pixel::at(t0, x.tiles_y, x.tiles_x);
  for (int k = 0; k < K; k += depth) {
    const int kn = K - k < depth ? K - k : depth;
    Pixel q = first;
    for (int t = 0; t < count; t++) {
      x.transform(V + t * kChannels, planeV, rows * kChannels, q, k, kn);
      q.advance(1, x.tiles_y, x.tiles_x);
    }
    for (int position = 0; position < kPositions; position++) {
      for (int p = 0; p < panels; p++) {
        const T* const b = U + position * planeU + (static_cast<long long>(p) * K + k) * TN;
        for (int r = 0; r < rows; r += TM) {
          winograd_multiply<T, C>(M + position * planeM + (p * rows + r) * TN, V + position * planeV + r * kChannels,
                                  rows * kChannels, b, kn, k == 0);
        }
      }
    }
  }

  Pixel q = first;
  for (int t = 0; t < count; t++) {
    const int y0 = q.i * kTileOut, x0 = q.j * kTileOut;
    const int high = out_height - y0 < kTileOut ? out_height - y0 : kTileOut;
    const int broad = out_width - x0 < kTileOut ? out_width - x0 : kTileOut;
    for (int n = 0; n < columns; n += W) {
      const T* const from = M + (n / TN * rows + t) * TN + n % TN;
      vec<T, W> half[kTileIn][kTileOut], m[kTileIn], y[kTileOut][kTileOut];
      UNROLL for (int j = 0; j < kTileIn; j++) {
        UNROLL for (int i = 0; i < kTileIn; i++) m[i] = vec<T, W>::load(from + (i * kTileIn + j) * planeM);
        winograd_output(half[j], m);
      }
      UNROLL for (int i = 0; i < kTileOut; i++) {
        UNROLL for (int j = 0; j < kTileIn; j++) m[j] = half[j][i];
        winograd_output(y[i], m);
      }
      UNROLL for (int i = 0; i < kTileOut; i++) {
        if (i >= high) continue;
        const long long pixel = (static_cast<long long>(q.n) * out_height + y0 + i) * out_width + x0;
        UNROLL for (int j = 0; j < kTileOut; j++) {
          if (j >= broad) continue;
          sink.at(pixel + j, q.n);
          sink.put(n0 + n, y[i][j]);
        }
      }
    }
    q.advance(1, x.tiles_y, x.tiles_x);
  }
}

// Input channels of a block of the weight gradient, and tiles of one step of its sums.
constexpr int kRowsMost = 64, kTilesStep = 32;

// Whether the weight gradient of a shard takes this way: as the forward, if there are tiles enough to pay for the last transform.
HOST_DEVICE bool winograd_weight_pays(int kh, int kw, int stride, int cin, int cout, int out_height, int out_width,
                                      int shard_size) {
  const int tiles = (out_height + kTileOut - 1) / kTileOut * ((out_width + kTileOut - 1) / kTileOut);
  return winograd_pays(kh, kw, stride, cin, cout, out_height, out_width) && static_cast<long long>(tiles) * shard_size >= 8;
}

// D of tile q: dy [images][height][width][channels], channels n0… n0 + count.
template <class T, int TN>
DEVICE void winograd_output_gradient(T* D, long long plane, int panel, const real* dy, int height, int width, int channels,
                                     const Pixel& q, int n0, int count) {
  constexpr int W = TN < wide ? TN : wide;
  const int y0 = q.i * kTileOut, x0 = q.j * kTileOut;
  const real* const corner = dy + ((static_cast<long long>(q.n) * height + y0) * width + x0) * channels + n0;
  const real* at[kTileOut][kTileOut];
  for (int i = 0; i < kTileOut; i++) {
    for (int j = 0; j < kTileOut; j++) {
      const bool inside = y0 + i < height && x0 + j < width;
      at[i][j] = inside ? corner + (static_cast<long long>(i) * width + j) * channels : Zeros<real>::values;
    }
  }
  for (int n = 0; n < count; n += W) {
    vec<T, W> rows[kTileOut][kTileIn], d[kTileOut], r[kTileIn];
    UNROLL for (int i = 0; i < kTileOut; i++) {
      UNROLL for (int j = 0; j < kTileOut; j++) d[j] = factor<W>(at[i][j] + n);
      winograd_gradient(rows[i], d);
    }
    T* const to = D + n / TN * panel + n % TN;
    UNROLL for (int j = 0; j < kTileIn; j++) {
      UNROLL for (int i = 0; i < kTileOut; i++) d[i] = rows[i][j];
      winograd_gradient(r, d);
      UNROLL for (int i = 0; i < kTileIn; i++) r[i].store(to + (i * kTileIn + j) * plane);
    }
  }
}

// sums[TM][TN] = (first ? 0 : sums) + Σ_t V[t][TM]·D[t][TN].
template <class T, class C>
DEVICE void winograd_outer(T* sums, const T* V, const T* D, int count, bool first) {
  vec<T, C::TN> c[C::TM];
  if (first) {
    UNROLL for (int i = 0; i < C::TM; i++) c[i] = vec<T, C::TN>::splat(0);
  } else {
    UNROLL for (int i = 0; i < C::TM; i++) c[i] = vec<T, C::TN>::load(sums + i * C::TN);
  }
#pragma clang loop unroll_count(4)
  for (int t = 0; t < count; t++) {
    const vec<T, C::TN> b = vec<T, C::TN>::load(D);
    UNROLL for (int i = 0; i < C::TM; i++) c[i] = fma(V[i], b, c[i]);
    V += kChannels;
    D += C::TN;
  }
  UNROLL for (int i = 0; i < C::TM; i++) c[i].store(sums + i * C::TN);
}

// dw [3][3][K][N], the block's part, from the tiles of its images of x and dy, of `pixels` each.
template <class T, class C>
DEVICE void winograd_weight(T* dw, const Tiles<T>& x, const real* dy, const WeightBlock<C>& block, int pixels, int N,
                            int out_height, int out_width) {
  constexpr int TM = C::TM, TN = C::TN, W = TN < wide ? TN : wide, line = 64 / sizeof(T), together = kRowsMost * 9 / C::BM;
  static_assert(C::BM * together == kRowsMost * 9 && kChannels % TM == 0,
                "a block takes the place of some of the direct product's");
  const int row = block.m0 / C::BM, n0 = block.n0, K = x.channels, c0 = row / together * kRowsMost;
  if (row % together != 0) return;
  const int rows = K - c0 < kRowsMost ? K - c0 : kRowsMost;
  const int columns = N - n0 < C::BN ? N - n0 : C::BN, panels = (columns + TN - 1) / TN;
  const int tiles = block.count / pixels * x.tiles_y * x.tiles_x, step = tiles < kTilesStep ? tiles : kTilesStep;

  const long long planeV = rows * step + line, planeD = panels * step * TN + line, planeS = panels * rows * TN + line;
  T* const V = static_cast<T*>(simt::keep(1, (planeV + planeD + planeS) * kPositions * sizeof(T), 0, nullptr));
  T *const D = V + planeV * kPositions, *const S = D + planeD * kPositions;
  if (columns % TN != 0) {
    for (long long i = 0; i < planeD * kPositions; i++) D[i] = 0;  // columns that nobody writes
  }
  if (tiles == 0) {
    for (long long i = 0; i < planeS * kPositions; i++) S[i] = 0;
  }

  Pixel q = {block.image, 0, 0};
  for (int t0 = 0; t0 < tiles; t0 += step) {
    const int count = tiles - t0 < step ? tiles - t0 : step;
    for (int t = 0; t < count; t++) {
      x.transform(V + t * kChannels, planeV, step * kChannels, q, c0, rows);
      winograd_output_gradient<T, TN>(D + t * TN, planeD, step * TN, dy, out_height, out_width, N, q, n0, columns);
      q.advance(1, x.tiles_y, x.tiles_x);
    }
    for (int position = 0; position < kPositions; position++) {
      for (int r = 0; r < rows; r += TM) {
        const T* const a = V + position * planeV + r / kChannels * step * kChannels + r % kChannels;
        for (int p = 0; p < panels; p++) {
          winograd_outer<T, C>(S + position * planeS + (p * rows + r) * TN, a, D + position * planeD + p * step * TN, count,
                               t0 == 0);
        }
      }
    }
  }

  for (int r = 0; r < rows; r++) {
    for (int n = 0; n < columns; n += W) {
      const T* const from = S + (n / TN * rows + r) * TN + n % TN;
      vec<T, W> half[kTileIn][3], s[kTileIn], w[3];
      UNROLL for (int j = 0; j < kTileIn; j++) {
        UNROLL for (int i = 0; i < kTileIn; i++) s[i] = vec<T, W>::load(from + (i * kTileIn + j) * planeS);
        winograd_sums(half[j], s);
      }
      UNROLL for (int a = 0; a < 3; a++) {
        UNROLL for (int j = 0; j < kTileIn; j++) s[j] = half[j][a];
        winograd_sums(w, s);
        UNROLL for (int b = 0; b < 3; b++) w[b].store(dw + (static_cast<long long>(a * 3 + b) * K + c0 + r) * N + n0 + n);
      }
    }
  }
}

}  // namespace SIMT_VARIANT
