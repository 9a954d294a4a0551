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

}  // namespace SIMT_VARIANT
