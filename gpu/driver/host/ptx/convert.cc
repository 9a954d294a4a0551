// cvt, mov with its packed forms, and cvta (PTX ISA 9.7.9).
#include "host/ptx/operations.h"
#include "host/ptx/warp.h"

namespace host::ptx {

namespace {

// Lanes of integer type F in a vector of 32 or 64 bits, extended by their sign. The register may be wider: count says that it has
// 64 bits.
template <class F>
inline auto integers(const Warp& w, const Instruction& i) {
  if constexpr (sizeof(F) == 8) {
    if constexpr (static_cast<F>(-1) < 0) return row<S64>(w, i.a);
    else return row<U64>(w, i.a);
  } else {
    constexpr int kShift = 32 - 8 * static_cast<int>(sizeof(F));
    const U32 x = i.count != 0 ? __builtin_convertvector(row<U64>(w, i.a), U32) : row<U32>(w, i.a);
    if constexpr (static_cast<F>(-1) < 0) return __builtin_bit_cast(S32, x << static_cast<uint32_t>(kShift)) >> kShift;
    else return (x << static_cast<uint32_t>(kShift)) >> static_cast<uint32_t>(kShift);
  }
}

// Writes values of type T to a register of Instruction::bytes, extended by T's sign.
template <class T, class V>
inline void put_integers(Warp& w, const Instruction& i, V x, uint32_t m) {
  constexpr bool kSigned = static_cast<T>(-1) < 0;
  constexpr int kShift = sizeof(T) < 8 ? 32 - 8 * static_cast<int>(sizeof(T)) : 0;
  if constexpr (sizeof(T) == 8) {
    put(w, i.d, __builtin_convertvector(x, U64), m);
    return;
  }
  const U32 low = __builtin_convertvector(x, U32) << static_cast<uint32_t>(kShift);
  const U32 y = kSigned ? __builtin_bit_cast(U32, __builtin_bit_cast(S32, low) >> kShift) : low >> static_cast<uint32_t>(kShift);
  if (i.bytes == 8) {
    put(w, i.d,
        kSigned ? __builtin_bit_cast(U64, __builtin_convertvector(__builtin_bit_cast(S32, y), S64))
                : __builtin_convertvector(y, U64),
        m);
  } else {
    put(w, i.d, i.bytes == 2 ? y & 0xffffu : y, m);
  }
}

template <class T, class F>
bool integer_to_integer(Warp& w, const Instruction& i, uint32_t m) {
  put_integers<T>(w, i, integers<F>(w, i), m);
  define(w, i.d, m, w.defined[i.a]);
  return true;
}

template <class V, class F>
bool integer_to_float(Warp& w, const Instruction& i, uint32_t m) {
  put(w, i.d, __builtin_convertvector(integers<F>(w, i), V), m);
  define(w, i.d, m, w.defined[i.a]);
  return true;
}

double rounded(double x, Round round) {
  switch (round) {
    case Round::rni: return rint(x);
    case Round::rzi: return trunc(x);
    case Round::rmi: return floor(x);
    case Round::rpi: return ceil(x);
    default: return x;
  }
}

// Numbers beyond T's become T's outermost, NaN becomes 0.
template <class T, class V, Round kRound>
bool float_to_integer(Warp& w, const Instruction& i, uint32_t m) {
  constexpr bool kSigned = static_cast<T>(-1) < 0;
  constexpr int kBits = 8 * sizeof(T) - (kSigned ? 1 : 0);
  const V& a = row<V>(w, i.a);
  U64 x = 0;
  each_lane(m, [&](int l) {
    const double r = rounded(static_cast<double>(a[l]), kRound), top = ldexp(1, kBits);
    if (r != r) return;
    const T most = static_cast<T>(~0ull >> (64 - kBits)), least = kSigned ? static_cast<T>(-most - 1) : T(0);
    x[l] = static_cast<uint64_t>(static_cast<int64_t>(r >= top ? most : r < (kSigned ? -top : 0) ? least : static_cast<T>(r)));
  });
  put_integers<T>(w, i, x, m);
  define(w, i.d, m, w.defined[i.a]);
  return true;
}

// Between floats; mode: bit 0 .ftz, bit 1 .sat.
template <class To, class From, Round kRound>
bool float_to_float(Warp& w, const Instruction& i, uint32_t m) {
  const From& a = row<From>(w, i.a);
  To d = row<To>(w, i.d);
  each_lane(m, [&](int l) {
    __typeof__(a[0] + 0) x = a[l];
    if (i.mode & 1 && fabs(static_cast<double>(x)) < 0x1p-126) x = copysign(0.0f, x);
    auto y = static_cast<__typeof__(d[0] + 0)>(rounded(static_cast<double>(x), kRound));
    if (i.mode & 1 && fabs(static_cast<double>(y)) < 0x1p-126) y = copysign(0.0f, y);
    if (i.mode & 2) y = y > 0 ? (y < 1 ? y : 1) : 0;
    d[l] = y;
  });
  row<To>(w, i.d) = d;
  define(w, i.d, m, w.defined[i.a]);
  return true;
}

// The nearest bf16, ties to even; a NaN is 0x7fff.
inline U32 to_bf16(F32 x) {
  const U32 bits = __builtin_bit_cast(U32, x);
  const U32 near = (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
  return (bits & 0x7fffffffu) > 0x7f800000u ? U32(0x7fffu) : near;
}
bool bf16_of_float(Warp& w, const Instruction& i, uint32_t m) {
  put(w, i.d, to_bf16(row<F32>(w, i.a)), m);
  define(w, i.d, m, w.defined[i.a]);
  return true;
}
// cvt.rn.bf16x2.f32 d, a, b: a in the upper half.
bool bf16_pair_of_floats(Warp& w, const Instruction& i, uint32_t m) {
  put(w, i.d, to_bf16(row<F32>(w, i.a)) << 16u | to_bf16(row<F32>(w, i.b)), m);
  define(w, i.d, m, w.defined[i.a] & w.defined[i.b]);
  return true;
}
bool float_of_bf16(Warp& w, const Instruction& i, uint32_t m) {
  put(w, i.d, row<U32>(w, i.a) << 16u, m);
  define(w, i.d, m, w.defined[i.a]);
  return true;
}

// The nearest tf32, ties away from 0, in a register of 32 bits.
bool tf32_of_float(Warp& w, const Instruction& i, uint32_t m) {
  const U32& bits = row<U32>(w, i.a);
  const U32 special = __builtin_bit_cast(U32, (bits & 0x7f800000u) == 0x7f800000u);  // no number
  put(w, i.d, (bits & special) | ((bits + 0x1000u) & 0xffffe000u & ~special), m);
  define(w, i.d, m, w.defined[i.a]);
  return true;
}

template <class F>
Run from_integer(Type to) {
  switch (to) {
    case Type::u8: return integer_to_integer<uint8_t, F>;
    case Type::s8: return integer_to_integer<int8_t, F>;
    case Type::u16: return integer_to_integer<uint16_t, F>;
    case Type::s16: return integer_to_integer<int16_t, F>;
    case Type::u32: return integer_to_integer<uint32_t, F>;
    case Type::s32: return integer_to_integer<int32_t, F>;
    case Type::u64: return integer_to_integer<uint64_t, F>;
    case Type::s64: return integer_to_integer<int64_t, F>;
    case Type::f32: return integer_to_float<F32, F>;
    case Type::f64: return integer_to_float<F64, F>;
    default: return nullptr;
  }
}

template <class V, Round kRound>
Run from_float_rounded(Type to) {
  switch (to) {
    case Type::u8: return float_to_integer<uint8_t, V, kRound>;
    case Type::s8: return float_to_integer<int8_t, V, kRound>;
    case Type::u16: return float_to_integer<uint16_t, V, kRound>;
    case Type::s16: return float_to_integer<int16_t, V, kRound>;
    case Type::u32: return float_to_integer<uint32_t, V, kRound>;
    case Type::s32: return float_to_integer<int32_t, V, kRound>;
    case Type::u64: return float_to_integer<uint64_t, V, kRound>;
    case Type::s64: return float_to_integer<int64_t, V, kRound>;
    case Type::f32: return float_to_float<F32, V, kRound>;
    case Type::f64: return float_to_float<F64, V, kRound>;
    default: return nullptr;
  }
}
template <class V>
Run from_float(Type to, Round round) {
  switch (round) {
    case Round::rni: return from_float_rounded<V, Round::rni>(to);
    case Round::rzi: return from_float_rounded<V, Round::rzi>(to);
    case Round::rmi: return from_float_rounded<V, Round::rmi>(to);
    case Round::rpi: return from_float_rounded<V, Round::rpi>(to);
    default: break;
  }
  // Without rounding to an integer: f32 to f64 and a copy take no rounding mode, f64 to f32 takes .rn.
  const bool narrows = to == Type::f32 && sizeof(V) == sizeof(F64);
  if (!is_float(to) || (round == Round::rn) != narrows) return nullptr;
  return to == Type::f32 ? float_to_float<F32, V, Round::none> : float_to_float<F64, V, Round::none>;
}

template <class V>
bool move(Warp& w, const Instruction& i, uint32_t m) {
  put(w, i.d, row<V>(w, i.a), m);
  define(w, i.d, m, w.defined[i.a]);
  return true;
}

const uint32_t* operands(const Warp& w, const Instruction& i) { return &w.block->program->operands.data()[i.more]; }

// d = {operands}, the first in the low bits; Instruction::bytes is the size of d.
template <int kPart>
bool pack(Warp& w, const Instruction& i, uint32_t m) {
  const uint32_t* const parts = operands(w, i);
  uint32_t good = kAll;
  if constexpr (kPart == 4) {
    U64 d = 0;
    for (int n = 0; n < i.count; n++) {
      d |= __builtin_convertvector(row<U32>(w, parts[n]), U64) << static_cast<uint64_t>(32 * n);
      good &= w.defined[parts[n]];
    }
    put(w, i.d, d, m);
  } else {
    U64 d = 0;
    for (int n = 0; n < i.count; n++) {
      d |= __builtin_convertvector(row<U32>(w, parts[n]), U64) << static_cast<uint64_t>(16 * n);
      good &= w.defined[parts[n]];
    }
    if (i.bytes == 8) {
      put(w, i.d, d, m);
    } else {
      put(w, i.d, __builtin_convertvector(d, U32), m);
    }
  }
  define(w, i.d, m, good);
  return true;
}
// {operands} = a.
template <int kPart>
bool unpack(Warp& w, const Instruction& i, uint32_t m) {
  const uint32_t* const parts = operands(w, i);
  const U64 a = i.bytes == 8 ? row<U64>(w, i.a) : __builtin_convertvector(row<U32>(w, i.a), U64);
  const uint32_t good = w.defined[i.a];
  for (int n = 0; n < i.count; n++) {
    const U32 part = __builtin_convertvector(a >> static_cast<uint64_t>(8 * kPart * n), U32);
    put(w, parts[n], kPart == 2 ? part & 0xffffu : part, m);
    define(w, parts[n], m, good);
  }
  return true;
}

template <uint64_t kWindow, bool kTo>
bool generic(Warp& w, const Instruction& i, uint32_t m) {
  const U64 a = row<U64>(w, i.a);
  put(w, i.d, kTo ? a - kWindow : a + kWindow, m);
  define(w, i.d, m, w.defined[i.a]);
  return true;
}

}  // namespace

Run convert_run(Type to, Type from, Round round, bool ftz, bool sat) {
  if (to == Type::bf16x2) return from == Type::f32 && round == Round::rn && !sat ? bf16_pair_of_floats : nullptr;
  if (to == Type::bf16) return from == Type::f32 && round == Round::rn && !sat ? bf16_of_float : nullptr;
  if (from == Type::bf16) return to == Type::f32 && round == Round::none && !sat ? float_of_bf16 : nullptr;
  if (is_float(from)) {
    if ((ftz && to != Type::f32 && from != Type::f32) || (sat && !is_float(to))) return nullptr;
    return from == Type::f32 ? from_float<F32>(to, round) : from_float<F64>(to, round);
  }
  if (sat || ftz || round != (is_float(to) ? Round::rn : Round::none)) return nullptr;
  switch (from) {
    case Type::u8: return from_integer<uint8_t>(to);
    case Type::s8: return from_integer<int8_t>(to);
    case Type::u16: return from_integer<uint16_t>(to);
    case Type::s16: return from_integer<int16_t>(to);
    case Type::u32: return from_integer<uint32_t>(to);
    case Type::s32: return from_integer<int32_t>(to);
    case Type::u64: return from_integer<uint64_t>(to);
    case Type::s64: return from_integer<int64_t>(to);
    default: return nullptr;
  }
}

Run tf32_run() { return tf32_of_float; }
Run move_run(Type t) { return bytes_of(t) == 8 ? move<U64> : move<U32>; }
Run pack_run(int part_bytes) { return part_bytes == 4 ? pack<4> : part_bytes == 2 ? pack<2> : nullptr; }
Run unpack_run(int part_bytes) { return part_bytes == 4 ? unpack<4> : part_bytes == 2 ? unpack<2> : nullptr; }

Run generic_run(Space s, bool to) {
  switch (s) {
    case Space::global:
    case Space::constant: return move<U64>;
    case Space::shared: return to ? generic<kSharedWindow, true> : generic<kSharedWindow, false>;
    case Space::local: return to ? generic<kLocalWindow, true> : generic<kLocalWindow, false>;
    default: return nullptr;
  }
}

}  // namespace host::ptx
