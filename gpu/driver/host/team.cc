#include "host/team.h"

#include <stdio.h>
#include <string.h>

#include "host/block.h"

namespace host {

namespace {

std::string where(const simt::Site* site) { return std::string(site->file) + ":" + std::to_string(site->line); }

std::string name_of(const simt::Thread& t) {
  char text[64];
  snprintf(text, sizeof text, "thread (%u, %u, %u)", t.thread_idx.x, t.thread_idx.y, t.thread_idx.z);
  return text;
}

}  // namespace

Team::Team(const ddgpu_host_config& config) : order_(config.order), random_(mix(config.seed)), stacks_(kMost) {}
Team::~Team() = default;

bool Team::prepare(int threads) {
  if (lanes_ == nullptr) {
    lanes_ = std::make_unique<Lane[]>(kMost);
    warps_ = std::make_unique<Warp[]>(kWarps);
  }
  for (int i = 0; i < threads; i++) {
    lanes_[i].copies.reset();
    if (lanes_[i].between) continue;
    char* const stack = lanes_[i].fiber.started() ? lanes_[i].fiber.stack() : stacks_.at(i);
    if (stack == nullptr) return false;
    lanes_[i].fiber.start(stack, Stacks::kSize - Stacks::kGuard, live);
  }
  if (kTsan) {
    // The same thread of the next block is another one to TSan, which so sees two blocks that race; with the stack that it had.
    for (int i = 1; i < threads; i++) lanes_[i].fiber.swap(lanes_[i - 1].fiber);
  }
  for (int w = 0; w * kWarp < threads; w++) {
    const int lanes = threads - w * kWarp;
    if (warps_[w].waiting > 0) {
      for (Meeting& m : warps_[w].meetings) m.arrived = 0;
    }
    warps_[w].waiting = 0;
    warps_[w].gone = lanes >= kWarp ? 0 : ~0u << lanes;
  }
  return true;
}

Result Team::run(const Launch& launch, const simt::Thread& common) {
  const simt::Index& d = launch.block;
  launch_ = &launch;
  threads_ = static_cast<int>(d.x * d.y * d.z);
  result_ = CUDA_SUCCESS;
  if (!prepare(threads_)) return CUDA_ERROR_OUT_OF_MEMORY;
  simt::Index at{0, 0, 0};
  for (int i = 0; i < threads_; i++) {
    lanes_[i].thread = common;
    lanes_[i].thread.thread_idx = at;
    if (++at.x < d.x) continue;
    at.x = 0;
    if (++at.y < d.y) continue;
    at.y = 0;
    at.z++;
  }
  returned_ = arrived_ = 0;
  phase_ = 0;
  turn_ = order_ == DDGPU_ORDER_REVERSE ? 0 : threads_ - 1;
  all_ready();
  release(&started_);
  running_ = next();
  home_.switch_to(lanes_[running_].fiber);
  return result_;
}

void Team::abandon(Result result) {
  result_ = result;
  for (int i = 0; i < threads_; i++) {
    // Its stack is given up, unless the thread has returned or not begun; starting anew is right for those too.
    lanes_[i].between = false;
    lanes_[i].fiber.release_of(&ended_);
  }
  lanes_[running_].fiber.switch_to(home_);
  __builtin_unreachable();
}

// What runs on each stack: its thread of one block after another.
void Team::live(Fiber&) {
  Team& team = *running_block->team();
  for (;;) {
    const int index = team.running_;
    team.enter(index);
    acquire(&team.started_);
    team.launch_->entry->invoke(team.launch_->args);
    team.finish(index);
  }
}

inline void Team::enter(int index) {
  running_ = index;
  simt::current = &lanes_[index].thread;
}

void Team::finish(int index) {
  Lane& lane = lanes_[index];
  release(&ended_);
  clear_ready(index);
  lane.between = true;
  returned_++;
  last_returned_ = index;
  const int w = index / kWarp;
  Warp& warp = warps_[w];
  warp.gone |= 1u << (index % kWarp);
  if (warp.waiting > 0) {
    for (Meeting& m : warp.meetings) {
      if (m.arrived != 0 && m.arrived == (m.mask & ~warp.gone)) complete(warp, w, m);
    }
  }
  if (arrived_ > 0) stuck();
  if (returned_ == threads_) {
    lane.fiber.switch_to(home_);
  } else {
    running_ = next();
    lane.fiber.switch_to(lanes_[running_].fiber);
  }
  lanes_[running_].between = false;
}

void Team::all_ready() {
  for (int w = 0; w < kWords; w++) {
    const int count = threads_ - w * 64;
    ready_[w] = count >= 64 ? ~0ull : count > 0 ? (1ull << count) - 1 : 0;
  }
}

int Team::first_from(int start) const {
  const int words = (threads_ + 63) / 64;
  int w = start / 64;
  uint64_t word = ready_[w] & ~0ull << (start % 64);
  for (int i = 0; word == 0; i++) {
    if (i == words) return -1;
    w = w + 1 == words ? 0 : w + 1;
    word = ready_[w];
  }
  return w * 64 + __builtin_ctzll(word);
}

int Team::last_from(int start) const {
  const int words = (threads_ + 63) / 64;
  int w = start / 64;
  uint64_t word = ready_[w] & ~0ull >> (63 - start % 64);
  for (int i = 0; word == 0; i++) {
    if (i == words) return -1;
    w = w == 0 ? words - 1 : w - 1;
    word = ready_[w];
  }
  return w * 64 + 63 - __builtin_clzll(word);
}

// The thread whose turn it is.
int Team::next() {
  int to = -1;
  if (order_ == DDGPU_ORDER_AHEAD) {
    const int warps = (threads_ + kWarp - 1) / kWarp;
    const int ahead = warps - 1 - static_cast<int>(phase_ % warps);
    const int at = first_from(ahead * kWarp);
    if (at >= 0 && at / kWarp == ahead) to = at;
  }
  if (to < 0) {
    switch (order_) {
      case DDGPU_ORDER_REVERSE: to = last_from(turn_ == 0 ? threads_ - 1 : turn_ - 1); break;
      case DDGPU_ORDER_RANDOM: to = first_from(static_cast<int>((random_ = mix(random_)) % threads_)); break;
      default: to = first_from(turn_ == threads_ - 1 ? 0 : turn_ + 1); break;
    }
  }
  if (to < 0) stuck();
  turn_ = to;
  return to;
}

// Lets others run until it is this thread's turn again.
void Team::give_turn(int index) {
  const int to = next();
  if (to == index) return;
  running_ = to;
  lanes_[index].fiber.switch_to(lanes_[to].fiber);
  enter(index);
}

// Some threads wait for others that cannot come.
void Team::stuck() {
  describe_stuck();
  abandon(CUDA_ERROR_LAUNCH_FAILED);
}

void Team::describe_stuck() {
  int waits = -1;  // a thread in a warp collective
  for (int i = 0; i < threads_ && waits < 0; i++) {
    for (const Meeting& m : warps_[i / kWarp].meetings) {
      if (m.arrived >> (i % kWarp) & 1) waits = i;
    }
  }
  const Lane& at = arrived_ > 0 ? lanes_[first_arrived_] : lanes_[waits];
  std::string text = "a warp collective that not all lanes of its mask reach";
  if (arrived_ > 0)
    text = "a barrier that only " + std::to_string(arrived_) + " of " + std::to_string(threads_) + " threads reach";
  text += ": " + name_of(at.thread) + " waits at " + where(at.site);
  if (arrived_ > 0 && waits >= 0) {
    text += ", " + name_of(lanes_[waits].thread) + " in a warp collective at " + where(lanes_[waits].site);
  } else if (returned_ > 0) {
    text += ", " + name_of(lanes_[last_returned_].thread) + " has returned";
  } else {
    for (int i = 0; i < threads_; i++) {
      if (lanes_[i].site == at.site) continue;
      text += ", " + name_of(lanes_[i].thread) + " at " + where(lanes_[i].site);
      break;
    }
  }
  running_block->report(text.c_str(), at.site);
}

void Team::barrier(const simt::Site* site) {
  const int index = running_;
  Lane& lane = lanes_[index];
  if (arrived_ == 0) {
    first_arrived_ = index;
  } else if (const Lane& first = lanes_[first_arrived_]; first.site != site) {
    running_block->report(("barriers at two places: " + name_of(first.thread) + " waits at " + where(first.site)).c_str(), site);
    abandon(CUDA_ERROR_LAUNCH_FAILED);
  }
  lane.site = site;
  arrived_++;
  if (returned_ > 0) stuck();
  char* const token = &barriers_[phase_ % 2];
  release(token);
  if (arrived_ == threads_) {
    arrived_ = 0;
    phase_++;
    all_ready();
  } else {
    clear_ready(index);
  }
  give_turn(index);
  acquire(token);
}

// Waits until all lanes of the mask are here.
void Team::meet(Kind kind, uint32_t mask, const simt::Site* site) {
  const int index = running_, w = index / kWarp;
  const uint32_t bit = 1u << (index % kWarp);
  Lane& lane = lanes_[index];
  Warp& warp = warps_[w];
  if ((mask & bit) == 0) {
    running_block->report("a warp collective whose mask does not name the calling lane", site);
    abandon(CUDA_ERROR_LAUNCH_FAILED);
  }
  Meeting& m = warp.meetings[__builtin_ctz(mask)];
  lane.site = site;
  if (m.arrived == 0) {
    m.mask = mask;
    m.site = site;
    m.kind = kind;
    warp.waiting++;
  } else if (m.site != site || m.mask != mask) {
    const Lane& first = lanes_[w * kWarp + __builtin_ctz(m.arrived)];
    char masks[64];
    snprintf(masks, sizeof masks, "mask 0x%08x here, mask 0x%08x of ", mask, m.mask);
    running_block->report(
        (std::string("lanes of a warp meet in different collectives: ") + masks + name_of(first.thread) + " at " + where(m.site))
            .c_str(),
        site);
    abandon(CUDA_ERROR_LAUNCH_FAILED);
  }
  m.arrived |= bit;
  // __syncwarp orders memory between its lanes; the other collectives order nothing.
  char* const token = &m.token[m.round % 2];
  if (kind == Kind::sync) release(token);
  if (m.arrived == (mask & ~warp.gone)) {
    complete(warp, w, m);
  } else {
    clear_ready(index);
    give_turn(index);
  }
  if (kind == Kind::sync) acquire(token);
}

// The lane that a shuffle reads, as in the PTX ISA's shfl.sync, for segments of `width` lanes.
static int source_lane(simt::Shuffle mode, int self, uint32_t operand, uint32_t width) {
  const int first = self & ~static_cast<int>(width - 1), last = first + static_cast<int>(width) - 1;
  const int by = static_cast<int>(operand & 31);
  switch (mode) {
    case simt::Shuffle::idx: return first + (by & static_cast<int>(width - 1));
    case simt::Shuffle::up: return self - by < first ? self : self - by;
    case simt::Shuffle::down: return self + by > last ? self : self + by;
    case simt::Shuffle::bfly: return (self ^ by) > last ? self : self ^ by;
  }
  return self;
}

// Computes for every lane that has arrived, and lets them go on.
void Team::complete(Warp& warp, int warp_index, Meeting& m) {
  Lane* const lanes = &lanes_[warp_index * kWarp];
  const uint32_t here = m.arrived;
  if (m.kind == Kind::shuffle) {
    uint64_t values[kWarp];
    for (int i = 0; i < kWarp; i++) values[i] = here >> i & 1 ? lanes[i].value : ~0ull;
    for (int i = 0; i < kWarp; i++) {
      if (here >> i & 1) lanes[i].value = values[source_lane(lanes[i].mode, i, lanes[i].lane, lanes[i].width)];
    }
  } else if (m.kind == Kind::ballot) {
    uint32_t votes = 0;
    for (int i = 0; i < kWarp; i++) {
      if (here >> i & 1 && lanes[i].value != 0) votes |= 1u << i;
    }
    for (int i = 0; i < kWarp; i++) {
      if (here >> i & 1) lanes[i].value = votes;
    }
  } else if (m.kind != Kind::sync) {
    complete_matrices(lanes, m);
  }
  ready_[warp_index / 2] |= static_cast<uint64_t>(here) << (warp_index % 2 * 32);
  m.arrived = 0;
  m.round++;
  warp.waiting--;
}

void Team::complete_matrices(Lane* lanes, const Meeting& m) {
  if (m.arrived != ~0u) {
    char text[128];
    snprintf(text, sizeof text, "a matrix instruction of a warp that has only the lanes of mask 0x%08x", m.arrived);
    running_block->report(text, m.site);
    abandon(CUDA_ERROR_LAUNCH_FAILED);
  }
  const Fragments* fragments[kWarp];
  for (int i = 0; i < kWarp; i++) fragments[i] = &lanes[i].fragments;
  switch (m.kind) {
    case Kind::bf16: multiply(simt::Product::bf16, lanes[0].m, lanes[0].n, fragments); break;
    case Kind::tf32: multiply(simt::Product::tf32, lanes[0].m, lanes[0].n, fragments); break;
    default: distribute(lanes[0].n, m.kind == Kind::load_transposed, fragments); break;
  }
}

uint64_t Team::shuffle(simt::Shuffle mode, uint32_t mask, uint64_t value, uint32_t from, uint32_t width, const simt::Site* site) {
  Lane& lane = lanes_[running_];
  lane.mode = mode;
  lane.value = value;
  lane.lane = from;
  lane.width = width;
  meet(Kind::shuffle, mask, site);
  return lane.value;
}

uint32_t Team::ballot(uint32_t mask, bool predicate, const simt::Site* site) {
  Lane& lane = lanes_[running_];
  lane.value = predicate;
  meet(Kind::ballot, mask, site);
  return static_cast<uint32_t>(lane.value);
}

void Team::warp_sync(uint32_t mask, const simt::Site* site) { meet(Kind::sync, mask, site); }

void Team::mma(simt::Product kind, int m, int n, float* d, const uint32_t* a, const uint32_t* b, const simt::Site* site) {
  Lane& lane = lanes_[running_];
  lane.m = m;
  lane.n = n;
  lane.fragments = {d, a, b, nullptr, nullptr};
  meet(kind == simt::Product::bf16 ? Kind::bf16 : Kind::tf32, ~0u, site);
}

void Team::ldmatrix(int matrices, bool transposed, const uint32_t* row, uint32_t* r, const simt::Site* site) {
  Lane& lane = lanes_[running_];
  lane.n = matrices;
  lane.fragments = {nullptr, nullptr, nullptr, row, r};
  meet(transposed ? Kind::load_transposed : Kind::load, ~0u, site);
}

}  // namespace host
