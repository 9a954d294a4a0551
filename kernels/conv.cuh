// What turns a convolution into the product of gemm.cuh: the loaders of a GPU (staged.cuh) or of the host (indirect.cuh), and the
// sinks.
#pragma once
#include "gather.cuh"
#include "math.cuh"
#ifdef SIMT_TILES_HOST
#include "thin.cuh"
#include "winograd.cuh"
#else
#include "staged.cuh"
#endif

namespace SIMT_VARIANT {

// y[pixel][n] = v = (sum + bias[n] + per_image[image][n] + residual[pixel][n])·scale, absent terms null; with silu y = silu(v), and v goes to
// pre where that is not null. Row m is grid pixel (n, i, j), output pixel (n, i·stride + oy, j·stride + ox).
template <class T, class C, bool ALIGNED>
struct PixelSink {
  real* y;
  const T* bias;
  const real *per_image, *residual;
  int per_image_stride, N, grid_height, grid_width, stride, oy, ox, height, width;
  T scale;
  real* pre;
  int silu;
  long long out;  // where the row is in y
  const real* add;

  METHOD void begin(int m) {
    if (stride > 1 || per_image) {
      const Pixel q = Pixel::at(m, grid_height, grid_width);
      at((static_cast<long long>(q.n) * height + q.i * stride + oy) * width + q.j * stride + ox, q.n);
    } else {
      at(m, 0);
    }
  }
  // The next values are of an output pixel, which is of an image.
  METHOD void at(long long pixel, int image) {
    out = pixel * N;
    if (per_image) add = per_image + static_cast<long long>(image) * per_image_stride;
  }
  template <int V>
  METHOD void put(int n, vec<T, V> c) const {
    if (ALIGNED || (C::threads == 1 && n + V <= N)) return finish(n, c);
    for (int e = 0; e < V && n + e < N; e++) finish(n + e, vec<T, 1>::splat(c[e]));
  }
  template <int V>
  METHOD void finish(int n, vec<T, V> c) const {
    if (bias) c = c + load<V>(bias + n);
    if (per_image) c = c + load<V>(add + n);
    if (residual) c = c + load<V>(residual + out + n);
    c = c * vec<T, V>::splat(scale);
    if (silu) {
      if (pre) store(pre + out + n, c);
      c = c * sigmoid(c);
    }
    store(y + out + n, c);
  }
};

// c[m - first][n] of a matrix with rows of N values.
template <class T, class C, bool ALIGNED>
struct MatrixSink {
  T* c;
  int first, N;
  T* out;

  METHOD void begin(int m) { out = c + static_cast<long long>(m - first) * N; }
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
