// The contract between a kernel compiled for the CPU and the host device that runs it.
//
// A kernel source is compiled once per variant (float or double, host or GPU tiles, instruction set). Each entry leaves an
// Entry in the linker section simt_entries and each geometry table a Global in simt_globals; the host device finds them
// through the section's start and stop symbols, keyed by the entry's PTX name and the variant.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace simt {

struct Index {
  unsigned x, y, z;
};

// State of one CUDA thread. A fiber owns one; a plain loop over threads updates one.
struct Thread {
  Index thread_idx, block_idx, block_dim, grid_dim;
  char* dynamic_shared;  // dynamic shared memory of the launch
};

// The thread that runs on this OS thread now. A block never changes its OS thread.
extern __thread Thread* current __attribute__((tls_model("initial-exec")));

// Barriers and warp collectives, in terms of the PTX ISA: bar.sync 0, shfl.sync, vote.sync. `site` identifies the call in
// the source, so that two threads that meet at different calls are an error and not a coincidence.
struct Site {
  const char* file;
  int line;
};
enum class Shuffle : int { idx, up, down, bfly };

void barrier(const Site* site);
void warp_sync(uint32_t mask, const Site* site);
uint64_t shuffle(Shuffle mode, uint32_t mask, uint64_t value, uint32_t lane, uint32_t width, const Site* site);
uint32_t ballot(uint32_t mask, bool predicate, const Site* site);

// The block's shared array that is declared at `site`: the same memory for every thread, however often it comes by.
void* shared_alloc(size_t bytes, size_t align, const Site* site);

// Ends the launch with a device fault (CUDA_ERROR_ASSERT) that names the site.
[[noreturn]] void trap(const char* what, const Site* site);

enum class Param : uint8_t { pointer, i32, i64, real };

constexpr int max_params = 32;

struct Entry {
  const char* name;                   // PTX entry name
  const char* variant;                // f32_v3, f32_v4, f32_neon, f32_gpu, f64_gpu
  void (*invoke)(void* const* args);  // runs the body once, as simt::current
  int params;
  Param kinds[max_params];
  uint8_t sizes[max_params];
  uint8_t aligns[max_params];  // of a pointer parameter: the alignment of what it points to
  int threads;                 // launch bound: the most threads of a block (.maxntid)
  bool cooperative;            // uses barriers or warp collectives: threads need fibers when a block has more than one
};

// What ptxas says about an entry on the emulated chip; listed in the linker section simt_resources.
struct Resources {
  const char* name;
  int registers;  // per thread
};

// A constant table of a module, read through cuModuleGetGlobal.
struct Global {
  const char* name;
  const char* variant;
  const int* data;
  size_t bytes;
};

}  // namespace simt
