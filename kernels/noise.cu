// Noise-add: x_n = sqrt(abar_n) x0 + sqrt(1 - abar_n) eps for every image, and the time t = n time_scale that the
// network is conditioned on. noise.cuh says how n, the flip and eps are drawn.
//
// images [N][H][W][C] bytes, x_n [N][H][W][C], t [N]. A block takes kImageElements elements of an image, a thread kDraw
// at a time. Bound: bytes (one byte read and one real written), on a CPU the generator.
#include "noise.cuh"

namespace SIMT_VARIANT {

// grid: N x chunks of kImageElements.
template <class T>
DEVICE void noise_add_body(real* xn, T* t, const uint8_t* images, const StepState* state, const T* roots, uint64_t offset,
                           int steps, int flip, int h, int w, int c, T time_scale) {
  const int per_image = h * w * c;
  image_part(per_image, [&](int n, int first, int end) {
    const TrainingSample<T> s = training_sample(state, state->first + offset + n, roots, steps, flip);
    if (first == 0 && threadIdx.x == 0) t[n] = static_cast<T>(s.index) * time_scale;
    const uint8_t* pixels = images + static_cast<long long>(n) * per_image;
    real* to = xn + static_cast<long long>(n) * per_image;
    image_pieces(per_image, first, end, [&](auto piece) {
      const vec<T, kDraw> x0 = clean_image<T>(piece, pixels, s.flip, w, c);
      piece.store(to, fma(s.signal, x0, s.noise * random_normals<T>(s.eps, piece.e)));
    });
  });
}

KERNEL(noise_add, kImageThreads,
       (real* xn, acc* t, const uint8_t* images, const StepState* state, const acc* roots, uint64_t offset, int steps, int flip,
        int h, int w, int c, acc time_scale),
       (xn, t, images, state, roots, offset, steps, flip, h, w, c, time_scale))
GEOMETRY(noise_add, kImageThreads, kImageElements)

}  // namespace SIMT_VARIANT
