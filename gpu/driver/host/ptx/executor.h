// Runs the blocks of a launch by interpreting PTX, one block at a time on one OS thread.
#pragma once
#include <memory>
#include <vector>

#include "host/device.h"
#include "host/ptx/async.h"
#include "host/ptx/counters.h"

namespace host::ptx {

// What a launch of PTX has beside host::Launch: the program, and the memory that it may reach, by address.
struct Task {
  const Program* program;
  std::vector<Range> ranges;
};

class Executor {
 public:
  explicit Executor(const ddgpu_host_config& config);
  ~Executor();
  Executor(const Executor&) = delete;
  // Runs one block. `number` tells the launches of the device apart.
  Result run(const Launch& launch, uint64_t number, simt::Index block);
  // Adds what was counted to the kernel's counters.
  void finish(const Launch& launch);

 private:
  void prepare(const Launch& launch);
  void load_program(const Program& p, int warps);
  void fill_specials(const Launch& launch);
  void open_shared(const Launch& launch);
  void start(simt::Index block);
  int turn(int n, uint64_t phase);
  Result ended(Result code);

  const int order_;
  uint64_t random_;
  uint64_t number_ = 0;
  const Launch* launch_ = nullptr;
  const Program* program_ = nullptr;
  int loaded_warps_ = 0, warps_ = 0;
  BlockState block_{};
  SharedMemory shared_{};
  Tally tally_;
  std::vector<Warp> warp_;
  std::vector<AsyncCopies> async_;
  uint8_t* file_ = nullptr;  // register files
  size_t file_bytes_ = 0;
  std::vector<uint32_t> initial_, defined_, predicates_;
  std::vector<uint8_t> params_, local_, shared_bytes_;
  std::vector<uint32_t> shadow_;
  std::vector<Count> counts_;
};

// The program's place in the source, for messages: "conv.cu:120", or "".
std::string source_of(const Program& p, uint32_t instruction);

}  // namespace host::ptx
