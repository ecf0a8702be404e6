#include "cuda/norm.h"

#include <algorithm>
#include <string>

namespace gsd::cuda {
namespace {

std::string place(const Tensor& tensor) {
    if (tensor.is_cpu()) return "cpu";
    return tensor.is_cuda() ? "cuda:" + std::to_string(tensor.get_device())
                            : "another kind of device";
}

}  // namespace

void check_devices(const char* op, const Tensor& x, const Arguments& others) {
    for (const auto& [name, tensor] : others) {
        GSD_CHECK(tensor->device() == x.device(), op, ": ", name, " is on ", place(*tensor),
                  " and not on ", place(x), ", where its first argument is");
    }
}

Shape checked_shape(const char* op, const Tensor& x) {
    const ScalarType type = x.scalar_type();
    GSD_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16, op,
              ": the native kernel takes x in float32, bfloat16; for other dtypes call "
              "genselfdiff.kernels.",
              op);
    GSD_CHECK(x.dim() == 4, op, ": x must have shape (N, C, H, W)");
    const int64_t tokens = x.size(2) * x.size(3);
    GSD_CHECK(x.size(0) < 65536 && tokens <= INT32_MAX && x.size(1) <= INT32_MAX, op,
              ": x is too large");
    const Element element = type == ScalarType::Float ? Element::float32 : Element::bfloat16;
    // Those of the tests are on no GPU.
    const int device = std::max<int>(x.get_device(), 0);
    return {{device, element, x.size(1) % 16 == 0},
            static_cast<int32_t>(x.size(0)),
            static_cast<int32_t>(x.size(1)),
            static_cast<int32_t>(tokens)};
}

Tensor channels_last(const Tensor& tensor) {
    return aligned(
        torch::stable::contiguous(tensor, torch::headeronly::MemoryFormat::ChannelsLast));
}

Tensor checked_parameters(const char* op, const char* name, const Tensor& tensor, int64_t count) {
    GSD_CHECK(tensor.numel() == count, op, ": ", name, " must have ", count, " elements");
    return aligned(torch::stable::contiguous(torch::stable::to(tensor, ScalarType::Float)));
}

void moments(const Shape& shape, const Tensor& x, int32_t groups, float eps, const void* mean,
             const void* rstd) {
    const int64_t runs = blocks(shape.tokens, kNormRun);
    const Tensor parts =
        torch::stable::new_empty(x, {shape.images, runs, 2, shape.channels}, ScalarType::Float);
    launch(Kernel::channel_moments_kernel, shape.variant,
           {runs, blocks(shape.channels, kNormChannels), shape.images},
           {x, parts, shape.tokens, shape.channels});
    launch(Kernel::merge_moments_kernel, shape.variant, {groups, shape.images, 1},
           {parts, mean, rstd, eps, shape.tokens, shape.channels, static_cast<int32_t>(runs)});
}

}  // namespace gsd::cuda
