// What the operations on the GPU share: shapes, arguments, and the statistics of groups.

#pragma once

#include <initializer_list>
#include <utility>

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

// Parameters as float32, as many as named.
Tensor checked_parameters(const char* op, const char* name, const Tensor& tensor, int64_t count);

// Mean and 1 / deviation of the groups, (N, groups) each, of an x in channels_last memory.
void moments(const Shape& shape, const Tensor& x, int32_t groups, float eps, const void* mean,
             const void* rstd);

}  // namespace gsd::cuda
