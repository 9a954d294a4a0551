// From statements to instructions: arithmetic, comparison, conversion. Each function names the modifiers that it knows; what is
// left over is refused.
#include "host/ptx/body.h"

namespace host::ptx {

// The operands behind the result, all of one type.
void Body::sources(Type t, size_t count) {
  uint32_t* const rows[] = {&i_.a, &i_.b, &i_.c};
  for (size_t n = 0; n < count; n++) *rows[n] = source(n + 1, t);
}

void Body::arithmetic(FloatOp f, IntegerOp k, size_t count) {
  const Type t = take_type();
  const bool ftz = take("ftz");
  if (is_float(t)) take("rn");
  done(count + 1);
  i_.d = dest(0, t);
  sources(t, count);
  i_.cls = is_float(t) ? Class::floating : Class::integer;
  need(is_float(t) ? float_run(f, t, ftz) : ftz ? nullptr : integer_run(k, t));
  emit();
}

void Body::fused() {
  const Type t = take_type();
  const bool ftz = take("ftz");
  if (!take("rn")) refuse("unsupported rounding");
  done(4);
  i_.d = dest(0, t);
  sources(t, 3);
  i_.cls = Class::fma;
  need(float_run(FloatOp::fma, t, ftz));
  emit();
}

void Body::multiply(bool add) {
  const Type t = take_type();
  if (is_float(t)) {
    modifiers_.push_back(name_of(t));
    return add ? fused() : arithmetic(FloatOp::mul, IntegerOp::mul_lo, 2);
  }
  const bool wide = take("wide"), hi = !wide && take("hi"), lo = !wide && !hi && take("lo");
  if (!wide && !hi && !lo) refuse("want .lo, .hi or .wide");
  if (add && hi) refuse("unsupported '.hi'");
  done(add ? 4 : 3);
  Type twice = t;
  if (wide)
    twice = t == Type::u16   ? Type::u32
            : t == Type::s16 ? Type::s32
            : t == Type::u32 ? Type::u64
            : t == Type::s32 ? Type::s64
                             : Type::none;
  if (twice == Type::none) refuse("unsupported type");
  i_.d = dest(0, twice);
  i_.a = source(1, t);
  i_.b = source(2, t);
  if (add) i_.c = source(3, twice);
  need(integer_run(wide  ? (add ? IntegerOp::mad_wide : IntegerOp::mul_wide)
                   : hi  ? IntegerOp::mul_hi
                   : add ? IntegerOp::mad_lo
                         : IntegerOp::mul_lo,
                   t));
  emit();
}

// sqrt, rcp, rsqrt, ex2, lg2, sin, cos, tanh.
void Body::special(FloatOp op) {
  const Type t = take_type();
  const bool ftz = take("ftz"), exact = (op == FloatOp::sqrt || op == FloatOp::rcp) && take("rn");
  if (!exact && !take("approx")) refuse("unsupported rounding");
  if (!exact && t != Type::f32) refuse("unsupported type");
  done(2);
  i_.d = dest(0, t);
  i_.a = source(1, t);
  i_.cls = Class::special;
  need(float_run(op, t, ftz));
  emit();
}

void Body::division(bool remainder) {
  const Type t = take_type();
  const bool ftz = take("ftz");
  if (is_float(t) && (remainder || !(take("rn") || (t == Type::f32 && (take("approx") || take("full"))))))
    refuse("unsupported rounding");
  done(3);
  i_.d = dest(0, t);
  sources(t, 2);
  i_.cls = Class::special;
  need(is_float(t) ? float_run(FloatOp::div, t, ftz)
       : ftz       ? nullptr
                   : integer_run(remainder ? IntegerOp::rem : IntegerOp::div, t));
  emit();
}

void Body::logic(IntegerOp k, PredicateOp p, size_t count) {
  const Type t = take_type();
  done(count + 1);
  if (t == Type::pred) {
    bool negated_a, negated_b = false;
    i_.d = dest_predicate(at(0));
    i_.a = predicate(1, &negated_a);
    if (count > 1) i_.b = predicate(2, &negated_b);
    if (negated_a || negated_b) refuse("a negated operand");
    need(predicate_run(p));
  } else {
    if (t < Type::b16 || t > Type::b64) refuse("unsupported type");
    i_.d = dest(0, t);
    sources(t, count);
    need(integer_run(k, t));
  }
  emit();
}

void Body::shift(IntegerOp op) {
  const Type t = take_type();
  done(3);
  i_.d = dest(0, t);
  i_.a = source(1, t);
  i_.b = source(2, Type::u32);
  if (op == IntegerOp::shl && (t < Type::b16 || t > Type::b64)) refuse("unsupported type");
  need(integer_run(op, t));
  emit();
}

// clz, popc, brev: one operand; bfe: a value and two amounts; bfi: two values and two amounts; prmt, lop3.
void Body::bits(IntegerOp op, size_t count) {
  const Type t = take_type();
  const bool counts = op == IntegerOp::clz || op == IntegerOp::popc;
  done(count + 1);
  i_.d = dest(0, counts ? Type::u32 : t);
  i_.a = source(1, t);
  if (op == IntegerOp::bfe) {
    i_.b = source(2, Type::u32);
    i_.c = source(3, Type::u32);
  } else if (op == IntegerOp::bfi) {
    i_.b = source(2, t);
    i_.c = source(3, Type::u32);
    i_.e = source(4, Type::u32);
  } else if (count > 1) {
    i_.b = source(2, t);
    i_.c = source(3, t);
  }
  if (op == IntegerOp::lop3) {
    const Operand& table = at(4);
    if (table.kind != Operand::number || table.literal.type != Type::s64 || table.literal.bits > 255)
      refuse("the table is no number up to 255");
    i_.offset = static_cast<int64_t>(table.literal.bits);
  }
  if (t != Type::b32 && (op == IntegerOp::prmt || op == IntegerOp::lop3)) refuse("unsupported type");
  need(integer_run(op, t));
  emit();
}

void Body::funnel() {
  const Type t = take_type();
  const bool left = take("l"), right = !left && take("r"), clamp = take("clamp"), wrap = !clamp && take("wrap");
  if ((!left && !right) || (!clamp && !wrap) || t != Type::b32) refuse("unsupported mode");
  done(4);
  i_.d = dest(0, t);
  i_.a = source(1, t);
  i_.b = source(2, t);
  i_.c = source(3, Type::u32);
  i_.mode = clamp;
  need(integer_run(left ? IntegerOp::funnel_left : IntegerOp::funnel_right, t));
  emit();
}

void Body::setp() {
  static constexpr struct {
    const char* name;
    Compare compare;
    char only;  // u: for unsigned integers
  } kCompares[] = {
      {"eq", Compare::eq, 0},   {"ne", Compare::ne, 0},   {"lt", Compare::lt, 0},   {"le", Compare::le, 0},
      {"gt", Compare::gt, 0},   {"ge", Compare::ge, 0},   {"lo", Compare::lt, 'u'}, {"ls", Compare::le, 'u'},
      {"hi", Compare::gt, 'u'}, {"hs", Compare::ge, 'u'}, {"equ", Compare::equ, 0}, {"neu", Compare::neu, 0},
      {"ltu", Compare::ltu, 0}, {"leu", Compare::leu, 0}, {"gtu", Compare::gtu, 0}, {"geu", Compare::geu, 0},
      {"num", Compare::num, 0}, {"nan", Compare::nan, 0},
  };
  const Type t = take_type();
  const bool ftz = take("ftz");
  i_.mode = static_cast<uint8_t>(take("and")   ? Combine::and_
                                 : take("or")  ? Combine::or_
                                 : take("xor") ? Combine::xor_
                                               : Combine::none);
  for (const auto& c : kCompares) {
    if (!take(c.name)) continue;
    if (c.only == 'u' && (t < Type::u16 || t > Type::u64)) refuse("unsupported type");
    if (t >= Type::b16 && t <= Type::b64 && c.compare > Compare::ne) refuse("untyped values have no order");
    need(ftz && !is_float(t) ? nullptr : compare_run(c.compare, t, ftz));
    break;
  }
  need(i_.run);
  done(i_.mode == 0 ? 3 : 4);
  Operand first = at(0);
  if (!first.parts.empty()) i_.q = dest_predicate(first.parts[0]);
  first.parts.clear();
  i_.d = dest_predicate(first);
  sources(t, 2);
  if (i_.mode != 0) {
    bool negated;
    i_.c = predicate(3, &negated);
    i_.count = negated;
  }
  if (is_float(t)) i_.cls = Class::floating;
  emit();
}

void Body::selp() {
  const Type t = take_type();
  done(4);
  bool negated;
  i_.d = dest(0, t);
  i_.a = source(1, t);
  i_.b = source(2, t);
  i_.c = predicate(3, &negated);
  if (negated) refuse("a negated predicate");
  need(bytes_of(t) >= 2 ? select_run(t) : nullptr);
  emit();
}

void Body::mov() {
  const Type t = take_type();
  done(2);
  i_.cls = Class::move;
  i_.bytes = static_cast<uint8_t>(bytes_of(t));
  if (t == Type::pred) {
    bool negated;
    i_.d = dest_predicate(at(0));
    i_.a = predicate(1, &negated);
    if (negated) refuse("a negated operand");
    need(predicate_run(PredicateOp::mov));
  } else if (at(0).kind == Operand::vector || at(1).kind == Operand::vector) {
    const bool unpacks = at(0).kind == Operand::vector;
    const size_t count = at(unpacks ? 0 : 1).parts.size();
    if ((t != Type::b32 && t != Type::b64) || (count != 2 && count != 4)) refuse("unsupported vector");
    const int part = bytes_of(t) / static_cast<int>(count);
    if (part < 2) refuse("unsupported vector");
    vector(unpacks ? 0 : 1, part == 2 ? Type::b16 : Type::b32, unpacks, count, count);
    if (unpacks) {
      i_.a = source(1, t);
    } else {
      i_.d = dest(0, t);
    }
    need(unpacks ? unpack_run(part) : pack_run(part));
  } else {
    i_.d = dest(0, t);
    i_.a = source(1, t);
    need(bytes_of(t) >= 2 ? move_run(t) : nullptr);
  }
  emit();
}

void Body::cvt() {
  Type from = take_type();
  const bool tf32 = take("tf32");
  const Type to = tf32 ? Type::b32 : take_type();
  const bool ftz = take("ftz"), sat = take("sat");
  if (tf32 && (from != Type::f32 || ftz || sat || !take("rna"))) refuse("unsupported conversion");
  const Round round = take("rn")    ? Round::rn
                      : take("rz")  ? Round::rz
                      : take("rni") ? Round::rni
                      : take("rzi") ? Round::rzi
                      : take("rmi") ? Round::rmi
                      : take("rpi") ? Round::rpi
                                    : Round::none;
  done(to == Type::bf16x2 ? 3 : 2);
  i_.d = dest(0, widened(at(0), to));
  i_.bytes = static_cast<uint8_t>(at(0).kind == Operand::value ? bytes_of(at(0).reg.type) : 4);
  i_.a = source(1, widened(at(1), from));
  i_.count = bytes_of(from) < 8 && bytes_of(widened(at(1), from)) == 8;
  if (to == Type::bf16x2) i_.b = source(2, from);
  i_.mode = static_cast<uint8_t>((ftz ? 1 : 0) | (sat ? 2 : 0));
  i_.cls = Class::conversion;
  need(tf32 ? tf32_run() : convert_run(to, from, round, ftz, sat));
  emit();
}

// cvta.space to generic; cvta.to.space back.
void Body::cvta() {
  const Type t = take_type();
  const bool to = take("to");
  const Space s = space();
  done(2);
  if (t != Type::u64) refuse("unsupported type");
  i_.d = dest(0, t);
  i_.a = source(1, t);
  i_.cls = Class::move;
  need(generic_run(s, !to));
  emit();
}

void decode(Body& b, std::string_view name) {
  typedef void (*Decoder)(Body&);
  static const std::unordered_map<std::string_view, Decoder> decoders = {
      {"add", [](Body& b) { b.arithmetic(FloatOp::add, IntegerOp::add, 2); }},
      {"sub", [](Body& b) { b.arithmetic(FloatOp::sub, IntegerOp::sub, 2); }},
      {"min", [](Body& b) { b.arithmetic(FloatOp::min, IntegerOp::min, 2); }},
      {"max", [](Body& b) { b.arithmetic(FloatOp::max, IntegerOp::max, 2); }},
      {"neg", [](Body& b) { b.arithmetic(FloatOp::neg, IntegerOp::neg, 1); }},
      {"abs", [](Body& b) { b.arithmetic(FloatOp::abs, IntegerOp::abs, 1); }},
      {"copysign", [](Body& b) { b.arithmetic(FloatOp::copysign, IntegerOp::none, 2); }},
      {"mul", [](Body& b) { b.multiply(false); }},
      {"mad", [](Body& b) { b.multiply(true); }},
      {"fma", [](Body& b) { b.fused(); }},
      {"div", [](Body& b) { b.division(false); }},
      {"rem", [](Body& b) { b.division(true); }},
      {"sqrt", [](Body& b) { b.special(FloatOp::sqrt); }},
      {"rcp", [](Body& b) { b.special(FloatOp::rcp); }},
      {"rsqrt", [](Body& b) { b.special(FloatOp::rsqrt); }},
      {"ex2", [](Body& b) { b.special(FloatOp::ex2); }},
      {"lg2", [](Body& b) { b.special(FloatOp::lg2); }},
      {"sin", [](Body& b) { b.special(FloatOp::sin); }},
      {"cos", [](Body& b) { b.special(FloatOp::cos); }},
      {"tanh", [](Body& b) { b.special(FloatOp::tanh); }},
      {"and", [](Body& b) { b.logic(IntegerOp::and_, PredicateOp::and_, 2); }},
      {"or", [](Body& b) { b.logic(IntegerOp::or_, PredicateOp::or_, 2); }},
      {"xor", [](Body& b) { b.logic(IntegerOp::xor_, PredicateOp::xor_, 2); }},
      {"not", [](Body& b) { b.logic(IntegerOp::not_, PredicateOp::not_, 1); }},
      {"shl", [](Body& b) { b.shift(IntegerOp::shl); }},
      {"shr", [](Body& b) { b.shift(IntegerOp::shr); }},
      {"shf", [](Body& b) { b.funnel(); }},
      {"clz", [](Body& b) { b.bits(IntegerOp::clz, 1); }},
      {"popc", [](Body& b) { b.bits(IntegerOp::popc, 1); }},
      {"brev", [](Body& b) { b.bits(IntegerOp::brev, 1); }},
      {"bfe", [](Body& b) { b.bits(IntegerOp::bfe, 3); }},
      {"bfi", [](Body& b) { b.bits(IntegerOp::bfi, 4); }},
      {"prmt", [](Body& b) { b.bits(IntegerOp::prmt, 3); }},
      {"lop3", [](Body& b) { b.bits(IntegerOp::lop3, 4); }},
      {"setp", [](Body& b) { b.setp(); }},
      {"selp", [](Body& b) { b.selp(); }},
      {"mov", [](Body& b) { b.mov(); }},
      {"cvt", [](Body& b) { b.cvt(); }},
      {"cvta", [](Body& b) { b.cvta(); }},
      {"ld", [](Body& b) { b.load(); }},
      {"st", [](Body& b) { b.store(); }},
      {"bra", [](Body& b) { b.branch(); }},
      {"brx", [](Body& b) { b.table(); }},
      {"ret", [](Body& b) { b.exit(); }},
      {"exit", [](Body& b) { b.exit(); }},
      {"trap", [](Body& b) { b.exit(); }},
      {"bar", [](Body& b) { b.barrier(); }},
      {"barrier", [](Body& b) { b.barrier(); }},
      {"membar", [](Body& b) { b.fence(); }},
      {"fence", [](Body& b) { b.fence(); }},
      {"shfl", [](Body& b) { b.shfl(); }},
      {"vote", [](Body& b) { b.vote(); }},
      {"activemask", [](Body& b) { b.active_mask(); }},
      {"redux", [](Body& b) { b.redux(); }},
      {"ldmatrix", [](Body& b) { b.ldmatrix(); }},
      {"mma", [](Body& b) { b.mma(); }},
      {"cp", [](Body& b) { b.cp(); }},
  };
  const auto it = decoders.find(name);
  if (it == decoders.end()) b.refuse("unsupported instruction");
  it->second(b);
}

}  // namespace host::ptx
