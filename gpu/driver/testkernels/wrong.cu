// Kernels that break a rule on purpose, each for the test that sees the host device or a sanitizer find it; linked into
// tests only. `x` has `n` elements.
#include "simt.cuh"

namespace SIMT_VARIANT {

// Only threads below n reach the barrier, the others return.
template <class T>
DEVICE void partial_barrier_body(T* x, int n) {
  if (threadIdx.x < static_cast<unsigned>(n)) {
    __syncthreads();
    x[0] = T(1);
  }
}

template <class T>
DEVICE void two_barriers_body(T* x, int n) {
  if (threadIdx.x < static_cast<unsigned>(n)) {
    __syncthreads();
  } else {
    x[threadIdx.x] = T(2);
    __syncthreads();
  }
}

// Lanes below n shuffle here, the others there.
template <class T>
DEVICE void divergent_shuffle_body(T* x, int n) {
  T v = T(threadIdx.x);
  if (threadIdx.x < static_cast<unsigned>(n)) {
    v = shfl_xor(v, 1);
  } else {
    v = shfl_down(v, 1);
  }
  x[threadIdx.x] = v;
}

// Lanes below n shuffle, while the others wait at a barrier.
template <class T>
DEVICE void shuffle_and_barrier_body(T* x, int n) {
  T v = T(threadIdx.x);
  if (threadIdx.x < static_cast<unsigned>(n)) v = shfl_xor(v, 1);
  __syncthreads();
  x[threadIdx.x] = v;
}

// Lanes from n on have returned when the others read from them.
template <class T>
DEVICE void shuffle_returned_body(T* x, int n) {
  if (threadIdx.x >= static_cast<unsigned>(n)) return;
  x[threadIdx.x] = shfl_idx(T(threadIdx.x), threadIdx.x + 1);
}

template <class T>
DEVICE void plain_barrier_body(T* x, int n) {
  __syncthreads();
  x[threadIdx.x] = T(n);
}

#ifdef SIMT_HOST
// 52 KB of static shared memory, which ptxas refuses.
template <class T>
DEVICE void static_shared_body(T* x, int n) {
  SHARED(T, s, 13 * 1024);
  s[threadIdx.x] = T(n);
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x];
}
#endif

// 40 KB of static shared memory, with whatever the launch adds.
template <class T>
DEVICE void both_shared_body(T* x, int n) {
  SHARED(T, s, 10 * 1024);
  s[threadIdx.x] = T(n);
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x];
}

// Reads static and dynamic shared memory that nobody wrote.
template <class T>
DEVICE void fresh_shared_body(T* x, int n) {
  SHARED(T, s, 64);
  DYN_SHARED(T, d);
  x[2 * threadIdx.x] = s[threadIdx.x];
  x[2 * threadIdx.x + 1] = d[threadIdx.x];
  __syncthreads();
  s[threadIdx.x] = d[threadIdx.x] = T(n);
}

#ifdef SIMT_HOST
template <class T>
DEVICE void assertion_body(T* x, int n) {
  if (threadIdx.x == static_cast<unsigned>(n)) simt::trap("a test's assertion", SIMT_SITE);
  x[threadIdx.x] = T(1);
}
#endif

// Writes to seen, round by round, the threads in the order in which they run.
template <class T>
DEVICE void order_body(int* seen, int* count, int rounds) {
  for (int r = 0; r < rounds; r++) {
    seen[(*count)++] = static_cast<int>(threadIdx.x);
    shfl_xor(T(0), 1);
    seen[(*count)++] = static_cast<int>(threadIdx.x);
    __syncthreads();
  }
}

// A barrier per round.
template <class T>
DEVICE void barriers_body(T* x, int rounds) {
  for (int r = 0; r < rounds; r++) __syncthreads();
  x[blockIdx.x * blockDim.x + threadIdx.x] = T(rounds);
}

// x[i] = i, slowly: a launch that is still running when a careless caller looks.
template <class T>
DEVICE void fill_body(T* x, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) x[i] = T(i);
}

// ptxas would say that 1,024 threads of it do not fit on the chip.
template <class T>
DEVICE void hungry_body(T* x, int n) {
  x[threadIdx.x] = T(n);
}

// --- for the sanitizers

template <class T>
DEVICE void write_past_end_body(T* x, int n) {
  x[n] = T(1);
}
template <class T>
DEVICE void read_past_end_body(T* x, int n) {
  x[0] = x[n];
}
template <class T>
DEVICE void shared_past_end_body(T* x, int n) {
  SHARED(T, a, 64);
  SHARED(T, b, 64);
  a[threadIdx.x] = b[threadIdx.x] = T(1);
  __syncthreads();
  a[threadIdx.x + static_cast<unsigned>(n)] = T(2);
  __syncthreads();
  x[threadIdx.x] = b[threadIdx.x];
}
template <class T>
DEVICE void dynamic_shared_past_end_body(T* x, int n) {
  DYN_SHARED(T, a);
  a[n] = T(1);
  x[0] = a[n];
}
template <class T>
DEVICE void overflow_body(int* x, int n) {
  x[0] = n + 0x7fffffff;
}
template <class T>
DEVICE void misaligned_body(T* x, int n) {
  vec<T, 4>::load_aligned(x + n).store(x);
}
// Each thread reads its neighbour's value, with or without the barrier that it needs.
template <class T>
DEVICE void neighbour_body(T* x, int barrier) {
  SHARED(T, s, 64);
  s[threadIdx.x] = T(threadIdx.x);
  if (barrier) __syncthreads();
  x[blockIdx.x * blockDim.x + threadIdx.x] = s[(threadIdx.x + 1) % 64];
}
// A barrier is missing between reading and the next round's writing.
template <class T>
DEVICE void next_round_body(T* x, int rounds) {
  SHARED(T, s, 64);
  T v = T(threadIdx.x);
  for (int r = 0; r < rounds; r++) {
    s[threadIdx.x] = v;
    __syncthreads();
    v = s[(threadIdx.x + 1) % 64];
  }
  x[threadIdx.x] = v;
}
// A shuffle orders no memory; __syncwarp does.
template <class T>
DEVICE void through_shuffle_body(T* x, int sync) {
  SHARED(T, s, 32);
  s[threadIdx.x] = T(threadIdx.x);
  if (sync) {
    __syncwarp(0xffffffffu);
  } else {
    shfl_xor(T(0), 1);
  }
  x[threadIdx.x] = s[threadIdx.x ^ 1];
}
// All blocks write one element.
template <class T>
DEVICE void same_element_body(T* x, int n) {
  if (threadIdx.x == 0) x[n] = T(blockIdx.x);
}
// All threads write one element, in a kernel without barriers.
template <class T>
DEVICE void same_element_of_threads_body(T* x, int n) {
  x[n] = T(threadIdx.x);
}

#define WRONG(name) KERNEL(name, 1024, (real* x, int n), (x, n))
#define WRONG_BLOCK(name) BLOCK_KERNEL(name, 1024, (real* x, int n), (x, n))
WRONG_BLOCK(partial_barrier)
WRONG_BLOCK(two_barriers)
WRONG_BLOCK(divergent_shuffle)
WRONG_BLOCK(shuffle_and_barrier)
WRONG_BLOCK(shuffle_returned)
WRONG(plain_barrier)
#ifdef SIMT_HOST
WRONG_BLOCK(static_shared)
#endif
WRONG_BLOCK(both_shared)
WRONG_BLOCK(fresh_shared)
#ifdef SIMT_HOST
WRONG(assertion)
#endif
BLOCK_KERNEL(order, 1024, (int* seen, int* count, int rounds), (seen, count, rounds))
WRONG_BLOCK(barriers)
KERNEL(fill, 256, (real* x, int n), (x, n))
WRONG(hungry)
WRONG(write_past_end)
WRONG(read_past_end)
WRONG_BLOCK(shared_past_end)
WRONG(dynamic_shared_past_end)
KERNEL(overflow, 1024, (int* x, int n), (x, n))
WRONG(misaligned)
WRONG_BLOCK(neighbour)
WRONG_BLOCK(next_round)
WRONG_BLOCK(through_shuffle)
WRONG(same_element)
WRONG(same_element_of_threads)

#ifdef SIMT_HOST
static constexpr simt::Resources hungry_resources = {"hungry", 72};
SIMT_LIST("simt_resources") static const simt::Resources* const hungry_resources_listed = &hungry_resources;
#endif

}  // namespace SIMT_VARIANT

extern "C" int ddgpu_testkernels(void) { return 0; }
