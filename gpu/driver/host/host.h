// The host device: the CUDA driver's behaviour on the CPU.
#pragma once
#include "dispatch/dispatch.h"

namespace host {

CUresult open(const ddgpu_host_config& config, char* error, size_t size);
void close();
void fill(DriverTable* table);
void error_detail(char* text, size_t size);
uint64_t allocations();
const char* noted();

}  // namespace host
