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
    const Shape shape = checked_shape(kOp, x);
    GSD_CHECK(groups >= 1 && shape.channels >= 1 && shape.channels % groups == 0, kOp, ": ", groups,
              " groups do not divide ", shape.channels, " channels");
    const Tensor source = channels_last(x);
    const Tensor gain = checked_parameters(kOp, "weight", weight, shape.channels);
    const Tensor offset = checked_parameters(kOp, "bias", bias, shape.channels);
    const int64_t shifts = int64_t{shape.images} * shape.channels;
    const Tensor shifted = shift ? checked_parameters(kOp, "shift", *shift, shifts) : offset;
    const Tensor added = residual ? checked_like("residual", *residual, x) : source;
    const Tensor y = torch::stable::empty_like(source);
    const Tensor mean = torch::stable::new_empty(source, {shape.images, groups}, ScalarType::Float);
    const Tensor rstd = torch::stable::empty_like(mean);
    if (source.numel() == 0) return {y, mean, rstd};

    const int32_t count = static_cast<int32_t>(groups);
    moments(shape, source, count, static_cast<float>(eps), mean.const_data_ptr(),
            rstd.const_data_ptr());
    launch(Kernel::apply_kernel, shape.variant,
           {blocks(shape.tokens, kNormTokens), blocks(shape.channels, kNormChannels), shape.images},
           {source, gain, offset, mean, rstd, shifted, added, y, int32_t{shift.has_value()},
            int32_t{residual.has_value()}, shape.tokens, shape.channels, count});
    return {y, mean, rstd};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gsd, CUDA, m) { m.impl("group_norm_silu", TORCH_BOX(&group_norm_silu)); }
