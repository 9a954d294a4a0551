// What changes from step to step, in device memory: kernels read it there, so that one captured graph serves every
// step. The host writes it with an asynchronous copy before each step; kernels/state.go is the same structure in Go.
#pragma once
#include "simt.cuh"

namespace SIMT_VARIANT {

struct StepState {
  uint64_t seed;
  uint64_t step;   // training step from 1, or sampling step from 0
  uint64_t first;  // global index of the first image of this device's part of the batch
  double learning_rate;
  double ema_decay;
  double correction1, correction2;  // 1 - beta1^k, 1 - beta2^k of Adam's step k = 1, 2, ...
  double reserved;
};
static_assert(sizeof(StepState) == 64, "kernels/state.go has the same 64 bytes");

}  // namespace SIMT_VARIANT
