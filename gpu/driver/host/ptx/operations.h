// The functions that execute instructions, by operation and type; null where the operation has no such type.
#pragma once
#include "host/ptx/program.h"

namespace host::ptx {

enum class FloatOp : uint8_t {
  add,
  sub,
  mul,
  fma,
  neg,
  abs,
  min,
  max,
  copysign,
  div,
  sqrt,
  rcp,
  ex2,
  lg2,
  rsqrt,
  sin,
  cos,
  tanh
};
Run float_run(FloatOp op, Type t, bool ftz);

enum class IntegerOp : uint8_t {
  add,
  sub,
  mul_lo,
  mul_hi,
  mul_wide,
  mad_lo,
  mad_hi,
  mad_wide,
  div,
  rem,
  min,
  max,
  neg,
  abs,
  and_,
  or_,
  xor_,
  not_,
  shl,
  shr,
  clz,
  popc,
  brev,
  bfe,
  bfi,
  prmt,
  lop3,
  funnel_left,
  funnel_right,
  none
};
Run integer_run(IntegerOp op, Type t);
Run bits_run(IntegerOp op, Type t);  // those from clz on

enum class PredicateOp : uint8_t { and_, or_, xor_, not_, mov };
Run predicate_run(PredicateOp op);

enum class Compare : uint8_t { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, num, nan };
// Instruction::mode of setp: how the result combines with predicate c.
enum class Combine : uint8_t { none, and_, or_, xor_ };
Run compare_run(Compare c, Type t, bool ftz);
Run float_compare_run(Compare c, Type t, bool ftz);
Run select_run(Type t);

enum class Round : uint8_t { none, rn, rz, rni, rzi, rmi, rpi };
Run convert_run(Type to, Type from, Round round, bool ftz, bool sat);
Run tf32_run();  // cvt.rna.tf32.f32
Run move_run(Type t);
// mov of a scalar from and to a vector of `count` parts of half or a quarter of its size.
Run pack_run(int part_bytes);
Run unpack_run(int part_bytes);

enum class Space : uint8_t { generic, global, shared, local, param, constant };
Run load_run(Space s);
Run store_run(Space s);
// cvta: a window's address to a generic one and back.
Run generic_run(Space s, bool to);

enum class ShuffleMode : uint8_t { up, down, bfly, idx };
Run shuffle_run(ShuffleMode mode);
enum class VoteMode : uint8_t { all, any, uni, ballot };
Run vote_run(VoteMode mode);
Run active_mask_run();
enum class Reduce : uint8_t { add, min, max, and_, or_, xor_ };
Run redux_run(Reduce op, Type t);
Run warp_sync_run();
Run nothing_run();

Run ldmatrix_run(bool transposed);
enum class Shape : uint8_t { bf16_m16n8k16, bf16_m16n8k8, tf32_m16n8k8, tf32_m16n8k4 };
Run mma_run(Shape s);

Run copy_async_run();
Run commit_run();
Run wait_group_run();  // Instruction::offset groups may be under way; −1: none, those not committed included

}  // namespace host::ptx
