// The matrix product under every convolution and linear layer: C[m][n] = Σₖ A[m][k]·B[k][n].
//
// A and B exist only as loaders, which know where their values lie in the tensors of a convolution, and C only as a sink, which
// adds bias and residual and writes. One source for three targets, by compile-time configuration:
//
//   block tile   BM×BN of C, in K steps of BK, by TY×TX threads
//   thread       RM×RN micro-tiles of TM×TN values, whose multiply-adds are fused and in ascending k
//
// GPU (staged.cuh): RM = RN = 1, so that a thread's values live in registers for the whole sum; A and B are staged K-major and
// twice (the loads of the next step are in flight while this one multiplies), and read back 128 bits at a time. A thread's rows
// and columns come in runs of four, TY and TX runs apart, which makes those reads free of bank conflicts.
// Host (indirect.cuh): TX = TY = 1, one thread per block, so that no barrier exists; micro-tiles as large as the vector registers,
// whose sums wait in the first- or second-level cache between K steps of at most BK. A is read where it lies, B copied.
//
// Each value of C is one chain of fused multiply-adds in ascending k, whatever the tile: every configuration, and every
// division of the rows into launches, gives the same bits. On the host, 3×3 convolutions mostly take another way (winograd.cuh).
// A tensor-core micro-tile replaces multiply() and the meaning of a thread's accumulators (row() and column()).
#pragma once
#include "simt.cuh"

// Loops over values that are registers on a GPU and arrays on the host.
#ifdef SIMT_TILES_HOST
#define UNROLL_GPU
#else
#define UNROLL_GPU UNROLL
#endif

namespace SIMT_VARIANT {

template <int TY_, int TX_, int RM_, int RN_, int TM_, int TN_, int BK_>
struct Tile {
  static constexpr int TY = TY_, TX = TX_, RM = RM_, RN = RN_, TM = TM_, TN = TN_, BK = BK_;
  static constexpr int BM = TY * RM * TM, BN = TX * RN * TN, threads = TY * TX;
#ifdef SIMT_TILES_HOST
  static_assert(threads == 1, "a host block has one thread");
  static constexpr int run_m = TM, run_n = TN, pad = 0;
#else
  static_assert(RM == 1 && RN == 1 && TM % 4 == 0 && TN % 4 == 0, "a thread's sums are registers, in runs of four");
  static constexpr int run_m = 4, run_n = 4, pad = 4;  // the padding spreads the transposing stores over the banks
#endif
};

// The configurations: many output channels, few of them (up to 24), and the same of the weight gradient. On the host the sums of a
// micro-tile fill the registers that one B row and a broadcast leave: AVX-512 and NEON have 32, AVX2 16; a row of a weight tile is
// a channel, and micro-tiles that divide channel counts need no copies (indirect.cuh). `wide` is how many values an aligned loader moves at once.
#ifdef SIMT_TILES_HOST
#if defined(__AVX512F__)
using LargeTile = Tile<1, 1, 16, 2, 12, 32, 288>;
using NarrowTile = Tile<1, 1, 8, 1, 24, 16, 128>;
using LargeWeightTile = Tile<1, 1, 36, 2, 8, 32, 128>;
using NarrowWeightTile = Tile<1, 1, 8, 1, 16, 16, 128>;
constexpr int wide = 16;
#elif defined(__AVX2__)
using LargeTile = Tile<1, 1, 32, 4, 6, 16, 288>;
using NarrowTile = Tile<1, 1, 16, 1, 12, 8, 128>;
using LargeWeightTile = Tile<1, 1, 72, 4, 4, 16, 128>;
using NarrowWeightTile = Tile<1, 1, 16, 1, 8, 8, 128>;
constexpr int wide = 8;
#else
using LargeTile = Tile<1, 1, 16, 8, 12, 8, 288>;
using NarrowTile = Tile<1, 1, 8, 2, 24, 4, 128>;
using LargeWeightTile = Tile<1, 1, 36, 8, 8, 8, 128>;
using NarrowWeightTile = Tile<1, 1, 8, 2, 16, 4, 128>;
constexpr int wide = 4;
#endif
#else
using LargeTile = Tile<16, 8, 1, 1, 8, 8, 8>;
using NarrowTile = Tile<16, 8, 1, 1, 4, 4, 16>;
using LargeWeightTile = LargeTile;
using NarrowWeightTile = NarrowTile;
constexpr int wide = 4;
#endif

// V values that a loader moves at once: 128 bits on a GPU, from an address aligned to them.
template <class T, int V>
DEVICE vec<T, V> load_chunk(const T* p) {
#ifdef SIMT_TILES_HOST
  return vec<T, V>::load(p);
#else
  if constexpr (V == 4) return vec<T, V>::load_aligned(p);
  else return vec<T, V>::load(p);
#endif
}
template <class T, int V>
DEVICE void store_chunk(T* p, vec<T, V> v) {
#ifdef SIMT_TILES_HOST
  v.store(p);
#else
  if constexpr (V == 4) v.store_aligned(p);
  else v.store(p);
#endif
}

// Row and column in the block tile of value i of a thread's micro-tile (rm, rn).
template <class C>
DEVICE int row(int rm, int i) {
  return rm * (C::TY * C::TM) + (i / C::run_m * C::TY + static_cast<int>(threadIdx.x) / C::TX) * C::run_m + i % C::run_m;
}
template <class C>
DEVICE int column(int rn, int j) {
  return rn * (C::TX * C::TN) + (j / C::run_n * C::TX + static_cast<int>(threadIdx.x) % C::TX) * C::run_n + j % C::run_n;
}

#ifndef SIMT_TILES_HOST
// How the threads divide a tile to stage, of `rows` rows of `length` values that are contiguous in memory and move in chunks of V:
// a thread keeps to one column of chunks and takes every lanes-th row.
template <class C, int ROWS, int LENGTH, int V>
struct Cut {
  static constexpr int chunks = LENGTH / V;
  static constexpr int lanes = C::threads / chunks;
  static constexpr int rows = ROWS / lanes;
  static_assert(LENGTH % V == 0 && C::threads % chunks == 0 && ROWS % lanes == 0, "threads divide the tile");
  DEVICE int column() { return static_cast<int>(threadIdx.x) % chunks; }
  DEVICE int row(int r) { return static_cast<int>(threadIdx.x) / chunks + r * lanes; }
};

template <class L>
DEVICE void fetch(L& l) {
  UNROLL for (int r = 0; r < L::Cut::rows; r++) l.held[r] = l.load(r);
  l.advance();
}
template <class L, class T>
DEVICE void put(const L& l, T* S) {
  UNROLL for (int r = 0; r < L::Cut::rows; r++) l.place(S, r, l.held[r]);
}

// acc += A·B over the BK values of k in shared memory.
template <class C, class T>
DEVICE void multiply(vec<T, C::TN>* acc, const T* As, const T* Bs) {
  constexpr int lda = C::BM + C::pad, ldb = C::BN + C::pad;
  UNROLL for (int k = 0; k < C::BK; k++) {
    vec<T, C::TN> b;
    T a[C::TM];
    UNROLL for (int j = 0; j < C::TN; j += 4) {
      const vec<T, 4> q = vec<T, 4>::load_aligned(Bs + k * ldb + column<C>(0, j));
      UNROLL for (int e = 0; e < 4; e++) b.set(j + e, q[e]);
    }
    UNROLL for (int i = 0; i < C::TM; i += 4) {
      const vec<T, 4> q = vec<T, 4>::load_aligned(As + k * lda + row<C>(0, i));
      UNROLL for (int e = 0; e < 4; e++) a[i + e] = q[e];
    }
    UNROLL for (int i = 0; i < C::TM; i++) acc[i] = fma(a[i], b, acc[i]);
  }
}
#endif

// The whole product of one block: rows m0…, columns n0… of C[M][N], summed over K and given to the sink.
// A sink has begin(m), once per row, and put(n, vec<T, run>), the values of columns n… of that row, of which some may be
// outside of C.
template <class C, class T, class A, class B, class Sink>
DEVICE void gemm(A& a, B& b, Sink& sink, int M, int N, int K, int m0, int n0) {
  vec<T, C::TN> acc[C::RM * C::RN * C::TM];
#ifdef SIMT_TILES_HOST
  alignas(64) T Bs[C::BK * C::BN];
  const int rms = M - m0 < C::BM ? (M - m0 + C::TM - 1) / C::TM : C::RM;
  const int rns = N - n0 < C::BN ? (N - n0 + C::TN - 1) / C::TN : C::RN;
  for (int rn = 0; rn < rns; rn++) {
    for (int i = 0; i < rms * C::TM; i++) acc[rn * C::RM * C::TM + i] = vec<T, C::TN>::splat(0);
  }
  for (int k = 0; k < K;) {
    const int kn = a.stage(K - k);
    b.stage(Bs, kn);
    for (int rm = 0; rm < rms; rm++) {
      a.select(rm);
      for (int rn = 0; rn < rns; rn++) a.multiply(acc + (rn * C::RM + rm) * C::TM, Bs + rn * C::BK * C::TN);
    }
    k += kn;
  }
#else
  constexpr int sizeA = C::BK * (C::BM + C::pad), sizeB = C::BK * (C::BN + C::pad), rms = 1, rns = 1;
  SHARED(T, As, 2 * sizeA);
  SHARED(T, Bs, 2 * sizeB);
  UNROLL for (int i = 0; i < C::TM; i++) acc[i] = vec<T, C::TN>::splat(0);
  if (K > 0) {
    fetch(a);
    fetch(b);
    put(a, As);
    put(b, Bs);
  }
  __syncthreads();
  int half = 0;
  for (int k0 = 0; k0 < K; k0 += C::BK) {
    const bool more = k0 + C::BK < K;
    if (more) {
      fetch(a);
      fetch(b);
    }
    multiply<C>(acc, As + half * sizeA, Bs + half * sizeB);
    half ^= 1;
    if (more) {
      put(a, As + half * sizeA);
      put(b, Bs + half * sizeB);
    }
    __syncthreads();
  }
#endif
  constexpr int V = wide < C::run_n ? wide : C::run_n;
  for (int rm = 0; rm < rms; rm++) {
    UNROLL for (int i = 0; i < C::TM; i++) {
      const int m = m0 + row<C>(rm, i);
      if (m >= M) continue;
      sink.begin(m);
      for (int rn = 0; rn < rns; rn++) {
        const vec<T, C::TN> c = acc[(rn * C::RM + rm) * C::TM + i];
        UNROLL for (int j = 0; j < C::TN; j += V) {
          const int n = n0 + column<C>(rn, j);
          if (n >= N) continue;
          vec<T, V> part;
          UNROLL for (int e = 0; e < V; e++) part.set(e, c[j + e]);
          sink.put(n, part);
        }
      }
    }
  }
}

}  // namespace SIMT_VARIANT
