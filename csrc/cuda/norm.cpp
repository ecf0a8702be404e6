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
    return {{device, element, static_cast<int>(x.size(1)), Element::float32},
            static_cast<int32_t>(x.size(0)),
            static_cast<int32_t>(x.size(1)),
            static_cast<int32_t>(tokens)};
}

Tensor channels_last(const Tensor& tensor) {
    return aligned(
        torch::stable::contiguous(tensor, torch::headeronly::MemoryFormat::ChannelsLast));
}

std::vector<Tensor> checked_parameters(const char* op, Shape& shape, const Named& named) {
    const Element element = shape.variant.element;
    const ScalarType own = element == Element::float32 ? ScalarType::Float : ScalarType::BFloat16;
    bool kept = true;
    for (const auto& [name, tensor, count] : named) {
        GSD_CHECK(tensor->numel() == count, op, ": ", name, " must have ", count, " elements");
        kept = kept && tensor->scalar_type() == own;
    }
    shape.variant.parameters = kept ? element : Element::float32;
    std::vector<Tensor> result;
    for (const auto& [name, tensor, count] : named) {
        const Tensor loaded = kept ? *tensor : torch::stable::to(*tensor, ScalarType::Float);
        result.push_back(aligned(torch::stable::contiguous(loaded)));
    }
    return result;
}

}  // namespace gsd::cuda
