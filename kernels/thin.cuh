// Convolutions to a few output channels on the host, such as a network's last one. gemm.cuh puts output channels into the lanes of a vector,
// of which these would leave most idle; here the lanes are input channels.
//
//   forward          y[pixel][o] = Σ_lanes (Σ_{tap, c} x[pixel, tap][c]·w[tap][c][o]), taps and vectors of c ascending
//   weight gradient  dw[tap][c][o] = Σ_pixels x[pixel, tap][c]·dy[pixel][o], pixels ascending
//
// A value depends on one pixel, or on the pixels of one shard, so that results do not depend on the division into blocks and launches.
#pragma once
#include "indirect.cuh"

namespace SIMT_VARIANT {

constexpr int kThinMost = 4, kThinLanes = kVec,
              kThinWeights = 8192;  // output channels; input channels of a vector; weights, on the stack

// The entries that may take this way, and whether they do.
template <class C, bool ALIGNED>
constexpr bool thin_tile = !ALIGNED && C::BN <= 16;
HOST_DEVICE bool thin_pays(int taps, int cin, int cout) {
  return cout <= kThinMost && cin % kThinLanes == 0 && static_cast<long long>(taps) * cin * cout <= kThinWeights;
}

// f(width<cout>).
template <class F>
DEVICE void with_channels(int cout, F f) {
  switch (cout) {
    case 1: return f(width<1>{});
    case 2: return f(width<2>{});
    case 3: return f(width<3>{});
    case 4: return f(width<4>{});
  }
}

// Pixels m0… of M, as many as a block has.
template <class T, class C, int O, class Sink>
DEVICE void thin_forward(const Gather<real>& g, const real* w, Sink& sink, int m0, int M) {
  using V = vec<T, kThinLanes>;
  const int channels = g.channels, K = g.taps_y * g.taps_x * channels, end = M - m0 < C::BM ? M : m0 + C::BM;
  alignas(64) T turned[kThinWeights];  // [O][tap][c]
  for (int k = 0; k < K; k++) {
    UNROLL for (int o = 0; o < O; o++) turned[o * K + k] = factor<1>(w + k * O + o)[0];
  }
  Pixel q = Pixel::at(m0, g.grid_height, g.grid_width);
  for (int m = m0; m < end; m++) {
    V total[O];
    UNROLL for (int o = 0; o < O; o++) total[o] = V::splat(T(0));
    for (int a = 0; a < g.taps_y; a++) {
      const int y = q.i * g.step + g.y0 + a * g.direction;
      if (static_cast<unsigned>(y) >= static_cast<unsigned>(g.height)) continue;
      for (int b = 0; b < g.taps_x; b++) {
        const int x = q.j * g.step + g.x0 + b * g.direction;
        if (static_cast<unsigned>(x) >= static_cast<unsigned>(g.width)) continue;
        const real* const p = g.x + ((static_cast<long long>(q.n) * g.height + y) * g.width + x) * channels;
        const T* const t = turned + (a * g.taps_x + b) * channels;
        for (int c = 0; c < channels; c += kThinLanes) {
          const V v = factor<kThinLanes>(p + c);
          UNROLL for (int o = 0; o < O; o++) total[o] = fma(v, V::load(t + o * K + c), total[o]);
        }
      }
    }
    sink.begin(m);
    UNROLL for (int o = 0; o < O; o++) sink.put(o, vec<T, 1>::splat(sum(total[o])));
    q.advance(1, g.grid_height, g.grid_width);
  }
}

// totals[i][o] += Σ_e x[pixels[e]][i's channels]·dy[e][o], G vectors of channels from pixels[e] on.
template <class T, int O, int G>
DEVICE void thin_outer(vec<T, kThinLanes> (*totals)[O], const real* const* pixels, int shift, const T* dy, int count) {
  using V = vec<T, kThinLanes>;
  V t[G][O];
  UNROLL for (int i = 0; i < G; i++) { UNROLL for (int o = 0; o < O; o++) t[i][o] = totals[i][o]; }
  for (int e = 0; e < count; e++) {
    UNROLL for (int i = 0; i < G; i++) {
      const V v = factor<kThinLanes>(pixels[e] + shift + i * kThinLanes);
      UNROLL for (int o = 0; o < O; o++) t[i][o] = fma(dy[e * O + o], v, t[i][o]);
    }
  }
  UNROLL for (int i = 0; i < G; i++) { UNROLL for (int o = 0; o < O; o++) totals[i][o] = t[i][o]; }
}

// The block's rows of the M of weights; first: the block's first pixel, of which it has count, and dy there.
template <class T, class C, int O, class Sink>
DEVICE void thin_weight(const Gather<real>& g, const real* dy, Sink& sink, int m0, int M, int first, int count) {
  using V = vec<T, kThinLanes>;
  static_assert(C::BM % kThinLanes == 0, "whole vectors of rows");
  const int rows = M - m0 < C::BM ? M - m0 : C::BM;
  V totals[C::BM / kThinLanes][O];
  for (int r = 0; r < rows / kThinLanes; r++) {
    UNROLL for (int o = 0; o < O; o++) totals[r][o] = V::splat(T(0));
  }
  Pixel q = Pixel::at(first, g.grid_height, g.grid_width);
  for (int k = 0; k < count;) {
    const int kn = count - k < C::BK ? count - k : C::BK;
    T factors[C::BK * O];
    for (int e = 0; e < kn * O; e++) factors[e] = factor<1>(dy + e)[0];
    Tap t = Tap::at(m0, g.taps_x, g.channels);
    for (int r = 0; r < rows;) {
      // Rows up to the end of the tap, of what a pointer reaches, or of the block.
      const int from = t.c / kReach * kReach;
      int run = g.channels - t.c < from + kReach - t.c ? g.channels - t.c : from + kReach - t.c;
      run = rows - r < run ? rows - r : run;
      const real* pixels[C::BK];
      point(g, pixels, q, kn, t, from);
      for (int i = 0; i < run;) {
        V(*const at)[O] = totals + (r + i) / kThinLanes;
        const int shift = t.c - from + i, left = (run - i) / kThinLanes;
        if (left >= 4) thin_outer<T, O, 4>(at, pixels, shift, factors, kn), i += 4 * kThinLanes;
        else if (left >= 2) thin_outer<T, O, 2>(at, pixels, shift, factors, kn), i += 2 * kThinLanes;
        else thin_outer<T, O, 1>(at, pixels, shift, factors, kn), i += kThinLanes;
      }
      r += run;
      t.advance(run, g.taps_x, g.channels);
    }
    q.advance(kn, g.grid_height, g.grid_width);
    dy += kn * O;
    k += kn;
  }
  for (int r = 0; r < rows; r++) {
    sink.begin(m0 + r);
    UNROLL for (int o = 0; o < O; o++) sink.put(o, vec<T, 1>::splat(totals[r / kThinLanes][o][r % kThinLanes]));
  }
}

}  // namespace SIMT_VARIANT
