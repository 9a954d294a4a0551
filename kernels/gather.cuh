// Where the values of a convolution's matrices lie. Shapes: NHWC images, weights [KH][KW][Cin][Cout].
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

// How the weight gradient of a shard is summed: rows before `row` over all of its pixels at once, those from there on in `segments` of `length`
// pixels each, which go to a workspace [shards][segments][rows from `row` on][N]. 0 segments: nothing is cut.
struct Segments {
  int row, segments, length;
};

// What a block of the weight gradient makes: the tile of BM×BN from (m0, n0) on, summed over `count` pixels from `start` on behind the first one of
// image `image`, where its shard begins. Blocks of whole sums come first, since they take longest, then those of segments.
template <class C>
struct WeightBlock {
  int m0, n0, shard, segment, image, start, count;  // segment −1: none

  DEVICE WeightBlock here(const Segments& cut, int M, int N, int images, int shard_size, int pixels) {
    const int rows = (M + C::BM - 1) / C::BM, columns = (N + C::BN - 1) / C::BN;
    const int whole = cut.segments > 0 ? cut.row / C::BM : rows, tail = rows - whole;
    const int before = whole * columns, behind = tail * columns * cut.segments;  // blocks of a shard
    const int shards = static_cast<int>(gridDim.x) / (before + behind), b = static_cast<int>(blockIdx.x) - shards * before;
    WeightBlock w;
    int row, tile;
    if (b < 0) {
      w.shard = static_cast<int>(blockIdx.x) / before;
      tile = static_cast<int>(blockIdx.x) - w.shard * before;
      w.segment = -1;
      row = tile % whole;
      tile /= whole;
    } else {
      w.shard = b / behind;
      tile = b - w.shard * behind;
      w.segment = tile / (tail * columns);
      tile -= w.segment * tail * columns;
      row = whole + tile % tail;
      tile /= tail;
    }
    w.m0 = row * C::BM;
    w.n0 = tile * C::BN;
    w.image = w.shard * shard_size < images ? w.shard * shard_size : images;
    const int last = w.image + shard_size < images ? w.image + shard_size : images;
    w.start = w.segment > 0 ? w.segment * cut.length : 0;
    w.count = (last - w.image) * pixels - w.start;
    if (w.segment >= 0 && w.count > cut.length) w.count = cut.length;
    if (w.count < 0) w.count = 0;
    return w;
  }
  // Where the row of weights lies that `row` is.
  template <class T>
  METHOD T* place(T* partial, long long stride, T* work, const Segments& cut, int M, int N) const {
    if (segment < 0) return partial + shard * stride;
    return work + (static_cast<long long>(shard) * cut.segments + segment) * (M - cut.row) * N;
  }
  METHOD int row(const Segments& cut) const { return segment < 0 ? 0 : cut.row; }
};

}  // namespace SIMT_VARIANT
