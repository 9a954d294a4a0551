// The threads of a block as fibers, for kernels with barriers or warp collectives.
#pragma once
#include <memory>

#include "host/copies.h"
#include "host/device.h"
#include "host/fiber.h"
#include "host/mma.h"

namespace host {

// A block's threads take turns on one OS thread; a thread gives up its turn only at a barrier or a warp collective. Whose
// turn is next is the configured order, of those that may run:
//
//   forward, reverse   by index, cyclically
//   ahead              one warp runs up to each barrier before the others start; another warp from barrier to barrier
//   random             any
//
// Barrier: __syncthreads() must be reached by all threads of the block, at one place in the source. A thread that has
// returned cannot reach it: CUDA leaves that undefined before sm_70 and counts only the others from then on; here it is an
// error, as is every barrier that some threads cannot reach.
//
// Warp collective: all lanes that the mask names and that have not returned must call it, at one place, with one mask. Lanes
// that the block does not have count as returned. What a lane reads from one of those is undefined: it gets all bits set. The
// lane that comes last computes for all. Disjoint masks are independent of each other. mma and ldmatrix need all 32 lanes.
class Team {
 public:
  explicit Team(const ddgpu_host_config& config);
  ~Team();

  // Runs a block; every thread starts as a copy of `common`, with its own thread_idx.
  Result run(const Launch& launch, const simt::Thread& common);
  // Ends the block from inside one of its threads.
  [[noreturn]] void abandon(Result result);
  // What the threads of all blocks since the last join() did happened before what the caller does next.
  void join() { acquire(&ended_); }

  // What threads call.
  void barrier(const simt::Site* site);
  uint64_t shuffle(simt::Shuffle mode, uint32_t mask, uint64_t value, uint32_t lane, uint32_t width, const simt::Site* site);
  uint32_t ballot(uint32_t mask, bool predicate, const simt::Site* site);
  void warp_sync(uint32_t mask, const simt::Site* site);
  void mma(simt::Product kind, int m, int n, float* d, const uint32_t* a, const uint32_t* b, const simt::Site* site);
  void ldmatrix(int matrices, bool transposed, const uint32_t* row, uint32_t* r, const simt::Site* site);
  Copies& copies() { return lanes_[running_].copies; }

 private:
  static constexpr int kMost = static_cast<int>(kMaxThreads), kWords = kMost / 64, kWarps = kMost / kWarp;

  enum class Kind { shuffle, ballot, sync, bf16, tf32, load, load_transposed };
  struct Lane {
    Fiber fiber;
    simt::Thread thread;
    bool between = false;              // has started, and ended its part of the last block
    const simt::Site* site = nullptr;  // where it waits
    // Operands and result of a warp collective.
    simt::Shuffle mode;
    uint32_t lane, width;
    uint64_t value;
    Fragments fragments;
    int m, n;  // of a product; of a load the number of matrices
    Copies copies;
  };
  // Lanes of a warp that meet, kept at the index of the mask's lowest lane.
  struct Meeting {
    uint32_t mask, arrived = 0;
    const simt::Site* site;
    Kind kind;
    int round;
    char token[2];
  };
  struct Warp {
    uint32_t gone = 0;  // lanes that returned or do not exist
    int waiting = 0;    // meetings that are under way
    Meeting meetings[kWarp];
  };

  bool prepare(int threads);
  [[noreturn]] static void live(Fiber& fiber);
  void finish(int index);
  void meet(Kind kind, uint32_t mask, const simt::Site* site);
  void complete(Warp& warp, int warp_index, Meeting& m);
  void complete_matrices(Lane* lanes, const Meeting& m);
  void give_turn(int index);
  int next();
  [[noreturn]] void stuck();
  void describe_stuck();
  void enter(int index);

  void clear_ready(int i) { ready_[i / 64] &= ~(1ull << (i % 64)); }
  void all_ready();
  int first_from(int start) const;  // first thread that may run, cyclically up from `start`; -1: none
  int last_from(int start) const;   // the same, down

  const int order_;
  uint64_t random_;
  const Launch* launch_ = nullptr;
  Result result_ = CUDA_SUCCESS;
  int threads_ = 0, running_ = 0, turn_ = 0;
  uint64_t ready_[kWords] = {};
  int returned_ = 0, last_returned_ = 0;
  // The barrier that threads wait at.
  int arrived_ = 0, first_arrived_ = 0;
  uint64_t phase_ = 0;                               // barriers passed
  char started_ = 0, ended_ = 0, barriers_[2] = {};  // tokens for TSan; barriers alternate, so that none orders its successor
  Fiber home_;
  Stacks stacks_;
  std::unique_ptr<Lane[]> lanes_;
  std::unique_ptr<Warp[]> warps_;
};

}  // namespace host
