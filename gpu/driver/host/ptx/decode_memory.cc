// From statements to instructions: memory, control, and what lanes do together.
#include "host/ptx/body.h"
#include "host/ptx/memory.h"

namespace host::ptx {

uint32_t Body::address(size_t n, int64_t* offset, bool* wide) {
  if (n >= operands_.size() || operands_[n].kind != Operand::address) refuse("operand %zu is no address", n + 1);
  const Operand& o = operands_[n];
  const Operand& base = o.parts[0];
  *offset = o.offset;
  *wide = base.kind != Operand::value || bytes_of(base.reg.type) == 8;
  if (base.kind == Operand::value && (base.reg.type == Type::pred || is_float(base.reg.type) || bytes_of(base.reg.type) < 4))
    refuse("an address in a register of .%s", name_of(base.reg.type));
  return source_of(base, *wide ? Type::b64 : Type::b32);
}

void Body::vector(size_t n, Type t, bool dest, size_t least, size_t most) {
  const Operand& o = operands_[n];
  if (o.kind != Operand::vector || o.parts.size() < least || o.parts.size() > most) {
    if (least == most) refuse("operand %zu is no vector of %zu registers", n + 1, least);
    refuse("operand %zu is no vector of %zu to %zu registers", n + 1, least, most);
  }
  if (i_.count == 0) {
    i_.more = static_cast<uint32_t>(program_.operands.size());
    i_.count = static_cast<uint8_t>(o.parts.size());
  }
  for (const Operand& part : o.parts) {
    const uint32_t r = dest ? dest_of(part, t) : source_of(part, t);
    program_.operands.push_back(r);
  }
}

Space Body::space() {
  return take("global")        ? Space::global
         : take("shared")      ? Space::shared
         : take("shared::cta") ? Space::shared
         : take("local")       ? Space::local
         : take("param")       ? Space::param
         : take("const")       ? Space::constant
                               : Space::generic;
}

// What changes caching only.
void Body::cache_hints() {
  for (const char* hint : {"volatile", "weak", "nc", "ca", "cg", "cs", "cv", "lu", "wb", "wt", "L1::evict_last",
                           "L1::no_allocate", "L1::evict_first", "L2::64B", "L2::128B", "L2::256B"})
    take(hint);
}

void Body::touches_shared(uint32_t bytes) { program_.shared_granule = std::min(program_.shared_granule, bytes); }

void Body::load() {
  const Type t = take_type();
  const Space s = space();
  cache_hints();
  const int vector_size = take("v2") ? 2 : take("v4") ? 4 : 1;
  done(2);
  if (bytes_of(t) == 0 || bytes_of(t) * vector_size > 16) refuse("unsupported type");
  const Type in = widened(at(0), t);
  if (vector_size > 1) {
    vector(0, in, true, static_cast<size_t>(vector_size), static_cast<size_t>(vector_size));
  } else {
    i_.d = dest(0, in);
    i_.count = 1;
  }
  i_.bytes = static_cast<uint8_t>(bytes_of(t));
  i_.mode = static_cast<uint8_t>((is_signed(t) ? kSignExtend : 0) | (in == Type::b16   ? kHalfRegister
                                                                     : in == Type::b64 ? kWideRegister
                                                                                       : 0));
  need(load_run(s));
  const uint32_t bytes = static_cast<uint32_t>(bytes_of(t) * vector_size);
  if (s == Space::param) {
    i_.cls = Class::move;
    const Operand& o = at(1);
    if (o.kind != Operand::address || o.parts[0].kind != Operand::symbol) refuse("want a parameter");
    const Param* param = nullptr;
    for (const Param& p : program_.params) param = p.name == o.parts[0].name ? &p : param;
    if (param == nullptr) refuse("unknown parameter '%.*s'", size_of(o.parts[0].name), o.parts[0].name.data());
    i_.offset = static_cast<int64_t>(param->offset) + o.offset;
    if (o.offset < 0 || i_.offset + bytes > program_.param_bytes || i_.offset % bytes != 0)
      refuse("an address beyond the parameters");
  } else {
    bool wide;
    i_.a = address(1, &i_.offset, &wide);
    if (wide) i_.mode |= kWideAddress;
    if (!wide && (s == Space::global || s == Space::generic || s == Space::constant)) refuse("an address of 32 bits");
    i_.cls = s == Space::shared ? Class::shared_load : Class::global_load;
    if (s == Space::shared || s == Space::generic) touches_shared(bytes);
  }
  emit();
}

void Body::store() {
  const Type t = take_type();
  const Space s = space();
  cache_hints();
  const int vector_size = take("v2") ? 2 : take("v4") ? 4 : 1;
  done(2);
  if (bytes_of(t) == 0 || bytes_of(t) * vector_size > 16) refuse("unsupported type");
  const Type in = widened(at(1), t);
  if (vector_size > 1) {
    vector(1, in, false, static_cast<size_t>(vector_size), static_cast<size_t>(vector_size));
  } else {
    i_.d = source(1, in);
    i_.count = 1;
  }
  i_.bytes = static_cast<uint8_t>(bytes_of(t));
  i_.mode = in == Type::b64 ? kWideRegister : 0;
  need(store_run(s));
  bool wide;
  i_.a = address(0, &i_.offset, &wide);
  if (wide) i_.mode |= kWideAddress;
  if (!wide && (s == Space::global || s == Space::generic)) refuse("an address of 32 bits");
  i_.cls = s == Space::shared ? Class::shared_store : Class::global_store;
  if (s == Space::shared || s == Space::generic) touches_shared(static_cast<uint32_t>(bytes_of(t) * vector_size));
  emit();
}

void Body::branch() {
  i_.uniform = take("uni");
  done(1);
  if (at(0).kind != Operand::symbol) refuse("want a label");
  jumps_.push_back({static_cast<uint32_t>(program_.code.size()), at(0).name, line_});
  i_.flow = Flow::branch;
  i_.cls = Class::control;
  emit();
}

// brx.idx a, table.
void Body::table() {
  if (!take("idx")) refuse("want .idx");
  i_.uniform = take("uni");
  done(2);
  if (at(1).kind != Operand::symbol) refuse("want the label of a table");
  i_.a = source(0, Type::u32);
  jumps_.push_back({static_cast<uint32_t>(program_.code.size()), at(1).name, line_});
  i_.flow = Flow::table;
  i_.cls = Class::control;
  emit();
}

void Body::exit() {
  take("uni");
  done(0);
  i_.flow = name_ == "trap" ? Flow::trap : Flow::exit;
  i_.cls = Class::control;
  emit();
}

// bar.sync 0 for the whole block, bar.warp.sync for a warp.
void Body::barrier() {
  i_.cls = Class::barrier;
  if (take("warp")) {
    if (!take("sync")) refuse("want .sync");
    done(1);
    i_.a = source(0, Type::u32);
    need(warp_sync_run());
  } else {
    take("cta");
    if (!take("sync")) refuse("unsupported barrier");
    take("aligned");
    done(1);
    if (at(0).kind != Operand::number || at(0).literal.type != Type::s64 || at(0).literal.bits > 15)
      refuse("want the number of a barrier");
    if (at(0).literal.bits != 0) refuse("only barrier 0 is supported");
    i_.flow = Flow::barrier;
  }
  emit();
}

// Blocks do not communicate within a launch, and a warp's accesses are in order: nothing to do.
void Body::fence() {
  const bool scope = take("cta") || take("gl") || take("gpu") || take("sys");
  take("sc");
  take("acq_rel");
  if (!scope) refuse("want a scope");
  done(0);
  i_.cls = Class::barrier;
  need(nothing_run());
  emit();
}

void Body::shfl() {
  const Type t = take_type();
  if (!take("sync")) refuse("want .sync");
  const ShuffleMode mode = take("up")     ? ShuffleMode::up
                           : take("down") ? ShuffleMode::down
                           : take("bfly") ? ShuffleMode::bfly
                                          : ShuffleMode::idx;
  if (mode == ShuffleMode::idx && !take("idx")) refuse("want .up, .down, .bfly or .idx");
  done(5);
  if (t != Type::b32) refuse("unsupported type");
  Operand first = at(0);
  if (!first.parts.empty()) i_.q = dest_predicate(first.parts[0]);
  first.parts.clear();
  i_.d = dest_of(first, t);
  i_.a = source(1, t);
  i_.b = source(2, Type::b32);
  i_.c = source(3, Type::b32);
  i_.e = source(4, Type::b32);
  i_.cls = Class::warp;
  need(shuffle_run(mode));
  emit();
}

void Body::vote() {
  const Type t = take_type();
  if (!take("sync")) refuse("want .sync");
  const VoteMode mode = take("all")   ? VoteMode::all
                        : take("any") ? VoteMode::any
                        : take("uni") ? VoteMode::uni
                                      : VoteMode::ballot;
  if (mode == VoteMode::ballot && !take("ballot")) refuse("want .all, .any, .uni or .ballot");
  done(3);
  if (t != (mode == VoteMode::ballot ? Type::b32 : Type::pred)) refuse("unsupported type");
  i_.d = mode == VoteMode::ballot ? dest(0, t) : dest_predicate(at(0));
  bool negated;
  i_.a = predicate(1, &negated);
  i_.mode = negated;
  i_.b = source(2, Type::b32);
  i_.cls = Class::warp;
  need(vote_run(mode));
  emit();
}

void Body::active_mask() {
  const Type t = take_type();
  done(1);
  if (t != Type::b32) refuse("unsupported type");
  i_.d = dest(0, t);
  i_.cls = Class::warp;
  need(active_mask_run());
  emit();
}

void Body::redux() {
  const Type t = take_type();
  if (!take("sync")) refuse("want .sync");
  const Reduce op = take("add")   ? Reduce::add
                    : take("min") ? Reduce::min
                    : take("max") ? Reduce::max
                    : take("and") ? Reduce::and_
                    : take("or")  ? Reduce::or_
                                  : Reduce::xor_;
  if (op == Reduce::xor_ && !take("xor")) refuse("unsupported operation");
  done(3);
  i_.d = dest(0, t);
  i_.a = source(1, t);
  i_.b = source(2, Type::b32);
  i_.cls = Class::warp;
  need(redux_run(op, t));
  emit();
}

// ldmatrix.sync.aligned.m8n8.xN[.trans].shared.b16 {…}, [a].
void Body::ldmatrix() {
  const Type t = take_type();
  const bool known = take("sync") && take("aligned") && take("m8n8");
  const Space s = space();
  const size_t count = take("x1") ? 1 : take("x2") ? 2 : take("x4") ? 4 : 0;
  const bool transposed = take("trans");
  done(2);
  if (!known || s != Space::shared || count == 0 || t != Type::b16) refuse("unsupported form");
  vector(0, Type::b32, true, count, count);
  if (count == 1) i_.d = program_.operands[i_.more];
  bool wide;
  i_.a = address(1, &i_.offset, &wide);
  i_.mode = wide ? kWideAddress : 0;
  i_.cls = Class::ldmatrix;
  need(ldmatrix_run(transposed));
  emit();
}

// mma.sync.aligned.shape.row.col.f32.type.type.f32 d, a, b, c.
void Body::mma() {
  const bool known = take("sync") && take("aligned") && take("row") && take("col") && take("f32") && take("f32");
  Shape shape;
  size_t a, b;
  const bool bf16 = take("bf16") && take("bf16"), tf32 = !bf16 && take("tf32") && take("tf32");
  if (bf16 && take("m16n8k16")) {
    shape = Shape::bf16_m16n8k16, a = 4, b = 2;
  } else if (bf16 && take("m16n8k8")) {
    shape = Shape::bf16_m16n8k8, a = 2, b = 1;
  } else if (tf32 && take("m16n8k8")) {
    shape = Shape::tf32_m16n8k8, a = 4, b = 2;
  } else if (tf32 && take("m16n8k4")) {
    shape = Shape::tf32_m16n8k4, a = 2, b = 1;
  } else {
    refuse("unsupported shape or type");
  }
  done(4);
  if (!known) refuse("unsupported form");
  vector(0, Type::f32, true, 4, 4);
  vector(1, Type::b32, false, a, a);
  vector(2, Type::b32, false, b, b);
  vector(3, Type::f32, false, 4, 4);
  i_.cls = Class::mma;
  need(mma_run(shape));
  emit();
}

// cp.async.ca|cg.shared.global [a], [b], bytes[, source bytes]; cp.async.commit_group, wait_group n, wait_all.
void Body::cp() {
  if (!take("async")) refuse("want .async");
  i_.cls = Class::async;
  if (take("commit_group")) {
    done(0);
    need(commit_run());
  } else if (const bool all = take("wait_all"); all || take("wait_group")) {
    done(all ? 0 : 1);
    i_.offset = -1;
    if (!all) {
      if (at(0).kind != Operand::number || at(0).literal.type != Type::s64 || at(0).literal.bits > 1 << 20)
        refuse("want a number of groups");
      i_.offset = static_cast<int64_t>(at(0).literal.bits);
    }
    need(wait_group_run());
  } else {
    const bool cg = take("cg"), ca = !cg && take("ca");
    const bool spaces = (take("shared") || take("shared::cta")) && take("global");
    cache_hints();
    if (!spaces || (!cg && !ca)) refuse("unsupported form");
    done(operands_.size() == 4 ? 4 : 3);
    const Operand& size = at(2);
    const uint64_t bytes = size.kind == Operand::number && size.literal.type == Type::s64 ? size.literal.bits : 0;
    if (bytes != 16 && (cg || (bytes != 4 && bytes != 8))) refuse("unsupported size");
    bool wide;
    i_.a = address(0, &i_.offset, &wide);
    i_.mode = wide ? kWideAddress : 0;
    int64_t offset;
    i_.b = address(1, &offset, &wide);
    if (!wide) refuse("an address of 32 bits");
    if (offset < INT32_MIN || offset > INT32_MAX) refuse("an offset beyond 32 bits");
    i_.target = static_cast<uint32_t>(offset);
    i_.bytes = static_cast<uint8_t>(bytes);
    if (operands_.size() == 4) i_.c = source(3, Type::u32);
    touches_shared(static_cast<uint32_t>(bytes));
    need(copy_async_run());
  }
  emit();
}

}  // namespace host::ptx
