// Products of float32 matrices, of sizes that kernels work on between their passes.

#pragma once

#include <cstdint>

#include "cpu/vectors/variants.h"

namespace gsd {

// c (rows x columns, both multiples of 16) += a b.
struct FloatProduct {
    int64_t rows, columns, steps;
    const float* a;
    int64_t a_row, a_step;
    const float* b;
    int64_t b_step;
    float* c;
    int64_t c_row;
};

GSD_DECLARE_KERNEL(void, add_product, const FloatProduct& product)

}  // namespace gsd
