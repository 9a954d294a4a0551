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

// mma.sync of m x n fragments, d[m][n][4] += a[m][4] b[n][2] of every lane; ldmatrix of the 16 bytes that each of the first
// 8 * matrices lanes read at its row; both by all 32 lanes of the warp. mma.cuh has the layouts.
enum class Product : int { bf16, tf32 };  // m16n8k16, m16n8k8
constexpr int max_product_rows = 8;       // of m
void mma(Product kind, int m, int n, float* d, const uint32_t* a, const uint32_t* b, const Site* site);
void ldmatrix(int matrices, bool transposed, const uint32_t* row, uint32_t* r, const Site* site);
// A fault unless `bytes` at p, a multiple of them, are the block's shared memory.
void check_shared(const void* p, size_t bytes, const Site* site);

// cp.async of 16 bytes: what the thread has issued, in order; global is null for zeros. The caller moves the bytes, as its own
// accesses: async_arrived gives, one by one, the copies of all committed groups but the last `pending`.
struct Copy {
  void* shared;
  const void* global;
};
void async_copy(void* shared, const void* global, const Site* site);
void async_commit();
bool async_arrived(int pending, Copy* copy);

// The block's shared array that is declared at `site`: the same memory for every thread, however often it comes by.
void* shared_alloc(size_t bytes, size_t align, const Site* site);

// Memory of the OS thread, for host tiles: the same for all blocks of a launch that it runs, uninitialised before. There are two, slot 0
// and 1. kept: whether an earlier block of this launch asked for the slot with the same tag, so that what it wrote is there.
void* keep(int slot, size_t bytes, uint64_t tag, bool* kept);

// Ends the launch with a device fault (CUDA_ERROR_ASSERT) that names the site.
[[noreturn]] void trap(const char* what, const Site* site);

enum class Param : uint8_t { pointer, i32, i64, real };

constexpr int max_params = 32;

struct Entry {
  const char* name;                   // PTX entry name
  const char* variant;                // {f32,tf32,bf16}_{v3,v4,neon,gpu}, f64_gpu
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
