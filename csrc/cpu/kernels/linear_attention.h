// The passes of the linear attention over a run of tokens of one image; see linear_attention.cpp
// and linear_attention_gradient.cpp. Tokens lie one after the other, each with its channels, as
// channels_last memory has them. Of H heads of d features each, h * d is the hidden size.

#pragma once

#include <cstdint>

#include "cpu/vectors/element.h"
#include "cpu/vectors/factor_source.h"
#include "cpu/vectors/variants.h"

namespace gsd {

// What a kernel reads of channels is padded with zeros to a multiple of this.
constexpr int64_t kChannelMultiple = 32;
// Tokens that a kernel works on at a time: whole tiles of AMX, which sum over 32.
constexpr int64_t kAttentionTile = 96;

struct AttentionRun {
    Element element;  // of x and what is written: float32 or bfloat16
    int64_t tokens;   // in this run
    int64_t channels, heads, head_size;
    const void* x;          // (tokens, C)
    float mean, rstd;       // of x over the image
    const void* qkv;        // packed (C, 3 * hidden), the gain of the first norm in it
    const float* qkv_bias;  // (3 * hidden): what the offset of the first norm becomes
    const void* folded;     // packed (hidden, C): context, scale and output convolution
    const float* out_bias;  // (C), padded
    const float* scale;     // (C): the second norm as y = o * scale + offset
    const float* offset;    // (C)
    void* result;           // (tokens, C)
};

// What the backward passes read beside that. The second norm's result is oh = centred * out_rstd,
// and that of its input o: do = grad_y * per_y + constant + centred * per_centred.
struct AttentionGradientRun {
    AttentionRun forward;  // `folded` gives the centred o: no bias
    const void* grad_y;    // (tokens, C)
    const float* per_y;    // (C)
    float constant, per_centred;
    const float* k_lse;  // (hidden)
    const void* turned;  // packed (C, hidden): the other side of `folded`
    // k * (normalised x times into_keys + keys_start) is the gradient in k. v, which is linear in
    // x, is part of it, and so is never made.
    const void* into_keys;    // packed (C, hidden)
    const float* keys_start;  // (hidden)
    const void* into_x;  // packed (3 * hidden, C): of the gradients in q and k, and of k itself
    const float* gain;   // (C): rstd times the gain of the first norm
    float per_x, x_constant;  // of the last pass
};

// Packs for products whose other factor comes from tensors of that element type.
GSD_DECLARE_KERNEL(void, pack_factor, Element element, const FactorSource& source, void* packed)

// Of the run, by hidden channel: the largest k, the sum of p = exp(k - largest), and p^T times the
// normalised x, (hidden, padded C), which has all that v adds to the context, as v is linear in x.
GSD_DECLARE_KERNEL(void, attention_keys, const AttentionRun& run, float* most, float* sums,
                   float* by_x)
// result = o, what the output convolution gives
GSD_DECLARE_KERNEL(void, attention_output, const AttentionRun& run)
// result = result * scale + offset + x
GSD_DECLARE_KERNEL(void, attention_finish, const AttentionRun& run)

// Sums over the run, with q after its softmax: q^T grad_y (hidden, padded C), the lower half of
// q^T q (hidden, hidden), of q (hidden) and of grad_y (C).
GSD_DECLARE_KERNEL(void, attention_gradient_sums, const AttentionGradientRun& run, float* q_by_y,
                   float* q_by_q, float* q, float* y)
// result = grad_y + rstd * gain * gradient in the normalised x; sums of the gradients in q and k
// and of k itself, times the normalised x before the gain, (3 * hidden, padded C), and times 1.
GSD_DECLARE_KERNEL(void, attention_gradient, const AttentionGradientRun& run, float* by_x,
                   float* sums)
// result = result + (x - mean) * per_x + x_constant
GSD_DECLARE_KERNEL(void, attention_gradient_finish, const AttentionGradientRun& run)

}  // namespace gsd
