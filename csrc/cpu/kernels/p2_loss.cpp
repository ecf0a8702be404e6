// The P2 loss kernel in plain loops, vectorised by the compiler. The sum has kSums interleaved
// accumulators that are added in a fixed order, so every instruction set gives the same bits.
// Unnamed namespace: see bfloat16.h.

#include "cpu/kernels/p2_loss.h"

#include <cstdint>

#include "cpu/vectors/bfloat16.h"

namespace {

constexpr int kSums = 16;

template <class T>
inline void squares(const T* __restrict pred, const T* __restrict noise, T* __restrict grad,
                    float scale, int count, double* __restrict sums) {
    for (int i = 0; i < count; ++i) {
        const float difference = to_float(pred[i]) - to_float(noise[i]);
        const double wide = static_cast<double>(difference);
        sums[i] += wide * wide;
        store(grad + i, scale * difference);
    }
}

template <class T>
double p2_loss_run(const gsd::P2LossRun& run) {
    const T* pred = static_cast<const T*>(run.pred);
    const T* noise = static_cast<const T*>(run.noise);
    T* grad = static_cast<T*>(run.grad);
    double sums[kSums] = {};
    int64_t i = 0;
    for (; i + kSums <= run.count; i += kSums) {
        squares(pred + i, noise + i, grad + i, run.scale, kSums, sums);
    }
    squares(pred + i, noise + i, grad + i, run.scale, static_cast<int>(run.count - i), sums);
    for (int width = kSums / 2; width > 0; width /= 2) {
        for (int j = 0; j < width; ++j) sums[j] += sums[j + width];
    }
    return sums[0];
}

}  // namespace

double gsd::GSD_ISA::p2_loss(const P2LossRun& run) {
    return run.element == Element::bfloat16 ? p2_loss_run<BFloat16>(run) : p2_loss_run<float>(run);
}
