// Squared error and its gradient over a run of elements of one sample; see p2_loss.cpp.

#pragma once

#include <cstdint>

#include "cpu/vectors/element.h"
#include "cpu/vectors/variants.h"

namespace gsd {

struct P2LossRun {
    Element element;  // float32 or bfloat16
    const void* pred;
    const void* noise;
    void* grad;
    int64_t count;
    float scale;  // grad = scale * (pred - noise)
};

// Returns the sum of (pred - noise)^2 over the run.
GSD_DECLARE_KERNEL(double, p2_loss, const P2LossRun& run)

}  // namespace gsd
