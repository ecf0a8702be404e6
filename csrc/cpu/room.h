// Memory for a kernel's floats.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace gsd {

// Memory for floats that nobody has set, beginning with a cache line.
class Room {
  public:
    explicit Room(int64_t floats) : memory_(new float[static_cast<size_t>(floats + kLine)]) {}

    float* data() const {
        void* first = memory_.get();
        size_t space = 2 * sizeof(float) * kLine;
        return static_cast<float*>(std::align(sizeof(float) * kLine, 1, first, space));
    }

  private:
    static constexpr int64_t kLine = 16;

    std::unique_ptr<float[]> memory_;
};

}  // namespace gsd
