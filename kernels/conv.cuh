// What turns a convolution into the product of gemm.cuh: the loaders of a GPU (staged.cuh) or of the host (indirect.cuh), and the
// sinks.
#pragma once
#include "gather.cuh"
#ifdef SIMT_TILES_HOST
#include "indirect.cuh"
#else
#include "staged.cuh"
#endif

namespace SIMT_VARIANT {

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
      if (per_image) add = per_image + static_cast<long long>(q.n) * per_image_stride;
    }
    out = y + pixel * N;
    if (residual) res = residual + pixel * N;
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
