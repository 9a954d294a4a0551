// exp, log, sin and cos of whole turns, sqrt, reciprocal, sigmoid for float and double, of scalars and of vec<T, N>.
//
// There is no libm and no libdevice here: the polynomials below are the same on every CPU, so a host result has the same bits
// on every CPU, and they vectorise. On a GPU float exp and reciprocal use the PTX approximations.
//
// Errors (against float64, over the whole domain; math_check.cu measures them):
//   exp     float: 2 ulp, results below 2^-126 flush to 0; double: 2 ulp.  NaN stays NaN, overflow gives infinity.
//   log     float, double: 2 ulp; normal positive arguments.
//   sincos_turns  sin(2 pi u), cos(2 pi u): 2e-7 (float), 5e-16 (double) absolute; |u| < 2^20.
//   sigmoid 3 ulp (float).
#pragma once
#include "vec.cuh"

namespace SIMT_VARIANT {

template <class To, class From>
DEVICE To bits_as(From a) {
  static_assert(sizeof(To) == sizeof(From), "bits_as keeps the size");
  To r;
  __builtin_memcpy(&r, &a, sizeof r);
  return r;
}

// The functions are written over lanes: V is float, double or on the host a SIMD vector of them, U the unsigned integers of the
// same shape.
template <class V>
DEVICE V lane_fma(V a, V b, V c) {
#ifdef SIMT_HOST
  return __builtin_elementwise_fma(a, b, c);
#else
  return fma(a, b, c);
#endif
}
#ifndef SIMT_HOST
DEVICE double fma(double a, double b, double c) {
  double r;
  asm("fma.rn.f64 %0, %1, %2, %3;" : "=d"(r) : "d"(a), "d"(b), "d"(c));
  return r;
}
template <>
__device__ __forceinline__ double lane_fma(double a, double b, double c) {
  return fma(a, b, c);
}
#endif

template <class V, int N, class T>
DEVICE V polynomial(V x, const T (&coefficients)[N]) {  // highest power first
  V p = V(coefficients[0]);
  UNROLL for (int i = 1; i < N; i++) p = lane_fma(p, x, V(coefficients[i]));
  return p;
}

template <class T>
struct math;

template <>
struct math<float> {
  using bits = uint32_t;

  // exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2)/2, ln 2 in two parts; 2^n as two factors since n reaches 128.
  // Rounding by adding 1.5 * 2^23 leaves n in the low bits of the sum.
  template <class V, class U>
  DEVICE V exp(V x) {
    const V low = V(-87.33654f), high = V(89.0f);
    V c = x < low ? low : x;
    c = c > high ? high : c;
    const V t = lane_fma(c, V(1.44269504f), V(12582912.0f));
    const V n = t - V(12582912.0f);
    const V r = lane_fma(n, V(2.12194440e-4f), lane_fma(n, V(-0.693359375f), c));
    const float k[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                       4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    const V p = lane_fma(polynomial(r, k) * r, r, r) + V(1.0f);
    const U e = bits_as<U>(t) - (0x4B400000u - 256u);  // n + 256
    const U half = e >> 1;
    const V y = p * bits_as<V>((half - 1u) << 23) * bits_as<V>((e - half - 1u) << 23);
    return x < low ? V(0.0f) : y;
  }

  // log(x) = e ln 2 + log(m), m in [sqrt(1/2), sqrt(2)).
  template <class V, class U>
  DEVICE V log(V x) {
    const U k = bits_as<U>(x) + (0x3F800000u - 0x3F3504F3u);
    const V e = bits_as<V>((k >> 23) | 0x4B000000u) - V(8388608.0f + 127.0f);
    const V f = bits_as<V>((k & 0x7FFFFFu) + 0x3F3504F3u) - V(1.0f);
    const float c[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,  -1.2420140846e-1f, 1.4249322787e-1f,
                       -1.6668057665e-1f, 2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
    const V z = f * f;
    V y = polynomial(f, c) * f * z;
    y = lane_fma(e, V(-2.12194440e-4f), y);
    y = lane_fma(V(-0.5f), z, y);
    return lane_fma(e, V(0.693359375f), f + y);
  }

  // u = k/4 + r turns with |r| <= 1/8 exactly; the quarter turn k picks sine or cosine and the sign.
  template <class V, class U>
  DEVICE void sincos_turns(V u, V& sine, V& cosine) {
    const V t = lane_fma(u, V(4.0f), V(12582912.0f));
    const V a = lane_fma(t - V(12582912.0f), V(-0.25f), u) * V(6.28318531f);
    const U k = bits_as<U>(t);
    const V z = a * a;
    const float cs[] = {-1.9515295891e-4f, 8.3321608736e-3f, -1.6666654611e-1f};
    const float cc[] = {2.443315711809948e-5f, -1.388731625493765e-3f, 4.166664568298827e-2f};
    const V s = lane_fma(polynomial(z, cs) * z, a, a);
    const V c = lane_fma(polynomial(z, cc) * z, z, lane_fma(V(-0.5f), z, V(1.0f)));
    const U odd = U(0u) - (k & 1u);
    const U sb = bits_as<U>(s), cb = bits_as<U>(c);
    sine = bits_as<V>(((sb & ~odd) | (cb & odd)) ^ ((k & 2u) << 30));
    cosine = bits_as<V>(((cb & ~odd) | (sb & odd)) ^ (((k + 1u) & 2u) << 30));
  }
};

template <>
struct math<double> {
  using bits = uint64_t;

  template <class V, class U>
  DEVICE V exp(V x) {
    const V low = V(-708.39), high = V(710.0);
    V c = x < low ? low : x;
    c = c > high ? high : c;
    const V t = lane_fma(c, V(1.4426950408889634), V(6755399441055744.0));
    const V n = t - V(6755399441055744.0);
    const V r = lane_fma(n, V(-1.90821492927058770002e-10), lane_fma(n, V(-6.93147180369123816490e-01), c));
    const double k[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                        1.0 / 5040,       1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      0.5};
    const V p = lane_fma(polynomial(r, k) * r, r, r) + V(1.0);
    const U e = bits_as<U>(t) - (0x4338000000000000ull - 2048ull);  // n + 2048
    const U half = e >> 1;
    const V y = p * bits_as<V>((half - 1ull) << 52) * bits_as<V>((e - half - 1ull) << 52);
    return x < low ? V(0.0) : y;
  }

  // log(m) = 2 atanh(s), s = f / (2 + f).
  template <class V, class U>
  DEVICE V log(V x) {
    const U k = bits_as<U>(x) + (0x3FF0000000000000ull - 0x3FE6A09E667F3BCDull);
    const V e = bits_as<V>((k >> 52) | 0x4330000000000000ull) - V(4503599627370496.0 + 1023.0);
    const V f = bits_as<V>((k & 0xFFFFFFFFFFFFFull) + 0x3FE6A09E667F3BCDull) - V(1.0);
    const V s = f / (V(2.0) + f);
    const V z = s * s;
    const double c[] = {2.0 / 23, 2.0 / 21, 2.0 / 19, 2.0 / 17, 2.0 / 15, 2.0 / 13, 2.0 / 11, 2.0 / 9, 2.0 / 7, 2.0 / 5, 2.0 / 3};
    // f - s (f - z P): the large part of 2 s = f - s f is exact in f.
    const V y = f - s * (f - polynomial(z, c) * z);
    return lane_fma(e, V(6.93147180369123816490e-01), lane_fma(e, V(1.90821492927058770002e-10), y));
  }

  template <class V, class U>
  DEVICE void sincos_turns(V u, V& sine, V& cosine) {
    const V t = lane_fma(u, V(4.0), V(6755399441055744.0));
    const V a = lane_fma(t - V(6755399441055744.0), V(-0.25), u) * V(6.283185307179586477);
    const U k = bits_as<U>(t);
    const V z = a * a;
    const double cs[] = {1.0 / 355687428096000, -1.0 / 1307674368000, 1.0 / 6227020800, -1.0 / 39916800,
                         1.0 / 362880,          -1.0 / 5040,          1.0 / 120,        -1.0 / 6};
    const double cc[] = {1.0 / 20922789888000, -1.0 / 87178291200, 1.0 / 479001600, -1.0 / 3628800,
                         1.0 / 40320,          -1.0 / 720,         1.0 / 24};
    const V s = lane_fma(polynomial(z, cs) * z, a, a);
    const V c = lane_fma(polynomial(z, cc) * z, z, lane_fma(V(-0.5), z, V(1.0)));
    const U odd = U(0ull) - (k & 1ull);
    const U sb = bits_as<U>(s), cb = bits_as<U>(c);
    sine = bits_as<V>(((sb & ~odd) | (cb & odd)) ^ ((k & 2ull) << 62));
    cosine = bits_as<V>(((cb & ~odd) | (sb & odd)) ^ (((k + 1ull) & 2ull) << 62));
  }
};

DEVICE double exp(double x) { return math<double>::exp<double, uint64_t>(x); }
DEVICE float log(float x) { return math<float>::log<float, uint32_t>(x); }
DEVICE double log(double x) { return math<double>::log<double, uint64_t>(x); }
DEVICE void sincos_turns(float u, float& s, float& c) { math<float>::sincos_turns<float, uint32_t>(u, s, c); }
DEVICE void sincos_turns(double u, double& s, double& c) { math<double>::sincos_turns<double, uint64_t>(u, s, c); }

#ifdef SIMT_HOST

DEVICE float exp(float x) { return math<float>::exp<float, uint32_t>(x); }
DEVICE float reciprocal(float x) { return 1.0f / x; }
DEVICE double reciprocal(double x) { return 1.0 / x; }
DEVICE float sqrt(float x) { return __builtin_sqrtf(x); }
DEVICE double sqrt(double x) { return __builtin_sqrt(x); }

template <class T, int N>
struct lanes {
  typedef typename vec<T, N>::type V;
  typedef typename math<T>::bits U __attribute__((ext_vector_type(N)));
};
template <class T, int N>
DEVICE vec<T, N> exp(vec<T, N> a) {
  return {math<T>::template exp<typename lanes<T, N>::V, typename lanes<T, N>::U>(a.v)};
}
template <class T, int N>
DEVICE vec<T, N> log(vec<T, N> a) {
  return {math<T>::template log<typename lanes<T, N>::V, typename lanes<T, N>::U>(a.v)};
}
template <class T, int N>
DEVICE void sincos_turns(vec<T, N> u, vec<T, N>& s, vec<T, N>& c) {
  math<T>::template sincos_turns<typename lanes<T, N>::V, typename lanes<T, N>::U>(u.v, s.v, c.v);
}
template <class T, int N>
DEVICE vec<T, N> reciprocal(vec<T, N> a) {
  return {T(1) / a.v};
}
template <class T, int N>
DEVICE vec<T, N> sqrt(vec<T, N> a) {
  return {__builtin_elementwise_sqrt(a.v)};
}

// As ex2.approx.ftz: 2^x, results below 2^-126 flush to 0.
DEVICE float exp2_approx(float x) {
  const float low = -126.0f, c = x < low ? low : x > 128.0f ? 128.0f : x;
  const float t = c + 12582912.0f;  // leaves round(c) in the low bits
  const uint32_t e = bits_as<uint32_t>(t) - (0x4B400000u - 256u), half = e >> 1;
  const float y = exp((c - (t - 12582912.0f)) * 0.693147181f);
  return x < low ? 0.0f : y * bits_as<float>((half - 1u) << 23) * bits_as<float>((e - half - 1u) << 23);
}

#else

// exp(x) = 2^n 2^f: ex2.approx of an integer is exact, and of -1/2 <= f <= 1 good to 2 ulp (PTX ISA).
DEVICE float exp2_approx(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
DEVICE float exp(float x) {
  const float low = -87.33654f;
  const float c = x < low ? low : x;
  float n = fma(c, 1.44269504f, 12582912.0f) - 12582912.0f;
  n = n > 127.0f ? 127.0f : n;  // 2^128 is infinity, exp(x) not yet
  const float f = fma(c, 1.92596299e-8f, fma(c, 1.44269504f, -n));
  const float y = exp2_approx(f) * exp2_approx(n);
  return x < low ? 0.0f : y;
}
DEVICE float reciprocal(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
DEVICE float sqrt(float x) {
  float r;
  asm("sqrt.rn.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
template <class T, int N>
DEVICE vec<T, N> exp(vec<T, N> a) {
  UNROLL for (int i = 0; i < N; i++) a.v[i] = exp(a.v[i]);
  return a;
}
template <class T, int N>
DEVICE vec<T, N> log(vec<T, N> a) {
  UNROLL for (int i = 0; i < N; i++) a.v[i] = log(a.v[i]);
  return a;
}
template <class T, int N>
DEVICE void sincos_turns(vec<T, N> u, vec<T, N>& s, vec<T, N>& c) {
  UNROLL for (int i = 0; i < N; i++) sincos_turns(u.v[i], s.v[i], c.v[i]);
}
template <class T, int N>
DEVICE vec<T, N> reciprocal(vec<T, N> a) {
  UNROLL for (int i = 0; i < N; i++) a.v[i] = reciprocal(a.v[i]);
  return a;
}
template <class T, int N>
DEVICE vec<T, N> sqrt(vec<T, N> a) {
  UNROLL for (int i = 0; i < N; i++) a.v[i] = sqrt(a.v[i]);
  return a;
}

#endif

// 1 / (1 + exp(-x)).
template <class T, int N>
DEVICE vec<T, N> sigmoid(vec<T, N> x) {
  return reciprocal(T(1) + exp(T(-1) * x));
}

}  // namespace SIMT_VARIANT
