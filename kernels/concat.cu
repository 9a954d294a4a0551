// Concatenation of channels: y[r] = (a[r], b[r]), rows of ca and cb elements; backward splits dy into da and db.
//
// A thread takes kRowChannels elements of kRows rows of the wide tensor. Bound: bytes (every element read and written once).
#include "vec.cuh"

namespace SIMT_VARIANT {

// The first ca and the last cb channels of a wide row are separate rows of their own tensors: f(wide, narrow, width) with
// `second` telling which. Vectors stay within one part.
template <class F>
DEVICE void concat_rows(long long rows, int ca, int cb, F f) {
  const int c = ca + cb;
  row_elements(rows, c, [&](long long row, int ch, auto w) {
    constexpr int N = decltype(w)::n;
    const long long wide = row * c + ch;
    if (ch + N <= ca && vector_rows(ca)) return f(false, wide, row * ca + ch, w);
    if (ch >= ca && vector_rows(ca)) return f(true, wide, row * cb + ch - ca, w);
    for (int i = 0; i < N; i++) {
      if (ch + i < ca) {
        f(false, wide + i, row * ca + ch + i, width<1>{});
      } else {
        f(true, wide + i, row * cb + ch + i - ca, width<1>{});
      }
    }
  });
}

template <class T>
DEVICE void concat_forward_body(real* y, const real* a, const real* b, long long rows, int ca, int cb) {
  concat_rows(rows, ca, cb, [&](bool second, long long wide, long long narrow, auto w) {
    constexpr int N = decltype(w)::n;
    store(y + wide, load<N>((second ? b : a) + narrow));
  });
}

template <class T>
DEVICE void concat_backward_body(real* da, real* db, const real* dy, long long rows, int ca, int cb) {
  concat_rows(rows, ca, cb, [&](bool second, long long wide, long long narrow, auto w) {
    constexpr int N = decltype(w)::n;
    store((second ? db : da) + narrow, load<N>(dy + wide));
  });
}

KERNEL(concat_forward, kRowThreads, (real* y, const real* a, const real* b, long long rows, int ca, int cb),
       (y, a, b, rows, ca, cb))
GEOMETRY(concat_forward, kRowThreads, kRows, kRowChannels)
KERNEL(concat_backward, kRowThreads, (real* da, real* db, const real* dy, long long rows, int ca, int cb),
       (da, db, dy, rows, ca, cb))
GEOMETRY(concat_backward, kRowThreads, kRows, kRowChannels)

}  // namespace SIMT_VARIANT
