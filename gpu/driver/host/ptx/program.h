// PTX text as the executor runs it: a module of variables and programs, a program for each entry, an instruction for each of
// its statements.
//
// A register is a row of 32 lanes in a warp's register file: 128 bytes, 256 where its type has 64 bits. Beside each row lies a
// mask of the lanes that hold a defined value. Predicates are masks themselves. Immediates, special registers and addresses
// have rows of their own, filled once, so that every operand of an instruction is a row.
#pragma once
#include <stdint.h>

#include <string>
#include <string_view>
#include <vector>

#include "host/kernel_abi.h"

namespace host::ptx {

// A fundamental type of the PTX ISA (section 5.2), and the alternate formats of 9.7.
enum class Type : uint8_t { none, pred, b8, b16, b32, b64, u8, u16, u32, u64, s8, s16, s32, s64, bf16, bf16x2, f32, f64 };
int bytes_of(Type t);
bool is_float(Type t);   // f32, f64
bool is_signed(Type t);  // s8 … s64
const char* name_of(Type t);

// What the counters count an instruction as.
enum class Class : uint8_t {
  fma,
  floating,  // other float arithmetic
  integer,
  move,  // mov, selp, ld.param: most of them vanish in ptxas
  conversion,
  special,  // approximations, square roots, divisions
  control,
  global_load,
  global_store,
  shared_load,
  shared_store,
  ldmatrix,
  mma,
  async,  // cp.async and its groups
  warp,   // shuffles and votes
  barrier,
};
constexpr int kClasses = 16;
const char* name_of(Class c);

struct Warp;
struct Instruction;
// Executes an instruction for the lanes of `mask`, which is not empty. False: a fault, which the warp describes.
typedef bool (*Run)(Warp& warp, const Instruction& i, uint32_t mask);

// How the interpreter's loop treats an instruction: plain ones are calls of `run`.
enum class Flow : uint8_t { plain, branch, table, exit, barrier, meet, trap };

struct Instruction {
  Run run = nullptr;
  uint32_t d = 0, a = 0, b = 0, c = 0, e = 0;  // rows of the register file, or predicates
  uint32_t q = 0;                              // a predicate that is written beside d; 0: none
  int64_t offset = 0;                          // of an address
  uint32_t guard = 0;                          // predicate; 0 is always true
  uint32_t flip = 0;                           // all bits set where the guard is negated
  uint32_t more = 0;                           // first of further operands: Program::operands
  uint32_t target = 0;                         // of a branch
  uint32_t meet = 0;                           // where the sides of a branch meet again
  uint32_t line = 0;                           // of the PTX text
  uint8_t count = 0;                           // values of a vector, matrices of ldmatrix, lines of a table
  uint8_t bytes = 0;                           // of one value in memory
  uint8_t mode = 0;                            // what else the instruction says
  Flow flow = Flow::plain;
  Class cls = Class::integer;
  bool uniform = false;  // bra.uni
};

constexpr uint32_t kNowhere = ~0u;  // Instruction::meet where only the ends of the lanes meet

enum class Special : uint8_t {
  tid_x,
  tid_y,
  tid_z,
  ntid_x,
  ntid_y,
  ntid_z,
  ctaid_x,
  ctaid_y,
  ctaid_z,
  nctaid_x,
  nctaid_y,
  nctaid_z,
  laneid,
  warpid,
  nwarpid,
  lanemask_eq,
  lanemask_lt,
  lanemask_le,
  lanemask_gt,
  lanemask_ge,
  dynamic_shared,  // where the launch's dynamic shared memory begins
};

// A row that is filled before the program starts.
struct Constant {
  uint32_t row;
  uint64_t value;
  bool wide;       // 64 bits
  int32_t symbol;  // Module::variables whose address is added, or −1
};
struct SpecialRow {
  uint32_t row;
  Special which;
  bool wide;  // 64 bits
};

struct Param {
  std::string name;
  Type type;
  uint32_t offset;  // in the parameter space
};

// A variable of the module, or a shared or local one.
struct Variable {
  std::string name;
  uint64_t bytes = 0;
  uint32_t align = 1;
  uint64_t at = 0;        // shared, local: its address
  bool external = false;  // extern .shared: begins where the dynamic shared memory does
  std::string data;       // initial bytes of .global and .const
  uintptr_t memory = 0;   // where the driver allocated it
  bool shared = false;
  bool used = false;  // by an instruction
};

// Where code comes from, by .loc.
struct SourceLine {
  uint32_t instruction;  // from this one on
  uint32_t file, line;
};

struct Module;

struct Program {
  Module* module = nullptr;
  std::string name;
  uint32_t line = 0;
  std::vector<Param> params;
  uint32_t param_bytes = 0;
  int max_threads = 1024;  // .maxntid, .reqntid
  std::vector<Instruction> code;
  std::vector<uint32_t> operands;
  std::vector<SourceLine> source;
  std::vector<Constant> constants;
  std::vector<SpecialRow> specials;
  uint32_t rows = 0, predicates = 2;  // predicate 0 is always true, predicate 1 always false
  std::vector<Variable> shared;       // those that the program uses, the module's too
  uint32_t shared_bytes = 0;          // what the chip needs
  uint32_t shared_gaps = 0;           // all of them, kSharedGap behind each variable
  bool dynamic_shared = false;
  uint32_t dynamic_align = 1;
  uint32_t local_bytes = 0;      // of a lane
  uint32_t shared_granule = 16;  // the least bytes that a lane writes or reads of shared memory at once
};

struct Module {
  std::string text;
  std::vector<std::string_view> lines;
  int version = 0, target = 0;  // 75 for 7.5; 80 for sm_80
  std::vector<Variable> variables;
  std::vector<std::string> files;  // by the number of .file, 0 unused
  std::vector<Program> programs;
  std::vector<simt::Entry> entries;  // what launches know of each program

  std::string_view line(uint32_t n) const { return n >= 1 && n <= lines.size() ? lines[n - 1] : std::string_view(); }
};

// What is wrong with a PTX text.
struct SyntaxError {
  uint32_t line;
  std::string what;
};

// Reads a module; throws SyntaxError. Limits are in text.h.
void parse(std::string text, Module& module);

// Lanes of addresses: generic addresses of shared and local memory lie beyond any that the machine gives.
constexpr uint64_t kSharedWindow = 1ull << 56, kLocalWindow = 2ull << 56, kWindowMask = 255ull << 56;
// Bytes behind each shared variable that nothing may touch: a multiple of every alignment and of a line of banks.
constexpr uint32_t kSharedGap = 1024;

}  // namespace host::ptx
