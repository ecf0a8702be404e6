// gsd::p2_loss on the CPU: checks, contiguity, the split into runs, the sum in a fixed order.

#include "cpu/kernels/p2_loss.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/checks.h"
#include "cpu/isa.h"

namespace {

using gsd::Element;
using gsd::ScalarType;
using gsd::Tensor;

constexpr int64_t kRun = 8192;         // elements; fixed, so that the sums never depend on threads
constexpr int64_t kRunsPerThread = 4;  // fewer are not worth a thread

void check_images(const Tensor& pred, const Tensor& noise) {
    const ScalarType type = pred.scalar_type();
    GSD_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16,
              "p2_loss: the native kernel takes float32 or bfloat16; for float64 call "
              "genselfdiff.kernels.p2_loss");
    const auto a = pred.sizes(), b = noise.sizes();
    const bool same_shape = std::equal(a.begin(), a.end(), b.begin(), b.end());
    GSD_CHECK(same_shape && noise.scalar_type() == type,
              "p2_loss: pred and noise must have the same shape and dtype");
    GSD_CHECK(pred.dim() >= 1 && pred.numel() > 0,
              "p2_loss: pred must have a batch dimension and must not be empty");
}

std::tuple<Tensor, Tensor> p2_loss(const Tensor& pred, const Tensor& noise, const Tensor& t,
                                   const Tensor& weights, bool mean) {
    check_images(pred, noise);
    const int64_t batch = pred.size(0);
    const Tensor table = gsd::checked_table("p2_loss", "weights", weights);
    const Tensor times = gsd::checked_times("p2_loss", t, batch, table.size(0));

    const Tensor predicted = torch::stable::contiguous(pred);
    const Tensor target = torch::stable::contiguous(noise);
    Tensor grad = torch::stable::new_empty(predicted, predicted.sizes());
    Tensor loss = torch::stable::new_empty(predicted, {}, ScalarType::Float);

    const double* weight = table.const_data_ptr<double>();
    const int64_t* steps = times.const_data_ptr<int64_t>();
    const char* from = static_cast<const char*>(predicted.const_data_ptr());
    const char* wanted = static_cast<const char*>(target.const_data_ptr());
    char* to = static_cast<char*>(grad.mutable_data_ptr());
    const Element element =
        pred.scalar_type() == ScalarType::Float ? Element::float32 : Element::bfloat16;
    const int64_t size = predicted.element_size();
    const int64_t sample_size = predicted.numel() / batch;
    const int64_t runs = (sample_size + kRun - 1) / kRun;  // a sample
    const double divisor = static_cast<double>(sample_size) * static_cast<double>(mean ? batch : 1);
    std::vector<double> sums(static_cast<size_t>(batch * runs));
    const auto run_kernel = GSD_SELECT_KERNEL(p2_loss);
    torch::stable::parallel_for(0, batch * runs, kRunsPerThread, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t b = i / runs, start = (i % runs) * kRun;
            const int64_t first = (b * sample_size + start) * size;
            sums[static_cast<size_t>(i)] = run_kernel({
                .element = element,
                .pred = from + first,
                .noise = wanted + first,
                .grad = to + first,
                .count = std::min(kRun, sample_size - start),
                .scale = static_cast<float>(2.0 * weight[steps[b]] / divisor),
            });
        }
    });
    double total = 0.0;
    for (int64_t i = 0; i < batch * runs; ++i) {
        total += weight[steps[i / runs]] * sums[static_cast<size_t>(i)];
    }
    *loss.mutable_data_ptr<float>() = static_cast<float>(total / divisor);
    return {loss, grad};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gsd, CPU, m) { m.impl("p2_loss", TORCH_BOX(&p2_loss)); }
