// The table that every driver entry point goes through, and what package driver calls to fill it.
#pragma once
#include "cuda.h"

#ifdef __cplusplus
// One function pointer per entry point, named like it.
struct DriverTable {
#define CU_REQUIRED(name, params, args) CUresult(*name) params;
#define CU_OPTIONAL(name, params, args) CUresult(*name) params;
#include "cuda_entries.h"
#undef CU_REQUIRED
#undef CU_OPTIONAL
};
// Fills `table` with stubs that return `CUDA_ERROR_NOT_SUPPORTED`.
void driver_table_unsupported(DriverTable* table);
extern "C" {
#endif

// Settings of the host device; zero means the default of each.
typedef struct {
  int devices;        // number of devices (1)
  uint64_t memory;    // bytes per device (80% of the machine's memory, divided by devices)
  int threads;        // OS threads per device (cores divided by devices)
  int gpu_tiles;      // run the kernels' GPU configuration on fibers
  int ptx;            // interpret the PTX of modules
  int order;          // DDGPU_ORDER_…: the order in which the threads of a block run
  uint64_t seed;      // of DDGPU_ORDER_RANDOM
  int lazy;           // queued work waits until something waits for it
  int no_peers;       // no device can reach another's memory
  int dry;            // kernels and fills are checked and noted, not run; new memory is not written
  int fault;          // DDGPU_FAULT_…
  uint64_t fault_at;  // the fault hits the fault_at-th operation of its kind, from 1
} ddgpu_host_config;

enum { DDGPU_ORDER_FORWARD, DDGPU_ORDER_REVERSE, DDGPU_ORDER_AHEAD, DDGPU_ORDER_RANDOM };
enum {
  DDGPU_FAULT_NONE,
  DDGPU_FAULT_ALLOC,   // an allocation finds no memory
  DDGPU_FAULT_COPY,    // a copy fails: CUDA_ERROR_ECC_UNCORRECTABLE
  DDGPU_FAULT_LAUNCH,  // a kernel fails: CUDA_ERROR_LAUNCH_FAILED
  DDGPU_FAULT_LOST,    // the device falls off the bus at a kernel or copy: CUDA_ERROR_UNKNOWN from then on
  DDGPU_FAULT_HANG,    // a kernel never ends
};

// Connects the process to NVIDIA's driver, or to the host device. A message of what went wrong is left in `error`.
CUresult ddgpu_open_cuda(char* error, size_t size);
CUresult ddgpu_open_host(const ddgpu_host_config* config, char* error, size_t size);
// Disconnects: calls return CUDA_ERROR_NOT_INITIALIZED again. The host device frees all that it holds.
void ddgpu_close(void);
// Writes what the host device knows about the last error of the process beyond its code; empty with NVIDIA's driver.
void ddgpu_error_detail(char* text, size_t size);
// Writes the path of NVIDIA's driver library; empty when it is not loaded.
void ddgpu_library_path(char* text, size_t size);
// How many allocations the host device was asked for since it was opened, pinned ones included; 0 with NVIDIA's driver.
uint64_t ddgpu_allocations(void);
// What a dry host device's kernels were, since the last call: a line for each, its entry, grid, threads of a block, dynamic shared
// memory and arguments, a pointer as 0 or 1. The text is the library's, until the next call.
const char* ddgpu_noted(void);
// The sanitizer that the library was built with: "address", "thread" or "".
const char* ddgpu_sanitizer(void);
// Launches with the arguments in 8-byte slots.
CUresult ddgpu_launch(CUfunction fn, const unsigned int* grid, const unsigned int* block, unsigned int shared, CUstream stream,
                      uint64_t* slots, int count);
// Loads a module image and leaves the compiler's error log in `log`.
CUresult ddgpu_module_load(CUmodule* mod, const char* image, char* log, size_t size);
// Compiles PTX, which ends with a zero within its size, for the current context's device, with line information; `cubin` is for
// the caller to free. Leaves the compiler's error log in `log`.
CUresult ddgpu_compile(char* ptx, size_t ptx_size, void** cubin, size_t* cubin_size, char* log, size_t log_size);

// What the PTX executor counted of the launches of one kernel.
enum { DDGPU_COUNTER_CLASSES = 16 };
typedef struct {
  char name[96];
  uint64_t launches;
  uint64_t instructions[DDGPU_COUNTER_CLASSES];  // of a warp, by class
  uint64_t lanes;                                // active in all of them
  uint64_t branches, divergent;
  uint64_t global_requests, global_sectors, load_sectors, store_sectors;  // sectors of 32 bytes
  uint64_t read_bytes, written_bytes;                                     // different ones of each launch
  uint64_t shared_requests, wavefronts, least_wavefronts;
} ddgpu_kernel_counters;
// Begins anew to count, or ends it.
void ddgpu_counters_start(int on);
// Counters of the kernel number index, by name; 0 where there are no more.
int ddgpu_counters_read(int index, ddgpu_kernel_counters* counters);
// The name of a class of instructions, null where there are no more.
const char* ddgpu_counters_class(int index);

#ifdef __cplusplus
}
#endif
