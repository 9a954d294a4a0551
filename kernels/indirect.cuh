// Loaders of the host. A is not copied: its rows are found through pointers (Dukhan, The Indirect Convolution Algorithm, 2019).
//
// A value of A is p[c], where p points to a pixel under a tap, channel 0, or to zeros where that is outside of the image. A table
// of these pointers, made for each K step, costs a few cycles for each pixel and tap; the multiply-adds that use it, channels·TN/32
// and more. B is copied into panels of TN columns, [k][TN] each, that stay in the first-level cache.
//
// A loader of A has stage(left), which prepares as many of the `left` values of k as it likes, at most BK, and says how many;
// select(rm), a micro-tile of rows; multiply(acc, panel), which adds the product of that micro-tile and a panel. A loader of B has
// stage(panels, kn), the next kn values of k.
//
// Where values are not multiplied as they are stored (bf16, TF32), A is copied too.
#pragma once
#include "gather.cuh"
#include "vec.cuh"

namespace SIMT_VARIANT {

// Channels that one pointer reaches, and zeros for as many.
constexpr int kReach = 256;
template <class T>
struct Zeros {
  alignas(64) static constexpr T values[kReach + 32] = {};
};

// N values of a matrix as they are multiplied: bf16 as float, TF32 without the lower 13 bits of the fraction, which tensor cores do not
// read.
#ifdef SIMT_TF32
constexpr bool kCopied = true;
#else
constexpr bool kCopied = sizeof(real) != sizeof(acc);
#endif
template <int N>
DEVICE vec<acc, N> factor(const real* p) {
  vec<acc, N> v = load<N>(p);
#ifdef SIMT_TF32
  typedef uint32_t bits __attribute__((ext_vector_type(N)));
  bits b;
  __builtin_memcpy(&b, &v, sizeof b);
  b &= 0xffffe000u;
  __builtin_memcpy(&v, &b, sizeof b);
#endif
  return v;
}

// table[t] = channel c of the source under tap (a, b) of grid pixel first + t.
template <class T>
DEVICE void point(const Gather<T>& g, const T** table, const Pixel& first, int count, const Tap& tap, int c) {
  const T* const zeros = Zeros<T>::values;
  Pixel q = first;
  for (int t = 0; t < count;) {
    const int run = g.grid_width - q.j < count - t ? g.grid_width - q.j : count - t;
    const int y = q.i * g.step + g.y0 + tap.a * g.direction, x = q.j * g.step + g.x0 + tap.b * g.direction;
    if (static_cast<unsigned>(y) >= static_cast<unsigned>(g.height)) {
      for (int i = 0; i < run; i++) table[t + i] = zeros;
    } else {
      const T* const line = g.x + (static_cast<long long>(q.n) * g.height + y) * g.width * g.channels + c;
      for (int i = 0; i < run; i++) {
        const long long at = x + static_cast<long long>(i) * g.step;
        table[t + i] =
            static_cast<unsigned long long>(at) < static_cast<unsigned long long>(g.width) ? line + at * g.channels : zeros;
      }
    }
    t += run;
    q.advance(run, g.grid_height, g.grid_width);
  }
}

// A of the forward and of the data gradient: rows are grid pixels, k = (a, b, c). A K step is several taps, or channels of one.
template <class R, class C, bool ALIGNED>
struct PixelRows {
  using T = acc_of<R>;
  static constexpr int max_runs = 16;
  Gather<R> g;
  Pixel first;
  Tap tap;
  int count, runs, length, tile;
  const T* rows[max_runs][C::BM];
  alignas(64) T copies[kCopied ? C::BM * C::BK : 1];

  METHOD void init(const Gather<R>& from, int m0, int M) {
    g = from;
    first = Pixel::at(m0, g.grid_height, g.grid_width);
    tap = {0, 0, 0};
    count = M - m0 < C::BM ? M - m0 : C::BM;
    for (int r = 0; r < max_runs; r++) {
      for (int i = count; i < C::BM; i++) rows[r][i] = Zeros<T>::values;
    }
  }
  METHOD int stage(int left) {
    constexpr int longest = C::BK < kReach ? C::BK : kReach;
    length = g.channels - tap.c < longest ? g.channels - tap.c : longest;
    runs = 1;
    if (length == g.channels) {
      runs = left / length < C::BK / length ? left / length : C::BK / length;
      if (runs > max_runs) runs = max_runs;
    }
    for (int r = 0; r < runs; r++) {
      if constexpr (kCopied) {
        copy(rows[r], copies + r * C::BM * length);
      } else {
        point(g, rows[r], first, count, tap, tap.c);
      }
      tap.advance(length, g.taps_x, g.channels);
    }
    return runs * length;
  }
  METHOD void copy(const T** table, T* to) const {
    const R* pixels[C::BM];
    point(g, pixels, first, count, tap, tap.c);
    for (int i = 0; i < count; i++, to += length) {
      table[i] = to;
      spans<wide>(0, length, [&](long long k, auto w) { factor<decltype(w)::n>(pixels[i] + k).store(to + k); });
    }
  }
  METHOD void select(int rm) { tile = rm * C::TM; }
  METHOD void multiply(vec<T, C::TN>* acc, const T* b) const {
    vec<T, C::TN> c[C::TM];
    UNROLL for (int i = 0; i < C::TM; i++) c[i] = acc[i];
    for (int r = 0; r < runs; r++) {
      const T* p[C::TM];
      UNROLL for (int i = 0; i < C::TM; i++) p[i] = rows[r][tile + i];
#pragma clang loop unroll_count(4)
      for (int k = 0; k < length; k++) {
        const vec<T, C::TN> bk = vec<T, C::TN>::load(b);
        UNROLL for (int i = 0; i < C::TM; i++) c[i] = fma(p[i][k], bk, c[i]);
        b += C::TN;
      }
    }
    UNROLL for (int i = 0; i < C::TM; i++) acc[i] = c[i];
  }
};

// A of the weight gradient: rows are (a, b, c), k are the grid pixels from `first` on. A micro-tile whose rows are neighbouring
// channels of one tap reads them from the pixels; another's are copied together.
template <class R, class C, bool ALIGNED>
struct PixelColumns {
  using T = acc_of<R>;
  Gather<R> g;
  Pixel first, next;
  int k, K, M, m, kn, shift;
  bool whole;
  Tap tiles[C::RM], pointed;
  const R* pixels[C::BK];
  alignas(64) T packed[C::BK * C::TM];

  METHOD void init(const Gather<R>& from, int m0, int rows, int pixel, int pixel_count) {
    g = from;
    next = Pixel::at(pixel, g.grid_height, g.grid_width);
    K = pixel_count;
    m = m0;
    M = rows;
    for (int rm = 0; rm < C::RM; rm++) tiles[rm] = Tap::at(m0 + rm * C::TM, g.taps_x, g.channels);
  }
  METHOD int stage(int left) {
    kn = left < C::BK ? left : C::BK;
    first = next;
    next.advance(kn, g.grid_height, g.grid_width);
    pointed.a = -1;
    return kn;
  }
  // Lets `pixels` reach channel t.c of tap (t.a, t.b), at t.c − reach(t).
  METHOD void point_to(const Tap& t) {
    const int from = t.c / kReach * kReach;
    shift = t.c - from;
    if (t.a == pointed.a && t.b == pointed.b && from == pointed.c) return;
    pointed = {t.a, t.b, from};
    point(g, pixels, first, kn, t, from);
  }
  METHOD void select(int rm) {
    Tap t = tiles[rm];
    whole = t.c + C::TM <= g.channels;
    if (whole) {
      point_to(t);
      if constexpr (kCopied) {
        for (int e = 0; e < kn; e++) factor<C::TM>(pixels[e] + shift).store(packed + e * C::TM);
      }
      return;
    }
    for (int i = 0; i < C::TM; i++) {
      if (t.a < g.taps_y) {
        point_to(t);
        for (int e = 0; e < kn; e++) packed[e * C::TM + i] = factor<1>(pixels[e] + shift)[0];
      } else {
        for (int e = 0; e < kn; e++) packed[e * C::TM + i] = 0;
      }
      t.advance(1, g.taps_x, g.channels);
    }
  }
  METHOD void multiply(vec<T, C::TN>* acc, const T* b) const {
    if constexpr (!kCopied) {
      if (whole) return multiply(acc, b, [this](int e) { return pixels[e] + shift; });
    }
    multiply(acc, b, [this](int e) { return packed + e * C::TM; });
  }
  template <class F>
  METHOD void multiply(vec<T, C::TN>* acc, const T* b, F at) const {
    vec<T, C::TN> c[C::TM];
    UNROLL for (int i = 0; i < C::TM; i++) c[i] = acc[i];
#pragma clang loop unroll_count(4)
    for (int e = 0; e < kn; e++) {
      const vec<T, C::TN> bk = vec<T, C::TN>::load(b);
      const T* const a = at(e);
      UNROLL for (int i = 0; i < C::TM; i++) c[i] = fma(a[i], bk, c[i]);
      b += C::TN;
    }
    UNROLL for (int i = 0; i < C::TM; i++) acc[i] = c[i];
  }
};

// B as it lies in memory, [K][N]: the forward's weights, and the output's gradient in the weight gradient.
template <class R, class C, bool ALIGNED>
struct MatrixRows {
  using T = acc_of<R>;
  const R* p;
  int columns, N;

  METHOD void init(const R* matrix, int, int n0, int width) {
    p = matrix + n0;
    N = width;
    columns = N - n0 < C::BN ? N - n0 : C::BN;
  }
  METHOD void stage(T* panels, int kn) {
    for (int n = 0; n < columns; n += C::TN, panels += C::BK * C::TN) {
      const R* from = p + n;
      if (n + C::TN <= columns) {
        for (int k = 0; k < kn; k++, from += N) factor<C::TN>(from).store(panels + k * C::TN);
      } else {
        for (int k = 0; k < kn; k++, from += N) {
          vec<T, C::TN> v = vec<T, C::TN>::splat(0);
          v.store(panels + k * C::TN);
          for (int e = 0; e < columns - n; e++) panels[k * C::TN + e] = factor<1>(from + e)[0];
        }
      }
    }
    p += static_cast<long long>(kn) * N;
  }
};

// a[i] and b[i] in turn, from the first halves or the second.
template <bool SECOND, class V, int... I>
DEVICE V interleave(V a, V b, simt_indices<I...>) {
  constexpr int n = sizeof...(I);
  return __builtin_shufflevector(a, b, (I / 2 + (SECOND ? n / 2 : 0) + (I % 2 ? n : 0))...);
}

// to[c·TN + r] = from[r·stride + c] for r, c < wide: log₂(wide) times each half of the rows is interleaved with the other.
template <int TN>
DEVICE void transpose(acc* to, const real* from, long long stride) {
  using indices = __make_integer_seq<simt_sequence, int, wide>;
  typename vec<acc, wide>::type v[wide], u[wide];
  UNROLL for (int r = 0; r < wide; r++) v[r] = factor<wide>(from + r * stride).v;
  UNROLL for (int round = 1; round < wide; round *= 2) {
    UNROLL for (int r = 0; r < wide / 2; r++) {
      u[2 * r] = interleave<false>(v[r], v[r + wide / 2], indices{});
      u[2 * r + 1] = interleave<true>(v[r], v[r + wide / 2], indices{});
    }
    UNROLL for (int r = 0; r < wide; r++) v[r] = u[r];
  }
  UNROLL for (int r = 0; r < wide; r++) vec<acc, wide>{v[r]}.store(to + r * TN);
}

// B of the data gradient: k = (a, b, c) of the gather, c an output channel, n an input channel. Tap (a, b) of the gather is tap
// (first_y + a·stride, first_x + b·stride) of the weights [KH][KW][N][channels].
template <class R, class C, bool ALIGNED>
struct WeightColumns {
  using T = acc_of<R>;
  const R* w;
  int N, columns, channels, taps_x, kernel_width, first_y, first_x, stride;
  Tap tap;

  METHOD void init(const Gather<R>& g, const R* weights, int n0, int width, int kw, int ky, int kx, int s) {
    channels = g.channels;
    w = weights + static_cast<long long>(n0) * channels;
    N = width;
    columns = N - n0 < C::BN ? N - n0 : C::BN;
    taps_x = g.taps_x;
    kernel_width = kw;
    first_y = ky;
    first_x = kx;
    stride = s;
    tap = {0, 0, 0};
  }
  METHOD void stage(T* panels, int kn) {
    for (int k = 0; k < kn;) {
      const int run = channels - tap.c < kn - k ? channels - tap.c : kn - k;
      const int index = (first_y + tap.a * stride) * kernel_width + first_x + tap.b * stride;
      const R* const from = w + static_cast<long long>(index) * N * channels + tap.c;
      for (int n = 0; n < columns; n += C::TN)
        panel(panels + (n / C::TN * C::BK + k) * C::TN, from + n * channels, columns - n, run);
      tap.advance(run, taps_x, channels);
      k += run;
    }
  }
  // to[c][n] = from[n][c] for n < count (0 beyond) and c < run.
  METHOD void panel(T* to, const R* from, int count, int run) const {
    for (int n = 0; n < C::TN; n += wide) {
      int c = 0;
      if (n + wide <= count) {
        for (; c + wide <= run; c += wide) transpose<C::TN>(to + c * C::TN + n, from + n * channels + c, channels);
      }
      for (; c < run; c++) {
        for (int e = n; e < n + wide; e++) to[c * C::TN + e] = e < count ? factor<1>(from + e * channels + c)[0] : T(0);
      }
    }
  }
};

}  // namespace SIMT_VARIANT
