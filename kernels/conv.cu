// Convolutions and linear layers: forward, data gradient, weight gradient, as implicit matrix products (gemm.cuh, conv.cuh).
//
// x [N][H][W][Cin], w [KH][KW][Cin][Cout], y [N][OH][OW][Cout], outside of x is 0, s the stride:
//   forward          y[n,p,q,o] = (Σ_{a,b,c} x[n, p·s-padTop+a, q·s-padLeft+b, c]·w[a,b,c,o] + bias[o] + image[n,o] + residual[n,p,q,o])·scale,
//                    or silu of that, and that itself to `pre`
//   data gradient    dx[n,h,w,c] = the same with Σ_{a,b,o} dy[n, (h+padTop-a)/s, (w+padLeft-b)/s, o]·w[a,b,c,o], over taps that divide;
//                    it is also the forward of the transposed convolution, hence the bias
//   weight gradient  partial[shard][a,b,c,o] = Σ_{n in shard, p, q} x[n, p·s-padTop+a, q·s-padLeft+b, c]·dy[n,p,q,o], pixels ascending;
//                    of rows (a, b, c) from cut_row on in segments of `length` pixels, to work[shard][segment] (gather.cuh, Segments)
// A linear layer is a 1×1 convolution of 1×1 images. Every kernel assigns its output.
//
// Blocks: x over rows of the product (pixels), y over columns (output channels of the product), z over the classes of a strided data gradient;
// of the weight gradient all in x (gather.cuh, WeightBlock). Bound: FLOPs, 2·N·OH·OW·KH·KW·Cin·Cout each, where KH·KW·Cin and Cout
// are beyond about 16; bytes of x and y below.
// Entries: tiles for many and for few columns; `any` for channel counts that are no multiple of a chunk. On tensor cores (tensor_conv.cuh)
// there are more tiles; their forward also writes the statistics that the next group norm needs.
#include "simt.cuh"
#ifdef SIMT_TENSOR
#include "tensor_conv.cuh"
#else
#include "conv.cuh"

namespace SIMT_VARIANT {

template <class T, class C, bool ALIGNED>
DEVICE void conv_forward(real* y, const real* x, const real* w, const T* bias, const real* per_image, const real* residual,
                         int per_image_stride, T scale, real* pre, T* stats, int silu, int images, int height, int width, int cin,
                         int cout, int kh, int kw, int stride, int pad_top, int pad_left, int out_height, int out_width) {
  const int M = images * out_height * out_width, K = kh * kw * cin, m0 = blockIdx.x * C::BM, n0 = blockIdx.y * C::BN;
  const Gather<real> g = {x, height, width, cin, out_height, out_width, stride, -pad_top, -pad_left, 1, kh, kw};
  PixelRows<real, C, ALIGNED> a;
  a.init(g, m0, M);
  MatrixRows<real, C, ALIGNED> b;
  b.init(w, K, n0, cout);
  PixelSink<T, C, ALIGNED> sink = {y, bias, per_image, residual,   per_image_stride, cout,  out_height, out_width,
                                   1, 0,    0,         out_height, out_width,        scale, pre,        silu};
#ifdef SIMT_TILES_HOST
  if constexpr (thin_tile<C, ALIGNED>) {
    if (thin_pays(kh * kw, cin, cout)) {
      return with_channels(cout, [&](auto o) { thin_forward<T, C, decltype(o)::n>(g, w, sink, m0, M); });
    }
  }
  if constexpr (winograd_tile<C, ALIGNED>) {
    if (winograd_pays(kh, kw, stride, cin, cout, out_height, out_width)) {
      const Tiles<T> tiles = tiles_of<T>(x, height, width, cin, pad_top, pad_left, out_height, out_width);
      return winograd<T, C>(tiles, ForwardTaps<T, C>{w, cin, cout}, sink, images, cout, out_height, out_width);
    }
  }
#endif
  gemm<C, T>(a, b, sink, M, cout, K, m0, n0);
}

template <class T, class C, bool ALIGNED>
DEVICE void conv_backward_data(real* dx, const real* dy, const real* w, const T* bias, const real* per_image,
                               const real* residual, int per_image_stride, T scale, real* pre, T* stats, int silu, int images,
                               int height, int width, int cin, int cout, int kh, int kw, int stride, int pad_top, int pad_left,
                               int out_height, int out_width) {
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
  PixelRows<real, C, ALIGNED> a;
  a.init(g, m0, M);
  WeightColumns<real, C, ALIGNED> b;
  b.init(g, w, n0, cin, kw, ky, kx, stride);
  PixelSink<T, C, ALIGNED> sink = {dx,         bias,   per_image, residual, per_image_stride, cin,   grid_height,
                                   grid_width, stride, oy,        ox,       height,           width, scale,
                                   pre,        silu};
#ifdef SIMT_TILES_HOST
  if constexpr (winograd_tile<C, ALIGNED>) {
    if (winograd_pays(kh, kw, stride, cout, cin, height, width)) {
      const Tiles<T> tiles = tiles_of<T>(dy, out_height, out_width, cout, 2 - pad_top, 2 - pad_left, height, width);
      return winograd<T, C>(tiles, BackwardTaps<T, C>{w, cout, cin}, sink, images, cin, height, width);
    }
  }
#endif
  gemm<C, T>(a, b, sink, M, cin, taps_y * taps_x * cout, m0, n0);
}

// Shard s is images s·shard_size… of the launch; one past the end is empty and its partial is zeros.
template <class T, class C, bool ALIGNED>
DEVICE void conv_backward_weight(T* partial, T* work, const real* dy, const real* x, long long partial_stride, int cut_row,
                                 int segments, int length, int images, int shard_size, int height, int width, int cin, int cout,
                                 int kh, int kw, int stride, int pad_top, int pad_left, int out_height, int out_width) {
  const int M = kh * kw * cin, pixels = out_height * out_width;
  const Segments cut = {cut_row, segments, length};
  const WeightBlock<C> w = WeightBlock<C>::here(cut, M, cout, images, shard_size, pixels);
  T* const sums = w.place(partial, partial_stride, work, cut, M, cout);
#ifdef SIMT_TILES_HOST
  if constexpr (winograd_tile<C, ALIGNED>) {
    if (winograd_weight_pays(kh, kw, stride, cin, cout, out_height, out_width, shard_size)) {
      const Tiles<T> tiles = tiles_of<T>(x, height, width, cin, pad_top, pad_left, out_height, out_width);
      return winograd_weight<T, C>(sums, tiles, dy, w, pixels, cout, out_height, out_width);
    }
  }
#endif
  const Gather<real> g = {x, height, width, cin, out_height, out_width, stride, -pad_top, -pad_left, 1, kh, kw};
  const int first = w.image * pixels + w.start;
  const real* const dy_first = dy + static_cast<long long>(first) * cout;
  MatrixSink<T, C, ALIGNED> sink = {sums, w.row(cut), cout};
#ifdef SIMT_TILES_HOST
  if constexpr (thin_tile<C, ALIGNED>) {
    if (thin_pays(kh * kw, cin, cout)) {
      return with_channels(cout, [&](auto o) { thin_weight<T, C, decltype(o)::n>(g, dy_first, sink, w.m0, M, first, w.count); });
    }
  }
#endif
  PixelColumns<real, C, ALIGNED> a;
  a.init(g, w.m0, M, first, w.count);
  MatrixRows<real, C, ALIGNED> b;
  b.init(dy_first, w.count, w.n0, cout);
  gemm<C, T>(a, b, sink, M, cout, w.count, w.m0, w.n0);
}

}  // namespace SIMT_VARIANT
#endif

namespace SIMT_VARIANT {

#define PIXEL_PARAMS                                                                                                             \
  (real* y, const real* x, const real* w, const acc* bias, const real* per_image, const real* residual, int per_image_stride,    \
   acc scale, real* pre, acc* stats, int silu, int images, int height, int width, int cin, int cout, int kh, int kw, int stride, \
   int pad_top, int pad_left, int out_height, int out_width)
#define PIXEL_ARGS                                                                                                          \
  (y, x, w, bias, per_image, residual, per_image_stride, scale, pre, stats, silu, images, height, width, cin, cout, kh, kw, \
   stride, pad_top, pad_left, out_height, out_width)
#define WEIGHT_PARAMS                                                                                                           \
  (acc * partial, acc * work, const real* dy, const real* x, long long partial_stride, int cut_row, int segments, int length,   \
   int images, int shard_size, int height, int width, int cin, int cout, int kh, int kw, int stride, int pad_top, int pad_left, \
   int out_height, int out_width)
#define WEIGHT_ARGS                                                                                                       \
  (partial, work, dy, x, partial_stride, cut_row, segments, length, images, shard_size, height, width, cin, cout, kh, kw, \
   stride, pad_top, pad_left, out_height, out_width)

// GEOMETRY: threads of a block, rows and columns of its tile; what the entry needs: columns and depth (the channels summed over, or Cin of the
// weight gradient) multiples of so much, no more taps.
#define CONV_ENTRY(name, op, Tile, aligned, params, args, ...)                            \
  template <class T>                                                                      \
  DEVICE void name##_body params {                                                        \
    op<T, Tile, aligned> args;                                                            \
  }                                                                                       \
  BLOCK_KERNEL_MIN(name, Tile::threads, (aligned || Tile::BN < 64 ? 0 : 1), params, args) \
  GEOMETRY(name, Tile::threads, Tile::BM, Tile::BN, __VA_ARGS__)
#define CONV_ENTRIES(kind, Tile, WeightTile, aligned, columns, depth, weight_depth, taps)                                  \
  CONV_ENTRY(conv_forward_##kind, conv_forward, Tile, aligned, PIXEL_PARAMS, PIXEL_ARGS, columns, depth, taps)             \
  CONV_ENTRY(conv_backward_data_##kind, conv_backward_data, Tile, aligned, PIXEL_PARAMS, PIXEL_ARGS, columns, depth, taps) \
  CONV_ENTRY(conv_backward_weight_##kind, conv_backward_weight, WeightTile, aligned, WEIGHT_PARAMS, WEIGHT_ARGS, columns,  \
             weight_depth, kAnyTaps)

constexpr int kAnyTaps = 1 << 30;
#ifdef SIMT_TENSOR
#define TENSOR_ENTRIES(kind, Tile) CONV_ENTRIES(kind, Tile, Tile, true, kChunk, Tile::BK, kChunk, 32)
TENSOR_ENTRIES(large, LargeTensorTile)
TENSOR_ENTRIES(medium, MediumTensorTile)
TENSOR_ENTRIES(small, SmallTensorTile)
TENSOR_ENTRIES(narrow, NarrowTensorTile)
CONV_ENTRIES(large_any, MediumTensorTile, MediumTensorTile, false, 1, 1, 1, kAnyTaps)
CONV_ENTRIES(narrow_any, ThinTensorTile, ThinTensorTile, false, 1, 1, kChunk, kAnyTaps)
#else
CONV_ENTRIES(large, LargeTile, LargeWeightTile, true, wide, wide, wide, kAnyTaps)
CONV_ENTRIES(large_any, LargeTile, LargeWeightTile, false, 1, 1, 1, kAnyTaps)
CONV_ENTRIES(narrow, NarrowTile, NarrowWeightTile, true, wide, wide, wide, kAnyTaps)
CONV_ENTRIES(narrow_any, NarrowTile, NarrowWeightTile, false, 1, 1, 1, kAnyTaps)
#endif

}  // namespace SIMT_VARIANT
