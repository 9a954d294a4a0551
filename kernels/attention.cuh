// The two matrix products of softmax attention, for one block of threads.
//
// A block has `own` rows of one head of one image (queries, or keys in the gradient of keys and values) and walks over the
// `other` rows (keys, or queries) a tile at a time. Two products do all the work, for rows of up to D values:
//
//   scores        s[j][i] = sum_d other[first + j][d] own[i][d]      chains of fused multiply-adds in ascending d
//   accumulate    out[i][d] += sum_j w[j][i] z[first + j][d]         w: the scores after some elementwise function; ascending j
//
// A thread's part of the scores is vectors over consecutive own rows, so sums and maxima over j are lanewise.
//
// GPU: TY x TX threads; a thread has 4 own rows and every TX-th run of 4 other rows or columns d. scores stages `depth` columns of
// both operands, transposed, padded against bank conflicts; accumulate takes w from shared memory (put) and stages z. A group of
// 4 own rows lies in w at its number xor that of the group of other rows, which frees the stores of bank conflicts.
// Host: one thread; own rows are transposed once (Own), other rows are read by broadcasts; micro-tiles of them and panels of z are
// copied together first.
#pragma once
#include "attention_rows.cuh"
#include "gemm.cuh"
#include "math.cuh"

namespace SIMT_VARIANT {

template <int D_, class T>
struct AttentionTile {
  static constexpr int D = D_;     // head sizes up to D
  static constexpr int bytes = 0;  // of dynamic shared memory
#ifdef SIMT_TILES_HOST
  static constexpr int threads = 1, own = 96, other = 96;
  static constexpr int run = LargeTile::TN, runs = own / run;  // own rows to a vector of scores, vectors to a row of scores
  static constexpr int others = other, chunk = run, chunks = D / chunk, rows = own;
  static_assert(own % LargeTile::TM == 0 && own % run == 0 && D % run == 0, "micro-tiles divide the tile");
#else
  static constexpr int TY = 16, TX = D <= 64 ? 8 : 16, threads = TY * TX, own = 4 * TY, other = 64;
  static constexpr int run = 4, runs = 1;
  static constexpr int others = other / TX, chunk = 4, chunks = D / TX / chunk, rows = 4;  // a thread's
  static constexpr int depth = sizeof(T) == 4 ? 32 : 8, lead = own + 4, stage = 2 * depth * lead;
  static constexpr int staged = stage / D < other ? stage / D : other;  // rows of z that the stage holds
  static_assert(own == other && depth % 8 == 0 && staged > 0, "both operands are staged alike");
#endif
};

// What a thread has: scores [others][runs], and sums of `rows` own rows times `chunks` chunks of columns.
template <class T, class C>
struct Scores {
  vec<T, C::run> v[C::others * C::runs];
};
template <class T, class C>
struct OwnValues {
  vec<T, C::run> v[C::runs];
};
template <class T, class C>
struct RowSums {
  vec<T, C::chunk> v[C::rows * C::chunks];
};

#ifdef SIMT_TILES_HOST

template <class C>
DEVICE int own_row(int i) {
  return i;
}
template <class C>
DEVICE int other_row(int e) {
  return e;
}
template <class C>
DEVICE int first_column(int c) {
  return c * C::chunk;
}
template <class C>
DEVICE int sum_index(int i, int c) {
  return c * C::rows + i;
}
template <class C>
DEVICE bool leads_row() {
  return true;
}
// Vectors and rows that hold any of the block's own rows.
template <class C>
DEVICE int used_runs(int count) {
  return (count + C::run - 1) / C::run;
}
template <class C>
DEVICE int used_rows(int count) {
  return count;
}
template <class C>
DEVICE int used_chunks(int dim) {
  return (dim + C::chunk - 1) / C::chunk;
}

template <class T, class C>
struct Shared {};
template <class T, class C>
DEVICE Shared<T, C> shared_of() {
  return {};
}

// a[r][c] = a[c][r] of an N x N block in N vectors: each pass interleaves the upper half with the lower.
template <class T, int N, int... I>
DEVICE void interleave(vec<T, N>* a, simt_indices<I...>) {
  for (int pass = 1; pass < N; pass *= 2) {
    vec<T, N> b[N];
    UNROLL for (int i = 0; i < N / 2; i++) {
      b[2 * i].v = __builtin_shufflevector(a[i].v, a[i + N / 2].v, (I / 2 + I % 2 * N)...);
      b[2 * i + 1].v = __builtin_shufflevector(a[i].v, a[i + N / 2].v, (N / 2 + I / 2 + I % 2 * N)...);
    }
    UNROLL for (int i = 0; i < N; i++) a[i] = b[i];
  }
}

// N values as a product takes them: tf32 has 10 bits of their fraction.
template <int N>
DEVICE vec<acc, N> operand(const real* p) {
#ifdef SIMT_TF32
  typedef uint32_t bits __attribute__((ext_vector_type(N)));
  return {bits_as<typename vec<acc, N>::type>(bits_as<bits>(load<N>(p).v) & 0xffffe000u)};
#else
  return load<N>(p);
#endif
}

// The block's own rows, transposed: x[r][d] is column d of run r; 0 for rows past the block's last.
template <class T, class C>
struct Own {
  vec<T, C::run> x[C::runs][C::D];
  int count;
  METHOD void init(const Rows<real>& rows, int first, int n) {
    constexpr int N = C::run < 16 ? C::run : 16;
    count = n;
    for (int i = 0; i < used_runs<C>(n) * C::run; i += N) {
      for (int d = 0; d < rows.dim; d += N) {
        vec<T, N> block[N];
        for (int r = 0; r < N; r++) {
          block[r] = vec<T, N>::splat(0);
          if (i + r >= n) continue;
          const real* from = rows.at(first + i + r) + d;
          if (d + N <= rows.dim) {
            block[r] = operand<N>(from);
          } else {
            for (int e = 0; e < rows.dim - d; e++) block[r].set(e, operand<1>(from + e)[0]);
          }
        }
        interleave(block, __make_integer_seq<simt_sequence, int, N>{});
        for (int e = 0; e < N; e++) block[e].store(reinterpret_cast<T*>(&x[i / C::run][d + e]) + i % C::run);
      }
    }
  }
};

// c[i] (+)= sum_k a[i * STEP_I + k * STEP_K] b[k] for M values of i.
template <int M, bool ADD, int STEP_I, int STEP_K, class T, int N>
DEVICE void micro_product(vec<T, N>* c, int step_c, const T* a, const vec<T, N>* b, int kn) {
  vec<T, N> sum[M];
  UNROLL for (int i = 0; i < M; i++) sum[i] = ADD ? c[i * step_c] : vec<T, N>::splat(0);
#pragma clang loop unroll_count(2)
  for (int k = 0; k < kn; k++) {
    const vec<T, N> bk = b[k];
    UNROLL for (int i = 0; i < M; i++) sum[i] = fma(a[i * STEP_I + k * STEP_K], bk, sum[i]);
  }
  UNROLL for (int i = 0; i < M; i++) c[i * step_c] = sum[i];
}

// Calls f(i, width<M>) for micro-tiles of M rows from i that cover n rows: large ones, then 4 for a short rest.
template <class F>
DEVICE void micro_tiles(int n, F f) {
  int i = 0;
  for (; n - i > 4; i += LargeTile::TM) f(i, width<LargeTile::TM>{});
  if (i < n) f(i, width<4>{});
}

template <class T, class C>
DEVICE void scores(Scores<T, C>& s, const Own<T, C>& own, const Rows<real>& other, int first, int count, Shared<T, C>) {
  const auto product = [&](int j, auto m) {
    constexpr int M = decltype(m)::n;
    alignas(64) T rows[M][C::D];
    const int at = j + M <= count ? j : count - M;  // the last micro-tile repeats rows of the one before
    for (int i = 0; i < M; i++) {
      const real* from = other.at(first + at + i);
      spans<kVec>(0, other.dim, [&](long long d, auto w) { store(rows[i] + d, operand<decltype(w)::n>(from + d)); });
    }
    for (int run = 0; run < used_runs<C>(own.count); run++) {
      micro_product<M, false, C::D, 1>(s.v + at * C::runs + run, C::runs, rows[0], own.x[run], other.dim);
    }
  };
  if (count >= LargeTile::TM) {
    micro_tiles(count, product);
  } else {
    for (int j = 0; j < count; j++) product(j, width<1>{});
  }
}

template <class T, class C>
DEVICE void put(Shared<T, C>, const Scores<T, C>&) {}

template <class T, class C>
DEVICE void accumulate(RowSums<T, C>& out, const Scores<T, C>& s, const Rows<real>& z, int first, int count, int own_count,
                       Shared<T, C>) {
  vec<T, C::chunk> panel[C::other];
  for (int c = 0; c < used_chunks<C>(z.dim); c++) {
    const int d = c * C::chunk;
    for (int j = 0; j < count; j++) {
      const real* from = z.at(first + j) + d;
      if (d + C::chunk <= z.dim) {
        panel[j] = operand<C::chunk>(from);
      } else {
        panel[j] = vec<T, C::chunk>::splat(0);
        for (int e = 0; e < z.dim - d; e++) panel[j].set(e, operand<1>(from + e)[0]);
      }
    }
    micro_tiles(own_count, [&](int i, auto m) {  // rows past own_count get what is never written
      micro_product<decltype(m)::n, true, 1, C::own>(out.v + sum_index<C>(i, c), 1, reinterpret_cast<const T*>(s.v) + i, panel,
                                                     count);
    });
  }
}

template <class C, class F>
DEVICE void each_other(int count, F f) {
  for (int j = 0; j < count; j++) f(j, true);
}
template <class C, class V>
DEVICE V lanes_sum(V a) {
  return a;
}
template <class C, class V>
DEVICE V lanes_max(V a) {
  return a;
}

#else

template <class C>
DEVICE int thread_y() {
  return static_cast<int>(threadIdx.x) / C::TX;
}
template <class C>
DEVICE int thread_x() {
  return static_cast<int>(threadIdx.x) % C::TX;
}
template <class C>
DEVICE int own_row(int i) {
  return thread_y<C>() * 4 + i;
}
template <class C>
DEVICE int other_row(int e) {
  return (e / 4 * C::TX + thread_x<C>()) * 4 + e % 4;
}
template <class C>
DEVICE int first_column(int c) {
  return (c * C::TX + thread_x<C>()) * 4;
}
template <class C>
DEVICE int sum_index(int i, int c) {
  return i * C::chunks + c;
}
template <class C>
DEVICE bool leads_row() {
  return thread_x<C>() == 0;
}
template <class C>
DEVICE constexpr int used_runs(int) {
  return C::runs;
}
template <class C>
DEVICE constexpr int used_rows(int) {
  return C::rows;
}
template <class C>
DEVICE constexpr int used_chunks(int) {
  return C::chunks;
}

template <class T, class C>
struct Shared {
  T *stage, *weights;
};
template <class T, class C>
DEVICE Shared<T, C> shared_of() {
  SHARED(T, stage, C::stage);
  SHARED(T, weights, C::other * C::own);
  return {stage, weights};
}

template <class T, class C>
struct Own {
  Rows<real> x;
  int first;
  METHOD void init(const Rows<real>& rows, int from, int) {
    x = rows;
    first = from;
  }
};

// Columns d ... d + 3 of a row; 0 outside of the tensor. Here, reals are what is computed in.
template <class T>
DEVICE vec<T, 4> four(const Rows<real>& x, int row, int d) {
  vec<T, 4> v = vec<T, 4>::splat(T(0));
  if (row >= x.length || d >= x.dim) return v;
  const T* from = x.at(row) + d;
  if (x.dim % 4 == 0) return vec<T, 4>::load_aligned(from);
  UNROLL for (int e = 0; e < 4; e++) {
    if (d + e < x.dim) v.set(e, from[e]);
  }
  return v;
}

// S[d][row] of `depth` columns of 64 rows: 2 lanes read 8 columns of a row, and a warp's transposed stores go to 32 banks.
// Two chunks in flight: more cost registers that the scores need.
template <class T, class C>
DEVICE void stage_columns(T* S, const Rows<real>& x, int first, int d0) {
  _Pragma("unroll 2") for (int t = 0; t < C::depth * C::own / 4; t += C::threads) {
    const int i = t + static_cast<int>(threadIdx.x);
    if (C::depth * C::own / 4 % C::threads != 0 && i >= C::depth * C::own / 4) break;
    const int row = i / 2 % C::own, d = (i % 2 + i / (2 * C::own) * 2) * 4;
    const vec<T, 4> v = four<T>(x, first + row, d0 + d);
    UNROLL for (int e = 0; e < 4; e++) S[(d + e) * C::lead + row] = v[e];
  }
}

template <class T, class C>
DEVICE void scores(Scores<T, C>& s, const Own<T, C>& own, const Rows<real>& other, int first, int, const Shared<T, C>& shared) {
  const T *xs = shared.stage + thread_y<C>() * 4, *ys = shared.stage + C::depth * C::lead + thread_x<C>() * 4;
  UNROLL for (int e = 0; e < C::others; e++) s.v[e] = vec<T, 4>::splat(T(0));
  for (int d0 = 0; d0 < other.dim; d0 += C::depth) {
    __syncthreads();
    stage_columns<T, C>(shared.stage, own.x, own.first, d0);
    stage_columns<T, C>(shared.stage + C::depth * C::lead, other, first, d0);
    __syncthreads();
    for (int k0 = 0; k0 < C::depth && d0 + k0 < other.dim; k0 += 8) {
      UNROLL for (int k = k0; k < k0 + 8; k++) {
        const vec<T, 4> x = vec<T, 4>::load_aligned(xs + k * C::lead);
        UNROLL for (int e = 0; e < C::others; e += 4) {
          const vec<T, 4> y = vec<T, 4>::load_aligned(ys + k * C::lead + e * C::TX);
          UNROLL for (int i = 0; i < 4; i++) s.v[e + i] = fma(y[i], x, s.v[e + i]);
        }
      }
    }
  }
}

// Where the thread's four own rows lie in row j of the weights.
template <class C>
DEVICE int weight_index(int j) {
  return j * C::own + (thread_y<C>() ^ (j / 4 % 8)) * 4;
}

// The scores go to shared memory, as the weights of the next accumulate.
template <class T, class C>
DEVICE void put(const Shared<T, C>& shared, const Scores<T, C>& s) {
  __syncthreads();
  UNROLL for (int e = 0; e < C::others; e++) s.v[e].store_aligned(shared.weights + weight_index<C>(other_row<C>(e)));
}

template <class T, class C>
DEVICE void accumulate(RowSums<T, C>& out, const Scores<T, C>&, const Rows<real>& z, int first, int count, int,
                       const Shared<T, C>& shared) {
  for (int j0 = 0; j0 < count; j0 += C::staged) {
    const int n = count - j0 < C::staged ? count - j0 : C::staged;
    __syncthreads();
    for (int i = threadIdx.x; i < n * (C::D / 4); i += C::threads) {
      four<T>(z, first + j0 + i / (C::D / 4), i % (C::D / 4) * 4).store_aligned(shared.stage + i * 4);
    }
    __syncthreads();
    for (int j = 0; j < n; j++) {
      const vec<T, 4> w = vec<T, 4>::load_aligned(shared.weights + weight_index<C>(j0 + j));
      UNROLL for (int c = 0; c < C::chunks; c++) {
        const vec<T, 4> b = vec<T, 4>::load_aligned(shared.stage + j * C::D + first_column<C>(c));
        UNROLL for (int i = 0; i < 4; i++) out.v[sum_index<C>(i, c)] = fma(w[i], b, out.v[sum_index<C>(i, c)]);
      }
    }
  }
}

template <class C, class F>
DEVICE void each_other(int count, F f) {
  UNROLL for (int e = 0; e < C::others; e++) f(e, other_row<C>(e) < count);
}

// Over the TX lanes that share own rows, the same on each.
template <class C, class T>
DEVICE vec<T, 4> lanes_sum(vec<T, 4> a) {
  UNROLL for (int lane = C::TX / 2; lane > 0; lane /= 2) {
    UNROLL for (int i = 0; i < 4; i++) a.set(i, a[i] + shfl_xor(a[i], lane));
  }
  return a;
}
template <class C, class T>
DEVICE vec<T, 4> lanes_max(vec<T, 4> a) {
  UNROLL for (int lane = C::TX / 2; lane > 0; lane /= 2) {
    vec<T, 4> b;
    UNROLL for (int i = 0; i < 4; i++) b.set(i, shfl_xor(a[i], lane));
    a = max(a, b);
  }
  return a;
}

#endif

// Calls f(i, c, row, d) for the sums that a thread has: number of row and chunk, own row, first column.
template <class C, class F>
DEVICE void each_sum(int own_count, int dim, F f) {
  UNROLL_GPU for (int c = 0; c < used_chunks<C>(dim); c++) {
    UNROLL_GPU for (int i = 0; i < used_rows<C>(own_count); i++) f(sum_index<C>(i, c), i, own_row<C>(i), first_column<C>(c));
  }
}

template <class T, class C>
DEVICE void clear(RowSums<T, C>& out) {
  UNROLL_GPU for (int i = 0; i < C::rows * C::chunks; i++) out.v[i] = vec<T, C::chunk>::splat(T(0));
}

// out[i][...] *= factor[i].
template <class T, class C>
DEVICE void rescale(RowSums<T, C>& out, const OwnValues<T, C>& factor, int own_count, int dim) {
  each_sum<C>(own_count, dim, [&](int k, int i, int, int) { out.v[k] = factor.v[i / C::run][i % C::run] * out.v[k]; });
}

template <class T, class C>
DEVICE void write(real* y, const AttentionBlock& b, const RowSums<T, C>& out) {
  each_sum<C>(b.count, b.dim, [&](int k, int, int row, int d) {
    if (row >= b.count || d >= b.dim) return;
    real* to = y + b.offset + static_cast<long long>(b.first + row) * b.stride + d;
    if (d + C::chunk <= b.dim && vector_rows(b.dim)) {
      store(to, out.v[k]);
    } else {
      UNROLL_GPU for (int e = 0; e < C::chunk; e++) {
        if (d + e < b.dim) store(to + e, vec<T, 1>::splat(out.v[k][e]));
      }
    }
  });
}

// One value for each own row, from and to p [N][heads][length]; 0 for rows past the last.
template <class T, class C>
DEVICE OwnValues<T, C> read_values(const T* p, const AttentionBlock& b) {
  OwnValues<T, C> a;
  p += static_cast<long long>(b.sequence) * b.length + b.first;
  UNROLL_GPU for (int r = 0; r < used_runs<C>(b.count); r++) {
    UNROLL_GPU for (int i = 0; i < C::run; i++) {
      const int row = own_row<C>(r * C::run + i);
      a.v[r].set(i, row < b.count ? p[row] : T(0));
    }
  }
  return a;
}
template <class T, class C>
DEVICE void write_values(T* p, const AttentionBlock& b, const OwnValues<T, C>& a) {
  p += static_cast<long long>(b.sequence) * b.length + b.first;
  UNROLL_GPU for (int r = 0; r < used_runs<C>(b.count); r++) {
    UNROLL_GPU for (int i = 0; i < C::run; i++) {
      const int row = own_row<C>(r * C::run + i);
      if (leads_row<C>() && row < b.count) p[row] = a.v[r][i];
    }
  }
}

}  // namespace SIMT_VARIANT
