// The element types that the CPU kernels read and write, as raw memory.

#pragma once

#include <cstdint>

namespace gsd {

enum class Element { uint8, float32, bfloat16 };

}  // namespace gsd
