// Dropout: y = x m / (1 - p), m = 0 with probability p and else 1; backward is the same kernel on dy.
//
// x, y [N][per_image]. m is drawn by Philox from (seed, purpose 64 + site, image, step, element), image = first +
// offset + n: an element is dropped where its number is below p 2^32. Backward draws it again, nothing is stored. y may
// be x. A block takes kImageElements elements of an image, a thread kDraw at a time. Bound: bytes (one read and one
// write).
#include "philox.cuh"

namespace SIMT_VARIANT {

// keep where the number is at least threshold, else 0.
template <class T>
DEVICE vec<T, kDrawBlocks> dropout_factor(draw_lanes a, uint32_t threshold, T keep) {
#ifdef SIMT_TILES_HOST
  using V = typename vec<T, kDrawBlocks>::type;
  typedef int32_t mask __attribute__((ext_vector_type(kDrawBlocks)));
  const mask kept = a >= threshold;
  static_assert(sizeof(T) == sizeof(int32_t), "the host tiles are float");
  return {kept ? V(keep) : V(T(0))};
#else
  return vec<T, kDrawBlocks>::splat(a >= threshold ? keep : T(0));
#endif
}

// grid: N x chunks of kImageElements. keep = 1 / (1 - p).
template <class T>
DEVICE void dropout_body(real* y, const real* x, const StepState* state, uint64_t offset, int per_image, int site,
                         unsigned threshold, T keep) {
  image_part(per_image, [&](int n, int first, int end) {
    const RandomStream s = random_stream(state->seed, kDrawDropout + site, state->first + offset + n, state->step);
    const real* from = x + static_cast<long long>(n) * per_image;
    real* to = y + static_cast<long long>(n) * per_image;
    image_pieces(per_image, first, end, [&](auto piece) {
      draw_lanes c[4];
      random_blocks(s, piece.e, c);
      vec<T, kDrawBlocks> factor[4];
      UNROLL for (int i = 0; i < 4; i++) factor[i] = dropout_factor(c[i], threshold, keep);
      piece.store(to, piece.load(from) * in_element_order(factor));
    });
  });
}

KERNEL(dropout, kImageThreads,
       (real* y, const real* x, const StepState* state, uint64_t offset, int per_image, int site, unsigned threshold, acc keep),
       (y, x, state, offset, per_image, site, threshold, keep))
GEOMETRY(dropout, kImageThreads, kImageElements)

}  // namespace SIMT_VARIANT
