// What the executor counts when it is asked to: a profile of each kernel.
#pragma once
#include "host/ptx/warp.h"

namespace host::ptx {

// Counts of one instruction.
struct Count {
  uint64_t warps = 0, lanes = 0;                  // executions, and active lanes in them
  uint64_t divergent = 0;                         // branches whose lanes parted
  uint64_t requests = 0;                          // of memory
  uint64_t sectors = 0;                           // global: of 32 bytes
  uint64_t wavefronts = 0, least_wavefronts = 0;  // shared: passes over the banks, and those that the bytes need
};

struct Touched;

struct Tally {
  Count* counts = nullptr;  // by Program::code index
  Touched* touched = nullptr;
};

// Whether launches are counted.
bool counting();
// Nothing is touched yet of the memory in these ranges.
Touched* open_touched(const Range* ranges, size_t count);
// Adds a launch to its kernel's counters.
void add_counts(const Program& p, const Tally& tally);

// A request of global or shared memory, `bytes` by each lane of the mask.
void count_global(Warp& w, const Instruction& i, uint32_t m, const U64& address, uint32_t bytes, bool store);
void count_shared(Warp& w, const Instruction& i, uint32_t m, const U64& address, uint32_t bytes, bool store);

}  // namespace host::ptx
