// Products on tensor cores, right where `fault` is 0 and else with one of the mistakes that such kernels have; and misuses of
// the instructions, for tests of how the host device executes them.
#include "mma.cuh"

namespace SIMT_VARIANT {

// Mistakes of the products.
constexpr int kWrongFragment = 1, kNoWait = 2, kNoBarrierAfterWait = 3, kNoBarrierBeforeCopy = 4, kWrongMatrix = 5;

// d [16][8] += a [16][16] b [16][8] of bf16 values by one warp, fragments read one by one from global memory.
template <class T>
DEVICE void fragments_bf16_body(float* d, const float* a, const float* b, int fault) {
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  const int upper = fault == kWrongFragment ? 4 : 8;
  uint32_t ra[4], rb[2];
  float rd[4];
  for (int i = 0; i < 4; i++) {
    const float* const at = a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * upper;
    ra[i] = bf16_pair(at[0], at[1]);
  }
  for (int i = 0; i < 2; i++) rb[i] = bf16_pair(b[(2 * t + 8 * i) * 8 + g], b[(2 * t + 8 * i + 1) * 8 + g]);
  for (int i = 0; i < 4; i++) rd[i] = d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  mma_bf16(rd, ra, rb);
  for (int i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = rd[i];
}

// d [16][8] += a [16][8] b [8][8] of floats that the product truncates.
template <class T>
DEVICE void fragments_tf32_body(float* d, const float* a, const float* b, int fault) {
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  uint32_t ra[4], rb[2];
  float rd[4];
  for (int i = 0; i < 4; i++) {
    const int row = fault == kWrongFragment ? g + i / 2 * 8 : g + i % 2 * 8, column = fault == kWrongFragment ? i % 2 : i / 2;
    __builtin_memcpy(&ra[i], a + row * 8 + t + column * 4, 4);
  }
  for (int i = 0; i < 2; i++) __builtin_memcpy(&rb[i], b + (t + 4 * i) * 8 + g, 4);
  for (int i = 0; i < 4; i++) rd[i] = d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  mma_tf32(rd, ra, rb);
  for (int i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = rd[i];
}

// 16 bytes of a row of 16 or 64 bf16 values lie at their number xor a function of the row, so that 8 rows of an ldmatrix are in
// 32 banks.
DEVICE int product_a(int row, int k) { return row * 16 + ((k / 8) ^ (row / 4 % 2)) * 8; }
DEVICE int product_b(int k, int column) { return k * 64 + ((column / 8) ^ (k % 8)) * 8; }

// c [64][64] = a [64][k] b [k][64], bf16 to float, k a multiple of 16 (rows of a past the rows-th, of b past k are zeros): 4 warps
// of 16 rows each, tiles of 16 k in two buffers, copied while the other is in use.
template <class T>
DEVICE void product_bf16_body(float* c, const uint16_t* a, const uint16_t* b, int rows, int k, int fault) {
  SHARED(uint16_t, as, 2 * 64 * 16);
  SHARED(uint16_t, bs, 2 * 16 * 64);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const auto copy = [&](int k0, int buffer) {
    const int row = thread / 2, at = thread % 2 * 8, kb = thread / 8, column = thread % 8 * 8;
    cp_async16(as + buffer * 1024 + product_a(row, at), a + row * k + k0 + at, row < rows && k0 < k);
    cp_async16(bs + buffer * 1024 + product_b(kb, column), b + (k0 + kb) * 64 + column, k0 + kb < k);
  };
  float d[8][4] = {};
  copy(0, 0);
  cp_async_commit();
  for (int k0 = 0; k0 < k; k0 += 16) {
    const int buffer = k0 / 16 % 2;
    copy(k0 + 16, buffer ^ 1);
    cp_async_commit();
    if (fault != kNoWait) cp_async_wait<1>();
    if (fault != kNoBarrierAfterWait) __syncthreads();
    uint32_t ra[4], rb[8][2];
    const int half = fault == kWrongMatrix ? lane / 8 % 2 * 8 : lane / 16 * 8;
    const int row = fault == kWrongMatrix ? lane / 16 * 8 : lane / 8 % 2 * 8;
    ldmatrix_x4(ra, as + buffer * 1024 + product_a(warp * 16 + row + lane % 8, half));
    for (int j = 0; j < 8; j += 2) {
      uint32_t r[4];
      ldmatrix_x4_trans(r, bs + buffer * 1024 + product_b(lane % 16, j * 8 + lane / 16 * 8));
      rb[j][0] = r[0], rb[j][1] = r[1], rb[j + 1][0] = r[2], rb[j + 1][1] = r[3];
    }
    if (fault == kWrongFragment) {
      const uint32_t r = ra[1];
      ra[1] = ra[2], ra[2] = r;
    }
    mma_bf16(d, ra, rb);
    if (fault != kNoBarrierBeforeCopy) __syncthreads();
  }
  const int g = lane / 4, t = lane % 4;
  for (int j = 0; j < 8; j++) {
    for (int i = 0; i < 4; i++) c[(warp * 16 + g + i / 2 * 8) * 64 + j * 8 + 2 * t + i % 2] = d[j][i];
  }
}

// Several fragments at once: d [32][16] = a [32][8] b [8][16] in tf32 by one warp, and the same one by one.
template <class T>
DEVICE void together_body(float* d, float* one_by_one, const float* a, const float* b) {
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  uint32_t ra[2][4], rb[2][2];
  for (int m = 0; m < 2; m++) {
    for (int i = 0; i < 4; i++) __builtin_memcpy(&ra[m][i], a + (m * 16 + g + i % 2 * 8) * 8 + t + i / 2 * 4, 4);
  }
  for (int n = 0; n < 2; n++) {
    for (int i = 0; i < 2; i++) __builtin_memcpy(&rb[n][i], b + (t + 4 * i) * 16 + n * 8 + g, 4);
  }
  float rd[2][2][4] = {}, re[2][2][4] = {};
  mma_tf32(rd, ra, rb);
  for (int m = 0; m < 2; m++) {
    for (int n = 0; n < 2; n++) mma_tf32(re[m][n], ra[m], rb[n]);
  }
  for (int m = 0; m < 2; m++) {
    for (int n = 0; n < 2; n++) {
      for (int i = 0; i < 4; i++) {
        const int at = (m * 16 + g + i / 2 * 8) * 16 + n * 8 + 2 * t + i % 2;
        d[at] = rd[m][n][i];
        one_by_one[at] = re[m][n][i];
      }
    }
  }
}

// y[matrix][lane] = the two 16-bit values that each lane gets of four matrices of 64 in x.
template <class T>
DEVICE void matrices_body(uint32_t* y, const uint16_t* x, int count, int transposed) {
  SHARED(uint16_t, s, 4 * 64);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 4 * 64; i += 32) s[i] = x[i];
  __syncthreads();
  const uint16_t* const row = s + lane * 8;
  uint32_t r4[4] = {7, 7, 7, 7}, r2[2], r1[1];
  if (count == 4 && !transposed) ldmatrix_x4(r4, row);
  if (count == 4 && transposed) ldmatrix_x4_trans(r4, row);
  if (count == 2) {
    // The addresses of lanes from 16 on do not count.
    if (transposed) {
      ldmatrix_x2_trans(r2, lane < 16 ? row : nullptr);
    } else {
      ldmatrix_x2(r2, lane < 16 ? row : nullptr);
    }
    r4[0] = r2[0], r4[1] = r2[1];
  }
  if (count == 1) {
    if (transposed) {
      ldmatrix_x1_trans(r1, lane < 8 ? row : nullptr);
    } else {
      ldmatrix_x1(r1, lane < 8 ? row : nullptr);
    }
    r4[0] = r1[0];
  }
  for (int i = 0; i < 4; i++) y[i * 32 + lane] = r4[i];
}

// Three groups of one copy each, the second of zeros, and one copy without a group; what a thread sees of them before it waits, when
// the first has arrived, and when all have: y[3][4].
template <class T>
DEVICE void arrivals_body(float* y, const float* x) {
  SHARED(float, s, 4 * 4);
  for (int i = 0; i < 4; i++) {
    cp_async16(s + 4 * i, x + 4 * i, i != 1);
    if (i < 3) cp_async_commit();
  }
  for (int i = 0; i < 4; i++) y[i] = s[4 * i + i];
  cp_async_wait<2>();
  for (int i = 0; i < 4; i++) y[4 + i] = s[4 * i + i];
  cp_async_wait<0>();
  for (int i = 0; i < 4; i++) y[8 + i] = s[4 * i + i];
}

// One lane does not come.
template <class T>
DEVICE void lacking_lane_body(float* x, int n) {
  float d[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  if (static_cast<int>(threadIdx.x) == n) return;
  mma_tf32(d, a, b);
  x[threadIdx.x] = d[0];
}

// Misuses: 0 none, 1 and 2 misaligned target and source, 3 global memory as target, 4 shared memory as source.
template <class T>
DEVICE void copy_misuse_body(float* x, int misuse) {
  SHARED(float, s, 32);
  cp_async16(misuse == 3 ? x : s + (misuse == 1), misuse == 4 ? s + 4 : x + (misuse == 2), true);
}
template <class T>
DEVICE void ldmatrix_misuse_body(float* x, int misuse) {
  SHARED(float, s, 32 * 8);
  s[threadIdx.x * 4] = 1;
  uint32_t r[1];
  ldmatrix_x1(r, misuse == 3 ? x : s + threadIdx.x * 4 + (misuse == 1));
  x[threadIdx.x] = static_cast<float>(r[0]);
}

// A lane reads a row that its neighbour has written, after __syncwarp or not.
template <class T>
DEVICE void through_ldmatrix_body(float* x, int sync) {
  SHARED(float, s, 32 * 4);
  for (int i = 0; i < 4; i++) s[threadIdx.x * 4 + i] = 1;
  if (sync) __syncwarp(0xffffffffu);
  uint32_t r[4];
  ldmatrix_x4(r, s + (threadIdx.x ^ 1) * 4);
  for (int i = 0; i < 4; i++) x[i * 32 + threadIdx.x] = static_cast<float>(r[i]);
}

// A copy of x[4 n ... 4 n + 3].
template <class T>
DEVICE void copied_past_end_body(float* x, int n) {
  SHARED(float, s, 4);
  cp_async16(s, x + 4 * n, true);
  cp_async_commit();
  cp_async_wait<0>();
  x[0] = s[0];
}

// Twice, each thread copies 4 values and reads its neighbour's, with the barriers that it needs: `mistake` 1 has none between the
// wait and the reading, 2 none between that and the next copy, 3 no wait.
template <class T>
DEVICE void neighbours_copy_body(float* x, int mistake) {
  SHARED(float, s, 32 * 4);
  const int i = static_cast<int>(threadIdx.x) * 4;
  float sum = 0;
  for (int round = 0; round < 2; round++) {
    cp_async16(s + i, x + i, true);
    cp_async_commit();
    if (mistake != 3) cp_async_wait<0>();
    if (mistake != 1) __syncthreads();
    sum += s[i ^ 4];
    if (mistake != 2) __syncthreads();
  }
  x[128 + blockIdx.x * 32 + threadIdx.x] = sum;
}

// The products of n tiles, 8 fragments at once.
template <class T>
DEVICE void many_products_body(float* x, int n) {
  float d[8][4] = {};
  uint32_t a[4], b[8][2];
  for (int i = 0; i < 4; i++) a[i] = threadIdx.x;
  for (int j = 0; j < 8; j++) b[j][0] = b[j][1] = threadIdx.x;
  for (int i = 0; i < n; i++) mma_bf16(d, a, b);
  x[blockIdx.x * blockDim.x + threadIdx.x] = d[0][0] + d[7][3];
}

BLOCK_KERNEL(fragments_bf16, 32, (float* d, const float* a, const float* b, int fault), (d, a, b, fault))
BLOCK_KERNEL(fragments_tf32, 32, (float* d, const float* a, const float* b, int fault), (d, a, b, fault))
BLOCK_KERNEL(product_bf16, 128, (float* c, const uint16_t* a, const uint16_t* b, int rows, int k, int fault),
             (c, a, b, rows, k, fault))
BLOCK_KERNEL(together, 32, (float* d, float* one_by_one, const float* a, const float* b), (d, one_by_one, a, b))
BLOCK_KERNEL(matrices, 32, (uint32_t* y, const uint16_t* x, int count, int transposed), (y, x, count, transposed))
KERNEL(arrivals, 32, (float* y, const float* x), (y, x))
BLOCK_KERNEL(lacking_lane, 32, (float* x, int n), (x, n))
BLOCK_KERNEL(copy_misuse, 32, (float* x, int misuse), (x, misuse))
BLOCK_KERNEL(ldmatrix_misuse, 32, (float* x, int misuse), (x, misuse))
BLOCK_KERNEL(through_ldmatrix, 32, (float* x, int sync), (x, sync))
KERNEL(copied_past_end, 32, (float* x, int n), (x, n))
BLOCK_KERNEL(neighbours_copy, 32, (float* x, int mistake), (x, mistake))
BLOCK_KERNEL(many_products, 128, (float* x, int n), (x, n))

}  // namespace SIMT_VARIANT
