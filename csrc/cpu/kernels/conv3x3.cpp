// Winograd's convolution (Lavin and Gray, 2015) for tiles of 4x4 at the points 0, +-sqrt(1/2),
// +-sqrt(2) and infinity, which halve the error of the textbook's 0, +-1, +-2. Everything between
// reading and writing is float32. Each tile is computed by itself, by the same operations wherever
// it lies and whatever is computed beside it. Unnamed namespace: see bfloat16.h.

#include "cpu/kernels/conv3x3.h"

#include <cstdint>

#include "cpu/vectors/simd.h"

namespace {

using gsd::ConvScratch;
using gsd::ConvTiles;
using gsd::ConvWeights;
using gsd::kChannelBlock;
using gsd::kPatchSide;
using gsd::kProducts;
using gsd::kTileSide;

constexpr float kNear = 0.70710678f, kFar = 1.41421356f;  // the points, beside 0
constexpr float kNear2 = kNear * kNear, kFar2 = kFar * kFar;
constexpr int64_t kVectors = kChannelBlock / kFloats;  // of a block of channels

// Sums in registers: tiles times vectors of channels.
#if defined(__AVX512F__)
constexpr int64_t kMostVectors = 3;
constexpr int64_t kRows = 12, kRowsOfMost = 8, kGradientRows = 8;
#elif defined(__AVX2__)
constexpr int64_t kMostVectors = 2;
constexpr int64_t kRows = 6, kRowsOfMost = 6, kGradientRows = 4;
#else
constexpr int64_t kMostVectors = 4;
constexpr int64_t kRows = 2, kRowsOfMost = 2, kGradientRows = 2;
#endif
// Channels of the input that are summed at once, so that their weights stay in the first cache.
constexpr int64_t kDepth = 128;

// G: its rows are the powers of a point over the product of its distances from the others; the last
// is that of infinity.
struct Factors {
    double at[kPatchSide][3];
};

constexpr Factors kFactors = [] {
    constexpr double near = 0.70710678118654752, far = 1.4142135623730950;
    constexpr double points[kPatchSide - 1] = {0.0, near, -near, far, -far};
    Factors result = {};
    for (int64_t row = 0; row < kPatchSide - 1; ++row) {
        double value = 1.0;
        for (int64_t other = 0; other < kPatchSide - 1; ++other) {
            if (other != row) value /= points[row] - points[other];
        }
        for (int64_t power = 0; power < 3; ++power, value *= points[row]) {
            result.at[row][power] = value;
        }
    }
    result.at[kPatchSide - 1][2] = 1.0;
    return result;
}();

// 6 values to the 6 that are multiplied.
inline void transform_values(const Floats* d, Floats* to) {
    const Floats e = d[4] - kFar2 * d[2], f = kNear * (d[3] - kFar2 * d[1]);
    const Floats g = d[4] - kNear2 * d[2], h = kFar * (d[3] - kNear2 * d[1]);
    to[0] = kNear2 * kFar2 * d[0] + (d[4] - (kNear2 + kFar2) * d[2]);
    to[1] = e + f;
    to[2] = e - f;
    to[3] = g + h;
    to[4] = g - h;
    to[5] = kNear2 * kFar2 * d[1] + (d[5] - (kNear2 + kFar2) * d[3]);
}

// 6 products to 4 results.
inline void transform_products(const Floats* m, Floats* to) {
    const Floats s = m[1] + m[2], d = kNear * (m[1] - m[2]);
    const Floats t = m[3] + m[4], e = kFar * (m[3] - m[4]);
    to[0] = m[0] + (s + t);
    to[1] = d + e;
    to[2] = kNear2 * s + kFar2 * t;
    to[3] = m[5] + (kNear2 * d + kFar2 * e);
}

// 4 gradients of results to 6: the transpose of transform_products. The scale of G is left to
// conv3x3_unpack.
inline void transform_gradients(const Floats* g, Floats* to) {
    const Floats e = g[0] + kNear2 * g[2], f = kNear * (g[1] + kNear2 * g[3]);
    const Floats h = g[0] + kFar2 * g[2], i = kFar * (g[1] + kFar2 * g[3]);
    to[0] = g[0];
    to[1] = e + f;
    to[2] = e - f;
    to[3] = h + i;
    to[4] = h - i;
    to[5] = g[3];
}

// A square of pixels: where it begins, and elements between rows and between pixels.
template <class T>
struct Square {
    const T* data;
    int64_t row, pixel;
};

// Where a tile of an image lies.
struct Place {
    int64_t image, y, x;
};

inline Place place_of(const ConvTiles& tiles, int64_t number) {
    const int64_t across = (tiles.width + kTileSide - 1) / kTileSide;
    const int64_t per_image = (tiles.height + kTileSide - 1) / kTileSide * across;
    const int64_t here = number % per_image;
    return {number / per_image, here / across * kTileSide, here % across * kTileSide};
}

// Transforms `lanes` channels of a square of `side` pixels into the 36 products' factors.
template <int64_t side, bool whole, class T, class Transform>
inline void transform_square(const Square<T>& from, int64_t lanes, float* to, int64_t product,
                             const Transform& transform) {
    Floats columns[kPatchSide][side];
#pragma GCC unroll 1
    for (int64_t x = 0; x < side; ++x) {
        Floats values[side], column[kPatchSide];
#pragma GCC unroll 6
        for (int64_t y = 0; y < side; ++y) {
            const T* pixel = from.data + y * from.row + x * from.pixel;
            values[y] = whole ? load(pixel) : load_lanes(pixel, lanes);
        }
        transform(values, column);
#pragma GCC unroll 6
        for (int64_t i = 0; i < kPatchSide; ++i) columns[i][x] = column[i];
    }
#pragma GCC unroll 1
    for (int64_t i = 0; i < kPatchSide; ++i) {
        Floats row[kPatchSide];
        transform(columns[i], row);
#pragma GCC unroll 6
        for (int64_t j = 0; j < kPatchSide; ++j) store(to + (i * kPatchSide + j) * product, row[j]);
    }
}

// Transforms tiles; a square of `side` pixels begins `margin` pixels before its tile. What lies
// outside of the image is zero.
template <int64_t side, int64_t margin, class T, class Transform>
void read_tiles(const ConvTiles& tiles, const void* values, int64_t begin, int64_t end,
                const ConvScratch& scratch, const Transform& transform) {
    const int64_t channels = tiles.channels;
    const T* images = static_cast<const T*>(values);
    T part[side * side * kFloats];
    for (int64_t t = begin; t < end; ++t) {
        const Place place = place_of(tiles, tiles.first + t);
        const int64_t y0 = place.y - margin, x0 = place.x - margin;
        const bool inside =
            y0 >= 0 && x0 >= 0 && y0 + side <= tiles.height && x0 + side <= tiles.width;
        const Square<T> square = {
            images + ((place.image * tiles.height + y0) * tiles.width + x0) * channels,
            tiles.width * channels, channels};
        float* to = scratch.data + t * kChannelBlock;
        for (int64_t c = 0; c < channels; c += kFloats) {
            float* target =
                to + c / kChannelBlock * kChannelBlock * scratch.places + c % kChannelBlock;
            const int64_t lanes = channels - c < kFloats ? channels - c : kFloats;
            if (!inside) {
                for (int64_t i = 0; i < side * side; ++i) {
                    const int64_t y = i / side, x = i % side;
                    const bool there =
                        y0 + y >= 0 && y0 + y < tiles.height && x0 + x >= 0 && x0 + x < tiles.width;
                    const T* pixel = square.data + y * square.row + x * square.pixel + c;
                    store(part + i * kFloats, there ? load_lanes(pixel, lanes) : Floats{});
                }
                transform_square<side, true>(Square<T>{part, side * kFloats, kFloats}, kFloats,
                                             target, scratch.product, transform);
            } else if (lanes == kFloats) {
                transform_square<side, true>(Square<T>{square.data + c, square.row, square.pixel},
                                             kFloats, target, scratch.product, transform);
            } else {
                transform_square<side, false>(Square<T>{square.data + c, square.row, square.pixel},
                                              lanes, target, scratch.product, transform);
            }
        }
        for (int64_t c = (channels + kFloats - 1) / kFloats * kFloats; c % kChannelBlock;
             c += kFloats) {
            for (int64_t i = 0; i < kProducts; ++i) {
                store(to + c / kChannelBlock * kChannelBlock * scratch.places + c % kChannelBlock +
                          i * scratch.product,
                      Floats{});
            }
        }
    }
}

// A panel of a product: rows of tiles, and packed weights of `vectors` vectors of channels.
struct Panel {
    const float* a;  // [block of in][place][in in its block]
    int64_t a_block;
    int64_t depth;    // channels of in
    const float* b;   // [in][out in its block]
    int64_t b_block;  // from one block of out to the next
    float* c;         // [place][out]
    int64_t c_row;
    bool begins;  // c holds nothing yet
};

template <int64_t rows, int64_t vectors>
inline void multiply_rows(const Panel& panel, int64_t row) {
    const float* a = panel.a + row * kChannelBlock;
    float* c = panel.c + row * panel.c_row;
    Floats sums[rows][vectors];
#pragma GCC unroll 12
    for (int64_t r = 0; r < rows; ++r) {
#pragma GCC unroll 4
        for (int64_t v = 0; v < vectors; ++v) {
            sums[r][v] = panel.begins ? Floats{} : load(c + r * panel.c_row + v * kFloats);
        }
    }
    const float* b = panel.b;
    const int64_t b_block = panel.b_block;
    for (int64_t block = 0; block < panel.depth; block += kChannelBlock, a += panel.a_block) {
        const int64_t left = panel.depth - block;
        const int64_t count = left < kChannelBlock ? left : kChannelBlock;
#pragma GCC unroll 2
        for (int64_t k = 0; k < count; ++k, b += kChannelBlock) {
            Floats factors[vectors];
#pragma GCC unroll 4
            for (int64_t v = 0; v < vectors; ++v) {
                factors[v] = load(b + v / kVectors * b_block + v % kVectors * kFloats);
            }
#pragma GCC unroll 12
            for (int64_t r = 0; r < rows; ++r) {
                const float value = a[r * kChannelBlock + k];
#pragma GCC unroll 4
                for (int64_t v = 0; v < vectors; ++v) {
                    sums[r][v] = value * factors[v] + sums[r][v];
                }
            }
        }
    }
#pragma GCC unroll 12
    for (int64_t r = 0; r < rows; ++r) {
#pragma GCC unroll 4
        for (int64_t v = 0; v < vectors; ++v) {
            store(c + r * panel.c_row + v * kFloats, sums[r][v]);
        }
    }
}

// All rows of a panel; what is left over is taken by half as many at a time.
template <int64_t rows, int64_t vectors>
inline void multiply_panel(const Panel& panel, int64_t row, int64_t count) {
    for (; row + rows <= count; row += rows) multiply_rows<rows, vectors>(panel, row);
    if constexpr (rows > 1) {
        if (row < count) multiply_panel<rows / 2, vectors>(panel, row, count);
    }
}

// One product of all tiles and of `blocks` blocks of out.
inline void multiply_tiles_of(const ConvScratch& x, int64_t product, int64_t tiles, int64_t in,
                              const float* packed, int64_t blocks, float* to) {
    const int64_t block_size = kProducts * in * kChannelBlock;
    int64_t vector = 0;
    const int64_t vectors = blocks * kVectors;
    const auto panels = [&](auto rows, auto count) {
        for (int64_t depth = 0; depth < in; depth += kDepth) {
            const int64_t left = in - depth;
            multiply_panel<decltype(rows)::value, decltype(count)::value>(
                {x.data + product * x.product + depth * x.places, kChannelBlock * x.places,
                 left < kDepth ? left : kDepth,
                 packed + vector / kVectors * block_size + (product * in + depth) * kChannelBlock +
                     vector % kVectors * kFloats,
                 block_size, to + vector * kFloats, blocks * kChannelBlock, depth == 0},
                0, tiles);
        }
        vector += decltype(count)::value;
    };
#if defined(__AVX512F__)
    if (vectors % 2 && vectors >= kMostVectors) panels(Count<kRowsOfMost>{}, Count<kMostVectors>{});
    while (vector + 2 <= vectors) panels(Count<kRows>{}, Count<2>{});
    if (vector < vectors) panels(Count<kRows>{}, Count<1>{});
#else
    while (vector < vectors) panels(Count<kRows>{}, Count<kMostVectors>{});
#endif
}

template <class T>
void write_tile(const float* products, int64_t product, const ConvTiles& tiles, Place place,
                int64_t channel, int64_t channels, const float* bias, T* images) {
    const int64_t rows = tiles.height - place.y, columns = tiles.width - place.x;
    const int64_t row_size = tiles.width * tiles.channels;
    T* first = images +
               ((place.image * tiles.height + place.y) * tiles.width + place.x) * tiles.channels +
               channel;
    const bool whole = rows >= kTileSide && columns >= kTileSide;
    for_vectors(0, channels, [&](int64_t c, int64_t lanes) {
        Floats turned[kTileSide][kPatchSide];
        const Floats start = bias ? load_lanes(bias + channel + c, lanes) : Floats{};
#pragma GCC unroll 1
        for (int64_t x = 0; x < kPatchSide; ++x) {
            Floats values[kPatchSide], column[kTileSide];
#pragma GCC unroll 6
            for (int64_t y = 0; y < kPatchSide; ++y) {
                values[y] = load(products + (y * kPatchSide + x) * product + c);
            }
            transform_products(values, column);
#pragma GCC unroll 4
            for (int64_t y = 0; y < kTileSide; ++y) turned[y][x] = column[y];
        }
#pragma GCC unroll 1
        for (int64_t y = 0; y < kTileSide; ++y) {
            Floats row[kTileSide];
            transform_products(turned[y], row);
            T* to = first + y * row_size + c;
            if (whole && lanes == kFloats) {
#pragma GCC unroll 4
                for (int64_t x = 0; x < kTileSide; ++x) {
                    store(to + x * tiles.channels, row[x] + start);
                }
            } else if (y < rows) {
#pragma GCC unroll 4
                for (int64_t x = 0; x < kTileSide; ++x) {
                    if (x < columns) store_lanes(to + x * tiles.channels, lanes, row[x] + start);
                }
            }
        }
    });
}

// Adds to sums of `rows` channels of in and `vectors` vectors of out, over the tiles.
template <int64_t rows, int64_t vectors>
inline void add_block(const float* a, const float* b, int64_t b_block, int64_t tiles, float* sums,
                      int64_t sums_block) {
    Floats found[rows][vectors] = {};
    for (int64_t t = 0; t < tiles; ++t) {
        Floats factors[vectors];
#pragma GCC unroll 4
        for (int64_t v = 0; v < vectors; ++v) {
            factors[v] =
                load(b + t * kChannelBlock + v / kVectors * b_block + v % kVectors * kFloats);
        }
#pragma GCC unroll 8
        for (int64_t r = 0; r < rows; ++r) {
            const float value = a[t * kChannelBlock + r];
#pragma GCC unroll 4
            for (int64_t v = 0; v < vectors; ++v) found[r][v] = value * factors[v] + found[r][v];
        }
    }
#pragma GCC unroll 8
    for (int64_t r = 0; r < rows; ++r) {
#pragma GCC unroll 4
        for (int64_t v = 0; v < vectors; ++v) {
            float* to =
                sums + r * kChannelBlock + v / kVectors * sums_block + v % kVectors * kFloats;
            store(to, load(to) + found[r][v]);
        }
    }
}

constexpr int64_t kDoubles = kFloats / 2;

// Of one pair of channels for each lane: G w G^T.
inline void expand(const Doubles (&w)[3][3], Doubles (&to)[kPatchSide][kPatchSide]) {
    Doubles rows[kPatchSide][3];
#pragma GCC unroll 6
    for (int64_t i = 0; i < kPatchSide; ++i) {
#pragma GCC unroll 3
        for (int64_t x = 0; x < 3; ++x) {
            const double* g = kFactors.at[i];
            rows[i][x] = g[0] * w[0][x] + g[1] * w[1][x] + g[2] * w[2][x];
        }
    }
#pragma GCC unroll 6
    for (int64_t i = 0; i < kPatchSide; ++i) {
#pragma GCC unroll 6
        for (int64_t j = 0; j < kPatchSide; ++j) {
            const double* g = kFactors.at[j];
            to[i][j] = g[0] * rows[i][0] + g[1] * rows[i][1] + g[2] * rows[i][2];
        }
    }
}

// G^T m G.
inline void contract(const Doubles (&m)[kPatchSide][kPatchSide], Doubles (&to)[3][3]) {
    Doubles rows[3][kPatchSide];
#pragma GCC unroll 3
    for (int64_t y = 0; y < 3; ++y) {
#pragma GCC unroll 6
        for (int64_t j = 0; j < kPatchSide; ++j) {
            Doubles sum = {};
#pragma GCC unroll 6
            for (int64_t i = 0; i < kPatchSide; ++i) sum += kFactors.at[i][y] * m[i][j];
            rows[y][j] = sum;
        }
    }
#pragma GCC unroll 3
    for (int64_t y = 0; y < 3; ++y) {
#pragma GCC unroll 3
        for (int64_t x = 0; x < 3; ++x) {
            Doubles sum = {};
#pragma GCC unroll 6
            for (int64_t j = 0; j < kPatchSide; ++j) sum += kFactors.at[j][x] * rows[y][j];
            to[y][x] = sum;
        }
    }
}

bool half(const ConvTiles& tiles) { return tiles.element == gsd::Element::bfloat16; }

}  // namespace

void gsd::GSD_ISA::conv3x3_pack(const ConvWeights& shape, const float* weights, int64_t first,
                                int64_t end, float* packed) {
    for (int64_t out = first * kChannelBlock; out < end * kChannelBlock; out += kDoubles) {
        float* block = packed + out / kChannelBlock * kProducts * shape.in * kChannelBlock;
        for (int64_t c = 0; c < shape.in; ++c) {
            Doubles here[3][3] = {}, factors[kPatchSide][kPatchSide];
            for (int64_t o = 0; o < kDoubles && out + o < shape.out; ++o) {
                const float* from = weights + (out + o) * shape.out_stride + c * shape.in_stride;
#pragma GCC unroll 9
                for (int64_t i = 0; i < 9; ++i) {
                    here[i / 3][i % 3][o] =
                        from[i / 3 * shape.row_stride + i % 3 * shape.column_stride];
                }
            }
            expand(here, factors);
            float* to = block + c * kChannelBlock + out % kChannelBlock;
#pragma GCC unroll 36
            for (int64_t i = 0; i < kProducts; ++i) {
                const LowFloats half =
                    __builtin_convertvector(factors[i / kPatchSide][i % kPatchSide], LowFloats);
                __builtin_memcpy(to + i * shape.in * kChannelBlock, &half, sizeof(half));
            }
        }
    }
}

void gsd::GSD_ISA::conv3x3_unpack(const ConvWeights& shape, const float* sums, int64_t first,
                                  int64_t end, float* weights) {
    const int64_t rows = (shape.in + kChannelBlock - 1) / kChannelBlock * kChannelBlock;
    for (int64_t out = first * kChannelBlock; out < end * kChannelBlock; out += kDoubles) {
        const float* block = sums + out / kChannelBlock * kProducts * rows * kChannelBlock;
        for (int64_t c = 0; c < shape.in; ++c) {
            const float* from = block + c * kChannelBlock + out % kChannelBlock;
            Doubles here[kPatchSide][kPatchSide], found[3][3];
#pragma GCC unroll 36
            for (int64_t i = 0; i < kProducts; ++i) {
                LowFloats half;
                __builtin_memcpy(&half, from + i * rows * kChannelBlock, sizeof(half));
                here[i / kPatchSide][i % kPatchSide] = __builtin_convertvector(half, Doubles);
            }
            contract(here, found);
            for (int64_t o = 0; o < kDoubles && out + o < shape.out; ++o) {
                float* to = weights + (out + o) * shape.out_stride + c * shape.in_stride;
#pragma GCC unroll 9
                for (int64_t i = 0; i < 9; ++i) {
                    to[i / 3 * shape.row_stride + i % 3 * shape.column_stride] =
                        static_cast<float>(found[i / 3][i % 3][o]);
                }
            }
        }
    }
}

void gsd::GSD_ISA::conv3x3_read(const ConvTiles& x, const void* values, int64_t begin, int64_t end,
                                const ConvScratch& scratch) {
    const auto transform = [](const Floats* from, Floats* to) { transform_values(from, to); };
    half(x) ? read_tiles<kPatchSide, 1, BFloat16>(x, values, begin, end, scratch, transform)
            : read_tiles<kPatchSide, 1, float>(x, values, begin, end, scratch, transform);
}

void gsd::GSD_ISA::conv3x3_read_gradient(const ConvTiles& grad_y, const void* values, int64_t begin,
                                         int64_t end, const ConvScratch& scratch) {
    const auto transform = [](const Floats* from, Floats* to) { transform_gradients(from, to); };
    half(grad_y)
        ? read_tiles<kTileSide, 0, BFloat16>(grad_y, values, begin, end, scratch, transform)
        : read_tiles<kTileSide, 0, float>(grad_y, values, begin, end, scratch, transform);
}

void gsd::GSD_ISA::conv3x3_write(const ConvTiles& y, const ConvScratch& x, int64_t in,
                                 const float* packed, const float* bias, int64_t first, int64_t end,
                                 float* room, void* values) {
    const int64_t row = (end - first) * kChannelBlock;
    const int64_t product = x.places * row + kChannelBlock;
    const float* weights = packed + first * kProducts * in * kChannelBlock;
    for (int64_t i = 0; i < kProducts; ++i) {
        multiply_tiles_of(x, i, y.count, in, weights, end - first, room + i * product);
    }
    const int64_t channel = first * kChannelBlock;
    const int64_t channels = y.channels - channel < row ? y.channels - channel : row;
    for (int64_t t = 0; t < y.count; ++t) {
        const Place place = place_of(y, y.first + t);
        const float* products = room + t * row;
        half(y) ? write_tile(products, product, y, place, channel, channels, bias,
                             static_cast<BFloat16*>(values))
                : write_tile(products, product, y, place, channel, channels, bias,
                             static_cast<float*>(values));
    }
}

void gsd::GSD_ISA::conv3x3_add_products(const ConvScratch& x, const ConvScratch& grad_y,
                                        int64_t tiles, int64_t in_blocks, int64_t product,
                                        int64_t first, int64_t end, float* sums) {
    const int64_t rows = in_blocks * kChannelBlock, sums_block = kProducts * rows * kChannelBlock;
    const int64_t a_block = kChannelBlock * x.places, b_block = kChannelBlock * grad_y.places;
    const float* a = x.data + product * x.product;
    const auto add = [&](int64_t block, auto vectors) {
        const float* b = grad_y.data + product * grad_y.product + block * b_block;
        float* to = sums + block * sums_block + product * rows * kChannelBlock;
        for (int64_t c = 0; c < rows; c += kGradientRows) {
            add_block<kGradientRows, decltype(vectors)::value>(
                a + c / kChannelBlock * a_block + c % kChannelBlock, b, b_block, tiles,
                to + c * kChannelBlock, sums_block);
        }
    };
    int64_t block = first;
#if defined(__AVX512F__)
    for (; block + 2 <= end; block += 2) add(block, Count<2>{});
#endif
    for (; block < end; ++block) add(block, Count<kVectors>{});
}
