// The passes of GroupNorm and SiLU over a run of tokens of one image; see group_norm_silu.cpp.
// Tokens lie one after the other, each with its channels, as channels_last memory has them.

#pragma once

#include <cstdint>

#include "cpu/vectors/element.h"
#include "cpu/vectors/variants.h"

namespace gsd {

struct NormRun {
    Element element;       // of x, residual, grad_y and what is written: float32 or bfloat16
    int64_t tokens;        // in this run
    int64_t channels;      // C
    const void* x;         // (tokens, C)
    const float* scale;    // (C): z = x * scale + offset is the normalised x; null for the sums
    const float* offset;   // (C)
    const void* residual;  // (tokens, C), added after the SiLU; or null
    const float* shift;    // (C), ditto
    const void* grad_y;    // (tokens, C)
    const float* mean;     // (C): each channel's group's
    const float* per_z;    // (C): grad_x = grad_z * per_z + (x - mean) * per_centred + constant
    const float* per_centred;
    const float* constant;
    void* result;  // (tokens, C)
};

// Sums over the run, by channel: of x - near and of its square, with a value near the mean.
GSD_DECLARE_KERNEL(void, channel_sums, const NormRun& run, float* near, float* sums, float* squares)
// result = silu(z) + shift + residual
GSD_DECLARE_KERNEL(void, group_norm_silu, const NormRun& run)
// Sums over the run, by channel: of grad_z, of grad_z * (x - mean), of grad_y.
GSD_DECLARE_KERNEL(void, group_norm_silu_sums, const NormRun& run, float* by_z, float* by_centred,
                   float* by_y)
// result = grad_x
GSD_DECLARE_KERNEL(void, group_norm_silu_gradient, const NormRun& run)

}  // namespace gsd
