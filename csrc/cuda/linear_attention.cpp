// gsd::linear_attention on the GPU: what genselfdiff/kernels/linear_attention/triton.py launches,
// in a process without Python.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "cuda/norm.h"

namespace {

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
    Shape shape = checked_shape(kOp, x);
    const int32_t images = shape.images, channels = shape.channels, tokens = shape.tokens;
    GSD_CHECK(out_weight.dim() >= 2 && out_weight.size(0) == channels, kOp,
              ": out_weight must have shape (C, heads * d, 1, 1)");
    GSD_CHECK(heads == kHeads && out_weight.size(1) == kHeads * kFeatures, kOp,
              ": the GPU kernels of this library are compiled for ", kHeads, " heads of ",
              kFeatures, " features; export the portable model instead");
    constexpr int64_t hidden = kHeads * kFeatures;
    const Tensor source = channels_last(x);
    const std::vector<Tensor> parameters =
        checked_parameters(kOp, shape,
                           {{"norm_weight", &norm_weight, channels},
                            {"norm_bias", &norm_bias, channels},
                            {"out_bias", &out_bias, channels},
                            {"out_norm_weight", &out_norm_weight, channels},
                            {"out_norm_bias", &out_norm_bias, channels}});
    const Tensor &gain = parameters[0], &offset = parameters[1], &bias = parameters[2],
                 &out_gain = parameters[3], &out_offset = parameters[4];
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
    const Variant& variant = shape.variant;
    const int32_t normed = std::max<int32_t>(1, static_cast<int32_t>(kNormed) / channels);
    int32_t runs = static_cast<int32_t>(blocks(tokens, normed));
    Tensor parts = floats({images, runs, 2});
    launch(Kernel::image_moments_kernel, variant, {runs, images, 1},
           {source, parts, tokens, channels, normed});
    launch(Kernel::merge_image_moments_kernel, variant, {images, 1, 1},
           {parts, mean, rstd, epsilon, tokens, runs, normed});

    const Tiles& tiles = tiles_of(variant);
    runs = static_cast<int32_t>(blocks(tokens, tiles.context_run));
    const Tensor peaks = floats({images, runs, hidden}), sums = floats({images, runs, hidden});
    parts = floats({images, runs, kHeads, kFeatures, kFeatures});
    launch(Kernel::context_kernel, variant, {blocks(kHeads, tiles.heads), runs, images},
           {source, mean, rstd, gain, offset, qkv, peaks, sums, parts, tokens, channels,
            tiles.context_run});
    launch(Kernel::merge_context_kernel, variant, {kHeads, kFeatures / kMergedRows, images},
           {peaks, sums, parts, k_lse, context, runs});
    const Tensor folded = torch::stable::new_empty(source, {images, hidden, channels});
    launch(Kernel::fold_kernel, variant, {kHeads, blocks(channels, kFoldedChannels), images},
           {context, out, folded, 1.0f / std::sqrt(static_cast<float>(kFeatures)), channels});

    runs = static_cast<int32_t>(blocks(tokens, tiles.output_run));
    parts = floats({images, runs, 2});
    launch(Kernel::output_moments_kernel, variant, {runs, images, 1},
           {source, mean, rstd, gain, offset, qkv, folded, bias, parts, tokens, channels,
            tiles.output_run});
    launch(Kernel::merge_image_moments_kernel, variant, {images, 1, 1},
           {parts, out_mean, out_rstd, epsilon, tokens, runs, tiles.output_run});
    launch(Kernel::output_kernel, variant, {runs, images, 1},
           {source, mean, rstd, gain, offset, qkv, folded, bias, out_mean, out_rstd, out_gain,
            out_offset, y, tokens, channels, tiles.output_run});
    const Tensor by_image =
        torch::stable::transpose(torch::stable::narrow(statistics, 1, 0, images), 0, 1);
    return {y, torch::stable::contiguous(by_image), k_lse, context};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gsd, CUDA, m) {
    m.impl("linear_attention", TORCH_BOX(&linear_attention));
}
