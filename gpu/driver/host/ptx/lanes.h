// Integer lanes by type.
#pragma once
#include "host/ptx/warp.h"

namespace host::ptx {

// How lanes of a type are read: T by value, V as they lie in the row.
template <class T>
struct lanes;
template <>
struct lanes<uint16_t> {
  typedef U32 V;
  typedef U32 Wide;
};
template <>
struct lanes<int16_t> {
  typedef U32 V;
  typedef U32 Wide;
};
template <>
struct lanes<uint32_t> {
  typedef U32 V;
  typedef U64 Wide;
};
template <>
struct lanes<int32_t> {
  typedef S32 V;
  typedef S64 Wide;
};
template <>
struct lanes<uint64_t> {
  typedef U64 V;
};
template <>
struct lanes<int64_t> {
  typedef S64 V;
};

// The operations that are computed lane by lane, out of vectors: F(a, b, c) for the active lanes.
template <class T, int kOperands, class F>
static inline bool lane_by_lane(Warp& w, const Instruction& i, uint32_t m, F f) {
  typedef typename lanes<T>::V V;
  uint32_t good = w.defined[i.a];
  if (kOperands > 1) good &= w.defined[i.b];
  if (kOperands > 2) good &= w.defined[i.c];
  const V &a = row<V>(w, i.a), &b = row<V>(w, i.b), &c = row<V>(w, i.c);
  V d = row<V>(w, i.d);
  each_lane(m, [&](int l) {
    const T x = static_cast<T>(a[l]), y = static_cast<T>(kOperands > 1 ? b[l] : 0), z = static_cast<T>(kOperands > 2 ? c[l] : 0);
    auto r = static_cast<__typeof__(d[0] + 0)>(static_cast<T>(f(x, y, z, good, l)));
    if constexpr (sizeof(T) == 2) r &= 0xffff;
    d[l] = r;
  });
  row<V>(w, i.d) = d;
  define(w, i.d, m, good);
  return true;
}

}  // namespace host::ptx
