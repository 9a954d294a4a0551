// Device and pinned memory, copies and fills.
//
// Device memory is ordinary memory that only calls with a live allocation reach: a pointer is looked up before a copy or a
// kernel may use it. New memory holds 0xFF bytes (NaN as float and double), as a GPU's holds anything but zeros.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>

#include "host/device.h"
#include "host/sanitizers.h"

namespace host {

namespace {

constexpr size_t kAlign = 256;
constexpr size_t kHuge = 2 << 20;

bool counted_fault(int kind, uint64_t count) { return driver->config.fault == kind && driver->config.fault_at == count; }

// Whether what runs in a context may use memory: its own, pinned memory, and that of contexts which it has peer access to.
bool reachable(const Context& context, const Allocation& a) {
  const auto& peers = context.peers;
  return a.pinned || a.context == &context || std::find(peers.begin(), peers.end(), a.context) != peers.end();
}

class Copy : public Work {
 public:
  Copy(uintptr_t dst, uintptr_t src, size_t n) : dst_(dst), src_(src), n_(n) {}
  Result run(Device& device) override {
    {
      Lock lock(driver->mutex);
      const uint64_t count = ++driver->copies;
      if (counted_fault(DDGPU_FAULT_COPY, count)) {
        set_detail("injected fault: copy %llu failed", static_cast<unsigned long long>(count));
        return CUDA_ERROR_ECC_UNCORRECTABLE;
      }
      if (counted_fault(DDGPU_FAULT_LOST, count + driver->launches)) {
        set_detail("injected fault: device %d fell off the bus", device.ordinal);
        device.lost = true;
        return CUDA_ERROR_UNKNOWN;
      }
    }
    memmove(reinterpret_cast<void*>(dst_), reinterpret_cast<const void*>(src_), n_);
    return CUDA_SUCCESS;
  }
  Result check(Context& context) override {
    if (find_memory(dst_, n_) != nullptr && find_memory(src_, n_) != nullptr) return CUDA_SUCCESS;
    set_detail("a captured copy of %zu bytes from 0x%zx to 0x%zx uses memory that was freed", n_, src_, dst_);
    return fault(context, CUDA_ERROR_ILLEGAL_ADDRESS);
  }

 private:
  uintptr_t dst_, src_;
  size_t n_;
};

template <class T>
class Fill : public Work {
 public:
  Fill(uintptr_t dst, T value, size_t n) : dst_(dst), value_(value), n_(n) {}
  Result run(Device&) override {
    if (driver->config.dry) return CUDA_SUCCESS;
    std::fill_n(reinterpret_cast<T*>(dst_), n_, value_);
    return CUDA_SUCCESS;
  }
  Result check(Context& context) override {
    if (find_memory(dst_, n_ * sizeof(T)) != nullptr) return CUDA_SUCCESS;
    set_detail("a captured fill of %zu bytes at 0x%zx uses memory that was freed", n_ * sizeof(T), dst_);
    return fault(context, CUDA_ERROR_ILLEGAL_ADDRESS);
  }

 private:
  uintptr_t dst_;
  T value_;
  size_t n_;
};

enum class Side { device, host, any };

// Whether [ptr, ptr + n) is memory that a copy may use on its side; pageable host memory is allowed in synchronous copies only.
Result check_side(uintptr_t ptr, size_t n, Side side, bool async) {
  const Allocation* const a = find_memory(ptr, n);
  if (a != nullptr) return side == Side::host && !a->pinned ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
  if (side == Side::host && !async) {
    // A range that begins outside every allocation but runs into one is no host buffer.
    const auto next = driver->memory.lower_bound(ptr);
    if (next != driver->memory.end() && next->first < ptr + n) return CUDA_ERROR_INVALID_VALUE;
    if (find_memory(ptr, 1) == nullptr && ptr != 0) return CUDA_SUCCESS;
  }
  set_detail(side == Side::host && async ? "an asynchronous copy of %zu bytes needs pinned host memory at 0x%zx"
                                         : "a copy of %zu bytes at 0x%zx is not inside one live allocation",
             n, ptr);
  return CUDA_ERROR_INVALID_VALUE;
}

// A copy in the given stream; `synchronous` ones use the null stream and wait.
Result copy(uintptr_t dst, Side dst_side, uintptr_t src, Side src_side, size_t n, CUstream handle, bool synchronous) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Stream* stream = context->null_stream.get();
  if (!synchronous) {
    if (const Result r = find_stream(*context, handle, &stream)) return r;
  }
  if (n == 0) return CUDA_SUCCESS;
  if (const Result r = check_side(dst, n, dst_side, !synchronous)) return r;
  if (const Result r = check_side(src, n, src_side, !synchronous)) return r;
  auto work = std::make_shared<Copy>(dst, src, n);
  return synchronous ? submit_and_wait(lock, *context, std::move(work)) : submit(*stream, std::move(work));
}

template <class P>
uintptr_t address(P* p) {
  return reinterpret_cast<uintptr_t>(p);
}

Result copy_htod(CUdeviceptr dst, const void* src, size_t n) {
  return copy(dst, Side::device, address(src), Side::host, n, nullptr, true);
}
Result copy_dtoh(void* dst, CUdeviceptr src, size_t n) {
  return copy(address(dst), Side::host, src, Side::device, n, nullptr, true);
}
Result copy_dtod(CUdeviceptr dst, CUdeviceptr src, size_t n) {
  return copy(dst, Side::device, src, Side::device, n, nullptr, true);
}
Result copy_htod_async(CUdeviceptr dst, const void* src, size_t n, CUstream s) {
  return copy(dst, Side::device, address(src), Side::host, n, s, false);
}
Result copy_dtoh_async(void* dst, CUdeviceptr src, size_t n, CUstream s) {
  return copy(address(dst), Side::host, src, Side::device, n, s, false);
}
Result copy_dtod_async(CUdeviceptr dst, CUdeviceptr src, size_t n, CUstream s) {
  return copy(dst, Side::device, src, Side::device, n, s, false);
}
Result copy_any(CUdeviceptr dst, CUdeviceptr src, size_t n) { return copy(dst, Side::any, src, Side::any, n, nullptr, true); }
Result copy_any_async(CUdeviceptr dst, CUdeviceptr src, size_t n, CUstream s) {
  return copy(dst, Side::any, src, Side::any, n, s, false);
}

// Each side of a peer copy must lie in the context that the caller names.
Result check_peer(CUdeviceptr ptr, CUcontext ctx, size_t n) {
  Lock lock(driver->mutex);
  Context* const context = find(driver->contexts, ctx);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  const Allocation* const a = find_memory(ptr, n);
  return n > 0 && (a == nullptr || a->context != context) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
Result copy_peer(CUdeviceptr dst, CUcontext dst_ctx, CUdeviceptr src, CUcontext src_ctx, size_t n) {
  if (const Result r = check_peer(dst, dst_ctx, n)) return r;
  if (const Result r = check_peer(src, src_ctx, n)) return r;
  return copy_dtod(dst, src, n);
}
Result copy_peer_async(CUdeviceptr dst, CUcontext dst_ctx, CUdeviceptr src, CUcontext src_ctx, size_t n, CUstream s) {
  if (const Result r = check_peer(dst, dst_ctx, n)) return r;
  if (const Result r = check_peer(src, src_ctx, n)) return r;
  return copy_dtod_async(dst, src, n, s);
}

template <class T>
Result fill(CUdeviceptr dst, T value, size_t n, CUstream handle, bool synchronous) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Stream* stream = context->null_stream.get();
  if (!synchronous) {
    if (const Result r = find_stream(*context, handle, &stream)) return r;
  }
  if (dst % sizeof(T) != 0) return CUDA_ERROR_INVALID_VALUE;
  if (n == 0) return CUDA_SUCCESS;
  const Allocation* const a = n > SIZE_MAX / sizeof(T) ? nullptr : find_memory(dst, n * sizeof(T));
  if (a == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!reachable(*context, *a)) {
    set_detail("a fill of %zu bytes at 0x%llx is of a device without peer access", n * sizeof(T), dst);
    return CUDA_ERROR_INVALID_VALUE;
  }
  auto work = std::make_shared<Fill<T>>(dst, value, n);
  return synchronous ? submit_and_wait(lock, *context, std::move(work)) : submit(*stream, std::move(work));
}
Result fill8(CUdeviceptr dst, unsigned char v, size_t n) { return fill(dst, v, n, nullptr, true); }
Result fill16(CUdeviceptr dst, unsigned short v, size_t n) { return fill(dst, v, n, nullptr, true); }
Result fill32(CUdeviceptr dst, unsigned v, size_t n) { return fill(dst, v, n, nullptr, true); }
Result fill8_async(CUdeviceptr dst, unsigned char v, size_t n, CUstream s) { return fill(dst, v, n, s, false); }
Result fill16_async(CUdeviceptr dst, unsigned short v, size_t n, CUstream s) { return fill(dst, v, n, s, false); }
Result fill32_async(CUdeviceptr dst, unsigned v, size_t n, CUstream s) { return fill(dst, v, n, s, false); }

Result mem_alloc(CUdeviceptr* ptr, size_t bytes) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  if (const Result r = forbid_in_capture()) return r;
  if (ptr == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  Result result;
  *ptr = allocate(*context, bytes, false, &result);
  return result;
}

Result host_alloc(void** ptr, size_t bytes, unsigned) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  if (const Result r = forbid_in_capture()) return r;
  if (ptr == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  Result result;
  *ptr = reinterpret_cast<void*>(allocate(*context, bytes, true, &result));
  return result;
}

Result free_memory(uintptr_t ptr, bool pinned) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  if (ptr == 0) return CUDA_SUCCESS;
  if (const Result r = forbid_in_capture()) return r;
  auto it = driver->memory.find(ptr);
  if (it == driver->memory.end() || it->second.pinned != pinned) return CUDA_ERROR_INVALID_VALUE;
  Context* const owner = it->second.context;
  const Result r = wait_context(lock, *owner);
  it = driver->memory.find(ptr);
  if (it == driver->memory.end()) return CUDA_ERROR_INVALID_VALUE;
  release(ptr);
  return r;
}
Result mem_free(CUdeviceptr ptr) { return free_memory(ptr, false); }
Result host_free(void* ptr) { return free_memory(address(ptr), true); }

Result mem_get_info(size_t* free, size_t* total) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  if (free == nullptr || total == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *total = context->device->total;
  *free = context->device->total - context->device->used;
  return CUDA_SUCCESS;
}

Result address_range(CUdeviceptr* base, size_t* size, CUdeviceptr ptr) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  const Allocation* const a = find_memory(ptr, 1);
  if (a == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (base != nullptr) *base = std::prev(driver->memory.upper_bound(ptr))->first;
  if (size != nullptr) *size = a->bytes;
  return CUDA_SUCCESS;
}

// Memory that holds 0xFF bytes, or null.
void* poisoned(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, bytes >= kHuge ? kHuge : kAlign, bytes) != 0) return nullptr;
  if (bytes >= kHuge && !kAsan && !kTsan) madvise(memory, bytes, MADV_HUGEPAGE);
  return memset(memory, 0xFF, bytes);
}

// Addresses that become memory where something is written, or null: of a dry device, whose networks may be larger than the machine.
void* reserve(size_t bytes) {
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

}  // namespace

uintptr_t allocate(Context& context, size_t bytes, bool pinned, Result* result) {
  Device& device = *context.device;
  *result = CUDA_ERROR_OUT_OF_MEMORY;
  const uint64_t count = ++driver->allocs;
  if (counted_fault(DDGPU_FAULT_ALLOC, count)) {
    set_detail("injected fault: allocation %llu failed", static_cast<unsigned long long>(count));
    return 0;
  }
  if (!pinned && bytes > device.total - device.used) {
    set_detail("device %d has %zu of %zu bytes free, %zu asked for", device.ordinal, device.total - device.used, device.total,
               bytes);
    return 0;
  }
  void* const memory = driver->config.dry && !pinned ? reserve(bytes) : poisoned(bytes);
  if (memory == nullptr) {
    set_detail("the machine has no memory for %zu bytes", bytes);
    return 0;
  }
  if (!pinned) device.used += bytes;
  driver->memory[reinterpret_cast<uintptr_t>(memory)] = Allocation{bytes, &context, pinned};
  *result = CUDA_SUCCESS;
  return reinterpret_cast<uintptr_t>(memory);
}

uint64_t allocations() {
  Lock lock(driver->mutex);
  return driver->allocs;
}

void release(uintptr_t base) {
  const auto it = driver->memory.find(base);
  if (it == driver->memory.end()) return;
  const Allocation a = it->second;
  if (!a.pinned) a.context->device->used -= a.bytes;
  driver->memory.erase(it);
  driver->memory_changes++;
  if (driver->config.dry && !a.pinned) {
    munmap(reinterpret_cast<void*>(base), a.bytes);
  } else {
    free(reinterpret_cast<void*>(base));
  }
}

void release_all(Context& context) {
  std::vector<uintptr_t> bases;
  for (const auto& [base, a] : driver->memory) {
    if (a.context == &context) bases.push_back(base);
  }
  for (const uintptr_t base : bases) release(base);
}

const Allocation* find_memory(uintptr_t ptr, size_t bytes) {
  auto it = driver->memory.upper_bound(ptr);
  if (it == driver->memory.begin()) return nullptr;
  --it;
  const size_t offset = ptr - it->first;
  return offset < it->second.bytes && bytes <= it->second.bytes - offset ? &it->second : nullptr;
}

Result check_pointer(Context& context, uintptr_t ptr, size_t align, const char* kernel, int index) {
  if (ptr == 0) return CUDA_SUCCESS;
  const Allocation* const a = find_memory(ptr, 1);
  if (a == nullptr || !reachable(context, *a)) {
    set_detail("kernel %s: parameter %d (0x%zx) points %s", kernel, index, ptr,
               a == nullptr ? "outside every live allocation" : "into a device without peer access");
    return fault(context, CUDA_ERROR_ILLEGAL_ADDRESS);
  }
  if (ptr % align != 0) {
    set_detail("kernel %s: parameter %d (0x%zx) is not aligned to %zu bytes", kernel, index, ptr, align);
    return fault(context, CUDA_ERROR_MISALIGNED_ADDRESS);
  }
  return CUDA_SUCCESS;
}

void fill_memory(DriverTable* t) {
  t->cuMemAlloc_v2 = mem_alloc;
  t->cuMemFree_v2 = mem_free;
  t->cuMemHostAlloc = host_alloc;
  t->cuMemFreeHost = host_free;
  t->cuMemGetInfo_v2 = mem_get_info;
  t->cuMemGetAddressRange_v2 = address_range;
  t->cuMemcpy = copy_any;
  t->cuMemcpyAsync = copy_any_async;
  t->cuMemcpyHtoD_v2 = copy_htod;
  t->cuMemcpyDtoH_v2 = copy_dtoh;
  t->cuMemcpyDtoD_v2 = copy_dtod;
  t->cuMemcpyHtoDAsync_v2 = copy_htod_async;
  t->cuMemcpyDtoHAsync_v2 = copy_dtoh_async;
  t->cuMemcpyDtoDAsync_v2 = copy_dtod_async;
  t->cuMemcpyPeer = copy_peer;
  t->cuMemcpyPeerAsync = copy_peer_async;
  t->cuMemsetD8_v2 = fill8;
  t->cuMemsetD16_v2 = fill16;
  t->cuMemsetD32_v2 = fill32;
  t->cuMemsetD8Async = fill8_async;
  t->cuMemsetD16Async = fill16_async;
  t->cuMemsetD32Async = fill32_async;
}

}  // namespace host
