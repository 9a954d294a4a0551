// Modules, functions and launches. A module is PTX text, as on a GPU; its entries are served by the kernels that were compiled
// for the CPU from the same sources, or, on --devices ptx, by the PTX itself. A first line "// ddgpu precision=bf16" (tf32, fp64)
// asks for that build of them, "executor=compiled" on it for the compiled ones where the PTX would be run.
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <sstream>

#include "host/block.h"
#include "host/device.h"
#include "host/ptx/load.h"
#include "host/workers.h"

extern "C" {
extern const simt::Entry* const __start_simt_entries[] __attribute__((weak));
extern const simt::Entry* const __stop_simt_entries[] __attribute__((weak));
extern const simt::Global* const __start_simt_globals[] __attribute__((weak));
extern const simt::Global* const __stop_simt_globals[] __attribute__((weak));
extern const simt::Resources* const __start_simt_resources[] __attribute__((weak));
extern const simt::Resources* const __stop_simt_resources[] __attribute__((weak));
}

namespace host {

namespace {

// ptxas's table for sm_70, written by ./build.sh ptx-check.
constexpr simt::Resources kResources[] = {
#include "host/registers.inc"
    {"", 0},
};

// By Precision: as the module's first line has it, and as the kernels' variants begin.
constexpr const char* kPrecisions[] = {"fp32", "tf32", "bf16", "fp64"};
constexpr const char* kVariants[] = {"f32_", "tf32_", "bf16_", "f64_"};
std::string variants[4];

class Kernel : public Work {
 public:
  Kernel(const Launch& launch, void* const* params, Function& function)
      : launch_(launch),
        context_(function.context),
        function_(function.weak_from_this()),
        program_(function.module->program),
        task_{function.program, {}} {
    if (task_.program != nullptr) launch_.task = &task_;
    const simt::Entry& entry = *launch.entry;
    for (int i = 0; i < entry.params; i++) {
      memcpy(&values_[i], params[i], entry.sizes[i]);
      launch_.args[i] = &values_[i];
    }
  }
  Result run(Device& device) override {
    {
      Lock lock(driver->mutex);
      const uint64_t count = ++driver->launches;
      const ddgpu_host_config& c = driver->config;
      const unsigned long long n = count;
      if (c.fault == DDGPU_FAULT_LAUNCH && c.fault_at == count) {
        set_detail("injected fault: launch %llu (%s) failed", n, launch_.entry->name);
        return CUDA_ERROR_LAUNCH_FAILED;
      }
      if (c.fault == DDGPU_FAULT_LOST && c.fault_at == count + driver->copies) {
        set_detail("injected fault: device %d fell off the bus", device.ordinal);
        device.lost = true;
        return CUDA_ERROR_UNKNOWN;
      }
      if (c.fault == DDGPU_FAULT_HANG && c.fault_at == count) {
        set_detail("injected fault: launch %llu (%s) hangs", n, launch_.entry->name);
        driver->progress.wait(lock, [] { return driver->closing; });
        return CUDA_ERROR_LAUNCH_TIMEOUT;
      }
      if (c.dry) {
        note();
        return CUDA_SUCCESS;
      }
      if (launch_.task != nullptr) task_.ranges = ptx::reachable_memory(*context_);
    }
    return device.workers->run(launch_);
  }
  Result check(Context& context) override {
    const simt::Entry& entry = *launch_.entry;
    if (function_.expired()) {
      set_detail("kernel %s was captured from a module that has been unloaded since", entry.name);
      return CUDA_ERROR_INVALID_HANDLE;
    }
    for (int i = 0; i < entry.params; i++) {
      if (entry.kinds[i] != simt::Param::pointer) continue;
      if (const Result r = check_pointer(context, values_[i], entry.aligns[i], entry.name, i)) return r;
    }
    return CUDA_SUCCESS;
  }

 private:
  void note() const {
    const simt::Entry& entry = *launch_.entry;
    std::ostringstream line;
    line << entry.name << ' ' << launch_.grid.x << ' ' << launch_.grid.y << ' ' << launch_.grid.z << ' '
         << launch_.block.x * launch_.block.y * launch_.block.z << ' ' << launch_.dynamic_shared;
    for (int i = 0; i < entry.params; i++) {
      const void* const v = &values_[i];
      line << ' ';
      switch (entry.kinds[i]) {
        case simt::Param::pointer: line << (values_[i] != 0); break;
        case simt::Param::i32: line << *static_cast<const int32_t*>(v); break;
        case simt::Param::i64: line << *static_cast<const int64_t*>(v); break;
        case simt::Param::real:
          line << (entry.sizes[i] == 8 ? *static_cast<const double*>(v) : *static_cast<const float*>(v));
          break;
      }
    }
    driver->notes += line.str() + '\n';
  }

  Launch launch_;
  Context* context_;
  std::weak_ptr<Function> function_;
  std::shared_ptr<ptx::Module> program_;  // outlives the module's handle
  ptx::Task task_;
  uint64_t values_[simt::max_params] = {};
};

// The words of PTX that follow ".entry" or name a global.
std::vector<std::string> names_after(const std::string& ptx, const char* keyword) {
  std::vector<std::string> names;
  const size_t length = strlen(keyword);
  for (size_t at = ptx.find(keyword); at != std::string::npos; at = ptx.find(keyword, at + 1)) {
    size_t i = at + length;
    while (i < ptx.size() && (ptx[i] == ' ' || ptx[i] == '\t')) i++;
    size_t end = i;
    while (end < ptx.size() && (isalnum(static_cast<unsigned char>(ptx[end])) || ptx[end] == '_' || ptx[end] == '$')) end++;
    if (end > i) names.push_back(ptx.substr(i, end - i));
  }
  return names;
}

// The settings of a first line "// ddgpu key=value …". False: one is unknown, and the log says so.
bool read_settings(const std::string& ptx, Precision* precision, bool* compiled, std::string* log) {
  const std::string head = "// ddgpu ";
  if (ptx.compare(0, head.size(), head) != 0) return true;
  std::istringstream words(ptx.substr(head.size(), ptx.find('\n') - head.size()));
  for (std::string word; words >> word;) {
    const size_t equals = std::min(word.find('='), word.size());
    const std::string key = word.substr(0, equals), value = word.substr(std::min(equals + 1, word.size()));
    const auto found = std::find(std::begin(kPrecisions), std::end(kPrecisions), value);
    if (key == "precision" && found != std::end(kPrecisions)) {
      *precision = static_cast<Precision>(found - std::begin(kPrecisions));
    } else if (key == "executor" && value == "compiled") {
      *compiled = true;
    } else {
      *log = "the first line asks for " + word + ": want precision=fp32, tf32, bf16 or fp64, or executor=compiled";
      return false;
    }
  }
  return true;
}

Result load(CUmodule* handle, const char* image, std::string* log) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  if (const Result r = forbid_in_capture()) return r;
  if (handle == nullptr || image == nullptr) return CUDA_ERROR_INVALID_VALUE;
  auto module = std::make_shared<Module>();
  module->context = context;
  module->ptx = image + (strncmp(image, kCubin, strlen(kCubin)) == 0 ? strlen(kCubin) : 0);
  if (const Result r = read_ptx(*module, log)) return r;
  driver->modules[module.get()] = module;
  *handle = reinterpret_cast<CUmodule>(module.get());
  return CUDA_SUCCESS;
}

Result module_load_data_ex(CUmodule* handle, const void* image, unsigned n, CUjit_option* options, void** values) {
  std::string log;
  const Result result = load(handle, static_cast<const char*>(image), &log);
  JitLog(n, options, values).write(log);
  return result;
}
Result module_load_data(CUmodule* handle, const void* image) { return module_load_data_ex(handle, image, 0, nullptr, nullptr); }

Result module_unload(CUmodule handle) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  if (const Result r = forbid_in_capture()) return r;
  Module* module = find(driver->modules, handle);
  if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const Result r = wait_context(lock, *module->context);
  for (auto& [name, function] : module->functions) driver->functions.erase(function);
  for (auto& [name, global] : module->globals) release(global.first);
  driver->modules.erase(handle);
  driver->memory_changes++;
  return r;
}

Result get_function(CUfunction* handle, CUmodule module_handle, const char* name) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Module* const module = find(driver->modules, module_handle);
  if (module == nullptr || module->context != context) return CUDA_ERROR_INVALID_HANDLE;
  if (handle == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const auto it = module->functions.find(name);
  if (it == module->functions.end()) return CUDA_ERROR_NOT_FOUND;
  if (it->second == nullptr) {
    // With lazy loading this is where a driver loads the kernel, which those before CUDA 12.3 do not during a capture.
    if (const Result r = forbid_in_capture()) return r;
    auto function = std::make_shared<Function>();
    function->context = context;
    function->module = module;
    if (module->program != nullptr) {
      ptx::find_program(*module->program, name, &function->program, &function->entry);
    } else {
      function->entry = find_entry(name, module->precision);
    }
    function->registers = find_registers(name, module->precision);
    function->max_dynamic_shared = kShared * module->reals();
    it->second = function.get();
    driver->functions[function.get()] = function;
  }
  *handle = reinterpret_cast<CUfunction>(it->second);
  return CUDA_SUCCESS;
}

bool global_data(const Module& module, const std::string& name, const void** data, size_t* bytes) {
  if (module.program != nullptr) return ptx::find_variable(*module.program, name, data, bytes);
  const simt::Global* const global = find_global(name, module.precision);
  if (global == nullptr || module.ptx.find(" " + name + "[") == std::string::npos) return false;
  *data = global->data;
  *bytes = global->bytes;
  return true;
}

Result get_global(CUdeviceptr* ptr, size_t* bytes, CUmodule module_handle, const char* name) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Module* const module = find(driver->modules, module_handle);
  if (module == nullptr || module->context != context) return CUDA_ERROR_INVALID_HANDLE;
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  auto it = module->globals.find(name);
  if (it == module->globals.end()) {
    const void* data;
    size_t size;
    if (!global_data(*module, name, &data, &size)) return CUDA_ERROR_NOT_FOUND;
    if (const Result r = place_global(*module, name, data, size)) return r;
    it = module->globals.find(name);
  }
  if (ptr != nullptr) *ptr = it->second.first;
  if (bytes != nullptr) *bytes = it->second.second;
  return CUDA_SUCCESS;
}

Result get_attribute(int* value, CUfunction_attribute attribute, CUfunction handle) {
  Lock lock(driver->mutex);
  Function* const function = find(driver->functions, handle);
  if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = function->entry->threads; break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
      *value = function->program == nullptr ? 0 : static_cast<int>(function->program->shared_bytes);
      break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS: *value = function->registers; break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *value = static_cast<int>(function->max_dynamic_shared); break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *value = (driver->config.ptx ? kMajorPtx : kMajor) * 10 + kMinor; break;
    default: *value = 0; break;
  }
  return CUDA_SUCCESS;
}

Result set_attribute(CUfunction handle, CUfunction_attribute attribute, int value) {
  Lock lock(driver->mutex);
  Function* const function = find(driver->functions, handle);
  if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) return CUDA_SUCCESS;
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_ERROR_INVALID_VALUE;
  if (value < 0 || static_cast<size_t>(value) > kSharedOptIn * function->module->reals()) return CUDA_ERROR_INVALID_VALUE;
  function->max_dynamic_shared = static_cast<size_t>(value);
  return CUDA_SUCCESS;
}

// Registers that a block takes: a warp gets them in units of 256.
int registers_of_block(int per_thread, uint64_t threads) {
  return (per_thread * kWarp + 255) / 256 * 256 * static_cast<int>((threads + kWarp - 1) / kWarp);
}

Result launch_kernel(CUfunction handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                     unsigned shared, CUstream stream_handle, void** params, void** extra) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Function* const function = find(driver->functions, handle);
  if (function == nullptr || function->context != context) return CUDA_ERROR_INVALID_HANDLE;
  Stream* stream;
  if (const Result r = find_stream(*context, stream_handle, &stream)) return r;
  const simt::Entry& entry = *function->entry;
  if (extra != nullptr || (params == nullptr && entry.params > 0)) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t threads = static_cast<uint64_t>(bx) * by * bz;
  auto invalid = [&](const char* what) {
    set_detail("kernel %s, grid (%u, %u, %u), block (%u, %u, %u): %s", entry.name, gx, gy, gz, bx, by, bz, what);
    return CUDA_ERROR_INVALID_VALUE;
  };
  if (gx == 0 || gy == 0 || gz == 0 || threads == 0) return invalid("empty");
  if (gx > kMaxGridX || gy > kMaxGridYZ || gz > kMaxGridYZ) return invalid("grid beyond 2147483647 × 65535 × 65535");
  if (bx > kMaxThreads || by > kMaxThreads || bz > kMaxBlockZ || threads > kMaxThreads)
    return invalid("block beyond 1024 threads");
  if (threads > static_cast<uint64_t>(entry.threads)) return invalid("block beyond the kernel's launch bound");
  if (shared > function->max_dynamic_shared) return invalid("dynamic shared memory beyond the function's limit");
  if (registers_of_block(function->registers, threads) > kRegisters) {
    invalid("registers × threads beyond the chip's");
    return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  }
  const size_t own = kShared * function->module->reals();
  const size_t limit = function->max_dynamic_shared > own ? kSharedOptIn * function->module->reals() : own;
  if (function->program != nullptr && function->program->shared_bytes + shared > limit) {
    return invalid("static and dynamic shared memory beyond the limit");
  }
  Launch launch{&entry, {gx, gy, gz}, {bx, by, bz}, shared, limit, {}};
  auto work = std::make_shared<Kernel>(launch, params, *function);
  if (const Result r = work->check(*context)) return r;
  return submit(*stream, std::move(work));
}

Result max_active_blocks(int* blocks, CUfunction handle, int block_size, size_t shared) {
  Lock lock(driver->mutex);
  Function* const function = find(driver->functions, handle);
  if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (blocks == nullptr || block_size <= 0 || block_size > static_cast<int>(kMaxThreads)) return CUDA_ERROR_INVALID_VALUE;
  int most = 2048 / block_size;
  if (shared > 0) most = std::min(most, static_cast<int>(kSharedOptIn / shared));
  if (function->registers > 0) most = std::min(most, kRegisters / registers_of_block(function->registers, block_size));
  *blocks = std::min(most, 32);
  return CUDA_SUCCESS;
}

// The range of a linker section; weak, as a program without kernels has none.
template <class T>
const T* search(const T* const* begin, const T* const* end, const std::string& name, const char* variant) {
  for (const T* const* at = begin; at != end; at++) {
    if (name == (*at)->name && strcmp((*at)->variant, variant) == 0) return *at;
  }
  return nullptr;
}

// Whether the program has kernels of a variant; sanitizer builds lack some.
bool built(const char* variant) {
  for (auto at = __start_simt_entries; at != __stop_simt_entries; at++) {
    if (strcmp((*at)->variant, variant) == 0) return true;
  }
  return false;
}

}  // namespace

Result read_ptx(Module& module, std::string* log) {
  module.precision = Precision::fp32;
  bool compiled = false;
  if (!read_settings(module.ptx, &module.precision, &compiled, log)) return CUDA_ERROR_INVALID_PTX;
  if (module.ptx.find(".version") == std::string::npos || module.ptx.find(".target") == std::string::npos) {
    *log = "the image is not PTX: no .version or .target";
    return CUDA_ERROR_INVALID_PTX;
  }
  int major = 0, minor = 0, target = 0;
  sscanf(module.ptx.c_str() + module.ptx.find(".version"), ".version %d.%d", &major, &minor);
  sscanf(module.ptx.c_str() + module.ptx.find(".target"), ".target sm_%d", &target);
  if (major * 10 + minor > kPtx) return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
  if (target > kTarget) return CUDA_ERROR_NO_BINARY_FOR_GPU;
  if (driver->config.ptx && !compiled) return ptx::load(module, log);
  for (const std::string& name : names_after(module.ptx, ".entry")) {
    if (find_entry(name, module.precision) == nullptr) {
      if (only_gpu_tiles(name, module.precision)) continue;  // not found, as in a module without it
      *log = "entry " + name + " has no build for " + variant_name(module.precision);
      return CUDA_ERROR_NO_BINARY_FOR_GPU;
    }
    module.functions[name] = nullptr;
  }
  return CUDA_SUCCESS;
}

Result place_global(Module& module, const std::string& name, const void* data, size_t bytes) {
  Result r;
  const uintptr_t memory = allocate(*module.context, bytes, false, &r);
  if (r != CUDA_SUCCESS) return r;
  memcpy(reinterpret_cast<void*>(memory), data, bytes);
  module.globals.emplace(name, std::make_pair(memory, bytes));
  return CUDA_SUCCESS;
}

bool choose_variants(char* error, size_t size) {
  const char* target = "gpu";
  if (!driver->config.gpu_tiles) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v4") && built("f32_v4")) {
      target = "v4";
    } else if (__builtin_cpu_supports("x86-64-v3")) {
      target = "v3";
    } else {
      snprintf(error, size, "the host device needs a processor with AVX2 and FMA (x86-64-v3)");
      return false;
    }
#else
    (void)error, (void)size;
    target = "neon";
#endif
  }
  for (int p = 0; p < 4; p++) variants[p] = std::string(kVariants[p]) + target;
  variants[static_cast<int>(Precision::fp64)] = "f64_gpu";  // there is no other
  return true;
}

const char* variant_name(Precision p) { return variants[static_cast<int>(p)].c_str(); }

const simt::Entry* find_entry(const std::string& name, Precision p) {
  return search(__start_simt_entries, __stop_simt_entries, name, variant_name(p));
}
bool only_gpu_tiles(const std::string& name, Precision p) {
  return search(__start_simt_entries, __stop_simt_entries, name, (std::string(kVariants[static_cast<int>(p)]) + "gpu").c_str()) !=
         nullptr;
}
const simt::Global* find_global(const std::string& name, Precision p) {
  return search(__start_simt_globals, __stop_simt_globals, name, variant_name(p));
}

// The table is of the builds for sm_70: those of other precisions are not known.
int find_registers(const std::string& name, Precision p) {
  if (p != Precision::fp32 && p != Precision::fp64) return 0;
  for (auto at = __start_simt_resources; at != __stop_simt_resources; at++) {
    if (name == (*at)->name) return (*at)->registers;
  }
  for (const simt::Resources& r : kResources) {
    if (name == r.name) return r.registers;
  }
  return 0;
}

const char* noted() {
  Lock lock(driver->mutex);
  driver->noted = std::move(driver->notes);
  driver->notes.clear();
  return driver->noted.c_str();
}

JitLog::JitLog(unsigned n, const CUjit_option* options, void* const* values) {
  for (unsigned i = 0; i < n; i++) {
    if (options[i] == CU_JIT_ERROR_LOG_BUFFER) buffer_ = static_cast<char*>(values[i]);
    if (options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) size_ = reinterpret_cast<size_t>(values[i]);
  }
}

void JitLog::write(const std::string& text) const {
  if (buffer_ != nullptr && size_ > 0) snprintf(buffer_, size_, "%s", text.c_str());
}

void fill_module(DriverTable* t) {
  t->cuModuleLoadData = module_load_data;
  t->cuModuleLoadDataEx = module_load_data_ex;
  t->cuModuleUnload = module_unload;
  t->cuModuleGetFunction = get_function;
  t->cuModuleGetGlobal_v2 = get_global;
  t->cuFuncGetAttribute = get_attribute;
  t->cuFuncSetAttribute = set_attribute;
  t->cuLaunchKernel = launch_kernel;
  t->cuOccupancyMaxActiveBlocksPerMultiprocessor = max_active_blocks;
}

}  // namespace host
