// Matrix products of the tiles that the attention works on, for each instruction set: sums of
// float32 products everywhere, and of bfloat16 pairs where there are instructions for them.
// Unnamed namespace: see bfloat16.h.

#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/vectors/factor_source.h"
#include "cpu/vectors/simd.h"
#include "cpu/vectors/tiles.h"

namespace {

#if defined(__AVX512BF16__)
// What a factor of a product holds where the tensors hold T.
template <class T>
using Factor = T;
constexpr int64_t kBlockRows = 8;
#elif defined(__AVX512F__)
template <class T>
using Factor = float;
constexpr int64_t kBlockRows = 8;
#else
template <class T>
using Factor = float;
constexpr int64_t kBlockRows = 6;
#endif
constexpr int64_t kBlockVectors = 2;

// Factors that one step of a sum takes: two bfloat16 values side by side, or one float32.
template <class P>
constexpr int64_t kPair = std::is_same_v<std::remove_const_t<P>, float> ? 1 : 2;

// Sums are padded to this many elements, which is what a row of an AMX tile holds.
template <class P>
constexpr int64_t kSumMultiple = std::is_same_v<P, float> ? 1 : 32;

inline int64_t rounded_up(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

// c = start + a b, with c of `rows` x `vectors` * kFloats, summed over `steps`. Strides count
// elements; those of a step are `kPair` elements of a, and kFloats times as many of b.
template <class P>
struct Product {
    int64_t rows;     // a multiple of 16
    int64_t vectors;  // columns, in vectors
    int64_t steps;    // for bfloat16 a multiple of 16
    const P* a;
    int64_t a_row, a_step;
    const P* b;
    int64_t b_vector, b_step;
    float* c;
    int64_t c_row;
    const float* start;  // (columns); null: what c holds
};

inline Floats multiply_add(Floats sum, const float* a, const float* b) {
    return *a * load(b) + sum;
}

#if defined(__AVX512BF16__)
inline Floats multiply_add(Floats sum, const BFloat16* a, const BFloat16* b) {
    int32_t pair;
    __builtin_memcpy(&pair, a, sizeof(pair));
    return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(pair),
                                    (__m512bh)_mm512_loadu_si512(b));
}
#endif

// Strides of a step that are known when this is compiled, which saves half of the instructions.
struct PackedSteps {};  // rows of a, and of b a packed matrix
struct TokenSteps {};   // of both, elements side by side
struct AnySteps {};

template <int64_t rows, int64_t vectors, class Steps, class P>
inline void multiply_block(const Product<P>& product, int64_t row, int64_t vector) {
    constexpr bool is_packed = std::is_same_v<Steps, PackedSteps>;
    constexpr bool side_by_side = std::is_same_v<Steps, TokenSteps>;
    const int64_t a_row = side_by_side ? kPair<P> : product.a_row;
    const int64_t a_step = is_packed ? kPair<P> : product.a_step;
    const int64_t b_vector = side_by_side ? kPair<P> * kFloats : product.b_vector;
    const int64_t b_step = is_packed ? kPair<P> * kFloats : product.b_step;
    const P* a = product.a + row * a_row;
    const P* b = product.b + vector * b_vector;
    float* c = product.c + row * product.c_row + vector * kFloats;
    Floats sums[rows][vectors];
#pragma GCC unroll 8
    for (int64_t r = 0; r < rows; ++r) {
#pragma GCC unroll 2
        for (int64_t v = 0; v < vectors; ++v) {
            sums[r][v] = product.start ? load(product.start + (vector + v) * kFloats)
                                       : load(c + r * product.c_row + v * kFloats);
        }
    }
#pragma GCC unroll 4
    for (int64_t step = product.steps; step > 0; --step, a += a_step, b += b_step) {
#pragma GCC unroll 8
        for (int64_t r = 0; r < rows; ++r) {
#pragma GCC unroll 2
            for (int64_t v = 0; v < vectors; ++v) {
                sums[r][v] = multiply_add(sums[r][v], a + r * a_row, b + v * b_vector);
            }
        }
    }
#pragma GCC unroll 8
    for (int64_t r = 0; r < rows; ++r) {
#pragma GCC unroll 2
        for (int64_t v = 0; v < vectors; ++v) {
            store(c + r * product.c_row + v * kFloats, sums[r][v]);
        }
    }
}

// Of all rows; what is left over is taken by 4 and by 2 at a time.
template <int64_t rows, int64_t vectors, class Steps, class P>
inline void multiply_rows(const Product<P>& product, int64_t row, int64_t vector) {
    for (; row + rows <= product.rows; row += rows) {
        multiply_block<rows, vectors, Steps>(product, row, vector);
    }
    if constexpr (kBlockRows % 4 && rows > 2) {
        if (row < product.rows) multiply_rows<rows - 2, vectors, Steps>(product, row, vector);
    }
}

template <class Steps, class P>
inline void multiply_by(const Product<P>& product) {
    int64_t vector = 0;
    for (; vector + kBlockVectors <= product.vectors; vector += kBlockVectors) {
        multiply_rows<kBlockRows, kBlockVectors, Steps>(product, 0, vector);
    }
    for (; vector < product.vectors; ++vector) {
        multiply_rows<kBlockRows, 1, Steps>(product, 0, vector);
    }
}

template <class P>
inline void multiply(const Product<P>& product) {
    if (product.a_step == kPair<P> && product.b_step == kPair<P> * kFloats) {
        multiply_by<PackedSteps>(product);
    } else if (product.a_row == kPair<P> && product.b_vector == kPair<P> * kFloats) {
        multiply_by<TokenSteps>(product);
    } else {
        multiply_by<AnySteps>(product);
    }
}

#if defined(GSD_TILES)
// Tiles of 16 rows; two of them side by side share what is read of a.
inline void multiply(const Product<BFloat16>& product) {
    const bool by_column = product.a_row == kPair<BFloat16>;  // a's rows lie side by side
    BFloat16 turned[kTileRows * kTileBytes / sizeof(BFloat16)];
    for (int64_t vector = 0; vector < product.vectors; vector += 2) {
        const bool two = vector + 1 < product.vectors;
        for (int64_t row = 0; row < product.rows; row += kTileRows) {
            float* c = product.c + row * product.c_row + vector * kFloats;
            const int64_t c_bytes = product.c_row * 4;
            const float* from = product.start ? product.start + vector * kFloats : c;
            const int64_t from_bytes = product.start ? 0 : c_bytes;
            load_tile(0, from, from_bytes);
            if (two) load_tile(1, from + kFloats, from_bytes);
            for (int64_t step = 0; step < product.steps; step += kTileRows) {
                const BFloat16* a = product.a + row * product.a_row + step * product.a_step;
                const BFloat16* b = product.b + vector * product.b_vector + step * product.b_step;
                if (by_column) {
                    turn_pairs(a, product.a_step, turned);
                    load_tile(2, turned, kTileBytes);
                } else {
                    load_tile(2, a, product.a_row * 2);
                }
                load_tile(3, b, product.b_step * 2);
                multiply_tiles(0, 2, 3);
                if (two) {
                    load_tile(4, b + product.b_vector, product.b_step * 2);
                    multiply_tiles(1, 2, 4);
                }
            }
            store_tile(0, c, c_bytes);
            if (two) store_tile(1, c + kFloats, c_bytes);
        }
    }
}
#endif

// Lays a matrix vector by vector of its columns, each with all of k, padded with zeros.
template <class P>
void pack(const gsd::FactorSource& source, P* packed) {
    const int64_t depth = rounded_up(source.depth, kSumMultiple<P>);
    for (int64_t first = 0; first < source.columns; first += kFloats) {
        for (int64_t k = 0; k < depth; ++k) {
            P* target = packed + first * depth + k / kPair<P> * kPair<P> * kFloats + k % kPair<P>;
            const float factor = k < source.depth && source.factors ? source.factors[k] : 1.0f;
            const float* from = source.data + k * source.k_stride + first * source.n_stride;
            for (int64_t n = 0; n < kFloats; ++n) {
                const bool inside = k < source.depth && first + n < source.columns;
                store(target + n * kPair<P>, inside ? from[n * source.n_stride] * factor : 0.0f);
            }
        }
    }
}

}  // namespace
