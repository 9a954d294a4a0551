// Integer and logical arithmetic, comparison and selection (PTX ISA 9.7.1, 9.7.2, 9.7.7, 9.7.8). Values of 16 bits lie in the
// low half of a lane of 32, the high half is 0. What the ISA leaves open (a division by 0) is undefined here too.
#include "host/ptx/lanes.h"
#include "host/ptx/operations.h"

namespace host::ptx {

namespace {

// Lanes of T, sign-extended where T is int16_t.
template <class T>
inline auto get(const Warp& w, uint32_t r) {
  if constexpr (sizeof(T) == 2) {
    const S32 x = row<S32>(w, r);
    return static_cast<T>(-1) < 0 ? (x << 16) >> 16 : x & 0xffff;
  } else {
    return row<typename lanes<T>::V>(w, r);
  }
}
template <class T, class V>
inline void put_lanes(Warp& w, uint32_t r, V v, uint32_t m) {
  if constexpr (sizeof(T) == 2) {
    put(w, r, __builtin_convertvector(v, U32) & 0xffffu, m);
  } else {
    put(w, r, v, m);
  }
}
template <class V>
struct unsigned_lanes;
template <>
struct unsigned_lanes<S32> {
  typedef U32 type;
};
template <>
struct unsigned_lanes<U32> {
  typedef U32 type;
};
template <>
struct unsigned_lanes<S64> {
  typedef U64 type;
};
template <>
struct unsigned_lanes<U64> {
  typedef U64 type;
};
// Signed lanes as unsigned ones, which may wrap around.
template <class V>
inline auto wrap(V v) {
  return __builtin_bit_cast(typename unsigned_lanes<V>::type, v);
}

struct Add {
  template <class V>
  static V of(V a, V b) {
    return __builtin_bit_cast(V, wrap(a) + wrap(b));
  }
};
struct Sub {
  template <class V>
  static V of(V a, V b) {
    return __builtin_bit_cast(V, wrap(a) - wrap(b));
  }
};
struct MulLo {
  template <class V>
  static V of(V a, V b) {
    return __builtin_bit_cast(V, wrap(a) * wrap(b));
  }
};
struct MadLo {
  template <class V>
  static V of(V a, V b, V c) {
    return __builtin_bit_cast(V, wrap(a) * wrap(b) + wrap(c));
  }
};
struct Min {
  template <class V>
  static V of(V a, V b) {
    return a < b ? a : b;
  }
};
struct Max {
  template <class V>
  static V of(V a, V b) {
    return a > b ? a : b;
  }
};
struct And {
  template <class V>
  static V of(V a, V b) {
    return a & b;
  }
};
struct Or {
  template <class V>
  static V of(V a, V b) {
    return a | b;
  }
};
struct Xor {
  template <class V>
  static V of(V a, V b) {
    return a ^ b;
  }
};
struct Not {
  template <class V>
  static V of(V a) {
    return ~a;
  }
};
struct Neg {
  template <class V>
  static V of(V a) {
    return __builtin_bit_cast(V, -wrap(a));
  }
};
struct Abs {
  template <class V>
  static V of(V a) {
    return a < 0 ? Neg::of(a) : a;
  }
};

template <class Op, class T>
bool unary(Warp& w, const Instruction& i, uint32_t m) {
  put_lanes<T>(w, i.d, Op::of(get<T>(w, i.a)), m);
  define(w, i.d, m, w.defined[i.a]);
  return true;
}
template <class Op, class T>
bool binary(Warp& w, const Instruction& i, uint32_t m) {
  put_lanes<T>(w, i.d, Op::of(get<T>(w, i.a), get<T>(w, i.b)), m);
  define(w, i.d, m, w.defined[i.a] & w.defined[i.b]);
  return true;
}
template <class Op, class T>
bool ternary(Warp& w, const Instruction& i, uint32_t m) {
  put_lanes<T>(w, i.d, Op::of(get<T>(w, i.a), get<T>(w, i.b), get<T>(w, i.c)), m);
  define(w, i.d, m, w.defined[i.a] & w.defined[i.b] & w.defined[i.c]);
  return true;
}

// d of twice the width = a · b (+ c, as wide as d).
template <class T, bool kAdd>
bool multiply_wide(Warp& w, const Instruction& i, uint32_t m) {
  uint32_t good = w.defined[i.a] & w.defined[i.b];
  if (kAdd) good &= w.defined[i.c];
  if constexpr (sizeof(T) == 2) {
    U32 d = wrap(get<T>(w, i.a)) * wrap(get<T>(w, i.b));
    if (kAdd) d += row<U32>(w, i.c);
    put(w, i.d, d, m);
  } else {
    typedef typename lanes<T>::Wide W;
    U64 d = wrap(__builtin_convertvector(row<typename lanes<T>::V>(w, i.a), W)) *
            wrap(__builtin_convertvector(row<typename lanes<T>::V>(w, i.b), W));
    if (kAdd) d += row<U64>(w, i.c);
    put(w, i.d, d, m);
  }
  define(w, i.d, m, good);
  return true;
}

template <class T>
bool mul_hi(Warp& w, const Instruction& i, uint32_t m) {
  return lane_by_lane<T, 2>(w, i, m, [](T a, T b, T, uint32_t&, int) {
    if constexpr (sizeof(T) == 8) {
      if constexpr (static_cast<T>(-1) < 0) return static_cast<T>((static_cast<__int128>(a) * b) >> 64);
      return static_cast<T>((static_cast<unsigned __int128>(a) * b) >> 64);
    } else {
      if constexpr (static_cast<T>(-1) < 0) return static_cast<T>((static_cast<int64_t>(a) * b) >> (8 * sizeof(T)));
      return static_cast<T>((static_cast<uint64_t>(a) * b) >> (8 * sizeof(T)));
    }
  });
}

template <class T, bool kRemainder>
bool divide(Warp& w, const Instruction& i, uint32_t m) {
  return lane_by_lane<T, 2>(w, i, m, [](T a, T b, T, uint32_t& good, int l) -> T {
    if (b == 0) {
      good &= ~(1u << l);
      return static_cast<T>(-1);
    }
    if (static_cast<T>(-1) < 0 && b == static_cast<T>(-1))
      return kRemainder ? T(0) : static_cast<T>(0 - static_cast<uint64_t>(a));
    return static_cast<T>(kRemainder ? a % b : a / b);
  });
}

// Amounts of shl and shr beyond the width count as the width.
template <class T, bool kLeft>
bool shift(Warp& w, const Instruction& i, uint32_t m) {
  constexpr uint32_t kWidth = 8 * sizeof(T);
  const U32 by = row<U32>(w, i.b);
  const auto a = get<T>(w, i.a);
  if constexpr (sizeof(T) == 8) {
    const U64 n = __builtin_convertvector(by, U64);
    if constexpr (kLeft) {
      put(w, i.d, n < kWidth ? wrap(a) << n : U64(0), m);
    } else if constexpr (static_cast<T>(-1) < 0) {
      put(w, i.d, a >> __builtin_bit_cast(S64, n < kWidth ? n : U64(kWidth - 1)), m);
    } else {
      put(w, i.d, n < kWidth ? a >> n : U64(0), m);
    }
  } else {
    if constexpr (kLeft) {
      put_lanes<T>(w, i.d, by < kWidth ? wrap(a) << (by & 31u) : U32(0), m);
    } else if constexpr (static_cast<T>(-1) < 0) {
      put_lanes<T>(w, i.d, __builtin_bit_cast(S32, a) >> __builtin_bit_cast(S32, by < kWidth ? by : U32(kWidth - 1)), m);
    } else {
      put_lanes<T>(w, i.d, by < kWidth ? wrap(a) >> (by & 31u) : U32(0), m);
    }
  }
  define(w, i.d, m, w.defined[i.a] & w.defined[i.b]);
  return true;
}

template <class T>
Run run_of(IntegerOp op) {
  constexpr bool kSigned = static_cast<T>(-1) < 0;
  switch (op) {
    case IntegerOp::add: return binary<Add, T>;
    case IntegerOp::sub: return binary<Sub, T>;
    case IntegerOp::mul_lo: return binary<MulLo, T>;
    case IntegerOp::mad_lo: return ternary<MadLo, T>;
    case IntegerOp::min: return binary<Min, T>;
    case IntegerOp::max: return binary<Max, T>;
    case IntegerOp::and_: return binary<And, T>;
    case IntegerOp::or_: return binary<Or, T>;
    case IntegerOp::xor_: return binary<Xor, T>;
    case IntegerOp::not_: return unary<Not, T>;
    case IntegerOp::neg: return kSigned ? unary<Neg, T> : nullptr;
    case IntegerOp::abs: return kSigned ? unary<Abs, T> : nullptr;
    case IntegerOp::shl: return shift<T, true>;
    case IntegerOp::shr: return shift<T, false>;
    case IntegerOp::div: return divide<T, false>;
    case IntegerOp::rem: return divide<T, true>;
    case IntegerOp::mul_hi: return mul_hi<T>;
    default: break;
  }
  if constexpr (sizeof(T) < 8) {
    if (op == IntegerOp::mul_wide) return multiply_wide<T, false>;
    if (op == IntegerOp::mad_wide) return multiply_wide<T, true>;
  }
  return nullptr;
}

template <class T, Compare kCompare>
bool compare(Warp& w, const Instruction& i, uint32_t m) {
  const auto a = get<T>(w, i.a), b = get<T>(w, i.b);
  uint32_t r = 0;
  if constexpr (kCompare == Compare::eq) r = mask_of(a == b);
  if constexpr (kCompare == Compare::ne) r = mask_of(a != b);
  if constexpr (kCompare == Compare::lt) r = mask_of(a < b);
  if constexpr (kCompare == Compare::le) r = mask_of(a <= b);
  if constexpr (kCompare == Compare::gt) r = mask_of(a > b);
  if constexpr (kCompare == Compare::ge) r = mask_of(a >= b);
  compared(w, i, m, r);
  return true;
}
template <class T>
Run compare_of(Compare c) {
  switch (c) {
    case Compare::eq: return compare<T, Compare::eq>;
    case Compare::ne: return compare<T, Compare::ne>;
    case Compare::lt: return compare<T, Compare::lt>;
    case Compare::le: return compare<T, Compare::le>;
    case Compare::gt: return compare<T, Compare::gt>;
    case Compare::ge: return compare<T, Compare::ge>;
    default: return nullptr;
  }
}

// selp d, a, b, predicate c.
template <class V>
bool select(Warp& w, const Instruction& i, uint32_t m) {
  const uint32_t p = w.predicate[i.c];
  const V &a = row<V>(w, i.a), &b = row<V>(w, i.b);
  if constexpr (sizeof(V) == sizeof(U64)) {
    put(w, i.d, expand_wide(p) ? a : b, m);
  } else {
    put(w, i.d, expand(p) ? a : b, m);
  }
  define(w, i.d, m, w.predicate_defined[i.c] & ((p & w.defined[i.a]) | (~p & w.defined[i.b])));
  return true;
}

template <PredicateOp kOp>
bool logic(Warp& w, const Instruction& i, uint32_t m) {
  const uint32_t a = w.predicate[i.a], b = w.predicate[i.b];
  const uint32_t good_a = w.predicate_defined[i.a], good_b = w.predicate_defined[i.b];
  if constexpr (kOp == PredicateOp::mov) put_predicate(w, i.d, a, m, good_a);
  if constexpr (kOp == PredicateOp::not_) put_predicate(w, i.d, ~a, m, good_a);
  if constexpr (kOp == PredicateOp::xor_) put_predicate(w, i.d, a ^ b, m, good_a & good_b);
  // One operand may decide alone.
  if constexpr (kOp == PredicateOp::and_) put_predicate(w, i.d, a & b, m, (good_a & good_b) | (good_a & ~a) | (good_b & ~b));
  if constexpr (kOp == PredicateOp::or_) put_predicate(w, i.d, a | b, m, (good_a & good_b) | (good_a & a) | (good_b & b));
  return true;
}

}  // namespace

Run integer_run(IntegerOp op, Type t) {
  if (op >= IntegerOp::clz) return bits_run(op, t);
  switch (t) {
    case Type::b16:
    case Type::u16: return run_of<uint16_t>(op);
    case Type::s16: return run_of<int16_t>(op);
    case Type::b32:
    case Type::u32: return run_of<uint32_t>(op);
    case Type::s32: return run_of<int32_t>(op);
    case Type::b64:
    case Type::u64: return run_of<uint64_t>(op);
    case Type::s64: return run_of<int64_t>(op);
    default: return nullptr;
  }
}

Run compare_run(Compare c, Type t, bool ftz) {
  if (is_float(t)) return float_compare_run(c, t, ftz);
  switch (t) {
    case Type::b16:
    case Type::u16: return compare_of<uint16_t>(c);
    case Type::s16: return compare_of<int16_t>(c);
    case Type::b32:
    case Type::u32: return compare_of<uint32_t>(c);
    case Type::s32: return compare_of<int32_t>(c);
    case Type::b64:
    case Type::u64: return compare_of<uint64_t>(c);
    case Type::s64: return compare_of<int64_t>(c);
    default: return nullptr;
  }
}

Run select_run(Type t) { return bytes_of(t) == 8 ? select<U64> : select<U32>; }

Run predicate_run(PredicateOp op) {
  switch (op) {
    case PredicateOp::and_: return logic<PredicateOp::and_>;
    case PredicateOp::or_: return logic<PredicateOp::or_>;
    case PredicateOp::xor_: return logic<PredicateOp::xor_>;
    case PredicateOp::not_: return logic<PredicateOp::not_>;
    case PredicateOp::mov: return logic<PredicateOp::mov>;
  }
  return nullptr;
}

}  // namespace host::ptx
