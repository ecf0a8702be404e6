// The forward passes of the linear attention, a tile of tokens after the other: normalise, multiply
// by the weights, take exponentials, and add up (first pass) or multiply again (second). Nothing
// larger than a tile is stored but the result. Unnamed namespace: bfloat16.h.

#include "cpu/kernels/linear_attention.h"

#include "cpu/kernels/attention_tile.h"

namespace {

using gsd::AttentionRun;

// The largest k so far, where there are larger ones in a tile; what was summed with the old one
// is brought to the new one.
void raise_maximum(const AttentionRun& run, const float* keys, int64_t count, bool first,
                   float* most, float* sums, float* by_x) {
    const int64_t hidden = run.heads * run.head_size, row = padded(run.channels);
    for (int64_t i = 0; i < hidden; i += kFloats) {
        Floats found = load(keys + i);
        for (int64_t t = 1; t < count; ++t) found = larger(found, load(keys + t * hidden + i));
        if (first) {
            store(most + i, found);
            continue;
        }
        const Floats before = load(most + i);
        const Floats now = larger(found, before);
        const Floats factor = exp_of(before - now);
        store(most + i, now);
        store(sums + i, load(sums + i) * factor);
        for (int64_t lane = 0; lane < kFloats; ++lane) {
            if (now[lane] == before[lane]) continue;
            float* of_key = by_x + (i + lane) * row;
            for (int64_t c = 0; c < row; ++c) of_key[c] *= factor[lane];
        }
    }
}

template <class T>
void keys_of(const AttentionRun& run, float* most, float* sums, float* by_x) {
    using P = Factor<T>;
    configure_tiles();
    const int64_t hidden = run.heads * run.head_size, row = padded(run.channels);
    Scratch<P> normed(kTile * row), normed_pairs(kInPlace<P> ? 0 : kTile * row);
    Scratch<P> exponentials(kInPlace<P> ? 0 : kTile * hidden);
    Scratch<float> keys(kTile * hidden);
    for (int64_t i = 0; i < hidden; ++i) sums[i] = 0.0f;
    for (int64_t i = 0; i < hidden * row; ++i) by_x[i] = 0.0f;
    const auto add_product = [&](const P* of_keys, const P* of_x) {
        multiply(over_tokens<P>(of_keys, hidden, hidden, of_x, row, run.channels, by_x, row));
    };
    for (int64_t first = 0; first < run.tokens; first += kTile) {
        const int64_t count = tile_tokens(run.tokens - first);
        normalise<T, P>(run, first, count, normed.data, kInPlace<P> ? nullptr : normed_pairs.data);
        project(run, normed.data, hidden, hidden, keys.data);
        raise_maximum(run, keys.data, count, first == 0, most, sums, by_x);
        for (int64_t i = 0; i < hidden; i += kFloats) {
            const Floats largest = load(most + i);
            Floats sum = load(sums + i);
            for (int64_t t = 0; t < kTile; t += 2) {
                float* k = keys.data + t * hidden + i;
                const Floats one = t < count ? exp_for<T>(load(k) - largest) : Floats{};
                const Floats two =
                    t + 1 < count ? exp_for<T>(load(k + hidden) - largest) : Floats{};
                sum += one + two;
                if constexpr (kInPlace<P>) {
                    store_pair(k, hidden, one, two);
                } else {
                    store_pair(in_pairs(exponentials.data, hidden, t, i), hidden, one, two);
                }
            }
            store(sums + i, sum);
        }
        if constexpr (kInPlace<P>) {
            add_product(keys.data, normed.data);
        } else {
            add_product(exponentials.data, normed_pairs.data);
        }
    }
}

template <class T>
void output_of(const AttentionRun& run) {
    using P = Factor<T>;
    configure_tiles();
    const int64_t hidden = run.heads * run.head_size, row = padded(run.channels);
    Scratch<P> normed(kTile * row), features(kInPlace<P> ? 0 : kTile * hidden);
    Scratch<float> q(kTile * hidden), o(kTile * row);
    const P* features_read = features.data;
    if constexpr (kInPlace<P>) features_read = q.data;
    for (int64_t first = 0; first < run.tokens; first += kTile) {
        const int64_t count = tile_tokens(run.tokens - first);
        normalise<T, P>(run, first, count, normed.data, nullptr);
        project(run, normed.data, 0, hidden, q.data);
        for (int64_t t = 0; t < count; ++t) {
            softmax_of<T>(run, q.data + t * hidden, features.data + (kInPlace<P> ? 0 : t * hidden));
        }
        multiply(by_packed<P>(features_read, hidden, hidden,
                              packed_columns<P>(run.folded, hidden, 0), run.channels, o.data, row,
                              run.out_bias));
        T* result = static_cast<T*>(run.result) + first * run.channels;
        for (int64_t t = 0; t < count; ++t) {
            for_vectors(0, run.channels, [&](int64_t c, int64_t lanes) {
                store_lanes(result + t * run.channels + c, lanes, load(o.data + t * row + c));
            });
        }
    }
}

template <class T>
void finish(const AttentionRun& run) {
    const float *scale = run.scale, *offset = run.offset;
    const int64_t channels = run.channels;
    for (int64_t t = 0; t < run.tokens; ++t) {
        const T* x = static_cast<const T*>(run.x) + t * channels;
        T* y = static_cast<T*>(run.result) + t * channels;
        for_vectors(0, channels, [=](int64_t c, int64_t lanes) {
            const Floats normed = load_lanes(y + c, lanes) * load_lanes(scale + c, lanes) +
                                  load_lanes(offset + c, lanes);
            store_lanes(y + c, lanes, normed + load_lanes(x + c, lanes));
        });
    }
}

bool half(const AttentionRun& run) { return run.element == gsd::Element::bfloat16; }

}  // namespace

void gsd::GSD_ISA::pack_factor(gsd::Element element, const gsd::FactorSource& source,
                               void* packed) {
    if (element == gsd::Element::bfloat16) {
        pack(source, static_cast<Factor<BFloat16>*>(packed));
    } else {
        pack(source, static_cast<float*>(packed));
    }
}

void gsd::GSD_ISA::attention_keys(const AttentionRun& run, float* most, float* sums, float* by_x) {
    half(run) ? keys_of<BFloat16>(run, most, sums, by_x) : keys_of<float>(run, most, sums, by_x);
}

void gsd::GSD_ISA::attention_output(const AttentionRun& run) {
    half(run) ? output_of<BFloat16>(run) : output_of<float>(run);
}

void gsd::GSD_ISA::attention_finish(const AttentionRun& run) {
    half(run) ? finish<BFloat16>(run) : finish<float>(run);
}
