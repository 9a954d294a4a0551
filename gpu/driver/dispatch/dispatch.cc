// Sends every CUDA driver call of the process to NVIDIA's driver or to the host device, as package driver chose; before the
// choice a call returns CUDA_ERROR_NOT_INITIALIZED, except cuInit, which gorgonia.org/cu calls before main starts and which
// therefore succeeds and decides nothing.
#include "dispatch/dispatch.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include <atomic>

#include "host/host.h"
#include "host/sanitizers.h"

namespace {

#define CU_REQUIRED(name, params, args) \
  CUresult closed_##name params { return CUDA_ERROR_NOT_INITIALIZED; }
#define CU_OPTIONAL CU_REQUIRED
#include "cuda_entries.h"
#undef CU_REQUIRED
#undef CU_OPTIONAL

#define CU_REQUIRED(name, params, args) \
  CUresult unsupported_##name params { return CUDA_ERROR_NOT_SUPPORTED; }
#define CU_OPTIONAL CU_REQUIRED
#include "cuda_entries.h"
#undef CU_REQUIRED
#undef CU_OPTIONAL

constexpr DriverTable kClosed = {
#define CU_REQUIRED(name, params, args) closed_##name,
#define CU_OPTIONAL CU_REQUIRED
#include "cuda_entries.h"
#undef CU_REQUIRED
#undef CU_OPTIONAL
};

std::atomic<const DriverTable*> table{&kClosed};
DriverTable opened;
std::atomic<bool> host_opened{false};
void* library = nullptr;

void say(char* error, size_t size, const char* format, const char* what) {
  if (error != nullptr && size > 0) snprintf(error, size, format, what);
}

// Name and code of a failed cuInit, from the driver itself.
const char* error_name(CUresult code) {
  typedef CUresult (*NameOf)(CUresult, const char**);
  const NameOf name_of = reinterpret_cast<NameOf>(dlsym(library, "cuGetErrorName"));
  const char* name = nullptr;
  if (name_of == nullptr || name_of(code, &name) != CUDA_SUCCESS || name == nullptr) return "an unknown error";
  return name;
}

}  // namespace

void driver_table_unsupported(DriverTable* t) {
#define CU_REQUIRED(name, params, args) t->name = unsupported_##name;
#define CU_OPTIONAL CU_REQUIRED
#include "cuda_entries.h"
#undef CU_REQUIRED
#undef CU_OPTIONAL
}

extern "C" {

CUresult ddgpu_open_cuda(char* error, size_t size) {
  if (table.load() != &kClosed) {
    say(error, size, "%s", "the driver is open already");
    return CUDA_ERROR_ILLEGAL_STATE;
  }
  if (library == nullptr) library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    say(error, size, "NVIDIA's driver library cannot be loaded: %s", dlerror());
    return CUDA_ERROR_SHARED_OBJECT_INIT_FAILED;
  }
  const char* missing = nullptr;
  driver_table_unsupported(&opened);
#define CU_OPTIONAL(name, params, args)                         \
  if (void* const symbol = dlsym(library, #name)) {             \
    opened.name = reinterpret_cast<CUresult(*) params>(symbol); \
  }
#define CU_REQUIRED(name, params, args) \
  CU_OPTIONAL(name, params, args) else if (missing == nullptr) { missing = #name; }
#include "cuda_entries.h"
#undef CU_REQUIRED
#undef CU_OPTIONAL
  if (missing != nullptr) {
    say(error, size, "NVIDIA's driver is older than CUDA 11.4: libcuda.so.1 has no %s", missing);
    return CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND;
  }
  const CUresult code = opened.cuInit(0);
  if (code != CUDA_SUCCESS) {
    say(error, size, "NVIDIA's driver does not start: cuInit returned %s", error_name(code));
    return code;
  }
  table.store(&opened);
  return CUDA_SUCCESS;
}

CUresult ddgpu_open_host(const ddgpu_host_config* config, char* error, size_t size) {
  if (table.load() != &kClosed) {
    say(error, size, "%s", "the driver is open already");
    return CUDA_ERROR_ILLEGAL_STATE;
  }
  const CUresult code = host::open(*config, error, size);
  if (code != CUDA_SUCCESS) return code;
  driver_table_unsupported(&opened);
  host::fill(&opened);
  host_opened = true;
  table.store(&opened);
  return CUDA_SUCCESS;
}

void ddgpu_close(void) {
  table.store(&kClosed);
  if (host_opened) host::close();
  host_opened = false;
}

void ddgpu_error_detail(char* text, size_t size) {
  if (size > 0) text[0] = 0;
  if (host_opened) host::error_detail(text, size);
}

void ddgpu_library_path(char* text, size_t size) {
  if (size > 0) text[0] = 0;
  void* const symbol = library == nullptr ? nullptr : dlsym(library, "cuInit");
  Dl_info info;
  if (symbol != nullptr && dladdr(symbol, &info) != 0) say(text, size, "%s", info.dli_fname);
}

uint64_t ddgpu_allocations(void) { return host_opened ? host::allocations() : 0; }

const char* ddgpu_noted(void) { return host_opened ? host::noted() : ""; }

const char* ddgpu_sanitizer(void) { return host::kAsan ? "address" : host::kTsan ? "thread" : ""; }

CUresult ddgpu_launch(CUfunction fn, const unsigned int* grid, const unsigned int* block, unsigned int shared, CUstream stream,
                      uint64_t* slots, int count) {
  constexpr int kMost = 64;
  void* params[kMost];
  if (count < 0 || count > kMost) return CUDA_ERROR_INVALID_VALUE;
  for (int i = 0; i < count; i++) params[i] = &slots[i];
  return cuLaunchKernel(fn, grid[0], grid[1], grid[2], block[0], block[1], block[2], shared, stream, params, nullptr);
}

CUresult ddgpu_module_load(CUmodule* mod, const char* image, char* log, size_t size) {
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log, reinterpret_cast<void*>(size)};
  if (size > 0) log[0] = 0;
  return cuModuleLoadDataEx(mod, image, 2, options, values);
}

CUresult ddgpu_compile(char* ptx, size_t ptx_size, void** cubin, size_t* cubin_size, char* log, size_t log_size) {
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, CU_JIT_GENERATE_LINE_INFO};
  void* values[] = {log, reinterpret_cast<void*>(log_size), reinterpret_cast<void*>(1)};
  if (log_size > 0) log[0] = 0;
  *cubin = nullptr;
  CUlinkState state;
  CUresult code = cuLinkCreate_v2(3, options, values, &state);
  if (code != CUDA_SUCCESS) return code;
  void* linked = nullptr;
  code = cuLinkAddData_v2(state, CU_JIT_INPUT_PTX, ptx, ptx_size, "kernels", 0, nullptr, nullptr);
  if (code == CUDA_SUCCESS) code = cuLinkComplete(state, &linked, cubin_size);
  if (code == CUDA_SUCCESS) {  // what was linked goes with the state
    *cubin = malloc(*cubin_size);
    if (*cubin == nullptr) code = CUDA_ERROR_OUT_OF_MEMORY;
  }
  if (code == CUDA_SUCCESS) memcpy(*cubin, linked, *cubin_size);
  const CUresult ended = cuLinkDestroy(state);
  return code != CUDA_SUCCESS ? code : ended;
}

CUresult cuInit(unsigned int flags) {
  const DriverTable* const t = table.load(std::memory_order_acquire);
  return t == &kClosed ? CUDA_SUCCESS : t->cuInit(flags);
}

#define CU_REQUIRED(name, params, args) \
  CUresult name params { return table.load(std::memory_order_acquire)->name args; }
#define CU_OPTIONAL CU_REQUIRED
#define CU_INIT(name, params, args)
#include "cuda_entries.h"

}  // extern "C"
