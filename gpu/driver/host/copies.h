// The asynchronous copies (cp.async) that one CUDA thread has issued.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <vector>

#include "host/kernel_abi.h"

namespace host {

class Copies {
 public:
  void add(const simt::Copy& copy) { issued_.push_back({copy, group_}); }
  void commit() { group_++; }
  // The oldest copy that has not been taken, if its group is complete and not among the last `pending` ones.
  bool take(int pending, simt::Copy* copy) {
    if (next_ == issued_.size() || issued_[next_].group + static_cast<uint64_t>(pending) >= group_) return false;
    *copy = issued_[next_++].copy;
    if (next_ == issued_.size()) {
      issued_.clear();
      next_ = 0;
    }
    return true;
  }
  // For a new thread: a block may end with copies on their way.
  void reset() {
    issued_.clear();
    next_ = group_ = 0;
  }

 private:
  struct Issued {
    simt::Copy copy;
    uint64_t group;
  };
  std::vector<Issued> issued_;
  size_t next_ = 0;
  uint64_t group_ = 0;  // groups that are complete
};

}  // namespace host
