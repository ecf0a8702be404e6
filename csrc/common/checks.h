// Argument checks shared by the operations' bindings. Messages are those of the Python references.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <sstream>
#include <stdexcept>

namespace gsd {

// Throws what torch makes a RuntimeError of, whose text is the parts: STD_TORCH_CHECK would put the
// folder of the build before it.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    throw std::runtime_error(text.str());
}

#define GSD_CHECK(condition, ...)   \
    do {                            \
        if (!(condition)) {         \
            gsd::fail(__VA_ARGS__); \
        }                           \
    } while (false)

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The time steps of a batch, contiguous, each checked to lie within the table.
inline Tensor checked_times(const char* op, const Tensor& t, int64_t batch, int64_t table_size) {
    GSD_CHECK(t.scalar_type() == ScalarType::Long && t.dim() == 1 && t.size(0) == batch, op,
              ": t must be int64 of shape (", batch, ",), one time step a sample");
    const Tensor times = torch::stable::contiguous(t);
    const int64_t* values = times.const_data_ptr<int64_t>();
    for (int64_t b = 0; b < batch; ++b) {
        GSD_CHECK(values[b] >= 0 && values[b] < table_size, op, ": t[", b, "] is ", values[b],
                  ", outside the table of ", table_size, " time steps");
    }
    return times;
}

// A table of one value a time step, contiguous and in double precision.
inline Tensor checked_table(const char* op, const char* name, const Tensor& table) {
    GSD_CHECK(table.dim() == 1, op, ": ", name, " must have one dimension");
    return torch::stable::contiguous(torch::stable::to(table, ScalarType::Double));
}

}  // namespace gsd
