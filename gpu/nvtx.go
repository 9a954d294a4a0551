package gpu

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// NVTX 3 has no library of its own: a program calls through pointers that the tool which profiles it fills in. What a tool reads of the program
// (the export tables, the modules with their number of callbacks, the numbers of two callbacks) is NVTX's binary interface, the same since
// version 2.
typedef void (*nvtx_function)(void);
enum { nvtx_core = 1, nvtx_modules = 7, nvtx_most = 17, nvtx_push_a = 9, nvtx_pop = 11 };
static const unsigned nvtx_callbacks[nvtx_modules] = {0, 16, 9, 15, 7, 16, 7};
static nvtx_function nvtx_slots[nvtx_modules][nvtx_most];
static nvtx_function* nvtx_tables[nvtx_modules][nvtx_most];

static int nvtx_module_table(int module, nvtx_function*** table, unsigned* size) {
  if (module <= 0 || module >= nvtx_modules || table == NULL) return 0;
  *table = nvtx_tables[module];
  if (size != NULL) *size = nvtx_callbacks[module];
  return 1;
}
static void nvtx_tool_version(uint32_t version) { (void)version; }

static const struct {
  size_t size;
  int (*table)(int, nvtx_function***, unsigned*);
} nvtx_export_callbacks = {sizeof nvtx_export_callbacks, nvtx_module_table};
static const struct {
  size_t size;
  uint32_t version, reserved;
  void (*tool)(uint32_t);
} nvtx_export_version = {sizeof nvtx_export_version, 3, 0, nvtx_tool_version};

static const void* nvtx_export(uint32_t id) {
  return id == 1 ? (const void*)&nvtx_export_callbacks : id == 3 ? (const void*)&nvtx_export_version : NULL;
}

static int (*nvtx_push)(const char*);
static int (*nvtx_pop_range)(void);

// Lets the tool whose library lies at `tool` fill the tables; else takes the functions of NVTX 2's library. Returns whether there are ranges.
static int nvtx_load(const char* tool, const char* library) {
  nvtx_push = NULL;
  nvtx_pop_range = NULL;
  for (int m = 1; m < nvtx_modules; m++) {
    for (unsigned i = 1; i < nvtx_callbacks[m]; i++) {
      nvtx_slots[m][i] = NULL;
      nvtx_tables[m][i] = &nvtx_slots[m][i];
    }
  }
  void* handle;
  if (tool[0] != 0 && (handle = dlopen(tool, RTLD_LAZY)) != NULL) {
    int (*start)(const void* (*)(uint32_t)) = (int (*)(const void* (*)(uint32_t)))dlsym(handle, "InitializeInjectionNvtx2");
    if (start != NULL && start(nvtx_export) != 0) {
      nvtx_push = (int (*)(const char*))nvtx_slots[nvtx_core][nvtx_push_a];
      nvtx_pop_range = (int (*)(void))nvtx_slots[nvtx_core][nvtx_pop];
    }
  } else if (library[0] != 0 && (handle = dlopen(library, RTLD_LAZY)) != NULL) {
    nvtx_push = (int (*)(const char*))dlsym(handle, "nvtxRangePushA");
    nvtx_pop_range = (int (*)(void))dlsym(handle, "nvtxRangePop");
  }
  return nvtx_push != NULL && nvtx_pop_range != NULL;
}
static void nvtx_call_push(const char* name) { nvtx_push(name); }
static void nvtx_call_pop(void) { nvtx_pop_range(); }
*/
import "C"

import (
	"os"
	"sync"
	"unsafe"
)

// profiled loads what ranges go to, once: the tool that started the program (Nsight Systems and Nsight Compute name themselves in
// NVTX_INJECTION64_PATH), else NVTX 2's library where there is one, which older tools know.
var profiled = sync.OnceValue(func() bool { return loadRanges(os.Getenv("NVTX_INJECTION64_PATH"), "libnvToolsExt.so.1") })

func loadRanges(tool, library string) bool {
	t, l := C.CString(tool), C.CString(library)
	defer C.free(unsafe.Pointer(t))
	defer C.free(unsafe.Pointer(l))
	return C.nvtx_load(t, l) != 0
}

// PushRange begins a named range of NVTX in the calling thread, so that NVIDIA's profilers show which layer a launch belongs to. Ranges nest.
// Without a profiler it does nothing.
func PushRange(name string) {
	if !profiled() {
		return
	}
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	C.nvtx_call_push(text)
}

// PopRange ends the range that PushRange began last.
func PopRange() {
	if profiled() {
		C.nvtx_call_pop()
	}
}
