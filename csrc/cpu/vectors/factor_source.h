// A matrix that is to be packed for matrix.h.

#pragma once

#include <cstdint>

namespace gsd {

// A matrix as the right factor of a product over `depth`: element (k, n) is
// data[k * k_stride + n * n_stride] times factors[k], where there are some.
struct FactorSource {
    const float* data;
    int64_t depth, k_stride, columns, n_stride;
    const float* factors;
};

}  // namespace gsd
