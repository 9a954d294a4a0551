// Random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), a function from a
// counter and a key to four 32-bit numbers. Nothing is stored: whoever needs a number again computes it again.
//
//   key     = seed (low, high)
//   counter = (block, image low 32, step low 32, purpose << 24 | image bits 32 ... 55)
//
// Element e of an image uses lane e % 4 of block e / 4, so its numbers do not depend on batch, device or order. Normals
// come from the lane pairs (0, 1) and (2, 3) by Box-Muller, in turns:
//   radius = sqrt(-2 log((a + 1/2) / 2^32)),  angle = int32(b) / 2^32,  (radius cos(2 pi angle), radius sin(2 pi
//   angle)).
// double uses the same 32-bit numbers, so it gives float's normals with more digits. kernels/philox.go is the same in
// Go.
//
// A thread draws for kDraw consecutive elements of an image at once: one block of the generator on a GPU, a SIMD
// register full of blocks in each lane variable on the host.
#pragma once
#include "math.cuh"
#include "state.cuh"

namespace SIMT_VARIANT {

enum Purpose : uint32_t { kDrawIndex = 1, kDrawNoise = 2, kDrawFlip = 3, kDrawStart = 4, kDrawSampling = 5, kDrawDropout = 64 };

#ifdef SIMT_TILES_HOST
constexpr int kDrawBlocks = kVec;
constexpr int kImageThreads = 1;
#else
constexpr int kDrawBlocks = 1;
constexpr int kImageThreads = 256;
#endif
constexpr int kDraw = 4 * kDrawBlocks;
constexpr int kImageElements = 4096;  // elements of one image that a block takes

// The 64-bit product a b as two halves.
DEVICE void wide_product(uint32_t a, uint32_t b, uint32_t& high, uint32_t& low) {
  const uint64_t p = static_cast<uint64_t>(a) * b;
  high = static_cast<uint32_t>(p >> 32);
  low = static_cast<uint32_t>(p);
}
#ifdef SIMT_TILES_HOST
typedef uint32_t draw_lanes __attribute__((ext_vector_type(kDrawBlocks)));
// Even and odd lanes apart, each in the low half of 64 bits (little-endian), which is what SIMD units multiply.
DEVICE void wide_product(uint32_t a, draw_lanes b, draw_lanes& high, draw_lanes& low) {
  typedef uint64_t pairs __attribute__((ext_vector_type(kDrawBlocks / 2)));
  const pairs mask = pairs(0xffffffffull), p = bits_as<pairs>(b), m = pairs(uint64_t(a));
  const pairs even = (p & mask) * m, odd = (p >> 32) * m;
  high = bits_as<draw_lanes>((even >> 32) | (odd & ~mask));
  low = bits_as<draw_lanes>((even & mask) | (odd << 32));
}
#else
typedef uint32_t draw_lanes;
#endif

template <class U>
DEVICE void philox(U (&c)[4], uint32_t k0, uint32_t k1) {
  UNROLL for (int round = 0; round < 10; round++) {
    U high0, low0, high1, low1;
    wide_product(0xD2511F53u, c[0], high0, low0);
    wide_product(0xCD9E8D57u, c[2], high1, low1);
    c[0] = high1 ^ c[1] ^ k0;
    c[1] = low1;
    c[2] = high0 ^ c[3] ^ k1;
    c[3] = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// The numbers of one purpose for one image at one step.
struct RandomStream {
  uint32_t key0, key1, image, step, tag;
};
DEVICE RandomStream random_stream(uint64_t seed, uint32_t purpose, uint64_t image, uint64_t step) {
  return {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), static_cast<uint32_t>(image),
          static_cast<uint32_t>(step), purpose << 24 | (static_cast<uint32_t>(image >> 32) & 0xffffffu)};
}

// The number of element e.
DEVICE uint32_t random_number(const RandomStream& s, int e) {
  uint32_t c[4] = {static_cast<uint32_t>(e) / 4u, s.image, s.step, s.tag};
  philox(c, s.key0, s.key1);
  const uint32_t even = e & 2 ? c[2] : c[0], odd = e & 2 ? c[3] : c[1];
  return e & 1 ? odd : even;
}

// The kDrawBlocks blocks `block`: lane variable l holds element l of each.
DEVICE void random_blocks_at(const RandomStream& s, draw_lanes block, draw_lanes (&c)[4]) {
  c[0] = block;
  c[1] = draw_lanes(s.image);
  c[2] = draw_lanes(s.step);
  c[3] = draw_lanes(s.tag);
  philox(c, s.key0, s.key1);
}

// The kDrawBlocks blocks from element e, a multiple of 4: lane variable l holds elements e + l, e + l + 4, ...
DEVICE void random_blocks(const RandomStream& s, int e, draw_lanes (&c)[4]) {
  draw_lanes block = draw_lanes(static_cast<uint32_t>(e) / 4u);
#ifdef SIMT_TILES_HOST
  for (int i = 0; i < kDrawBlocks; i++) block[i] += static_cast<uint32_t>(i);
#endif
  random_blocks_at(s, block, c);
}

#ifdef SIMT_TILES_HOST
template <class V, int... I>
DEVICE auto in_element_order(V a01, V a23, simt_indices<I...>) {
  return __builtin_shufflevector(a01, a23, (I / 4 + I % 4 * kDrawBlocks)...);
}
template <class V, int... I>
DEVICE auto side_by_side(V a, V b, simt_indices<I...>) {
  return __builtin_shufflevector(a, b, I...);
}
#endif

// The four lane variables as one vector in the order of the elements.
template <class T>
DEVICE vec<T, kDraw> in_element_order(const vec<T, kDrawBlocks> (&a)[4]) {
#ifdef SIMT_TILES_HOST
  using half = __make_integer_seq<simt_sequence, int, kDraw / 2>;
  using whole = __make_integer_seq<simt_sequence, int, kDraw>;
  return {in_element_order(side_by_side(a[0].v, a[1].v, half{}), side_by_side(a[2].v, a[3].v, half{}), whole{})};
#else
  vec<T, kDraw> r;
  UNROLL for (int i = 0; i < kDraw; i++) r.set(i, a[i][0]);
  return r;
#endif
}

// Numbers as T; SIGNED takes them as two's complement.
template <bool SIGNED, class T>
DEVICE vec<T, kDrawBlocks> as_reals(draw_lanes a) {
#ifdef SIMT_TILES_HOST
  typedef int32_t signed_lanes __attribute__((ext_vector_type(kDrawBlocks)));
  using V = typename vec<T, kDrawBlocks>::type;
  if constexpr (SIGNED) return {__builtin_convertvector(bits_as<signed_lanes>(a), V)};
  return {__builtin_convertvector(a, V)};
#else
  return vec<T, kDrawBlocks>::splat(SIGNED ? static_cast<T>(static_cast<int32_t>(a)) : static_cast<T>(a));
#endif
}

template <class T>
DEVICE void box_muller(draw_lanes a, draw_lanes b, vec<T, kDrawBlocks>& z0, vec<T, kDrawBlocks>& z1) {
  using V = vec<T, kDrawBlocks>;
  const V u = fma(T(0x1p-32), as_reals<false, T>(a), V::splat(T(0x1p-33)));
  const V radius = sqrt(T(-2) * log(u));
  V sine, cosine;
  sincos_turns(T(0x1p-32) * as_reals<true, T>(b), sine, cosine);
  z0 = radius * cosine;
  z1 = radius * sine;
}

// Standard normals of the elements e ... e + kDraw of the stream's image; e is a multiple of 4.
template <class T>
DEVICE vec<T, kDraw> random_normals(const RandomStream& s, int e) {
  draw_lanes c[4];
  random_blocks(s, e, c);
  vec<T, kDrawBlocks> z[4];
  box_muller<T>(c[0], c[1], z[0], z[1]);
  box_muller<T>(c[2], c[3], z[2], z[3]);
  return in_element_order(z);
}

// The elements e ... e + count of an image, kDraw of them where WHOLE. load gives 0 past the end.
template <bool WHOLE>
struct piece {
  int e, count;

  // f(i) for the element e + i, called in order.
  template <class T, class F>
  METHOD vec<T, kDraw> gather(F f) const {
#ifdef SIMT_TILES_HOST
    T values[kDraw] = {};
    for (int i = 0; i < (WHOLE ? kDraw : count); i++) values[i] = f(i);
    return vec<T, kDraw>::load(values);
#else
    vec<T, kDraw> r = vec<T, kDraw>::splat(T(0));
    UNROLL for (int i = 0; i < kDraw; i++) {
      if (WHOLE || i < count) r.set(i, f(i));
    }
    return r;
#endif
  }
  template <class P, class T = acc_of<P>>
  METHOD vec<T, kDraw> load(const P* image) const {
    if constexpr (WHOLE) return SIMT_VARIANT::load<kDraw>(image + e);
    return gather<T>([&](int i) { return SIMT_VARIANT::load<1>(image + e + i)[0]; });
  }
  template <class P, class T>
  METHOD void store(P* image, vec<T, kDraw> a) const {
    if constexpr (WHOLE) return SIMT_VARIANT::store(image + e, a);
#ifdef SIMT_TILES_HOST
    T values[kDraw];
    a.store(values);
    for (int i = 0; i < count; i++) SIMT_VARIANT::store(image + e + i, vec<T, 1>::splat(values[i]));
#else
    UNROLL for (int i = 0; i < kDraw; i++) {
      if (i < count) SIMT_VARIANT::store(image + e + i, vec<T, 1>::splat(a[i]));
    }
#endif
  }
};

// Calls f(piece) for this thread's pieces of the elements first ... end of an image of per_image elements.
template <class F>
DEVICE void image_pieces(int per_image, int first, int end, F f) {
  const int step = kImageThreads * kDraw;
  for (int e = first + static_cast<int>(threadIdx.x) * kDraw; e < end; e += step) {
    if (end - e >= kDraw && vector_rows(per_image)) {
      f(piece<true>{e, kDraw});
    } else {
      f(piece<false>{e, end - e < kDraw ? end - e : kDraw});
    }
    if (e > 0x7fffffff - step) break;
  }
}

// Images x chunks of kImageElements over the grid: calls f(n, first, end) for this block's part of image n.
template <class F>
DEVICE void image_part(int per_image, F f) {
  const int chunks = per_image / kImageElements + (per_image % kImageElements != 0);
  const int first = static_cast<int>(blockIdx.x % chunks) * kImageElements;
  f(static_cast<int>(blockIdx.x / chunks), first, per_image - first > kImageElements ? first + kImageElements : per_image);
}

}  // namespace SIMT_VARIANT
