// The multi-loss in three passes over the pixels, between which the caller adds up what each run
// has found. Vectors run along the pixels of one plane; sums go to double precision often enough
// that the number of pixels does not matter. Unnamed namespace: see bfloat16.h.

#include "cpu/kernels/multi_loss.h"

#include <cstdint>

#include "cpu/kernels/simd.h"

namespace {

using gsd::kMultiLossClasses;
using gsd::MultiLossImage;
using gsd::PixelShape;
using gsd::PixelSums;
using gsd::PlaneShape;
using gsd::PlaneSums;

constexpr float kSmallest = 1.17549435e-38f;
constexpr float kInfinity = PlaneSums::kInfinity;
constexpr int64_t kFewClasses = 8;  // the usual case, for which arrays by class stay small
constexpr int64_t kBlock = 512;     // pixels that are added up in single precision

// (1 - p)^gamma of q = 1 - p.
inline Floats power(Floats q, float gamma) {
    if (gamma == 2.0f) return q * q;
    if (gamma == 1.0f) return q;
    if (gamma == 0.0f) return broadcast(1.0f);
    return q > 0.0f ? exp_of(log_of(larger(q, broadcast(kSmallest))) * gamma) : Floats{};
}

// A sum in double precision of sums in single precision.
struct LongSum {
    Doubles low = {}, high = {};

    void add(Floats value) {
        Doubles a, b;
        widen(value, a, b);
        low += a;
        high += b;
    }
    double total() const { return sum_of(low + high); }
};

inline float least_of(Floats value) { return -most_of(-value); }

inline int64_t sum_of(Ints value) {
    int64_t total = 0;
    for (int i = 0; i < kFloats; ++i) total += value[i];
    return total;
}

// Class numbers, -1 for ignored pixels; whether all others are classes.
inline bool classes_of(const MultiLossImage& image, int64_t first, int64_t count) {
    const bool ignores = image.ignores;
    const int64_t ignored = image.ignored, classes = image.classes;
    const int64_t* labels = image.labels + first;
    int32_t* result = image.class_numbers + first;
    int64_t bad = 0;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t label = labels[i];
        const bool skipped = ignores & (label == ignored);
        bad += !(skipped | ((label >= 0) & (label < classes)));
        result[i] = skipped ? -1 : static_cast<int32_t>(label);
    }
    return bad == 0;
}

// Softmax over the classes of up to kBlock pixels; `sums` gets its denominators, and log_true the
// true class' logits, both less than the largest logit by its amount.
template <int64_t max_classes, class T>
inline void softmax(const MultiLossImage& image, int64_t first, int64_t count, float* sums) {
    const int64_t classes = image.classes, stride = image.pixels;
    const T* logits = static_cast<const T*>(image.logits);
    for_vectors(first, count, [&](int64_t i, int64_t lanes) {
        const Ints label = load_lanes(image.class_numbers + i, lanes);
        Floats values[max_classes];
        Floats most = broadcast(-kInfinity);
        for (int64_t c = 0; c < classes; ++c) {
            values[c] = load_lanes(logits + c * stride + i, lanes);
            most = larger(most, values[c]);
        }
        Floats sum = {}, true_logit = {};
        for (int64_t c = 0; c < classes; ++c) {
            const Floats z = values[c] - most;
            true_logit = label == static_cast<int32_t>(c) ? z : true_logit;
            values[c] = exp_of(z);
            sum += values[c];
        }
        const Floats inverse = 1.0f / sum;
        for (int64_t c = 0; c < classes; ++c) {
            store_lanes(image.probabilities + c * stride + i, lanes, values[c] * inverse);
        }
        store_lanes(image.log_true + i, lanes, true_logit);
        store(sums + (i - first), sum);
    });
}

// The terms of each pixel alone.
inline void pixel_terms(const MultiLossImage& image, int64_t first, int64_t count,
                        const float* sums, LongSum& cross_entropy, LongSum& focal) {
    Floats cross_entropy_part = {}, focal_part = {};
    for_vectors(first, count, [&](int64_t i, int64_t lanes) {
        const Ints label = load_lanes(image.class_numbers + i, lanes);
        const Floats log_true =
            load_lanes(image.log_true + i, lanes) - log_of(load(sums + (i - first)));
        store_lanes(image.log_true + i, lanes, log_true);
        Floats weight = {}, p_true = {};  // of ignored pixels
        for (int64_t c = 0; c < image.classes; ++c) {
            const Ints here = label == static_cast<int32_t>(c);
            weight = here ? broadcast(image.class_weights[c]) : weight;
            const Floats p = load_lanes(image.probabilities + c * image.pixels + i, lanes);
            p_true = here ? p : p_true;
        }
        const Floats weighted = -log_true * weight;
        cross_entropy_part += weighted;
        focal_part += weighted * power(1.0f - p_true, image.focal_gamma);
    });
    cross_entropy.add(cross_entropy_part);
    focal.add(focal_part);
}

// What the standardisation and the largest error need of one plane. Deviations are taken from a
// value near the mean, so that their squares keep the precision that a nearly constant plane needs.
inline PlaneSums spread(const MultiLossImage& image, int64_t c, int64_t first, int64_t count) {
    const float* probabilities = image.probabilities + c * image.pixels;
    const int64_t sampled = count < kFloats ? count : kFloats;
    Floats lanes_of_first = load_lanes(probabilities + first, sampled);
    const float near = static_cast<float>(sum_of(lanes_of_first) / static_cast<double>(sampled));
    Floats sum = {}, squares = {};
    Floats least_in = broadcast(kInfinity), most_in = broadcast(-kInfinity);
    Floats least_out = broadcast(kInfinity), most_out = broadcast(-kInfinity);
    Ints labelled = {}, valid = {};
    for_vectors(first, count, [&](int64_t i, int64_t lanes) {
        const Ints label = load_lanes(image.class_numbers + i, lanes);
        const Ints here = label == static_cast<int32_t>(c);
        const Ints counted = label >= 0;
        const Ints elsewhere = counted & ~here;
        const Floats p = load_lanes(probabilities + i, lanes);
        const Floats d = counted ? p - near : Floats{};
        sum += d;
        squares += d * d;
        labelled -= here;
        valid -= counted;
        least_in = smaller(least_in, here ? p : broadcast(kInfinity));
        most_in = larger(most_in, here ? p : broadcast(-kInfinity));
        least_out = smaller(least_out, elsewhere ? p : broadcast(kInfinity));
        most_out = larger(most_out, elsewhere ? p : broadcast(-kInfinity));
    });
    PlaneSums result;
    const double n = static_cast<double>(sum_of(valid)), shift = sum_of(sum);
    result.valid = sum_of(valid);
    result.labelled = sum_of(labelled);
    if (result.valid > 0) {
        result.mean = near + shift / n;
        result.squares = sum_of(squares) - shift * shift / n;
    }
    result.least_in = least_of(least_in);
    result.most_in = most_of(most_in);
    result.least_out = least_of(least_out);
    result.most_out = most_of(most_out);
    return result;
}

template <int64_t max_classes, class T>
bool statistics(const MultiLossImage& image, int64_t first, int64_t count, PlaneSums* planes,
                PixelSums* pixels) {
    LongSum cross_entropy, focal;
    float sums[kBlock];
    bool good = true;
    for (int64_t c = 0; c < image.classes; ++c) planes[c] = {};
    // In blocks that stay in the first-level cache between the steps.
    for (int64_t begin = first; begin < first + count; begin += kBlock) {
        const int64_t left = first + count - begin;
        const int64_t part = left < kBlock ? left : kBlock;
        good &= classes_of(image, begin, part);
        softmax<max_classes, T>(image, begin, part, sums);
        pixel_terms(image, begin, part, sums, cross_entropy, focal);
        for (int64_t c = 0; c < image.classes; ++c) {
            gsd::add(planes[c], spread(image, c, begin, part));
        }
    }
    pixels->cross_entropy = cross_entropy.total();
    pixels->focal = focal.total();
    return good;
}

// Standardised target minus standardised probability, e_p being the latter.
inline Floats difference(const PlaneShape& shape, Ints here, Floats p, Floats& e_p) {
    e_p = (p - shape.mean) * shape.inverse + shape.offset;
    return (here ? broadcast(shape.target_in) : broadcast(shape.target_out)) - e_p;
}

template <bool pixel_form>
void errors(const MultiLossImage& image, const PlaneShape* shapes, int64_t first, int64_t count,
            PlaneSums* planes) {
    for (int64_t c = 0; c < image.classes; ++c) {
        const PlaneShape& shape = shapes[c];
        const float* probabilities = image.probabilities + c * image.pixels;
        PlaneSums& plane = planes[c];
        LongSum error, slope, slope_by_e;
        Ints counted = {};
        for (int64_t begin = first; begin < first + count; begin += kBlock) {
            const int64_t left = first + count - begin;
            Floats error_part = {}, slope_part = {}, slope_by_e_part = {};
            for_vectors(begin, left < kBlock ? left : kBlock, [&](int64_t i, int64_t lanes) {
                const Ints label = load_lanes(image.class_numbers + i, lanes);
                const Ints here = label == static_cast<int32_t>(c);
                Floats e_p;
                const Floats d = difference(shape, here, load_lanes(probabilities + i, lanes), e_p);
                const Floats e = magnitude(d);
                const Ints large = (e > shape.threshold) & (label >= 0);
                counted -= large;
                Floats weight = broadcast(1.0f);
                Ints matters = large;
                if constexpr (pixel_form) {
                    weight = -load_lanes(image.log_true + i, lanes);
                    matters = large & here;
                }
                const Floats s = d < 0.0f ? weight : -weight;
                error_part += matters ? e * weight : Floats{};
                slope_part += matters ? s : Floats{};
                slope_by_e_part += matters ? s * e_p : Floats{};
            });
            error.add(error_part);
            slope.add(slope_part);
            slope_by_e.add(slope_by_e_part);
        }
        plane.counted = sum_of(counted);
        plane.error = error.total();
        plane.slope = slope.total();
        plane.slope_by_e = slope_by_e.total();
    }
}

template <int64_t max_classes, bool pixel_form, class T>
void gradient(const MultiLossImage& image, const PlaneShape* shapes, const PixelShape& pixel,
              int64_t first, int64_t count) {
    const int64_t classes = image.classes, stride = image.pixels;
    T* grad = static_cast<T*>(image.grad);
    Floats in_p[max_classes];
    for_vectors(first, count, [&](int64_t i, int64_t lanes) {
        const Ints label = load_lanes(image.class_numbers + i, lanes);
        const Ints valid = label >= 0;
        const Floats log_true = load_lanes(image.log_true + i, lanes);
        Floats mean = {}, p_true = {}, weight = {}, structural = {};
        for (int64_t c = 0; c < classes; ++c) {
            const PlaneShape& shape = shapes[c];
            const Ints here = label == static_cast<int32_t>(c);
            const Floats p = load_lanes(image.probabilities + c * stride + i, lanes);
            Floats e_p;
            const Floats d = difference(shape, here, p, e_p);
            const Floats e = magnitude(d);
            Ints matters = e > shape.threshold;
            Floats s = broadcast(shape.per_slope);
            if constexpr (pixel_form) {
                matters &= here;
                s *= -log_true;
                structural = matters ? e * shape.weight : structural;
            }
            s = d < 0.0f ? s : -s;
            const Floats g =
                (matters ? s : Floats{}) + (shape.constant + (p - shape.mean) * shape.per_centred);
            in_p[c] = g;
            mean += p * g;
            p_true = here ? p : p_true;
            weight = here ? broadcast(image.class_weights[c]) : weight;
        }
        // d focal / d ln p and that of the cross entropy, which is 1.
        const Floats q = 1.0f - p_true;
        const float gamma = image.focal_gamma;
        Floats by_log = power(q, gamma);
        if (gamma != 0.0f) by_log -= power(q, gamma - 1.0f) * p_true * log_true * gamma;
        by_log = weight * (by_log * pixel.focal + pixel.cross_entropy);
        if constexpr (pixel_form) by_log += structural * pixel.structural;
        for (int64_t c = 0; c < classes; ++c) {
            const Ints here = label == static_cast<int32_t>(c);
            const Floats p = load_lanes(image.probabilities + c * stride + i, lanes);
            const Floats own = here ? broadcast(1.0f) : Floats{};
            const Floats g = p * (in_p[c] - mean) + by_log * (p - own);
            store_lanes(grad + c * stride + i, lanes, valid ? g : Floats{});
        }
    });
}

template <int64_t max_classes>
void gradient(const MultiLossImage& image, const PlaneShape* shapes, const PixelShape& pixel,
              int64_t first, int64_t count) {
    const bool half = image.element == gsd::Element::bfloat16;
    if (image.pixel_form) {
        half ? gradient<max_classes, true, BFloat16>(image, shapes, pixel, first, count)
             : gradient<max_classes, true, float>(image, shapes, pixel, first, count);
    } else {
        half ? gradient<max_classes, false, BFloat16>(image, shapes, pixel, first, count)
             : gradient<max_classes, false, float>(image, shapes, pixel, first, count);
    }
}

}  // namespace

bool gsd::GSD_ISA::multi_loss_statistics(const MultiLossImage& image, int64_t first, int64_t count,
                                         PlaneSums* planes, PixelSums* pixels) {
    const bool half = image.element == Element::bfloat16;
    if (image.classes <= kFewClasses) {
        return half ? statistics<kFewClasses, BFloat16>(image, first, count, planes, pixels)
                    : statistics<kFewClasses, float>(image, first, count, planes, pixels);
    }
    return half ? statistics<kMultiLossClasses, BFloat16>(image, first, count, planes, pixels)
                : statistics<kMultiLossClasses, float>(image, first, count, planes, pixels);
}

void gsd::GSD_ISA::multi_loss_errors(const MultiLossImage& image, const PlaneShape* shapes,
                                     int64_t first, int64_t count, PlaneSums* planes) {
    image.pixel_form ? errors<true>(image, shapes, first, count, planes)
                     : errors<false>(image, shapes, first, count, planes);
}

void gsd::GSD_ISA::multi_loss_gradient(const MultiLossImage& image, const PlaneShape* shapes,
                                       const PixelShape& pixel, int64_t first, int64_t count) {
    image.classes <= kFewClasses ? gradient<kFewClasses>(image, shapes, pixel, first, count)
                                 : gradient<kMultiLossClasses>(image, shapes, pixel, first, count);
}
