// What gsd::linear_attention and its backward on the CPU share: checks, the weights as the kernels
// read them, and how the tokens are cut into runs.

#pragma once

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "common/checks.h"
#include "cpu/isa.h"
#include "cpu/kernels/linear_attention.h"
#include "cpu/kernels/matrix_product.h"

namespace gsd::attention {

using torch::headeronly::MemoryFormat;

using Floats = std::vector<float>;
using Packed = std::vector<char>;

struct Shape {
    Element element;
    int64_t images, channels, tokens, heads, head_size;

    int64_t hidden() const { return heads * head_size; }
    int64_t context() const { return hidden() * head_size; }  // elements of an image's
    // Channels with the zeros that kernels expect.
    int64_t padded() const {
        return (channels + gsd::kChannelMultiple - 1) / gsd::kChannelMultiple *
               gsd::kChannelMultiple;
    }
    // Tokens of a run: whole tiles, and of fixed length, so that sums never depend on threads.
    int64_t run(int64_t most_runs) const {
        constexpr int64_t tile = kAttentionTile, least_tiles = 4;
        const int64_t tiles = (tokens + most_runs * tile - 1) / (most_runs * tile);
        return std::max(least_tiles, tiles) * tile;
    }
};

inline size_t count(int64_t value) { return static_cast<size_t>(value); }

inline Shape checked_shape(const Tensor& x, int64_t heads, int64_t hidden) {
    const ScalarType type = x.scalar_type();
    GSD_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16,
              "linear_attention: the native kernel takes float32 or bfloat16; for float64 "
              "call genselfdiff.kernels.linear_attention");
    GSD_CHECK(x.dim() == 4, "linear_attention: x must have shape (N, C, H, W)");
    GSD_CHECK(heads >= 1 && hidden >= 1 && hidden % (heads * 16) == 0,
              "linear_attention: the native kernel takes heads of a multiple of 16 features, "
              "not ",
              hidden, " features in ", heads, " heads");
    return {type == ScalarType::Float ? Element::float32 : Element::bfloat16,
            x.size(0),
            x.size(1),
            x.size(2) * x.size(3),
            heads,
            hidden / heads};
}

// Parameters as float32.
inline Tensor checked(const char* name, const Tensor& parameters, int64_t elements) {
    GSD_CHECK(parameters.numel() == elements, "linear_attention: ", name, " must have ", elements,
              " elements");
    return torch::stable::contiguous(torch::stable::to(parameters, ScalarType::Float));
}

inline const float* values(const Tensor& tensor) { return tensor.const_data_ptr<float>(); }

// A matrix laid out for products with tensors of the element type.
inline Packed packed(const Shape& shape, const gsd::FactorSource& source) {
    const int64_t depth = (source.depth + 31) / 32 * 32, columns = (source.columns + 15) / 16 * 16;
    Packed result(count(depth * columns) * sizeof(float));
    GSD_SELECT_KERNEL(pack_factor)(shape.element, source, result.data());
    return result;
}

// The parameters as the kernels read them.
struct Weights {
    Tensor gain, offset, qkv, out, out_bias, out_gain, out_offset;
    Packed packed_qkv;   // (C, 3 * hidden), the gain in it
    Floats qkv_bias;     // the offset of the first norm, after the convolution
    Floats padded_bias;  // out_bias, padded
    float scale;         // d^-0.5
    Floats scaled_out;   // (hidden, padded C): the output convolution times the scale

    Weights(const Shape& shape, const Tensor& norm_weight, const Tensor& norm_bias,
            const Tensor& qkv_weight, const Tensor& out_weight, const Tensor& bias,
            const Tensor& out_norm_weight, const Tensor& out_norm_bias)
        : gain(checked("norm_weight", norm_weight, shape.channels)),
          offset(checked("norm_bias", norm_bias, shape.channels)),
          qkv(checked("qkv_weight", qkv_weight, 3 * shape.hidden() * shape.channels)),
          out(checked("out_weight", out_weight, shape.channels * shape.hidden())),
          out_bias(checked("out_bias", bias, shape.channels)),
          out_gain(checked("out_norm_weight", out_norm_weight, shape.channels)),
          out_offset(checked("out_norm_bias", out_norm_bias, shape.channels)),
          packed_qkv(packed(shape, {values(qkv), shape.channels, 1, 3 * shape.hidden(),
                                    shape.channels, values(gain)})),
          padded_bias(count(shape.padded())),
          scale(1.0f / std::sqrt(static_cast<float>(shape.head_size))),
          scaled_out(count(shape.hidden() * shape.padded())) {
        const int64_t channels = shape.channels, hidden = shape.hidden();
        const float *matrix = values(qkv), *shift = values(offset), *convolution = values(out);
        for (int64_t o = 0; o < 3 * hidden; ++o, matrix += channels) {
            double sums[8] = {};  // so that no addition waits for the one before
            for (int64_t c = 0; c < channels; ++c) {
                sums[c % 8] += static_cast<double>(matrix[c]) * shift[c];
            }
            qkv_bias.push_back(static_cast<float>(std::accumulate(sums, sums + 8, 0.0)));
        }
        std::copy_n(values(out_bias), channels, padded_bias.begin());
        for (int64_t c = 0; c < channels; ++c) {
            for (int64_t i = 0; i < hidden; ++i) {
                scaled_out[count(i * shape.padded() + c)] = convolution[c * hidden + i] * scale;
            }
        }
    }

    // (C, hidden): what makes v of the normalised x, but for its bias.
    Floats into_values() const {
        const int64_t channels = gain.numel(), hidden = qkv.numel() / (3 * channels);
        const float *from = values(qkv) + 2 * hidden * channels, *factors = values(gain);
        Floats result(count(channels * hidden));
        for (int64_t i = 0; i < hidden; ++i) {
            for (int64_t c = 0; c < channels; ++c) {
                result[count(c * hidden + i)] = from[i * channels + c] * factors[c];
            }
        }
        return result;
    }
};

// One image's tokens, cut into runs.
class Runs {
  public:
    Runs(const Shape& shape, int64_t most) : shape_(shape), length_(shape.run(most)) {}

    int64_t length() const { return length_; }
    int64_t per_image() const { return (shape_.tokens + length_ - 1) / length_; }

    // Calls each(image, run, slot, tokens, skipped) in parallel; slots number the runs of all
    // images, and `skipped` elements of a tensor lie before a run.
    template <class Each>
    void for_each(const Each& each) const {
        torch::stable::parallel_for(
            0, shape_.images * per_image(), 1, [&](int64_t from, int64_t to) {
                for (int64_t slot = from; slot < to; ++slot) {
                    const int64_t image = slot / per_image(), begin = slot % per_image() * length_;
                    each(image, slot, std::min(length_, shape_.tokens - begin),
                         (image * shape_.tokens + begin) * shape_.channels);
                }
            });
    }

  private:
    Shape shape_;
    int64_t length_;
};

inline AttentionRun run_of(const Shape& shape, int64_t tokens) {
    AttentionRun run = {};
    run.element = shape.element;
    run.tokens = tokens;
    run.channels = shape.channels;
    run.heads = shape.heads;
    run.head_size = shape.head_size;
    return run;
}

// (hidden, padded C): each head's context, (d, d), times its part of `out`.
inline Floats folded_into(const Shape& shape, const float* context, const Floats& out) {
    const int64_t size = shape.head_size, row = shape.padded();
    Floats result(count(shape.hidden() * row));
    for (int64_t h = 0; h < shape.heads; ++h) {
        GSD_SELECT_KERNEL(add_product)
        ({.rows = size,
          .columns = row,
          .steps = size,
          .a = context + h * size * size,
          .a_row = size,
          .a_step = 1,
          .b = &out[count(h * size * row)],
          .b_step = row,
          .c = &result[count(h * size * row)],
          .c_row = row});
    }
    return result;
}

}  // namespace gsd::attention
