// The passes of the multi-loss over a run of pixels of one image; see multi_loss.cpp.

#pragma once

#include <cstdint>

#include "cpu/vectors/element.h"
#include "cpu/vectors/variants.h"

namespace gsd {

constexpr int64_t kMultiLossClasses = 256;  // at most

// A probability p is held as x, which is p, or p - 1 where p is near one: with its sign bit set, be
// it a zero. Its base, 0 or 1, is what p is more than x. So nothing is lost of a 1 - p that
// rounding to p would take away, and where target and base agree, p - target is x.
constexpr float kNearOne = 15.0f / 16.0f;

struct MultiLossImage {
    Element element;     // of logits and grad: float32 or bfloat16
    bool pixel_form;     // the cross entropy weights each pixel
    float focal_gamma;   // 0, or at least 1
    int64_t classes;     // C
    int64_t pixels;      // P: what lies between two planes
    const void* logits;  // (C, P)
    bool ignores;        // whether pixels labelled `ignored` are left out
    int64_t ignored;
    const int64_t* labels;       // (P)
    int32_t* class_numbers;      // (P): from the first pass; -1: ignored
    const float* class_weights;  // (C)
    float* probabilities;        // (C, P): as their distance from an end, see below; written by the
                                 // first pass; may be the memory of grad
    float* log_true;             // (P): ln of the true class' probability, from the first pass
    void* grad;                  // (C, P)
};

// Of one plane (the probabilities of one class in one image) over a run of pixels.
struct PlaneSums {
    // Pixels that are not ignored, of this class, and with p near one.
    int64_t valid = 0, labelled = 0, near_one = 0;
    double mean = 0, squares = 0;  // of x; summed squared deviations from the mean
    double near_one_sum = 0;       // of x where p is near one
    // The least and the largest p, as `order_of` has them, where the label is this class, and where
    // it is another.
    int32_t least_in = INT32_MAX, most_in = -1;
    int32_t least_out = INT32_MAX, most_out = -1;
    // From the second pass: pixels with a large error, and sums over them of w |e|, and of
    // w s with s = d|e| / d e_p: everywhere, and where the label is this class.
    int64_t counted = 0;
    double error = 0, slope = 0, slope_in = 0;
};

// Adds what a further run has found. In an unnamed namespace for the reason given in variants.h.
namespace {

inline void add(PlaneSums& total, const PlaneSums& part) {
    const double before = static_cast<double>(total.valid), more = static_cast<double>(part.valid);
    if (part.valid > 0) {
        const double apart = part.mean - total.mean;
        total.mean += apart * more / (before + more);
        total.squares += part.squares + apart * apart * before * more / (before + more);
    }
    total.valid += part.valid;
    total.labelled += part.labelled;
    total.near_one += part.near_one;
    total.near_one_sum += part.near_one_sum;
    if (part.least_in < total.least_in) total.least_in = part.least_in;
    if (part.most_in > total.most_in) total.most_in = part.most_in;
    if (part.least_out < total.least_out) total.least_out = part.least_out;
    if (part.most_out > total.most_out) total.most_out = part.most_out;
    total.counted += part.counted;
    total.error += part.error;
    total.slope += part.slope;
    total.slope_in += part.slope_in;
}

}  // namespace

// Of all classes over a run of pixels.
struct PixelSums {
    double cross_entropy, focal;  // weighted
};

// How a plane is standardised, and how the errors in it enter the gradient.
struct PlaneShape {
    float mean, inverse;  // error = error_at[target][base] - (x - mean) * inverse
    float error_at[2][2];
    float threshold;    // errors above it count
    float weight;       // class weight as it enters the structural term
    float per_slope;    // gradient = counted * w * s * per_slope
    float constant[2];  // + constant[base]
    float per_centred;  // + (x - mean) * per_centred
};

// Gradient of the pixels' own terms: of cross entropy and focal loss by log p of the true class.
struct PixelShape {
    float cross_entropy;  // factor of the weighted cross entropy (scalar form)
    float focal;          // factor of the weighted focal loss
    float structural;     // factor of the counted error (pixel form)
};

// First pass: class_numbers, probabilities, log_true, and PlaneSums (C) but for what the second
// pass finds. False where a label is neither a class nor ignored.
GSD_DECLARE_KERNEL(bool, multi_loss_statistics, const MultiLossImage& image, int64_t first,
                   int64_t count, PlaneSums* planes, PixelSums* pixels)
// Second pass: the errors in PlaneSums (C).
GSD_DECLARE_KERNEL(void, multi_loss_errors, const MultiLossImage& image, const PlaneShape* shapes,
                   int64_t first, int64_t count, PlaneSums* planes)
// Third pass: the gradient in the logits.
GSD_DECLARE_KERNEL(void, multi_loss_gradient, const MultiLossImage& image, const PlaneShape* shapes,
                   const PixelShape& pixel, int64_t first, int64_t count)

}  // namespace gsd
