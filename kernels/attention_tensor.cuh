// Softmax attention on tensor cores (attention.cu has the formulas), after FlashAttention-2 (Dao 2023).
//
// While a block computes with one tile of other rows, the next is on its way by cp.async. Forward has one place for keys and one for
// values: values arrive during the scores, the next keys during softmax and the product with the values. Backward has two places for
// the operand that it needs last (keys; queries in key_value) and one for the other (values; gradients).
//
// Scores are taken in powers of 2, s_ij scale log2(e): one fma and one ex2 for each. A row's maximum, sum, lse and delta are on
// the 4 lanes that hold its scores. `scale` in the gradients is applied to their sums.
//
// Tiles (D: M, warps, other rows, own rows in registers), of which the registers decide: 16 M D / 32 for each sum, 16 M other / 32 for each
// matrix of scores, 16 M D / 32 (bf16: half of it) for each operand kept in registers, of 255 for a lane; own rows are 64, where
// shared memory allows it. key_value for D = 256 has no registers for both sums and walks over the queries twice, for dv and
// for dk.
#pragma once
#include "attention_fragments.cuh"

namespace SIMT_VARIANT {

template <int D>
struct TensorTiles;
#ifdef SIMT_BF16
template <>
struct TensorTiles<32> {
  using Forward = TensorTile<32, 2, 4, 64, true, 1, 2>;
  using Query = TensorTile<32, 2, 2, 32, true, 2, 3>;
  using KeyValue = TensorTile<32, 2, 2, 32, true, 2, 3>;
};
template <>
struct TensorTiles<64> {
  using Forward = TensorTile<64, 2, 4, 64, false, 1, 2>;
  using Query = TensorTile<64, 2, 2, 32, true, 2, 3>;
  using KeyValue = TensorTile<64, 1, 4, 64, true, 2, 3>;
};
template <>
struct TensorTiles<128> {
  using Forward = TensorTile<128, 2, 4, 32, false, 1, 2>;
  using Query = TensorTile<128, 1, 4, 32, true, 2, 3>;
  using KeyValue = TensorTile<128, 1, 4, 32, false, 2, 3>;
};
template <>
struct TensorTiles<256> {
  using Forward = TensorTile<256, 1, 4, 32, false, 1, 2>;
  using Query = TensorTile<256, 1, 4, 16, false, 2, 3>;
  using KeyValue = TensorTile<256, 1, 4, 16, false, 2, 3>;
};
#else
template <>
struct TensorTiles<32> {
  using Forward = TensorTile<32, 2, 2, 32, true, 1, 2>;
  using Query = TensorTile<32, 2, 2, 32, true, 2, 3>;
  using KeyValue = TensorTile<32, 2, 2, 32, true, 2, 3>;
};
template <>
struct TensorTiles<64> {
  using Forward = TensorTile<64, 1, 4, 64, true, 1, 2>;
  using Query = TensorTile<64, 1, 4, 32, true, 2, 3>;
  using KeyValue = TensorTile<64, 1, 4, 32, true, 2, 3>;
};
template <>
struct TensorTiles<128> {
  using Forward = TensorTile<128, 1, 4, 32, true, 1, 2>;
  using Query = TensorTile<128, 1, 4, 16, false, 2, 3>;
  using KeyValue = TensorTile<128, 1, 4, 16, false, 2, 3>;
};
template <>
struct TensorTiles<256> {
  using Forward = TensorTile<256, 1, 2, 16, false, 1, 2>;
  using Query = TensorTile<256, 1, 2, 8, false, 2, 3>;
  using KeyValue = TensorTile<256, 1, 2, 8, false, 2, 3>;
};
#endif

// Below every score that is not an infinity, and times scale log2(e) still finite: rows of nothing but -infinity give NaN, as 0/0.
constexpr float kLowest = -1e30f;
constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f, kInfinity = __builtin_inff();

// Own rows on their way to shared memory, then as fragments; the barrier between is the caller's.
template <class C>
DEVICE void arrive() {
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
}

template <class T, class C>
DEVICE void attention_forward(real* y, float* lse, const real* q, const real* k, const real* v, int length, int heads, int dim,
                              float scale) {
  DYN_SHARED(real, shared);
  AttentionBlock b;
  b.init<C>(length, heads, dim);
  const Rows<real> keys = b.rows(k), values = b.rows(v);
  real *const key_tile = shared + C::first_tile, *const value_tile = key_tile + C::other * C::row;
  Own<C> queries;
  load_rows<C, C::own>(shared, b.rows(q), b.first);
  // Queries change their sign with a negative scale, so that the largest score gives the largest probability. A factor that is not 0
  // leaves -infinity what it is.
  const bool negative = scale < 0;
  const float factor_of_score = larger((negative ? -scale : scale) * kLog2E, 1e-30f);
  if (C::registers || negative) arrive<C>();
  if (negative) negate_own<C>(shared);
  queries.init(shared);
  if (C::registers) __syncthreads();
  load_rows<C, C::other>(key_tile, keys, 0);
  cp_async_commit();
  RowValues<C> top, total, factor;
  UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) {
    UNROLL_FRAGMENTS for (int h = 0; h < 2; h++) top.v[m][h] = kLowest, total.v[m][h] = 0;
  }
  Sums<C> out;
  clear(out);
  for (int j0 = 0; j0 < length; j0 += C::other) {
    const int count = length - j0;
    arrive<C>();
    load_rows<C, C::other>(value_tile, values, j0);
    cp_async_commit();
    Scores<C> s;
    scores<C>(s, queries, key_tile);
    arrive<C>();
    if (count > C::other) load_rows<C, C::other>(key_tile, keys, j0 + C::other);
    cp_async_commit();
    if (count < C::other) each_score<C>(s, [&](float& a, int, int, int column) { a = column < count ? a : -kInfinity; });
    RowValues<C> high = top, sum;
    bool grows = false;
    each_score<C>(s, [&](float& a, int m, int h, int) { high.v[m][h] = larger(high.v[m][h], a); });
    lanes_max<C>(high);
    UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) {
      UNROLL_FRAGMENTS for (int h = 0; h < 2; h++) {
        factor.v[m][h] = exp2_approx((top.v[m][h] - high.v[m][h]) * factor_of_score);
        grows = grows || factor.v[m][h] != 1.0f;
        top.v[m][h] = high.v[m][h];
        high.v[m][h] *= -factor_of_score;
        sum.v[m][h] = 0;
      }
    }
    each_score<C>(s, [&](float& a, int m, int h, int) { a = exp2_approx(fma(a, factor_of_score, high.v[m][h])); });
    each_score<C>(s, [&](float& a, int m, int h, int) { sum.v[m][h] += a; });
    UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) {
      UNROLL_FRAGMENTS for (int h = 0; h < 2; h++) total.v[m][h] = fma(total.v[m][h], factor.v[m][h], sum.v[m][h]);
    }
    if (any_lane(grows)) rescale<C>(out, factor);  // seldom after the first tiles
    accumulate<C>(out, s, value_tile);
  }
  lanes_sum<C>(total);
  UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) {
    UNROLL_FRAGMENTS for (int h = 0; h < 2; h++) {
      const float sum = total.v[m][h];
      factor.v[m][h] = reciprocal(sum);
      // log takes positive numbers: sum - sum brings NaN and infinity.
      top.v[m][h] = fma(top.v[m][h] * factor_of_score, kLn2, log(sum) + (sum - sum));
    }
  }
  rescale<C>(out, factor);
  __syncthreads();
  write<C>(y, b, out, 1.0f, shared);
  write_values<C>(lse, b, top);
}

template <class T, class C>
DEVICE void attention_backward_query(real* dq, float* delta, const real* dy, const real* y, const float* lse, const real* q,
                                     const real* k, const real* v, int length, int heads, int dim, float scale) {
  DYN_SHARED(real, shared);
  AttentionBlock b;
  b.init<C>(length, heads, dim);
  const Rows<real> keys = b.rows(k), values = b.rows(v);
  real *const key_tiles = shared + C::first_tile, *const value_tile = key_tiles + 2 * C::other * C::row;
  Own<C> queries, gradients;
  load_rows<C, C::own>(shared, b.rows(q), b.first);
  load_rows<C, C::own>(shared + C::own * C::row, b.rows(dy), b.first);
  cp_async_commit();
  const RowValues<C> mean = row_products<C>(b, b.rows(dy), b.rows(y));
  write_values<C>(delta, b, mean);
  RowValues<C> norm = read_values<C>(lse, b);
  UNROLL_FRAGMENTS for (int m = 0; m < C::M; m++) { UNROLL_FRAGMENTS for (int h = 0; h < 2; h++) norm.v[m][h] *= -kLog2E; }
  if (C::registers) arrive<C>();
  queries.init(shared);
  gradients.init(shared + C::own * C::row);
  if (C::registers) __syncthreads();
  load_rows<C, C::other>(key_tiles, keys, 0);
  load_rows<C, C::other>(value_tile, values, 0);
  cp_async_commit();
  const float factor = scale * kLog2E;
  Sums<C> out;
  clear(out);
  real *tile = key_tiles, *next = key_tiles + C::other * C::row;
  for (int j0 = 0; j0 < length; j0 += C::other) {
    const int count = length - j0;
    arrive<C>();
    if (count > C::other) load_rows<C, C::other>(next, keys, j0 + C::other);
    cp_async_commit();
    Scores<C> s, g;
    scores<C>(s, queries, tile);
    scores<C>(g, gradients, value_tile);
    __syncthreads();
    if (count > C::other) load_rows<C, C::other>(value_tile, values, j0 + C::other);
    each_score<C>(s, [&](float& a, int m, int h, int) { a = exp2_approx(fma(a, factor, norm.v[m][h])); });
    each_score<C>(g, [&](float& a, int m, int h, int) { a -= mean.v[m][h]; });
    multiply<C>(s, g);
    if (count < C::other) each_score<C>(s, [&](float& a, int, int, int column) { a = column < count ? a : 0.0f; });
    accumulate<C>(out, s, tile);
    real* const used = tile;
    tile = next;
    next = used;
  }
  __syncthreads();
  write<C>(dq, b, out, scale, shared);
}

// dk and dv, or one of them.
template <class C, bool KEYS, bool VALUES>
DEVICE void key_value_pass(real* dk, real* dv, const real* dy, const float* lse, const float* delta, const real* q, const real* k,
                           const real* v, const AttentionBlock& b, float scale) {
  DYN_SHARED(real, shared);
  const Rows<real> queries = b.rows(q), gradients = b.rows(dy);
  real *const query_tiles = shared + C::first_tile, *const gradient_tile = query_tiles + 2 * C::other * C::row;
  // lse and delta of two tiles of queries, in powers of 2; behind the last, infinity makes probabilities 0.
  float* const norms = reinterpret_cast<float*>(shared + C::rows * C::row);
  float* const means = norms + 2 * C::other;
  lse += static_cast<long long>(b.sequence) * b.length;
  delta += static_cast<long long>(b.sequence) * b.length;
  const int thread = static_cast<int>(threadIdx.x);
  static_assert(C::other <= C::threads, "a thread has at most one query");
  Own<C> keys, values;
  load_rows<C, C::own>(shared, b.rows(k), b.first);
  if (KEYS) load_rows<C, C::own>(shared + C::own * C::row, b.rows(v), b.first);
  if (C::registers) arrive<C>();
  keys.init(shared);
  if (KEYS) values.init(shared + C::own * C::row);
  if (C::registers) __syncthreads();
  load_rows<C, C::other>(query_tiles, queries, 0);
  load_rows<C, C::other>(gradient_tile, gradients, 0);
  cp_async_commit();
  if (thread < C::other) {
    norms[thread] = thread < b.length ? -kLog2E * lse[thread] : -kInfinity;
    means[thread] = thread < b.length ? delta[thread] : 0.0f;
  }
  const float factor = scale * kLog2E;
  Sums<C> key_sums, value_sums;
  if (KEYS) clear(key_sums);
  if (VALUES) clear(value_sums);
  int current = 0;
  for (int i0 = 0; i0 < b.length; i0 += C::other) {
    const int next = i0 + C::other;
    real* const tile = query_tiles + current * C::other * C::row;
    arrive<C>();
    if (next < b.length) load_rows<C, C::other>(query_tiles + (current ^ 1) * C::other * C::row, queries, next);
    cp_async_commit();
    const bool one = thread < C::other && next + thread < b.length;
    const float next_norm = one ? -kLog2E * lse[next + thread] : -kInfinity, next_mean = one ? delta[next + thread] : 0.0f;
    Scores<C> s, g;
    scores<C>(s, keys, tile);
    each_score<C>(s,
                  [&](float& a, int, int, int column) { a = exp2_approx(fma(a, factor, norms[current * C::other + column])); });
    if (VALUES) accumulate<C>(value_sums, s, gradient_tile);
    if (KEYS) {
      scores<C>(g, values, gradient_tile);
      each_score<C>(g, [&](float& a, int, int, int column) { a -= means[current * C::other + column]; });
      multiply<C>(s, g);
    }
    if (thread < C::other) {
      norms[(current ^ 1) * C::other + thread] = next_norm;
      means[(current ^ 1) * C::other + thread] = next_mean;
    }
    __syncthreads();
    if (next < b.length) load_rows<C, C::other>(gradient_tile, gradients, next);
    if (KEYS) accumulate<C>(key_sums, s, tile);
    current ^= 1;
  }
  __syncthreads();
  if (KEYS) write<C>(dk, b, key_sums, scale, shared);
  if (VALUES) write<C>(dv, b, value_sums, 1.0f, shared);
}

template <class T, class C>
DEVICE void attention_backward_key_value(real* dk, real* dv, const real* dy, const float* lse, const float* delta, const real* q,
                                         const real* k, const real* v, int length, int heads, int dim, float scale) {
  AttentionBlock b;
  b.init<C>(length, heads, dim);
  if constexpr (C::D <= 128) {
    key_value_pass<C, true, true>(dk, dv, dy, lse, delta, q, k, v, b, scale);
  } else {
    key_value_pass<C, false, true>(dk, dv, dy, lse, delta, q, k, v, b, scale);
    __syncthreads();
    key_value_pass<C, true, false>(dk, dv, dy, lse, delta, q, k, v, b, scale);
  }
}

}  // namespace SIMT_VARIANT
