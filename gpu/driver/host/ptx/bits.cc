// Bit fields and counts, permutations of bytes, funnel shifts (PTX ISA 9.7.1, 9.7.8).
#include "host/ptx/lanes.h"
#include "host/ptx/operations.h"

namespace host::ptx {

namespace {

// clz, popc: a result of 32 bits.
template <class T, bool kLeading>
bool count_bits(Warp& w, const Instruction& i, uint32_t m) {
  const auto& a = row<typename lanes<T>::V>(w, i.a);
  U32 d = row<U32>(w, i.d);
  each_lane(m, [&](int l) {
    const uint64_t x = a[l];
    d[l] = static_cast<uint32_t>(!kLeading ? __builtin_popcountll(x)
                                 : x == 0  ? int(8 * sizeof(T))
                                           : __builtin_clzll(x) - (64 - int(8 * sizeof(T))));
  });
  row<U32>(w, i.d) = d;
  define(w, i.d, m, w.defined[i.a]);
  return true;
}

template <class T>
T reversed(T x) {
  T r = 0;
  for (unsigned bit = 0; bit < 8 * sizeof(T); bit++) r = static_cast<T>(r << 1 | (x >> bit & 1));
  return r;
}
template <class T>
bool brev(Warp& w, const Instruction& i, uint32_t m) {
  return lane_by_lane<T, 1>(w, i, m, [](T a, T, T, uint32_t&, int) { return reversed(a); });
}

// bfe d, a, position, length: bits beyond the value's are 0, or its sign.
template <class T>
bool bfe(Warp& w, const Instruction& i, uint32_t m) {
  typedef typename lanes<T>::V V;
  const V& a = row<V>(w, i.a);
  const U32 &b = row<U32>(w, i.b), &c = row<U32>(w, i.c);
  V d = row<V>(w, i.d);
  each_lane(m, [&](int l) {
    constexpr unsigned kTop = 8 * sizeof(T) - 1;
    const unsigned at = b[l] & 255, length = c[l] & 255;
    const uint64_t x = static_cast<uint64_t>(static_cast<int64_t>(a[l]));
    const auto bit = [&](unsigned n) { return n <= kTop ? x >> n & 1 : 0; };
    const uint64_t sign = !(static_cast<T>(-1) < 0) || length == 0 ? 0 : bit(at + length - 1 < kTop ? at + length - 1 : kTop);
    uint64_t r = sign ? ~0ull : 0;
    for (unsigned n = 0; n < length && n <= kTop; n++) {
      if (at + n > kTop) break;
      r = (r & ~(1ull << n)) | bit(at + n) << n;
    }
    d[l] = static_cast<T>(r);
  });
  row<V>(w, i.d) = d;
  define(w, i.d, m, w.defined[i.a] & w.defined[i.b] & w.defined[i.c]);
  return true;
}

// bfi f, a, b, position, length: the low bits of a in b.
template <class T>
bool bfi(Warp& w, const Instruction& i, uint32_t m) {
  typedef typename lanes<T>::V V;
  const V &a = row<V>(w, i.a), &b = row<V>(w, i.b);
  const U32 &c = row<U32>(w, i.c), &e = row<U32>(w, i.e);
  V d = row<V>(w, i.d);
  each_lane(m, [&](int l) {
    const unsigned at = c[l] & 255, length = e[l] & 255;
    T r = b[l];
    for (unsigned n = 0; n < length && at + n < 8 * sizeof(T); n++) {
      r = static_cast<T>((r & ~(T(1) << (at + n))) | (static_cast<T>(a[l]) >> n & 1) << (at + n));
    }
    d[l] = r;
  });
  row<V>(w, i.d) = d;
  define(w, i.d, m, w.defined[i.a] & w.defined[i.b] & w.defined[i.c] & w.defined[i.e]);
  return true;
}

// prmt d, a, b, c: byte n of d is byte c[4n+2:4n] of {b, a}, or its sign eight times where bit 4n+3 is set.
bool prmt(Warp& w, const Instruction& i, uint32_t m) {
  return lane_by_lane<uint32_t, 3>(w, i, m, [](uint32_t a, uint32_t b, uint32_t c, uint32_t&, int) {
    const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
    uint32_t d = 0;
    for (int n = 0; n < 4; n++) {
      const unsigned select = c >> (4 * n) & 15;
      uint32_t byte = static_cast<uint32_t>(both >> (8 * (select & 7)) & 255);
      if (select & 8) byte = byte & 128 ? 255 : 0;
      d |= byte << (8 * n);
    }
    return d;
  });
}

// lop3 d, a, b, c, table: the table's bit of number {a, b, c} for each bit.
bool lop3(Warp& w, const Instruction& i, uint32_t m) {
  const U32 &a = row<U32>(w, i.a), &b = row<U32>(w, i.b), &c = row<U32>(w, i.c);
  const uint32_t table = static_cast<uint32_t>(i.offset);
  U32 d = 0;
  for (uint32_t n = 0; n < 8; n++) {
    if (table >> n & 1) d |= (n & 4 ? a : ~a) & (n & 2 ? b : ~b) & (n & 1 ? c : ~c);
  }
  put(w, i.d, d, m);
  define(w, i.d, m, w.defined[i.a] & w.defined[i.b] & w.defined[i.c]);
  return true;
}

// shf.l, shf.r: {b, a} shifted; mode 1 clamps the amount at 32, mode 0 takes it modulo 32.
template <bool kLeft>
bool funnel(Warp& w, const Instruction& i, uint32_t m) {
  const bool clamp = i.mode == 1;
  return lane_by_lane<uint32_t, 3>(w, i, m, [clamp](uint32_t a, uint32_t b, uint32_t c, uint32_t&, int) {
    const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
    const unsigned n = clamp ? (c < 32 ? c : 32) : c & 31;
    return static_cast<uint32_t>(kLeft ? both << n >> 32 : both >> n);
  });
}

// clz, popc and brev take untyped values; so does bfi.
template <class T, class Unsigned>
Run run_of(IntegerOp op) {
  switch (op) {
    case IntegerOp::clz: return count_bits<Unsigned, true>;
    case IntegerOp::popc: return count_bits<Unsigned, false>;
    case IntegerOp::brev: return brev<Unsigned>;
    case IntegerOp::bfe: return bfe<T>;
    case IntegerOp::bfi: return bfi<Unsigned>;
    default: break;
  }
  if constexpr (sizeof(T) == 4) {
    switch (op) {
      case IntegerOp::prmt: return prmt;
      case IntegerOp::lop3: return lop3;
      case IntegerOp::funnel_left: return funnel<true>;
      case IntegerOp::funnel_right: return funnel<false>;
      default: break;
    }
  }
  return nullptr;
}

}  // namespace

Run bits_run(IntegerOp op, Type t) {
  switch (t) {
    case Type::b32:
    case Type::u32: return run_of<uint32_t, uint32_t>(op);
    case Type::s32: return run_of<int32_t, uint32_t>(op);
    case Type::b64:
    case Type::u64: return run_of<uint64_t, uint64_t>(op);
    case Type::s64: return run_of<int64_t, uint64_t>(op);
    default: return nullptr;
  }
}

}  // namespace host::ptx
