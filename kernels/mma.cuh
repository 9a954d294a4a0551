// Tensor cores: products of matrix fragments, loads of fragments from shared memory, asynchronous copies into it. With simt.cuh
// the only inline PTX, for sm_80 and newer; each wrapper stands beside its exact host meaning, from the PTX ISA.
//
// Fragments, of lane 4 g + t (g = 0 ... 7, t = 0 ... 3), a register of A and B being a pair of bf16, the lower column (A) or
// row (B) in the low half, or one tf32, a float whose last 13 bits do not count:
//
//             m16n8k16, bf16                                       m16n8k8, tf32
//   A   a[0] row g,     columns 2t, 2t + 1                     a[0] row g,     column t
//       a[1] row g + 8, columns 2t, 2t + 1                     a[1] row g + 8, column t
//       a[2] row g,     columns 2t + 8, 2t + 9                 a[2] row g,     column t + 4
//       a[3] row g + 8, columns 2t + 8, 2t + 9                 a[3] row g + 8, column t + 4
//   B   b[0] rows 2t, 2t + 1, column g                         b[0] row t,     column g
//       b[1] rows 2t + 8, 2t + 9, column g                     b[1] row t + 4, column g
//   D   d[0], d[1] row g, columns 2t, 2t + 1;  d[2], d[3] row g + 8 (both)
//
//   mma_bf16(d, a, b), mma_tf32(d, a, b)   d += a b, d[4], a[4], b[2]; or as one call d[N][4], a[4], b[N][2], or d[M][N][4], a[M][4],
//                                          b[N][2], which on the host is one meeting of the warp instead of M N
//   ldmatrix_x4(r, row)     8 x 8 matrices of 16-bit values, r[i] of matrix i: lane 4 g + t gets row g, columns 2t and 2t + 1; lane
//                           8 i + j gives the address of row j of matrix i, 16 aligned bytes of shared memory. x2, x1: fewer matrices,
//                           the addresses of lanes 0 ... 15 or 0 ... 7. Four 32-bit values are a row too: lane 4 g + t gets column t.
//   ldmatrix_x4_trans(r, row)   the same transposed: lane 4 g + t gets rows 2t and 2t + 1 of column g. x2, x1 likewise
//   cp_async16(shared, global, valid)   16 aligned bytes, zeros where not valid, on their way until cp_async_wait
//   cp_async16_cached(shared, global, valid)   the same through the first-level cache, for what the block soon reads again
//   cp_async_commit()       makes a group of the thread's copies since the last one
//   cp_async_wait<N>()      all groups of the thread but its last N have arrived; to show them to others takes a barrier besides
//   bf16_pair(low, high)    two floats, rounded to the nearest even, as a register of a fragment
//   tf32_bits(a)            a float, rounded to the nearest tf32, halves away from 0, as a register of a fragment
//
// Every lane of the warp must call mma and ldmatrix. On the host device they are a meeting of the warp; products are exact and
// added to d as a chain of float fused multiply-adds in ascending k. A copy makes its target NaNs (0xff bytes) when it is issued and
// is done in the wait. A lane reads its row of an ldmatrix before the meeting, as its own.
#pragma once
#include "simt.cuh"

// Loops over fragments: a GPU keeps them in registers. ROLLED: loops beside the usual way, short rather than fast.
#ifdef SIMT_HOST
#define UNROLL_FRAGMENTS
#define ROLLED
#else
#define UNROLL_FRAGMENTS UNROLL
#define ROLLED _Pragma("unroll 1")
#endif

namespace SIMT_VARIANT {

#ifdef SIMT_HOST

typedef uint32_t simt_quad __attribute__((ext_vector_type(4), may_alias));

template <int MATRICES, bool TRANSPOSED>
DEVICE void simt_ldmatrix(uint32_t (&r)[MATRICES], const void* row, const simt::Site* site) {
  simt_quad own = {0, 0, 0, 0};
  if (static_cast<int>(threadIdx.x) % 32 < 8 * MATRICES) {
    simt::check_shared(row, 16, site);
    own = *static_cast<const simt_quad*>(row);
  }
  uint32_t values[4];
  __builtin_memcpy(values, &own, sizeof values);
  simt::ldmatrix(MATRICES, TRANSPOSED, values, r, site);
}
#define ldmatrix_x4(r, row) simt_ldmatrix<4, false>(r, row, SIMT_SITE)
#define ldmatrix_x2(r, row) simt_ldmatrix<2, false>(r, row, SIMT_SITE)
#define ldmatrix_x1(r, row) simt_ldmatrix<1, false>(r, row, SIMT_SITE)
#define ldmatrix_x4_trans(r, row) simt_ldmatrix<4, true>(r, row, SIMT_SITE)
#define ldmatrix_x2_trans(r, row) simt_ldmatrix<2, true>(r, row, SIMT_SITE)
#define ldmatrix_x1_trans(r, row) simt_ldmatrix<1, true>(r, row, SIMT_SITE)

DEVICE void simt_mma(simt::Product kind, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const simt::Site* site) {
  simt::mma(kind, 1, 1, d, a, b, site);
}
template <int N>
DEVICE void simt_mma(simt::Product kind, float (&d)[N][4], const uint32_t (&a)[4], const uint32_t (&b)[N][2],
                     const simt::Site* site) {
  simt::mma(kind, 1, N, d[0], a, b[0], site);
}
template <int M, int N>
DEVICE void simt_mma(simt::Product kind, float (&d)[M][N][4], const uint32_t (&a)[M][4], const uint32_t (&b)[N][2],
                     const simt::Site* site) {
  static_assert(M <= simt::max_product_rows, "too many rows of fragments");
  simt::mma(kind, M, N, d[0][0], a[0], b[0], site);
}
#define mma_bf16(d, a, b) simt_mma(simt::Product::bf16, d, a, b, SIMT_SITE)
#define mma_tf32(d, a, b) simt_mma(simt::Product::tf32, d, a, b, SIMT_SITE)

DEVICE void simt_copy(void* shared, const void* global, bool valid, const simt::Site* site) {
  simt::async_copy(shared, valid ? global : nullptr, site);
  *static_cast<simt_quad*>(shared) = simt_quad(0xffffffffu);
}
#define cp_async16(shared, global, valid) simt_copy(shared, global, valid, SIMT_SITE)
#define cp_async16_cached(shared, global, valid) simt_copy(shared, global, valid, SIMT_SITE)

DEVICE void cp_async_commit() { simt::async_commit(); }

template <int N>
DEVICE void cp_async_wait() {
  simt::Copy copy;
  while (simt::async_arrived(N, &copy)) {
    *static_cast<simt_quad*>(copy.shared) = copy.global == nullptr ? simt_quad(0u) : *static_cast<const simt_quad*>(copy.global);
  }
}

DEVICE uint32_t simt_bf16(float a) {
  uint32_t bits;
  __builtin_memcpy(&bits, &a, 4);
  if (a != a) return 0x7fff;
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
DEVICE uint32_t bf16_pair(float low, float high) { return simt_bf16(high) << 16 | simt_bf16(low); }

DEVICE uint32_t tf32_bits(float a) {
  uint32_t bits;
  __builtin_memcpy(&bits, &a, 4);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
}

#else

DEVICE uint32_t simt_shared_address(const void* p) {
#ifdef __clang__
  return static_cast<uint32_t>(reinterpret_cast<uintptr_t>((__attribute__((address_space(3))) const void*)p));
#else
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
#endif
}

DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(simt_shared_address(row))
               : "memory");
}
DEVICE void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(simt_shared_address(row))
               : "memory");
}
DEVICE void ldmatrix_x1(uint32_t (&r)[1], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(simt_shared_address(row)) : "memory");
}
DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(simt_shared_address(row))
               : "memory");
}
DEVICE void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(simt_shared_address(row))
               : "memory");
}
DEVICE void ldmatrix_x1_trans(uint32_t (&r)[1], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
               : "=r"(r[0])
               : "r"(simt_shared_address(row))
               : "memory");
}

DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <int N>
DEVICE void mma_bf16(float (&d)[N][4], const uint32_t (&a)[4], const uint32_t (&b)[N][2]) {
  UNROLL for (int j = 0; j < N; j++) mma_bf16(d[j], a, b[j]);
}
template <int N>
DEVICE void mma_tf32(float (&d)[N][4], const uint32_t (&a)[4], const uint32_t (&b)[N][2]) {
  UNROLL for (int j = 0; j < N; j++) mma_tf32(d[j], a, b[j]);
}
template <int M, int N>
DEVICE void mma_bf16(float (&d)[M][N][4], const uint32_t (&a)[M][4], const uint32_t (&b)[N][2]) {
  UNROLL for (int i = 0; i < M; i++) mma_bf16(d[i], a[i], b);
}
template <int M, int N>
DEVICE void mma_tf32(float (&d)[M][N][4], const uint32_t (&a)[M][4], const uint32_t (&b)[N][2]) {
  UNROLL for (int i = 0; i < M; i++) mma_tf32(d[i], a[i], b);
}

DEVICE void cp_async16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(simt_shared_address(shared)), "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
DEVICE void cp_async16_cached(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(simt_shared_address(shared)), "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" : : : "memory"); }
template <int N>
DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
}

DEVICE uint32_t bf16_pair(float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
DEVICE uint32_t tf32_bits(float a) {
  uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(a));
  return r;
}

#endif

}  // namespace SIMT_VARIANT
