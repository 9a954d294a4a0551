// Loaders and sinks that turn convolutions into the product of gemm.cuh. Shapes: NHWC images, weights [KH][KW][Cin][Cout].
//
// Forward and data gradient are one gather. A row of A is a pixel (n, i, j) of a grid, k is (a, b, c): tap (a, b) and channel c
// of the source image at y = i·step + y0 + a·direction, x likewise, 0 outside of the image. The forward has step = stride,
// y0 = -padTop, direction = 1. The data gradient with stride s splits into s² classes by the position of the pixel within a
// stride, so that only the taps that reach a class are summed: step = 1, direction = -1.
// The weight gradient is the forward's gather with pixels as k and (a, b, c) as rows.
#pragma once
#include "gemm.cuh"

namespace SIMT_VARIANT {

// A position m = (n·height + i)·width + j in a grid of pixels over images.
struct Pixel {
  int n, i, j;
  DEVICE Pixel at(int m, int height, int width) {
    const int rows = static_cast<int>(static_cast<unsigned>(m) / width),
              n = static_cast<int>(static_cast<unsigned>(rows) / height);
    return {n, rows - n * height, m - rows * width};
  }
  METHOD void advance(int d, int height, int width) {
    j += d;
    if (j < width) return;
    const int rows = d == 1 ? 1 : static_cast<int>(static_cast<unsigned>(j) / width);
    j -= rows * width;
    i += rows;
    if (i < height) return;
    const int images = d == 1 ? 1 : static_cast<int>(static_cast<unsigned>(i) / height);
    i -= images * height;
    n += images;
  }
};

// A position k = (a·taps_x + b)·channels + c.
struct Tap {
  int a, b, c;
  DEVICE Tap at(int k, int taps_x, int channels) {
    const int ab = static_cast<int>(static_cast<unsigned>(k) / channels),
              a = static_cast<int>(static_cast<unsigned>(ab) / taps_x);
    return {a, ab - a * taps_x, k - ab * channels};
  }
  METHOD void advance(int d, int taps_x, int channels) {
    c += d;
    while (c >= channels) {
      c -= channels;
      if (++b == taps_x) {
        b = 0;
        a++;
      }
    }
  }
};

// The images that are read, and how a grid pixel and a tap make a position in them.
template <class T>
struct Gather {
  const T* x;
  int height, width, channels, grid_height, grid_width, step, y0, x0, direction, taps_y, taps_x;
};

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
#ifdef SIMT_TILES_HOST
  alignas(64) static const T zeros[V] = {};  // an address to choose, where a branch would be mispredicted at every border
  return vec<T, V>::load(inside ? o.p + s.offset : zeros);
#else
  return inside ? load_chunk<T, V>(o.p + s.offset) : vec<T, V>::splat(0);
#endif
}

// The same where the V values may reach into following taps.
template <int V, class T>
DEVICE vec<T, V> gather_across(const Gather<T>& g, const Origin<T>& o, Tap t) {
  vec<T, V> v = vec<T, V>::splat(0);
  for (int e = 0; e < V && t.a < g.taps_y; e++) {
    v.set(e, gather<1>(g, o, Shift::of(g, t))[0]);
    t.advance(1, g.taps_x, g.channels);
  }
  return v;
}

// ALIGNED loaders move 128 bits (a GPU) or a vector register (the host) at a time: channel counts are multiples of `wide`, tensors
// aligned to 16 bytes. The others take any count: value by value on a GPU, on the host as wide as the position allows.
template <class C, bool ALIGNED>
struct Chunk {
  static constexpr int V = ALIGNED || C::threads == 1 ? wide : 1;
};

// A of the forward and of the data gradient: rows are grid pixels, k = (a, b, c).
template <class T, class C, bool ALIGNED>
struct PixelRows {
  static constexpr int V = Chunk<C, ALIGNED>::V;
  static constexpr bool along_k = true, rows_major = C::threads == 1;
  using Cut = SIMT_VARIANT::Cut<C, C::BM, C::BK, V>;
  Gather<T> g;
  Origin<T> origins[Cut::rows];
  Tap taps[Cut::columns];
  Shift shifts[Cut::columns];
  vec<T, V> held[C::threads == 1 ? 1 : Cut::rows];

  METHOD void init(const Gather<T>& from, int m0, int M) {
    g = from;
    Pixel q = Pixel::at(m0 + Cut::row(0), g.grid_height, g.grid_width);
    UNROLL_GPU for (int r = 0; r < Cut::rows; r++) {
      const int m = m0 + Cut::row(r);
      if (Cut::lanes > 1) q = Pixel::at(m, g.grid_height, g.grid_width);
      origins[r].set(g, q, m < M);
      if (Cut::lanes == 1) q.advance(1, g.grid_height, g.grid_width);
    }
    UNROLL_GPU for (int c = 0; c < Cut::columns; c++) {
      taps[c] = Tap::at(Cut::column(c) * V, g.taps_x, g.channels);
      shifts[c] = Shift::of(g, taps[c]);
    }
  }
  METHOD void advance() {
    UNROLL_GPU for (int c = 0; c < Cut::columns; c++) {
      taps[c].advance(C::BK, g.taps_x, g.channels);
      shifts[c] = Shift::of(g, taps[c]);
    }
  }
  METHOD vec<T, V> load(int r, int c) const {
    if (ALIGNED || V == 1 || taps[c].c + V <= g.channels) return gather<V>(g, origins[r], shifts[c]);
    return gather_across<V>(g, origins[r], taps[c]);
  }
  METHOD void place(T* S, int r, int c, const vec<T, V>& v) const {
    if constexpr (rows_major) {
      v.store(S + r * C::BK + c * V);
    } else {
      UNROLL for (int e = 0; e < V; e++) S[(Cut::column(c) * V + e) * (C::BM + C::pad) + Cut::row(r)] = v[e];
    }
  }
};

// A of the weight gradient: rows are (a, b, c), k are the grid pixels from `first` on.
template <class T, class C, bool ALIGNED>
struct PixelColumns {
  static constexpr int V = Chunk<C, ALIGNED>::V;
  static constexpr bool along_k = false, rows_major = false;
  using Cut = SIMT_VARIANT::Cut<C, C::BK, C::BM, V>;
  Gather<T> g;
  Pixel pixels[Cut::rows];
  Origin<T> origins[Cut::rows];
  Tap taps[Cut::columns];
  Shift shifts[Cut::columns];
  vec<T, V> held[C::threads == 1 ? 1 : Cut::rows];
  int k, K, used;

  METHOD void init(const Gather<T>& from, int m0, int M, int first, int count) {
    g = from;
    k = 0;
    K = count;
    used = (M - m0 < C::BM ? M - m0 + V - 1 : C::BM) / V;
    UNROLL_GPU for (int c = 0; c < Cut::columns; c++) {
      taps[c] = Tap::at(m0 + Cut::column(c) * V, g.taps_x, g.channels);
      shifts[c] = Shift::of(g, taps[c]);
    }
    UNROLL_GPU for (int r = 0; r < Cut::rows; r++) pixels[r] = Pixel::at(first + Cut::row(r), g.grid_height, g.grid_width);
    set();
  }
  METHOD void set() { UNROLL_GPU for (int r = 0; r < Cut::rows; r++) origins[r].set(g, pixels[r], k + Cut::row(r) < K); }
  METHOD void advance() {
    k += C::BK;
    UNROLL_GPU for (int r = 0; r < Cut::rows; r++) pixels[r].advance(C::BK, g.grid_height, g.grid_width);
    set();
  }
  METHOD vec<T, V> load(int r, int c) const {
    if (ALIGNED || V == 1 || taps[c].c + V <= g.channels) return gather<V>(g, origins[r], shifts[c]);
    return gather_across<V>(g, origins[r], taps[c]);
  }
  METHOD void place(T* S, int r, int c, const vec<T, V>& v) const {
    store_chunk<T, V>(S + Cut::row(r) * (C::BM + C::pad) + Cut::column(c) * V, v);
  }
};

// B as it lies in memory, [K][N]: the forward's weights, and the output's gradient in the weight gradient.
template <class T, class C, bool ALIGNED>
struct MatrixRows {
  static constexpr int V = Chunk<C, ALIGNED>::V;
  static constexpr bool along_k = false;
  using Cut = SIMT_VARIANT::Cut<C, C::BK, C::BN, V>;
  const T* p;
  int k, K, n0, N, used;
  vec<T, V> held[C::threads == 1 ? 1 : Cut::rows];

  METHOD void init(const T* matrix, int depth, int n, int width) {
    p = matrix;
    k = 0;
    K = depth;
    n0 = n;
    N = width;
    used = ((N - n0 < C::BN ? N - n0 : C::BN) + C::TN - 1) / C::TN * C::TN / V;
  }
  METHOD void advance() { k += C::BK; }
  METHOD vec<T, V> load(int r, int c) const {
    const int row = k + Cut::row(r), n = n0 + Cut::column(c) * V;
    const T* from = p + static_cast<long long>(row) * N + n;
    if (row < K && n + V <= N) return load_chunk<T, V>(from);
    vec<T, V> v = vec<T, V>::splat(0);
    if (!ALIGNED && row < K) {
      for (int e = 0; e < N - n; e++) v.set(e, from[e]);
    }
    return v;
  }
  METHOD void place(T* S, int r, int c, const vec<T, V>& v) const {
    store_chunk<T, V>(S + Cut::row(r) * (C::BN + C::pad) + Cut::column(c) * V, v);
  }
};

// B of the data gradient: k = (a, b, c) of the gather, c an output channel, n an input channel. Tap (a, b) of the gather is tap
// (first_y + a·stride, first_x + b·stride) of the weights [KH][KW][N][channels].
template <class T, class C, bool ALIGNED>
struct WeightColumns {
  static constexpr int V = Chunk<C, ALIGNED>::V;
  static constexpr bool along_k = true;
  using Cut = SIMT_VARIANT::Cut<C, C::BN, C::BK, V>;
  const T* w;
  int n0, N, channels, taps_y, taps_x, kernel_width, first_y, first_x, stride;
  Tap taps[Cut::columns];
  vec<T, V> held[C::threads == 1 ? 1 : Cut::rows];

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
    UNROLL_GPU for (int c = 0; c < Cut::columns; c++) taps[c] = Tap::at(Cut::column(c) * V, taps_x, channels);
  }
  METHOD void advance() { UNROLL_GPU for (int c = 0; c < Cut::columns; c++) taps[c].advance(C::BK, taps_x, channels); }
  METHOD const T* at(int n, const Tap& t) const {
    const int tap = (first_y + t.a * stride) * kernel_width + first_x + t.b * stride;
    return w + (static_cast<long long>(tap) * N + n) * channels + t.c;
  }
  METHOD vec<T, V> load(int r, int c) const {
    const int n = n0 + Cut::row(r);
    Tap t = taps[c];
    if (n < N && t.a < taps_y && t.c + V <= channels) return load_chunk<T, V>(at(n, t));
    vec<T, V> v = vec<T, V>::splat(0);
    if (!ALIGNED && V > 1 && n < N) {
      for (int e = 0; e < V && t.a < taps_y; e++) {
        v.set(e, *at(n, t));
        t.advance(1, taps_x, channels);
      }
    }
    return v;
  }
  METHOD void place(T* S, int r, int c, const vec<T, V>& v) const {
    UNROLL for (int e = 0; e < V; e++) S[(Cut::column(c) * V + e) * (C::BN + C::pad) + Cut::row(r)] = v[e];
  }
};

// y[pixel][n] = (acc + bias[n] + per_image[image][n] + residual[pixel][n])·scale, absent terms null. Row m is grid pixel
// (n, i, j), output pixel (n, i·stride + oy, j·stride + ox).
template <class T, class C, bool ALIGNED>
struct PixelSink {
  T* y;
  const T *bias, *per_image, *residual;
  int per_image_stride, N, grid_height, grid_width, stride, oy, ox, height, width;
  T scale;
  T* out;
  const T *add, *res;

  METHOD void begin(int m) {
    long long pixel = m;
    if (stride > 1 || per_image) {
      const Pixel q = Pixel::at(m, grid_height, grid_width);
      pixel = (static_cast<long long>(q.n) * height + q.i * stride + oy) * width + q.j * stride + ox;
      add = per_image + static_cast<long long>(q.n) * per_image_stride;
    }
    out = y + pixel * N;
    res = residual + pixel * N;
  }
  template <int V>
  METHOD void put(int n, vec<T, V> c) const {
    if (ALIGNED || (C::threads == 1 && n + V <= N)) {
      if (bias) c = c + load_chunk<T, V>(bias + n);
      if (per_image) c = c + load_chunk<T, V>(add + n);
      if (residual) c = c + load_chunk<T, V>(res + n);
      store_chunk<T, V>(out + n, c * vec<T, V>::splat(scale));
      return;
    }
    for (int e = 0; e < V && n + e < N; e++) {
      T v = c[e];
      if (bias) v = v + bias[n + e];
      if (per_image) v = v + add[n + e];
      if (residual) v = v + res[n + e];
      out[n + e] = v * scale;
    }
  }
};

// c[m][n] of a matrix with rows of N values.
template <class T, class C, bool ALIGNED>
struct MatrixSink {
  T* c;
  int N;
  T* out;

  METHOD void begin(int m) { out = c + static_cast<long long>(m) * N; }
  template <int V>
  METHOD void put(int n, vec<T, V> v) const {
    if (ALIGNED || (C::threads == 1 && n + V <= N)) {
      store_chunk<T, V>(out + n, v);
      return;
    }
    for (int e = 0; e < V && n + e < N; e++) out[n + e] = v[e];
  }
};

}  // namespace SIMT_VARIANT
