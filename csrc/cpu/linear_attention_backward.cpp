// gsd::linear_attention_backward on the CPU: the passes over the tokens and what is done between
// them. The plain-torch reference has the formulas.

#include <algorithm>
#include <functional>
#include <numeric>
#include <tuple>
#include <vector>

#include "cpu/linear_attention_parts.h"

namespace {

using namespace gsd::attention;
using gsd::ScalarType;
using gsd::Tensor;

// What the first backward pass has summed over the tokens of an image, see the kernel.
struct GradientSums {
    Floats q_by_y, q_by_q, q, y;

    explicit GradientSums(const Shape& shape)
        : q_by_y(count(shape.hidden() * shape.padded())),
          q_by_q(count(shape.hidden() * shape.hidden())),
          q(count(shape.hidden())),
          y(count(shape.channels)) {}

    void add(const GradientSums& part) {
        const auto add_all = [](Floats& to, const Floats& from) {
            std::transform(to.begin(), to.end(), from.begin(), to.begin(), std::plus<float>());
        };
        add_all(q_by_y, part.q_by_y);
        add_all(q_by_q, part.q_by_q);
        add_all(q, part.q);
        add_all(y, part.y);
    }

    // The upper half of q^T q, which the kernel leaves out.
    void mirror(int64_t hidden) {
        for (int64_t i = 0; i < hidden; ++i) {
            for (int64_t j = i + 1; j < hidden; ++j) {
                q_by_q[count(i * hidden + j)] = q_by_q[count(j * hidden + i)];
            }
        }
    }
};

// Of one image, what lies between its first and its second backward pass: the gradients of all
// behind the second softmax, and the matrices that take the gradient on to q, k and x.
struct ImageGradient {
    Packed folded, turned, into_keys, into_x;
    Floats per_y, keys_start, gain;
    Floats grad_context;  // (heads, d, d)
    float constant = 0, per_centred = 0;
    Floats grad_out;  // (hidden, padded C), before the scale
    std::vector<double> grad_bias, grad_out_gain;

    // `qkv` has the weights' rows padded; of those of v the image's own take the place.
    ImageGradient(const Shape& shape, const Weights& weights, const float* moments,
                  const float* context, GradientSums& sums, Floats qkv) {
        const int64_t channels = shape.channels, hidden = shape.hidden(), row = shape.padded();
        const float *bias = values(weights.out_bias), *out_gain = values(weights.out_gain);
        const double mean = moments[2], rstd = moments[3];
        const double elements = static_cast<double>(shape.tokens * channels);
        sums.mirror(hidden);

        // Each head's features add up to 1, so that what is added to o can be part of the matrix.
        Floats matrix = folded_into(shape, context, weights.scaled_out);
        turned = packed(shape, {matrix.data(), channels, 1, hidden, row, nullptr});
        for (int64_t i = 0; i < hidden; ++i) {
            for (int64_t c = 0; c < channels; ++c) {
                matrix[count(i * row + c)] +=
                    static_cast<float>((bias[c] - mean) / static_cast<double>(shape.heads));
            }
        }
        folded = packed(shape, {matrix.data(), hidden, row, channels, 1, nullptr});

        grad_out_gain.assign(count(channels), 0.0);
        std::vector<double> centred_sums(count(channels));
        for (int64_t i = 0; i < hidden; ++i) {
            for (int64_t c = 0; c < channels; ++c) {
                const double m = matrix[count(i * row + c)];
                grad_out_gain[count(c)] += rstd * m * sums.q_by_y[count(i * row + c)];
                centred_sums[count(c)] += m * sums.q[count(i)];
            }
        }
        double by_y = 0.0, by_centred = 0.0;  // means over the elements
        for (int64_t c = 0; c < channels; ++c) {
            by_y += sums.y[count(c)] * static_cast<double>(out_gain[c]) / elements;
            by_centred += grad_out_gain[count(c)] * static_cast<double>(out_gain[c]) / elements;
        }
        constant = static_cast<float>(-rstd * by_y);
        per_centred = static_cast<float>(-rstd * rstd * by_centred);
        for (int64_t c = 0; c < channels; ++c) {
            per_y.push_back(static_cast<float>(rstd * out_gain[c]));
            grad_bias.push_back(rstd * (static_cast<double>(out_gain[c]) * sums.y[count(c)] -
                                        by_y * static_cast<double>(shape.tokens) -
                                        by_centred * rstd * centred_sums[count(c)]));
            gain.push_back(moments[1] * values(weights.gain)[c]);
        }

        Floats centred_by_q(count(hidden * row));  // q^T (o - mean)
        GSD_SELECT_KERNEL(add_product)
        ({.rows = hidden,
          .columns = row,
          .steps = hidden,
          .a = sums.q_by_q.data(),
          .a_row = hidden,
          .a_step = 1,
          .b = matrix.data(),
          .b_step = row,
          .c = centred_by_q.data(),
          .c_row = row});
        Floats grad_folded(count(hidden * row));
        for (int64_t i = 0; i < hidden; ++i) {
            const double of_q = static_cast<double>(constant) * sums.q[count(i)];
            for (int64_t c = 0; c < channels; ++c) {
                const size_t at = count(i * row + c);
                const double of_y = static_cast<double>(per_y[count(c)]) * sums.q_by_y[at];
                const double of_centred = static_cast<double>(per_centred) * centred_by_q[at];
                grad_folded[at] = static_cast<float>(of_y + of_q + of_centred);
            }
        }
        through_fold(shape, weights, context, grad_folded);
        through_values(shape, weights, context, qkv);
    }

    // What the second pass has summed of k becomes what it would have summed of the gradient in v.
    void finish_values(const Shape& shape, float* by_x, double* sums) const {
        const int64_t size = shape.head_size, row = shape.padded(), hidden = shape.hidden();
        float* of_k = by_x + 2 * hidden * row;
        Floats of_v(count(hidden * row));
        std::vector<double> v_sums(count(hidden));
        for (int64_t h = 0; h < shape.heads; ++h) {
            const float* of_head = &grad_context[count(h * size * size)];
            GSD_SELECT_KERNEL(add_product)
            ({.rows = size,
              .columns = row,
              .steps = size,
              .a = of_head,
              .a_row = 1,
              .a_step = size,
              .b = of_k + h * size * row,
              .b_step = row,
              .c = &of_v[count(h * size * row)],
              .c_row = row});
            for (int64_t i = 0; i < size; ++i) {
                for (int64_t e = 0; e < size; ++e) {
                    v_sums[count(h * size + e)] +=
                        of_head[i * size + e] * sums[2 * hidden + h * size + i];
                }
            }
        }
        std::copy(of_v.begin(), of_v.end(), of_k);
        std::copy(v_sums.begin(), v_sums.end(), sums + 2 * hidden);
    }

  private:
    void through_fold(const Shape& shape, const Weights& weights, const float* context,
                      const Floats& grad_folded) {
        const int64_t hidden = shape.hidden(), row = shape.padded(), size = shape.head_size;
        grad_context.assign(count(shape.context()), 0.0f);
        grad_out.assign(count(hidden * row), 0.0f);
        for (int64_t h = 0; h < shape.heads; ++h) {
            const float* of_head = &grad_folded[count(h * size * row)];
            GSD_SELECT_KERNEL(add_product)
            ({.rows = size,
              .columns = size,
              .steps = shape.channels,
              .a = of_head,
              .a_row = row,
              .a_step = 1,
              .b = values(weights.out) + h * size,
              .b_step = hidden,
              .c = &grad_context[count(h * size * size)],
              .c_row = size});
            GSD_SELECT_KERNEL(add_product)
            ({.rows = size,
              .columns = row,
              .steps = size,
              .a = context + h * size * size,
              .a_row = 1,
              .a_step = size,
              .b = of_head,
              .b_step = row,
              .c = &grad_out[count(h * size * row)],
              .c_row = row});
        }
        for (float& value : grad_context) value *= weights.scale;
    }

    void through_values(const Shape& shape, const Weights& weights, const float* context,
                        Floats& qkv) {
        const int64_t hidden = shape.hidden(), row = shape.padded(), size = shape.head_size;
        const float* v_bias = &weights.qkv_bias[count(2 * hidden)];
        const Floats v_weights(qkv.begin() + 2 * hidden * row, qkv.end());
        float* by_k = &qkv[count(2 * hidden * row)];
        std::fill(by_k, by_k + hidden * row, 0.0f);
        for (int64_t h = 0; h < shape.heads; ++h) {
            GSD_SELECT_KERNEL(add_product)
            ({.rows = size,
              .columns = row,
              .steps = size,
              .a = &grad_context[count(h * size * size)],
              .a_row = size,
              .a_step = 1,
              .b = &v_weights[count(h * size * row)],
              .b_step = row,
              .c = by_k + h * size * row,
              .c_row = row});
        }
        for (int64_t i = 0; i < hidden; ++i) {
            const float *grad = &grad_context[count(i * size)], *here = context + i * size;
            const float along = std::inner_product(here, here + size, grad, 0.0f);
            const float* bias = v_bias + i / size * size;
            keys_start.push_back(std::inner_product(bias, bias + size, grad, -along));
        }
        into_keys = packed(shape, {by_k, shape.channels, 1, hidden, row, values(weights.gain)});
        into_x = packed(shape, {qkv.data(), 3 * hidden, row, shape.channels, 1, nullptr});
    }
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>
linear_attention_backward(const Tensor& grad_y, const Tensor& x, const Tensor& norm_weight,
                          const Tensor& norm_bias, const Tensor& qkv_weight,
                          const Tensor& out_weight, const Tensor& out_bias,
                          const Tensor& out_norm_weight, const Tensor& out_norm_bias,
                          const Tensor& moments, const Tensor& k_lse, const Tensor& context) {
    GSD_CHECK(context.dim() == 4, "linear_attention: context must have shape (N, h, d, d)");
    const Shape shape = checked_shape(x, context.size(1), context.size(1) * context.size(2));
    const int64_t images = shape.images, channels = shape.channels, hidden = shape.hidden();
    const int64_t row = shape.padded();
    const Weights weights(shape, norm_weight, norm_bias, qkv_weight, out_weight, out_bias,
                          out_norm_weight, out_norm_bias);
    const Tensor all_moments = checked("moments", moments, images * 4);
    const Tensor all_lse = checked("k_lse", k_lse, images * hidden);
    const Tensor contexts = checked("context", context, images * shape.context());
    const float *moment = values(all_moments), *lse = values(all_lse);
    GSD_CHECK(
        grad_y.dim() == 4 && grad_y.numel() == x.numel() && grad_y.scalar_type() == x.scalar_type(),
        "linear_attention: grad_y must have the shape and dtype of x");
    const Tensor source = torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
    const Tensor upstream = torch::stable::contiguous(grad_y, MemoryFormat::ChannelsLast);
    Tensor grad_x = torch::stable::empty_like(source);
    const auto zeros = [](const Tensor& like) {
        return torch::stable::new_zeros(like, like.sizes(), ScalarType::Float);
    };
    Tensor grad_norm_weight = zeros(norm_weight), grad_norm_bias = zeros(norm_bias);
    Tensor grad_qkv_weight = zeros(qkv_weight), grad_out_weight = zeros(out_weight);
    Tensor grad_out_bias = zeros(out_bias), grad_out_norm_weight = zeros(out_norm_weight);
    Tensor grad_out_norm_bias = zeros(out_norm_bias);
    const auto results = [&] {
        return std::make_tuple(grad_x, grad_norm_weight, grad_norm_bias, grad_qkv_weight,
                               grad_out_weight, grad_out_bias, grad_out_norm_weight,
                               grad_out_norm_bias);
    };
    if (source.numel() == 0) return results();

    const Runs runs(shape, 16);
    const int64_t per_image = runs.per_image(), slots = images * per_image;
    const int64_t size = source.element_size();
    Floats qkv(count(3 * hidden * row));
    for (int64_t o = 0; o < 3 * hidden; ++o) {
        std::copy_n(values(weights.qkv) + o * channels, channels, &qkv[count(o * row)]);
    }
    std::vector<ImageGradient> between;
    const auto run_for = [&](int64_t image, int64_t tokens, int64_t skipped) {
        gsd::AttentionGradientRun run = {};
        run.forward = run_of(shape, tokens);
        run.forward.x = static_cast<const char*>(source.const_data_ptr()) + skipped * size;
        run.forward.mean = moment[4 * image];
        run.forward.rstd = moment[4 * image + 1];
        run.forward.qkv = weights.packed_qkv.data();
        run.forward.qkv_bias = weights.qkv_bias.data();
        run.forward.result = static_cast<char*>(grad_x.mutable_data_ptr()) + skipped * size;
        run.grad_y = static_cast<const char*>(upstream.const_data_ptr()) + skipped * size;
        return run;
    };

    std::vector<GradientSums> sums(count(slots), GradientSums(shape));
    const auto sum_gradients = GSD_SELECT_KERNEL(attention_gradient_sums);
    runs.for_each([&](int64_t image, int64_t slot, int64_t tokens, int64_t skipped) {
        GradientSums& part = sums[count(slot)];
        sum_gradients(run_for(image, tokens, skipped), part.q_by_y.data(), part.q_by_q.data(),
                      part.q.data(), part.y.data());
    });
    for (int64_t n = 0; n < images; ++n) {
        GradientSums& total = sums[count(n * per_image)];
        for (int64_t run = 1; run < per_image; ++run) {
            total.add(sums[count(n * per_image + run)]);
        }
        between.emplace_back(shape, weights, moment + 4 * n, values(contexts) + n * shape.context(),
                             total, qkv);
        const ImageGradient& image = between.back();
        float* out = grad_out_weight.mutable_data_ptr<float>();
        float* out_gain = grad_out_norm_weight.mutable_data_ptr<float>();
        float* out_offset = grad_out_norm_bias.mutable_data_ptr<float>();
        float* bias = grad_out_bias.mutable_data_ptr<float>();
        for (int64_t c = 0; c < channels; ++c) {
            for (int64_t i = 0; i < hidden; ++i) {
                out[c * hidden + i] += image.grad_out[count(i * row + c)] * weights.scale;
            }
            out_gain[c] += static_cast<float>(image.grad_out_gain[count(c)]);
            out_offset[c] += total.y[count(c)];
            bias[c] += static_cast<float>(image.grad_bias[count(c)]);
        }
    }
    sums.clear();

    Floats by_x(count(slots * 3 * hidden * row)), of_qkv(count(slots * 3 * hidden));
    const auto gradient = GSD_SELECT_KERNEL(attention_gradient);
    runs.for_each([&](int64_t n, int64_t slot, int64_t tokens, int64_t skipped) {
        const ImageGradient& image = between[count(n)];
        gsd::AttentionGradientRun run = run_for(n, tokens, skipped);
        run.forward.folded = image.folded.data();
        run.per_y = image.per_y.data();
        run.constant = image.constant;
        run.per_centred = image.per_centred;
        run.k_lse = lse + n * hidden;
        run.turned = image.turned.data();
        run.into_keys = image.into_keys.data();
        run.keys_start = image.keys_start.data();
        run.into_x = image.into_x.data();
        run.gain = image.gain.data();
        gradient(run, &by_x[count(slot * 3 * hidden * row)], &of_qkv[count(slot * 3 * hidden)]);
    });

    // The norm's gradients follow from those sums; they are of the normalised x before the gain.
    std::vector<double> along_x(count(images)), along_one(count(images));
    float* grad_qkv = grad_qkv_weight.mutable_data_ptr<float>();
    const float *gain = values(weights.gain), *offset = values(weights.offset);
    for (int64_t n = 0; n < images; ++n) {
        std::vector<double> grad_gain(count(channels)), grad_offset(count(channels));
        float* totals = &by_x[count(n * per_image * 3 * hidden * row)];
        std::vector<double> qkv_sums(count(3 * hidden));
        for (int64_t run = 0; run < per_image; ++run) {
            const float* part = totals + run * 3 * hidden * row;
            for (int64_t i = 0; run > 0 && i < 3 * hidden * row; ++i) totals[i] += part[i];
            for (int64_t o = 0; o < 3 * hidden; ++o) {
                qkv_sums[count(o)] += of_qkv[count((n * per_image + run) * 3 * hidden + o)];
            }
        }
        between[count(n)].finish_values(shape, totals, qkv_sums.data());
        for (int64_t o = 0; o < 3 * hidden; ++o) {
            const float* total = totals + o * row;
            const double sum = qkv_sums[count(o)];
            const float* weight = values(weights.qkv) + o * channels;
            for (int64_t c = 0; c < channels; ++c) {
                grad_gain[count(c)] += static_cast<double>(weight[c]) * total[c];
                grad_offset[count(c)] += weight[c] * sum;
                grad_qkv[o * channels + c] +=
                    static_cast<float>(static_cast<double>(gain[c]) * total[c] + offset[c] * sum);
            }
        }
        for (int64_t c = 0; c < channels; ++c) {
            grad_norm_weight.mutable_data_ptr<float>()[c] +=
                static_cast<float>(grad_gain[count(c)]);
            grad_norm_bias.mutable_data_ptr<float>()[c] +=
                static_cast<float>(grad_offset[count(c)]);
            along_x[count(n)] += gain[c] * grad_gain[count(c)];
            along_one[count(n)] += gain[c] * grad_offset[count(c)];
        }
    }
    const auto finish = GSD_SELECT_KERNEL(attention_gradient_finish);
    const double elements = static_cast<double>(shape.tokens * channels);
    runs.for_each([&](int64_t n, int64_t, int64_t tokens, int64_t skipped) {
        gsd::AttentionGradientRun run = run_for(n, tokens, skipped);
        const double rstd = run.forward.rstd;
        run.per_x = static_cast<float>(-rstd * rstd * along_x[count(n)] / elements);
        run.x_constant = static_cast<float>(-rstd * along_one[count(n)] / elements);
        finish(run);
    });
    return results();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gsd, CPU, m) {
    m.impl("linear_attention_backward", TORCH_BOX(&linear_attention_backward));
}
