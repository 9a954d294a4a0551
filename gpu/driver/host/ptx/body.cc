#include "host/ptx/body.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

namespace host::ptx {

void Body::refuse(const char* format, ...) {
  char text[300];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  fail(line_, "%.*s: %s", size_of(opcode_), opcode_.data(), text);
}

// --- declarations

void Body::read() {
  program_.rows = 2;  // rows 0 and 1 take what nobody reads
  scopes_.emplace_back();
  for (;;) {
    if (words_.take_mark('}')) {
      scopes_.pop_back();
      if (scopes_.empty()) break;
    } else if (words_.take_mark('{')) {
      if (scopes_.size() == kMostNesting) fail(words_.line(), "blocks nested more than %zu deep", kMostNesting);
      scopes_.emplace_back();
    } else {
      statement();
    }
  }
  finish();
}

void Body::statement() {
  const Word word = words_.peek();
  line_ = word.line;
  if (word.kind == Word::end) fail(word.line, "entry '%s' does not end", program_.name.c_str());
  if (word.kind == Word::name && word.text[0] == '.') {
    words_.take();
    directive(word.text);
    return;
  }
  if (word.kind == Word::mark && word.text == "@") {
    instruction();
    return;
  }
  const std::string_view name = words_.want_name("an instruction");
  if (words_.take_mark(':')) {
    if (words_.peek().text == ".branchtargets") {
      branch_table(name);
    } else if (!labels_.emplace(name, static_cast<uint32_t>(program_.code.size())).second) {
      fail(word.line, "label '%.*s' is there twice", size_of(name), name.data());
    }
    return;
  }
  opcode_ = name;
  instruction();
}

void Body::directive(std::string_view name) {
  if (name == ".reg") {
    declare_registers();
  } else if (name == ".shared" || name == ".local") {
    declare_variable(name == ".shared");
  } else if (name == ".loc") {
    location();
  } else if (name == ".pragma") {
    do {
      if (words_.take().kind != Word::quote) fail(line_, "want a pragma in quotes");
    } while (words_.take_mark(','));
    words_.want_mark(';');
  } else {
    fail(line_, "unsupported directive '%.*s'", size_of(name), name.data());
  }
}

void Body::declare_registers() {
  const std::string_view word = words_.want_name("a type");
  const Type type = word.size() > 1 && word[0] == '.' ? type_named(word.substr(1)) : Type::none;
  if (type == Type::none || bytes_of(type) == 1 || type == Type::bf16x2)
    fail(line_, "no registers of type '%.*s'", size_of(word), word.data());
  do {
    const std::string_view name = words_.want_name("a register");
    uint32_t count = 1;
    const bool range = words_.take_mark('<');
    if (range) {
      count = static_cast<uint32_t>(words_.want_integer("a number of registers", 1, kMostRegisters));
      words_.want_mark('>');
    }
    registers_ += count;
    if (registers_ > kMostRegisters) fail(line_, "more than %zu registers", kMostRegisters);
    Register first{type, 0};
    if (type == Type::pred) {
      first.row = program_.predicates;
      program_.predicates += count;
    } else {
      first.row = new_rows(bytes_of(type) == 8, count);
    }
    const bool fresh = range ? ranges_.emplace(name, Range{first, count}).second : scopes_.back().emplace(name, first).second;
    if (!fresh) fail(line_, "register '%.*s' is declared twice", size_of(name), name.data());
  } while (words_.take_mark(','));
  words_.want_mark(';');
}

void Body::declare_variable(bool shared) {
  if (locals_.size() + program_.shared.size() == kMostVariables) fail(line_, "more than %zu variables", kMostVariables);
  Variable v = read_variable(words_, module_, false);
  if (v.bytes == 0) fail(line_, "'%s' has no size", v.name.c_str());
  for (const Variable& other : shared ? program_.shared : locals_) {
    if (other.name == v.name) fail(line_, "'%s' is declared twice", v.name.c_str());
  }
  v.data.clear();
  if (shared) {
    program_.shared.push_back(std::move(v));
    return;
  }
  program_.local_bytes = (program_.local_bytes + v.align - 1) / v.align * v.align;
  v.at = program_.local_bytes;
  program_.local_bytes += static_cast<uint32_t>(v.bytes);
  if (program_.local_bytes > 512 << 10) fail(line_, "more than 512 KiB of local memory for a thread");
  locals_.push_back(std::move(v));
}

// .loc file line column [, function_name label, inlined_at file line column]
void Body::location() {
  const uint32_t file = static_cast<uint32_t>(words_.want_integer("a file", 0, 1 << 16));
  const uint32_t line = static_cast<uint32_t>(words_.want_integer("a line", 0, INT32_MAX));
  words_.want_integer("a column", 0, INT32_MAX);
  program_.source.push_back({static_cast<uint32_t>(program_.code.size()), file, line});
  while (words_.take_mark(',')) {
    const std::string_view what = words_.want_name("function_name or inlined_at");
    if (what == "function_name") {
      words_.want_name("a label");
      if (words_.take_mark('+')) words_.want_integer("an offset", 0, INT64_MAX);
    } else if (what == "inlined_at") {
      for (int n = 0; n < 3; n++) words_.want_integer("a number", 0, INT32_MAX);
    } else {
      fail(line_, "unsupported '%.*s' of .loc", size_of(what), what.data());
    }
  }
}

void Body::branch_table(std::string_view label) {
  words_.take();
  auto& targets = tables_[label];
  if (!targets.empty()) fail(line_, "label '%.*s' is there twice", size_of(label), label.data());
  do targets.push_back(words_.want_name("a label"));
  while (words_.take_mark(',') && targets.size() < 65536);
  words_.want_mark(';');
}

// --- statements

bool Body::take(std::string_view modifier) {
  for (size_t n = 0; n < modifiers_.size(); n++) {
    if (modifiers_[n] != modifier) continue;
    modifiers_.erase(modifiers_.begin() + static_cast<ptrdiff_t>(n));
    return true;
  }
  return false;
}

Type Body::take_type() {
  for (size_t n = modifiers_.size(); n-- > 0;) {
    const Type t = type_named(modifiers_[n]);
    if (t == Type::none) continue;
    modifiers_.erase(modifiers_.begin() + static_cast<ptrdiff_t>(n));
    return t;
  }
  refuse("no type");
}

void Body::done(size_t operands) {
  if (!modifiers_.empty()) refuse("unsupported '.%.*s'", size_of(modifiers_[0]), modifiers_[0].data());
  if (operands_.size() != operands) refuse("%zu operands, want %zu", operands_.size(), operands);
}

void Body::need(Run run) {
  if (run == nullptr) refuse("unsupported type or mode");
  i_.run = run;
}

void Body::instruction() {
  i_ = Instruction();
  if (words_.take_mark('@')) {
    i_.flip = words_.take_mark('!') ? ~0u : 0;
    const std::string_view name = words_.want_name("a predicate");
    const Register* const r = find_register(name);
    if (r == nullptr || r->type != Type::pred) fail(line_, "'%.*s' is no predicate", size_of(name), name.data());
    i_.guard = r->row;
    opcode_ = words_.want_name("an instruction");
  }
  i_.line = line_;
  operands_.clear();
  if (!words_.take_mark(';')) {
    do {
      operands_.push_back(operand());
      if (operands_.size() > kMostOperands) fail(line_, "more than %zu operands", kMostOperands);
    } while (words_.take_mark(','));
    words_.want_mark(';');
  }
  modifiers_.clear();
  size_t dot = std::min(opcode_.find('.'), opcode_.size());
  name_ = opcode_.substr(0, dot);
  while (dot < opcode_.size()) {
    const size_t next = std::min(opcode_.find('.', dot + 1), opcode_.size());
    modifiers_.push_back(opcode_.substr(dot + 1, next - dot - 1));
    dot = next;
  }
  decode(*this, name_);
}

void Body::emit() {
  if (program_.code.size() >= kMostInstructions) fail(line_, "more than %zu instructions", kMostInstructions);
  program_.code.push_back(i_);
}

void Body::finish() {
  program_.rows = (program_.rows + 1) / 2 * 2;
  // The end of the text ends the lanes too.
  i_ = Instruction();
  i_.line = words_.line();
  i_.flow = Flow::exit;
  i_.cls = Class::control;
  emit();
  for (const Jump& jump : jumps_) {
    Instruction& i = program_.code[jump.instruction];
    auto target = [&](std::string_view name) {
      const auto it = labels_.find(name);
      if (it == labels_.end()) fail(jump.line, "unknown label '%.*s'", size_of(name), name.data());
      return it->second;
    };
    if (i.flow == Flow::branch) {
      i.target = target(jump.label);
      continue;
    }
    const auto table = tables_.find(jump.label);
    if (table == tables_.end()) fail(jump.line, "'%.*s' has no .branchtargets", size_of(jump.label), jump.label.data());
    i.more = static_cast<uint32_t>(program_.operands.size());
    i.target = static_cast<uint32_t>(table->second.size());
    for (const std::string_view name : table->second) program_.operands.push_back(target(name));
  }
  // Places in shared memory: as on the chip, but for a gap behind each variable, which leaves banks and alignment as they are.
  uint32_t gaps = 0;
  for (Variable& v : program_.shared) {
    program_.shared_bytes = (program_.shared_bytes + v.align - 1) / v.align * v.align;
    v.at = program_.shared_bytes + gaps;
    if (program_.shared_bytes + v.bytes > 48 << 10) {
      fail(program_.line, "entry '%s' uses too much shared data (%llu bytes of at most 49152)", program_.name.c_str(),
           static_cast<unsigned long long>(program_.shared_bytes + v.bytes));
    }
    program_.shared_bytes += static_cast<uint32_t>(v.bytes);
    gaps += kSharedGap;
  }
  program_.shared_gaps = gaps;
  for (Constant& c : program_.constants) {
    if (c.symbol > -2) continue;
    c.value += program_.shared[static_cast<size_t>(-2 - c.symbol)].at;
    c.symbol = -1;
  }
  find_meetings(program_);
}

}  // namespace host::ptx
