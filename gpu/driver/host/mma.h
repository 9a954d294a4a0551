// Tensor-core instructions of a warp, by the PTX ISA's definition.
#pragma once
#include "host/kernel_abi.h"

namespace host {

// What each lane of a warp brings to a matrix instruction and gets from it: simt::mma's or simt::ldmatrix's arguments.
struct Fragments {
  float* d;
  const uint32_t *a, *b;
  const uint32_t* row;
  uint32_t* r;
};

// d[i][j] += a[i] b[j] for m x n fragments of all 32 lanes: exact products, a chain of fused multiply-adds in ascending k.
void multiply(simt::Product kind, int m, int n, const Fragments* const (&lanes)[32]);

// Hands out the 8 x 8 matrices whose rows the lanes have read.
void distribute(int matrices, bool transposed, const Fragments* const (&lanes)[32]);

}  // namespace host
