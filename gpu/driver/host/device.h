// The host device's objects. Handles that callers hold are addresses of these objects, looked up before use, so that a wrong
// or destroyed handle is an error and never a crash.
//
// One mutex (Driver::mutex) guards all of it except the memory that kernels and copies touch. Work is queued per stream; one
// engine thread per device runs it in order, a kernel on all of the device's worker threads.
#pragma once
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "cuda.h"
#include "host/host.h"
#include "host/kernel_abi.h"

namespace host {

using Result = CUresult;
using Lock = std::unique_lock<std::mutex>;
using Clock = std::chrono::steady_clock;

struct Device;
struct Context;
struct Stream;
struct Capture;
class Workers;

// The emulated chip: an sm_70 with the limits that every later one has too, but for the 64 KB of kSharedOptIn that 7.5 has.
constexpr int kMajor = 7, kMinor = 0, kWarp = 32;
// The emulated driver: its version of CUDA, and the newest PTX and target that it takes; the instructions of sm_80 run on any host.
constexpr int kCuda = 11040, kPtx = 74, kTarget = 80;
constexpr int kMajorPtx = 8;  // with mma, ldmatrix and cp.async, where the PTX itself is run
constexpr unsigned kMaxThreads = 1024, kMaxGridYZ = 65535, kMaxGridX = 0x7fffffff, kMaxBlockZ = 64;
constexpr size_t kShared = 48 * 1024, kSharedOptIn = 96 * 1024;  // twice as much for float64, which exists here only
constexpr int kRegisters = 65536, kMaxRegistersPerThread = 255;

// A piece of device work, run by the device's engine thread without the driver's mutex held.
class Work {
 public:
  virtual ~Work() = default;
  virtual Result run(Device& device) = 0;
  // Whether every pointer that the work uses is still good; called with the mutex held, before the work is queued.
  virtual Result check(Context&) { return CUDA_SUCCESS; }
};
using WorkPtr = std::shared_ptr<Work>;

// A point in a stream: done once everything queued before it has run.
struct Point {
  std::shared_ptr<Stream> stream;
  uint64_t sequence = 0;
  bool done = false;
  Clock::time_point when;
};

struct Op {
  enum Kind { work, record, wait } kind;
  uint64_t sequence;
  WorkPtr what;                  // work
  std::shared_ptr<Point> point;  // record, wait
};

struct Stream : std::enable_shared_from_this<Stream> {
  Context* context = nullptr;  // null once destroyed
  unsigned flags = 0;
  int priority = 0;
  bool legacy = false;  // the null stream, which orders itself with every blocking stream
  std::deque<Op> queue;
  bool running = false;
  uint64_t running_sequence = 0;
  uint64_t last = 0;      // sequence of the newest op
  uint64_t demanded = 0;  // in lazy mode ops up to this sequence may run
  std::shared_ptr<Capture> capture;

  bool idle() const { return queue.empty() && !running; }
  bool blocking() const { return (flags & CU_STREAM_NON_BLOCKING) == 0; }
  // The sequence of the oldest op that has not ended, or none.
  uint64_t oldest() const { return running ? running_sequence : queue.empty() ? UINT64_MAX : queue.front().sequence; }
};

// How far each stream of a capture has come, as seen from one stream: tells whether a fork was joined.
using Frontier = std::map<const Stream*, uint64_t>;

struct Capture {
  CUstreamCaptureMode mode;
  std::thread::id thread;
  const Stream* origin;
  bool invalid = false;
  std::vector<WorkPtr> nodes;
  std::map<Stream*, Frontier> streams;
};

struct Event {
  Context* context;
  unsigned flags;
  std::shared_ptr<Point> point;      // of the last record, null before the first
  std::shared_ptr<Capture> capture;  // set when the last record was captured
  Frontier frontier;
};

// Which build of the kernels serves a module.
enum class Precision { fp32, tf32, bf16, fp64 };

namespace ptx {
struct Module;
struct Program;
struct Task;
}  // namespace ptx

struct Module {
  Context* context;
  Precision precision;
  size_t reals() const { return precision == Precision::fp64 ? 2 : 1; }  // size of a sum in units of a float
  std::shared_ptr<ptx::Module> program;                                  // where the PTX itself is run, else null
  std::string ptx;
  std::map<std::string, struct Function*> functions;
  std::map<std::string, std::pair<CUdeviceptr, size_t>> globals;
};

// Where a caller wants to read what the compiler says.
class JitLog {
 public:
  JitLog() = default;
  JitLog(unsigned n, const CUjit_option* options, void* const* values);
  void write(const std::string& text) const;

 private:
  char* buffer_ = nullptr;
  size_t size_ = 0;
};

// A linker invocation: PTX becomes a "cubin", which is that PTX behind kCubin.
struct Link {
  Context* context;
  JitLog log;
  std::string cubin;
};
constexpr const char* kCubin = "\177ddgpu cubin of a host device\n";

struct Function : std::enable_shared_from_this<Function> {
  Context* context = nullptr;
  Module* module = nullptr;
  const simt::Entry* entry = nullptr;
  const ptx::Program* program = nullptr;  // where the PTX itself is run
  size_t max_dynamic_shared = kShared;
  int registers = 0;  // per thread, by ptxas for the emulated chip; 0 when not known
};

struct Graph {
  Context* context;
  std::vector<WorkPtr> nodes;
};

struct GraphExec {
  Context* context;
  std::shared_ptr<Work> work;
};

struct Allocation {
  size_t bytes;
  Context* context;
  bool pinned;  // host memory that the device may copy from and reach
};

struct Context {
  Device* device;
  Result fault = CUDA_SUCCESS;  // sticky
  unsigned flags = 0;
  std::shared_ptr<Stream> null_stream;
  std::vector<std::shared_ptr<Stream>> streams;  // the null stream first
  std::vector<Context*> peers;                   // whose memory this context may reach
};

struct Device {
  int ordinal;
  size_t total, used = 0;
  Context* primary = nullptr;
  int retained = 0;
  unsigned primary_flags = 0;
  bool lost = false;
  std::vector<std::shared_ptr<Stream>> streams;  // of every context, and destroyed ones that still have work
  size_t turn = 0;
  std::condition_variable wake;
  bool sleeping = false;
  std::unique_ptr<Workers> workers;
  std::thread engine;
};

template <class T>
using Handles = std::unordered_map<void*, std::shared_ptr<T>>;

struct Driver {
  ddgpu_host_config config{};
  std::mutex mutex;
  std::condition_variable progress;  // an op ended somewhere
  int waiters = 0;                   // threads that wait for an op
  bool closing = false;              // a kernel that hangs ends
  bool stopping = false;             // the engines end
  uint64_t sequence = 0;
  uint64_t demands = 0;  // counts what was demanded of streams, so that a look for work can be repeated
  uint64_t allocs = 0, copies = 0, launches = 0;
  uint64_t memory_changes = 0;  // counts what takes memory or kernels away, so that a check of a graph can be remembered
  std::string detail;
  std::string notes, noted;  // launches of a dry device: those to come, those last handed out
  std::vector<std::unique_ptr<Device>> devices;
  std::map<uintptr_t, Allocation> memory;
  std::vector<std::shared_ptr<Capture>> captures;
  Handles<Context> contexts;
  Handles<Stream> streams;
  Handles<Event> events;
  Handles<Module> modules;
  Handles<Link> links;
  Handles<Function> functions;
  Handles<Graph> graphs;
  Handles<GraphExec> execs;
};

extern Driver* driver;

template <class T>
T* find(Handles<T>& handles, const void* handle) {
  const auto it = handles.find(const_cast<void*>(handle));
  return it == handles.end() ? nullptr : it->second.get();
}

// Contexts (context.cc).
Context* current_context();
// The current context, or why it cannot be used: none (201), or a fault that stays.
Result usable(Context** context);
void set_detail(const char* format, ...) __attribute__((format(printf, 1, 2)));
// Records a fault of the context: every later call in it returns `code`.
Result fault(Context& context, Result code);

// Memory (memory.cc).
uintptr_t allocate(Context& context, size_t bytes, bool pinned, Result* result);
void release(uintptr_t base);
void release_all(Context& context);
// The live allocation that holds [ptr, ptr + bytes), or null.
const Allocation* find_memory(uintptr_t ptr, size_t bytes);
// Checks a pointer that a kernel of `context` is given: 700 outside every allocation it may reach, 716 misaligned.
Result check_pointer(Context& context, uintptr_t ptr, size_t align, const char* kernel, int index);

// Streams and the engine (stream.cc).
std::shared_ptr<Stream> make_stream(Context& context, unsigned flags, int priority);
Result find_stream(Context& context, CUstream handle, Stream** stream);
// Queues work, or adds it to the stream's capture.
Result submit(Stream& stream, WorkPtr work);
// As submit, then waits until it has run: what the driver's synchronous calls do. Uses the null stream.
Result submit_and_wait(Lock& lock, Context& context, WorkPtr work);
Result wait_stream(Lock& lock, Stream& stream);
Result wait_context(Lock& lock, Context& context);
void engine_loop(Device& device);
void start_engine(Device& device);
void stop_engine(Lock& lock, Device& device);

// Captures (graph.cc).
// The error of a call that is not allowed while a capture is under way, which the call also invalidates.
Result forbid_in_capture();
void capture_point(Stream& stream, Event& event);
// The error of asking for an event that was recorded in a capture, which invalidates that.
Result refuse_captured(Event& event);
Result capture_wait(Stream& stream, const Event& event);

// Kernels (launch.cc, workers.cc).
// Reads module.ptx into the rest of it; leaves in log what is wrong with it.
Result read_ptx(Module& module, std::string* log);
const simt::Entry* find_entry(const std::string& name, Precision p);
// Whether an entry that the precision lacks in the CPU's configuration exists in the GPU's.
bool only_gpu_tiles(const std::string& name, Precision p);
const simt::Global* find_global(const std::string& name, Precision p);
// Gives a variable of a module its memory and its value.
Result place_global(Module& module, const std::string& name, const void* data, size_t bytes);
int find_registers(const std::string& name, Precision p);
bool choose_variants(char* error, size_t size);

struct Launch {
  const simt::Entry* entry;
  simt::Index grid, block;
  size_t dynamic_shared, shared_limit;
  void* args[simt::max_params];
  ptx::Task* task = nullptr;  // where the PTX itself is run
};

// The entry points of each file.
void fill_context(DriverTable* table);
void fill_memory(DriverTable* table);
void fill_stream(DriverTable* table);
void fill_module(DriverTable* table);
void fill_link(DriverTable* table);
void fill_graph(DriverTable* table);

}  // namespace host
