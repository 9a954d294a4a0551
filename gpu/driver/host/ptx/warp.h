// A warp: its registers, its active lanes, and what the instructions' functions need of its block.
//
// The files with those functions are compiled for x86-64-v3 (FMA, AVX2), which the host device asks for anyway. They use no
// standard containers, whose functions the linker would share with code that runs on any processor.
#pragma once
#include <math.h>
#include <string.h>

#include "host/ptx/program.h"

#pragma clang diagnostic ignored "-Wpsabi"  // vectors by value: only inline functions take them

namespace host::ptx {

typedef uint16_t U16 __attribute__((ext_vector_type(32)));
typedef int16_t S16 __attribute__((ext_vector_type(32)));
typedef uint32_t U32 __attribute__((ext_vector_type(32), aligned(64)));
typedef int32_t S32 __attribute__((ext_vector_type(32), aligned(64)));
typedef uint64_t U64 __attribute__((ext_vector_type(32), aligned(64)));
typedef int64_t S64 __attribute__((ext_vector_type(32), aligned(64)));
typedef float F32 __attribute__((ext_vector_type(32), aligned(64)));
typedef double F64 __attribute__((ext_vector_type(32), aligned(64)));
typedef bool Bits __attribute__((ext_vector_type(32)));

constexpr int kLanes = 32, kRowBytes = 128;
constexpr uint32_t kAll = ~0u;

// Bytes of device memory that the launch may reach: [base, end).
struct Range {
  uintptr_t base, end;
};

struct SharedMemory;  // shared.h
struct AsyncCopies;   // async.h
struct Tally;         // counters.h

// What the warps of a block share.
struct BlockState {
  const Program* program;
  const uint8_t* params;
  const Range* ranges;
  int range_count;
  SharedMemory* shared;
  Tally* tally;  // null: nothing is counted
  uint32_t block[3], threads[3];
  bool taken_first;   // of a branch whose lanes part, the side that jumps
  int32_t fault = 0;  // CUresult
  char detail[480];
};

// Lanes that wait: at `pc` until those above have come to `meet`, or for their turn.
struct Waiting {
  uint32_t pc, mask, meet;
};

struct Warp {
  uint8_t* rows;        // of the register file, kRowBytes each
  uint32_t* defined;    // by row: lanes that hold a value
  uint32_t* predicate;  // by predicate: lanes where it is true
  uint32_t* predicate_defined;
  uint8_t* local;  // local memory, lane after lane
  BlockState* block;
  AsyncCopies* async;
  uint32_t index;                 // in the block
  uint32_t exists, live, active;  // lanes that the block has; that have not ended; that run now
  uint32_t pc, meet;
  int depth;
  bool at_barrier;
  uint32_t sync;   // SharedMemory::time of the last bar.warp.sync
  int last_range;  // of BlockState::ranges, that an access hit
  Waiting stack[96];
};

// Records a fault of a lane (−1: of the warp) and gives false.
bool fault(Warp& w, const Instruction& i, int code, int lane, const char* format, ...)
    __attribute__((format(printf, 5, 6), cold));
// Codes of faults, as CUresult has them.
constexpr int kIllegalAddress = 700, kMisaligned = 716, kLaunchFailed = 719, kIllegalInstruction = 715;

enum class Stop : uint8_t { ended, barrier, fault };
// Runs the warp up to its end, a barrier or a fault.
Stop interpret(Warp& w);

template <class V>
static inline V& row(const Warp& w, uint32_t r) {
  typedef V Alias __attribute__((may_alias));
  return *reinterpret_cast<Alias*>(w.rows + static_cast<size_t>(r) * kRowBytes);
}

// −1 in the lanes of the mask, 0 in the others.
static inline S32 expand(uint32_t mask) {
  const U32 bit = {1u << 0,  1u << 1,  1u << 2,  1u << 3,  1u << 4,  1u << 5,  1u << 6,  1u << 7,  1u << 8,  1u << 9,  1u << 10,
                   1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15, 1u << 16, 1u << 17, 1u << 18, 1u << 19, 1u << 20, 1u << 21,
                   1u << 22, 1u << 23, 1u << 24, 1u << 25, 1u << 26, 1u << 27, 1u << 28, 1u << 29, 1u << 30, 1u << 31};
  return (U32(mask) & bit) != 0u;
}
static inline S64 expand_wide(uint32_t mask) { return __builtin_convertvector(expand(mask), S64); }
// The mask of lanes that are not 0.
template <class V>
static inline uint32_t mask_of(V lanes) {
  const Bits bits = __builtin_convertvector(lanes, Bits);
  uint32_t mask;
  memcpy(&mask, &bits, sizeof mask);
  return mask;
}

// Whole lanes of a row, or those of the mask.
template <class V>
static inline void put(const Warp& w, uint32_t r, V value, uint32_t mask) {
  V& to = row<V>(w, r);
  if (mask == kAll) {
    to = value;
  } else if constexpr (sizeof(value[0]) == 8) {
    to = expand_wide(mask) ? value : to;
  } else {
    to = expand(mask) ? value : to;
  }
}
static inline void define(const Warp& w, uint32_t r, uint32_t mask, uint32_t good) {
  w.defined[r] = (w.defined[r] & ~mask) | (mask & good);
}
static inline void put_predicate(const Warp& w, uint32_t p, uint32_t value, uint32_t mask, uint32_t good) {
  w.predicate[p] = (w.predicate[p] & ~mask) | (mask & value);
  w.predicate_defined[p] = (w.predicate_defined[p] & ~mask) | (mask & good);
}

// The result of setp (PTX ISA 9.7.7): predicate d, combined with predicate c where `mode` says how (negated where count is 1);
// predicate q, where it is not 0, gets the same of the opposite.
static inline void compared(const Warp& w, const Instruction& i, uint32_t mask, uint32_t r) {
  uint32_t good = w.defined[i.a] & w.defined[i.b], opposite = ~r;
  if (i.mode != 0) {
    const uint32_t c = w.predicate[i.c] ^ (i.count ? kAll : 0);
    good &= w.predicate_defined[i.c];
    r = i.mode == 1 ? r & c : i.mode == 2 ? r | c : r ^ c;
    opposite = i.mode == 1 ? opposite & c : i.mode == 2 ? opposite | c : opposite ^ c;
  }
  if (i.d != 0) put_predicate(w, i.d, r, mask, good);
  if (i.q != 0) put_predicate(w, i.q, opposite, mask, good);
}

// Calls f(lane) for the lanes of a mask.
template <class F>
static inline void each_lane(uint32_t mask, F f) {
  for (; mask != 0; mask &= mask - 1) f(__builtin_ctz(mask));
}

}  // namespace host::ptx
