// What the operations on the GPU share: shapes, devices and parameters.

#pragma once

#include <initializer_list>
#include <tuple>
#include <utility>
#include <vector>

#include "common/checks.h"
#include "cuda/kernels.h"

namespace gsd::cuda {

// A channels_last image batch, as the kernels count it.
struct Shape {
    Variant variant;
    int32_t images, channels, tokens;
};

inline int64_t blocks(int64_t count, int64_t size) { return (count + size - 1) / size; }

// Raises an error that names the first of these which is not on the device of x.
using Arguments = std::initializer_list<std::pair<const char*, const Tensor*>>;
void check_devices(const char* op, const Tensor& x, const Arguments& others);

// Raises an error unless x has four dimensions and a dtype of the kernels.
Shape checked_shape(const char* op, const Tensor& x);

// In channels_last memory, where Triton may expect it.
Tensor channels_last(const Tensor& tensor);

// Parameters as the kernels load them, by their numbers of elements: as they are where all have the
// dtype of x, or float32. The shape learns which.
using Named = std::initializer_list<std::tuple<const char*, const Tensor*, int64_t>>;
std::vector<Tensor> checked_parameters(const char* op, Shape& shape, const Named& named);

}  // namespace gsd::cuda
