// gsd::group_norm_silu on the GPU: what genselfdiff/kernels/group_norm_silu/triton.py launches, in
// a process without Python.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "cuda/norm.h"

namespace {

using gsd::ScalarType;
using gsd::Tensor;
using namespace gsd::cuda;

constexpr const char* kOp = "group_norm_silu";

Tensor checked_like(const char* name, const Tensor& tensor, const Tensor& x) {
    const auto a = tensor.sizes(), b = x.sizes();
    GSD_CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()) &&
                  tensor.scalar_type() == x.scalar_type(),
              kOp, ": ", name, " must have the shape and dtype of x");
    return channels_last(tensor);
}

std::tuple<Tensor, Tensor, Tensor> group_norm_silu(const Tensor& x, const Tensor& weight,
                                                   const Tensor& bias, int64_t groups,
                                                   const std::optional<Tensor>& shift,
                                                   const std::optional<Tensor>& residual,
                                                   double eps) {
    check_devices(kOp, x,
                  {{"weight", &weight},
                   {"bias", &bias},
                   {"shift", shift ? &*shift : &x},
                   {"residual", residual ? &*residual : &x}});
    Shape shape = checked_shape(kOp, x);
    GSD_CHECK(groups >= 1 && shape.channels >= 1 && shape.channels % groups == 0, kOp, ": ", groups,
              " groups do not divide ", shape.channels, " channels");
    const Tensor source = channels_last(x);
    const int64_t channels = shape.channels;
    const std::vector<Tensor> parameters =
        checked_parameters(kOp, shape,
                           {{"weight", &weight, channels},
                            {"bias", &bias, channels},
                            {shift ? "shift" : "bias", shift ? &*shift : &bias,
                             (shift ? int64_t{shape.images} : 1) * channels}});
    const Tensor &gain = parameters[0], &offset = parameters[1], &shifted = parameters[2];
    const Tensor added = residual ? checked_like("residual", *residual, x) : source;
    const Tensor y = torch::stable::empty_like(source);
    const Tensor mean = torch::stable::new_empty(source, {shape.images, groups}, ScalarType::Float);
    const Tensor rstd = torch::stable::empty_like(mean);
    if (source.numel() == 0) return {y, mean, rstd};

    const int32_t count = static_cast<int32_t>(groups);
    const Tiles& tiles = tiles_of(shape.variant);
    const int64_t runs = blocks(shape.tokens, tiles.sums_run);
    const Tensor parts =
        torch::stable::new_empty(source, {shape.images, runs, 2, channels}, ScalarType::Float);
    launch(Kernel::channel_moments_kernel, shape.variant,
           {runs, blocks(channels, tiles.sums_c), shape.images},
           {source, parts, shape.tokens, shape.channels});
    launch(Kernel::merge_moments_kernel, shape.variant, {groups, shape.images, 1},
           {parts, mean, rstd, static_cast<float>(eps), shape.tokens, shape.channels,
            static_cast<int32_t>(runs)});
    launch(Kernel::apply_kernel, shape.variant,
           {blocks(shape.tokens, tiles.apply_t), blocks(channels, tiles.apply_c), shape.images},
           {source, gain, offset, mean, rstd, shifted, added, y, int32_t{shift.has_value()},
            int32_t{residual.has_value()}, shape.tokens, shape.channels, count});
    return {y, mean, rstd};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gsd, CUDA, m) { m.impl("group_norm_silu", TORCH_BOX(&group_norm_silu)); }
