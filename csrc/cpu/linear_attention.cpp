// gsd::linear_attention on the CPU: the passes over the tokens and what is done between them.

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "cpu/kernels/group_norm_silu.h"
#include "cpu/linear_attention_parts.h"
#include "cpu/moments.h"

namespace {

using namespace gsd::attention;
using gsd::AttentionRun;
using gsd::ScalarType;
using gsd::Tensor;

// Sums by channel for gsd::moments, of a run.
void sum_channels(const Shape& shape, const void* x, int64_t tokens, float* sums) {
    gsd::NormRun run = {};
    run.element = shape.element;
    run.tokens = tokens;
    run.channels = shape.channels;
    run.x = x;
    const int64_t channels = shape.channels;
    GSD_SELECT_KERNEL(channel_sums)(run, sums + 2 * channels, sums, sums + channels);
}

// What each run has found of the keys of an image.
struct Keys {
    Floats most, sums, by_x;

    Keys(const Shape& shape, int64_t runs)
        : most(count(runs * shape.hidden())),
          sums(most.size()),
          by_x(most.size() * count(shape.padded())) {}
};

// What an image's k and v come to over its runs from `first` on: the log of the sum of exp(k), and
// the context. `into_values` makes v of the normalised x.
void merge_keys(const Shape& shape, const Keys& keys, int64_t first, int64_t runs,
                const Floats& into_values, const float* v_bias, float* k_lse, float* context) {
    const int64_t hidden = shape.hidden(), row = shape.padded(), size = shape.head_size;
    const float* most = &keys.most[count(first * hidden)];
    const float* sums = &keys.sums[count(first * hidden)];
    Floats by_x(count(hidden * row)), factors(count(runs));
    for (int64_t i = 0; i < hidden; ++i) {
        float largest = most[i];
        for (int64_t run = 1; run < runs; ++run) {
            largest = std::max(largest, most[run * hidden + i]);
        }
        double sum = 0.0;
        for (int64_t run = 0; run < runs; ++run) {
            factors[count(run)] = std::exp(most[run * hidden + i] - largest);
            sum += static_cast<double>(factors[count(run)]) * sums[run * hidden + i];
        }
        k_lse[i] = static_cast<float>(largest + std::log(sum));
        float* total = &by_x[count(i * row)];
        for (int64_t run = 0; run < runs; ++run) {
            const float* part = &keys.by_x[count(((first + run) * hidden + i) * row)];
            const float factor = static_cast<float>(factors[count(run)] / sum);
            for (int64_t c = 0; c < row; ++c) total[c] += factor * part[c];
        }
        std::copy_n(v_bias + i / size * size, size, context + i * size);
    }
    for (int64_t h = 0; h < shape.heads; ++h) {
        GSD_SELECT_KERNEL(add_product)
        ({.rows = size,
          .columns = size,
          .steps = shape.channels,
          .a = &by_x[count(h * size * row)],
          .a_row = row,
          .a_step = 1,
          .b = &into_values[count(h * size)],
          .b_step = hidden,
          .c = context + h * size * size,
          .c_row = size});
    }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> linear_attention(
    const Tensor& x, const Tensor& norm_weight, const Tensor& norm_bias, const Tensor& qkv_weight,
    const Tensor& out_weight, const Tensor& out_bias, const Tensor& out_norm_weight,
    const Tensor& out_norm_bias, int64_t heads, double eps) {
    GSD_CHECK(out_weight.dim() >= 2, "linear_attention: out_weight must be a convolution's");
    const Shape shape = checked_shape(x, heads, out_weight.size(1));
    const Weights weights(shape, norm_weight, norm_bias, qkv_weight, out_weight, out_bias,
                          out_norm_weight, out_norm_bias);
    const int64_t images = shape.images, channels = shape.channels, hidden = shape.hidden();
    const Tensor source = torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
    Tensor y = torch::stable::empty_like(source);
    const auto statistics = [&](std::initializer_list<int64_t> sizes) {
        return torch::stable::new_empty(source, std::vector<int64_t>(sizes), ScalarType::Float);
    };
    Tensor moments = statistics({images, 4}), k_lse = statistics({images, hidden});
    Tensor context = statistics({images, heads, shape.head_size, shape.head_size});
    if (source.numel() == 0) return {y, moments, k_lse, context};

    const Runs runs(shape, 64);
    const int64_t per_image = runs.per_image(), slots = images * per_image;
    const int64_t size = source.element_size();
    const char* from = static_cast<const char*>(source.const_data_ptr());
    char* to = static_cast<char*>(y.mutable_data_ptr());
    float* moment = moments.mutable_data_ptr<float>();
    Floats sums(count(slots * 3 * channels));
    const auto moments_of = [&](int64_t image, float* target) {
        const float* parts = &sums[count(image * per_image * 3 * channels)];
        const gsd::Moments found =
            gsd::moments({parts, channels, shape.tokens, runs.length()}, 0, channels, eps);
        target[0] = static_cast<float>(found.mean);
        target[1] = static_cast<float>(found.rstd);
    };

    runs.for_each([&](int64_t, int64_t slot, int64_t tokens, int64_t skipped) {
        sum_channels(shape, from + skipped * size, tokens, &sums[count(slot * 3 * channels)]);
    });
    for (int64_t n = 0; n < images; ++n) moments_of(n, moment + 4 * n);

    const auto forward_run = [&](int64_t image, int64_t tokens, int64_t skipped) {
        AttentionRun run = run_of(shape, tokens);
        run.x = from + skipped * size;
        run.mean = moment[4 * image];
        run.rstd = moment[4 * image + 1];
        run.qkv = weights.packed_qkv.data();
        run.qkv_bias = weights.qkv_bias.data();
        run.out_bias = weights.padded_bias.data();
        run.result = to + skipped * size;
        return run;
    };
    Keys keys(shape, slots);
    const auto sum_keys = GSD_SELECT_KERNEL(attention_keys);
    runs.for_each([&](int64_t image, int64_t slot, int64_t tokens, int64_t skipped) {
        sum_keys(forward_run(image, tokens, skipped), &keys.most[count(slot * hidden)],
                 &keys.sums[count(slot * hidden)],
                 &keys.by_x[count(slot * hidden * shape.padded())]);
    });

    const Floats into_values = weights.into_values();
    std::vector<Packed> folded(count(images));
    torch::stable::parallel_for(0, images, 1, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            float* found = context.mutable_data_ptr<float>() + n * shape.context();
            merge_keys(shape, keys, n * per_image, per_image, into_values,
                       &weights.qkv_bias[count(2 * hidden)],
                       k_lse.mutable_data_ptr<float>() + n * hidden, found);
            const Floats matrix = folded_into(shape, found, weights.scaled_out);
            folded[count(n)] =
                packed(shape, {matrix.data(), hidden, shape.padded(), channels, 1, nullptr});
        }
    });

    const auto output = GSD_SELECT_KERNEL(attention_output);
    runs.for_each([&](int64_t image, int64_t slot, int64_t tokens, int64_t skipped) {
        AttentionRun run = forward_run(image, tokens, skipped);
        run.folded = folded[count(image)].data();
        output(run);
        sum_channels(shape, run.result, tokens, &sums[count(slot * 3 * channels)]);
    });

    Floats scale(count(images * channels)), offset(scale.size());
    const float *out_gain = values(weights.out_gain), *out_offset = values(weights.out_offset);
    for (int64_t n = 0; n < images; ++n) {
        float* found = moment + 4 * n + 2;
        moments_of(n, found);
        for (int64_t c = 0; c < channels; ++c) {
            const double factor = static_cast<double>(out_gain[c]) * found[1];
            scale[count(n * channels + c)] = static_cast<float>(factor);
            offset[count(n * channels + c)] = static_cast<float>(out_offset[c] - found[0] * factor);
        }
    }
    const auto finish = GSD_SELECT_KERNEL(attention_finish);
    runs.for_each([&](int64_t image, int64_t, int64_t tokens, int64_t skipped) {
        AttentionRun run = forward_run(image, tokens, skipped);
        run.scale = &scale[count(image * channels)];
        run.offset = &offset[count(image * channels)];
        finish(run);
    });
    return {y, moments, k_lse, context};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gsd, CPU, m) { m.impl("linear_attention", TORCH_BOX(&linear_attention)); }
