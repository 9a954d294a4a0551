// ldmatrix and mma (PTX ISA 9.7.14): what each lane's registers hold of a matrix is the ISA's, "Matrix Fragments".
//
// d of mma is one chain of float fmas in ascending k that begins with c. Products are exact: 8 × 8 bits of bf16, 11 × 11 of
// tf32, whose operands count by their upper 19 bits.
#include "host/ptx/counters.h"
#include "host/ptx/memory.h"
#include "host/ptx/operations.h"

namespace host::ptx {

namespace {

// .aligned: all 32 lanes execute it.
bool whole_warp(Warp& w, const Instruction& i, uint32_t m) {
  return m == kAll || fault(w, i, kLaunchFailed, __builtin_ctz(~m), "only lanes 0x%08x execute it; it needs the whole warp", m);
}

// Lane 8n + r holds the address of row r of matrix n, 8 values of 16 bits; lane l gets the values (l/4, 2(l%4)) and the next one
// of its row; transposed: (2(l%4), l/4) and the next one of its column.
template <bool kTransposed>
bool ldmatrix(Warp& w, const Instruction& i, uint32_t m) {
  if (!whole_warp(w, i, m)) return false;
  const uint32_t rows = i.count == 4 ? kAll : (1u << (8 * i.count)) - 1;
  if (!check_defined(w, i, rows, i.a, "the address of a row")) return false;
  const U64 address = addresses(w, i.a, (i.mode & kWideAddress) != 0, i.offset);
  if (!check_shared(w, i, rows, address, 16)) return false;
  uint32_t undefined[kLanes] = {};
  for (int l = 0; l < 8 * i.count; l++) {
    if (!shadow_read(w, i, l, false, static_cast<uint32_t>(address[l]), 16, &undefined[l])) return false;
  }
  const uint32_t* const to = i.count == 1 ? &i.d : &w.block->program->operands.data()[i.more];
  for (int n = 0; n < i.count; n++) {
    uint16_t matrix[8][8];
    for (int r = 0; r < 8; r++) memcpy(matrix[r], w.block->shared->bytes + address[8 * n + r], 16);
    U32 d;
    uint32_t good = 0;
    for (int l = 0; l < kLanes; l++) {
      const int p = l / 4, q = l % 4 * 2;
      if (kTransposed) {
        d[l] = static_cast<uint32_t>(matrix[q + 1][p]) << 16 | matrix[q][p];
        good |= static_cast<uint32_t>(((undefined[8 * n + q] | undefined[8 * n + q + 1]) >> (p / 2) & 1) == 0) << l;
      } else {
        d[l] = static_cast<uint32_t>(matrix[p][q + 1]) << 16 | matrix[p][q];
        good |= static_cast<uint32_t>((undefined[8 * n + p] >> (q / 2) & 1) == 0) << l;
      }
    }
    row<U32>(w, to[n]) = d;
    w.defined[to[n]] = good;
  }
  if (w.block->tally != nullptr) count_shared(w, i, rows, address, 16, false);
  return true;
}

// Where a lane's register r and half h of it lie in A [16][K], B [K][8] and C [16][8], by g = l/4 and t = l%4.
struct Bf16 {
  static constexpr int kHalves = 2;
  static float value(uint32_t bits, int half) { return __builtin_bit_cast(float, half == 0 ? bits << 16 : bits & 0xffff0000u); }
  static int k(int t, int half, int r) { return 2 * t + half + 8 * r; }
};
struct Tf32 {
  static constexpr int kHalves = 1;
  static float value(uint32_t bits, int) { return __builtin_bit_cast(float, bits & 0xffffe000u); }
  static int k(int t, int, int r) { return t + 4 * r; }
};

// mma.m16n8: operands are 4 rows of d, kK-dependent rows of a and b, 4 rows of c.
template <class F, int kK>
bool mma(Warp& w, const Instruction& i, uint32_t m) {
  if (!whole_warp(w, i, m)) return false;
  constexpr int kParts = F::kHalves == 2 ? kK / 8 : kK / 4;  // registers along k
  const uint32_t* const d = &w.block->program->operands.data()[i.more];
  const uint32_t *const a = d + 4, *const b = a + 2 * kParts, *const c = b + kParts;
  float A[16][kK], B[kK][8], C[16][8];
  bool row_good[16], column_good[8];
  for (bool& good : row_good) good = true;
  for (bool& good : column_good) good = true;
  for (int l = 0; l < kLanes; l++) {
    const int g = l / 4, t = l % 4;
    for (int part = 0; part < kParts; part++) {
      for (int half = 0; half < F::kHalves; half++) {
        const int k = F::k(t, half, part);
        A[g][k] = F::value(row<U32>(w, a[2 * part])[l], half);
        A[g + 8][k] = F::value(row<U32>(w, a[2 * part + 1])[l], half);
        B[k][g] = F::value(row<U32>(w, b[part])[l], half);
      }
      row_good[g] = row_good[g] && w.defined[a[2 * part]] >> l & 1;
      row_good[g + 8] = row_good[g + 8] && w.defined[a[2 * part + 1]] >> l & 1;
      column_good[g] = column_good[g] && w.defined[b[part]] >> l & 1;
    }
    for (int r = 0; r < 4; r++) C[g + r / 2 * 8][2 * t + r % 2] = row<F32>(w, c[r])[l];
  }
  for (int y = 0; y < 16; y++) {
    for (int k = 0; k < kK; k++) {
      for (int x = 0; x < 8; x++) C[y][x] = __builtin_fmaf(A[y][k], B[k][x], C[y][x]);
    }
  }
  uint32_t good[4];
  F32 result[4];
  for (int r = 0; r < 4; r++) {
    good[r] = 0;
    for (int l = 0; l < kLanes; l++) {
      const int y = l / 4 + r / 2 * 8, x = l % 4 * 2 + r % 2;
      result[r][l] = C[y][x];
      good[r] |= static_cast<uint32_t>(row_good[y] && column_good[x]) << l;
    }
    good[r] &= w.defined[c[r]];
  }
  for (int r = 0; r < 4; r++) {
    row<F32>(w, d[r]) = result[r];
    w.defined[d[r]] = good[r];
  }
  return true;
}

}  // namespace

Run ldmatrix_run(bool transposed) { return transposed ? ldmatrix<true> : ldmatrix<false>; }

Run mma_run(Shape s) {
  switch (s) {
    case Shape::bf16_m16n8k16: return mma<Bf16, 16>;
    case Shape::bf16_m16n8k8: return mma<Bf16, 8>;
    case Shape::tf32_m16n8k8: return mma<Tf32, 8>;
    case Shape::tf32_m16n8k4: return mma<Tf32, 4>;
  }
  return nullptr;
}

}  // namespace host::ptx
