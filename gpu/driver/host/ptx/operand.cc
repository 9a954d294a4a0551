// Operands: registers, literals, symbols, vectors and addresses, and the rows that stand for them.
#include <string.h>

#include "host/ptx/body.h"

namespace host::ptx {

namespace {

constexpr struct {
  const char* name;
  Special which;
} kSpecials[] = {
    {"%tid.x", Special::tid_x},
    {"%tid.y", Special::tid_y},
    {"%tid.z", Special::tid_z},
    {"%ntid.x", Special::ntid_x},
    {"%ntid.y", Special::ntid_y},
    {"%ntid.z", Special::ntid_z},
    {"%ctaid.x", Special::ctaid_x},
    {"%ctaid.y", Special::ctaid_y},
    {"%ctaid.z", Special::ctaid_z},
    {"%nctaid.x", Special::nctaid_x},
    {"%nctaid.y", Special::nctaid_y},
    {"%nctaid.z", Special::nctaid_z},
    {"%laneid", Special::laneid},
    {"%warpid", Special::warpid},
    {"%nwarpid", Special::nwarpid},
    {"%lanemask_eq", Special::lanemask_eq},
    {"%lanemask_lt", Special::lanemask_lt},
    {"%lanemask_le", Special::lanemask_le},
    {"%lanemask_gt", Special::lanemask_gt},
    {"%lanemask_ge", Special::lanemask_ge},
};

}  // namespace

const Register* Body::find_register(std::string_view name) const {
  static thread_local Register found;
  for (size_t n = scopes_.size(); n-- > 0;) {
    const auto it = scopes_[n].find(name);
    if (it != scopes_[n].end()) return &it->second;
  }
  size_t digits = name.size();
  while (digits > 0 && isdigit(static_cast<unsigned char>(name[digits - 1]))) digits--;
  if (digits == name.size() || name.size() - digits > 7 || (name[digits] == '0' && name.size() - digits > 1)) return nullptr;
  const auto it = ranges_.find(name.substr(0, digits));
  if (it == ranges_.end()) return nullptr;
  uint32_t number = 0;
  for (size_t n = digits; n < name.size(); n++) number = number * 10 + static_cast<uint32_t>(name[n] - '0');
  if (number >= it->second.count) return nullptr;
  found = it->second.first;
  found.row += number * (found.type != Type::pred && bytes_of(found.type) == 8 ? 2 : 1);
  return &found;
}

// A register, a literal, a symbol, a special register or _.
Operand Body::base() {
  Operand o;
  const bool negative = words_.take_mark('-');
  o.negated = !negative && words_.take_mark('!');
  const Word word = words_.take();
  if (word.kind == Word::number) {
    if (!read_literal(word.text, &o.literal)) fail(word.line, "'%.*s' is no number", size_of(word.text), word.text.data());
    o.kind = Operand::number;
    if (negative) {
      if (o.literal.type == Type::s64) o.literal.bits = 0 - o.literal.bits;
      if (is_float(o.literal.type)) o.literal.bits ^= o.literal.type == Type::f32 ? 1ull << 31 : 1ull << 63;
    }
    return o;
  }
  if (word.kind != Word::name || negative) fail(word.line, "want an operand, have '%.*s'", size_of(word.text), word.text.data());
  o.name = word.text;
  if (o.name == "_") return o;
  if (const Register* const r = find_register(o.name)) {
    o.kind = Operand::value;
    o.reg = *r;
  } else if (o.name[0] == '%') {
    o.kind = Operand::special;
  } else {
    o.kind = Operand::symbol;
  }
  return o;
}

Operand Body::operand() {
  Operand o;
  if (words_.take_mark('{')) {
    o.kind = Operand::vector;
    do {
      o.parts.push_back(base());
      if (o.parts.size() > kMostOperands) fail(line_, "a vector of more than %zu values", kMostOperands);
    } while (words_.take_mark(','));
    words_.want_mark('}');
    return o;
  }
  if (words_.take_mark('[')) {
    o.kind = Operand::address;
    o.parts.push_back(base());
    while (!words_.take_mark(']')) {
      const bool minus = words_.peek().text == "-";
      if (!minus) words_.want_mark('+');
      o.offset += words_.want_integer("an offset", -(1ll << 40), 1ll << 40);
      if (o.offset < -(1ll << 40) || o.offset > 1ll << 40) fail(line_, "an offset beyond 40 bits");
    }
    return o;
  }
  o = base();
  if (words_.take_mark('|')) o.parts.push_back(base());
  if (o.kind == Operand::symbol && words_.take_mark('+')) o.offset = words_.want_integer("an offset", 0, 1 << 30);
  return o;
}

uint32_t Body::new_rows(bool wide, uint32_t count) {
  if (wide) program_.rows = (program_.rows + 1) / 2 * 2;
  const uint32_t r = program_.rows;
  program_.rows += count * (wide ? 2 : 1);
  return r;
}

// A row with a value in every lane.
uint32_t Body::constant(uint64_t value, bool wide, int symbol) {
  const auto [it, fresh] = constants_.try_emplace({value, wide, symbol}, 0);
  if (fresh) {
    it->second = new_rows(wide, 1);
    program_.constants.push_back({it->second, value, wide, symbol});
  }
  return it->second;
}

// The index in Program::shared, where a variable of the module comes when it is first used.
uint32_t Body::shared_variable(std::string_view name, bool* external) {
  *external = false;
  for (size_t n = 0; n < program_.shared.size(); n++) {
    if (program_.shared[n].name == name) return static_cast<uint32_t>(n);
  }
  for (const Variable& v : module_.variables) {
    if (v.name != name || !v.shared) continue;
    if (v.external) {
      *external = true;
      program_.dynamic_shared = true;
      program_.dynamic_align = std::max(program_.dynamic_align, v.align);
      return 0;
    }
    program_.shared.push_back(v);
    program_.shared.back().data.clear();
    return static_cast<uint32_t>(program_.shared.size() - 1);
  }
  return kNowhere;
}

// The address of a variable in its space: shared and local ones from 0, others where the driver will put them.
uint32_t Body::symbol_row(const Operand& o, bool wide) {
  bool external;
  const uint32_t n = shared_variable(o.name, &external);
  if (external) {
    if (o.offset != 0) refuse("an offset from dynamic shared memory");
    const auto [it, fresh] = specials_.try_emplace(static_cast<uint8_t>(wide ? 200 : 201), 0);
    if (fresh) {
      it->second = new_rows(wide, 1);
      program_.specials.push_back({it->second, Special::dynamic_shared, wide});
    }
    return it->second;
  }
  // Where it lies is known when all are: −2 − n stands for variable n of the program.
  if (n != kNowhere) return constant(static_cast<uint64_t>(o.offset), wide, -2 - static_cast<int>(n));
  for (const Variable& v : locals_) {
    if (v.name == o.name) return constant(v.at + static_cast<uint64_t>(o.offset), wide);
  }
  for (size_t m = 0; m < module_.variables.size(); m++) {
    if (module_.variables[m].name != o.name) continue;
    if (!wide) refuse("the address of '%.*s' has 64 bits", size_of(o.name), o.name.data());
    module_.variables[m].used = true;
    return constant(static_cast<uint64_t>(o.offset), true, static_cast<int>(m));
  }
  refuse("unknown symbol '%.*s'", size_of(o.name), o.name.data());
}

// A register suits a type of its size; one is not both an integer and a float.
void Body::fits(const Register& r, Type t) {
  const bool untyped = r.type >= Type::b8 && r.type <= Type::b64;
  const bool bits = (t >= Type::b8 && t <= Type::b64) || t == Type::bf16 || t == Type::bf16x2;
  if (r.type == Type::pred) refuse("a predicate where .%s is due", name_of(t));
  if (bytes_of(r.type) != bytes_of(t)) refuse("a register of %d bits where .%s is due", 8 * bytes_of(r.type), name_of(t));
  if (!untyped && !bits && is_float(r.type) != is_float(t))
    refuse("a register of .%s where .%s is due", name_of(r.type), name_of(t));
}

Type Body::widened(const Operand& o, Type t) const {
  const Operand& first = o.kind == Operand::vector && !o.parts.empty() ? o.parts[0] : o;
  const bool integer = t >= Type::b8 && t <= Type::s64;
  if (first.kind != Operand::value || !integer) return bytes_of(t) == 1 ? Type::b32 : t;
  const int bytes = bytes_of(first.reg.type);
  return bytes <= bytes_of(t) ? t : bytes == 2 ? Type::b16 : bytes == 4 ? Type::b32 : Type::b64;
}

uint32_t Body::dest_of(const Operand& o, Type t) {
  if (o.kind == Operand::sink) return 0;
  if (o.kind != Operand::value || o.negated || !o.parts.empty()) refuse("the result needs a register");
  fits(o.reg, t);
  return o.reg.row;
}
uint32_t Body::dest(size_t n, Type t) { return dest_of(operands_[n], t); }

uint32_t Body::dest_predicate(const Operand& o) {
  if (o.kind == Operand::sink) return 0;
  if (o.kind != Operand::value || o.reg.type != Type::pred || o.negated) refuse("the result needs a predicate");
  return o.reg.row;
}

uint32_t Body::predicate(size_t n, bool* negated) {
  const Operand& o = operands_[n];
  if (o.kind == Operand::number && o.literal.type == Type::s64) {  // true or false
    *negated = false;
    return o.literal.bits == 0 ? 1 : 0;
  }
  if (o.kind != Operand::value || o.reg.type != Type::pred) refuse("operand %zu is no predicate", n + 1);
  *negated = o.negated;
  return o.reg.row;
}

uint32_t Body::source_of(const Operand& o, Type t) {
  const bool wide = bytes_of(t) == 8;
  if (o.negated || !o.parts.empty()) refuse("an operand that is no value");
  switch (o.kind) {
    case Operand::value: fits(o.reg, t); return o.reg.row;
    case Operand::number: {
      uint64_t bits = o.literal.bits;
      if (o.literal.type == Type::s64) {
        if (is_float(t)) refuse("an integer where .%s is due", name_of(t));
        const int size = 8 * bytes_of(t);
        if (size < 64) {
          const int64_t value = static_cast<int64_t>(bits);
          if (value >= 1ll << size || value < -(1ll << (size - 1)))
            refuse("%lld does not fit .%s", static_cast<long long>(value), name_of(t));
          bits &= (1ull << size) - 1;
        }
      } else if (t == Type::f32 && o.literal.type == Type::f64) {
        const float value = static_cast<float>(__builtin_bit_cast(double, bits));
        bits = __builtin_bit_cast(uint32_t, value);
      } else if (bytes_of(o.literal.type) != bytes_of(t) || is_signed(t) || (t >= Type::u8 && t <= Type::u64)) {
        refuse("a literal of .%s where .%s is due", name_of(o.literal.type), name_of(t));
      }
      return constant(bits, wide);
    }
    case Operand::special: {
      for (const auto& s : kSpecials) {
        if (o.name != s.name) continue;
        if (bytes_of(t) != 4 || is_float(t)) refuse("%s where .%s is due", s.name, name_of(t));
        const auto [it, fresh] = specials_.try_emplace(static_cast<uint8_t>(s.which), 0);
        if (fresh) {
          it->second = new_rows(false, 1);
          program_.specials.push_back({it->second, s.which, false});
        }
        return it->second;
      }
      refuse("unknown register '%.*s'", size_of(o.name), o.name.data());
    }
    case Operand::symbol:
      if (bytes_of(t) < 4 || is_float(t)) refuse("an address where .%s is due", name_of(t));
      return symbol_row(o, wide);
    default: refuse("an operand that is no value");
  }
}

}  // namespace host::ptx
