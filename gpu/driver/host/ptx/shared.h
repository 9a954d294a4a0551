// Shared memory of a block with its shadow, which finds what a GPU leaves undefined.
//
// For each granule of shared memory, the least bytes that the program reads or writes at once, the shadow keeps two stamps: who
// wrote it last, and who read it since. A stamp is (time, state, thread); time counts the barriers, of blocks and of warps, over
// all blocks of a launch, so that stamps of earlier blocks say "never written".
//   race         two threads touch a granule, one of them writes, and no barrier of the block lies between, or, for threads of one
//                warp, no bar.warp.sync
//   undefined    the granule was not written in this block, or with an undefined value: what is read is undefined
//   in flight    a cp.async whose group nobody waited for: touching it is a fault
//   forbidden    beyond every variable: between two of them lie kSharedGap bytes
#pragma once
#include "host/ptx/warp.h"

namespace host::ptx {

struct SharedMemory {
  uint8_t* bytes;
  uint32_t size;                   // of the window, gaps included
  int shift;                       // log2 of a granule's bytes
  uint32_t time;                   // now
  uint32_t begin;                  // of the block
  uint32_t barrier;                // the last one of the block
  uint32_t *written, *read;        // stamps by granule
  uint32_t *written_at, *read_at;  // Program::code index
  uint32_t unwritten_at;           // where a program last read what nobody wrote; kNowhere: never
};

// A stamp: time · 4096 + state · 1024 + thread.
constexpr uint32_t kTimeShift = 12, kThreadBits = 1023, kStateBits = 3 << 10;
constexpr uint32_t kValue = 0 << 10, kUndefined = 1 << 10, kInFlight = 2 << 10;  // states of what was written
constexpr uint32_t kManyLanes = 1 << 10, kManyWarps = 2 << 10;                   // of who read: others too
constexpr uint32_t kForbidden = ~0u;
constexpr uint32_t kMostTime = (1u << (32 - kTimeShift)) - 2;

// What is wrong with an access of a granule; records a fault.
bool shared_fault(Warp& w, const Instruction& i, int lane, uint32_t address, uint32_t granule, bool writes);
bool shared_bounds_fault(Warp& w, const Instruction& i, int lane, uint64_t address, uint32_t bytes);

// When the accesses of another thread must have been, at the latest, not to race with this warp's.
static inline uint32_t ordered_before(const Warp& w, uint32_t thread) {
  const uint32_t barrier = w.block->shared->barrier;
  return thread / kLanes == w.index && w.sync > barrier ? w.sync : barrier;
}

// Reads [at, at + bytes) as a lane, and as others of its warp where `many`: sets a bit in `undefined` for each word of 4 bytes
// that holds no value. False: a fault.
static inline bool shadow_read(Warp& w, const Instruction& i, int lane, bool many, uint32_t at, uint32_t bytes,
                               uint32_t* undefined) {
  SharedMemory& s = *w.block->shared;
  const uint32_t me = w.index * kLanes + static_cast<uint32_t>(lane);
  const uint32_t mine = s.time << kTimeShift | (many ? kManyLanes : 0) | me;
  for (uint32_t g = at >> s.shift, end = (at + bytes - 1) >> s.shift; g <= end; g++) {
    const uint32_t stamp = s.written[g], who = stamp & kThreadBits, when = stamp >> kTimeShift;
    const bool races = who != me && when >= ordered_before(w, who);
    if (__builtin_expect((stamp & kStateBits) != 0 || when < s.begin || races, 0)) {
      if (stamp == kForbidden || races || (when >= s.begin && (stamp & kStateBits) == kInFlight)) {
        return shared_fault(w, i, lane, at, g, false);
      }
      const uint32_t begin = g << s.shift, until = begin + (1u << s.shift);
      for (uint32_t b = begin < at ? at : begin; b < until && b < at + bytes; b++) *undefined |= 1u << ((b - at) >> 2);
      s.unwritten_at = static_cast<uint32_t>(&i - w.block->program->code.data());
    }
    const uint32_t r = s.read[g], reader = r & kThreadBits;
    if (r == mine) continue;
    if (r >> kTimeShift < s.barrier) {
      s.read[g] = mine;
    } else if (reader / kLanes != w.index) {
      s.read[g] = mine | kManyWarps | kManyLanes;
    } else if ((r & kManyWarps) != 0 || r >> kTimeShift >= w.sync) {
      s.read[g] = mine | (r & kStateBits) | (reader != me ? kManyLanes : 0);
    } else {
      s.read[g] = mine;
    }
    s.read_at[g] = static_cast<uint32_t>(&i - w.block->program->code.data());
  }
  return true;
}

// Writes [at, at + bytes) in a state.
static inline bool shadow_write(Warp& w, const Instruction& i, int lane, uint32_t at, uint32_t bytes, uint32_t state) {
  SharedMemory& s = *w.block->shared;
  const uint32_t me = w.index * kLanes + static_cast<uint32_t>(lane);
  for (uint32_t g = at >> s.shift, end = (at + bytes - 1) >> s.shift; g <= end; g++) {
    const uint32_t stamp = s.written[g], who = stamp & kThreadBits, when = stamp >> kTimeShift;
    const uint32_t r = s.read[g], reader = r & kThreadBits, read = r >> kTimeShift;
    const bool races = (who != me && when >= ordered_before(w, who)) ||
                       (read >= s.barrier && ((r & kManyWarps) != 0 || reader / kLanes != w.index)) ||
                       (((r & kManyLanes) != 0 || reader != me) && read >= ordered_before(w, reader));
    if (__builtin_expect(stamp == kForbidden || races || (when >= s.begin && (stamp & kStateBits) == kInFlight), 0)) {
      return shared_fault(w, i, lane, at, g, true);
    }
    s.written[g] = s.time << kTimeShift | state | me;
    s.written_at[g] = static_cast<uint32_t>(&i - w.block->program->code.data());
  }
  return true;
}

}  // namespace host::ptx
