// Dropout of an activation [N][pixels][C], where a kernel computes it or reads its gradient: a m / (1 - p), m = 0 with probability p
// and else 1.
//
// m is drawn by Philox from (seed, purpose 64 + site, image, step, element of the image): an element is dropped where its number is
// below p 2^32. image = first + offset + n. Nothing is stored: who needs m again draws it again.
#pragma once
#include "philox.cuh"

namespace SIMT_VARIANT {

// What a launch says of it.
struct Dropout {
  const StepState* state;  // null: nothing is dropped
  uint64_t offset;
  int site;
  uint32_t threshold;  // p 2^32
  acc keep;            // 1 / (1 - p)
};

// m of N channels from channel ch of image n, where ON; otherwise everything is kept as it is. zero(p, v) is v at pixel p with 0 where
// m is 0, scale(v) is v / (1 - p). A thread asks for its pixels in ascending order from the first one. On a GPU N > 1 wants c and ch to be
// multiples of 4: a call of the generator then makes four of the values. On the host a call makes those of kDraw / N neighbouring
// pixels, where c and ch are such multiples.
template <bool ON, int N, class T>
struct dropout_mask {
  METHOD dropout_mask(const Dropout&, long long, int, int) {}
  METHOD vec<T, N> zero(int, vec<T, N> v) { return v; }
  METHOD vec<T, N> scale(vec<T, N> v) const { return v; }
};
template <int N, class T>
struct dropout_mask<true, N, T> {
  RandomStream stream;
  uint32_t threshold;
  T keep;
  int c, ch;
#ifdef SIMT_TILES_HOST
  static constexpr int kPixels = kDraw / N;
  typedef vec<int32_t, N> bits;
  int32_t kept[kDraw];  // of kPixels pixels, -1 or 0
#endif

  METHOD dropout_mask(const Dropout& d, long long n, int c, int ch) : threshold(d.threshold), keep(d.keep), c(c), ch(ch) {
    stream = random_stream(d.state->seed, kDrawDropout + d.site, d.state->first + d.offset + n, d.state->step);
  }

  METHOD vec<T, N> scale(vec<T, N> v) const { return keep * v; }
  METHOD vec<T, N> zero(int p, vec<T, N> v) {
#ifdef SIMT_TILES_HOST
    static_assert(sizeof(T) == sizeof(int32_t), "the host tiles are float");
    if (N < 4 || c % 4) {
      for (int i = 0; i < N; i++) kept[i] = -(random_number(stream, p * c + ch + i) >= threshold);
      return keep_of(v, kept);
    }
    if (p % kPixels == 0) draw(p);
    return keep_of(v, kept + p % kPixels * N);
#else
    const int e = p * c + ch;
    if constexpr (N == 1) {
      if (random_number(stream, e) < threshold) v.set(0, T(0));
    } else {
      RandomStream s = stream;
      s.key0 = each_time(s.key0);  // not twenty keys of the rounds in registers
      s.key1 = each_time(s.key1);
      UNROLL for (int q = 0; q < N; q += 4) {
        draw_lanes w[4];
        random_blocks(s, e + q, w);
        UNROLL for (int i = 0; i < 4; i++) v.set(q + i, w[i] >= threshold ? v[q + i] : T(0));
      }
    }
    return v;
#endif
  }

#ifdef SIMT_TILES_HOST
 private:
  static METHOD vec<T, N> keep_of(vec<T, N> v, const int32_t* kept) {
    const auto m = bits::load(kept).v;
    return {m ? v.v : typename vec<T, N>::type(T(0))};
  }
  METHOD void draw(int p) {
    constexpr int kBlocks = N < 4 ? 1 : N / 4;  // of a pixel
    draw_lanes block, w[4];
    for (int i = 0; i < kDrawBlocks; i++) block[i] = static_cast<uint32_t>((p + i / kBlocks) * (c / 4) + ch / 4 + i % kBlocks);
    random_blocks_at(stream, block, w);
    vec<int32_t, kDrawBlocks> m[4];
    for (int i = 0; i < 4; i++) m[i] = {w[i] >= threshold};
    in_element_order(m).store(kept);
  }
#endif
};

}  // namespace SIMT_VARIANT
