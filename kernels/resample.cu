// Doubling and halving of images [N][H][W][C].
//
//   upsample2   y[n][2h+i][2w+j][c] = x[n][h][w][c], i, j in {0, 1};  dx = the sum of the four dy
//   avgpool2    y[n][h][w][c] = (x[2h][2w] + x[2h][2w+1] + x[2h+1][2w] + x[2h+1][2w+1]) / 4, h < H/2, w < W/2 (an odd last row or
//               column is dropped, as in PyTorch); dx = dy/4 of its window, 0 where dropped
//
// A thread takes kRowChannels channels of kRows pixels of the tensor that it writes. Bound: bytes (each tensor once).
#include "vec.cuh"

namespace SIMT_VARIANT {

// h, w: the size of x.
template <class T>
DEVICE void upsample2_forward_body(real* y, const real* x, int n, int h, int w, int c) {
  row_elements(4ll * n * h * w, c, [&](long long row, int ch, auto k) {
    constexpr int N = decltype(k)::n;
    const long long line = row / (2 * w);  // n * 2h + the row of y: line / 2 is n * h + the row of x
    const int column = static_cast<int>(row % (2 * w));
    store(y + row * c + ch, load<N>(x + (line / 2 * w + column / 2) * c + ch));
  });
}

template <class T>
DEVICE void upsample2_backward_body(real* dx, const real* dy, int n, int h, int w, int c) {
  row_elements(static_cast<long long>(n) * h * w, c, [&](long long row, int ch, auto k) {
    constexpr int N = decltype(k)::n;
    const real* p = dy + (row / w * 4 * w + row % w * 2) * c + ch;
    const real* q = p + 2ll * w * c;
    store(dx + row * c + ch, (load<N>(p) + load<N>(p + c)) + (load<N>(q) + load<N>(q + c)));
  });
}

// h, w: the size of x.
template <class T>
DEVICE void avgpool2_forward_body(real* y, const real* x, int n, int h, int w, int c) {
  const int oh = h / 2, ow = w / 2;
  row_elements(static_cast<long long>(n) * oh * ow, c, [&](long long row, int ch, auto k) {
    constexpr int N = decltype(k)::n;
    const long long line = row / ow;
    const real* p = x + ((line / oh * h + line % oh * 2) * w + row % ow * 2) * c + ch;
    const real* q = p + static_cast<long long>(w) * c;
    store(y + row * c + ch, T(0.25) * ((load<N>(p) + load<N>(p + c)) + (load<N>(q) + load<N>(q + c))));
  });
}

template <class T>
DEVICE void avgpool2_backward_body(real* dx, const real* dy, int n, int h, int w, int c) {
  const int oh = h / 2, ow = w / 2;
  row_elements(static_cast<long long>(n) * h * w, c, [&](long long row, int ch, auto k) {
    constexpr int N = decltype(k)::n;
    const long long line = row / w;
    const int r = static_cast<int>(line % h) / 2, column = static_cast<int>(row % w) / 2;
    if (r < oh && column < ow) {
      store(dx + row * c + ch, T(0.25) * load<N>(dy + ((line / h * oh + r) * ow + column) * c + ch));
    } else {
      store(dx + row * c + ch, vec<T, N>::splat(T(0)));
    }
  });
}

KERNEL(upsample2_forward, kRowThreads, (real* y, const real* x, int n, int h, int w, int c), (y, x, n, h, w, c))
GEOMETRY(upsample2_forward, kRowThreads, kRows, kRowChannels)
KERNEL(upsample2_backward, kRowThreads, (real* dx, const real* dy, int n, int h, int w, int c), (dx, dy, n, h, w, c))
GEOMETRY(upsample2_backward, kRowThreads, kRows, kRowChannels)
KERNEL(avgpool2_forward, kRowThreads, (real* y, const real* x, int n, int h, int w, int c), (y, x, n, h, w, c))
GEOMETRY(avgpool2_forward, kRowThreads, kRows, kRowChannels)
KERNEL(avgpool2_backward, kRowThreads, (real* dx, const real* dy, int n, int h, int w, int c), (dx, dy, n, h, w, c))
GEOMETRY(avgpool2_backward, kRowThreads, kRows, kRowChannels)

}  // namespace SIMT_VARIANT
