// The multi-loss in three passes over the pixels, between which the caller adds up what each run
// has found. Vectors run along the pixels of one plane; sums go to double precision often enough
// that the number of pixels does not matter. Unnamed namespace: see bfloat16.h.

#include "cpu/kernels/multi_loss.h"

#include <cstdint>

#include "cpu/vectors/simd.h"

namespace {

using gsd::kMultiLossClasses;
using gsd::kNearOne;
using gsd::MultiLossImage;
using gsd::PixelShape;
using gsd::PixelSums;
using gsd::PlaneShape;
using gsd::PlaneSums;

constexpr float kSmallest = 1.17549435e-38f;
constexpr float kInfinity = __builtin_inff();
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

inline int32_t most_of(Ints value) {
    int32_t most = value[0];
    for (int i = 1; i < kFloats; ++i) most = most < value[i] ? value[i] : most;
    return most;
}

// How probabilities are held: see multi_loss.h. All lanes set where p is near one.
inline Ints is_near_one(Floats x) { return (Ints)x < 0; }
inline Floats ones_where(Ints mask) { return (Floats)(mask & (Ints)broadcast(1.0f)); }
// Integers in the order of p.
inline Ints order_of(Floats x) { return (Ints)x ^ is_near_one(x); }

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
        Floats others = {}, true_logit = {};
        Ints peaks = {};
        for (int64_t c = 0; c < classes; ++c) {
            const Floats z = values[c] - most;
            true_logit = label == static_cast<int32_t>(c) ? z : true_logit;
            values[c] = exp_of(z);
            const Ints peak = z == 0.0f;
            others += peak ? Floats{} : values[c];
            peaks -= peak;
        }
        const Floats sum = others + __builtin_convertvector(peaks, Floats);
        const Floats inverse = 1.0f / sum;
        const Floats beyond = -(others * inverse);  // where one class is near one
        for (int64_t c = 0; c < classes; ++c) {
            const Floats p = values[c] * inverse;
            store_lanes(image.probabilities + c * stride + i, lanes, p > kNearOne ? beyond : p);
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
        Floats weight = {}, x_true = {};
        for (int64_t c = 0; c < image.classes; ++c) {
            const Ints here = label == static_cast<int32_t>(c);
            weight = here ? broadcast(image.class_weights[c]) : weight;
            const Floats x = load_lanes(image.probabilities + c * image.pixels + i, lanes);
            x_true = here ? x : x_true;
        }
        const Floats q = ones_where(~is_near_one(x_true)) - x_true;
        const Floats weighted = label >= 0 ? -log_true * weight : Floats{};
        cross_entropy_part += weighted;
        focal_part += label >= 0 ? weighted * power(q, image.focal_gamma) : Floats{};
    });
    cross_entropy.add(cross_entropy_part);
    focal.add(focal_part);
}

// What the standardisation and the largest error need of one plane. Deviations are taken from a
// value near the mean, so that their squares keep the precision that a nearly constant plane needs:
// from that of a few valid pixels, so that a constant plane has none.
inline PlaneSums spread(const MultiLossImage& image, int64_t c, int64_t first, int64_t count) {
    const float* probabilities = image.probabilities + c * image.pixels;
    float near = 0.0f;
    for (int64_t i = first; i < first + count; i += kFloats) {
        const int64_t left = first + count - i, lanes = left < kFloats ? left : kFloats;
        const Ints valid = load_lanes(image.class_numbers + i, lanes) >= 0;
        const int64_t sampled = -sum_of(valid);
        if (sampled == 0) continue;
        const Floats x = load_lanes(probabilities + i, lanes);
        near = static_cast<float>(sum_of(valid ? x : Floats{}) / static_cast<double>(sampled));
        break;
    }
    Floats sum = {}, squares = {}, near_one_sum = {};
    Ints least_in = Ints{} + INT32_MAX, most_in = Ints{} - 1;
    Ints least_out = Ints{} + INT32_MAX, most_out = Ints{} - 1;
    Ints labelled = {}, valid = {}, near_one = {};
    for_vectors(first, count, [&](int64_t i, int64_t lanes) {
        const Ints label = load_lanes(image.class_numbers + i, lanes);
        const Ints here = label == static_cast<int32_t>(c);
        const Ints counted = label >= 0;
        const Ints elsewhere = counted & ~here;
        const Floats x = load_lanes(probabilities + i, lanes);
        const Ints high = counted & is_near_one(x);
        const Floats d = counted ? x - near : Floats{};
        sum += d;
        squares += d * d;
        near_one_sum += high ? x : Floats{};
        labelled -= here;
        valid -= counted;
        near_one -= high;
        const Ints order = order_of(x);
        least_in = smaller(least_in, here ? order : Ints{} + INT32_MAX);
        most_in = larger(most_in, here ? order : Ints{} - 1);
        least_out = smaller(least_out, elsewhere ? order : Ints{} + INT32_MAX);
        most_out = larger(most_out, elsewhere ? order : Ints{} - 1);
    });
    PlaneSums result;
    const double n = static_cast<double>(sum_of(valid)), shift = sum_of(sum);
    result.valid = sum_of(valid);
    result.labelled = sum_of(labelled);
    result.near_one = sum_of(near_one);
    if (result.valid > 0) {
        result.mean = near + shift / n;
        result.squares = sum_of(squares) - shift * shift / n;
    }
    result.near_one_sum = sum_of(near_one_sum);
    result.least_in = ~most_of(~least_in);
    result.most_in = most_of(most_in);
    result.least_out = ~most_of(~least_out);
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

// Standardised target minus standardised probability.
inline Floats error_of(const PlaneShape& shape, Ints here, Ints near_one, Floats centred) {
    const auto& at = shape.error_at;
    const Floats in = near_one ? broadcast(at[1][1]) : broadcast(at[1][0]);
    const Floats out = near_one ? broadcast(at[0][1]) : broadcast(at[0][0]);
    return (here ? in : out) - centred * shape.inverse;
}

template <bool pixel_form>
void errors(const MultiLossImage& image, const PlaneShape* shapes, int64_t first, int64_t count,
            PlaneSums* planes) {
    for (int64_t c = 0; c < image.classes; ++c) {
        const PlaneShape& shape = shapes[c];
        const float* probabilities = image.probabilities + c * image.pixels;
        PlaneSums& plane = planes[c];
        LongSum error, slope, slope_in;
        Ints counted = {};
        for (int64_t begin = first; begin < first + count; begin += kBlock) {
            const int64_t left = first + count - begin;
            Floats error_part = {}, slope_part = {}, slope_in_part = {};
            for_vectors(begin, left < kBlock ? left : kBlock, [&](int64_t i, int64_t lanes) {
                const Ints label = load_lanes(image.class_numbers + i, lanes);
                const Ints here = label == static_cast<int32_t>(c);
                const Floats x = load_lanes(probabilities + i, lanes);
                const Floats d = error_of(shape, here, is_near_one(x), x - shape.mean);
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
                slope_in_part += matters & here ? s : Floats{};
            });
            error.add(error_part);
            slope.add(slope_part);
            slope_in.add(slope_in_part);
        }
        plane.counted = sum_of(counted);
        plane.error = error.total();
        plane.slope = slope.total();
        plane.slope_in = slope_in.total();
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
        // The mean of the slopes over the classes, less the slope of the class near one, if any.
        Floats mean = {}, own = {}, x_own = {};
        Floats x_true = {}, weight = {}, structural = {};
        for (int64_t c = 0; c < classes; ++c) {
            const PlaneShape& shape = shapes[c];
            const Ints here = label == static_cast<int32_t>(c);
            const Floats x = load_lanes(image.probabilities + c * stride + i, lanes);
            const Ints near_one = is_near_one(x);
            const Floats centred = x - shape.mean;
            const Floats d = error_of(shape, here, near_one, centred);
            const Floats e = magnitude(d);
            Ints matters = e > shape.threshold;
            Floats s = broadcast(shape.per_slope);
            if constexpr (pixel_form) {
                matters &= here;
                s *= -log_true;
                structural = matters ? e * shape.weight : structural;
            }
            s = d < 0.0f ? s : -s;
            const Floats constant =
                near_one ? broadcast(shape.constant[1]) : broadcast(shape.constant[0]);
            const Floats g = (matters ? s : Floats{}) + (constant + centred * shape.per_centred);
            in_p[c] = g;
            mean += near_one ? Floats{} : x * g;
            own = near_one ? g : own;
            x_own = near_one ? x : x_own;
            x_true = here ? x : x_true;
            weight = here ? broadcast(image.class_weights[c]) : weight;
        }
        mean += x_own * own;
        // d focal / d ln p and that of the cross entropy, which is 1.
        const Floats q = ones_where(~is_near_one(x_true)) - x_true;
        const float gamma = image.focal_gamma;
        Floats by_log = power(q, gamma);
        if (gamma != 0.0f) by_log -= power(q, gamma - 1.0f) * (1.0f - q) * log_true * gamma;
        by_log = weight * (by_log * pixel.focal + pixel.cross_entropy);
        if constexpr (pixel_form) by_log += structural * pixel.structural;
        for (int64_t c = 0; c < classes; ++c) {
            const Ints here = label == static_cast<int32_t>(c);
            const Floats x = load_lanes(image.probabilities + c * stride + i, lanes);
            const Floats base = ones_where(is_near_one(x));
            const Floats apart = x + (base - ones_where(here));  // p - target
            const Floats g = (x + base) * ((in_p[c] - own) - mean) + by_log * apart;
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
