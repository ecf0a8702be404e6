// What the forward and the backward passes of the linear attention do with a tile of tokens.
// Unnamed namespace: see bfloat16.h.

#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>

#include "cpu/kernels/linear_attention.h"
#include "cpu/vectors/matrix.h"

namespace {

constexpr int64_t kTile = gsd::kAttentionTile;

// What is computed in float32 is a factor of products as it lies there, and no copy is made of it.
template <class P>
constexpr bool kInPlace = std::is_same_v<P, float>;

inline int64_t tile_tokens(int64_t left) { return left < kTile ? left : kTile; }
inline int64_t padded(int64_t channels) { return rounded_up(channels, gsd::kChannelMultiple); }

// Memory of a kernel's own, zero at first. Beyond its end lies what a product reads to fill its
// last step, and multiplies by zero. Throws std::bad_alloc.
template <class P>
struct Scratch {
    static constexpr std::align_val_t kAlignment{64};

    P* data;

    explicit Scratch(int64_t count) {
        const std::size_t bytes = static_cast<std::size_t>(count + kSumMultiple<P>) * sizeof(P);
        data = static_cast<P*>(::operator new(bytes, kAlignment));
        __builtin_memset(data, 0, bytes);
    }
    ~Scratch() { ::operator delete(data, kAlignment); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
};

// As precise as a result of type T can show.
template <class T>
inline Floats exp_for(Floats x) {
    if constexpr (sizeof(T) == 2) return power_of_two<4>(x * 1.44269504f);
    return exp_of(x);
}

// Sets the tokens of a tile to zero that lie behind the last.
inline void clear_behind(float* tile, int64_t row, int64_t count) {
    for (int64_t i = count * row; i < kTile * row; ++i) tile[i] = 0.0f;
}

// c (tile, columns) = start + a (tile, depth) times a packed matrix.
template <class P>
inline Product<P> by_packed(const P* a, int64_t a_row, int64_t depth, const P* packed,
                            int64_t columns, float* c, int64_t c_row, const float* start) {
    const int64_t sums = rounded_up(depth, kSumMultiple<P>);
    return {.rows = kTile,
            .vectors = rounded_up(columns, kFloats) / kFloats,
            .steps = sums / kPair<P>,
            .a = a,
            .a_row = a_row,
            .a_step = kPair<P>,
            .b = packed,
            .b_vector = sums * kFloats,
            .b_step = kPair<P> * kFloats,
            .c = c,
            .c_row = c_row,
            .start = start};
}

// The columns from `first` (a multiple of 16) of a packed matrix.
template <class P>
inline const P* packed_columns(const void* packed, int64_t depth, int64_t first) {
    return static_cast<const P*>(packed) + first * rounded_up(depth, kSumMultiple<P>);
}

// Tiles that are summed over tokens hold the tokens in pairs: those of element i of the even token
// t lie here, its neighbours' after them.
template <class P>
inline P* in_pairs(P* tile, int64_t row, int64_t t, int64_t i) {
    return tile + t * row + i * kPair<P>;
}

inline void store_pair(float* target, int64_t row, Floats even, Floats odd) {
    store(target, even);
    store(target + row, odd);
}

#if defined(__AVX512BF16__)
inline void store_pair(BFloat16* target, int64_t, Floats even, Floats odd) {
    alignas(64) static constexpr uint16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                        21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                        11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
    _mm512_storeu_si512(target, _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), halves));
}
#endif

// c (rows, columns) += a^T b over the tokens of two tiles in pairs, of some of their elements.
template <class P>
inline Product<P> over_tokens(const P* a, int64_t a_row, int64_t rows, const P* b, int64_t b_row,
                              int64_t columns, float* c, int64_t c_row) {
    return {.rows = rows,
            .vectors = rounded_up(columns, kFloats) / kFloats,
            .steps = kTile / kPair<P>,
            .a = a,
            .a_row = kPair<P>,
            .a_step = kPair<P> * a_row,
            .b = b,
            .b_vector = kPair<P> * kFloats,
            .b_step = kPair<P> * b_row,
            .c = c,
            .c_row = c_row,
            .start = nullptr};
}

// (x - mean) * rstd of a tile, row by row and, unless null, in pairs; rows are padded(channels)
// long, and zero from `count` on.
template <class T, class P>
inline void normalise(const gsd::AttentionRun& run, int64_t first, int64_t count, P* rows,
                      P* pairs) {
    const T* x = static_cast<const T*>(run.x) + first * run.channels;
    const int64_t channels = run.channels, row = padded(channels);
    const float mean = run.mean, rstd = run.rstd;
    for (int64_t t = 0; t < kTile; t += 2) {
        for_vectors(0, channels, [=](int64_t c, int64_t lanes) {
            const T* from = x + t * channels + c;
            const Floats even = t < count ? (load_lanes(from, lanes) - mean) * rstd : Floats{};
            const Floats odd =
                t + 1 < count ? (load_lanes(from + channels, lanes) - mean) * rstd : Floats{};
            store(rows + t * row + c, even);
            store(rows + (t + 1) * row + c, odd);
            if (pairs) store_pair(in_pairs(pairs, row, t, c), row, even, odd);
        });
    }
}

// The softmax of each head's features, in q and, where they are no float32, in `features`.
template <class T, class P>
inline void softmax_of(const gsd::AttentionRun& run, float* q, P* features) {
    const int64_t size = run.head_size;
    for (int64_t h = 0; h < run.heads; ++h, q += size, features += size) {
        Floats most = load(q);
        for (int64_t d = kFloats; d < size; d += kFloats) most = larger(most, load(q + d));
        const Floats largest = broadcast(most_of(most));
        Floats sum = {};
        for (int64_t d = 0; d < size; d += kFloats) {
            const Floats e = exp_for<T>(load(q + d) - largest);
            store(q + d, e);
            sum += e;
        }
        const Floats inverse = broadcast(1.0f / total_of(sum));
        for (int64_t d = 0; d < size; d += kFloats) {
            const Floats share = load(q + d) * inverse;
            store(q + d, share);
            if constexpr (!kInPlace<P>) store(features + d, share);
        }
    }
}

// What the passes over a tile begin with: its q, k and v, of which `columns` from `first` are made.
template <class P>
inline void project(const gsd::AttentionRun& run, const P* normed, int64_t first, int64_t columns,
                    float* result) {
    multiply(by_packed<P>(normed, padded(run.channels), run.channels,
                          packed_columns<P>(run.qkv, run.channels, first), columns, result, columns,
                          run.qkv_bias + first));
}

}  // namespace
