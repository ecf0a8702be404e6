// gsd::linear_attention on the GPU: what genselfdiff/kernels/linear_attention/triton.py launches,
// in a process without Python.

#include <torch/csrc/stable/library.h>

#include <cmath>
#include <tuple>

#include "cuda/norm.h"

namespace {

using gsd::Element;
using gsd::ScalarType;
using gsd::Tensor;
using namespace gsd::cuda;

constexpr const char* kOp = "linear_attention";

// A convolution's weight as an operand of the matrix products, in the dtype of x.
Tensor checked_matrix(const char* name, const Tensor& weight, int64_t count, const Tensor& x) {
    GSD_CHECK(weight.numel() == count, kOp, ": ", name, " must have ", count, " elements");
    return aligned(torch::stable::contiguous(torch::stable::to(weight, x.scalar_type())));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> linear_attention(
    const Tensor& x, const Tensor& norm_weight, const Tensor& norm_bias, const Tensor& qkv_weight,
    const Tensor& out_weight, const Tensor& out_bias, const Tensor& out_norm_weight,
    const Tensor& out_norm_bias, int64_t heads, double eps) {
    check_devices(kOp, x,
                  {{"norm_weight", &norm_weight},
                   {"norm_bias", &norm_bias},
                   {"qkv_weight", &qkv_weight},
                   {"out_weight", &out_weight},
                   {"out_bias", &out_bias},
                   {"out_norm_weight", &out_norm_weight},
                   {"out_norm_bias", &out_norm_bias}});
    const Shape shape = checked_shape(kOp, x);
    const int32_t images = shape.images, channels = shape.channels, tokens = shape.tokens;
    GSD_CHECK(out_weight.dim() >= 2 && out_weight.size(0) == channels, kOp,
              ": out_weight must have shape (C, heads * d, 1, 1)");
    GSD_CHECK(heads == kHeads && out_weight.size(1) == kHeads * kFeatures, kOp,
              ": the GPU kernels of this library are compiled for ", kHeads, " heads of ",
              kFeatures, " features; export the portable model instead");
    constexpr int64_t hidden = kHeads * kFeatures;
    const Tensor source = channels_last(x);
    const Tensor gain = checked_parameters(kOp, "norm_weight", norm_weight, channels);
    const Tensor offset = checked_parameters(kOp, "norm_bias", norm_bias, channels);
    const Tensor out_gain = checked_parameters(kOp, "out_norm_weight", out_norm_weight, channels);
    const Tensor out_offset = checked_parameters(kOp, "out_norm_bias", out_norm_bias, channels);
    const Tensor bias = checked_parameters(kOp, "out_bias", out_bias, channels);
    const Tensor qkv = checked_matrix("qkv_weight", qkv_weight, 3 * hidden * channels, x);
    const Tensor out = checked_matrix("out_weight", out_weight, hidden * channels, x);

    const auto floats = [&](std::initializer_list<int64_t> sizes) {
        return torch::stable::new_empty(source, {sizes.begin(), sizes.size()}, ScalarType::Float);
    };
    const Tensor y = torch::stable::empty_like(source);
    Tensor k_lse = floats({images, hidden});
    Tensor context = floats({images, kHeads, kFeatures, kFeatures});
    if (source.numel() == 0) {
        Tensor moments = floats({images, 4});
        for (Tensor* nothing : {&moments, &k_lse, &context}) torch::stable::zero_(*nothing);
        return {y, moments, k_lse, context};
    }
    const int64_t row = 4 * blocks(images, 4);  // each of the moments begins at 16 bytes
    Tensor statistics = floats({4, row});
    const float* mean = statistics.const_data_ptr<float>();
    const float *rstd = mean + row, *out_mean = rstd + row, *out_rstd = out_mean + row;
    const float epsilon = static_cast<float>(eps);
    moments(shape, source, 1, epsilon, mean, rstd);

    const int32_t runs = static_cast<int32_t>(blocks(tokens, kContextRun));
    const Tensor peaks = floats({images, runs, hidden}), sums = floats({images, runs, hidden});
    const Tensor parts = floats({images, runs, kHeads, kFeatures, kFeatures});
    launch(Kernel::context_kernel, shape.variant, {kHeads, runs, images},
           {source, mean, rstd, gain, offset, qkv, peaks, sums, parts, tokens, channels});
    launch(Kernel::merge_context_kernel, shape.variant, {kHeads, kFeatures / kMergedRows, images},
           {peaks, sums, parts, k_lse, context, runs});
    const Tensor folded = torch::stable::new_empty(source, {images, hidden, channels});
    launch(Kernel::fold_kernel, shape.variant, {kHeads, blocks(channels, kFoldedChannels), images},
           {context, out, folded, 1.0f / std::sqrt(static_cast<float>(kFeatures)), channels});

    const bool single = shape.variant.element == Element::float32;
    const int32_t tiles =
        static_cast<int32_t>(blocks(tokens, single ? kTokensFloat32 : kTokensBfloat16));
    const Tensor tile_moments = floats({images, tiles, 2});
    launch(Kernel::output_moments_kernel, shape.variant, {tiles, images, 1},
           {source, mean, rstd, gain, offset, qkv, folded, bias, tile_moments, tokens, channels});
    launch(Kernel::merge_moments_kernel_2, shape.variant, {1, images, 1},  // tiles, not runs
           {tile_moments, out_mean, out_rstd, epsilon, tokens, int32_t{1}, tiles});
    launch(Kernel::output_kernel, shape.variant, {tiles, images, 1},
           {source, mean, rstd, gain, offset, qkv, folded, bias, out_mean, out_rstd, out_gain,
            out_offset, y, tokens, channels});
    const Tensor by_image =
        torch::stable::transpose(torch::stable::narrow(statistics, 1, 0, images), 0, 1);
    return {y, torch::stable::contiguous(by_image), k_lse, context};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gsd, CUDA, m) {
    m.impl("linear_attention", TORCH_BOX(&linear_attention));
}
