// The interpreter's loop: a warp's program counter, its active lanes, and how they part and meet.
//
// Lanes that a branch parts run one side after the other. Those of the side that waits, and all of them at the place where the
// sides meet, lie on a stack; a meeting's instruction takes them off. A loop whose lanes leave one by one does not grow it: the
// lanes that have left wait in the entry of the loop's end.
#include "host/ptx/counters.h"
#include "host/ptx/warp.h"

namespace host::ptx {

namespace {

constexpr int kMost = sizeof(Warp::stack) / sizeof(Waiting);

// Takes the lanes that wait on top of the stack; those that have ended do not come. False: none are left.
bool resume(Warp& w) {
  while (w.depth > 0) {
    const Waiting& top = w.stack[--w.depth];
    w.active = top.mask & w.live;
    w.meet = top.meet;
    w.pc = top.pc;
    if (w.active != 0) return true;
  }
  w.active = 0;
  return false;
}

bool push(Warp& w, const Instruction& i, uint32_t pc, uint32_t mask, uint32_t meet) {
  if (w.depth == kMost) return fault(w, i, kLaunchFailed, -1, "branches part lanes more than %d deep", kMost);
  w.stack[w.depth++] = {pc, mask, meet};
  return true;
}

// All lanes of a branch that parts them go to wait where they meet, unless that is where they were going anyway.
bool gather(Warp& w, const Instruction& i) {
  if (i.meet == w.meet || i.meet == kNowhere) return true;
  return push(w, i, i.meet, w.active, w.meet);
}

bool part(Warp& w, const Instruction& i, uint32_t jumps) {
  const uint32_t stays = w.active & ~jumps, here = static_cast<uint32_t>(&i - w.block->program->code.data());
  if (i.uniform)
    return fault(w, i, kLaunchFailed, __builtin_ctz(jumps), "lanes 0x%08x and 0x%08x part at a uniform branch", jumps, stays);
  if (!gather(w, i)) return false;
  // Lanes that only end do so first, as nobody waits for them.
  const Instruction* const code = w.block->program->code.data();
  const bool ends[2] = {code[i.target].flow == Flow::exit && code[i.target].guard == 0,
                        code[here + 1].flow == Flow::exit && code[here + 1].guard == 0};
  const bool first = ends[0] || (w.block->taken_first && !ends[1]);
  const Waiting sides[2] = {{first ? i.target : here + 1, first ? jumps : stays, i.meet},
                            {first ? here + 1 : i.target, first ? stays : jumps, i.meet}};
  w.meet = i.meet;
  if (sides[0].pc == i.meet && i.meet != kNowhere) {
    w.pc = sides[1].pc;
    w.active = sides[1].mask;
    return true;
  }
  w.pc = sides[0].pc;
  w.active = sides[0].mask;
  return (sides[1].pc == i.meet && i.meet != kNowhere) || push(w, i, sides[1].pc, sides[1].mask, i.meet);
}

// brx.idx: each lane goes where its index says.
bool scatter(Warp& w, const Instruction& i, uint32_t m) {
  const uint32_t here = static_cast<uint32_t>(&i - w.block->program->code.data());
  const uint32_t* const targets = &w.block->program->operands.data()[i.more];
  if ((w.defined[i.a] & m) != m)
    return fault(w, i, kLaunchFailed, __builtin_ctz(m & ~w.defined[i.a]), "the index is not defined");
  const U32& index = row<U32>(w, i.a);
  const uint32_t beyond = mask_of(index >= i.target) & m;
  if (beyond != 0) {
    const int lane = __builtin_ctz(beyond);
    return fault(w, i, kLaunchFailed, lane, "index %u of a table of %u", static_cast<uint32_t>(index[lane]), i.target);
  }
  if (!gather(w, i)) return false;
  uint32_t rest = w.active;
  bool running = false;
  while (rest != 0) {
    const int lane = __builtin_ctz(rest);
    uint32_t same, to;
    if ((m >> lane & 1) == 0) {
      same = w.active & ~m;
      to = here + 1;
    } else {
      to = targets[index[lane]];
      same = 0;
      each_lane(m & rest, [&](int l) { same |= static_cast<uint32_t>(targets[index[l]] == to) << l; });
    }
    rest &= ~same;
    if (to == i.meet && i.meet != kNowhere && (rest != 0 || running)) continue;
    if (running) {
      if (!push(w, i, to, same, i.meet)) return false;
      continue;
    }
    running = true;
    w.pc = to;
    w.active = same;
  }
  w.meet = i.meet;
  return running || resume(w);
}

template <bool kCounting>
Stop loop(Warp& w) {
  const Instruction* const code = w.block->program->code.data();
  for (;;) {
    const Instruction& i = code[w.pc];
    const uint32_t m = w.active & (w.predicate[i.guard] ^ i.flip);
    if (__builtin_expect((w.active & ~w.predicate_defined[i.guard]) != 0, 0)) {
      fault(w, i, kLaunchFailed, __builtin_ctz(w.active & ~w.predicate_defined[i.guard]), "its predicate is not defined");
      return Stop::fault;
    }
    if (kCounting && i.flow != Flow::meet) {
      Count& c = w.block->tally->counts[w.pc];
      c.warps++;
      c.lanes += static_cast<uint64_t>(__builtin_popcount(m));
    }
    switch (i.flow) {
      case Flow::plain:
        if (m != 0 && !i.run(w, i, m)) return Stop::fault;
        w.pc++;
        break;
      case Flow::branch:
        if (m == w.active) {
          w.pc = i.target;
        } else if (m == 0) {
          w.pc++;
        } else {
          if (kCounting) w.block->tally->counts[w.pc].divergent++;
          if (!part(w, i, m)) return Stop::fault;
        }
        break;
      case Flow::table:
        if (m == 0) {
          w.pc++;
        } else {
          const uint32_t before = w.active, pc = w.pc;
          if (!scatter(w, i, m)) return Stop::fault;
          if (kCounting && w.active != before) w.block->tally->counts[pc].divergent++;
        }
        break;
      case Flow::meet:
        if (w.meet == w.pc) {
          if (!resume(w)) return Stop::ended;
        } else {
          w.pc++;
        }
        break;
      case Flow::exit:
        w.live &= ~m;
        w.active &= ~m;
        w.pc++;
        if (w.active == 0 && !resume(w)) return Stop::ended;
        break;
      case Flow::barrier:
        if (m != w.live) {
          if (m == 0) {
            w.pc++;
            break;
          }
          fault(w, i, kLaunchFailed, __builtin_ctz(m), "lanes 0x%08x reach the barrier without lanes 0x%08x of their warp", m,
                w.live & ~m);
          return Stop::fault;
        }
        w.pc++;
        return Stop::barrier;
      case Flow::trap:
        if (m == 0) {
          w.pc++;
          break;
        }
        fault(w, i, kIllegalInstruction, __builtin_ctz(m), "a trap");
        return Stop::fault;
    }
  }
}

}  // namespace

Stop interpret(Warp& w) { return w.block->tally != nullptr ? loop<true>(w) : loop<false>(w); }

}  // namespace host::ptx
