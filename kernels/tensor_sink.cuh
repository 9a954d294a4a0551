// Epilogues of tensor.cuh: what is done with a block's sums.
#pragma once
#include "math.cuh"
#include "tensor_load.cuh"

namespace SIMT_VARIANT {

struct alignas(8) Pair {
  float a, b;
};

// v = (sum + bias[n] + per_image[image][n] + residual[pixel][n])·scale of pixel rows, absent terms null; y = v, or silu(v), and then v
// itself to pre where that is not null. Row m of the product is grid pixel (n, i, j), output pixel (n, i·stride + oy, j·stride + ox).
//
// A warp passes 16 rows at a time through shared memory, where a lane finds a chunk of one row, so that reads and writes of tensors are of
// 128 bits. stats: mean and sum of squared distances from it of each column of y, before rounding, over the rows that the tile has of each image
// (precisely: of 16 rows each by two passes, then Chan's formula in ascending order), at [image][tile of the image][N][2].
template <class C, bool ANY>
struct PixelOutput {
  real* y;
  const acc* bias;
  const real *per_image, *residual;
  int per_image_stride;
  acc scale;
  real* pre;
  acc* stats;
  int silu;
  int N, grid_height, grid_width, stride, oy, ox, height, width;

  template <class FA>
  METHOD void write(float (&d)[C::TM][C::TN][4], int M, int m0, int n0, char* shared) const {
    if constexpr (C::SPLIT > 1) {
      float own[own_rows<C>][C::TN][4];
      exchange<C>(own, d, shared);
      rows(own, M, m0, n0, shared);
    } else {
      __syncthreads();
      rows(d, M, m0, n0, shared);
    }
  }
  METHOD void rows(const float (&d)[own_rows<C>][C::TN][4], int M, int m0, int n0, char* shared) const {
    constexpr int pitch = C::WN + 8, lanes = C::WN / kChunk, each = 32 / lanes, passes = 16 / each;
    constexpr int stage_bytes = 16 * pitch * 4, all_bytes = C::warps * C::SPLIT * stage_bytes;
    static_assert(all_bytes + C::BM / 16 * C::BN * 8 <= C::STAGES * C::bytes, "rows and statistics fit in the stages");
    const WarpPlace<C> w = WarpPlace<C>::here();
    float* const stage = reinterpret_cast<float*>(shared + static_cast<int>(threadIdx.x) / 32 * stage_bytes);
    Pair* const parts = reinterpret_cast<Pair*>(shared + all_bytes);
    const int g = w.lane / 4, t = w.lane % 4, first = w.lane / lanes, c = w.lane % lanes * kChunk, n = n0 + w.n0 + c;
    UNROLL_FRAGMENTS for (int i = 0; i < own_rows<C>; i++) {
      const int group = w.m0 / 16 + w.group * own_rows<C> + i, row = m0 + group * 16;
      vec<acc, kChunk> add[passes];
      long long at[passes];
      UNROLL_FRAGMENTS for (int q = 0; q < passes; q++) {
        const int m = row + first + q * each;
        at[q] = -1;
        if (m < M && n < N) terms(add[q], at[q], m, n);
      }
      __syncwarp(0xffffffffu);
      UNROLL_FRAGMENTS for (int h = 0; h < 2; h++) {
        UNROLL_FRAGMENTS for (int j = 0; j < C::TN; j++) {
          *reinterpret_cast<Pair*>(stage + (h * 8 + g) * pitch + j * 8 + t * 2) = {d[i][j][h * 2], d[i][j][h * 2 + 1]};
        }
      }
      __syncwarp(0xffffffffu);
      UNROLL_FRAGMENTS for (int q = 0; q < passes; q++) {
        if (at[q] < 0) continue;
        float* const from = stage + (first + q * each) * pitch + c;
        vec<acc, kChunk> v = (vec<acc, kChunk>::load_aligned(from) + add[q]) * vec<acc, kChunk>::splat(scale);
        if (silu) {
          if (pre) put(pre + at[q], n, v);
          v = v * sigmoid(v);
        }
        put(y + at[q], n, v);
        if (stats) v.store_aligned(from);
      }
      if (stats && row < M) {
        __syncwarp(0xffffffffu);
        for (int k = w.lane; k < C::WN; k += 32) parts[group * C::BN + w.n0 + k] = column_moments(stage + k, pitch);
      }
    }
    if (stats) {
      __syncthreads();
      combine(parts, M, m0, n0);
    }
  }

  // What is added to the sums of columns n… of row m, and where they go.
  METHOD void terms(vec<acc, kChunk>& add, long long& at, int m, int n) const {
    long long pixel = m;
    int image = 0;
    if (stride > 1 || per_image) {
      const Pixel q = Pixel::at(m, grid_height, grid_width);
      pixel = (static_cast<long long>(q.n) * height + q.i * stride + oy) * width + q.j * stride + ox;
      image = q.n;
    }
    at = pixel * N + n;
    add = vec<acc, kChunk>::splat(0);
    if (bias) add = get(bias + n, n);
    if (per_image) add = add + get(per_image + static_cast<long long>(image) * per_image_stride + n, n);
    if (residual) add = add + get(residual + at, n);
  }

  // Columns n… of a row at p; there are no others from N on.
  template <class P>
  METHOD vec<acc, kChunk> get(const P* p, int n) const {
    if constexpr (!ANY) return load<kChunk>(p);
    vec<acc, kChunk> v = vec<acc, kChunk>::splat(0);
    UNROLL for (int e = 0; e < kChunk; e++) {
      if (n + e < N) v.set(e, load<1>(p + e)[0]);
    }
    return v;
  }
  METHOD void put(real* p, int n, vec<acc, kChunk> v) const {
    if constexpr (!ANY) return store(p, v);
    UNROLL for (int e = 0; e < kChunk; e++) {
      if (n + e < N) store(p + e, vec<acc, 1>::splat(v[e]));
    }
  }

  DEVICE Pair column_moments(const float* column, int pitch) {
    float v[16], sum = 0, squares = 0;
    UNROLL for (int r = 0; r < 16; r++) v[r] = column[r * pitch];
    UNROLL for (int r = 0; r < 16; r++) sum = sum + v[r];
    const float mean = sum * 0.0625f;
    UNROLL for (int r = 0; r < 16; r++) squares = fma(v[r] - mean, v[r] - mean, squares);
    return {mean, squares};
  }
  // Puts the moments of the tile's groups of 16 rows together, those of each image.
  METHOD void combine(const Pair* parts, int M, int m0, int n0) const {
    const int pixels = grid_height * grid_width, rows = pixels < C::BM ? pixels : C::BM;
    const int tiles = pixels / rows, images = C::BM / rows;
    for (int k = static_cast<int>(threadIdx.x); k < images * C::BN; k += C::threads) {
      const int part = k / C::BN, column = k % C::BN, m = m0 + part * rows, n = n0 + column;
      if (m >= M || n >= N) continue;
      const Pair* p = parts + part * (rows / 16) * C::BN + column;
      Pair total = *p;
      for (int r = 1; r < rows / 16; r++) {
        p += C::BN;
        const float share = 1.0f / static_cast<float>(r + 1), difference = p->a - total.a;
        total.a = fma(difference, share, total.a);
        total.b = total.b + p->b + difference * difference * (16.0f * static_cast<float>(r) * share);
      }
      const int image = m / pixels, tile = m % pixels / rows;
      *reinterpret_cast<Pair*>(stats + ((static_cast<long long>(image) * tiles + tile) * N + n) * 2) = total;
    }
  }
};

// c[m - first][n] of a matrix with rows of N floats, from the registers: a warp's stores fill sectors of 32 bytes.
template <class C, bool ANY>
struct MatrixOutput {
  acc* c;
  int first, N;

  template <class FA>
  METHOD void write(float (&d)[C::TM][C::TN][4], int M, int m0, int n0, char* shared) const {
    if constexpr (C::SPLIT > 1) {
      float own[own_rows<C>][C::TN][4];
      exchange<C>(own, d, shared);
      rows<FA>(own, M, m0, n0);
    } else {
      rows<FA>(d, M, m0, n0);
    }
  }
  template <class FA>
  METHOD void rows(const float (&d)[own_rows<C>][C::TN][4], int M, int m0, int n0) const {
    const WarpPlace<C> w = WarpPlace<C>::here();
    const int g = w.lane / 4, n = n0 + w.n0 + w.lane % 4 * 2;
    UNROLL_FRAGMENTS for (int i = 0; i < own_rows<C>; i++) {
      UNROLL_FRAGMENTS for (int h = 0; h < 2; h++) {
        const int m = m0 + w.m0 + FA::row(w.group * own_rows<C> + i, h, g);
        if (m >= M) continue;
        acc* const to = c + static_cast<long long>(m - first) * N + n;
        UNROLL_FRAGMENTS for (int j = 0; j < C::TN; j++) {
          if constexpr (ANY) {
            if (n + j * 8 < N) to[j * 8] = d[i][j][h * 2];
            if (n + j * 8 + 1 < N) to[j * 8 + 1] = d[i][j][h * 2 + 1];
          } else {
            if (n + j * 8 < N) *reinterpret_cast<Pair*>(to + j * 8) = {d[i][j][h * 2], d[i][j][h * 2 + 1]};
          }
        }
      }
    }
  }
};

}  // namespace SIMT_VARIANT
