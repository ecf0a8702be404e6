// The Triton kernels that were compiled ahead, and their launch.

#pragma once

#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "cpu/vectors/element.h"

namespace gsd::cuda {

using torch::stable::Tensor;

struct Kernel {
    std::string_view name;
    Element element;    // of x
    bool sixteenths;    // 16 divides the channels
    int capability;     // 80 is 8.0; 0: PTX
    bool ptx;           // for the GPU's own compiler; ends in a zero
    uint64_t offset;    // of the image
    int warps, shared;  // threads of a program / 32, bytes
    int given;          // parameters that the caller passes;
    int parameters;     // the rest, pointers to memory that Triton may want, are null
};

// Which kernels a call needs.
struct Variant {
    int device;
    Element element;
    bool sixteenths;
};

// A parameter as the driver wants it: a pointer, or a number of Triton's type.
class Parameter {
  public:
    Parameter(const Tensor& tensor) : Parameter(tensor.const_data_ptr()) {}
    Parameter(const void* pointer) { set(pointer); }
    Parameter(int32_t number) { set(number); }
    Parameter(float number) { set(number); }

    void* address() { return bytes_.data(); }

  private:
    template <class T>
    void set(T value) {
        std::memcpy(bytes_.data(), &value, sizeof(value));
    }
    alignas(8) std::array<unsigned char, 8> bytes_ = {};
};

using Grid = std::array<int64_t, 3>;

// Launches on torch's stream of the device. Raises an error where the driver refuses, or where the
// kernel was not compiled for such a GPU.
void launch(std::string_view name, const Variant& variant, const Grid& grid,
            std::vector<Parameter> parameters);

// Parameters of kernels must begin at a multiple of 16 bytes, as Triton was told.
Tensor aligned(const Tensor& tensor);

}  // namespace gsd::cuda
