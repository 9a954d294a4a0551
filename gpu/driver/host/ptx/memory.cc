// Loads and stores (PTX ISA 9.7.9.8, 9.7.9.11). Every access is checked before it is made: the address is defined, aligned to
// the whole vector, inside one allocation or variable; a value that goes to device memory is defined.
#include "host/ptx/memory.h"

#include "host/ptx/counters.h"
#include "host/ptx/operations.h"

namespace host::ptx {

bool check_defined(Warp& w, const Instruction& i, uint32_t m, uint32_t r, const char* what) {
  const uint32_t missing = m & ~w.defined[r];
  if (__builtin_expect(missing == 0, 1)) return true;
  const SharedMemory& s = *w.block->shared;
  if (s.unwritten_at == kNowhere) return fault(w, i, kLaunchFailed, __builtin_ctz(missing), "%s is not defined", what);
  return fault(w, i, kLaunchFailed, __builtin_ctz(missing),
               "%s is not defined (shared memory that nobody wrote was read at line %u)", what,
               w.block->program->code.data()[s.unwritten_at].line);
}

bool reachable(Warp& w, const Instruction& i, int lane, uint64_t address, uint32_t bytes) {
  const BlockState& b = *w.block;
  int low = 0, high = b.range_count;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (b.ranges[middle].base <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low > 0 && bytes <= b.ranges[low - 1].end - b.ranges[low - 1].base && address <= b.ranges[low - 1].end - bytes) {
    w.last_range = low - 1;
    return true;
  }
  return fault(w, i, kIllegalAddress, lane, "%u bytes at 0x%llx are not inside one live allocation", bytes,
               static_cast<unsigned long long>(address));
}

namespace {

bool check_aligned(Warp& w, const Instruction& i, uint32_t m, const U64& address, uint32_t bytes) {
  const uint32_t odd = mask_of((address & static_cast<uint64_t>(bytes - 1)) != 0ull) & m;
  if (__builtin_expect(odd == 0, 1)) return true;
  const int lane = __builtin_ctz(odd);
  return fault(w, i, kMisaligned, lane, "address 0x%llx is not aligned to %u bytes",
               static_cast<unsigned long long>(address[lane]), bytes);
}

}  // namespace

bool check_global(Warp& w, const Instruction& i, uint32_t m, const U64& address, uint32_t bytes) {
  if (!check_aligned(w, i, m, address, bytes)) return false;
  const BlockState& b = *w.block;
  if (w.last_range < b.range_count) {
    const Range r = b.ranges[w.last_range];
    if (r.end - r.base >= bytes) {
      const uint32_t outside = mask_of(address - r.base > r.end - r.base - bytes) & m;
      if (outside == 0) return true;
    }
  }
  for (uint32_t rest = m; rest != 0; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    if (!reachable(w, i, lane, address[lane], bytes)) return false;
  }
  return true;
}

bool check_shared(Warp& w, const Instruction& i, uint32_t m, const U64& address, uint32_t bytes) {
  if (!check_aligned(w, i, m, address, bytes)) return false;
  const SharedMemory& s = *w.block->shared;
  const uint32_t outside = bytes > s.size ? m : mask_of(address > static_cast<uint64_t>(s.size - bytes)) & m;
  if (__builtin_expect(outside == 0, 1)) return true;
  const int lane = __builtin_ctz(outside);
  return shared_bounds_fault(w, i, lane, address[lane], bytes);
}

namespace {

const uint32_t* values_of(const Warp& w, const Instruction& i) {
  return i.count == 1 ? &i.d : &w.block->program->operands.data()[i.more];
}

uintptr_t address_of(const void* p) { return reinterpret_cast<uintptr_t>(p); }

// Element n of each lane's vector from base + address to a row.
template <class T, class V>
inline void load_element(Warp& w, const Instruction& i, uint32_t r, uint32_t m, uintptr_t base, const U64& address, int n) {
  V d = row<V>(w, r);
  const uint64_t skip = static_cast<uint64_t>(n) * sizeof(T);
  each_lane(m, [&](int l) {
    T x;
    memcpy(&x, reinterpret_cast<const void*>(base + address[l] + skip), sizeof x);
    d[l] = static_cast<__typeof__(d[0] + 0)>(x);
  });
  if (sizeof(T) < 4 && (i.mode & kHalfRegister) != 0) d &= 0xffff;
  row<V>(w, r) = d;
}

// T as it lies in memory, S its signed type.
template <class T, class S>
inline void load_element_of(Warp& w, const Instruction& i, uint32_t r, uint32_t m, uintptr_t base, const U64& address, int n) {
  const bool sign = (i.mode & kSignExtend) != 0;
  if ((i.mode & kWideRegister) == 0) {
    if (sign) load_element<S, S32>(w, i, r, m, base, address, n);
    else load_element<T, U32>(w, i, r, m, base, address, n);
  } else {
    if (sign) load_element<S, S64>(w, i, r, m, base, address, n);
    else load_element<T, U64>(w, i, r, m, base, address, n);
  }
}

void load_values(Warp& w, const Instruction& i, uint32_t m, uintptr_t base, const U64& address) {
  const uint32_t* const to = values_of(w, i);
  for (int n = 0; n < i.count; n++) {
    switch (i.bytes) {
      case 1: load_element_of<uint8_t, int8_t>(w, i, to[n], m, base, address, n); break;
      case 2: load_element_of<uint16_t, int16_t>(w, i, to[n], m, base, address, n); break;
      case 4: load_element_of<uint32_t, int32_t>(w, i, to[n], m, base, address, n); break;
      default: load_element<uint64_t, U64>(w, i, to[n], m, base, address, n); break;
    }
  }
}

template <class T, class V>
inline void store_element(const Warp& w, uint32_t r, uint32_t m, uintptr_t base, const U64& address, int n) {
  const V& a = row<V>(w, r);
  const uint64_t skip = static_cast<uint64_t>(n) * sizeof(T);
  each_lane(m, [&](int l) {
    const T x = static_cast<T>(a[l]);
    memcpy(reinterpret_cast<void*>(base + address[l] + skip), &x, sizeof x);
  });
}

template <class V>
void store_elements(const Warp& w, const Instruction& i, uint32_t m, uintptr_t base, const U64& address) {
  const uint32_t* const from = values_of(w, i);
  for (int n = 0; n < i.count; n++) {
    switch (i.bytes) {
      case 1: store_element<uint8_t, V>(w, from[n], m, base, address, n); break;
      case 2: store_element<uint16_t, V>(w, from[n], m, base, address, n); break;
      case 4: store_element<uint32_t, V>(w, from[n], m, base, address, n); break;
      default: store_element<uint64_t, V>(w, from[n], m, base, address, n); break;
    }
  }
}
void store_values(const Warp& w, const Instruction& i, uint32_t m, uintptr_t base, const U64& address) {
  if (i.bytes == 8 || (i.mode & kWideRegister) != 0) {
    store_elements<U64>(w, i, m, base, address);
  } else {
    store_elements<U32>(w, i, m, base, address);
  }
}

void define_values(Warp& w, const Instruction& i, uint32_t m) {
  const uint32_t* const to = values_of(w, i);
  for (int n = 0; n < i.count; n++) w.defined[to[n]] |= m;
}

bool load_global(Warp& w, const Instruction& i, uint32_t m, const U64& address) {
  const uint32_t bytes = static_cast<uint32_t>(i.bytes) * i.count;
  if (!check_global(w, i, m, address, bytes)) return false;
  load_values(w, i, m, 0, address);
  define_values(w, i, m);
  if (w.block->tally != nullptr) count_global(w, i, m, address, bytes, false);
  return true;
}
bool store_global(Warp& w, const Instruction& i, uint32_t m, const U64& address) {
  const uint32_t bytes = static_cast<uint32_t>(i.bytes) * i.count;
  const uint32_t* const from = values_of(w, i);
  if (!check_global(w, i, m, address, bytes)) return false;
  for (int n = 0; n < i.count; n++) {
    if (!check_defined(w, i, m, from[n], "the value that is stored")) return false;
  }
  store_values(w, i, m, 0, address);
  if (w.block->tally != nullptr) count_global(w, i, m, address, bytes, true);
  return true;
}

// Lanes whose address an earlier lane of the mask has too, and the lanes that have it first: not all of them, but those of the
// usual patterns.
struct Repeats {
  uint32_t again, first;
};
inline Repeats repeated(uint32_t m, const U64& address) {
  const U32 a = __builtin_convertvector(address, U32);
  Repeats r = {0, 0};
  const auto compare = [&](int by, U32 moved) {
    const uint32_t same = mask_of(a == moved) & m & (m << by);
    r.again |= same;
    r.first |= same >> by;
  };
  compare(1, __builtin_shufflevector(a, a, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
                                     23, 24, 25, 26, 27, 28, 29, 30));
  compare(8, __builtin_shufflevector(a, a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17,
                                     18, 19, 20, 21, 22, 23));
  compare(16, __builtin_shufflevector(a, a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
                                      12, 13, 14, 15));
  return r;
}

bool load_shared(Warp& w, const Instruction& i, uint32_t m, const U64& address) {
  const uint32_t bytes = static_cast<uint32_t>(i.bytes) * i.count;
  if (!check_shared(w, i, m, address, bytes)) return false;
  uint32_t undefined[kLanes] = {}, any = 0;
  const Repeats repeats = repeated(m, address);
  for (uint32_t rest = m & ~repeats.again; rest != 0; rest &= rest - 1) {
    const int l = __builtin_ctz(rest);
    const bool many = repeats.first >> l & 1;
    if (!shadow_read(w, i, l, many, static_cast<uint32_t>(address[l]), bytes, &undefined[l])) return false;
    any |= undefined[l];
  }
  load_values(w, i, m, address_of(w.block->shared->bytes), address);
  define_values(w, i, m);
  if (__builtin_expect(any != 0, 0)) {
    const uint32_t* const to = values_of(w, i);
    for (uint32_t rest = m; rest != 0; rest &= rest - 1) {
      const int l = __builtin_ctz(rest);
      if (!shadow_read(w, i, l, false, static_cast<uint32_t>(address[l]), bytes, &undefined[l])) return false;
      for (int n = 0; n < i.count; n++) {
        const uint32_t first = static_cast<uint32_t>(n) * i.bytes / 4, last = (static_cast<uint32_t>(n + 1) * i.bytes - 1) / 4;
        if ((undefined[l] >> first & 1) != 0 || (undefined[l] >> last & 1) != 0) w.defined[to[n]] &= ~(1u << l);
      }
    }
  }
  if (w.block->tally != nullptr) count_shared(w, i, m, address, bytes, false);
  return true;
}
bool store_shared(Warp& w, const Instruction& i, uint32_t m, const U64& address) {
  const uint32_t bytes = static_cast<uint32_t>(i.bytes) * i.count;
  const uint32_t* const from = values_of(w, i);
  if (!check_shared(w, i, m, address, bytes)) return false;
  uint32_t good = kAll;
  for (int n = 0; n < i.count; n++) good &= w.defined[from[n]];
  for (uint32_t rest = m; rest != 0; rest &= rest - 1) {
    const int l = __builtin_ctz(rest);
    const uint32_t at = static_cast<uint32_t>(address[l]);
    if (__builtin_expect(good >> l & 1, 1)) {
      if (!shadow_write(w, i, l, at, bytes, kValue)) return false;
      continue;
    }
    for (int n = 0; n < i.count; n++) {
      const uint32_t state = w.defined[from[n]] >> l & 1 ? kValue : kUndefined;
      if (!shadow_write(w, i, l, at + static_cast<uint32_t>(n) * i.bytes, i.bytes, state)) return false;
    }
  }
  store_values(w, i, m, address_of(w.block->shared->bytes), address);
  if (w.block->tally != nullptr) count_shared(w, i, m, address, bytes, true);
  return true;
}

// Local memory: each lane has Program::local_bytes of its own.
template <bool kStore>
bool access_local(Warp& w, const Instruction& i, uint32_t m, U64 address) {
  const uint32_t bytes = static_cast<uint32_t>(i.bytes) * i.count, size = w.block->program->local_bytes;
  if (!check_aligned(w, i, m, address, bytes)) return false;
  const uint32_t outside = bytes > size ? m : mask_of(address > static_cast<uint64_t>(size - bytes)) & m;
  if (outside != 0) {
    return fault(w, i, kIllegalAddress, __builtin_ctz(outside), "%u bytes at local address 0x%llx, of %u bytes", bytes,
                 static_cast<unsigned long long>(address[__builtin_ctz(outside)]), size);
  }
  for (int l = 0; l < kLanes; l++) address[l] += static_cast<uint64_t>(l) * size;
  if (kStore) {
    store_values(w, i, m, address_of(w.local), address);
  } else {
    load_values(w, i, m, address_of(w.local), address);
    define_values(w, i, m);
  }
  return true;
}

template <bool kStore>
bool access_generic(Warp& w, const Instruction& i, uint32_t m, const U64& address) {
  const uint32_t shared = mask_of((address & kWindowMask) == kSharedWindow) & m;
  const uint32_t local = mask_of((address & kWindowMask) == kLocalWindow) & m;
  const uint32_t global = m & ~shared & ~local;
  if (shared != 0 && !(kStore ? store_shared : load_shared)(w, i, shared, address - kSharedWindow)) return false;
  if (local != 0 && !access_local<kStore>(w, i, local, address - kLocalWindow)) return false;
  return global == 0 || (kStore ? store_global : load_global)(w, i, global, address);
}

template <Space kSpace, bool kStore>
bool access(Warp& w, const Instruction& i, uint32_t m) {
  if (!check_defined(w, i, m, i.a, "the address")) return false;
  const U64 address = addresses(w, i.a, (i.mode & kWideAddress) != 0, i.offset);
  if constexpr (kSpace == Space::generic) return access_generic<kStore>(w, i, m, address);
  if constexpr (kSpace == Space::shared) return (kStore ? store_shared : load_shared)(w, i, m, address);
  if constexpr (kSpace == Space::local) return access_local<kStore>(w, i, m, address);
  return (kStore ? store_global : load_global)(w, i, m, address);
}

bool load_param(Warp& w, const Instruction& i, uint32_t m) {
  load_values(w, i, m, address_of(w.block->params), U64(static_cast<uint64_t>(i.offset)));
  define_values(w, i, m);
  return true;
}

}  // namespace

Run load_run(Space s) {
  switch (s) {
    case Space::generic: return access<Space::generic, false>;
    case Space::global:
    case Space::constant: return access<Space::global, false>;
    case Space::shared: return access<Space::shared, false>;
    case Space::local: return access<Space::local, false>;
    case Space::param: return load_param;
  }
  return nullptr;
}
Run store_run(Space s) {
  switch (s) {
    case Space::generic: return access<Space::generic, true>;
    case Space::global: return access<Space::global, true>;
    case Space::shared: return access<Space::shared, true>;
    case Space::local: return access<Space::local, true>;
    default: return nullptr;
  }
}

}  // namespace host::ptx
