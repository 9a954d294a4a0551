// Softmax attention of each head of each image. q, k, v, y [N][L][heads * dim], head h in channels h * dim ...; lse [N][heads][L].
//
//   s_ij = scale q_i . k_j      lse_i = log sum_j exp(s_ij)      p_ij = exp(s_ij - lse_i)      y_i = sum_j p_ij v_j
// Backward, with delta_i = dy_i . y_i  [N][heads][L]:
//   dv_j = sum_i p_ij dy_i      ds_ij = p_ij (dy_i . v_j - delta_i) scale
//   dq_i = sum_j ds_ij k_j      dk_j = sum_i ds_ij q_i
//
// The L x L matrices exist a tile at a time. Forward walks over the keys with a running maximum m_i and sum, and rescales what
// it has when the maximum grows (Milakov, Gimelshein 2018; Rabe, Staats 2021; Dao et al. 2022). Backward computes the scores
// again from q, k and lse: attention_backward_query gives delta and dq, then attention_backward_key_value gives dk and dv, so
// that each output is the sum of one block in a fixed order.
//
// Grid: x over N * heads * ceil(L / own rows of a block), the block's rows are queries, in key_value keys. See attention.cuh and,
// for tensor cores, attention_tensor.cuh for threads and tiles. Entries by the head sizes that they take: up to 32, 64, 128, 256.
// Bound: FLOPs, forward 4 N heads L^2 dim, query 6, key_value 8; for small dim the 1, 1, 1 exponentials of each score.
#include "attention_rows.cuh"
#ifdef SIMT_TENSOR
#include "attention_tensor.cuh"
#else
#include "attention.cuh"
#endif

namespace SIMT_VARIANT {

#ifndef SIMT_TENSOR

// Below every score that is not an infinity or close to it: rows of nothing but -infinity give NaN, as 0/0.
constexpr float kLowest = -3e38f;

template <class T, class C>
DEVICE void attention_forward(real* y, T* lse, const real* q, const real* k, const real* v, int length, int heads, int dim,
                              T scale) {
  using Values = vec<T, C::run>;
  AttentionBlock b;
  b.init<C>(length, heads, dim);
  const Shared<T, C> shared = shared_of<T, C>();
  const Rows<real> keys = b.rows(k), values = b.rows(v);
  Own<T, C> queries;
  queries.init(b.rows(q), b.first, b.count);
  OwnValues<T, C> top, total, factor;
  UNROLL_GPU for (int r = 0; r < C::runs; r++) {
    top.v[r] = Values::splat(T(kLowest));
    total.v[r] = Values::splat(T(0));
  }
  RowSums<T, C> out;
  clear(out);
  for (int j0 = 0; j0 < length; j0 += C::other) {
    const int count = length - j0 < C::other ? length - j0 : C::other;
    Scores<T, C> s;
    scores(s, queries, keys, j0, count, shared);
    UNROLL_GPU for (int r = 0; r < used_runs<C>(b.count); r++) {
      Values m = top.v[r], sum = Values::splat(T(0));
      each_other<C>(count, [&](int e, bool exists) {
        Values& a = s.v[e * C::runs + r];
        a = exists ? scale * a : Values::splat(T(kLowest));
        m = max(m, a);
      });
      m = lanes_max<C>(m);
      each_other<C>(count, [&](int e, bool exists) {
        Values& a = s.v[e * C::runs + r];
        a = exists ? exp(a - m) : Values::splat(T(0));
        sum = sum + a;
      });
      factor.v[r] = exp(top.v[r] - m);
      total.v[r] = fma(total.v[r], factor.v[r], sum);
      top.v[r] = m;
    }
    put(shared, s);
    if (j0 > 0) rescale(out, factor, b.count, dim);
    accumulate(out, s, values, j0, count, b.count, shared);
  }
  UNROLL_GPU for (int r = 0; r < used_runs<C>(b.count); r++) {
    const Values sum = lanes_sum<C>(total.v[r]);
    factor.v[r] = reciprocal(sum);
    top.v[r] = top.v[r] + log(sum) + (sum - sum);  // log takes positive numbers: sum - sum brings NaN and infinity
  }
  rescale(out, factor, b.count, dim);
  write(y, b, out);
  write_values(lse, b, top);
}

// a_i . b_i for the block's own rows.
template <class T, class C>
DEVICE OwnValues<T, C> row_products(const AttentionBlock& b, const Rows<real>& x, const Rows<real>& y) {
#ifdef SIMT_TILES_HOST
  constexpr int W = kVec, lanes = 1, lane = 0;
#else
  constexpr int W = 1, lanes = C::TX;
  const int lane = thread_x<C>();
#endif
  OwnValues<T, C> a;
  UNROLL_GPU for (int r = 0; r < used_runs<C>(b.count); r++) {
    UNROLL_GPU for (int i = 0; i < C::run; i++) {
      const int row = own_row<C>(r * C::run + i);
      vec<T, W> run = vec<T, W>::splat(T(0));
      T total = T(0);
      if (row < b.count) {
        const real *p = x.at(b.first + row), *q = y.at(b.first + row);
        int d = lane * W;
        for (; d + W <= b.dim; d += lanes * W) run = fma(load<W>(p + d), load<W>(q + d), run);
        total = sum(run);
        if (W > 1) {
          for (; d < b.dim; d++) total = fma(load<1>(p + d)[0], load<1>(q + d)[0], total);
        }
      }
      a.v[r].set(i, total);
    }
    a.v[r] = lanes_sum<C>(a.v[r]);
  }
  return a;
}

template <class T, class C>
DEVICE void attention_backward_query(real* dq, T* delta, const real* dy, const real* y, const T* lse, const real* q,
                                     const real* k, const real* v, int length, int heads, int dim, T scale) {
  using Values = vec<T, C::run>;
  AttentionBlock b;
  b.init<C>(length, heads, dim);
  const Shared<T, C> shared = shared_of<T, C>();
  const Rows<real> keys = b.rows(k), values = b.rows(v);
  Own<T, C> queries, gradients;
  queries.init(b.rows(q), b.first, b.count);
  gradients.init(b.rows(dy), b.first, b.count);
  const OwnValues<T, C> norm = read_values<T, C>(lse, b), mean = row_products<T, C>(b, b.rows(dy), b.rows(y));
  write_values(delta, b, mean);
  RowSums<T, C> out;
  clear(out);
  for (int j0 = 0; j0 < length; j0 += C::other) {
    const int count = length - j0 < C::other ? length - j0 : C::other;
    Scores<T, C> s, g;
    scores(s, queries, keys, j0, count, shared);
    scores(g, gradients, values, j0, count, shared);
    UNROLL_GPU for (int r = 0; r < used_runs<C>(b.count); r++) {
      each_other<C>(count, [&](int e, bool exists) {
        Values& a = s.v[e * C::runs + r];
        const Values p = exp(scale * a - norm.v[r]);
        a = exists ? scale * (p * (g.v[e * C::runs + r] - mean.v[r])) : Values::splat(T(0));
      });
    }
    put(shared, s);
    accumulate(out, s, keys, j0, count, b.count, shared);
  }
  write(dq, b, out);
}

template <class T, class C>
DEVICE void attention_backward_key_value(real* dk, real* dv, const real* dy, const T* lse, const T* delta, const real* q,
                                         const real* k, const real* v, int length, int heads, int dim, T scale) {
  using Values = vec<T, C::run>;
  AttentionBlock b;
  b.init<C>(length, heads, dim);
  const Shared<T, C> shared = shared_of<T, C>();
  const Rows<real> queries = b.rows(q), gradients = b.rows(dy);
  Own<T, C> keys, values;
  keys.init(b.rows(k), b.first, b.count);
  values.init(b.rows(v), b.first, b.count);
  lse += static_cast<long long>(b.sequence) * length;
  delta += static_cast<long long>(b.sequence) * length;
  RowSums<T, C> key_sums, value_sums;
  clear(key_sums);
  clear(value_sums);
  for (int i0 = 0; i0 < length; i0 += C::other) {
    const int count = length - i0 < C::other ? length - i0 : C::other;
    Scores<T, C> s, g;
    scores(s, keys, queries, i0, count, shared);
    scores(g, values, gradients, i0, count, shared);
    UNROLL_GPU for (int r = 0; r < used_runs<C>(b.count); r++) {
      each_other<C>(count, [&](int e, bool exists) {
        const int i = i0 + other_row<C>(e);
        Values &p = s.v[e * C::runs + r], &a = g.v[e * C::runs + r];
        p = exists ? exp(scale * p - Values::splat(lse[i])) : Values::splat(T(0));
        a = exists ? scale * (p * (a - Values::splat(delta[i]))) : Values::splat(T(0));
      });
    }
    put(shared, s);
    accumulate(value_sums, s, gradients, i0, count, b.count, shared);
    put(shared, g);
    accumulate(key_sums, g, queries, i0, count, b.count, shared);
  }
  write(dk, b, key_sums);
  write(dv, b, value_sums);
}

#endif

#define FORWARD_PARAMS (real* y, acc* lse, const real* q, const real* k, const real* v, int length, int heads, int dim, acc scale)
#define FORWARD_ARGS (y, lse, q, k, v, length, heads, dim, scale)
#define QUERY_PARAMS                                                                                                             \
  (real* dq, acc* delta, const real* dy, const real* y, const acc* lse, const real* q, const real* k, const real* v, int length, \
   int heads, int dim, acc scale)
#define QUERY_ARGS (dq, delta, dy, y, lse, q, k, v, length, heads, dim, scale)
#define KEY_VALUE_PARAMS                                                                                              \
  (real* dk, real* dv, const real* dy, const acc* lse, const acc* delta, const real* q, const real* k, const real* v, \
   int length, int heads, int dim, acc scale)
#define KEY_VALUE_ARGS (dk, dv, dy, lse, delta, q, k, v, length, heads, dim, scale)

// GEOMETRY: threads of a block, its own rows, bytes of dynamic shared memory.
#define ATTENTION_ENTRY(name, op, Tile, min_blocks, params, args)     \
  template <class T>                                                  \
  DEVICE void name##_body params {                                    \
    op<T, Tile> args;                                                 \
  }                                                                   \
  BLOCK_KERNEL_MIN(name, (Tile::threads), (min_blocks), params, args) \
  GEOMETRY(name, Tile::threads, Tile::own, Tile::bytes)
#ifdef SIMT_TENSOR
#define FORWARD_TILE(D) TensorTiles<D>::Forward
#define QUERY_TILE(D) TensorTiles<D>::Query
#define KEY_VALUE_TILE(D) TensorTiles<D>::KeyValue
#define MIN_BLOCKS(D) 1
#else
#define FORWARD_TILE(D) AttentionTile<D, acc>
#define QUERY_TILE FORWARD_TILE
#define KEY_VALUE_TILE FORWARD_TILE
#define MIN_BLOCKS(D) D == 32 ? 1 : 0
#endif
// The aliases keep the commas of template arguments out of macro arguments.
#define ATTENTION_ENTRIES(D)                                                                                                     \
  using ForwardTile##D = FORWARD_TILE(D);                                                                                        \
  using QueryTile##D = QUERY_TILE(D);                                                                                            \
  using KeyValueTile##D = KEY_VALUE_TILE(D);                                                                                     \
  ATTENTION_ENTRY(attention_forward_##D, attention_forward, ForwardTile##D, MIN_BLOCKS(D), FORWARD_PARAMS, FORWARD_ARGS)         \
  ATTENTION_ENTRY(attention_backward_query_##D, attention_backward_query, QueryTile##D, MIN_BLOCKS(D), QUERY_PARAMS, QUERY_ARGS) \
  ATTENTION_ENTRY(attention_backward_key_value_##D, attention_backward_key_value, KeyValueTile##D, MIN_BLOCKS(D),                \
                  KEY_VALUE_PARAMS, KEY_VALUE_ARGS)

ATTENTION_ENTRIES(32)
ATTENTION_ENTRIES(64)
ATTENTION_ENTRIES(128)
ATTENTION_ENTRIES(256)

}  // namespace SIMT_VARIANT
