// The outer level of a PTX text: directives, variables and entries (PTX ISA 5.4, 11).
#include "host/ptx/body.h"

namespace host::ptx {

namespace {

void put_value(std::string& data, const Literal& literal, Type type, bool negative, uint32_t line) {
  uint64_t bits = negative ? 0 - literal.bits : literal.bits;
  if (is_float(type) != is_float(literal.type) || (is_float(type) && type != literal.type)) fail(line, "a value of another type");
  for (int b = 0; b < bytes_of(type); b++) data.push_back(static_cast<char>(bits >> (8 * b)));
}

class Outer {
 public:
  Outer(Words& words, Module& module) : words_(words), module_(module) {}

  void read() {
    while (words_.peek().kind != Word::end) {
      const Word word = words_.take();
      const std::string_view name = word.text;
      if (word.kind != Word::name) fail(word.line, "unexpected '%.*s'", size_of(name), name.data());
      if (name == ".version") {
        version(word.line);
        continue;
      }
      if (module_.version == 0) fail(word.line, "the text does not begin with .version");
      if (name == ".target") {
        target();
      } else if (name == ".address_size") {
        words_.want_integer("an address size of 64", 64, 64);
      } else if (name == ".visible" || name == ".weak" || name == ".common") {
        continue;
      } else if (name == ".extern") {
        external_ = true;
        continue;
      } else if (name == ".global" || name == ".const" || name == ".shared") {
        variable(name == ".shared");
      } else if (name == ".entry") {
        entry(word.line);
      } else if (name == ".file") {
        file();
      } else if (name == ".section") {
        section();
      } else {
        fail(word.line, "unsupported directive '%.*s'", size_of(name), name.data());
      }
      external_ = false;
    }
    if (module_.version == 0) fail(words_.line(), "the text has no .version");
    if (module_.target == 0) fail(words_.line(), "the text has no .target");
  }

 private:
  void version(uint32_t line) {
    const Word word = words_.take();
    const size_t dot = word.text.find('.');
    const std::string major(word.text.substr(0, std::min<size_t>(dot, 8)));
    const std::string minor(dot == std::string_view::npos ? "" : word.text.substr(dot + 1, 8));
    module_.version = atoi(major.c_str()) * 10 + atoi(minor.c_str());
    if (word.kind != Word::number || minor.size() != 1 || module_.version < 60 || module_.version > 99)
      fail(line, "unsupported .version: want 6.0 or newer");
  }

  void target() {
    const uint32_t line = words_.line();
    const std::string name(words_.want_name("a target such as sm_70").substr(0, 16));
    module_.target = name.rfind("sm_", 0) == 0 ? atoi(name.c_str() + 3) : 0;
    if (module_.target < 50) fail(line, "unsupported target '%s'", name.c_str());
    while (words_.take_mark(',')) words_.want_name("a target option");
  }

  void file() {
    const size_t number = static_cast<size_t>(words_.want_integer("a file number", 1, 1 << 16));
    const Word word = words_.take();
    if (word.kind != Word::quote) fail(word.line, "want the name of a file in quotes");
    if (module_.files.size() <= number) module_.files.resize(number + 1);
    module_.files[number] = std::string(word.text.substr(1, std::min<size_t>(word.text.size() - 2, 300)));
    while (words_.take_mark(',')) words_.want_integer("a number", 0, INT64_MAX);
  }

  void section() {
    words_.want_name("the name of a section");
    words_.want_mark('{');
    while (!words_.take_mark('}')) {
      if (words_.take().kind == Word::end) fail(words_.line(), "a section does not end");
    }
  }

  void variable(bool shared) {
    if (module_.variables.size() == kMostVariables) fail(words_.line(), "more than %zu variables", kMostVariables);
    Variable v = read_variable(words_, module_, !shared && !external_);
    v.external = external_;
    if (external_ && !shared) fail(words_.line(), "'%s' is external: modules are not linked", v.name.c_str());
    v.shared = shared;
    if ((v.bytes == 0) != external_) fail(words_.line(), "'%s' has %s", v.name.c_str(), external_ ? "a size" : "no size");
    for (const Variable& other : module_.variables) {
      if (other.name == v.name) fail(words_.line(), "'%s' is declared twice", v.name.c_str());
    }
    module_.variables.push_back(std::move(v));
  }

  void parameter(Program& p) {
    const std::string_view keyword = words_.want_name("a parameter");
    if (keyword != ".param") fail(words_.line(), "want .param");
    uint32_t align = 0;
    std::string_view word = words_.want_name("a type");
    if (word == ".align") {
      align = static_cast<uint32_t>(words_.want_integer("an alignment", 1, 128));
      word = words_.want_name("a type");
    }
    const Type type = word.size() > 1 ? type_named(word.substr(1)) : Type::none;
    if (bytes_of(type) < 2) fail(words_.line(), "unsupported parameter type");
    word = words_.want_name("a parameter's name");
    if (word == ".ptr") {  // what it points to, for optimizers
      for (word = words_.want_name("a parameter's name"); word[0] == '.'; word = words_.want_name("a parameter's name")) {
        if (word == ".align") words_.want_integer("an alignment", 1, 1 << 12);
      }
    }
    if (words_.peek().kind == Word::mark && words_.peek().text == "[")
      fail(words_.line(), "parameters that are arrays are not supported");
    const uint32_t bytes = static_cast<uint32_t>(bytes_of(type));
    align = std::max(align, bytes);
    p.param_bytes = (p.param_bytes + align - 1) / align * align;
    p.params.push_back({std::string(word), type, p.param_bytes});
    p.param_bytes += bytes;
    if (p.params.size() > kMostOperands) fail(words_.line(), "more than %zu parameters", kMostOperands);
  }

  void entry(uint32_t line) {
    if (module_.programs.size() == kMostPrograms) fail(line, "more than %zu entries", kMostPrograms);
    module_.programs.emplace_back();
    Program& p = module_.programs.back();
    p.module = &module_;
    p.line = line;
    p.name = std::string(words_.want_name("an entry's name"));
    for (size_t n = 0; n + 1 < module_.programs.size(); n++) {
      if (module_.programs[n].name == p.name) fail(line, "entry '%s' is declared twice", p.name.c_str());
    }
    if (words_.take_mark('(') && !words_.take_mark(')')) {
      do parameter(p);
      while (words_.take_mark(','));
      words_.want_mark(')');
    }
    while (words_.peek().kind == Word::name) {
      const std::string_view name = words_.take().text;
      int64_t threads = 1;
      if (name != ".maxntid" && name != ".reqntid" && name != ".minnctapersm" && name != ".maxnreg" && name != ".noreturn")
        fail(words_.line(), "unsupported directive '%.*s'", size_of(name), name.data());
      if (name == ".noreturn") continue;
      do threads *= words_.want_integer("a number", 1, 65536);
      while (threads <= 65536 && words_.take_mark(','));
      if (name == ".maxntid" || name == ".reqntid") p.max_threads = static_cast<int>(std::min<int64_t>(threads, 1024));
    }
    words_.want_mark('{');
    Body(words_, module_, p).read();
  }

  Words& words_;
  Module& module_;
  bool external_ = false;
};

}  // namespace

Variable read_variable(Words& words, Module& module, bool may_initialize) {
  Variable v;
  std::string_view word = words.want_name("a type");
  if (word == ".align") {
    v.align = static_cast<uint32_t>(words.want_integer("an alignment", 1, 1024));
    if ((v.align & (v.align - 1)) != 0) fail(words.line(), "an alignment of %u", v.align);
    word = words.want_name("a type");
  }
  const Type type = word.size() > 1 && word[0] == '.' ? type_named(word.substr(1)) : Type::none;
  const uint32_t bytes = static_cast<uint32_t>(bytes_of(type));
  if (bytes == 0) fail(words.line(), "unsupported type '%.*s' of a variable", size_of(word), word.data());
  v.align = std::max(v.align, bytes);
  v.name = std::string(words.want_name("a variable's name"));
  uint64_t count = 1;
  if (words.take_mark('[')) {
    count = 0;
    if (!words.take_mark(']')) {
      count = static_cast<uint64_t>(words.want_integer("a size", 1, static_cast<int64_t>(kMostVariable / bytes)));
      words.want_mark(']');
    }
  }
  v.bytes = count * bytes;
  if (words.take_mark('=')) {
    if (!may_initialize) fail(words.line(), "'%s' cannot have a value", v.name.c_str());
    const bool list = words.take_mark('{');
    do {
      const bool negative = words.take_mark('-');
      const Word value = words.take();
      Literal literal;
      if (value.kind != Word::number || !read_literal(value.text, &literal))
        fail(value.line, "want a number in the value of '%s'", v.name.c_str());
      put_value(v.data, literal, type, negative, value.line);
      if (v.data.size() > v.bytes) fail(value.line, "'%s' has more values than elements", v.name.c_str());
    } while (list && words.take_mark(','));
    if (list) words.want_mark('}');
  }
  v.data.resize(v.bytes, 0);
  words.want_mark(';');
  (void)module;
  return v;
}

void parse(std::string text, Module& module) {
  if (text.size() > kMostText) throw SyntaxError{1, "the text has more than 256 MiB"};
  module.text = std::move(text);
  const std::string_view all = module.text;
  for (size_t at = 0; at <= all.size();) {
    const size_t end = std::min(all.find('\n', at), all.size());
    module.lines.push_back(all.substr(at, end - at));
    at = end + 1;
  }
  Words words(all);
  module.programs.reserve(64);
  Outer(words, module).read();
  for (Program& p : module.programs) p.module = &module;
}

}  // namespace host::ptx
