// What the lanes of a warp do together: shuffles, votes, reductions, bar.warp.sync (PTX ISA 9.7.8.6, 9.7.13).
//
// The lanes that the member mask names and that have not ended must all execute the instruction at once: the executor runs the
// sides of a branch one after the other up to where they meet, so a lane that is missing is one that took another side. On a
// GPU the others would wait for it; here that is a fault.
#include "host/ptx/operations.h"
#include "host/ptx/shared.h"

namespace host::ptx {

namespace {

bool members(Warp& w, const Instruction& i, uint32_t m, uint32_t mask_row) {
  const U32& masks = row<U32>(w, mask_row);
  const int first = __builtin_ctz(m);
  const uint32_t mask = masks[first];
  if ((w.defined[mask_row] & m) != m) return fault(w, i, kLaunchFailed, first, "the member mask is not defined");
  if ((mask_of(masks != mask) & m) != 0) return fault(w, i, kLaunchFailed, first, "lanes name different member masks");
  if ((m & ~mask) != 0) {
    return fault(w, i, kLaunchFailed, __builtin_ctz(m & ~mask), "the member mask 0x%08x does not name the executing lane", mask);
  }
  if ((mask & w.live & ~m) != 0) {
    return fault(w, i, kLaunchFailed, __builtin_ctz(mask & w.live & ~m),
                 "lanes 0x%08x of the member mask 0x%08x do not execute it with lanes 0x%08x", mask & w.live & ~m, mask, m);
  }
  return true;
}

// shfl.sync d|q, a, b, c, e: b is the lane operand, c packs the segment mask and the clamp.
template <ShuffleMode kMode>
bool shuffle(Warp& w, const Instruction& i, uint32_t m) {
  if (!members(w, i, m, i.e)) return false;
  const U32 a = row<U32>(w, i.a), b = row<U32>(w, i.b), c = row<U32>(w, i.c);
  const uint32_t operands = w.defined[i.b] & w.defined[i.c], source = w.defined[i.a];
  U32 d = 0;
  uint32_t inside = 0, good = 0;
  each_lane(m, [&](int l) {
    const int by = b[l] & 31, clamp = c[l] & 31, segment = c[l] >> 8 & 31;
    const int most = (l & segment) | (clamp & ~segment), least = l & segment;
    int from = kMode == ShuffleMode::up     ? l - by
               : kMode == ShuffleMode::down ? l + by
               : kMode == ShuffleMode::bfly ? l ^ by
                                            : least | (by & ~segment);
    const bool in = kMode == ShuffleMode::up ? from >= most : from <= most;
    if (!in) from = l;
    inside |= static_cast<uint32_t>(in) << l;
    // What a lane gives that does not take part is undefined.
    d[l] = m >> from & 1 ? a[from] : kAll;
    good |= (m >> from & source >> from & 1) << l;
  });
  put(w, i.d, d, m);
  define(w, i.d, m, good & operands);
  if (i.q != 0) put_predicate(w, i.q, inside, m, operands);
  return true;
}

// vote.sync d, a, b: predicate a (negated where mode is 1), member mask in row b.
template <VoteMode kMode>
bool vote(Warp& w, const Instruction& i, uint32_t m) {
  if (!members(w, i, m, i.b)) return false;
  const uint32_t votes = (w.predicate[i.a] ^ (i.mode ? kAll : 0)) & m;
  const uint32_t good = (w.predicate_defined[i.a] & m) == m ? kAll : 0;
  if constexpr (kMode == VoteMode::ballot) {
    put(w, i.d, U32(votes), m);
    define(w, i.d, m, good);
  } else {
    const bool r = kMode == VoteMode::all ? votes == m : kMode == VoteMode::any ? votes != 0 : votes == m || votes == 0;
    put_predicate(w, i.d, r ? kAll : 0, m, good);
  }
  return true;
}

bool active_mask(Warp& w, const Instruction& i, uint32_t m) {
  put(w, i.d, U32(m), m);
  define(w, i.d, m, kAll);
  return true;
}

// redux.sync d, a, member mask b.
template <class T, Reduce kOp>
bool redux(Warp& w, const Instruction& i, uint32_t m) {
  if (!members(w, i, m, i.b)) return false;
  const U32& a = row<U32>(w, i.a);
  uint32_t r = a[__builtin_ctz(m)];
  each_lane(m & (m - 1), [&](int l) {
    const uint32_t x = a[l];
    if constexpr (kOp == Reduce::add) r += x;
    if constexpr (kOp == Reduce::min) r = static_cast<T>(x) < static_cast<T>(r) ? x : r;
    if constexpr (kOp == Reduce::max) r = static_cast<T>(x) > static_cast<T>(r) ? x : r;
    if constexpr (kOp == Reduce::and_) r &= x;
    if constexpr (kOp == Reduce::or_) r |= x;
    if constexpr (kOp == Reduce::xor_) r ^= x;
  });
  put(w, i.d, U32(r), m);
  define(w, i.d, m, (w.defined[i.a] & m) == m ? kAll : 0);
  return true;
}

bool warp_sync(Warp& w, const Instruction& i, uint32_t m) {
  if (!members(w, i, m, i.a)) return false;
  w.sync = ++w.block->shared->time;
  return true;
}
bool nothing(Warp&, const Instruction&, uint32_t) { return true; }

template <class T>
Run redux_of(Reduce op, bool bits) {
  switch (op) {
    case Reduce::add: return bits ? nullptr : redux<T, Reduce::add>;
    case Reduce::min: return bits ? nullptr : redux<T, Reduce::min>;
    case Reduce::max: return bits ? nullptr : redux<T, Reduce::max>;
    case Reduce::and_: return bits ? redux<T, Reduce::and_> : nullptr;
    case Reduce::or_: return bits ? redux<T, Reduce::or_> : nullptr;
    case Reduce::xor_: return bits ? redux<T, Reduce::xor_> : nullptr;
  }
  return nullptr;
}

}  // namespace

Run shuffle_run(ShuffleMode mode) {
  switch (mode) {
    case ShuffleMode::up: return shuffle<ShuffleMode::up>;
    case ShuffleMode::down: return shuffle<ShuffleMode::down>;
    case ShuffleMode::bfly: return shuffle<ShuffleMode::bfly>;
    case ShuffleMode::idx: return shuffle<ShuffleMode::idx>;
  }
  return nullptr;
}
Run vote_run(VoteMode mode) {
  switch (mode) {
    case VoteMode::all: return vote<VoteMode::all>;
    case VoteMode::any: return vote<VoteMode::any>;
    case VoteMode::uni: return vote<VoteMode::uni>;
    case VoteMode::ballot: return vote<VoteMode::ballot>;
  }
  return nullptr;
}
Run active_mask_run() { return active_mask; }
Run redux_run(Reduce op, Type t) {
  switch (t) {
    case Type::u32: return redux_of<uint32_t>(op, false);
    case Type::s32: return redux_of<int32_t>(op, false);
    case Type::b32: return redux_of<uint32_t>(op, true);
    default: return nullptr;
  }
}
Run warp_sync_run() { return warp_sync; }
Run nothing_run() { return nothing; }

}  // namespace host::ptx
