#include "host/ptx/async.h"

#include <stdlib.h>

#include "host/ptx/counters.h"
#include "host/ptx/memory.h"
#include "host/ptx/operations.h"

namespace host::ptx {

namespace {

constexpr int kOutOfMemory = 2;

// cp.async [a], [b], bytes, c: row c, or 0, holds how many bytes are read. The target holds nothing until the group's wait.
bool copy_async(Warp& w, const Instruction& i, uint32_t m) {
  if (!check_defined(w, i, m, i.a, "the address in shared memory")) return false;
  const U64 to = addresses(w, i.a, (i.mode & kWideAddress) != 0, i.offset);
  const uint32_t bytes = i.bytes;
  if (!check_shared(w, i, m, to, bytes)) return false;
  U32 source_bytes = bytes;
  if (i.c != 0) {
    if (!check_defined(w, i, m, i.c, "the size of the source")) return false;
    source_bytes = row<U32>(w, i.c);
  }
  const uint32_t reads = mask_of(source_bytes != 0u) & m;
  if (!check_defined(w, i, reads, i.b, "the address in device memory")) return false;
  const U64 from = row<U64>(w, i.b) + static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(i.target)));
  if (reads != 0 && !check_global(w, i, reads, from, bytes)) return false;
  AsyncCopies& q = *w.async;
  if (q.count + kLanes > q.room) {
    q.room = 2 * q.room + 256;
    q.copies = static_cast<AsyncCopy*>(realloc(q.copies, q.room * sizeof(AsyncCopy)));
    if (q.copies == nullptr) return fault(w, i, kOutOfMemory, -1, "no memory for copies that are under way");
  }
  for (uint32_t rest = m; rest != 0; rest &= rest - 1) {
    const int l = __builtin_ctz(rest);
    const uint32_t at = static_cast<uint32_t>(to[l]);
    if (source_bytes[l] > bytes)
      return fault(w, i, kLaunchFailed, l, "a source of %u bytes for %u", static_cast<uint32_t>(source_bytes[l]), bytes);
    if (!shadow_write(w, i, l, at, bytes, kInFlight)) return false;
    memset(w.block->shared->bytes + at, 0xff, bytes);
    q.copies[q.count++] = {
        l, at, from[l], bytes, source_bytes[l], q.groups[l], static_cast<uint32_t>(&i - w.block->program->code.data())};
  }
  if (w.block->tally != nullptr) {
    if (reads != 0) count_global(w, i, reads, from, bytes, false);
    count_shared(w, i, m, to, bytes, true);
  }
  return true;
}

bool commit(Warp& w, const Instruction&, uint32_t m) {
  each_lane(m, [&](int l) { w.async->groups[l]++; });
  return true;
}

bool wait_group(Warp& w, const Instruction& i, uint32_t m) {
  AsyncCopies& q = *w.async;
  SharedMemory& s = *w.block->shared;
  size_t kept = 0;
  for (size_t n = 0; n < q.count; n++) {
    const AsyncCopy c = q.copies[n];
    const bool waits = m >> c.lane & 1;
    if (!waits || (i.offset >= 0 && c.group + i.offset >= q.groups[c.lane])) {
      q.copies[kept++] = c;
      continue;
    }
    uint8_t* const to = s.bytes + c.to;
    memset(to, 0, c.bytes);
    if (c.source_bytes > 0) memcpy(to, reinterpret_cast<const void*>(c.from), c.source_bytes);
    for (uint32_t g = c.to >> s.shift; g <= (c.to + c.bytes - 1) >> s.shift; g++) {
      s.written[g] = s.time << kTimeShift | kValue | (w.index * kLanes + static_cast<uint32_t>(c.lane));
      s.written_at[g] = c.at;
    }
  }
  q.count = kept;
  return true;
}

}  // namespace

Run copy_async_run() { return copy_async; }
Run commit_run() { return commit; }
Run wait_group_run() { return wait_group; }

}  // namespace host::ptx
