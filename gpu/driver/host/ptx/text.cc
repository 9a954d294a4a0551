#include "host/ptx/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>

namespace host::ptx {

void fail(uint32_t line, const char* format, ...) {
  char text[400];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  throw SyntaxError{line, text};
}

namespace {

bool begins_name(char c) { return isalpha(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' || c == '.'; }
bool in_name(char c) { return isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '.'; }

}  // namespace

void Words::skip_space() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '\n') line_++;
    if (isspace(static_cast<unsigned char>(c))) {
      at_++;
    } else if (text_.compare(at_, 2, "//") == 0) {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else if (text_.compare(at_, 2, "/*") == 0) {
      const uint32_t begin = line_;
      const size_t end = text_.find("*/", at_ + 2);
      if (end == std::string_view::npos) fail(begin, "a comment does not end");
      for (; at_ < end + 2; at_++) line_ += text_[at_] == '\n';
    } else {
      return;
    }
  }
}

void Words::advance() {
  skip_space();
  word_.line = line_;
  if (at_ == text_.size()) {
    word_.kind = Word::end;
    word_.text = {};
    return;
  }
  const size_t begin = at_;
  const char c = text_[at_++];
  if (isdigit(static_cast<unsigned char>(c))) {
    word_.kind = Word::number;
    while (at_ < text_.size() && in_name(text_[at_])) {
      const char e = text_[at_++];
      const bool hexadecimal = text_[begin] == '0' && strchr("xXfFdD", text_[begin + 1]) != nullptr;
      if ((e == 'e' || e == 'E') && !hexadecimal && at_ < text_.size() && (text_[at_] == '-' || text_[at_] == '+')) at_++;
    }
  } else if (begins_name(c)) {
    word_.kind = Word::name;
    for (;;) {
      while (at_ < text_.size() && in_name(text_[at_])) at_++;
      if (text_.compare(at_, 2, "::") != 0) break;  // ld.shared::cta
      at_ += 2;
    }
  } else if (c == '"') {
    word_.kind = Word::quote;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\n') at_ += text_[at_] == '\\' ? 2 : 1;
    if (at_ >= text_.size() || text_[at_] != '"') fail(line_, "a string does not end");
    at_++;
  } else if (strchr("{}[](),;:@!|+-=<>", c) != nullptr && c != 0) {
    word_.kind = Word::mark;
  } else if (isprint(static_cast<unsigned char>(c))) {
    fail(line_, "unexpected '%c'", c);
  } else {
    fail(line_, "unexpected byte 0x%02x", static_cast<unsigned char>(c));
  }
  word_.text = text_.substr(begin, at_ - begin);
  if (word_.kind != Word::quote && word_.text.size() > kMostWord) fail(line_, "a word of %zu characters", word_.text.size());
}

Word Words::take() {
  const Word word = word_;
  advance();
  return word;
}

bool Words::take_mark(char c) {
  if (word_.kind != Word::mark || word_.text[0] != c) return false;
  advance();
  return true;
}

void Words::want_mark(char c) {
  if (word_.kind == Word::end) fail(word_.line, "the text ends where '%c' is due", c);
  if (!take_mark(c)) fail(word_.line, "want '%c', have '%.*s'", c, size_of(word_.text), word_.text.data());
}

std::string_view Words::want_name(const char* what) {
  if (word_.kind != Word::name) {
    fail(word_.line, "want %s, have '%.*s'", what, size_of(word_.text), word_.text.data());
  }
  return take().text;
}

int64_t Words::want_integer(const char* what, int64_t least, int64_t most) {
  const bool negative = take_mark('-');
  const Word word = take();
  Literal literal;
  if (word.kind != Word::number || !read_literal(word.text, &literal) || literal.type != Type::s64) {
    fail(word.line, "want %s, have '%.*s'", what, size_of(word.text), word.text.data());
  }
  const int64_t value = static_cast<int64_t>(negative ? 0 - literal.bits : literal.bits);
  if (value < least || value > most) {
    fail(word.line, "%s is %lld, beyond %lld to %lld", what, static_cast<long long>(value), static_cast<long long>(least),
         static_cast<long long>(most));
  }
  return value;
}

namespace {

// Digits of a base to a number of 64 bits.
bool read_digits(std::string_view digits, int base, uint64_t* value) {
  if (digits.empty()) return false;
  uint64_t v = 0;
  for (const char c : digits) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : 99;
    if (digit >= base) return false;
    if (v > (UINT64_MAX - static_cast<uint64_t>(digit)) / static_cast<uint64_t>(base)) return false;
    v = v * static_cast<uint64_t>(base) + static_cast<uint64_t>(digit);
  }
  *value = v;
  return true;
}

}  // namespace

bool read_literal(std::string_view word, Literal* literal) {
  if (word.empty() || !isdigit(static_cast<unsigned char>(word[0]))) return false;
  const char kind = word[0] == '0' && word.size() > 1 ? static_cast<char>(tolower(word[1])) : ' ';
  if (kind == 'f' || kind == 'd') {
    literal->type = kind == 'f' ? Type::f32 : Type::f64;
    return word.size() == (kind == 'f' ? 10u : 18u) && read_digits(word.substr(2), 16, &literal->bits);
  }
  if (kind != 'x' && (word.find('.') != std::string_view::npos || word.find_first_of("eE") != std::string_view::npos)) {
    const std::string copy(word.substr(0, 64));
    char* end = nullptr;
    const double value = strtod(copy.c_str(), &end);
    literal->type = Type::f64;
    memcpy(&literal->bits, &value, sizeof value);
    return copy.size() == word.size() && *end == 0;
  }
  literal->type = Type::s64;
  if (word.back() == 'U' || word.back() == 'u') word.remove_suffix(1);
  if (kind == 'x') return read_digits(word.substr(2), 16, &literal->bits);
  if (kind == 'b') return read_digits(word.substr(2), 2, &literal->bits);
  return read_digits(word, word[0] == '0' && word.size() > 1 ? 8 : 10, &literal->bits);
}

}  // namespace host::ptx
