// The training sample that stands behind image number `image` of the data stream at one step. Both noise_add and loss
// compute it from Philox, so that neither n nor eps is ever stored:
//
//   n    = floor(T r / 2^32)          r: purpose 1        uniform in 0 ... T - 1
//   flip = top bit of r               r: purpose 3        left-right, where flipping is on
//   eps  ~ N(0, 1) for each element      purpose 2
//   x0   = (2 v - 255) / 255          v: the byte         in [-1, 1], exactly -1 and 1 at the ends
//   x_n  = sqrt(abar_n) x0 + sqrt(1 - abar_n) eps         [DDPM]: the noise has the root, too
//
// image = state.first + offset + position in the launch. roots [2][T]: sqrt(abar_n), then sqrt(1 - abar_n).
#pragma once
#include "philox.cuh"

namespace SIMT_VARIANT {

template <class T>
struct TrainingSample {
  int index;  // n
  bool flip;
  T signal, noise;  // sqrt(abar_n), sqrt(1 - abar_n)
  RandomStream eps;
};

template <class T>
DEVICE TrainingSample<T> training_sample(const StepState* state, uint64_t image, const T* roots, int steps, int flip) {
  const uint64_t seed = state->seed, step = state->step;
  TrainingSample<T> s;
  const uint64_t r = random_number(random_stream(seed, kDrawIndex, image, step), 0);
  s.index = static_cast<int>((r * static_cast<uint32_t>(steps)) >> 32);
  s.flip = flip && random_number(random_stream(seed, kDrawFlip, image, step), 0) >> 31;
  s.signal = roots[s.index];
  s.noise = roots[steps + s.index];
  s.eps = random_stream(seed, kDrawNoise, image, step);
  return s;
}

template <class T>
DEVICE T clean_value(uint8_t v) {
  return static_cast<T>(2 * static_cast<int>(v) - 255) * T(1.0 / 255.0);
}

// x0 of a piece of the image [H][W][C] at `pixels`.
template <class T, bool WHOLE>
DEVICE vec<T, kDraw> clean_image(const piece<WHOLE>& p, const uint8_t* pixels, bool flip, int w, int c) {
  if (flip) {
    int channel = p.e % c, pixel = p.e / c, column = pixel % w;
    return p.template gather<T>([&](int) {
      const T v = clean_value<T>(pixels[(pixel + w - 1 - 2 * column) * c + channel]);
      if (++channel == c) {
        channel = 0;
        pixel++;
        if (++column == w) column = 0;
      }
      return v;
    });
  }
  if constexpr (WHOLE) {
#ifdef SIMT_TILES_HOST
    typedef int integers __attribute__((ext_vector_type(kDraw)));
    using V = typename vec<T, kDraw>::type;
    const integers v = __builtin_convertvector((vec<uint8_t, kDraw>::load(pixels + p.e).v), integers);
    return {__builtin_convertvector(v * 2 - 255, V) * V(T(1.0 / 255.0))};
#else
    const uint32_t word = *reinterpret_cast<const uint32_t*>(pixels + p.e);
    vec<T, kDraw> r;
    UNROLL for (int i = 0; i < kDraw; i++) r.set(i, clean_value<T>(static_cast<uint8_t>(word >> (8 * i))));
    return r;
#endif
  }
  return p.template gather<T>([&](int i) { return clean_value<T>(pixels[p.e + i]); });
}

}  // namespace SIMT_VARIANT
