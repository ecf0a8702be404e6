// The backward passes of the linear attention. They compute q and k again, tile by tile, and leave
// the gradients of everything that is small to what is done between the passes: those follow from
// sums over the tokens. Unnamed namespace: bfloat16.h.

#include "cpu/kernels/attention_tile.h"

namespace {

using gsd::AttentionGradientRun;
using gsd::AttentionRun;

template <class T>
const T* token(const void* tokens, int64_t index, int64_t channels) {
    return static_cast<const T*>(tokens) + index * channels;
}

// Adds the tokens of a tile to sums, and lays them in pairs where a product needs a copy.
template <class P>
void sum_pairs(const float* tile, int64_t row, P* pairs, float* sums) {
    for (int64_t i = 0; i < row; i += kFloats) {
        Floats sum = load(sums + i);
        for (int64_t t = 0; t < kTile; t += 2) {
            const Floats even = load(tile + t * row + i), odd = load(tile + (t + 1) * row + i);
            sum += even + odd;
            if constexpr (!kInPlace<P>) store_pair(in_pairs(pairs, row, t, i), row, even, odd);
        }
        store(sums + i, sum);
    }
}

template <class T>
void sums_of(const AttentionGradientRun& gradient, float* q_by_y, float* q_by_q, float* q_sums,
             float* y_sums) {
    using P = Factor<T>;
    configure_tiles();
    const AttentionRun& run = gradient.forward;
    const int64_t channels = run.channels, row = padded(channels);
    const int64_t hidden = run.heads * run.head_size;
    const int64_t copied = kInPlace<P> ? 0 : kTile * hidden;
    Scratch<P> normed(kTile * row), features(copied), q_copy(copied), y_pairs(kTile * row);
    Scratch<float> q(kTile * hidden);
    const P* q_pairs = q_copy.data;
    if constexpr (kInPlace<P>) q_pairs = q.data;
    for (int64_t i = 0; i < hidden * row; ++i) q_by_y[i] = 0.0f;
    for (int64_t i = 0; i < hidden * hidden; ++i) q_by_q[i] = 0.0f;
    for (int64_t i = 0; i < hidden; ++i) q_sums[i] = 0.0f;
    for (int64_t i = 0; i < channels; ++i) y_sums[i] = 0.0f;
    for (int64_t first = 0; first < run.tokens; first += kTile) {
        const int64_t count = tile_tokens(run.tokens - first);
        normalise<T, P>(run, first, count, normed.data, nullptr);
        project(run, normed.data, 0, hidden, q.data);
        for (int64_t t = 0; t < count; ++t) {
            softmax_of<T>(run, q.data + t * hidden, features.data + (kInPlace<P> ? 0 : t * hidden));
        }
        clear_behind(q.data, hidden, count);
        sum_pairs(q.data, hidden, q_copy.data, q_sums);
        for_vectors(0, channels, [&](int64_t c, int64_t lanes) {
            Floats sum = load_lanes(y_sums + c, lanes);
            for (int64_t t = 0; t < kTile; t += 2) {
                const T* from = token<T>(gradient.grad_y, first + t, channels) + c;
                const Floats even = t < count ? load_lanes(from, lanes) : Floats{};
                const Floats odd = t + 1 < count ? load_lanes(from + channels, lanes) : Floats{};
                sum += even + odd;
                store_pair(in_pairs(y_pairs.data, row, t, c), row, even, odd);
            }
            store_lanes(y_sums + c, lanes, sum);
        });
        multiply(over_tokens<P>(q_pairs, hidden, hidden, y_pairs.data, row, channels, q_by_y, row));
        for (int64_t i = 0; i < hidden; i += 16) {
            multiply(over_tokens<P>(in_pairs(q_pairs, hidden, 0, i), hidden, 16, q_pairs, hidden,
                                    i + 16, q_by_q + i * hidden, hidden));
        }
    }
}

// Some elements of the tokens of a tile.
template <class P>
struct Factors {
    const P* data;
    int64_t row;
};

// Where the gradient in q and k of a tile is made: the memory of one run.
template <class P>
struct GradientTile {
    int64_t row, hidden;
    Scratch<P> normed, grad_o;
    Scratch<float> qk, centred, gradients, grad_normed, none;
    // Copies, where there have to be some.
    Scratch<P> normed_pairs, features, rounded, pairs;

    explicit GradientTile(const AttentionRun& run)
        : row(padded(run.channels)),
          hidden(run.heads * run.head_size),
          normed(kTile * row),
          grad_o(kTile * row),
          qk(kTile * 2 * hidden),
          centred(kTile * row),
          gradients(kTile * 3 * hidden),
          grad_normed(kTile * row),
          none(row > hidden ? row : hidden),
          normed_pairs(copied(row)),
          features(copied(hidden)),
          rounded(copied(3 * hidden)),
          pairs(copied(3 * hidden)) {}

    Factors<P> q_read() const { return read(qk, 2 * hidden, features, hidden); }
    Factors<P> gradients_read() const { return read(gradients, 3 * hidden, rounded, 3 * hidden); }
    // In pairs of tokens.
    Factors<P> gradient_pairs() const { return read(gradients, 3 * hidden, pairs, 3 * hidden); }
    Factors<P> normed_over_tokens() const {
        return {kInPlace<P> ? normed.data : normed_pairs.data, row};
    }

  private:
    static int64_t copied(int64_t elements) { return kInPlace<P> ? 0 : kTile * elements; }
    static Factors<P> read(const Scratch<float>& exact, int64_t exact_row, const Scratch<P>& copy,
                           int64_t copy_row) {
        if constexpr (kInPlace<P>) {
            return {exact.data, exact_row};
        } else {
            return {copy.data, copy_row};
        }
    }
};

// q and k after their softmax.
template <class T, class P>
void attend(const AttentionGradientRun& gradient, int64_t count, GradientTile<P>& tile) {
    const AttentionRun& run = gradient.forward;
    const int64_t hidden = tile.hidden;
    project(run, tile.normed.data, 0, 2 * hidden, tile.qk.data);
    for (int64_t t = 0; t < count; ++t) {
        float* q = tile.qk.data + t * 2 * hidden;
        softmax_of<T>(run, q, tile.features.data + (kInPlace<P> ? 0 : t * hidden));
        for (int64_t i = 0; i < hidden; i += kFloats) {
            float* k = q + hidden + i;
            store(k, exp_for<T>(load(k) - load(gradient.k_lse + i)));
        }
    }
}

// The gradient in what the output convolution gives, as a factor.
template <class T, class P>
void through_output_norm(const AttentionGradientRun& gradient, int64_t first, int64_t count,
                         GradientTile<P>& tile) {
    const AttentionRun& run = gradient.forward;
    const float constant = gradient.constant, per_centred = gradient.per_centred;
    const Factors<P> q = tile.q_read();
    multiply(by_packed<P>(q.data, q.row, tile.hidden, static_cast<const P*>(run.folded),
                          run.channels, tile.centred.data, tile.row, tile.none.data));
    for (int64_t t = 0; t < count; ++t) {
        const T* grad_y = token<T>(gradient.grad_y, first + t, run.channels);
        for_vectors(0, run.channels, [&](int64_t c, int64_t lanes) {
            const Floats centred = load(tile.centred.data + t * tile.row + c);
            const Floats scaled =
                load_lanes(grad_y + c, lanes) * load_lanes(gradient.per_y + c, lanes);
            store(tile.grad_o.data + t * tile.row + c, scaled + constant + centred * per_centred);
        });
    }
}

// The gradients in q and k, and k, which that in v is made of, and their sums; zero from `count`
// on.
template <class P>
void through_attention(const AttentionGradientRun& gradient, int64_t count, GradientTile<P>& tile,
                       float* sums) {
    const AttentionRun& run = gradient.forward;
    const int64_t hidden = tile.hidden, size = run.head_size, row = 3 * hidden;
    float* gradients = tile.gradients.data;
    multiply(by_packed<P>(tile.grad_o.data, tile.row, run.channels,
                          static_cast<const P*>(gradient.turned), hidden, gradients, row,
                          tile.none.data));
    multiply(by_packed<P>(tile.normed.data, tile.row, run.channels,
                          static_cast<const P*>(gradient.into_keys), hidden, gradients + hidden,
                          row, gradient.keys_start));
    for (int64_t t = 0; t < count; ++t) {
        const float *q = tile.qk.data + t * 2 * hidden, *k = q + hidden;
        float *in_q = gradients + t * row, *in_k = in_q + hidden, *of_v = in_k + hidden;
        for (int64_t first = 0; first < hidden; first += size) {
            Floats sum = {};
            for (int64_t i = first; i < first + size; i += kFloats) {
                sum += load(q + i) * load(in_q + i);
            }
            const Floats mean = broadcast(total_of(sum));
            for (int64_t i = first; i < first + size; i += kFloats) {
                store(in_q + i, load(q + i) * (load(in_q + i) - mean));
                store(in_k + i, load(k + i) * load(in_k + i));
                store(of_v + i, load(k + i));
            }
        }
    }
    clear_behind(gradients, row, count);
    sum_pairs(gradients, row, tile.pairs.data, sums);
    if constexpr (!kInPlace<P>) {
        for (int64_t i = 0; i < kTile * row; i += kFloats) {
            store(tile.rounded.data + i, load(gradients + i));
        }
    }
}

template <class T>
void gradient_of(const AttentionGradientRun& gradient, float* by_x, float* sums) {
    using P = Factor<T>;
    configure_tiles();
    const AttentionRun& run = gradient.forward;
    const int64_t channels = run.channels;
    GradientTile<P> tile(run);
    for (int64_t i = 0; i < 3 * tile.hidden * tile.row; ++i) by_x[i] = 0.0f;
    for (int64_t i = 0; i < 3 * tile.hidden; ++i) sums[i] = 0.0f;
    for (int64_t first = 0; first < run.tokens; first += kTile) {
        const int64_t count = tile_tokens(run.tokens - first);
        normalise<T, P>(run, first, count, tile.normed.data,
                        kInPlace<P> ? nullptr : tile.normed_pairs.data);
        attend<T>(gradient, count, tile);
        through_output_norm<T>(gradient, first, count, tile);
        through_attention(gradient, count, tile, sums);
        const Factors<P> pairs = tile.gradient_pairs(), normed = tile.normed_over_tokens();
        multiply(over_tokens<P>(pairs.data, pairs.row, 3 * tile.hidden, normed.data, normed.row,
                                channels, by_x, tile.row));
        const Factors<P> rows = tile.gradients_read();
        multiply(by_packed<P>(rows.data, rows.row, 3 * tile.hidden,
                              static_cast<const P*>(gradient.into_x), channels,
                              tile.grad_normed.data, tile.row, tile.none.data));
        for (int64_t t = 0; t < count; ++t) {
            const T* grad_y = token<T>(gradient.grad_y, first + t, channels);
            T* result = static_cast<T*>(run.result) + (first + t) * channels;
            for_vectors(0, channels, [&](int64_t c, int64_t lanes) {
                const Floats grad = load(tile.grad_normed.data + t * tile.row + c);
                store_lanes(
                    result + c, lanes,
                    load_lanes(grad_y + c, lanes) + grad * load_lanes(gradient.gain + c, lanes));
            });
        }
    }
}

template <class T>
void finish(const AttentionGradientRun& gradient) {
    const AttentionRun& run = gradient.forward;
    const float mean = run.mean, per_x = gradient.per_x, constant = gradient.x_constant;
    const T* x = static_cast<const T*>(run.x);
    T* result = static_cast<T*>(run.result);
    for_vectors(0, run.tokens * run.channels, [=](int64_t i, int64_t lanes) {
        const Floats normed = (load_lanes(x + i, lanes) - mean) * per_x + constant;
        store_lanes(result + i, lanes, load_lanes(result + i, lanes) + normed);
    });
}

bool half(const AttentionGradientRun& run) { return run.forward.element == gsd::Element::bfloat16; }

}  // namespace

void gsd::GSD_ISA::attention_gradient_sums(const AttentionGradientRun& run, float* q_by_y,
                                           float* q_by_q, float* q, float* y) {
    half(run) ? sums_of<BFloat16>(run, q_by_y, q_by_q, q, y)
              : sums_of<float>(run, q_by_y, q_by_q, q, y);
}

void gsd::GSD_ISA::attention_gradient(const AttentionGradientRun& run, float* by_x, float* sums) {
    half(run) ? gradient_of<BFloat16>(run, by_x, sums) : gradient_of<float>(run, by_x, sums);
}

void gsd::GSD_ISA::attention_gradient_finish(const AttentionGradientRun& run) {
    half(run) ? finish<BFloat16>(run) : finish<float>(run);
}
