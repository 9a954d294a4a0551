// The simple loss of one image and its gradient: with D = H W C values and the target of the objective,
//
//   loss[n] = sum (y - target)^2 / D,   dy = gradient (y - target)
//   target  = eps;  x0;  v = sqrt(abar_n) eps - sqrt(1 - abar_n) x0        (objective 0, 1, 2)
//
// y, dy [N][H][W][C], images [N][H][W][C] bytes, loss [N]; dy may be null. n, the flip, eps and x0 are those of
// noise_add, drawn again (noise.cuh). A block takes one image: a thread sums every kImageThreads-th piece in runs of
// kLossRun, then kDraw lanes fold, then warps, then the block, so the order depends on D alone. Bound: bytes (y read,
// dy written), on a CPU the generator.
#include "noise.cuh"

namespace SIMT_VARIANT {

constexpr int kLossRun = 32;

template <class T>
DEVICE void loss_body(real* dy, T* loss, const real* y, const uint8_t* images, const StepState* state, const T* roots,
                      uint64_t offset, int steps, int flip, int h, int w, int c, int objective, T gradient) {
  SHARED(T, part, kImageThreads / kWarp);
  const int n = blockIdx.x, per_image = h * w * c;
  const TrainingSample<T> s = training_sample(state, state->first + offset + n, roots, steps, flip);
  const long long first = static_cast<long long>(n) * per_image;
  const auto add_up = [&](auto target) {
    vec<T, kDraw> total = vec<T, kDraw>::splat(T(0)), run = total;
    int left = kLossRun;
    image_pieces(per_image, 0, per_image, [&](auto piece) {
      vec<T, kDraw> d = piece.load(y + first) - target(piece);
      if (dy) piece.store(dy + first, gradient * d);
      if (piece.count < kDraw) d = piece.template gather<T>([&](int i) { return d[i]; });
      run = fma(d, d, run);
      if (--left == 0) {
        total = total + run;
        run = vec<T, kDraw>::splat(T(0));
        left = kLossRun;
      }
    });
    const T image = block_sum<kImageThreads>(sum(total + run), part);
    if (threadIdx.x == 0) loss[n] = image / static_cast<T>(per_image);
  };
  const auto eps = [&](auto piece) { return random_normals<T>(s.eps, piece.e); };
  const auto x0 = [&](auto piece) { return clean_image<T>(piece, images + first, s.flip, w, c); };
  switch (objective) {
    case 0: return add_up(eps);
    case 1: return add_up(x0);
    case 2: return add_up([&](auto piece) { return fma(s.signal, eps(piece), -s.noise * x0(piece)); });
  }
}

BLOCK_KERNEL(loss, kImageThreads,
             (real* dy, acc* loss, const real* y, const uint8_t* images, const StepState* state, const acc* roots,
              uint64_t offset, int steps, int flip, int h, int w, int c, int objective, acc gradient),
             (dy, loss, y, images, state, roots, offset, steps, flip, h, w, c, objective, gradient))
GEOMETRY(loss, kImageThreads)

}  // namespace SIMT_VARIANT
