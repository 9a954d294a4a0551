// The matrix products of attention on tensor cores: rows of one head in shared memory, fragments of them in registers.
//
// A block has `own` rows of one head of one image, a warp 16 M of them, and walks over the `other` rows a tile at a time:
//
//   scores        s[i][j] = sum_d own[i][d] other[j][d]     A: own rows from registers (REGS) or shared memory, B: ldmatrix
//   accumulate    out[i][d] += sum_j w[i][j] other[j][d]    A: the scores, after some elementwise function, where they are; B: ldmatrix.trans
//
// The scores of lane 4 g + t are rows g and g + 8, columns 8 n + 2t and 8 n + 2t + 1. For m16n8k16 a pair of them is a register of A. For
// m16n8k8, whose A has columns t and t + 4 in lane 4 g + t, the tile's rows 2t and 2t + 1 of 8 take those places in A and in B: a sum
// may be taken in any order, but it must be the same on both sides.
//
// Shared memory: rows of D values, zeros from column dim on, and 16 bytes between them. So a row begins 4 banks after the one before (D
// is a multiple of 32 values) and the 8 rows of an ldmatrix are in 32 banks; the values of rows 2t, 2t + 1 and column g that tf32
// reads one by one are at bank 8t + g and 8t + 4 + g, again all 32; 16-byte stores of cp.async follow each other in a row.
//
// Global memory: 16 bytes at a time where rows of a head begin at multiples of that, else value by value.
#pragma once
#include "attention_rows.cuh"
#include "math.cuh"
#include "mma.cuh"

namespace SIMT_VARIANT {

#ifdef SIMT_BF16
#define mma_real mma_bf16
constexpr int kStep = 16;  // k of a product of fragments
#else
#define mma_real mma_tf32
constexpr int kStep = 8;
#endif

// D: head sizes up to D. OTHER: rows of a tile. OWNS: operands that have own rows. REGS: they lie in registers. TILES: in shared memory.
template <int D_, int M_, int WARPS, int OTHER, bool REGS, int OWNS, int TILES>
struct TensorTile {
  static constexpr int D = D_, M = M_, threads = 32 * WARPS, own = 16 * M * WARPS, other = OTHER;
  static constexpr bool registers = REGS;
  static constexpr int row = D + kVec;                                                  // from row to row in shared memory
  static constexpr int steps = D / kStep, other_steps = other / kStep;                  // of the two products
  static constexpr int group = other < 32 ? other / 8 : 4, groups = other / 8 / group;  // columns of scores by 8, in groups
  static constexpr int columns = D / 32;                                                // of sums, groups of 4 by 8
  static constexpr int own_rows = OWNS * own, tile_rows = TILES * other;
  // Own rows that go to registers pass through the place of the tiles.
  static constexpr int rows = !REGS ? own_rows + tile_rows : own_rows > tile_rows ? own_rows : tile_rows;
  static constexpr int first_tile = REGS ? 0 : own_rows * row;
  // Behind the rows, two values for each row of two tiles.
  static constexpr int bytes = rows * row * static_cast<int>(sizeof(real)) + 4 * other * static_cast<int>(sizeof(float));
  static_assert(other % kStep == 0 && D % 32 == 0, "fragments divide the tile");
};

DEVICE int warp_index() { return static_cast<int>(threadIdx.x) / 32; }
DEVICE int lane_index() { return static_cast<int>(threadIdx.x) % 32; }
DEVICE int fragment_row() { return lane_index() / 4; }
DEVICE int fragment_column() { return lane_index() % 4 * 2; }

DEVICE float larger(float a, float b) {  // a NaN loses
#ifdef SIMT_HOST
  return a >= b || b != b ? a : b;
#else
  float r;
  asm("max.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#endif
}

DEVICE bool aligned_rows(int dim) { return dim % kVec == 0; }

// Rows first ... first + ROWS of x to shared memory, zeros where there are none; on their way until cp_async_wait and a barrier.
template <class C, int ROWS>
DEVICE void load_rows(real* to, const Rows<real>& x, int first) {
  constexpr int chunks = C::D / kVec, step = C::threads / chunks;
  static_assert(C::threads % chunks == 0 && ROWS % step == 0, "threads divide the rows");
  const int column = static_cast<int>(threadIdx.x) % chunks * kVec;
  to += static_cast<int>(threadIdx.x) / chunks * C::row + column;
  first += static_cast<int>(threadIdx.x) / chunks;
  const real* const from = x.at(first) + column;
  if (aligned_rows(x.dim)) {
    const int end = column < x.dim ? x.length : 0;
    UNROLL_FRAGMENTS for (int i = 0; i < ROWS; i += step) {
      cp_async16(to + i * C::row, from + static_cast<long long>(i) * x.stride, first + i < end);
    }
    return;
  }
  ROLLED for (int i = 0; i < ROWS; i += step) {
    ROLLED for (int e = 0; e < kVec; e++) {
      const bool valid = first + i < x.length && column + e < x.dim;
      to[i * C::row + e] = valid ? from[static_cast<long long>(i) * x.stride + e] : real{};
    }
  }
}

// Changes the sign of the own rows in shared memory; the threads go on together.
template <class C>
DEVICE void negate_own(real* rows) {
#ifdef SIMT_BF16
  constexpr uint32_t signs = 0x80008000u;
#else
  constexpr uint32_t signs = 0x80000000u;
#endif
  uint32_t* const words = reinterpret_cast<uint32_t*>(rows);
  ROLLED for (int i = static_cast<int>(threadIdx.x); i < C::own * C::row * static_cast<int>(sizeof(real)) / 4; i += C::threads) {
    words[i] ^= signs;
  }
  __syncthreads();
}

// A fragments of columns kStep * step ... of the warp's 16 M rows in shared memory.
template <class C>
DEVICE void load_own(uint32_t (&a)[C::M][4], const real* rows, int step) {
  const real* const at = rows + (warp_index() * 16 * C::M + lane_index() % 16) * C::row + lane_index() / 16 * kVec;
  UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) ldmatrix_x4(a[m], at + m * 16 * C::row + step * kStep);
}

// Own rows as A. init is between barriers where C::registers is: it reads what cp.async brought.
template <class C, bool REGS>
struct OwnFragments;
template <class C>
struct OwnFragments<C, true> {
  uint32_t a[C::steps][C::M][4];
  METHOD void init(const real* rows) { UNROLL_FRAGMENTS for (int i = 0; i < C::steps; i++) load_own<C>(a[i], rows, i); }
  METHOD void get(uint32_t (&r)[C::M][4], int step) const {
    UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) { UNROLL_FRAGMENTS for (int i = 0; i < 4; i++) r[m][i] = a[step][m][i]; }
  }
};
template <class C>
struct OwnFragments<C, false> {
  const real* from;
  METHOD void init(const real* rows) { from = rows; }
  METHOD void get(uint32_t (&r)[C::M][4], int step) const { load_own<C>(r, from, step); }
};
template <class C>
using Own = OwnFragments<C, C::registers>;

// Scores: v[group][m][block of 8 columns][register of D].
template <class C>
struct Scores {
  float v[C::groups][C::M][C::group][4];
};
// Sums: v[group of 32 columns][m][block of 8][register of D].
template <class C>
struct Sums {
  float v[C::columns][C::M][4][4];
};
// One value for each of the lane's rows 16 m + 8 h + g.
template <class C>
struct RowValues {
  float v[C::M][2];
};

template <class C>
DEVICE int row_of(int m, int h) {
  return (warp_index() * C::M + m) * 16 + h * 8 + fragment_row();
}

// B fragments of N blocks of 8 tile rows, from row `first`, columns kStep * step ...
template <class C, int N>
DEVICE void load_rows_as_columns(uint32_t (&b)[N][2], const real* tile, int first, int step) {
  const int lane = lane_index();
  if constexpr (N == 1) {
    ldmatrix_x2(b[0], tile + lane % 8 * C::row + lane / 8 % 2 * kVec + first * C::row + step * kStep);
  } else {
    const real* const at = tile + (lane / 16 * 8 + lane % 8) * C::row + lane / 8 % 2 * kVec;
    UNROLL_FRAGMENTS for (int n = 0; n < N; n += 2) {
      uint32_t r[4];
      ldmatrix_x4(r, at + (first + n * 8) * C::row + step * kStep);
      b[n][0] = r[0], b[n][1] = r[1], b[n + 1][0] = r[2], b[n + 1][1] = r[3];
    }
  }
}

// B fragments of tile rows kStep * step ... , 4 blocks of 8 columns from column `first`.
template <class C>
DEVICE void load_columns(uint32_t (&b)[4][2], const real* tile, int step, int first) {
#ifdef SIMT_BF16
  const int lane = lane_index();
  const real* const at = tile + lane % 16 * C::row + lane / 16 * 8;
  UNROLL_FRAGMENTS for (int n = 0; n < 4; n += 2) {
    uint32_t r[4];
    ldmatrix_x4_trans(r, at + step * kStep * C::row + first + n * 8);
    b[n][0] = r[0], b[n][1] = r[1], b[n + 1][0] = r[2], b[n + 1][1] = r[3];
  }
#else
  const real* const at = tile + fragment_column() * C::row + fragment_row();
  UNROLL_FRAGMENTS for (int n = 0; n < 4; n++) {
    b[n][0] = bits_as<uint32_t>(at[step * kStep * C::row + first + n * 8]);
    b[n][1] = bits_as<uint32_t>(at[(step * kStep + 1) * C::row + first + n * 8]);
  }
#endif
}

template <class C>
DEVICE void scores(Scores<C>& s, const Own<C>& own, const real* tile) {
  UNROLL_FRAGMENTS for (int c = 0; c < C::groups * C::M * C::group; c++) {
    UNROLL_FRAGMENTS for (int i = 0; i < 4; i++) s.v[c / (C::M * C::group)][c / C::group % C::M][c % C::group][i] = 0;
  }
  UNROLL_FRAGMENTS for (int step = 0; step < C::steps; step++) {
    uint32_t a[C::M][4];
    own.get(a, step);
    UNROLL_FRAGMENTS for (int c = 0; c < C::groups; c++) {
      uint32_t b[C::group][2];
      load_rows_as_columns<C>(b, tile, c * C::group * 8, step);
      mma_real(s.v[c], a, b);
    }
  }
}

// The scores as A of the product with tile rows kStep * step ...
template <class C>
DEVICE void weights(uint32_t (&a)[C::M][4], const Scores<C>& s, int step) {
  UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) {
#ifdef SIMT_BF16
    const float(&low)[4] = s.v[2 * step / C::group][m][2 * step % C::group];
    const float(&high)[4] = s.v[2 * step / C::group][m][2 * step % C::group + 1];
    a[m][0] = bf16_pair(low[0], low[1]), a[m][1] = bf16_pair(low[2], low[3]);
    a[m][2] = bf16_pair(high[0], high[1]), a[m][3] = bf16_pair(high[2], high[3]);
#else
    const float(&w)[4] = s.v[step / C::group][m][step % C::group];
    a[m][0] = tf32_bits(w[0]), a[m][1] = tf32_bits(w[2]), a[m][2] = tf32_bits(w[1]), a[m][3] = tf32_bits(w[3]);
#endif
  }
}

template <class C>
DEVICE void accumulate(Sums<C>& out, const Scores<C>& s, const real* tile) {
  UNROLL_FRAGMENTS for (int step = 0; step < C::other_steps; step++) {
    uint32_t a[C::M][4];
    weights<C>(a, s, step);
    UNROLL_FRAGMENTS for (int c = 0; c < C::columns; c++) {
      uint32_t b[4][2];
      load_columns<C>(b, tile, step, c * 32);
      mma_real(out.v[c], a, b);
    }
  }
}

// Calls f(value, m, h, column) for the lane's scores.
template <class C, class F>
DEVICE void each_score(Scores<C>& s, F f) {
  UNROLL_FRAGMENTS for (int c = 0; c < C::groups; c++) {
    UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) {
      UNROLL_FRAGMENTS for (int n = 0; n < C::group; n++) {
        UNROLL_FRAGMENTS for (int i = 0; i < 4; i++) {
          f(s.v[c][m][n][i], m, i / 2, (c * C::group + n) * 8 + fragment_column() + i % 2);
        }
      }
    }
  }
}

// s *= g, value by value.
template <class C>
DEVICE void multiply(Scores<C>& s, const Scores<C>& g) {
  UNROLL_FRAGMENTS for (int c = 0; c < C::groups * C::M * C::group; c++) {
    UNROLL_FRAGMENTS for (int i = 0; i < 4; i++) {
      s.v[c / (C::M * C::group)][c / C::group % C::M][c % C::group][i] *=
          g.v[c / (C::M * C::group)][c / C::group % C::M][c % C::group][i];
    }
  }
}

template <class C>
DEVICE void clear(Sums<C>& out) {
  UNROLL_FRAGMENTS for (int i = 0; i < C::columns * C::M * 16; i++) {
    out.v[i / (C::M * 16)][i / 16 % C::M][i / 4 % 4][i % 4] = 0;
  }
}

template <class C>
DEVICE void rescale(Sums<C>& out, const RowValues<C>& factor) {
  UNROLL_FRAGMENTS for (int c = 0; c < C::columns; c++) {
    UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) {
      UNROLL_FRAGMENTS for (int n = 0; n < 4; n++) {
        UNROLL_FRAGMENTS for (int i = 0; i < 4; i++) out.v[c][m][n][i] *= factor.v[m][i / 2];
      }
    }
  }
}

// Over the 4 lanes that share a row, the same on each.
template <class C>
DEVICE void lanes_sum(RowValues<C>& a) {
  UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) {
    UNROLL_FRAGMENTS for (int h = 0; h < 2; h++) {
      float sum = a.v[m][h];
      sum = sum + shfl_xor(sum, 1);
      a.v[m][h] = sum + shfl_xor(sum, 2);
    }
  }
}
template <class C>
DEVICE void lanes_max(RowValues<C>& a) {
  UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) {
    UNROLL_FRAGMENTS for (int h = 0; h < 2; h++) {
      float high = a.v[m][h];
      high = larger(high, shfl_xor(high, 1));
      a.v[m][h] = larger(high, shfl_xor(high, 2));
    }
  }
}

// The sums times `scale` to y, by way of the warp's own part of shared memory, which nobody else uses any more.
template <class C>
DEVICE void write(real* y, const AttentionBlock& b, const Sums<C>& out, float scale, real* shared) {
  real* const staged = shared + warp_index() * 16 * C::M * C::row;
  UNROLL_FRAGMENTS for (int c = 0; c < C::columns; c++) {
    UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) {
      UNROLL_FRAGMENTS for (int n = 0; n < 4; n++) {
        UNROLL_FRAGMENTS for (int h = 0; h < 2; h++) {
          const float low = scale * out.v[c][m][n][2 * h], high = scale * out.v[c][m][n][2 * h + 1];
          real* const at = staged + (m * 16 + h * 8 + fragment_row()) * C::row + c * 32 + n * 8 + fragment_column();
#ifdef SIMT_BF16
          *reinterpret_cast<uint32_t*>(at) = bf16_pair(low, high);
#else
          at[0] = low, at[1] = high;
#endif
        }
      }
    }
  }
  __syncwarp(0xffffffffu);
  constexpr int chunks = C::D / kVec;
  const int first = warp_index() * 16 * C::M;
  y += b.offset + static_cast<long long>(b.first + first) * b.stride;
  for (int i = lane_index(); i < 16 * C::M * chunks; i += 32) {
    const int row = i / chunks, column = i % chunks * kVec;
    if (first + row >= b.count) continue;
    real* const to = y + static_cast<long long>(row) * b.stride + column;
    const real* const from = staged + row * C::row + column;
    if (aligned_rows(b.dim)) {
      if (column < b.dim)
        vec<uint32_t, 4>::load_aligned(reinterpret_cast<const uint32_t*>(from)).store_aligned(reinterpret_cast<uint32_t*>(to));
    } else {
      for (int e = 0; e < kVec && column + e < b.dim; e++) to[e] = from[e];
    }
  }
  __syncwarp(0xffffffffu);
}

// One value for each own row, from and to p [N][heads][length]; 0 for rows past the last.
template <class C>
DEVICE RowValues<C> read_values(const float* p, const AttentionBlock& b) {
  RowValues<C> a;
  p += static_cast<long long>(b.sequence) * b.length + b.first;
  UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) {
    UNROLL_FRAGMENTS for (int h = 0; h < 2; h++) a.v[m][h] = row_of<C>(m, h) < b.count ? p[row_of<C>(m, h)] : 0.0f;
  }
  return a;
}
template <class C>
DEVICE void write_values(float* p, const AttentionBlock& b, const RowValues<C>& a) {
  p += static_cast<long long>(b.sequence) * b.length + b.first;
  UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) {
    UNROLL_FRAGMENTS for (int h = 0; h < 2; h++) {
      if (fragment_column() == 0 && row_of<C>(m, h) < b.count) p[row_of<C>(m, h)] = a.v[m][h];
    }
  }
}

// x_i . y_i for the own rows: 4 lanes share a row.
template <class C>
DEVICE RowValues<C> row_products(const AttentionBlock& b, const Rows<real>& x, const Rows<real>& y) {
  RowValues<C> a;
  UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) {
    UNROLL_FRAGMENTS for (int h = 0; h < 2; h++) {
      float sum = 0;
      if (row_of<C>(m, h) < b.count) {
        const real *p = x.at(b.first + row_of<C>(m, h)), *q = y.at(b.first + row_of<C>(m, h));
        if (aligned_rows(b.dim)) {
          for (int d = lane_index() % 4 * kVec; d < b.dim; d += 4 * kVec) {
            const vec<float, kVec> u = load<kVec>(p + d), v = load<kVec>(q + d);
            UNROLL for (int e = 0; e < kVec; e++) sum = fma(u[e], v[e], sum);
          }
        } else {
          for (int d = lane_index() % 4; d < b.dim; d += 4) sum = fma(load<1>(p + d)[0], load<1>(q + d)[0], sum);
        }
      }
      a.v[m][h] = sum;
    }
  }
  lanes_sum<C>(a);
  return a;
}

}  // namespace SIMT_VARIANT
