// Float arithmetic (PTX ISA 9.7.3) and comparison.
//
// add, sub, mul, fma, div, sqrt and rcp with .rn are IEEE 754's, each rounded once. The approximations (ex2, lg2, rsqrt, sin,
// cos, tanh, and rcp, sqrt, div where they are .approx or .full) are computed in double precision and rounded, so they err
// less than any GPU's; subnormals are flushed where .ftz is said. A NaN's payload is whatever the machine gives.
#include "host/ptx/operations.h"
#include "host/ptx/warp.h"

namespace host::ptx {

namespace {

inline F32 flush(F32 x) {
  const U32 bits = __builtin_bit_cast(U32, x);
  return __builtin_bit_cast(F32, (bits & 0x7f800000u) == 0u ? bits & 0x80000000u : bits);
}
template <bool kFlush, class V>
inline V flushed(V x) {
  if constexpr (kFlush) return flush(x);
  return x;
}

struct Add {
  template <class V>
  static V of(V a, V b) {
    return a + b;
  }
};
struct Sub {
  template <class V>
  static V of(V a, V b) {
    return a - b;
  }
};
struct Mul {
  template <class V>
  static V of(V a, V b) {
    return a * b;
  }
};
struct Div {
  template <class V>
  static V of(V a, V b) {
    return a / b;
  }
};
struct Fma {
  template <class V>
  static V of(V a, V b, V c) {
    return __builtin_elementwise_fma(a, b, c);
  }
};
struct Neg {
  template <class V>
  static V of(V a) {
    return -a;
  }
};
struct Abs {
  template <class V>
  static V of(V a) {
    return __builtin_elementwise_abs(a);
  }
};
// A number wins against a NaN, and −0 is less than 0.
struct Min {
  static F32 of(F32 a, F32 b) {
    return pick(a, b, a < b, __builtin_bit_cast(F32, __builtin_bit_cast(U32, a) | __builtin_bit_cast(U32, b)));
  }
  static F64 of(F64 a, F64 b) {
    return pick(a, b, a < b, __builtin_bit_cast(F64, __builtin_bit_cast(U64, a) | __builtin_bit_cast(U64, b)));
  }
  template <class V, class M>
  static V pick(V a, V b, M first, V equal) {
    const V r = a == b ? equal : first ? a : b;
    return a != a ? b : b != b ? a : r;
  }
};
struct Max {
  static F32 of(F32 a, F32 b) {
    return Min::pick(a, b, a > b, __builtin_bit_cast(F32, __builtin_bit_cast(U32, a) & __builtin_bit_cast(U32, b)));
  }
  static F64 of(F64 a, F64 b) {
    return Min::pick(a, b, a > b, __builtin_bit_cast(F64, __builtin_bit_cast(U64, a) & __builtin_bit_cast(U64, b)));
  }
};
// copysign.f32 d, a, b: the sign of a, the magnitude of b.
struct Copysign {
  template <class V>
  static V of(V a, V b) {
    return __builtin_elementwise_copysign(b, a);
  }
};

template <double (*kF)(double)>
struct InDouble {
  template <class V>
  static V of(V a) {
    for (int l = 0; l < kLanes; l++) a[l] = static_cast<__typeof__(a[0] + 0)>(kF(static_cast<double>(a[l])));
    return a;
  }
};
double reciprocal_root(double x) { return 1 / sqrt(x); }
struct Sqrt {
  template <class V>
  static V of(V a) {
    return __builtin_elementwise_sqrt(a);
  }
};
struct Rcp {
  template <class V>
  static V of(V a) {
    return V(1) / a;
  }
};

template <class Op, class V, bool kFlush>
bool unary(Warp& w, const Instruction& i, uint32_t m) {
  put(w, i.d, flushed<kFlush>(Op::of(flushed<kFlush>(row<V>(w, i.a)))), m);
  define(w, i.d, m, w.defined[i.a]);
  return true;
}
template <class Op, class V, bool kFlush>
bool binary(Warp& w, const Instruction& i, uint32_t m) {
  put(w, i.d, flushed<kFlush>(Op::of(flushed<kFlush>(row<V>(w, i.a)), flushed<kFlush>(row<V>(w, i.b)))), m);
  define(w, i.d, m, w.defined[i.a] & w.defined[i.b]);
  return true;
}
template <class Op, class V, bool kFlush>
bool ternary(Warp& w, const Instruction& i, uint32_t m) {
  put(w, i.d,
      flushed<kFlush>(Op::of(flushed<kFlush>(row<V>(w, i.a)), flushed<kFlush>(row<V>(w, i.b)), flushed<kFlush>(row<V>(w, i.c)))),
      m);
  define(w, i.d, m, w.defined[i.a] & w.defined[i.b] & w.defined[i.c]);
  return true;
}

template <class V, bool kFlush>
Run run_of(FloatOp op) {
  switch (op) {
    case FloatOp::add: return binary<Add, V, kFlush>;
    case FloatOp::sub: return binary<Sub, V, kFlush>;
    case FloatOp::mul: return binary<Mul, V, kFlush>;
    case FloatOp::fma: return ternary<Fma, V, kFlush>;
    case FloatOp::neg: return unary<Neg, V, kFlush>;
    case FloatOp::abs: return unary<Abs, V, kFlush>;
    case FloatOp::min: return binary<Min, V, kFlush>;
    case FloatOp::max: return binary<Max, V, kFlush>;
    case FloatOp::copysign: return binary<Copysign, V, kFlush>;
    case FloatOp::div: return binary<Div, V, kFlush>;
    case FloatOp::sqrt: return unary<Sqrt, V, kFlush>;
    case FloatOp::rcp: return unary<Rcp, V, kFlush>;
    case FloatOp::ex2: return unary<InDouble<exp2>, V, kFlush>;
    case FloatOp::lg2: return unary<InDouble<log2>, V, kFlush>;
    case FloatOp::rsqrt: return unary<InDouble<reciprocal_root>, V, kFlush>;
    case FloatOp::sin: return unary<InDouble<sin>, V, kFlush>;
    case FloatOp::cos: return unary<InDouble<cos>, V, kFlush>;
    case FloatOp::tanh: return unary<InDouble<tanh>, V, kFlush>;
  }
  return nullptr;
}

template <class V, bool kFlush, Compare kCompare>
bool compare(Warp& w, const Instruction& i, uint32_t m) {
  const V a = flushed<kFlush>(row<V>(w, i.a)), b = flushed<kFlush>(row<V>(w, i.b));
  uint32_t r = 0;
  if constexpr (kCompare == Compare::eq) r = mask_of(a == b);
  if constexpr (kCompare == Compare::ne) r = mask_of(a < b) | mask_of(a > b);
  if constexpr (kCompare == Compare::lt) r = mask_of(a < b);
  if constexpr (kCompare == Compare::le) r = mask_of(a <= b);
  if constexpr (kCompare == Compare::gt) r = mask_of(a > b);
  if constexpr (kCompare == Compare::ge) r = mask_of(a >= b);
  if constexpr (kCompare == Compare::equ) r = ~(mask_of(a < b) | mask_of(a > b));
  if constexpr (kCompare == Compare::neu) r = mask_of(a != b);
  if constexpr (kCompare == Compare::ltu) r = ~mask_of(a >= b);
  if constexpr (kCompare == Compare::leu) r = ~mask_of(a > b);
  if constexpr (kCompare == Compare::gtu) r = ~mask_of(a <= b);
  if constexpr (kCompare == Compare::geu) r = ~mask_of(a < b);
  if constexpr (kCompare == Compare::num) r = mask_of(a == a) & mask_of(b == b);
  if constexpr (kCompare == Compare::nan) r = mask_of(a != a) | mask_of(b != b);
  compared(w, i, m, r);
  return true;
}

template <class V, bool kFlush>
Run compare_of(Compare c) {
  switch (c) {
    case Compare::eq: return compare<V, kFlush, Compare::eq>;
    case Compare::ne: return compare<V, kFlush, Compare::ne>;
    case Compare::lt: return compare<V, kFlush, Compare::lt>;
    case Compare::le: return compare<V, kFlush, Compare::le>;
    case Compare::gt: return compare<V, kFlush, Compare::gt>;
    case Compare::ge: return compare<V, kFlush, Compare::ge>;
    case Compare::equ: return compare<V, kFlush, Compare::equ>;
    case Compare::neu: return compare<V, kFlush, Compare::neu>;
    case Compare::ltu: return compare<V, kFlush, Compare::ltu>;
    case Compare::leu: return compare<V, kFlush, Compare::leu>;
    case Compare::gtu: return compare<V, kFlush, Compare::gtu>;
    case Compare::geu: return compare<V, kFlush, Compare::geu>;
    case Compare::num: return compare<V, kFlush, Compare::num>;
    case Compare::nan: return compare<V, kFlush, Compare::nan>;
  }
  return nullptr;
}

}  // namespace

Run float_run(FloatOp op, Type t, bool ftz) {
  if (t == Type::f32) return ftz ? run_of<F32, true>(op) : run_of<F32, false>(op);
  return t == Type::f64 && !ftz && op < FloatOp::ex2 ? run_of<F64, false>(op) : nullptr;
}

Run float_compare_run(Compare c, Type t, bool ftz) {
  if (t == Type::f32) return ftz ? compare_of<F32, true>(c) : compare_of<F32, false>(c);
  return t == Type::f64 && !ftz ? compare_of<F64, false>(c) : nullptr;
}

}  // namespace host::ptx
