// Loaders of a GPU: they gather a tile of A or B from global into shared memory, the threads of a block together.
//
// A loader has a Cut (gemm.cuh), load(r) for the chunk of row r of this thread, place(S, r, chunk) for its position in shared
// memory, advance() to the next K step, and `held`, registers for its chunks. What lies outside of A or B is 0.
#pragma once
#include "gather.cuh"

namespace SIMT_VARIANT {

// Where tap (0, 0) of a grid pixel lies: image row and column, and channel 0 there.
template <class T>
struct Origin {
  int y, x;
  const T* p;
  METHOD void set(const Gather<T>& g, const Pixel& q, bool exists) {
    y = exists ? q.i * g.step + g.y0 : -(1 << 30);
    x = q.j * g.step + g.x0;
    p = g.x + ((static_cast<long long>(q.n) * g.height + (q.i * g.step + g.y0)) * g.width + x) * g.channels;
  }
};

// What a tap adds to an origin.
struct Shift {
  int y, x, offset;
  template <class T>
  DEVICE Shift of(const Gather<T>& g, const Tap& t) {
    const int y = t.a * g.direction, x = t.b * g.direction;
    return {t.a < g.taps_y ? y : 1 << 29, x, (y * g.width + x) * g.channels + t.c};
  }
};

// V channels of the source from an origin and a shift on, all of one tap.
template <int V, class T>
DEVICE vec<T, V> gather(const Gather<T>& g, const Origin<T>& o, const Shift& s) {
  const bool inside = static_cast<unsigned>(o.y + s.y) < static_cast<unsigned>(g.height) &&
                      static_cast<unsigned>(o.x + s.x) < static_cast<unsigned>(g.width);
  return inside ? load_chunk<T, V>(o.p + s.offset) : vec<T, V>::splat(0);
}

// ALIGNED loaders move 128 bits at a time: channel counts are multiples of `wide`, tensors aligned to 16 bytes. The others take any
// count, value by value.
template <bool ALIGNED>
constexpr int chunk = ALIGNED ? wide : 1;

// A of the forward and of the data gradient: rows are grid pixels, k = (a, b, c).
template <class T, class C, bool ALIGNED>
struct PixelRows {
  static constexpr int V = chunk<ALIGNED>;
  using Cut = SIMT_VARIANT::Cut<C, C::BM, C::BK, V>;
  Gather<T> g;
  Origin<T> origins[Cut::rows];
  Tap tap;
  Shift shift;
  vec<T, V> held[Cut::rows];

  METHOD void init(const Gather<T>& from, int m0, int M) {
    g = from;
    UNROLL for (int r = 0; r < Cut::rows; r++) {
      const int m = m0 + Cut::row(r);
      origins[r].set(g, Pixel::at(m, g.grid_height, g.grid_width), m < M);
    }
    tap = Tap::at(Cut::column() * V, g.taps_x, g.channels);
    shift = Shift::of(g, tap);
  }
  METHOD void advance() {
    tap.advance(C::BK, g.taps_x, g.channels);
    shift = Shift::of(g, tap);
  }
  METHOD vec<T, V> load(int r) const { return gather<V>(g, origins[r], shift); }
  METHOD void place(T* S, int r, const vec<T, V>& v) const {
    UNROLL for (int e = 0; e < V; e++) S[(Cut::column() * V + e) * (C::BM + C::pad) + Cut::row(r)] = v[e];
  }
};

// A of the weight gradient: rows are (a, b, c), k are the grid pixels from `first` on.
template <class T, class C, bool ALIGNED>
struct PixelColumns {
  static constexpr int V = chunk<ALIGNED>;
  using Cut = SIMT_VARIANT::Cut<C, C::BK, C::BM, V>;
  Gather<T> g;
  Pixel pixels[Cut::rows];
  Origin<T> origins[Cut::rows];
  Shift shift;
  vec<T, V> held[Cut::rows];
  int k, K;

  METHOD void init(const Gather<T>& from, int m0, int M, int first, int count) {
    (void)M;
    g = from;
    k = 0;
    K = count;
    shift = Shift::of(g, Tap::at(m0 + Cut::column() * V, g.taps_x, g.channels));
    UNROLL for (int r = 0; r < Cut::rows; r++) pixels[r] = Pixel::at(first + Cut::row(r), g.grid_height, g.grid_width);
    set();
  }
  METHOD void set() { UNROLL for (int r = 0; r < Cut::rows; r++) origins[r].set(g, pixels[r], k + Cut::row(r) < K); }
  METHOD void advance() {
    k += C::BK;
    UNROLL for (int r = 0; r < Cut::rows; r++) pixels[r].advance(C::BK, g.grid_height, g.grid_width);
    set();
  }
  METHOD vec<T, V> load(int r) const { return gather<V>(g, origins[r], shift); }
  METHOD void place(T* S, int r, const vec<T, V>& v) const {
    store_chunk<T, V>(S + Cut::row(r) * (C::BM + C::pad) + Cut::column() * V, v);
  }
};

// B as it lies in memory, [K][N]: the forward's weights, and the output's gradient in the weight gradient.
template <class T, class C, bool ALIGNED>
struct MatrixRows {
  static constexpr int V = chunk<ALIGNED>;
  using Cut = SIMT_VARIANT::Cut<C, C::BK, C::BN, V>;
  const T* p;
  int k, K, n0, N;
  vec<T, V> held[Cut::rows];

  METHOD void init(const T* matrix, int depth, int n, int width) {
    p = matrix;
    k = 0;
    K = depth;
    n0 = n;
    N = width;
  }
  METHOD void advance() { k += C::BK; }
  METHOD vec<T, V> load(int r) const {
    const int row = k + Cut::row(r), n = n0 + Cut::column() * V;
    const T* from = p + static_cast<long long>(row) * N + n;
    return row < K && n + V <= N ? load_chunk<T, V>(from) : vec<T, V>::splat(0);
  }
  METHOD void place(T* S, int r, const vec<T, V>& v) const {
    store_chunk<T, V>(S + Cut::row(r) * (C::BN + C::pad) + Cut::column() * V, v);
  }
};

// B of the data gradient: k = (a, b, c) of the gather, c an output channel, n an input channel. Tap (a, b) of the gather is tap
// (first_y + a·stride, first_x + b·stride) of the weights [KH][KW][N][channels].
template <class T, class C, bool ALIGNED>
struct WeightColumns {
  static constexpr int V = chunk<ALIGNED>;
  using Cut = SIMT_VARIANT::Cut<C, C::BN, C::BK, V>;
  const T* w;
  int n0, N, channels, taps_y, taps_x, kernel_width, first_y, first_x, stride;
  Tap tap;
  vec<T, V> held[Cut::rows];

  METHOD void init(const Gather<T>& g, const T* weights, int n, int width, int kw, int ky, int kx, int s) {
    w = weights;
    n0 = n;
    N = width;
    channels = g.channels;
    taps_y = g.taps_y;
    taps_x = g.taps_x;
    kernel_width = kw;
    first_y = ky;
    first_x = kx;
    stride = s;
    tap = Tap::at(Cut::column() * V, taps_x, channels);
  }
  METHOD void advance() { tap.advance(C::BK, taps_x, channels); }
  METHOD const T* at(int n, const Tap& t) const {
    const int tap = (first_y + t.a * stride) * kernel_width + first_x + t.b * stride;
    return w + (static_cast<long long>(tap) * N + n) * channels + t.c;
  }
  METHOD vec<T, V> load(int r) const {
    const int n = n0 + Cut::row(r);
    return n < N && tap.a < taps_y && tap.c + V <= channels ? load_chunk<T, V>(at(n, tap)) : vec<T, V>::splat(0);
  }
  METHOD void place(T* S, int r, const vec<T, V>& v) const {
    UNROLL for (int e = 0; e < V; e++) S[(Cut::column() * V + e) * (C::BN + C::pad) + Cut::row(r)] = v[e];
  }
};

}  // namespace SIMT_VARIANT
