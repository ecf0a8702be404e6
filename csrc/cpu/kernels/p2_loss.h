// Squared error and its gradient over a run of elements of one sample; see p2_loss_kernel.h.

#pragma once

#include <cstdint>

#include "cpu/kernels/element.h"

namespace gsd {

struct P2LossRun {
    Element element;  // float32 or bfloat16
    const void* pred;
    const void* noise;
    void* grad;
    int64_t count;
    float scale;  // grad = scale * (pred - noise)
};

// Each returns the sum of (pred - noise)^2 over the run.
double p2_loss_generic(const P2LossRun& run);
double p2_loss_avx2(const P2LossRun& run);
double p2_loss_avx512(const P2LossRun& run);

}  // namespace gsd
