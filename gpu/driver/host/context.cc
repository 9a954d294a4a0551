// Devices, primary contexts and the context that is current on each thread.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "host/device.h"
#include "host/workers.h"

namespace host {

Driver* driver = nullptr;

namespace {

// The stack of contexts of this thread; cuCtxSetCurrent replaces its top. A context destroyed elsewhere stays here as a handle
// that no longer resolves.
constexpr int kMaxDepth = 64;
thread_local Context* stack[kMaxDepth];
thread_local int depth = 0;
thread_local uint64_t stack_generation = 0;
uint64_t generation = 0;  // counts opens, so that a handle of an earlier one is never taken for a new one

void sync_stack() {
  if (stack_generation != generation) {
    depth = 0;
    stack_generation = generation;
  }
}

Device* find_device(CUdevice dev) {
  return dev >= 0 && dev < static_cast<int>(driver->devices.size()) ? driver->devices[dev].get() : nullptr;
}

void destroy_context(Lock& lock, Context& context) {
  wait_context(lock, context);
  for (auto& capture : driver->captures) capture->invalid = true;
  auto drop = [&](auto& handles) {
    for (auto it = handles.begin(); it != handles.end();) {
      it = it->second->context == &context ? handles.erase(it) : std::next(it);
    }
  };
  drop(driver->execs);
  drop(driver->graphs);
  drop(driver->functions);
  drop(driver->modules);
  drop(driver->links);
  drop(driver->events);
  drop(driver->streams);
  for (auto& stream : context.streams) {
    stream->queue.clear();
    stream->context = nullptr;
    auto& all = context.device->streams;
    all.erase(std::remove(all.begin(), all.end(), stream), all.end());
  }
  release_all(context);
  for (auto& [handle, other] : driver->contexts) {
    auto& peers = other->peers;
    peers.erase(std::remove(peers.begin(), peers.end(), &context), peers.end());
  }
  driver->contexts.erase(&context);
}

Result driver_get_version(int* version) {
  if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *version = kCuda;
  return CUDA_SUCCESS;
}

Result init(unsigned flags) { return flags == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }

Result device_get(CUdevice* dev, int ordinal) {
  if (dev == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(driver->mutex);
  if (find_device(ordinal) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *dev = ordinal;
  return CUDA_SUCCESS;
}

Result device_get_count(int* count) {
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(driver->mutex);
  *count = static_cast<int>(driver->devices.size());
  return CUDA_SUCCESS;
}

Result device_get_name(char* name, int len, CUdevice dev) {
  if (name == nullptr || len <= 0) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(driver->mutex);
  if (find_device(dev) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  snprintf(name, len, "host device %d (%s)", dev, driver->config.ptx ? "ptx" : variant_name(Precision::fp32));
  return CUDA_SUCCESS;
}

Result device_get_uuid(CUuuid* uuid, CUdevice dev) {
  if (uuid == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(driver->mutex);
  if (find_device(dev) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  memset(uuid->bytes, 0, sizeof uuid->bytes);
  memcpy(uuid->bytes, "ddgpu-host", 10);
  uuid->bytes[15] = static_cast<char>(dev);
  return CUDA_SUCCESS;
}

Result device_total_mem(size_t* bytes, CUdevice dev) {
  if (bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(driver->mutex);
  Device* const device = find_device(dev);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *bytes = device->total;
  return CUDA_SUCCESS;
}

Result device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice dev) {
  if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(driver->mutex);
  Device* const device = find_device(dev);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: *value = kMaxThreads; break;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: *value = kMaxBlockZ; break;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: *value = kMaxGridX; break;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: *value = kMaxGridYZ; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: *value = kShared; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = kSharedOptIn; break;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR: *value = kRegisters; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = kWarp; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = device->workers->threads(); break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: *value = 2048; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = driver->config.ptx ? kMajorPtx : kMajor; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = kMinor; break;
    case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY: *value = 65536; break;
    case CU_DEVICE_ATTRIBUTE_INTEGRATED:
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: *value = 1; break;
    case CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID: *value = dev; break;
    default: *value = 0; break;
  }
  return CUDA_SUCCESS;
}

Result device_can_access_peer(int* can, CUdevice dev, CUdevice peer) {
  if (can == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(driver->mutex);
  if (find_device(dev) == nullptr || find_device(peer) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *can = dev != peer && !driver->config.no_peers;
  return CUDA_SUCCESS;
}

Result primary_retain(CUcontext* ctx, CUdevice dev) {
  if (ctx == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(driver->mutex);
  Device* const device = find_device(dev);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  if (device->lost) return CUDA_ERROR_UNKNOWN;
  if (device->primary == nullptr) {
    auto context = std::make_shared<Context>();
    context->device = device;
    context->flags = device->primary_flags;
    device->primary = context.get();
    driver->contexts[context.get()] = context;
    context->null_stream = make_stream(*context, CU_STREAM_DEFAULT, 0);
    context->null_stream->legacy = true;
  }
  device->retained++;
  *ctx = reinterpret_cast<CUcontext>(device->primary);
  return CUDA_SUCCESS;
}

Result primary_end(Device& device, Lock& lock) {
  Context* const context = device.primary;
  device.primary = nullptr;
  device.retained = 0;
  if (context != nullptr) destroy_context(lock, *context);
  return CUDA_SUCCESS;
}

Result primary_release(CUdevice dev) {
  Lock lock(driver->mutex);
  Device* const device = find_device(dev);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  if (device->retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
  return --device->retained > 0 ? CUDA_SUCCESS : primary_end(*device, lock);
}

Result primary_reset(CUdevice dev) {
  Lock lock(driver->mutex);
  Device* const device = find_device(dev);
  return device == nullptr ? CUDA_ERROR_INVALID_DEVICE : primary_end(*device, lock);
}

Result primary_set_flags(CUdevice dev, unsigned flags) {
  if ((flags & ~static_cast<unsigned>(CU_CTX_FLAGS_MASK)) != 0) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(driver->mutex);
  Device* const device = find_device(dev);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  device->primary_flags = flags;
  if (device->primary != nullptr) device->primary->flags = flags;
  return CUDA_SUCCESS;
}

Result primary_state(CUdevice dev, unsigned* flags, int* active) {
  if (flags == nullptr || active == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(driver->mutex);
  Device* const device = find_device(dev);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *flags = device->primary_flags;
  *active = device->primary != nullptr;
  return CUDA_SUCCESS;
}

Result set_current(CUcontext ctx) {
  Lock lock(driver->mutex);
  sync_stack();
  Context* const context = find(driver->contexts, ctx);
  if (ctx != nullptr && context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (depth > 0) depth--;
  if (context != nullptr) stack[depth++] = context;
  return CUDA_SUCCESS;
}

Result push_current(CUcontext ctx) {
  Lock lock(driver->mutex);
  sync_stack();
  Context* const context = find(driver->contexts, ctx);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (depth == kMaxDepth) return CUDA_ERROR_INVALID_VALUE;
  stack[depth++] = context;
  return CUDA_SUCCESS;
}

Result pop_current(CUcontext* ctx) {
  Lock lock(driver->mutex);
  sync_stack();
  if (depth == 0) return CUDA_ERROR_INVALID_CONTEXT;
  Context* const context = stack[--depth];
  if (ctx != nullptr) *ctx = reinterpret_cast<CUcontext>(context);
  return CUDA_SUCCESS;
}

Result get_current(CUcontext* ctx) {
  if (ctx == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(driver->mutex);
  *ctx = reinterpret_cast<CUcontext>(current_context());
  return CUDA_SUCCESS;
}

Result ctx_get_device(CUdevice* dev) {
  if (dev == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(driver->mutex);
  Context* const context = current_context();
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *dev = context->device->ordinal;
  return CUDA_SUCCESS;
}

Result ctx_get_flags(unsigned* flags) {
  if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(driver->mutex);
  Context* const context = current_context();
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *flags = context->flags;
  return CUDA_SUCCESS;
}

Result ctx_synchronize() {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  if (const Result r = forbid_in_capture()) return r;
  return wait_context(lock, *context);
}

Result peer(CUcontext ctx, bool enable, unsigned flags) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Context* const other = find(driver->contexts, ctx);
  if (other == nullptr || other == context) return CUDA_ERROR_INVALID_CONTEXT;
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (enable && driver->config.no_peers) return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
  auto& peers = context->peers;
  const auto it = std::find(peers.begin(), peers.end(), other);
  if (enable) {
    if (it != peers.end()) return CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
    peers.push_back(other);
  } else {
    if (it == peers.end()) return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
    peers.erase(it);
    driver->memory_changes++;
  }
  return CUDA_SUCCESS;
}

Result enable_peer(CUcontext ctx, unsigned flags) { return peer(ctx, true, flags); }
Result disable_peer(CUcontext ctx) { return peer(ctx, false, 0); }

}  // namespace

Context* current_context() {
  sync_stack();
  if (depth == 0) return nullptr;
  return find(driver->contexts, stack[depth - 1]);
}

Result usable(Context** context) {
  *context = current_context();
  if (*context == nullptr) return depth == 0 ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_CONTEXT_IS_DESTROYED;
  if ((*context)->device->lost) return CUDA_ERROR_UNKNOWN;
  return (*context)->fault;
}

void set_detail(const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  driver->detail = text;
}

Result fault(Context& context, Result code) {
  if (context.fault == CUDA_SUCCESS) context.fault = code;
  return context.fault;
}

CUresult open(const ddgpu_host_config& config, char* error, size_t size) {
  if (driver == nullptr) driver = new Driver;
  Lock lock(driver->mutex);
  driver->config = config;
  driver->closing = driver->stopping = false;
  driver->allocs = driver->copies = driver->launches = 0;
  driver->detail.clear();
  if (config.ptx) driver->config.gpu_tiles = 1;  // what modules get that ask for the compiled kernels
  if (!choose_variants(error, size)) return CUDA_ERROR_NO_BINARY_FOR_GPU;
  generation++;
  const int devices = config.devices > 0 ? config.devices : 1;
  const int cores = std::max(1u, std::thread::hardware_concurrency());
  const int threads = config.threads > 0 ? config.threads : std::max(1, cores / devices);
  const uint64_t machine = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGE_SIZE));
  const uint64_t memory = config.memory > 0 ? config.memory : machine / 10 * 8 / devices;
  for (int i = 0; i < devices; i++) {
    auto device = std::make_unique<Device>();
    device->ordinal = i;
    device->total = memory;
    device->workers = std::make_unique<Workers>(threads, config);
    start_engine(*device);
    driver->devices.push_back(std::move(device));
  }
  return CUDA_SUCCESS;
}

void close() {
  Lock lock(driver->mutex);
  driver->closing = true;
  driver->progress.notify_all();
  // Calls of other threads that wait, for a kernel that hung perhaps, return before their objects go.
  for (auto& device : driver->devices) {
    if (device->primary != nullptr) wait_context(lock, *device->primary);
  }
  driver->progress.wait(lock, [] { return driver->waiters == 0; });
  for (auto& device : driver->devices) primary_end(*device, lock);
  driver->stopping = true;
  for (auto& device : driver->devices) stop_engine(lock, *device);
  driver->devices.clear();
  driver->captures.clear();
}

void error_detail(char* text, size_t size) {
  Lock lock(driver->mutex);
  snprintf(text, size, "%s", driver->detail.c_str());
}

void fill(DriverTable* t) {
  fill_context(t);
  fill_memory(t);
  fill_stream(t);
  fill_module(t);
  fill_link(t);
  fill_graph(t);
}

void fill_context(DriverTable* t) {
  t->cuInit = init;
  t->cuDriverGetVersion = driver_get_version;
  t->cuDeviceGet = device_get;
  t->cuDeviceGetCount = device_get_count;
  t->cuDeviceGetName = device_get_name;
  t->cuDeviceGetUuid = device_get_uuid;
  t->cuDeviceGetUuid_v2 = device_get_uuid;
  t->cuDeviceTotalMem_v2 = device_total_mem;
  t->cuDeviceGetAttribute = device_get_attribute;
  t->cuDeviceCanAccessPeer = device_can_access_peer;
  t->cuDevicePrimaryCtxRetain = primary_retain;
  t->cuDevicePrimaryCtxRelease_v2 = primary_release;
  t->cuDevicePrimaryCtxReset_v2 = primary_reset;
  t->cuDevicePrimaryCtxSetFlags_v2 = primary_set_flags;
  t->cuDevicePrimaryCtxGetState = primary_state;
  t->cuCtxSetCurrent = set_current;
  t->cuCtxPushCurrent_v2 = push_current;
  t->cuCtxPopCurrent_v2 = pop_current;
  t->cuCtxGetCurrent = get_current;
  t->cuCtxGetDevice = ctx_get_device;
  t->cuCtxGetFlags = ctx_get_flags;
  t->cuCtxSynchronize = ctx_synchronize;
  t->cuCtxEnablePeerAccess = enable_peer;
  t->cuCtxDisablePeerAccess = disable_peer;
}

}  // namespace host
