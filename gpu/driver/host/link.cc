// The linker, which on a GPU compiles PTX to machine code that can be kept. Here it checks the PTX and gives it back.
#include <string.h>

#include "host/device.h"

namespace host {

namespace {

Result create(unsigned n, CUjit_option* options, void** values, CUlinkState* state) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  if (state == nullptr || (n > 0 && (options == nullptr || values == nullptr))) return CUDA_ERROR_INVALID_VALUE;
  auto link = std::make_shared<Link>();
  link->context = context;
  link->log = JitLog(n, options, values);
  driver->links[link.get()] = link;
  *state = reinterpret_cast<CUlinkState>(link.get());
  return CUDA_SUCCESS;
}

Result add_data(CUlinkState state, CUjitInputType type, void* data, size_t size, const char*, unsigned, CUjit_option*, void**) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Link* const link = find(driver->links, state);
  if (link == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  // PTX must end with a zero (driver API, cuLinkAddData).
  if (type != CU_JIT_INPUT_PTX || data == nullptr || size == 0 || static_cast<const char*>(data)[size - 1] != 0)
    return CUDA_ERROR_INVALID_VALUE;
  if (!link->cubin.empty()) return CUDA_ERROR_INVALID_VALUE;  // one input is all that is used
  Module module;
  module.ptx = static_cast<const char*>(data);
  std::string log;
  const Result r = read_ptx(module, &log);
  link->log.write(log);
  if (r == CUDA_SUCCESS) link->cubin = kCubin + module.ptx;
  return r;
}

Result complete(CUlinkState state, void** cubin, size_t* size) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Link* const link = find(driver->links, state);
  if (link == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (cubin == nullptr || link->cubin.empty()) return CUDA_ERROR_INVALID_VALUE;
  *cubin = link->cubin.data();
  if (size != nullptr) *size = link->cubin.size() + 1;
  return CUDA_SUCCESS;
}

Result destroy(CUlinkState state) {
  Lock lock(driver->mutex);
  return driver->links.erase(state) > 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

}  // namespace

void fill_link(DriverTable* t) {
  t->cuLinkCreate_v2 = create;
  t->cuLinkAddData_v2 = add_data;
  t->cuLinkComplete = complete;
  t->cuLinkDestroy = destroy;
}

}  // namespace host
