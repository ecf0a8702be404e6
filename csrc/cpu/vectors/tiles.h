// The tile registers of AMX: 16 rows of 64 bytes, which are 16 float32 sums or 16 pairs of
// bfloat16. GSD_EMULATED_TILES replaces them by memory, so that what is written for them can be
// tested on machines without. Unnamed namespace: see bfloat16.h.

#pragma once

#include <cstdint>

#include "cpu/vectors/simd.h"

#if defined(__AMX_BF16__) || defined(GSD_EMULATED_TILES)
#define GSD_TILES 1

namespace {

constexpr int64_t kTileRows = 16, kTileBytes = 64;

#if defined(GSD_EMULATED_TILES)

struct Tile {
    unsigned char bytes[kTileRows][kTileBytes];
};
thread_local Tile emulated_tiles[8];

inline void configure_tiles() {}

inline void load_tile(int tile, const void* source, int64_t stride) {
    for (int64_t row = 0; row < kTileRows; ++row) {
        __builtin_memcpy(emulated_tiles[tile].bytes[row],
                         static_cast<const char*>(source) + row * stride, kTileBytes);
    }
}

inline void store_tile(int tile, void* target, int64_t stride) {
    for (int64_t row = 0; row < kTileRows; ++row) {
        __builtin_memcpy(static_cast<char*>(target) + row * stride, emulated_tiles[tile].bytes[row],
                         kTileBytes);
    }
}

inline void multiply_tiles(int sums, int a, int b) {
    float c[kTileRows][16];
    BFloat16 left[kTileRows][32], right[16][32];
    __builtin_memcpy(c, emulated_tiles[sums].bytes, sizeof(c));
    __builtin_memcpy(left, emulated_tiles[a].bytes, sizeof(left));
    __builtin_memcpy(right, emulated_tiles[b].bytes, sizeof(right));
    for (int64_t row = 0; row < kTileRows; ++row) {
        for (int64_t k = 0; k < 32; ++k) {
            for (int64_t n = 0; n < 16; ++n) {
                c[row][n] += to_float(left[row][k]) * to_float(right[k / 2][2 * n + k % 2]);
            }
        }
    }
    __builtin_memcpy(emulated_tiles[sums].bytes, c, sizeof(c));
}

#else

// Other libraries configure the tiles as they need them: to be called where a kernel begins.
inline void configure_tiles() {
    struct {
        uint8_t palette = 1, first_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {};
        uint8_t rows[16] = {};
    } configuration;
    for (int tile = 0; tile < 8; ++tile) {
        configuration.row_bytes[tile] = kTileBytes;
        configuration.rows[tile] = kTileRows;
    }
    _tile_loadconfig(&configuration);
}

// Macros, because a tile is part of the instruction's name.
#define load_tile(tile, source, stride) _tile_loadd(tile, source, stride)
#define store_tile(tile, target, stride) _tile_stored(tile, target, stride)
#define multiply_tiles(sums, a, b) _tile_dpbf16ps(sums, a, b)

#endif

// 16 x 16 pairs with rows for columns; source's rows are `row` elements apart.
inline void turn_pairs(const BFloat16* source, int64_t row, BFloat16* target) {
    __m512i r[16], t[16];
    for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(source + i * row);
    for (int i = 0; i < 8; ++i) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; ++i) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xDD);
        t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xDD);
    }
    for (int i = 0; i < 4; ++i) {
        _mm512_storeu_si512(target + 32 * i, _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88));
        _mm512_storeu_si512(target + 32 * (4 + i), _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88));
        _mm512_storeu_si512(target + 32 * (8 + i), _mm512_shuffle_i32x4(t[i], t[8 + i], 0xDD));
        _mm512_storeu_si512(target + 32 * (12 + i),
                            _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xDD));
    }
}

}  // namespace

#else

namespace {
inline void configure_tiles() {}
}  // namespace

#endif
