// The rows of one head that a block of an attention kernel has and walks over.
#pragma once
#include "simt.cuh"

namespace SIMT_VARIANT {

// Rows of one head in a tensor [N][length][heads * dim].
template <class T>
struct Rows {
  const T* p;  // row 0 of the image, column 0 of the head
  int length, stride, dim;
  METHOD const T* at(int row) const { return p + static_cast<long long>(row) * stride; }
};

// The block's place: x counts blocks of own rows within heads within images.
struct AttentionBlock {
  int sequence, first, count;  // image * heads + head; the block's own rows
  int length, stride, dim;
  long long offset;
  template <class C>
  METHOD void init(int rows, int heads, int size) {
    const int blocks = (rows + C::own - 1) / C::own;
    sequence = static_cast<int>(blockIdx.x) / blocks;
    first = static_cast<int>(blockIdx.x) % blocks * C::own;
    count = rows - first < C::own ? rows - first : C::own;
    length = rows;
    stride = heads * size;
    dim = size;
    offset = static_cast<long long>(sequence / heads) * rows * stride + sequence % heads * size;
  }
  template <class T>
  METHOD Rows<T> rows(const T* p) const {
    return {p + offset, length, stride, dim};
  }
};

}  // namespace SIMT_VARIANT
