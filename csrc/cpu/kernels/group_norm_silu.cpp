// GroupNorm, SiLU and what the residual block adds, token by token; vectors run along the channels.
// Sums keep several vectors of channels in registers while they walk over the tokens, and are
// added up in two stages, so that long runs do not lose precision. Unnamed namespace: bfloat16.h.

#include "cpu/kernels/group_norm_silu.h"

#include <cstdint>

#include "cpu/vectors/simd.h"

namespace {

using gsd::NormRun;

constexpr int64_t kVectors = 4;   // of channels at a time
constexpr int64_t kFlush = 64;    // tokens that are added up in the first stage
constexpr int64_t kSampled = 16;  // tokens from which a value near the mean is taken

template <class T>
const T* token(const void* first, int64_t index, int64_t channels) {
    return static_cast<const T*>(first) + index * channels;
}

// Adds up `count` quantities of each channel: each(t, c, lanes, sums) adds those of token t and of
// the channels from c to sums[0..count).
template <int count, class Each>
inline void sum_tokens(int64_t tokens, int64_t channels, float* const (&totals)[count],
                       const Each& each) {
    int64_t c = 0;
    const auto block = [&](auto vectors_constant, int64_t lanes) {
        constexpr int64_t vectors = decltype(vectors_constant)::value;
        Floats total[vectors][count] = {};
        for (int64_t begin = 0; begin < tokens; begin += kFlush) {
            const int64_t end = tokens - begin < kFlush ? tokens : begin + kFlush;
            Floats part[vectors][count] = {};
            for (int64_t t = begin; t < end; ++t) {
                for (int64_t v = 0; v < vectors; ++v) each(t, c + v * kFloats, lanes, part[v]);
            }
            for (int64_t v = 0; v < vectors; ++v) {
                for (int i = 0; i < count; ++i) total[v][i] += part[v][i];
            }
        }
        for (int64_t v = 0; v < vectors; ++v) {
            for (int i = 0; i < count; ++i) {
                store_lanes(totals[i] + c + v * kFloats, lanes, total[v][i]);
            }
        }
        c += vectors * lanes;
    };
    while (c + kVectors * kFloats <= channels) block(Count<kVectors>{}, kFloats);
    while (c + kFloats <= channels) block(Count<1>{}, kFloats);
    if (c < channels) block(Count<1>{}, channels - c);
}

template <class T>
void sums_of(const NormRun& run, float* near, float* sums, float* squares) {
    const int64_t sampled = run.tokens < kSampled ? run.tokens : kSampled;
    for_vectors(0, run.channels, [&](int64_t c, int64_t lanes) {
        Floats sum = {};
        for (int64_t t = 0; t < sampled; ++t) {
            sum += load_lanes(token<T>(run.x, t, run.channels) + c, lanes);
        }
        store_lanes(near + c, lanes, sum * (1.0f / static_cast<float>(sampled)));
    });
    sum_tokens<2>(run.tokens, run.channels, {sums, squares},
                  [&](int64_t t, int64_t c, int64_t lanes, Floats* part) {
                      const Floats x = load_lanes(token<T>(run.x, t, run.channels) + c, lanes);
                      const Floats d = x - load_lanes(near + c, lanes);
                      part[0] += d;
                      part[1] += d * d;
                  });
}

// As precise as a result of type T can show.
inline Floats sigmoid_for(float, Floats z) { return sigmoid_of(z); }
inline Floats sigmoid_for(BFloat16, Floats z) { return sigmoid_of<4>(z); }

template <class T, bool has_shift, bool has_residual>
void apply(const NormRun& run) {
    // Copies: for all that the compiler knows, what is written could change the originals.
    const float *scale = run.scale, *offset = run.offset, *shift = run.shift;
    const int64_t channels = run.channels;
    for (int64_t t = 0; t < run.tokens; ++t) {
        const T* x = token<T>(run.x, t, channels);
        const T* residual = token<T>(run.residual, t, channels);
        T* y = static_cast<T*>(run.result) + t * channels;
        for_vectors(0, channels, [=](int64_t c, int64_t lanes) {
            const Floats z = load_lanes(x + c, lanes) * load_lanes(scale + c, lanes) +
                             load_lanes(offset + c, lanes);
            Floats result = z * sigmoid_for(T{}, z);
            if constexpr (has_shift) result += load_lanes(shift + c, lanes);
            if constexpr (has_residual) result += load_lanes(residual + c, lanes);
            store_lanes(y + c, lanes, result);
        });
    }
}

// grad_z of grad_y, z and its sigmoid.
inline Floats through_silu(Floats grad_y, Floats z, Floats s) {
    return grad_y * (s + z * s * (1.0f - s));
}

template <class T>
void gradient_sums(const NormRun& run, float* by_z, float* by_centred, float* by_y) {
    sum_tokens<3>(run.tokens, run.channels, {by_z, by_centred, by_y},
                  [&](int64_t t, int64_t c, int64_t lanes, Floats* part) {
                      const Floats x = load_lanes(token<T>(run.x, t, run.channels) + c, lanes);
                      const Floats g = load_lanes(token<T>(run.grad_y, t, run.channels) + c, lanes);
                      const Floats z =
                          x * load_lanes(run.scale + c, lanes) + load_lanes(run.offset + c, lanes);
                      const Floats grad_z = through_silu(g, z, sigmoid_for(T{}, z));
                      part[0] += grad_z;
                      part[1] += grad_z * (x - load_lanes(run.mean + c, lanes));
                      part[2] += g;
                  });
}

template <class T>
void gradient(const NormRun& run) {
    const float *scale = run.scale, *offset = run.offset, *mean = run.mean;
    const float *per_z = run.per_z, *per_centred = run.per_centred, *constant = run.constant;
    const int64_t channels = run.channels;
    for (int64_t t = 0; t < run.tokens; ++t) {
        const T* from = token<T>(run.x, t, channels);
        const T* grad_y = token<T>(run.grad_y, t, channels);
        T* grad_x = static_cast<T*>(run.result) + t * channels;
        for_vectors(0, channels, [=](int64_t c, int64_t lanes) {
            const Floats x = load_lanes(from + c, lanes);
            const Floats z = x * load_lanes(scale + c, lanes) + load_lanes(offset + c, lanes);
            const Floats grad_z =
                through_silu(load_lanes(grad_y + c, lanes), z, sigmoid_for(T{}, z));
            const Floats centred = x - load_lanes(mean + c, lanes);
            store_lanes(grad_x + c, lanes,
                        grad_z * load_lanes(per_z + c, lanes) +
                            (centred * load_lanes(per_centred + c, lanes) +
                             load_lanes(constant + c, lanes)));
        });
    }
}

template <class T>
void apply_any(const NormRun& run) {
    if (run.shift) {
        run.residual ? apply<T, true, true>(run) : apply<T, true, false>(run);
    } else {
        run.residual ? apply<T, false, true>(run) : apply<T, false, false>(run);
    }
}

bool half(const NormRun& run) { return run.element == gsd::Element::bfloat16; }

}  // namespace

void gsd::GSD_ISA::channel_sums(const NormRun& run, float* near, float* sums, float* squares) {
    half(run) ? sums_of<BFloat16>(run, near, sums, squares)
              : sums_of<float>(run, near, sums, squares);
}

void gsd::GSD_ISA::group_norm_silu(const NormRun& run) {
    half(run) ? apply_any<BFloat16>(run) : apply_any<float>(run);
}

void gsd::GSD_ISA::group_norm_silu_sums(const NormRun& run, float* by_z, float* by_centred,
                                        float* by_y) {
    half(run) ? gradient_sums<BFloat16>(run, by_z, by_centred, by_y)
              : gradient_sums<float>(run, by_z, by_centred, by_y);
}

void gsd::GSD_ISA::group_norm_silu_gradient(const NormRun& run) {
    half(run) ? gradient<BFloat16>(run) : gradient<float>(run);
}
