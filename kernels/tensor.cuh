// The matrix product under every convolution and linear layer on tensor cores: C[m][n] = Σₖ A[m][k]·B[k][n], in bf16 or tf32 with float
// sums.
//
// One shape in bytes serves both: a *chunk* is 16 bytes of a row (8 bf16, 4 floats), a *slice* is what one mma takes of K, 32 bytes
// (m16n8k16 or m16n8k8), a *step* is SLICES of them in shared memory. A block makes BM×BN of C with a pipeline of STAGES steps:
//
//   wait for step s · barrier · fragments of its first slice · cp.async of step s + STAGES - 1, into the stage that the barrier freed ·
//   for each slice: fragments of the next one, then WM/16 × WN/8 mma
//
// so that a step has one barrier, and copies have STAGES - 1 steps of time. A warp makes WM×WN of the tile. With SPLIT > 1, SPLIT
// warps share a part of the tile and divide the slices of a step among them; their sums are added at the end, in order (exchange).
//
// A tile of an operand lies in shared memory as it lies in global memory: along K (pixels as rows of channels in the forward and the data
// gradient, the data gradient's weights), or across it (the forward's weights, both operands of the weight gradient). Panel permutes the
// chunks of a row, so that the 8 rows of a chunk that ldmatrix reads lie in different banks, and those that cp.async writes too.
// Across K, bf16 takes ldmatrix.trans; 32-bit values cannot be transposed that way and are loaded one or two at a time.
//
// Bytes of shared memory that a warp reads for a slice: 32 (WM + WN) for WM·WN·16 multiply-adds (bf16), 64×64 the least.
#pragma once
#include "gemm.cuh"
#include "mma.cuh"

// Loops over fragments: registers on a GPU, arrays on the host.
#ifdef SIMT_HOST
#define UNROLL_FRAGMENTS
#else
#define UNROLL_FRAGMENTS UNROLL
#endif

namespace SIMT_VARIANT {

constexpr int kChunk = 16 / static_cast<int>(sizeof(real)), kSlice = 2 * kChunk;

template <int BM_, int BN_, int WM_, int WN_, int SPLIT_, int SLICES_, int STAGES_>
struct TensorTile {
  static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_, SPLIT = SPLIT_, SLICES = SLICES_, STAGES = STAGES_;
  static constexpr int BK = SLICES * kSlice, TM = WM / 16, TN = WN / 8;
  static constexpr int warps_m = BM / WM, warps_n = BN / WN, warps = warps_m * warps_n, threads = 32 * warps * SPLIT;
  static constexpr int bytes_a = BM * SLICES * 32, bytes = (BM + BN) * SLICES * 32;  // of a step
  static constexpr int own_slices = SLICES / SPLIT;                                  // of a warp
  static_assert(SLICES % SPLIT == 0 && TM % SPLIT == 0 && TN % 2 == 0,
                "a warp has whole slices, and pairs of columns of fragments");
};

// Place of this thread's warp in the tile: rows m0…, columns n0…, slices of `group`.
template <class C>
struct WarpPlace {
  int m0, n0, group, lane;
  DEVICE WarpPlace here() {
    const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, cell = warp % C::warps;
    return {cell / C::warps_n * C::WM, cell % C::warps_n * C::WN, warp / C::warps, thread % 32};
  }
};

// A tile of an operand in shared memory, rows of LENGTH values, ALONG K or across it. at(r, c) is where chunk c of row r lies, in
// bytes. With 8 or more chunks in a row, chunk c is at c ^ (r mod 8): 8 rows of one chunk, and 8 chunks of one row, fill the 32 banks.
// With 4, two rows fill them, so that pairs of rows share a permutation; with 2, four. Across K, floats are read by 4 rows × 8 floats: there
// rows r mod 4 = 0 ... 3 are permuted by pairs of chunks.
template <int LENGTH, bool ALONG>
struct Panel {
  static constexpr int chunks = LENGTH / kChunk;
  static constexpr bool words = !ALONG && sizeof(real) == 4;
  static_assert(chunks >= 8 ? chunks % 8 == 0 : (chunks == 4 || (chunks == 2 && !words)), "chunks of a row");
  DEVICE int swizzle(int r) {
    if constexpr (words) return chunks >= 8 ? r % 4 * 2 : r / 2 % 2 * 2;
    else if constexpr (chunks >= 8) return r % 8;
    else return r / (8 / chunks) % chunks;
  }
  DEVICE int at(int r, int c) { return (r * chunks + (c ^ swizzle(r))) * 16; }
};

// Reads fragments of A (rows m of C) or B (columns n of C) from a stage. COUNT is the rows or columns of the warp, the first of them `first`;
// load(f, stage, slice) fills A's uint32_t[COUNT / 16][4] or B's [COUNT / 8][2].

// Along K: ldmatrix. The swizzle does not depend on the fragment, and a slice flips bits of the chunk's number.
template <class C, int COUNT, bool IS_A>
struct FragmentsAlong {
  using P = Panel<C::BK, true>;
  int offset[C::own_slices];

  METHOD void init(const WarpPlace<C>& w, int first) {
    // The matrices of x4: of A rows 0-7 and 8-15 of the first chunk, then of the second; of B both chunks of 0-7, then of 8-15.
    const int r = IS_A ? w.lane % 16 : w.lane / 16 * 8 + w.lane % 8, c = IS_A ? w.lane / 16 : w.lane / 8 % 2;
    for (int s = 0; s < C::own_slices; s++) offset[s] = P::at(first + r, (w.group * C::own_slices + s) * 2 + c);
  }
  METHOD void load(uint32_t (&f)[COUNT / 16][4], const char* stage, int slice) const {
    UNROLL_FRAGMENTS for (int i = 0; i < COUNT / 16; i++) ldmatrix_x4(f[i], stage + offset[slice] + i * 16 * P::chunks * 16);
  }
  METHOD void load(uint32_t (&f)[COUNT / 8][2], const char* stage, int slice) const {
    UNROLL_FRAGMENTS for (int j = 0; j < COUNT / 16; j++) {
      uint32_t r[4];
      ldmatrix_x4(r, stage + offset[slice] + j * 16 * P::chunks * 16);
      f[2 * j][0] = r[0], f[2 * j][1] = r[1], f[2 * j + 1][0] = r[2], f[2 * j + 1][1] = r[3];
    }
  }
  // Row of C that half h of fragment i of A is for lane 4g + t.
  DEVICE int row(int i, int h, int g) { return i * 16 + h * 8 + g; }
};

// Across K, bf16: ldmatrix.trans. The swizzle is of the row k, so that it differs from fragment to fragment.
template <class C, int LENGTH, int COUNT, bool IS_A>
struct FragmentsAcross {
  using P = Panel<LENGTH, false>;
  int offset[COUNT / 16];

  METHOD void init(const WarpPlace<C>& w, int first) {
    // The matrices of x4: of A m 0-7 and 8-15 of k 0-7, then of k 8-15; of B k 0-7 and 8-15 of n 0-7, then of n 8-15.
    const int k = IS_A ? w.lane / 16 * 8 + w.lane % 8 : w.lane % 16, c = IS_A ? w.lane / 8 % 2 : w.lane / 16;
    UNROLL_FRAGMENTS for (int i = 0; i < COUNT / 16; i++) {
      offset[i] = P::at(w.group * C::own_slices * kSlice + k, first / kChunk + 2 * i + c);
    }
  }
  METHOD void load(uint32_t (&f)[COUNT / 16][4], const char* stage, int slice) const {
    UNROLL_FRAGMENTS for (int i = 0; i < COUNT / 16; i++)
        ldmatrix_x4_trans(f[i], stage + offset[i] + slice * kSlice * P::chunks * 16);
  }
  METHOD void load(uint32_t (&f)[COUNT / 8][2], const char* stage, int slice) const {
    UNROLL_FRAGMENTS for (int j = 0; j < COUNT / 16; j++) {
      uint32_t r[4];
      ldmatrix_x4_trans(r, stage + offset[j] + slice * kSlice * P::chunks * 16);
      f[2 * j][0] = r[0], f[2 * j][1] = r[1], f[2 * j + 1][0] = r[2], f[2 * j + 1][1] = r[3];
    }
  }
  DEVICE int row(int i, int h, int g) { return i * 16 + h * 8 + g; }
};

// Across K, floats, k = t and t + 4 of lane 4g + t: of A it reads rows 2g and 2g + 1 of C at once, which are halves 0 and 1 of a fragment
// (row()); of B column g. The swizzle reaches 32 floats far, so that the fragments of these have offsets of their own.
template <class C, int LENGTH, int COUNT, bool IS_A>
struct FragmentsAcrossWords {
  using P = Panel<LENGTH, false>;
  static constexpr int width = IS_A ? 16 : 8, own = COUNT < 32 ? COUNT / width : 32 / width;
  int offset[own];

  METHOD void init(const WarpPlace<C>& w, int first) {
    const int k = w.group * C::own_slices * kSlice + w.lane % 4, g = w.lane / 4;
    UNROLL_FRAGMENTS for (int i = 0; i < own; i++) {
      const int n = first + i * width + (IS_A ? 2 * g : g);
      offset[i] = P::at(k, n / kChunk) + n % kChunk * 4;
    }
  }
  METHOD const char* at(const char* stage, int slice, int i, int half) const {
    return stage + offset[i % own] + i / own * 128 + (slice * kSlice + half * 4) * P::chunks * 16;
  }
  METHOD void load(uint32_t (&f)[COUNT / 16][4], const char* stage, int slice) const {
    struct alignas(8) Words {
      uint32_t a, b;
    };
    UNROLL_FRAGMENTS for (int i = 0; i < COUNT / 16; i++) {
      UNROLL_FRAGMENTS for (int half = 0; half < 2; half++) {
        const Words v = *reinterpret_cast<const Words*>(at(stage, slice, i, half));
        f[i][half * 2] = v.a, f[i][half * 2 + 1] = v.b;
      }
    }
  }
  METHOD void load(uint32_t (&f)[COUNT / 8][2], const char* stage, int slice) const {
    UNROLL_FRAGMENTS for (int j = 0; j < COUNT / 8; j++) {
      UNROLL_FRAGMENTS for (int half = 0; half < 2; half++) f[j][half] =
          *reinterpret_cast<const uint32_t*>(at(stage, slice, j, half));
    }
  }
  DEVICE int row(int i, int h, int g) { return i * 16 + g * 2 + h; }
};

template <class C, int LENGTH, int COUNT, bool IS_A, bool ALONG, bool WORDS = (sizeof(real) == 4)>
struct fragments_of {
  using type = FragmentsAcross<C, LENGTH, COUNT, IS_A>;
};
template <class C, int LENGTH, int COUNT, bool IS_A, bool WORDS>
struct fragments_of<C, LENGTH, COUNT, IS_A, true, WORDS> {
  using type = FragmentsAlong<C, COUNT, IS_A>;
};
template <class C, int LENGTH, int COUNT, bool IS_A>
struct fragments_of<C, LENGTH, COUNT, IS_A, false, true> {
  using type = FragmentsAcrossWords<C, LENGTH, COUNT, IS_A>;
};
template <class C, bool ALONG>
using FragmentsA = typename fragments_of<C, C::BM, C::WM, true, ALONG>::type;
template <class C, bool ALONG>
using FragmentsB = typename fragments_of<C, C::BN, C::WN, false, ALONG>::type;

// d += A·B of one slice.
template <class C>
DEVICE void multiply_fragments(float (&d)[C::TM][C::TN][4], const uint32_t (&a)[C::TM][4], const uint32_t (&b)[C::TN][2]) {
  if constexpr (sizeof(real) == 2) mma_bf16(d, a, b);
  else mma_tf32(d, a, b);
}

// The sums of a warp over all steps; with SPLIT > 1 each warp's are those of its slices. Loaders (tensor_load.cuh) have issue(stage), which
// starts the copies of a step, and advance() to the next: A's returns whether it has come to another tap, B's takes that. After the last step
// the shared memory is free for the epilogue, behind a barrier.
template <class C, class A, class B>
DEVICE void issue(A& a, B& b, char* stage) {
  a.issue(stage);
  b.issue(stage + C::bytes_a, a);
  b.advance(a, a.advance());
}

template <class C, class A, class B>
DEVICE void tensor_product(float (&d)[C::TM][C::TN][4], A& a, B& b, int steps, char* shared) {
  const WarpPlace<C> w = WarpPlace<C>::here();
  FragmentsA<C, A::along> fa;
  FragmentsB<C, B::along> fb;
  fa.init(w, w.m0);
  fb.init(w, w.n0);
  UNROLL_FRAGMENTS for (int i = 0; i < C::TM; i++) {
    UNROLL_FRAGMENTS for (int j = 0; j < C::TN; j++) { UNROLL_FRAGMENTS for (int e = 0; e < 4; e++) d[i][j][e] = 0; }
  }
  for (int s = 0; s < C::STAGES - 1; s++) {
    if (s < steps) issue<C>(a, b, shared + s * C::bytes);
    cp_async_commit();
  }
  int read = 0, write = (C::STAGES - 1) * C::bytes;
  for (int step = 0; step < steps; step++) {
    cp_async_wait<C::STAGES - 2>();
    __syncthreads();
    const char* const stage = shared + read;
    uint32_t af[2][C::TM][4], bf[2][C::TN][2];
    fa.load(af[0], stage, 0);
    fb.load(bf[0], stage + C::bytes_a, 0);
    if (step + C::STAGES - 1 < steps) issue<C>(a, b, shared + write);
    cp_async_commit();
    UNROLL for (int s = 0; s < C::own_slices; s++) {
      if (s + 1 < C::own_slices) {
        fa.load(af[(s + 1) % 2], stage, s + 1);
        fb.load(bf[(s + 1) % 2], stage + C::bytes_a, s + 1);
      }
      multiply_fragments<C>(d, af[s % 2], bf[s % 2]);
    }
    read = read + C::bytes == C::STAGES * C::bytes ? 0 : read + C::bytes;
    write = write + C::bytes == C::STAGES * C::bytes ? 0 : write + C::bytes;
  }
}

// Rows of fragments that each of the SPLIT warps of a part of the tile finishes.
template <class C>
constexpr int own_rows = C::TM / C::SPLIT;

// own = the sums of all SPLIT warps, in their order, of the rows of fragments from group·own_rows on. Begins and ends with a barrier.
template <class C>
DEVICE void exchange(float (&own)[own_rows<C>][C::TN][4], const float (&d)[C::TM][C::TN][4], char* shared) {
  const WarpPlace<C> w = WarpPlace<C>::here();
  const int cell = static_cast<int>(threadIdx.x) / 32 % C::warps;
  static_assert(C::TM * (C::SPLIT - 1) * C::warps * C::TN * 512 <= C::STAGES * C::bytes,
                "the sums of the others fit in the stages");
  // Four values of fragment (i, j) from warp `from`, which does not own it.
  const auto quad = [&](int i, int from, int j) {
    const int rank = from > i / own_rows<C> ? from - 1 : from;
    return reinterpret_cast<float*>(shared) + ((((i * (C::SPLIT - 1) + rank) * C::warps + cell) * C::TN + j) * 32 + w.lane) * 4;
  };
  __syncthreads();
  UNROLL_FRAGMENTS for (int i = 0; i < C::TM; i++) {
    if (i / own_rows<C> == w.group) {
      UNROLL_FRAGMENTS for (int j = 0; j < C::TN; j++) {
        UNROLL for (int e = 0; e < 4; e++) own[i % own_rows<C>][j][e] = d[i][j][e];
      }
    } else {
      UNROLL_FRAGMENTS for (int j = 0; j < C::TN; j++) {
        vec<float, 4> v;
        UNROLL for (int e = 0; e < 4; e++) v.set(e, d[i][j][e]);
        v.store_aligned(quad(i, w.group, j));
      }
    }
  }
  __syncthreads();
  UNROLL_FRAGMENTS for (int i = 0; i < own_rows<C>; i++) {
    UNROLL_FRAGMENTS for (int j = 0; j < C::TN; j++) {
      float sum[4];
      UNROLL for (int g = 0; g < C::SPLIT; g++) {
        float v[4];
        if (g == w.group) {
          UNROLL for (int e = 0; e < 4; e++) v[e] = own[i][j][e];
        } else {
          const vec<float, 4> other = vec<float, 4>::load_aligned(quad(w.group * own_rows<C> + i, g, j));
          UNROLL for (int e = 0; e < 4; e++) v[e] = other[e];
        }
        UNROLL for (int e = 0; e < 4; e++) sum[e] = g == 0 ? v[e] : sum[e] + v[e];
      }
      UNROLL for (int e = 0; e < 4; e++) own[i][j][e] = sum[e];
    }
  }
  __syncthreads();
}

}  // namespace SIMT_VARIANT
