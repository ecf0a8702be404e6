// gsd::add_noise on the CPU: checks, contiguity, the split into runs, the choice of kernel.

#include "cpu/kernels/add_noise.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "common/checks.h"
#include "cpu/isa.h"

namespace {

using gsd::Element;
using gsd::ScalarType;
using gsd::Tensor;

constexpr int64_t kRun = 4096;         // elements; a multiple of what the kernels take at once
constexpr int64_t kRunsPerThread = 4;  // fewer are not worth a thread

Element element_of(const Tensor& x0) {
    switch (x0.scalar_type()) {
        case ScalarType::Byte:
            return Element::uint8;
        case ScalarType::Float:
            return Element::float32;
        case ScalarType::BFloat16:
            return Element::bfloat16;
        default:
            gsd::fail(
                "add_noise: the native kernel takes x0 in uint8, float32 or bfloat16; "
                "for float64 call genselfdiff.kernels.add_noise");
    }
}

const char* offset_bytes(const void* pointer, int64_t elements, int64_t size) {
    return static_cast<const char*>(pointer) + elements * size;
}

char* offset_bytes(void* pointer, int64_t elements, int64_t size) {
    return static_cast<char*>(pointer) + elements * size;
}

std::tuple<Tensor, Tensor> add_noise(const Tensor& x0, const Tensor& t, const Tensor& alpha_bars,
                                     int64_t seed, int64_t offset) {
    GSD_CHECK(x0.dim() >= 1, "add_noise: x0 must have a batch dimension");
    GSD_CHECK(offset >= 0, "add_noise: offset must not be negative");
    const Element element = element_of(x0);
    const int64_t batch = x0.size(0);
    const Tensor table = gsd::checked_table("add_noise", "alpha_bars", alpha_bars);
    const Tensor times = gsd::checked_times("add_noise", t, batch, table.size(0));

    const Tensor clean = torch::stable::contiguous(x0);
    const ScalarType result = element == Element::uint8 ? ScalarType::Float : x0.scalar_type();
    Tensor x_t = torch::stable::new_empty(clean, clean.sizes(), result);
    Tensor noise = torch::stable::new_empty(clean, clean.sizes(), result);
    if (clean.numel() == 0) return {x_t, noise};

    const double* abar = table.const_data_ptr<double>();
    const int64_t* steps = times.const_data_ptr<int64_t>();
    const void* from = clean.const_data_ptr();
    void* to = x_t.mutable_data_ptr();
    void* drawn = noise.mutable_data_ptr();
    const int64_t in_size = clean.element_size(), out_size = x_t.element_size();
    const int64_t sample_size = clean.numel() / batch;
    const int64_t runs = (sample_size + kRun - 1) / kRun;  // a sample
    const auto run_kernel = GSD_SELECT_KERNEL(add_noise);
    torch::stable::parallel_for(0, batch * runs, kRunsPerThread, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t b = i / runs, start = (i % runs) * kRun;
            const int64_t first = b * sample_size + start;
            const double signal_power = abar[steps[b]];
            run_kernel({
                .element = element,
                .x0 = offset_bytes(from, first, in_size),
                .x_t = offset_bytes(to, first, out_size),
                .noise = offset_bytes(drawn, first, out_size),
                .count = std::min(kRun, sample_size - start),
                .first_block = static_cast<uint64_t>(start / 4),
                .sample = static_cast<uint64_t>(offset + b),
                .seed = static_cast<uint64_t>(seed),
                .signal = static_cast<float>(std::sqrt(signal_power)),
                .sigma = static_cast<float>(std::sqrt(1.0 - signal_power)),
            });
        }
    });
    return {x_t, noise};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gsd, CPU, m) { m.impl("add_noise", TORCH_BOX(&add_noise)); }
