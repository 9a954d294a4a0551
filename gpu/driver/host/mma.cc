#include "host/mma.h"

#include <string.h>

// The library is built for every x86-64; the host device runs on x86-64-v3 only (choose_variants).
#ifdef __x86_64__
#define VECTORS __attribute__((target("avx2,fma")))
#else
#define VECTORS
#endif

namespace host {

namespace {

typedef float Row __attribute__((ext_vector_type(8)));

float as_float(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

// Matrices of a product, A [16][K], B [K][8], from the registers of lane 4 g + t.
struct Bf16 {
  static constexpr int K = 16;
  static void put_a(float (&a)[16][K], int g, int t, const uint32_t* r) {
    for (int i = 0; i < 4; i++) {
      float* const at = &a[g + i % 2 * 8][2 * t + i / 2 * 8];
      at[0] = as_float(r[i] << 16);
      at[1] = as_float(r[i] & 0xffff0000u);
    }
  }
  static void put_b(float (&b)[K][8], int g, int t, const uint32_t* r) {
    for (int i = 0; i < 2; i++) {
      b[2 * t + i * 8][g] = as_float(r[i] << 16);
      b[2 * t + i * 8 + 1][g] = as_float(r[i] & 0xffff0000u);
    }
  }
};
struct Tf32 {
  static constexpr int K = 8;
  static float value(uint32_t bits) { return as_float(bits & 0xffffe000u); }
  static void put_a(float (&a)[16][K], int g, int t, const uint32_t* r) {
    for (int i = 0; i < 4; i++) a[g + i % 2 * 8][t + i / 2 * 4] = value(r[i]);
  }
  static void put_b(float (&b)[K][8], int g, int t, const uint32_t* r) {
    for (int i = 0; i < 2; i++) b[t + i * 4][g] = value(r[i]);
  }
};

template <int K>
VECTORS void chain(float (&d)[16][8], const float (&a)[16][K], const float (&b)[K][8]) {
  for (int half = 0; half < 16; half += 8) {
    Row sum[8];
    memcpy(sum, d[half], sizeof sum);
#pragma clang loop unroll(full)
    for (int k = 0; k < K; k++) {
      Row bk;
      memcpy(&bk, b[k], sizeof bk);
#pragma clang loop unroll(full)
      for (int i = 0; i < 8; i++) sum[i] = __builtin_elementwise_fma(Row(a[half + i][k]), bk, sum[i]);
    }
    memcpy(d[half], sum, sizeof sum);
  }
}

template <class F>
void multiply(int m, int n, const Fragments* const (&lanes)[32]) {
  alignas(32) float a[simt::max_product_rows][16][F::K], b[F::K][8], d[16][8];
  for (int i = 0; i < m; i++) {
    for (int l = 0; l < 32; l++) F::put_a(a[i], l / 4, l % 4, lanes[l]->a + 4 * i);
  }
  for (int j = 0; j < n; j++) {
    for (int l = 0; l < 32; l++) F::put_b(b, l / 4, l % 4, lanes[l]->b + 2 * j);
    for (int i = 0; i < m; i++) {
      for (int l = 0; l < 32; l++) {
        const float* const from = lanes[l]->d + 4 * (i * n + j);
        memcpy(&d[l / 4][l % 4 * 2], from, 8);
        memcpy(&d[l / 4 + 8][l % 4 * 2], from + 2, 8);
      }
      chain<F::K>(d, a[i], b);
      for (int l = 0; l < 32; l++) {
        float* const to = lanes[l]->d + 4 * (i * n + j);
        memcpy(to, &d[l / 4][l % 4 * 2], 8);
        memcpy(to + 2, &d[l / 4 + 8][l % 4 * 2], 8);
      }
    }
  }
}

}  // namespace

void multiply(simt::Product kind, int m, int n, const Fragments* const (&lanes)[32]) {
  if (kind == simt::Product::bf16) {
    multiply<Bf16>(m, n, lanes);
  } else {
    multiply<Tf32>(m, n, lanes);
  }
}

void distribute(int matrices, bool transposed, const Fragments* const (&lanes)[32]) {
  for (int i = 0; i < matrices; i++) {
    uint16_t rows[8][8];
    for (int j = 0; j < 8; j++) memcpy(rows[j], lanes[8 * i + j]->row, 16);
    for (int l = 0; l < 32; l++) {
      const int g = l / 4, t = l % 4;
      const uint32_t low = transposed ? rows[2 * t][g] : rows[g][2 * t];
      const uint32_t high = transposed ? rows[2 * t + 1][g] : rows[g][2 * t + 1];
      lanes[l]->r[i] = high << 16 | low;
    }
  }
}

}  // namespace host
