// Modules of PTX for the driver's entry points.
#pragma once
#include "host/device.h"
#include "host/ptx/executor.h"

namespace host::ptx {

// Reads the module's text and, in a context, gives the variables that its programs use their memory. What is wrong with it goes to
// the log, as NVIDIA's driver writes it.
Result load(host::Module& module, std::string* log);
void find_program(const Module& module, const std::string& name, const Program** program, const simt::Entry** entry);
bool find_variable(const Module& module, const std::string& name, const void** data, size_t* bytes);
// The memory that kernels of a context may reach, by address.
std::vector<Range> reachable_memory(Context& context);

}  // namespace host::ptx
