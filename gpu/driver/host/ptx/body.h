// The body of an entry: its registers, operands and statements, and how a statement becomes an instruction.
#pragma once
#include <map>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "host/ptx/operations.h"
#include "host/ptx/text.h"

namespace host::ptx {

struct Register {
  Type type;
  uint32_t row;  // predicates: their number
};

struct Operand {
  enum Kind : uint8_t { sink, value, number, symbol, special, vector, address } kind = sink;
  Register reg{};
  bool negated = false;  // !%p
  Literal literal{};
  std::string_view name;       // of a symbol, a label or a special register
  int64_t offset = 0;          // of an address
  std::vector<Operand> parts;  // of a vector; of an address its base; behind d|q: q
};

class Body {
 public:
  Body(Words& words, Module& module, Program& program) : words_(words), module_(module), program_(program) {}
  // Reads from behind the opening brace to the closing one.
  void read();

 private:
  friend void decode(Body& body, std::string_view name);
  // body.cc: declarations and operands.
  void statement();
  void directive(std::string_view name);
  void declare_registers();
  void declare_variable(bool shared);
  void location();
  void branch_table(std::string_view label);
  Operand operand();
  Operand base();
  const Register* find_register(std::string_view name) const;
  uint32_t constant(uint64_t value, bool wide, int symbol = -1);
  uint32_t new_rows(bool wide, uint32_t count);  // values of 64 bits begin at an even row, as their vectors want it
  uint32_t symbol_row(const Operand& o, bool wide);
  uint32_t shared_variable(std::string_view name, bool* external);
  void instruction();
  void finish();

  // What decoders use. The statement under way: opcode, modifiers, operands, instruction.
  [[noreturn]] void refuse(const char* format, ...) __attribute__((format(printf, 2, 3)));
  bool take(std::string_view modifier);
  Type take_type();            // the last modifier that is a type
  void done(size_t operands);  // no modifier is left; there are so many operands
  const Operand& at(size_t n) const { return operands_[n]; }
  uint32_t dest(size_t n, Type t);
  uint32_t source(size_t n, Type t) { return source_of(operands_[n], t); }
  uint32_t source_of(const Operand& o, Type t);
  uint32_t dest_of(const Operand& o, Type t);
  uint32_t dest_predicate(const Operand& o);
  uint32_t predicate(size_t n, bool* negated);
  uint32_t label(std::string_view name);
  void fits(const Register& r, Type t);
  void need(Run run);
  // The type of a register that may be wider than the integer or untyped value t in it, or t.
  Type widened(const Operand& o, Type t) const;
  // Row of the base of address n, whether it has 64 bits, and the offset.
  uint32_t address(size_t n, int64_t* offset, bool* wide);
  // The registers of vector n, appended to Program::operands.
  void vector(size_t n, Type t, bool dest, size_t least, size_t most);
  void touches_shared(uint32_t bytes);
  void emit();

  // decode.cc
  void sources(Type t, size_t count);
  void arithmetic(FloatOp f, IntegerOp k, size_t count);
  void multiply(bool add);
  void fused();
  void special(FloatOp op);
  void division(bool remainder);
  void logic(IntegerOp k, PredicateOp p, size_t count);
  void shift(IntegerOp op);
  void bits(IntegerOp op, size_t count);
  void funnel();
  void setp();
  void selp();
  void mov();
  void cvt();
  void cvta();
  // decode_memory.cc
  void load();
  void store();
  Space space();
  void cache_hints();
  void branch();
  void table();
  void exit();
  void barrier();
  void fence();
  void active_mask();
  void shfl();
  void vote();
  void redux();
  void ldmatrix();
  void mma();
  void cp();

  Words& words_;
  Module& module_;
  Program& program_;
  std::vector<std::unordered_map<std::string_view, Register>> scopes_;
  struct Range {
    Register first;
    uint32_t count;
  };
  std::unordered_map<std::string_view, Range> ranges_;  // by prefix
  std::unordered_map<std::string_view, uint32_t> labels_;
  std::unordered_map<std::string_view, std::vector<std::string_view>> tables_;
  struct Jump {
    uint32_t instruction;
    std::string_view label;
    uint32_t line;
  };
  std::vector<Jump> jumps_;
  std::map<std::tuple<uint64_t, bool, int>, uint32_t> constants_;
  std::map<uint8_t, uint32_t> specials_;
  std::vector<Variable> locals_;
  size_t registers_ = 0;

  uint32_t line_ = 0;
  std::string_view opcode_, name_;
  std::vector<std::string_view> modifiers_;
  std::vector<Operand> operands_;
  Instruction i_;
};

// What the decoders know by name: see decode.cc.
void decode(Body& body, std::string_view name);

Type type_named(std::string_view name);  // none: no type

// flow.cc: finds where the sides of branches meet, and puts an instruction there that waits for them.
void find_meetings(Program& program);

// parse.cc: a declaration behind its state space: [.align n] .type name [count] [= {…}].
Variable read_variable(Words& words, Module& module, bool may_initialize);

}  // namespace host::ptx
