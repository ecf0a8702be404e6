// 3x3 convolutions of stride 1 and padding 1 by Winograd's F(4x4, 3x3): a tile of 4x4 results is
// made of 6x6 values and of 36 products where the sum itself has 144; see conv3x3.cpp. Images lie
// as channels_last memory has them. Tiles are numbered row by row and image by image; the last of
// a row or column may lie partly outside.

#pragma once

#include <cstdint>

#include "cpu/vectors/element.h"
#include "cpu/vectors/variants.h"

namespace gsd {

constexpr int64_t kTileSide = 4;
constexpr int64_t kPatchSide = 6;      // of what a tile's results are made of
constexpr int64_t kProducts = 36;      // of a tile and a pair of channels
constexpr int64_t kChannelBlock = 16;  // a cache line of float32: how transformed channels lie

// Images of one size, and some of their tiles.
struct ConvTiles {
    Element element;
    int64_t height, width, channels;
    int64_t first, count;  // tiles
};

// Transformed tiles, float32: [product][block of channels][place of a tile][channel in its block],
// zeros after the last channel.
struct ConvScratch {
    float* data;
    int64_t places;   // that there is room for
    int64_t product;  // elements from one product to the next
};

// (out, in, 3, 3) weights, wherever they lie.
struct ConvWeights {
    int64_t in, out;
    int64_t out_stride, in_stride, row_stride, column_stride;
};

// Weights as the products read them: [block of out][product][in][out in its block], for blocks from
// `first` to `end`; zeros after the last channel.
GSD_DECLARE_KERNEL(void, conv3x3_pack, const ConvWeights& shape, const float* weights,
                   int64_t first, int64_t end, float* packed)
// The reverse, of sums over tiles of products: gradients of the weights.
GSD_DECLARE_KERNEL(void, conv3x3_unpack, const ConvWeights& shape, const float* sums, int64_t first,
                   int64_t end, float* weights)
// Transforms tiles of what is convolved; `begin` to `end` are places, that of the first tile is 0.
GSD_DECLARE_KERNEL(void, conv3x3_read, const ConvTiles& x, const void* values, int64_t begin,
                   int64_t end, const ConvScratch& scratch)
// Transforms tiles of the gradient in the results, for the gradient of the weights.
GSD_DECLARE_KERNEL(void, conv3x3_read_gradient, const ConvTiles& grad_y, const void* values,
                   int64_t begin, int64_t end, const ConvScratch& scratch)
// Results of the tiles of y, for its blocks of channels from `first` to `end`. `room` has the
// products of that many blocks: 36 times (places * (end - first) + 1) blocks of floats.
GSD_DECLARE_KERNEL(void, conv3x3_write, const ConvTiles& y, const ConvScratch& x, int64_t in,
                   const float* packed, const float* bias, int64_t first, int64_t end, float* room,
                   void* values)
// Adds the tiles' products to the sums of one product and of some blocks of out, laid out as packed
// weights with whole blocks of in.
GSD_DECLARE_KERNEL(void, conv3x3_add_products, const ConvScratch& x, const ConvScratch& grad_y,
                   int64_t tiles, int64_t in_blocks, int64_t product, int64_t first, int64_t end,
                   float* sums)

}  // namespace gsd
