// Stream capture and graphs.
//
// A capture records work with its parameters copied. Its order is one that the streams' events allow, so a graph replays its
// nodes one after another.
#include "host/device.h"

namespace host {

namespace {

class GraphWork : public Work {
 public:
  explicit GraphWork(std::vector<WorkPtr> nodes) : nodes_(std::move(nodes)) {}
  Result run(Device& device) override {
    for (const WorkPtr& node : nodes_) {
      if (const Result r = node->run(device)) return r;
    }
    return CUDA_SUCCESS;
  }
  Result check(Context& context) override {
    if (checked_ == driver->memory_changes + 1) return CUDA_SUCCESS;
    for (const WorkPtr& node : nodes_) {
      if (const Result r = node->check(context)) return r;
    }
    checked_ = driver->memory_changes + 1;
    return CUDA_SUCCESS;
  }

 private:
  std::vector<WorkPtr> nodes_;
  uint64_t checked_ = 0;  // memory_changes + 1 of the last check that passed
};

void end(const std::shared_ptr<Capture>& capture) {
  for (auto& [stream, frontier] : capture->streams) stream->capture = nullptr;
  auto& all = driver->captures;
  for (size_t i = 0; i < all.size(); i++) {
    if (all[i] == capture) {
      all.erase(all.begin() + static_cast<ptrdiff_t>(i));
      break;
    }
  }
}

void merge(Frontier& into, const Frontier& from) {
  for (const auto& [stream, at] : from) into[stream] = std::max(into[stream], at);
}

Result begin_capture(CUstream handle, CUstreamCaptureMode mode) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  if (handle == nullptr) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  Stream* stream;
  if (const Result r = find_stream(*context, handle, &stream)) return r;
  if (mode < CU_STREAM_CAPTURE_MODE_GLOBAL || mode > CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_ERROR_INVALID_VALUE;
  if (stream->capture != nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  auto capture = std::make_shared<Capture>();
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->origin = stream;
  capture->streams[stream];
  stream->capture = capture;
  driver->captures.push_back(capture);
  return CUDA_SUCCESS;
}

Result end_capture(CUstream handle, CUgraph* graph_handle) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Stream* const stream = find(driver->streams, handle);
  if (stream == nullptr || stream->context != context) return CUDA_ERROR_INVALID_HANDLE;
  if (graph_handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *graph_handle = nullptr;
  const std::shared_ptr<Capture> capture = stream->capture;
  if (capture == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  if (capture->origin != stream) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != std::this_thread::get_id()) {
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  }
  const Frontier& joined = capture->streams[stream];
  bool all_joined = true;
  for (const auto& [other, frontier] : capture->streams) {
    const auto own = frontier.find(other);
    const auto seen = joined.find(other);
    if (other != stream && (seen == joined.end() || (own != frontier.end() && seen->second < own->second))) all_joined = false;
  }
  end(capture);
  if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (!all_joined) return CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  auto graph = std::make_shared<Graph>();
  graph->context = context;
  graph->nodes = std::move(capture->nodes);
  driver->graphs[graph.get()] = graph;
  *graph_handle = reinterpret_cast<CUgraph>(graph.get());
  return CUDA_SUCCESS;
}

Result is_capturing(CUstream handle, CUstreamCaptureStatus* status) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  if (status == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Stream* stream;
  if (const Result r = find_stream(*context, handle, &stream)) return r;
  *status = stream->capture == nullptr ? CU_STREAM_CAPTURE_STATUS_NONE
            : stream->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                       : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  return CUDA_SUCCESS;
}

Result instantiate(CUgraphExec* handle, CUgraph graph_handle, unsigned long long flags) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Graph* const graph = find(driver->graphs, graph_handle);
  if (graph == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (handle == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  auto exec = std::make_shared<GraphExec>();
  exec->context = graph->context;
  exec->work = std::make_shared<GraphWork>(graph->nodes);
  driver->execs[exec.get()] = exec;
  *handle = reinterpret_cast<CUgraphExec>(exec.get());
  return CUDA_SUCCESS;
}

Result launch(CUgraphExec handle, CUstream stream_handle) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  GraphExec* const exec = find(driver->execs, handle);
  if (exec == nullptr || exec->context != context) return CUDA_ERROR_INVALID_HANDLE;
  Stream* stream;
  if (const Result r = find_stream(*context, stream_handle, &stream)) return r;
  if (const Result r = exec->work->check(*context)) return r;
  return submit(*stream, exec->work);
}

Result exec_destroy(CUgraphExec handle) {
  Lock lock(driver->mutex);
  return driver->execs.erase(handle) == 1 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
Result graph_destroy(CUgraph handle) {
  Lock lock(driver->mutex);
  return driver->graphs.erase(handle) == 1 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

Result get_nodes(CUgraph handle, CUgraphNode* nodes, size_t* count) {
  Lock lock(driver->mutex);
  Graph* const graph = find(driver->graphs, handle);
  if (graph == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (nodes != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  *count = graph->nodes.size();
  return CUDA_SUCCESS;
}

}  // namespace

Result forbid_in_capture() {
  Result result = CUDA_SUCCESS;
  for (auto& capture : driver->captures) {
    const bool ours = capture->thread == std::this_thread::get_id();
    if (capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
    if (capture->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && !ours) continue;
    capture->invalid = true;
    result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return result;
}

void capture_point(Stream& stream, Event& event) {
  event.capture = stream.capture;
  event.frontier = stream.capture->streams[&stream];
  event.frontier[&stream];  // present even before the stream's first node, so that a fork counts as joined
  event.point = nullptr;
}

Result refuse_captured(Event& event) {
  event.capture->invalid = true;
  return CUDA_ERROR_CAPTURED_EVENT;
}

Result capture_wait(Stream& stream, const Event& event) {
  if (event.capture == nullptr) {
    // Work outside the capture cannot be part of the graph.
    stream.capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
  }
  if (stream.capture != nullptr && stream.capture != event.capture) {
    stream.capture->invalid = event.capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_MERGE;
  }
  bool active = false;
  for (auto& capture : driver->captures) active = active || capture == event.capture;
  if (!active) return CUDA_ERROR_CAPTURED_EVENT;
  if (stream.capture == nullptr) {
    if (stream.legacy) {
      event.capture->invalid = true;
      return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
    stream.capture = event.capture;
  }
  merge(event.capture->streams[&stream], event.frontier);
  return CUDA_SUCCESS;
}

void fill_graph(DriverTable* t) {
  t->cuStreamBeginCapture_v2 = begin_capture;
  t->cuStreamEndCapture = end_capture;
  t->cuStreamIsCapturing = is_capturing;
  t->cuGraphInstantiateWithFlags = instantiate;
  t->cuGraphLaunch = launch;
  t->cuGraphExecDestroy = exec_destroy;
  t->cuGraphDestroy = graph_destroy;
  t->cuGraphGetNodes = get_nodes;
}

}  // namespace host
