// gsd::multi_loss on the CPU: checks, contiguity, the three passes and what is added up between
// them. See genselfdiff/kernels/multi_loss for the formula and its source.

#include "cpu/kernels/multi_loss.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <optional>
#include <tuple>
#include <vector>

#include "common/checks.h"
#include "cpu/isa.h"

namespace {

using gsd::Element;
using gsd::MultiLossImage;
using gsd::PixelShape;
using gsd::PixelSums;
using gsd::PlaneShape;
using gsd::PlaneSums;
using gsd::ScalarType;
using gsd::Tensor;

constexpr int64_t kRun = 4096;  // pixels; fixed, so that the sums never depend on threads
constexpr double kStabiliser = 0.01, kErrorShare = 0.1;  // C and the threshold of the paper
constexpr double kFaint = 0x1p-52;                       // errors up to this are none

struct Logits {
    int64_t images, classes, pixels;
};

Logits checked(const Tensor& logits, const Tensor& labels,
               const std::optional<Tensor>& class_weights, double focal_gamma) {
    const ScalarType type = logits.scalar_type();
    GSD_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16,
              "multi_loss: the native kernel takes float32 or bfloat16; for float64 call "
              "genselfdiff.kernels.multi_loss");
    GSD_CHECK(logits.dim() == 4, "multi_loss: logits must be floating point of shape (N, C, H, W)");
    const int64_t n = logits.size(0), c = logits.size(1), h = logits.size(2), w = logits.size(3);
    const bool fits =
        labels.dim() == 3 && labels.size(0) == n && labels.size(1) == h && labels.size(2) == w;
    GSD_CHECK(fits && labels.scalar_type() == ScalarType::Long,
              "multi_loss: labels must be integers of shape (", n, ", ", h, ", ", w,
              "), like logits");
    GSD_CHECK(c >= 1 && c <= gsd::kMultiLossClasses, "multi_loss: ", c,
              " classes: the native kernel takes 1 to 256");
    GSD_CHECK(!class_weights || (class_weights->dim() == 1 && class_weights->size(0) == c),
              "multi_loss: class_weights must have shape (", c, ",), one a class");
    GSD_CHECK(focal_gamma == 0.0 || (focal_gamma >= 1.0 && std::isfinite(focal_gamma)),
              "multi_loss: focal_gamma must be 0 or at least 1, not ", focal_gamma);
    return {n, c, h * w};
}

[[noreturn]] void refuse_labels(const Tensor& labels, int64_t classes,
                                std::optional<int64_t> ignored) {
    const int64_t* first = labels.const_data_ptr<int64_t>();
    const int64_t* bad = std::find_if(first, first + labels.numel(), [&](int64_t label) {
        return label != ignored && (label < 0 || label >= classes);
    });
    gsd::fail("multi_loss: label ", *bad, " is none of the ", classes, " classes");
}

// One image's planes: what is known of each, and how its standardised form follows from that.
struct Planes {
    std::vector<PlaneSums> sums;
    std::vector<PlaneShape> shapes;
    std::vector<double> deviations;
};

// The x of a probability whose place in their order is known; see gsd::kNearOne.
float from_order(int32_t order, bool* near_one) {
    float x;
    const float end = 1.0f;
    int32_t bits;
    std::memcpy(&bits, &end, sizeof(bits));
    *near_one = order > bits;
    bits = *near_one ? ~order : order;
    std::memcpy(&x, &bits, sizeof(x));
    return x;
}

// With s and t the deviations of p and of the target, and r = (s - t) / (t + C),
//   error = ((target - mean + C) r + (target - mean) - (p - mean)) / (s + C):
// no difference of two nearly equal numbers where p is near the target.
void standardise(Planes& planes, const float* class_weights, bool pixel_form) {
    const int64_t valid = planes.sums[0].valid;
    const double count = std::max(static_cast<double>(valid), 1.0);
    const double degrees = std::max(count - 1.0, 1.0);
    for (size_t c = 0; c < planes.sums.size(); ++c) {
        const PlaneSums& plane = planes.sums[c];
        PlaneShape& shape = planes.shapes[c];
        const double target_mean = static_cast<double>(plane.labelled) / count;
        const double base_mean = static_cast<double>(plane.near_one) / count;
        const double of_target = count * target_mean * (1.0 - target_mean);
        const double of_base = count * base_mean * (1.0 - base_mean);
        const bool mixed = plane.near_one > 0 && plane.near_one < valid;
        const double together =
            mixed ? plane.near_one_sum - static_cast<double>(plane.near_one) * plane.mean : 0.0;
        const double of_x = plane.squares + 2.0 * together;
        const double spread = std::sqrt(std::max(0.0, (of_base + of_x) / degrees));
        const double target_spread = std::sqrt(of_target / degrees);
        const double both = spread + target_spread;
        const double ratio = both > 0.0 ? (of_base - of_target + of_x) / degrees / both /
                                              (target_spread + kStabiliser)
                                        : 0.0;
        const double inverse = 1.0 / (spread + kStabiliser);
        planes.deviations[c] = spread;
        shape.mean = static_cast<float>(plane.mean);
        shape.inverse = static_cast<float>(inverse);
        for (int target = 0; target < 2; ++target) {
            for (int base = 0; base < 2; ++base) {
                // What rounding the mean of x takes away is given back here.
                const double moved = (target - base) - (target_mean - base_mean) -
                                     (static_cast<double>(shape.mean) - plane.mean);
                shape.error_at[target][base] = static_cast<float>(
                    ((target - target_mean + kStabiliser) * ratio + moved) * inverse);
            }
        }
        // The largest error lies at an end of the probabilities' range.
        const auto error = [&](int target, int32_t order) {
            bool near_one;
            const float x = from_order(order, &near_one);
            return std::abs(shape.error_at[target][near_one] - (x - shape.mean) * shape.inverse);
        };
        float largest = 0.0f;
        if (plane.labelled > 0) {
            largest = std::max({error(1, plane.least_in), error(1, plane.most_in)});
        }
        if (plane.labelled < valid) {
            largest = std::max({largest, error(0, plane.least_out), error(0, plane.most_out)});
        }
        shape.threshold =
            std::max(static_cast<float>(kErrorShare) * largest, static_cast<float>(kFaint));
        shape.weight = pixel_form ? class_weights[c] * class_weights[c] : class_weights[c];
    }
}

// How each pixel's error enters the gradient; `factor` is d loss / d (weighted error).
void slope(Planes& planes, double factor) {
    const double count = std::max(static_cast<double>(planes.sums[0].valid), 1.0);
    for (size_t c = 0; c < planes.sums.size(); ++c) {
        PlaneShape& shape = planes.shapes[c];
        const PlaneSums& plane = planes.sums[c];
        const double spread = planes.deviations[c];
        const double per_slope = factor * shape.weight / (spread + kStabiliser);
        shape.per_slope = static_cast<float>(per_slope);
        // The sum of w s e_p, as e_p is the standardised target less the error.
        const double target_mean = static_cast<double>(plane.labelled) / count;
        const double base_mean = static_cast<double>(plane.near_one) / count;
        const double degrees = std::max(count - 1.0, 1.0);
        const double target_spread =
            std::sqrt(count * target_mean * (1.0 - target_mean) / degrees) + kStabiliser;
        const double in = (1.0 - target_mean + kStabiliser) / target_spread;
        const double out = (kStabiliser - target_mean) / target_spread;
        const double slope_by_e =
            in * plane.slope_in + out * (plane.slope - plane.slope_in) + plane.error;
        const double per_centred = spread > 0 ? -per_slope * slope_by_e / (degrees * spread) : 0.0;
        shape.per_centred = static_cast<float>(per_centred);
        for (int base = 0; base < 2; ++base) {
            const double centred =
                base - base_mean + (static_cast<double>(shape.mean) - plane.mean);
            shape.constant[base] =
                static_cast<float>(centred * per_centred - per_slope * plane.slope / count);
        }
    }
}

// Calls each(begin, count) for the runs of an image's pixels, in parallel.
template <class Each>
void for_runs(int64_t pixels, const Each& each) {
    torch::stable::parallel_for(0, (pixels + kRun - 1) / kRun, 1, [&](int64_t from, int64_t to) {
        for (int64_t run = from; run < to; ++run) {
            each(run, run * kRun, std::min(kRun, pixels - run * kRun));
        }
    });
}

std::tuple<Tensor, Tensor> multi_loss(const Tensor& logits, const Tensor& labels,
                                      const std::optional<Tensor>& class_weights, bool pixel_form,
                                      double focal_gamma, std::optional<int64_t> ignore_label) {
    const Logits shape = checked(logits, labels, class_weights, focal_gamma);
    const int64_t images = shape.images, classes = shape.classes, pixels = shape.pixels;
    std::vector<float> weights(static_cast<size_t>(classes), 1.0f);
    if (class_weights) {
        const Tensor given =
            torch::stable::contiguous(torch::stable::to(*class_weights, ScalarType::Float));
        std::copy_n(given.const_data_ptr<float>(), classes, weights.begin());
    }
    const Tensor source = torch::stable::contiguous(logits);
    Tensor grad = torch::stable::new_empty(source, source.sizes());
    Tensor loss = torch::stable::new_empty(source, {}, ScalarType::Float);
    const bool single = logits.scalar_type() == ScalarType::Float;
    // The gradient's own memory holds the probabilities until the last pass.
    const Tensor probabilities =
        single ? grad : torch::stable::new_empty(source, source.sizes(), ScalarType::Float);
    const Tensor target = torch::stable::contiguous(labels);
    const Tensor class_numbers = torch::stable::new_empty(target, target.sizes(), ScalarType::Int);
    const Tensor log_true = torch::stable::new_empty(target, target.sizes(), ScalarType::Float);

    const int64_t plane_bytes = pixels * source.element_size();
    const auto image_of = [&](int64_t b) {
        const int64_t skipped = b * classes * plane_bytes;
        return MultiLossImage{
            .element = single ? Element::float32 : Element::bfloat16,
            .pixel_form = pixel_form,
            .focal_gamma = static_cast<float>(focal_gamma),
            .classes = classes,
            .pixels = pixels,
            .logits = static_cast<const char*>(source.const_data_ptr()) + skipped,
            .ignores = ignore_label.has_value(),
            .ignored = ignore_label.value_or(0),
            .labels = target.const_data_ptr<int64_t>() + b * pixels,
            .class_numbers = class_numbers.mutable_data_ptr<int32_t>() + b * pixels,
            .class_weights = weights.data(),
            .probabilities =
                static_cast<float*>(probabilities.mutable_data_ptr()) + b * classes * pixels,
            .log_true = log_true.mutable_data_ptr<float>() + b * pixels,
            .grad = static_cast<char*>(grad.mutable_data_ptr()) + skipped,
        };
    };

    const size_t count = static_cast<size_t>(classes);
    std::vector<Planes> planes(static_cast<size_t>(images));
    std::vector<PixelSums> pixel_sums(static_cast<size_t>(images));
    const auto statistics = GSD_SELECT_KERNEL(multi_loss_statistics);
    const auto errors = GSD_SELECT_KERNEL(multi_loss_errors);
    std::atomic<bool> good = true;
    const auto gradient = GSD_SELECT_KERNEL(multi_loss_gradient);
    // Image by image, so that a plane is still in the cache when it is read again. Where there are
    // fewer images than threads, the runs of an image are shared out.
    torch::stable::parallel_for(0, images, 1, [&](int64_t from, int64_t to) {
        for (int64_t b = from; b < to; ++b) {
            const MultiLossImage image = image_of(b);
            const size_t runs = static_cast<size_t>((pixels + kRun - 1) / kRun);
            std::vector<PlaneSums> parts(runs * count);
            std::vector<PixelSums> pixel_parts(runs);
            Planes& own = planes[static_cast<size_t>(b)];
            own.shapes.resize(count);
            own.deviations.resize(count);
            for_runs(pixels, [&](int64_t run, int64_t first, int64_t length) {
                if (!statistics(image, first, length, &parts[static_cast<size_t>(run) * count],
                                &pixel_parts[static_cast<size_t>(run)])) {
                    good = false;
                }
            });
            const auto gather = [&] {
                own.sums.assign(count, {});
                for (size_t i = 0; i < parts.size(); ++i) gsd::add(own.sums[i % count], parts[i]);
            };
            gather();
            for (const PixelSums& part : pixel_parts) {
                pixel_sums[static_cast<size_t>(b)].cross_entropy += part.cross_entropy;
                pixel_sums[static_cast<size_t>(b)].focal += part.focal;
            }
            standardise(own, weights.data(), pixel_form);
            for_runs(pixels, [&](int64_t run, int64_t first, int64_t length) {
                errors(image, own.shapes.data(), first, length,
                       &parts[static_cast<size_t>(run) * count]);
            });
            gather();
        }
    });

    if (!good) refuse_labels(target, classes, ignore_label);

    double valid = 0.0, cross_entropy = 0.0, focal = 0.0, error = 0.0, counted = 0.0;
    for (size_t b = 0; b < planes.size(); ++b) {
        valid += static_cast<double>(planes[b].sums[0].valid);
        cross_entropy += pixel_sums[b].cross_entropy;
        focal += pixel_sums[b].focal;
        for (size_t c = 0; c < count; ++c) {
            counted += static_cast<double>(planes[b].sums[c].counted);
            error += planes[b].sums[c].error * planes[b].shapes[c].weight;
        }
    }
    valid = std::max(valid, 1.0);
    cross_entropy /= valid;
    error /= std::max(counted, 1.0);
    const double similarity = pixel_form ? error : error * cross_entropy;
    *loss.mutable_data_ptr<float>() = static_cast<float>(similarity + focal / valid);

    const PixelShape pixel = {
        .cross_entropy = static_cast<float>(pixel_form ? 0.0 : error / valid),
        .focal = static_cast<float>(1.0 / valid),
        .structural = static_cast<float>(1.0 / std::max(counted, 1.0)),
    };
    for (Planes& own : planes) {
        slope(own, (pixel_form ? 1.0 : cross_entropy) / std::max(counted, 1.0));
    }
    torch::stable::parallel_for(0, images, 1, [&](int64_t from, int64_t to) {
        for (int64_t b = to - 1; b >= from; --b) {  // the last one is still in the cache
            const MultiLossImage image = image_of(b);
            for_runs(pixels, [&](int64_t, int64_t first, int64_t length) {
                gradient(image, planes[static_cast<size_t>(b)].shapes.data(), pixel, first, length);
            });
        }
    });
    return {loss, grad};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gsd, CPU, m) { m.impl("multi_loss", TORCH_BOX(&multi_loss)); }
