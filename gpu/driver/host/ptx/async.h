// cp.async: copies from device to shared memory that arrive when their group is waited for.
#pragma once
#include "host/ptx/shared.h"

namespace host::ptx {

struct AsyncCopy {
  int lane;
  uint32_t to;
  uint64_t from;
  uint32_t bytes, source_bytes;  // the rest becomes 0
  uint32_t group;                // of the lane's groups, counted from 0
  uint32_t at;                   // Program::code index
};

// The copies of a warp that are under way.
struct AsyncCopies {
  AsyncCopy* copies = nullptr;
  size_t count = 0, room = 0;
  uint32_t groups[kLanes] = {};  // that each lane has committed
};

}  // namespace host::ptx
