// gsd::group_norm_silu and its backward on the CPU: checks, channels_last memory, the passes over
// the tokens and what is added up between them.

#include "cpu/kernels/group_norm_silu.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "common/checks.h"
#include "cpu/isa.h"
#include "cpu/moments.h"

namespace {

using gsd::Element;
using gsd::NormRun;
using gsd::ScalarType;
using gsd::Tensor;
using torch::headeronly::MemoryFormat;

constexpr int64_t kRun = 1024;  // tokens; fixed, so that the sums never depend on threads

struct Shape {
    Element element;
    int64_t images, channels, tokens, groups;

    int64_t per_group() const { return channels / groups; }
    int64_t runs() const { return (tokens + kRun - 1) / kRun; }  // of an image
    size_t parameters() const { return static_cast<size_t>(channels); }
    // Bytes from the tensor's beginning to a run of an image.
    int64_t offset(int64_t image, int64_t run, int64_t element_size) const {
        return (image * tokens + run * kRun) * channels * element_size;
    }
    int64_t count(int64_t run) const { return std::min(kRun, tokens - run * kRun); }
};

Shape checked_shape(const Tensor& x, int64_t groups) {
    const ScalarType type = x.scalar_type();
    GSD_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16,
              "group_norm_silu: the native kernel takes float32 or bfloat16; for float64 "
              "call genselfdiff.kernels.group_norm_silu");
    GSD_CHECK(x.dim() == 4, "group_norm_silu: x must have shape (N, C, H, W)");
    const int64_t channels = x.size(1);
    GSD_CHECK(groups >= 1 && channels >= 1 && channels % groups == 0, "group_norm_silu: ", groups,
              " groups do not divide ", channels, " channels");
    return {type == ScalarType::Float ? Element::float32 : Element::bfloat16, x.size(0), channels,
            x.size(2) * x.size(3), groups};
}

// (C) parameters, or (N, C), as float32.
Tensor checked_parameters(const char* name, const Tensor& parameters, int64_t count) {
    GSD_CHECK(parameters.numel() == count, "group_norm_silu: ", name, " must have ", count,
              " elements");
    return torch::stable::contiguous(torch::stable::to(parameters, ScalarType::Float));
}

Tensor channels_last(const char* name, const Tensor& tensor, const Tensor& like) {
    const auto a = tensor.sizes(), b = like.sizes();
    GSD_CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()) &&
                  tensor.scalar_type() == like.scalar_type(),
              "group_norm_silu: ", name, " must have the shape and dtype of x");
    return torch::stable::contiguous(tensor, MemoryFormat::ChannelsLast);
}

const char* bytes(const Tensor& tensor) {
    return static_cast<const char*>(tensor.const_data_ptr());
}

// Calls each(image, run) for all runs of all images, in parallel.
template <class Each>
void for_runs(const Shape& shape, const Each& each) {
    torch::stable::parallel_for(0, shape.images * shape.runs(), 1, [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; ++i) each(i / shape.runs(), i % shape.runs());
    });
}

// z = x * scale + offset, by channel.
struct Affine {
    std::vector<float> scale, offset;

    Affine(const Shape& shape, const float* mean, const float* rstd, const float* weight,
           const float* bias)
        : scale(shape.parameters()), offset(shape.parameters()) {
        for (int64_t c = 0; c < shape.channels; ++c) {
            const int64_t group = c / shape.per_group();
            const double factor = static_cast<double>(weight[c]) * rstd[group];
            scale[static_cast<size_t>(c)] = static_cast<float>(factor);
            offset[static_cast<size_t>(c)] = static_cast<float>(bias[c] - mean[group] * factor);
        }
    }
};

std::tuple<Tensor, Tensor, Tensor> group_norm_silu(const Tensor& x, const Tensor& weight,
                                                   const Tensor& bias, int64_t groups,
                                                   const std::optional<Tensor>& shift,
                                                   const std::optional<Tensor>& residual,
                                                   double eps) {
    const Shape shape = checked_shape(x, groups);
    const Tensor source = torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
    const Tensor gain = checked_parameters("weight", weight, shape.channels);
    const Tensor start = checked_parameters("bias", bias, shape.channels);
    std::optional<Tensor> added, shifted;
    if (residual) added = channels_last("residual", *residual, x);
    if (shift) shifted = checked_parameters("shift", *shift, shape.images * shape.channels);
    Tensor y = torch::stable::empty_like(source);
    Tensor mean = torch::stable::new_empty(source, {shape.images, groups}, ScalarType::Float);
    Tensor rstd = torch::stable::new_empty(source, {shape.images, groups}, ScalarType::Float);
    if (source.numel() == 0) return {y, mean, rstd};

    const int64_t size = source.element_size(), channels = shape.channels;
    std::vector<float> sums(static_cast<size_t>(shape.images * shape.runs() * 3 * channels));
    const auto sum_channels = GSD_SELECT_KERNEL(channel_sums);
    for_runs(shape, [&](int64_t n, int64_t run) {
        float* part = &sums[static_cast<size_t>((n * shape.runs() + run) * 3 * channels)];
        NormRun from = {};
        from.element = shape.element;
        from.tokens = shape.count(run);
        from.channels = channels;
        from.x = bytes(source) + shape.offset(n, run, size);
        sum_channels(from, part + 2 * channels, part, part + channels);
    });
    std::vector<Affine> affine;
    for (int64_t n = 0; n < shape.images; ++n) {
        const float* parts = &sums[static_cast<size_t>(n * shape.runs() * 3 * channels)];
        float* means = mean.mutable_data_ptr<float>() + n * groups;
        float* rstds = rstd.mutable_data_ptr<float>() + n * groups;
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = group * shape.per_group();
            const gsd::Moments found = gsd::moments({parts, channels, shape.tokens, kRun}, first,
                                                    first + shape.per_group(), eps);
            means[group] = static_cast<float>(found.mean);
            rstds[group] = static_cast<float>(found.rstd);
        }
        affine.emplace_back(shape, means, rstds, gain.const_data_ptr<float>(),
                            start.const_data_ptr<float>());
    }
    const auto apply = GSD_SELECT_KERNEL(group_norm_silu);
    for_runs(shape, [&](int64_t n, int64_t run) {
        const int64_t skipped = shape.offset(n, run, size);
        NormRun from = {};
        from.element = shape.element;
        from.tokens = shape.count(run);
        from.channels = channels;
        from.x = bytes(source) + skipped;
        from.scale = affine[static_cast<size_t>(n)].scale.data();
        from.offset = affine[static_cast<size_t>(n)].offset.data();
        from.residual = added ? bytes(*added) + skipped : nullptr;
        from.shift = shifted ? shifted->const_data_ptr<float>() + n * channels : nullptr;
        from.result = static_cast<char*>(y.mutable_data_ptr()) + skipped;
        apply(from);
    });
    return {y, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> group_norm_silu_backward(
    const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& bias,
    const Tensor& mean, const Tensor& rstd) {
    GSD_CHECK(mean.dim() == 2 && rstd.dim() == 2 && mean.size(0) == x.size(0),
              "group_norm_silu_backward: mean and rstd must have shape (N, groups)");
    const Shape shape = checked_shape(x, mean.size(1));
    const int64_t channels = shape.channels;
    const Tensor source = torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
    const Tensor upstream = channels_last("grad_y", grad_y, x);
    const Tensor gain = checked_parameters("weight", weight, channels);
    const Tensor start = checked_parameters("bias", bias, channels);
    const Tensor means = checked_parameters("mean", mean, shape.images * shape.groups);
    const Tensor rstds = checked_parameters("rstd", rstd, shape.images * shape.groups);
    Tensor grad_x = torch::stable::empty_like(source);
    Tensor grad_weight = torch::stable::new_zeros(source, {channels}, ScalarType::Float);
    Tensor grad_bias = torch::stable::new_zeros(source, {channels}, ScalarType::Float);
    Tensor grad_shift =
        torch::stable::new_zeros(source, {shape.images, channels}, ScalarType::Float);
    if (source.numel() == 0) return {grad_x, grad_weight, grad_bias, grad_shift};

    const int64_t size = source.element_size();
    // What the kernels need of each image: by channel.
    struct Image {
        Affine affine;
        std::vector<float> mean, per_z, per_centred, constant;
    };
    std::vector<Image> images;
    for (int64_t n = 0; n < shape.images; ++n) {
        const float* group_means = means.const_data_ptr<float>() + n * shape.groups;
        const std::vector<float> empty(shape.parameters());
        images.push_back(
            {Affine(shape, group_means, rstds.const_data_ptr<float>() + n * shape.groups,
                    gain.const_data_ptr<float>(), start.const_data_ptr<float>()),
             empty, empty, empty, empty});
        for (int64_t c = 0; c < channels; ++c) {
            images.back().mean[static_cast<size_t>(c)] = group_means[c / shape.per_group()];
        }
    }
    const auto run_of = [&](int64_t n, int64_t run) {
        const Image& image = images[static_cast<size_t>(n)];
        NormRun from = {};
        from.element = shape.element;
        from.tokens = shape.count(run);
        from.channels = channels;
        from.x = bytes(source) + shape.offset(n, run, size);
        from.grad_y = bytes(upstream) + shape.offset(n, run, size);
        from.scale = image.affine.scale.data();
        from.offset = image.affine.offset.data();
        from.mean = image.mean.data();
        from.per_z = image.per_z.data();
        from.per_centred = image.per_centred.data();
        from.constant = image.constant.data();
        from.result = static_cast<char*>(grad_x.mutable_data_ptr()) + shape.offset(n, run, size);
        return from;
    };
    std::vector<float> sums(static_cast<size_t>(shape.images * shape.runs() * 3 * channels));
    const auto sum_gradients = GSD_SELECT_KERNEL(group_norm_silu_sums);
    for_runs(shape, [&](int64_t n, int64_t run) {
        float* part = &sums[static_cast<size_t>((n * shape.runs() + run) * 3 * channels)];
        sum_gradients(run_of(n, run), part, part + channels, part + 2 * channels);
    });

    std::vector<double> weight_sums(shape.parameters()), bias_sums(shape.parameters());
    const double elements = static_cast<double>(shape.tokens * shape.per_group());
    for (int64_t n = 0; n < shape.images; ++n) {
        Image& image = images[static_cast<size_t>(n)];
        const float* group_rstds = rstds.const_data_ptr<float>() + n * shape.groups;
        for (int64_t group = 0; group < shape.groups; ++group) {
            const double r = group_rstds[group];
            double by_z = 0.0, by_centred = 0.0;
            const int64_t first = group * shape.per_group(), last = first + shape.per_group();
            for (int64_t c = first; c < last; ++c) {
                double z_sum = 0.0, centred_sum = 0.0, y_sum = 0.0;
                for (int64_t run = 0; run < shape.runs(); ++run) {
                    const float* part =
                        &sums[static_cast<size_t>((n * shape.runs() + run) * 3 * channels)];
                    z_sum += part[c];
                    centred_sum += part[channels + c];
                    y_sum += part[2 * channels + c];
                }
                const double w = gain.const_data_ptr<float>()[c];
                by_z += w * z_sum;
                by_centred += w * centred_sum;
                weight_sums[static_cast<size_t>(c)] += centred_sum * r;
                bias_sums[static_cast<size_t>(c)] += z_sum;
                grad_shift.mutable_data_ptr<float>()[n * channels + c] = static_cast<float>(y_sum);
                image.per_z[static_cast<size_t>(c)] = static_cast<float>(w * r);
            }
            for (int64_t c = first; c < last; ++c) {
                image.per_centred[static_cast<size_t>(c)] =
                    static_cast<float>(-r * r * r * by_centred / elements);
                image.constant[static_cast<size_t>(c)] = static_cast<float>(-r * by_z / elements);
            }
        }
    }
    std::copy(weight_sums.begin(), weight_sums.end(), grad_weight.mutable_data_ptr<float>());
    std::copy(bias_sums.begin(), bias_sums.end(), grad_bias.mutable_data_ptr<float>());
    const auto gradient = GSD_SELECT_KERNEL(group_norm_silu_gradient);
    for_runs(shape, [&](int64_t n, int64_t run) { gradient(run_of(n, run)); });
    return {grad_x, grad_weight, grad_bias, grad_shift};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gsd, CPU, m) {
    m.impl("group_norm_silu", TORCH_BOX(&group_norm_silu));
    m.impl("group_norm_silu_backward", TORCH_BOX(&group_norm_silu_backward));
}
