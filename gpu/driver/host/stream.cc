// Streams, events and the engine that runs queued work.
//
// A device runs one op at a time: the oldest of some stream, streams taken in turn. In lazy mode an op runs only when something
// waits for it or for a later op of its stream, which exposes results that were read without a wait.
#include <algorithm>

#include "host/device.h"
#include "host/workers.h"

namespace host {

namespace {

using std::chrono::microseconds;

// How long the engine and a waiting caller look again before they sleep: launches usually come back to back, and waking a
// thread costs more than such a wait.
constexpr auto kSpin = microseconds(20);

void wake(Device& device) {
  if (device.sleeping) device.wake.notify_one();
}
void wake_all() {
  for (auto& device : driver->devices) wake(*device);
}

void demand(Stream& stream, uint64_t sequence) {
  if (sequence <= stream.demanded) return;
  stream.demanded = sequence;
  driver->demands++;
  if (stream.context != nullptr) wake(*stream.context->device);
}

bool allowed(Stream& stream, const Op& op) {
  if (driver->config.lazy && op.sequence > stream.demanded) return false;
  Context* const context = stream.context;
  if (context != nullptr && context->null_stream != nullptr) {
    Stream& null_stream = *context->null_stream;
    if (stream.legacy) {
      bool clear = true;
      for (auto& other : context->streams) {
        if (other.get() == &stream || !other->blocking() || other->oldest() > op.sequence) continue;
        demand(*other, op.sequence);
        clear = false;
      }
      if (!clear) return false;
    } else if (stream.blocking() && null_stream.oldest() < op.sequence) {
      demand(null_stream, op.sequence);
      return false;
    }
  }
  if (op.kind == Op::wait && !op.point->done) {
    if (op.point->stream != nullptr) demand(*op.point->stream, op.point->sequence);
    return false;
  }
  return true;
}

std::shared_ptr<Stream> pick(Device& device) {
  auto& all = device.streams;
  uint64_t demands;
  do {
    // What one stream demands of another may allow work of a stream that was passed over already.
    demands = driver->demands;
    for (size_t i = 0; i < all.size(); i++) {
      const size_t at = (device.turn + i) % all.size();
      Stream& stream = *all[at];
      if (stream.running || stream.queue.empty() || !allowed(stream, stream.queue.front())) continue;
      device.turn = at + 1;
      return all[at];
    }
  } while (driver->demands != demands);
  return nullptr;
}

// Waits until `done()`; the caller holds the lock. What the caller does next under the same lock, close() waits for.
template <class Done>
void wait_until(Lock& lock, Done done) {
  if (done()) return;
  const auto end = Clock::now() + kSpin;
  driver->waiters++;
  do {
    if (Clock::now() < end) {
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
    } else {
      driver->progress.wait(lock);
    }
  } while (!done());
  driver->waiters--;
  if (driver->closing) driver->progress.notify_all();
}

void enqueue(Stream& stream, Op op) {
  op.sequence = stream.last = ++driver->sequence;
  stream.queue.push_back(std::move(op));
  wake(*stream.context->device);
}

Result stream_create_priority(CUstream* handle, unsigned flags, int priority) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  if (handle == nullptr || flags > CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
  auto stream = make_stream(*context, flags, priority);
  driver->streams[stream.get()] = stream;
  *handle = reinterpret_cast<CUstream>(stream.get());
  return CUDA_SUCCESS;
}
Result stream_create(CUstream* handle, unsigned flags) { return stream_create_priority(handle, flags, 0); }

Result stream_destroy(CUstream handle) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  const auto it = driver->streams.find(handle);
  if (it == driver->streams.end()) return CUDA_ERROR_INVALID_HANDLE;
  const std::shared_ptr<Stream> stream = it->second;
  if (stream->capture != nullptr) {
    stream->capture->invalid = true;
    stream->capture->streams.erase(stream.get());
  }
  // Work that is queued still runs; the object lives until then.
  demand(*stream, stream->last);
  auto& streams = stream->context->streams;
  if (stream->idle()) {
    auto& all = stream->context->device->streams;
    all.erase(std::remove(all.begin(), all.end(), stream), all.end());
    streams.erase(std::remove(streams.begin(), streams.end(), stream), streams.end());
    stream->context = nullptr;
  }
  driver->streams.erase(it);
  return CUDA_SUCCESS;
}

Result stream_synchronize(CUstream handle) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Stream* stream;
  if (const Result r = find_stream(*context, handle, &stream)) return r;
  if (stream->capture != nullptr) {
    stream->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return wait_stream(lock, *stream);
}

Result stream_query(CUstream handle) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Stream* stream;
  if (const Result r = find_stream(*context, handle, &stream)) return r;
  if (stream->capture != nullptr) {
    stream->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  demand(*stream, stream->last);
  return stream->idle() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

Result stream_wait_event(CUstream handle, CUevent event_handle, unsigned flags) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Stream* stream;
  if (const Result r = find_stream(*context, handle, &stream)) return r;
  Event* const event = find(driver->events, event_handle);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (stream->capture != nullptr || event->capture != nullptr) return capture_wait(*stream, *event);
  if (event->point == nullptr || event->point->done) return CUDA_SUCCESS;
  enqueue(*stream, Op{Op::wait, 0, nullptr, event->point});
  return CUDA_SUCCESS;
}

Result stream_get_priority(CUstream handle, int* priority) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Stream* stream;
  if (const Result r = find_stream(*context, handle, &stream)) return r;
  if (priority == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *priority = stream->priority;
  return CUDA_SUCCESS;
}

Result stream_get_flags(CUstream handle, unsigned* flags) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Stream* stream;
  if (const Result r = find_stream(*context, handle, &stream)) return r;
  if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *flags = stream->flags;
  return CUDA_SUCCESS;
}

Result event_create(CUevent* handle, unsigned flags) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  constexpr unsigned known = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING;
  if (handle == nullptr || (flags & ~known) != 0) return CUDA_ERROR_INVALID_VALUE;
  auto event = std::make_shared<Event>();
  event->context = context;
  event->flags = flags;
  driver->events[event.get()] = event;
  *handle = reinterpret_cast<CUevent>(event.get());
  return CUDA_SUCCESS;
}

Result event_destroy(CUevent handle) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  return driver->events.erase(handle) == 1 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

Result event_record(CUevent handle, CUstream stream_handle) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Event* const event = find(driver->events, handle);
  if (event == nullptr || event->context != context) return CUDA_ERROR_INVALID_HANDLE;
  Stream* stream;
  if (const Result r = find_stream(*context, stream_handle, &stream)) return r;
  if (stream->capture != nullptr) {
    capture_point(*stream, *event);
    return CUDA_SUCCESS;
  }
  event->capture = nullptr;
  event->point = std::make_shared<Point>();
  event->point->stream = stream->shared_from_this();
  enqueue(*stream, Op{Op::record, 0, nullptr, event->point});
  event->point->sequence = stream->last;
  return CUDA_SUCCESS;
}

Result event_query(CUevent handle) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Event* const event = find(driver->events, handle);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (event->capture != nullptr) return refuse_captured(*event);
  if (event->point == nullptr || event->point->done) return CUDA_SUCCESS;
  demand(*event->point->stream, event->point->sequence);
  return CUDA_ERROR_NOT_READY;
}

Result event_synchronize(CUevent handle) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Event* const event = find(driver->events, handle);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (event->capture != nullptr) return refuse_captured(*event);
  const std::shared_ptr<Point> point = event->point;
  if (point == nullptr) return CUDA_SUCCESS;
  if (!point->done) demand(*point->stream, point->sequence);
  wait_until(lock, [&] { return point->done; });
  return usable(&context);
}

Result event_elapsed(float* ms, CUevent start_handle, CUevent end_handle) {
  Lock lock(driver->mutex);
  Context* context;
  if (const Result r = usable(&context)) return r;
  Event* const start = find(driver->events, start_handle);
  Event* const end = find(driver->events, end_handle);
  if (start == nullptr || end == nullptr || start->context != end->context) return CUDA_ERROR_INVALID_HANDLE;
  if (ms == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING) != 0 || start->point == nullptr || end->point == nullptr) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  if (!start->point->done || !end->point->done) return CUDA_ERROR_NOT_READY;
  *ms = std::chrono::duration<float, std::milli>(end->point->when - start->point->when).count();
  return CUDA_SUCCESS;
}

// Takes a stream that was destroyed, or whose context was, off the device once its work has ended.
void retire(Device& device, const std::shared_ptr<Stream>& stream) {
  if (!stream->queue.empty() || stream->legacy || driver->streams.count(stream.get()) > 0) return;
  auto drop = [&](std::vector<std::shared_ptr<Stream>>& streams) {
    streams.erase(std::remove(streams.begin(), streams.end(), stream), streams.end());
  };
  drop(device.streams);
  if (stream->context != nullptr) drop(stream->context->streams);
  stream->context = nullptr;
}

}  // namespace

std::shared_ptr<Stream> make_stream(Context& context, unsigned flags, int priority) {
  auto stream = std::make_shared<Stream>();
  stream->context = &context;
  stream->flags = flags;
  stream->priority = priority;
  context.streams.push_back(stream);
  context.device->streams.push_back(stream);
  return stream;
}

Result find_stream(Context& context, CUstream handle, Stream** stream) {
  if (handle == nullptr) {
    if (const Result r = forbid_in_capture())
      return r == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED ? CUDA_ERROR_STREAM_CAPTURE_IMPLICIT : r;
    *stream = context.null_stream.get();
    return CUDA_SUCCESS;
  }
  *stream = find(driver->streams, handle);
  if (*stream == nullptr || (*stream)->context != &context) return CUDA_ERROR_INVALID_HANDLE;
  return CUDA_SUCCESS;
}

Result submit(Stream& stream, WorkPtr work) {
  if (Capture* const capture = stream.capture.get()) {
    if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    capture->nodes.push_back(std::move(work));
    capture->streams[&stream][&stream] = capture->nodes.size();
    return CUDA_SUCCESS;
  }
  enqueue(stream, Op{Op::work, 0, std::move(work), nullptr});
  return CUDA_SUCCESS;
}

Result submit_and_wait(Lock& lock, Context& context, WorkPtr work) {
  Stream* stream;
  if (const Result r = find_stream(context, nullptr, &stream)) return r;
  if (const Result r = submit(*stream, std::move(work))) return r;
  return wait_stream(lock, *stream);
}

Result wait_stream(Lock& lock, Stream& stream) {
  const auto keep = stream.shared_from_this();
  Context& context = *stream.context;
  const uint64_t last = stream.last;
  demand(stream, last);
  wait_until(lock, [&] { return stream.oldest() > last; });
  return context.device->lost ? CUDA_ERROR_UNKNOWN : context.fault;
}

Result wait_context(Lock& lock, Context& context) {
  const auto streams = context.streams;
  for (const auto& stream : streams) demand(*stream, stream->last);
  for (const auto& stream : streams) {
    const uint64_t last = stream->last;
    wait_until(lock, [&] { return stream->oldest() > last; });
  }
  return context.device->lost ? CUDA_ERROR_UNKNOWN : context.fault;
}

void engine_loop(Device& device) {
  Lock lock(driver->mutex);
  for (;;) {
    std::shared_ptr<Stream> stream = pick(device);
    if (stream == nullptr) {
      const auto end = Clock::now() + kSpin;
      while (stream == nullptr && Clock::now() < end) {
        lock.unlock();
        std::this_thread::yield();
        lock.lock();
        stream = pick(device);
      }
    }
    if (stream == nullptr) {
      if (driver->stopping) return;
      device.sleeping = true;
      device.wake.wait(lock);
      device.sleeping = false;
      continue;
    }
    Op op = std::move(stream->queue.front());
    stream->queue.pop_front();
    Context* const context = stream->context;
    if (op.kind == Op::work && context->fault == CUDA_SUCCESS && !device.lost) {
      stream->running = true;
      stream->running_sequence = op.sequence;
      lock.unlock();
      const Result result = op.what->run(device);
      op.what.reset();
      lock.lock();
      stream->running = false;
      if (result != CUDA_SUCCESS) fault(*context, result);
    } else if (op.kind == Op::record) {
      op.point->when = Clock::now();
      op.point->done = true;
      op.point->stream.reset();
      wake_all();
    }
    retire(device, stream);
    if (driver->waiters > 0) driver->progress.notify_all();
  }
}

void start_engine(Device& device) {
  device.engine = std::thread([&device] { engine_loop(device); });
}

void stop_engine(Lock& lock, Device& device) {
  device.wake.notify_one();
  lock.unlock();
  device.engine.join();
  lock.lock();
}

void fill_stream(DriverTable* t) {
  t->cuStreamCreate = stream_create;
  t->cuStreamCreateWithPriority = stream_create_priority;
  t->cuStreamDestroy_v2 = stream_destroy;
  t->cuStreamSynchronize = stream_synchronize;
  t->cuStreamQuery = stream_query;
  t->cuStreamWaitEvent = stream_wait_event;
  t->cuStreamGetPriority = stream_get_priority;
  t->cuStreamGetFlags = stream_get_flags;
  t->cuEventCreate = event_create;
  t->cuEventDestroy_v2 = event_destroy;
  t->cuEventRecord = event_record;
  t->cuEventQuery = event_query;
  t->cuEventSynchronize = event_synchronize;
  t->cuEventElapsedTime = event_elapsed;
}

}  // namespace host
