#include "host/ptx/counters.h"

#include <string.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <vector>

#include "dispatch/dispatch.h"
#include "host/ptx/shared.h"

namespace host::ptx {

// A bit for each byte that a launch may reach: what it read, and what it wrote.
struct Touched {
  struct Part {
    Range range;
    std::vector<uint64_t> read, written;  // empty before the first access
  };
  std::vector<Part> parts;
  size_t last = 0;

  Part& find(uintptr_t address) {
    if (last < parts.size() && address >= parts[last].range.base && address < parts[last].range.end) return parts[last];
    last = static_cast<size_t>(std::upper_bound(parts.begin(), parts.end(), address,
                                                [](uintptr_t a, const Part& p) { return a < p.range.base; }) -
                               parts.begin()) -
           1;
    return parts[last];
  }
  void touch(uintptr_t address, uint32_t bytes, bool store) {
    Part& p = find(address);
    std::vector<uint64_t>& bits = store ? p.written : p.read;
    if (bits.empty()) bits.resize((p.range.end - p.range.base + 63) / 64);
    for (uintptr_t b = address - p.range.base; b < address - p.range.base + bytes; b++) bits[b / 64] |= 1ull << (b % 64);
  }
};

namespace {

std::atomic<bool> enabled{false};
std::mutex mutex;
std::map<std::string, ddgpu_kernel_counters> kernels;
Touched touched;

uint64_t ones(const std::vector<uint64_t>& bits) {
  uint64_t n = 0;
  for (const uint64_t word : bits) n += static_cast<uint64_t>(__builtin_popcountll(word));
  return n;
}

// Different values of address / unit among the lanes.
template <class F>
uint64_t distinct(uint32_t m, F unit_of) {
  uint64_t units[2 * kLanes], n = 0;
  each_lane(m, [&](int l) { n = unit_of(l, units, n); });
  std::sort(units, units + n);
  return static_cast<uint64_t>(std::unique(units, units + n) - units);
}

}  // namespace

bool counting() { return enabled.load(std::memory_order_relaxed); }

Touched* open_touched(const Range* ranges, size_t count) {
  touched.parts.clear();
  for (size_t n = 0; n < count; n++) touched.parts.push_back({ranges[n], {}, {}});
  return &touched;
}

void count_global(Warp& w, const Instruction& i, uint32_t m, const U64& address, uint32_t bytes, bool store) {
  Count& c = w.block->tally->counts[&i - w.block->program->code.data()];
  c.requests++;
  c.sectors += distinct(m, [&](int l, uint64_t* units, uint64_t n) {
    units[n++] = address[l] / 32;  // aligned accesses of at most 16 bytes lie in one sector
    return n;
  });
  each_lane(m, [&](int l) { w.block->tally->touched->touch(address[l], bytes, store); });
}

// 32 banks of 4 bytes. Lanes that want the same word share it; a request of 8 or 16 bytes by lane is made by halves or
// quarters of the warp. A part takes as many passes as the bank that is asked for the most different words.
void count_shared(Warp& w, const Instruction& i, uint32_t m, const U64& address, uint32_t bytes, bool) {
  Count& c = w.block->tally->counts[&i - w.block->program->code.data()];
  c.requests++;
  const int lanes = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
  for (int first = 0; first < kLanes; first += lanes) {
    const uint32_t part = m & static_cast<uint32_t>(((1ull << lanes) - 1) << first);
    if (part == 0) continue;
    uint64_t words[32][32], count[32] = {}, most = 0;
    each_lane(part, [&](int l) {
      for (uint64_t word = address[l] / 4; word <= (address[l] + bytes - 1) / 4; word++) {
        uint64_t* const bank = words[word % 32];
        uint64_t& n = count[word % 32];
        if (std::find(bank, bank + n, word) == bank + n) bank[n++] = word;
      }
    });
    uint64_t all = 0;
    for (const uint64_t n : count) {
      most = std::max(most, n);
      all += n;
    }
    c.wavefronts += most;
    c.least_wavefronts += (all + 31) / 32;
  }
}

void add_counts(const Program& p, const Tally& tally) {
  std::lock_guard lock(mutex);
  ddgpu_kernel_counters& k = kernels[p.name];
  strncpy(k.name, p.name.c_str(), sizeof k.name - 1);
  k.launches++;
  for (size_t n = 0; n < p.code.size(); n++) {
    const Count& c = tally.counts[n];
    const Class cls = p.code[n].cls;
    k.instructions[static_cast<int>(cls)] += c.warps;
    k.lanes += c.lanes;
    k.divergent += c.divergent;
    if (p.code[n].flow == Flow::branch || p.code[n].flow == Flow::table) k.branches += c.warps;
    // A generic address may be in either space, cp.async reads one and writes the other.
    if (c.sectors > 0) {
      k.global_requests += cls == Class::async ? c.warps : c.requests;
      k.global_sectors += c.sectors;
      (cls == Class::global_store ? k.store_sectors : k.load_sectors) += c.sectors;
    }
    if (c.wavefronts > 0) {
      k.shared_requests += cls == Class::async ? c.warps : c.requests;
      k.wavefronts += c.wavefronts;
      k.least_wavefronts += c.least_wavefronts;
    }
  }
  for (const Touched::Part& part : tally.touched->parts) {
    k.read_bytes += ones(part.read);
    k.written_bytes += ones(part.written);
  }
}

}  // namespace host::ptx

extern "C" {

void ddgpu_counters_start(int on) {
  std::lock_guard lock(host::ptx::mutex);
  host::ptx::kernels.clear();
  host::ptx::enabled = on != 0;
}

int ddgpu_counters_read(int index, ddgpu_kernel_counters* counters) {
  std::lock_guard lock(host::ptx::mutex);
  auto at = host::ptx::kernels.begin();
  if (index < 0 || static_cast<size_t>(index) >= host::ptx::kernels.size()) return 0;
  std::advance(at, index);
  *counters = at->second;
  return 1;
}

const char* ddgpu_counters_class(int index) {
  return index < 0 || index >= host::ptx::kClasses ? nullptr : host::ptx::name_of(static_cast<host::ptx::Class>(index));
}

}  // extern "C"
