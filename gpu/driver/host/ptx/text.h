// The words of PTX text.
#pragma once
#include <string_view>

#include "host/ptx/program.h"

namespace host::ptx {

// Limits of what is read, all far above what a compiler writes.
constexpr size_t kMostText = 256 << 20, kMostWord = 4096, kMostRegisters = 1 << 20, kMostInstructions = 1 << 22;
constexpr size_t kMostVariable = 16 << 20, kMostVariables = 1 << 14, kMostOperands = 32, kMostNesting = 32,
                 kMostPrograms = 1 << 12;

// How much of a text a message quotes.
inline int size_of(std::string_view s) { return static_cast<int>(s.size() < 80 ? s.size() : 80); }

struct Word {
  enum Kind : uint8_t { end, name, number, quote, mark } kind = end;
  std::string_view text;  // name: with its dots ("ld.global.f32", "%tid.x", ".reg"); mark: one character
  uint32_t line = 1;
};

[[noreturn]] void fail(uint32_t line, const char* format, ...) __attribute__((format(printf, 2, 3)));

class Words {
 public:
  explicit Words(std::string_view text) : text_(text) { advance(); }
  const Word& peek() const { return word_; }
  uint32_t line() const { return word_.line; }
  Word take();
  bool take_mark(char c);  // takes the mark if it comes next
  void want_mark(char c);
  std::string_view want_name(const char* what);
  // An integer literal (decimal, hexadecimal, octal, binary; a sign before it).
  int64_t want_integer(const char* what, int64_t least, int64_t most);

 private:
  void advance();
  void skip_space();

  std::string_view text_;
  size_t at_ = 0;
  uint32_t line_ = 1;
  Word word_;
};

// The value of a literal: an integer, 0f and 8 hexadecimal digits, 0d and 16 of them, a decimal fraction. False: it is none.
struct Literal {
  uint64_t bits;  // of the integer, the float or the double
  Type type;      // s64 for an integer, f32 for 0f…, f64 for the others
};
bool read_literal(std::string_view word, Literal* literal);

}  // namespace host::ptx
