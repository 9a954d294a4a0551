#include "host/ptx/load.h"

#include <algorithm>

namespace host::ptx {

namespace {

// What launches know of a program; a pointer among its parameters is a 64-bit integer, checked where it is used.
simt::Entry entry_of(const Program& p) {
  simt::Entry e{};
  e.name = p.name.c_str();
  e.variant = "ptx";
  e.params = static_cast<int>(p.params.size());
  for (int n = 0; n < e.params; n++) {
    const Type t = p.params[static_cast<size_t>(n)].type;
    e.kinds[n] = is_float(t) ? simt::Param::real : bytes_of(t) == 8 ? simt::Param::i64 : simt::Param::i32;
    e.sizes[n] = static_cast<uint8_t>(bytes_of(t));
    e.aligns[n] = 1;
  }
  e.threads = p.max_threads;
  return e;
}

}  // namespace

Result load(host::Module& module, std::string* log) {
  if (module.precision == Precision::fp64) {
    *log = "there is no PTX of precision fp64";
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
  }
  auto program = std::make_shared<Module>();
  try {
    parse(module.ptx, *program);
  } catch (const SyntaxError& e) {
    *log = "ptxas application ptx input, line " + std::to_string(e.line) + "; error   : " + e.what;
    return CUDA_ERROR_INVALID_PTX;
  } catch (const std::bad_alloc&) {
    *log = "the machine has no memory for the module";
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  for (const Program& p : program->programs) {
    program->entries.push_back(entry_of(p));
    module.functions[p.name] = nullptr;
  }
  for (Variable& v : program->variables) {
    if (!v.used || module.context == nullptr) continue;
    if (const Result r = place_global(module, v.name, v.data.data(), v.bytes)) {
      for (auto& [name, global] : module.globals) release(global.first);
      return r;
    }
    v.memory = module.globals[v.name].first;
  }
  module.program = std::move(program);
  return CUDA_SUCCESS;
}

void find_program(const Module& module, const std::string& name, const Program** program, const simt::Entry** entry) {
  for (size_t n = 0; n < module.programs.size(); n++) {
    if (module.programs[n].name != name) continue;
    *program = &module.programs[n];
    *entry = &module.entries[n];
  }
}

bool find_variable(const Module& module, const std::string& name, const void** data, size_t* bytes) {
  for (const Variable& v : module.variables) {
    if (v.shared || v.name != name) continue;
    *data = v.data.data();
    *bytes = v.bytes;
    return true;
  }
  return false;
}

std::vector<Range> reachable_memory(Context& context) {
  std::vector<Range> ranges;
  const auto& peers = context.peers;
  for (const auto& [base, a] : driver->memory) {
    if (a.pinned || a.context == &context || std::find(peers.begin(), peers.end(), a.context) != peers.end()) {
      ranges.push_back({base, base + a.bytes});
    }
  }
  return ranges;
}

}  // namespace host::ptx
