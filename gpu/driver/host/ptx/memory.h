// Checks of device addresses.
#pragma once
#include "host/ptx/shared.h"

namespace host::ptx {

// True if [address, address + bytes) is memory that the launch may reach; else records a fault of the lane.
bool reachable(Warp& w, const Instruction& i, int lane, uint64_t address, uint32_t bytes);
// That each lane's [address, address + bytes) is, and that it is aligned to `bytes`.
bool check_global(Warp& w, const Instruction& i, uint32_t m, const U64& address, uint32_t bytes);
// That each lane's address is defined, aligned to `bytes` and in the window of shared memory.
bool check_shared(Warp& w, const Instruction& i, uint32_t m, const U64& address, uint32_t bytes);
bool check_defined(Warp& w, const Instruction& i, uint32_t m, uint32_t r, const char* what);
// The addresses of an operand: row `r` of 64 bits (wide) or 32, and an offset.
static inline U64 addresses(const Warp& w, uint32_t r, bool wide, int64_t offset) {
  if (wide) return row<U64>(w, r) + static_cast<uint64_t>(offset);
  return __builtin_convertvector(row<U32>(w, r) + static_cast<uint32_t>(offset), U64);
}

// Instruction::mode of loads and stores.
constexpr uint8_t kWideAddress = 1, kSignExtend = 2, kHalfRegister = 4, kWideRegister = 8;

}  // namespace host::ptx
