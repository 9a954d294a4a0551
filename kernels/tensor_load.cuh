// Loaders of tensor.cuh: they copy a step of A or B from global to shared memory, the threads of a block together.
//
// Threads keep to one chunk column of a panel and take every lanes-th row, so that 8 neighbours write one row. init() does the divisions; a
// step then costs a thread, for each row, an address (one multiply-add) and a predicate. What lies outside of A or B is 0. The loaders for any
// shape, or with ANY, read operands whose channels are no multiple of a chunk value by value.
#pragma once
#include "staged.cuh"
#include "tensor.cuh"

namespace SIMT_VARIANT {

// How the threads divide a panel of ROWS rows.
template <class C, class P, int ROWS>
struct Shares {
  static constexpr int lanes = C::threads / P::chunks, rows = ROWS < lanes ? 1 : ROWS / lanes, pitch = P::chunks * 16;
  static_assert(ROWS % lanes == 0 || ROWS < lanes, "rows are shared evenly");
  static_assert(rows == 1 || lanes % (P::words ? 4 : 8) == 0, "a thread's rows have one permutation");
  DEVICE int row() { return static_cast<int>(threadIdx.x) / P::chunks; }
  DEVICE int column() { return static_cast<int>(threadIdx.x) % P::chunks * kChunk; }
  DEVICE int place() { return P::at(row(), static_cast<int>(threadIdx.x) % P::chunks); }
  DEVICE bool idle() { return ROWS < lanes && row() >= ROWS; }
};

DEVICE void put_chunk(char* shared, const real (&v)[kChunk]) {
  struct alignas(16) Chunk {
    real v[kChunk];
  } c;
  UNROLL for (int e = 0; e < kChunk; e++) c.v[e] = v[e];
  *reinterpret_cast<Chunk*>(shared) = c;
}

// What comes after a tap: the next one of its row, the first one of the next row, or the first one of all, BK channels further.
enum class Next { tap, row, block };

// The offset in elements of a tensor that goes along with the taps.
struct TapOffset {
  int now, tap, row, block;  // what each Next adds
  METHOD void advance(Next n) { now += n == Next::block ? block : n == Next::row ? row : tap; }
};

// A of the forward and of the data gradient where channels are a multiple of BK and there are 32 taps at most: a step is BK channels of one tap,
// all taps come before the next channels. So the pixels of a tile, which overlap from tap to tap, are read from the first-level cache but
// once, and a row needs no more than a bit for each tap.
template <class C>
struct TapRows {
  static constexpr bool along = true;
  using Share = Shares<C, Panel<C::BK, true>, C::BM>;
  const real* p[Share::rows];     // tap (0, 0) of each row
  unsigned inside[Share::rows];   // bit t: tap t is in the image
  int taps_x, taps, b, t, place;  // t: the tap, b: its place in its row
  TapOffset offset;

  METHOD void init(const Gather<real>& g, int m0, int M) {
    int y[Share::rows], x[Share::rows];
    UNROLL for (int r = 0; r < Share::rows; r++) {
      const int m = m0 + Share::row() + r * Share::lanes;
      Origin<real> o;
      o.set(g, Pixel::at(m, g.grid_height, g.grid_width), m < M);
      p[r] = o.p + Share::column();
      y[r] = o.y;
      x[r] = o.x;
      inside[r] = 0;
    }
    taps_x = g.taps_x;
    taps = g.taps_y * taps_x;
    for (t = 0; t < taps; t++) {
      const int dy = t / taps_x * g.direction, dx = t % taps_x * g.direction;
      UNROLL for (int r = 0; r < Share::rows; r++) {
        const bool is = static_cast<unsigned>(y[r] + dy) < static_cast<unsigned>(g.height) &&
                        static_cast<unsigned>(x[r] + dx) < static_cast<unsigned>(g.width);
        inside[r] |= is ? 1u << t : 0u;
      }
    }
    b = t = 0;
    const int tap = g.direction * g.channels, line = g.direction * g.width * g.channels;
    offset = {0, tap, line - (taps_x - 1) * tap, C::BK - (g.taps_y - 1) * line - (taps_x - 1) * tap};
    place = Share::place();
  }
  METHOD void issue(char* stage) const {
    UNROLL for (int r = 0; r < Share::rows; r++) {
      cp_async16_cached(stage + place + r * Share::lanes * Share::pitch, p[r] + offset.now, (inside[r] >> t & 1u) != 0);
    }
  }
  METHOD Next advance() {
    const Next n = t + 1 == taps ? Next::block : b + 1 == taps_x ? Next::row : Next::tap;
    t = n == Next::block ? 0 : t + 1;
    b = n == Next::tap ? b + 1 : 0;
    offset.advance(n);
    return n;
  }
};

// B of the forward with it: BK rows of the weights [taps][channels][N].
template <class C>
struct TapMatrix {
  static constexpr bool along = false;
  using Share = Shares<C, Panel<C::BN, false>, C::BK>;
  const real* p;
  int N, place;
  bool exists;
  TapOffset offset;

  METHOD void init(const real* w, int taps, int channels, int n0, int width) {
    const int n = n0 + Share::column();
    p = w + static_cast<long long>(Share::row()) * width + n;
    N = width;
    exists = n < width;
    place = Share::place();
    offset = {0, channels * N, channels * N, (C::BK - (taps - 1) * channels) * N};
  }
  template <class A>
  METHOD void issue(char* stage, const A& a) const {
    (void)a;
    if (Share::idle()) return;
    UNROLL for (int r = 0; r < Share::rows; r++) {
      cp_async16(stage + place + r * Share::lanes * Share::pitch, p + (offset.now + r * Share::lanes * N), exists);
    }
  }
  template <class A>
  METHOD void advance(const A& a, Next n) {
    (void)a;
    offset.advance(n);
  }
};

// B of the data gradient with it. Tap (a, b) of the gather is tap (first_y + a·stride, first_x + b·stride) of the weights
// [KH][KW][N][channels].
template <class C>
struct TapWeights {
  static constexpr bool along = true;
  using Share = Shares<C, Panel<C::BK, true>, C::BN>;
  const real* p;
  int rows, channels, place;  // rows: from the thread's first on
  TapOffset offset;

  METHOD void init(const Gather<real>& g, const real* w, int n0, int width, int kw, int ky, int kx, int s) {
    channels = g.channels;
    rows = width - n0 - Share::row();
    p = w + static_cast<long long>((ky * kw + kx) * width + n0 + Share::row()) * channels + Share::column();
    const int tap = s * width * channels, line = kw * tap;
    offset = {0, tap, line - (g.taps_x - 1) * tap, C::BK - (g.taps_y - 1) * line - (g.taps_x - 1) * tap};
    place = Share::place();
  }
  template <class A>
  METHOD void issue(char* stage, const A& a) const {
    (void)a;
    if (Share::idle()) return;
    UNROLL for (int r = 0; r < Share::rows; r++) {
      cp_async16(stage + place + r * Share::lanes * Share::pitch, p + (offset.now + r * Share::lanes * channels),
                 rows > r * Share::lanes);
    }
  }
  template <class A>
  METHOD void advance(const A& a, Next n) {
    (void)a;
    offset.advance(n);
  }
};

// A of the forward and of the data gradient for any channels and taps: rows are grid pixels, k = (a, b, c).
template <class C>
struct ImageRows {
  static constexpr bool along = true;
  using Share = Shares<C, Panel<C::BK, true>, C::BM>;
  Gather<real> g;
  Origin<real> origins[Share::rows];
  Tap tap;
  int shift, place;
  unsigned inside;  // rows of which the tap is in the image

  METHOD void init(const Gather<real>& from, int m0, int M) {
    g = from;
    UNROLL for (int r = 0; r < Share::rows; r++) {
      const int m = m0 + Share::row() + r * Share::lanes;
      origins[r].set(g, Pixel::at(m, g.grid_height, g.grid_width), m < M);
    }
    tap = Tap::at(Share::column(), g.taps_x, g.channels);
    place = Share::place();
    turn();
  }
  METHOD bool sees(const Origin<real>& o, const Shift& s) const {
    return static_cast<unsigned>(o.y + s.y) < static_cast<unsigned>(g.height) &&
           static_cast<unsigned>(o.x + s.x) < static_cast<unsigned>(g.width);
  }
  METHOD void turn() {
    tap.advance(0, g.taps_x, g.channels);
    const Shift s = Shift::of(g, tap);
    shift = s.offset;
    inside = 0;
    UNROLL for (int r = 0; r < Share::rows; r++) inside |= sees(origins[r], s) ? 1u << r : 0u;
  }
  METHOD void issue(char* stage) {
    if (g.channels % kChunk != 0) {
      values(stage);
    } else {
      UNROLL for (int r = 0; r < Share::rows; r++) {
        cp_async16(stage + place + r * Share::lanes * Share::pitch, origins[r].p + shift, (inside & 1u << r) != 0);
      }
    }
  }
  METHOD bool advance() {
    tap.c += C::BK;
    shift += C::BK;
    if (tap.c < g.channels) return false;
    turn();
    return true;
  }
  METHOD void values(char* stage) const {
    real v[Share::rows][kChunk];
    Tap t = tap;
    UNROLL for (int e = 0; e < kChunk; e++) {
      const Shift s = Shift::of(g, t);
      UNROLL for (int r = 0; r < Share::rows; r++) v[r][e] = sees(origins[r], s) ? origins[r].p[s.offset] : real{};
      t.advance(1, g.taps_x, g.channels);
    }
    UNROLL for (int r = 0; r < Share::rows; r++) put_chunk(stage + place + r * Share::lanes * Share::pitch, v[r]);
  }
};

// A of the weight gradient: rows are (a, b, c), k are the grid pixels of a shard. A thread has one pixel of a step and every few chunks of its
// row; their taps stay, the pixel advances by BK. Threads of 8 that share a row of banks begin with different chunks.
template <class C, bool ANY>
struct ImageColumns {
  static constexpr bool along = false;
  using P = Panel<C::BM, false>;
  static constexpr int team = C::threads / C::BK, count = P::chunks / team;  // threads of a pixel, chunks of a thread
  static_assert(C::threads % C::BK == 0 && P::chunks % team == 0 && count >= 8 / team, "a step has a pixel for each team");
  Gather<real> g;
  const real* p[count];                    // of each chunk: its tap of the first pixel of the shard
  int dy[count], dx[count], place[count];  // and what the tap adds to the pixel's position
  int left, y, x, offset;  // pixels from the thread's own on; its position in the image, its distance from the first
  int step_y, step_x, step, y_end, x_end, next_row,
      next_image;  // what a step adds, where rows and columns end, what is added there
  int m, M;        // of ANY: row of the first chunk, and where rows end

  // `pixels` from `start` on behind the first one of an image.
  METHOD void init(const Gather<real>& from, int m0, int rows, int image, int start, int pixels) {
    g = from;
    const int row = static_cast<int>(threadIdx.x) / team, member = static_cast<int>(threadIdx.x) % team;
    const real* const images = g.x + static_cast<long long>(image) * g.height * g.width * g.channels;
    m = m0;
    M = rows;
    UNROLL for (int r = 0; r < count; r++) {
      const int c = member + (team < 8 ? r ^ row % (8 / team) : r) * team;
      const Shift s = Shift::of(g, Tap::at(m0 + c * kChunk, g.taps_x, g.channels));
      p[r] = images + s.offset;
      dy[r] = s.y;
      dx[r] = s.x;
      place[r] = P::at(row, c);
    }
    left = pixels - row;
    const Pixel d = Pixel::at(C::BK, g.grid_height, g.grid_width), q = Pixel::at(start + row, g.grid_height, g.grid_width);
    step_y = d.i * g.step;
    step_x = d.j * g.step;
    step = ((d.n * g.height + step_y) * g.width + step_x) * g.channels;
    y = q.i * g.step + g.y0;
    x = q.j * g.step + g.x0;
    offset = ((q.n * g.height + y) * g.width + x) * g.channels;
    y_end = g.grid_height * g.step + g.y0;
    x_end = g.grid_width * g.step + g.x0;
    next_row = (g.width - g.grid_width) * g.step * g.channels;
    next_image = (g.height - g.grid_height * g.step) * g.width * g.channels;
  }
  METHOD bool sees(int ty, int tx) const {
    return left > 0 && static_cast<unsigned>(y + ty) < static_cast<unsigned>(g.height) &&
           static_cast<unsigned>(x + tx) < static_cast<unsigned>(g.width);
  }
  METHOD void issue(char* stage) const {
    UNROLL for (int r = 0; r < count; r++) {
      if (ANY && g.channels % kChunk != 0) values(stage + place[r], r);
      else cp_async16(stage + place[r], p[r] + offset, sees(dy[r], dx[r]));
    }
  }
  METHOD bool advance() {
    const bool row_ends = x + step_x >= x_end;
    x += row_ends ? step_x - g.grid_width * g.step : step_x;
    y += row_ends ? step_y + g.step : step_y;
    const bool image_ends = y >= y_end;
    y -= image_ends ? g.grid_height * g.step : 0;
    offset += (row_ends ? step + next_row : step) + (image_ends ? next_image : 0);
    left -= C::BK;
    return false;
  }
  METHOD void values(char* to, int r) const {
    const int row = static_cast<int>(threadIdx.x) / team, member = static_cast<int>(threadIdx.x) % team;
    const int c = member + (team < 8 ? r ^ row % (8 / team) : r) * team;
    if (m + c * kChunk >= M) return;  // nobody reads these sums
    const Tap first = Tap::at(m + c * kChunk, g.taps_x, g.channels);
    const int base = Shift::of(g, first).offset;
    real v[kChunk];
    Tap t = first;
    UNROLL for (int e = 0; e < kChunk; e++) {
      const Shift s = Shift::of(g, t);
      v[e] = sees(s.y, s.x) ? p[r][offset + s.offset - base] : real{};
      t.advance(1, g.taps_x, g.channels);
    }
    put_chunk(to, v);
  }
};

// B as it lies in memory, [K][N]: the forward's weights, and the output's gradient in the weight gradient.
template <class C, bool ANY>
struct MatrixAcross {
  static constexpr bool along = false;
  using Share = Shares<C, Panel<C::BN, false>, C::BK>;
  const real* p;
  int N, columns, left, place, offset;  // left: rows from the thread's first on

  METHOD void init(const real* matrix, int K, int n0, int width) {
    const int n = n0 + Share::column();
    p = matrix + static_cast<long long>(Share::row()) * width + n;
    N = width;
    columns = width - n;
    left = columns > 0 ? K - Share::row() : 0;
    place = Share::place();
    offset = 0;
  }
  template <class A>
  METHOD void issue(char* stage, const A& a) const {
    (void)a;
    if (Share::idle()) return;
    UNROLL for (int r = 0; r < Share::rows; r++) {
      char* const to = stage + place + r * Share::lanes * Share::pitch;
      const real* const from = p + (offset + r * Share::lanes * N);
      const bool exists = left > r * Share::lanes;
      if (ANY && N % kChunk != 0) {
        real v[kChunk];
        UNROLL for (int e = 0; e < kChunk; e++) v[e] = exists && e < columns ? from[e] : real{};
        put_chunk(to, v);
      } else {
        cp_async16(to, from, exists);
      }
    }
  }
  template <class A>
  METHOD void advance(const A& a, bool turned) {
    (void)a, (void)turned;
    offset += C::BK * N;
    left -= C::BK;
  }
};

// B of the data gradient with ImageRows: k = (a, b, c), c an output channel, n an input channel. The taps of a thread's chunks are those of A's.
template <class C>
struct WeightsAlong {
  static constexpr bool along = true;
  using Share = Shares<C, Panel<C::BK, true>, C::BN>;
  const real* p;  // row n of the thread in tap (0, 0) of the weights
  int N, rows, channels, kernel_width, first_y, first_x, stride, place, shift;  // rows: from the thread's first on

  template <class A>
  METHOD void init(const A& a, const real* w, int n0, int width, int kw, int ky, int kx, int s) {
    N = width;
    rows = width - n0 - Share::row();
    channels = a.g.channels;
    kernel_width = kw;
    first_y = ky;
    first_x = kx;
    stride = s;
    p = w + static_cast<long long>(n0 + Share::row()) * channels;
    place = Share::place();
    shift = at(a.tap);
  }
  METHOD int at(const Tap& t) const {
    return ((first_y + t.a * stride) * kernel_width + first_x + t.b * stride) * N * channels + t.c;
  }
  template <class A>
  METHOD void issue(char* stage, const A& a) const {
    if (Share::idle()) return;
    UNROLL for (int r = 0; r < Share::rows; r++) {
      char* const to = stage + place + r * Share::lanes * Share::pitch;
      if (channels % kChunk != 0) {
        real v[kChunk];
        Tap t = a.tap;
        UNROLL for (int e = 0; e < kChunk; e++) {
          v[e] = t.a < a.g.taps_y && rows > r * Share::lanes ? p[r * Share::lanes * channels + at(t)] : real{};
          t.advance(1, a.g.taps_x, channels);
        }
        put_chunk(to, v);
      } else {
        cp_async16(to, p + (shift + r * Share::lanes * channels), a.tap.a < a.g.taps_y && rows > r * Share::lanes);
      }
    }
  }
  template <class A>
  METHOD void advance(const A& a, bool turned) {
    shift += C::BK;
    if (turned) shift = at(a.tap);
  }
};

}  // namespace SIMT_VARIANT
