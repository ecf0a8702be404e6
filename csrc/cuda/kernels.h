// The Triton kernels that were compiled ahead, and their launch.

#pragma once

#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>

#include "cpu/vectors/element.h"
#include "gpu/constants.h"

namespace gsd::cuda {

using torch::stable::Tensor;

// A kernel as compiled for one kind of arguments and GPU.
struct Image {
    const char* symbol;
    uint64_t offset;
    int warps, shared;  // threads of a program / 32, bytes
    int given;          // parameters that the caller passes;
    int parameters;     // the rest, pointers to memory that Triton may want, are null
};

// Which kernels a call needs.
struct Variant {
    int device;
    Element element;     // of x
    int channels;        // of x
    Element parameters;  // theirs: that of x or float32
};

// A parameter as the driver wants it: a pointer, or a number of Triton's type.
class Parameter {
  public:
    Parameter(const Tensor& tensor) : Parameter(tensor.const_data_ptr()) {}
    Parameter(const void* pointer) { set(pointer); }
    Parameter(int32_t number) { set(number); }
    Parameter(float number) { set(number); }

    const void* address() const { return bytes_.data(); }

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
//
// The first launch on a GPU loads the kernel, which a driver from CUDA 12.3 on does while a graph
// is captured, too. Every further one asks torch for its stream and launches in the GPU's context.
void launch(Kernel kernel, const Variant& variant, const Grid& grid,
            std::initializer_list<Parameter> parameters);

// Why the kernels cannot run on that GPU; empty where they can: the driver has taken one.
std::string obstacle(int64_t device);

// What such a call is launched with on its GPU.
const Tiles& tiles_of(const Variant& variant);

// Parameters of kernels must begin at a multiple of 16 bytes, as Triton was told.
Tensor aligned(const Tensor& tensor);

}  // namespace gsd::cuda
