// Convolutions on tensor cores: the bodies of conv.cu.
#pragma once
#include "tensor_sink.cuh"

namespace SIMT_VARIANT {

// Tiles: BM, BN, of a warp WM, WN, SPLIT, SLICES, STAGES.
using LargeTensorTile = TensorTile<128, 128, 64, 64, 1, 2, 3>;
using MediumTensorTile = TensorTile<128, 64, 64, 32, 1, 2, 4>;
using SmallTensorTile = TensorTile<64, 64, 64, 64, 4, 4, 3>;
using NarrowTensorTile = TensorTile<128, 32, 32, 32, 1, 2, 4>;
using ThinTensorTile = TensorTile<128, 16, 32, 16, 1, 2, 4>;

template <class C, class A, class B, class Output>
DEVICE void tensor_block(A& a, B& b, const Output& output, int M, int K, int m0, int n0, char* shared) {
  float d[C::TM][C::TN][4];
  tensor_product<C>(d, a, b, (K + C::BK - 1) / C::BK, shared);  // where a step is of one tap, K is whole steps
  output.template write<FragmentsA<C, A::along>>(d, M, m0, n0, shared);
}

template <class T, class C, bool ALIGNED>
DEVICE void conv_forward(real* y, const real* x, const real* w, const T* bias, const real* per_image, const real* residual,
                         int per_image_stride, T scale, real* pre, T* stats, int silu, int images, int height, int width, int cin,
                         int cout, int kh, int kw, int stride, int pad_top, int pad_left, int out_height, int out_width) {
  SHARED(char, shared, C::STAGES* C::bytes);
  const int M = images * out_height * out_width, K = kh * kw * cin, m0 = blockIdx.x * C::BM, n0 = blockIdx.y * C::BN;
  const Gather<real> g = {x, height, width, cin, out_height, out_width, stride, -pad_top, -pad_left, 1, kh, kw};
  const PixelOutput<C, !ALIGNED> output = {y,   bias,  per_image, residual,   per_image_stride, scale,
                                           pre, stats, silu,      cout,       out_height,       out_width,
                                           1,   0,     0,         out_height, out_width};
  if constexpr (ALIGNED) {
    TapRows<C> a;
    a.init(g, m0, M);
    TapMatrix<C> b;
    b.init(w, kh * kw, cin, n0, cout);
    tensor_block<C>(a, b, output, M, K, m0, n0, shared);
  } else {
    ImageRows<C> a;
    a.init(g, m0, M);
    MatrixAcross<C, true> b;
    b.init(w, K, n0, cout);
    tensor_block<C>(a, b, output, M, K, m0, n0, shared);
  }
}

template <class T, class C, bool ALIGNED>
DEVICE void conv_backward_data(real* dx, const real* dy, const real* w, const T* bias, const real* per_image,
                               const real* residual, int per_image_stride, T scale, real* pre, T* stats, int silu, int images,
                               int height, int width, int cin, int cout, int kh, int kw, int stride, int pad_top, int pad_left,
                               int out_height, int out_width) {
  SHARED(char, shared, C::STAGES* C::bytes);
  const int oy = static_cast<int>(blockIdx.z) / stride, ox = static_cast<int>(blockIdx.z) % stride;
  const int grid_height = (height - oy + stride - 1) / stride, grid_width = (width - ox + stride - 1) / stride;
  const int M = images * grid_height * grid_width, m0 = blockIdx.x * C::BM, n0 = blockIdx.y * C::BN;
  if (m0 >= M) return;
  const int ky = (oy + pad_top) % stride, kx = (ox + pad_left) % stride;
  const bool reached = ky < kh && kx < kw;  // a stride larger than the kernel leaves pixels that no output saw
  const int taps_y = reached ? (kh - ky + stride - 1) / stride : 0, taps_x = reached ? (kw - kx + stride - 1) / stride : 1;
  const Gather<real> g = {
      dy, out_height, out_width, cout, grid_height, grid_width, 1, (oy + pad_top) / stride, (ox + pad_left) / stride,
      -1, taps_y,     taps_x};
  const PixelOutput<C, !ALIGNED> output = {dx,    bias,   per_image, residual,    per_image_stride, scale,  pre,
                                           stats, silu,   cin,       grid_height, grid_width,       stride, oy,
                                           ox,    height, width};
  const int K = taps_y * taps_x * cout;
  if constexpr (ALIGNED) {
    TapRows<C> a;
    a.init(g, m0, M);
    TapWeights<C> b;
    b.init(g, w, n0, cin, kw, ky, kx, stride);
    tensor_block<C>(a, b, output, M, K, m0, n0, shared);
  } else {
    ImageRows<C> a;
    a.init(g, m0, M);
    WeightsAlong<C> b;
    b.init(a, w, n0, cin, kw, ky, kx, stride);
    tensor_block<C>(a, b, output, M, K, m0, n0, shared);
  }
}

// Whether the input channels of a weight gradient are whole chunks: a narrow tile leaves the others to a large one.
template <class C, bool ALIGNED>
constexpr bool whole_chunks = ALIGNED || C::BN < 64;

// Shard s is images s·shard_size… of the launch; one past the end is empty and its partial is zeros.
template <class T, class C, bool ALIGNED>
DEVICE void conv_backward_weight(T* partial, T* work, const real* dy, const real* x, long long partial_stride, int cut_row,
                                 int segments, int length, int images, int shard_size, int height, int width, int cin, int cout,
                                 int kh, int kw, int stride, int pad_top, int pad_left, int out_height, int out_width) {
  SHARED(char, shared, C::STAGES* C::bytes);
  const int M = kh * kw * cin, pixels = out_height * out_width;
  const Segments cut = {cut_row, segments, length};
  const WeightBlock<C> w = WeightBlock<C>::here(cut, M, cout, images, shard_size, pixels);
  const Gather<real> g = {x, height, width, cin, out_height, out_width, stride, -pad_top, -pad_left, 1, kh, kw};
  ImageColumns<C, !whole_chunks<C, ALIGNED>> a;
  a.init(g, w.m0, M, w.image, w.start, w.count);
  MatrixAcross<C, !ALIGNED> b;
  b.init(dy + (static_cast<long long>(w.image) * pixels + w.start) * cout, w.count, w.n0, cout);
  float d[C::TM][C::TN][4];
  tensor_product<C>(d, a, b, (w.count + C::BK - 1) / C::BK, shared);
  const MatrixOutput<C, !ALIGNED> output = {w.place(partial, partial_stride, work, cut, M, cout), w.row(cut), cout};
  output.template write<FragmentsA<C, false>>(d, M, w.m0, w.n0, shared);
}

}  // namespace SIMT_VARIANT
