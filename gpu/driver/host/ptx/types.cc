#include "host/ptx/body.h"

namespace host::ptx {

namespace {

constexpr struct {
  const char* name;
  int bytes;
} kTypes[] = {
    {"", 0},    {"pred", 0}, {"b8", 1},  {"b16", 2}, {"b32", 4}, {"b64", 8},  {"u8", 1},     {"u16", 2}, {"u32", 4},
    {"u64", 8}, {"s8", 1},   {"s16", 2}, {"s32", 4}, {"s64", 8}, {"bf16", 2}, {"bf16x2", 4}, {"f32", 4}, {"f64", 8},
};

constexpr const char* kClassNames[kClasses] = {
    "fma",       "float",     "integer",   "move",     "convert", "special",  "control", "ld.global",
    "st.global", "ld.shared", "st.shared", "ldmatrix", "mma",     "cp.async", "warp",    "barrier",
};

}  // namespace

int bytes_of(Type t) { return kTypes[static_cast<int>(t)].bytes; }
bool is_float(Type t) { return t == Type::f32 || t == Type::f64; }
bool is_signed(Type t) { return t >= Type::s8 && t <= Type::s64; }
const char* name_of(Type t) { return kTypes[static_cast<int>(t)].name; }
const char* name_of(Class c) { return kClassNames[static_cast<int>(c)]; }

Type type_named(std::string_view name) {
  for (int n = 1; n < static_cast<int>(sizeof kTypes / sizeof kTypes[0]); n++) {
    if (name == kTypes[n].name) return static_cast<Type>(n);
  }
  return Type::none;
}

}  // namespace host::ptx
