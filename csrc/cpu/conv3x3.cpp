// gsd::conv3x3, packing its weights and their gradient on the CPU: checks, channels_last memory,
// and how tiles and channels are shared between threads. What a thread computes does not depend on
// how many there are.

#include "cpu/kernels/conv3x3.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <vector>

#include "common/checks.h"
#include "cpu/isa.h"
#include "cpu/room.h"

namespace {

using gsd::ConvScratch;
using gsd::ConvTiles;
using gsd::ConvWeights;
using gsd::Element;
using gsd::kChannelBlock;
using gsd::kProducts;
using gsd::kTileSide;
using gsd::Room;
using gsd::ScalarType;
using gsd::Tensor;
using torch::headeronly::MemoryFormat;

constexpr int64_t kMostBlocks = 4;  // of channels that are multiplied at once

int64_t divided(int64_t value, int64_t by) { return (value + by - 1) / by; }

int64_t blocks_of(int64_t channels) { return divided(channels, kChannelBlock); }

// Calls each(begin, end) for parts of 0..count, in parallel.
template <class Each>
void in_parallel(int64_t count, int64_t grain, const Each& each) {
    torch::stable::parallel_for(0, count, grain, each);
}

// Transformed tiles, and room for them. Products lie a cache line apart from a power of two.
class TransformedTiles {
  public:
    TransformedTiles(int64_t places, int64_t channels)
        : places_(places),
          product_(blocks_of(channels) * places * kChannelBlock + kChannelBlock),
          room_(kProducts * product_) {}

    ConvScratch scratch() const { return {room_.data(), places_, product_}; }

  private:
    int64_t places_, product_;
    Room room_;
};

Tensor empty_images(std::initializer_list<int64_t> size, ScalarType type) {
    return torch::stable::empty(size, type, std::nullopt, std::nullopt, std::nullopt,
                                MemoryFormat::ChannelsLast);
}

Element checked_element(const char* op, const Tensor& tensor) {
    const ScalarType type = tensor.scalar_type();
    GSD_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16, op,
              ": the native kernel takes float32 or bfloat16; for other dtypes call "
              "genselfdiff.kernels.conv3x3");
    return type == ScalarType::Float ? Element::float32 : Element::bfloat16;
}

ConvTiles checked_images(const char* op, const char* name, const Tensor& tensor) {
    const Element element = checked_element(op, tensor);
    GSD_CHECK(tensor.dim() == 4, op, ": ", name, " must have shape (N, C, H, W)");
    return {
        element,
        tensor.size(2),
        tensor.size(3),
        tensor.size(1),
        0,
        tensor.size(0) * divided(tensor.size(2), kTileSide) * divided(tensor.size(3), kTileSide)};
}

ConvWeights checked_weights(const Tensor& weight) {
    GSD_CHECK(weight.dim() == 4 && weight.size(2) == 3 && weight.size(3) == 3 &&
                  weight.size(0) > 0 && weight.size(1) > 0,
              "conv3x3: weight must have shape (out, in, 3, 3)");
    return {weight.size(1),   weight.size(0),   weight.stride(0),
            weight.stride(1), weight.stride(2), weight.stride(3)};
}

int64_t packed_size(const ConvWeights& shape) {
    return blocks_of(shape.out) * kChannelBlock * shape.in * kProducts;
}

// Of few weights, so many tiles that they stay in the second cache. Of many, so many that the
// weights are not read too often.
int64_t tiles_at_once(int64_t in, int64_t out) {
    const int64_t most = 6144 / (blocks_of(in) * kChannelBlock) / 24 * 24;
    return in * out <= 128 * 128 ? std::clamp<int64_t>(most, 24, 48) : 72;
}

Tensor conv3x3_pack(const Tensor& weight) {
    const Tensor source = torch::stable::to(weight, ScalarType::Float);
    const ConvWeights shape = checked_weights(source);
    Tensor packed = torch::stable::new_empty(source, {packed_size(shape)}, ScalarType::Float);
    const float* from = source.const_data_ptr<float>();
    float* to = packed.mutable_data_ptr<float>();
    const auto pack = GSD_SELECT_KERNEL(conv3x3_pack);
    in_parallel(blocks_of(shape.out), 1,
                [&](int64_t first, int64_t end) { pack(shape, from, first, end, to); });
    return packed;
}

Tensor conv3x3(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
               const std::optional<Tensor>& packed) {
    const ConvTiles tiles = checked_images("conv3x3", "x", x);
    const ConvWeights shape = checked_weights(weight);
    GSD_CHECK(shape.in == tiles.channels, "conv3x3: weight takes ", shape.in, " channels, x has ",
              tiles.channels);
    std::optional<Tensor> start;
    if (bias) {
        GSD_CHECK(bias->numel() == shape.out, "conv3x3: bias must have ", shape.out, " elements");
        start = torch::stable::contiguous(torch::stable::to(*bias, ScalarType::Float));
    }
    const Tensor factors = packed ? *packed : conv3x3_pack(weight);
    GSD_CHECK(factors.scalar_type() == ScalarType::Float && factors.dim() == 1 &&
                  factors.stride(0) == 1 && factors.numel() == packed_size(shape),
              "conv3x3: packed must be what conv3x3_pack makes of weight");
    const Tensor source = torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
    Tensor y = empty_images({x.size(0), shape.out, tiles.height, tiles.width}, x.scalar_type());
    if (y.numel() == 0) return y;

    const int64_t places = std::min(tiles_at_once(shape.in, shape.out), tiles.count);
    const int64_t blocks = blocks_of(shape.out), parts = divided(blocks, kMostBlocks);
    const int64_t per_part = divided(blocks, parts), runs = divided(tiles.count, places);
    const int64_t room_size = kProducts * (places * per_part + 1) * kChannelBlock;
    const void* from = source.const_data_ptr();
    void* to = y.mutable_data_ptr();
    const auto run_of = [&](int64_t run, int64_t channels) {
        ConvTiles some = tiles;
        some.channels = channels;
        some.first = run * places;
        some.count = std::min(places, tiles.count - some.first);
        return some;
    };
    const auto read = GSD_SELECT_KERNEL(conv3x3_read);
    const auto write = GSD_SELECT_KERNEL(conv3x3_write);
    const auto write_part = [&](int64_t run, int64_t part, const ConvScratch& scratch,
                                float* room) {
        write(run_of(run, shape.out), scratch, shape.in, factors.const_data_ptr<float>(),
              start ? start->const_data_ptr<float>() : nullptr, part * per_part,
              std::min((part + 1) * per_part, blocks), room, to);
    };
    const int64_t threads = torch::stable::get_num_threads();
    if (threads == 1 || runs >= 2 * threads) {
        in_parallel(runs, 1, [&](int64_t first, int64_t end) {
            const TransformedTiles transformed(places, shape.in);
            const Room room(room_size);
            for (int64_t run = first; run < end; ++run) {
                const ConvTiles some = run_of(run, shape.in);
                read(some, from, 0, some.count, transformed.scratch());
                for (int64_t part = 0; part < parts; ++part) {
                    write_part(run, part, transformed.scratch(), room.data());
                }
            }
        });
        return y;
    }
    // Few tiles: threads share them, and then the channels of what is made of them.
    const TransformedTiles transformed(places, shape.in);
    for (int64_t run = 0; run < runs; ++run) {
        const ConvTiles some = run_of(run, shape.in);
        in_parallel(some.count, 4, [&](int64_t first, int64_t end) {
            read(some, from, first, end, transformed.scratch());
        });
        in_parallel(parts, 1, [&](int64_t first, int64_t end) {
            const Room room(room_size);
            for (int64_t part = first; part < end; ++part) {
                write_part(run, part, transformed.scratch(), room.data());
            }
        });
    }
    return y;
}

Tensor conv3x3_weight_gradient(const Tensor& grad_y, const Tensor& x) {
    const char* op = "conv3x3_weight_gradient";
    const ConvTiles x_tiles = checked_images(op, "x", x);
    const ConvTiles y_tiles = checked_images(op, "grad_y", grad_y);
    GSD_CHECK(grad_y.size(0) == x.size(0) && y_tiles.height == x_tiles.height &&
                  y_tiles.width == x_tiles.width,
              op, ": grad_y must have the size of x, but for its channels");
    const Tensor source = torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
    const Tensor upstream = torch::stable::contiguous(grad_y, MemoryFormat::ChannelsLast);
    Tensor gradient = empty_images({y_tiles.channels, x_tiles.channels, 3, 3}, ScalarType::Float);
    if (x.numel() == 0 || grad_y.numel() == 0) return torch::stable::zero_(gradient);

    const int64_t in_blocks = blocks_of(x_tiles.channels);
    const int64_t out_blocks = blocks_of(y_tiles.channels);
    const int64_t places =
        std::min<int64_t>(in_blocks * out_blocks <= 64 ? 48 : 128, x_tiles.count);
    const TransformedTiles values(places, x_tiles.channels);
    const TransformedTiles gradients(places, y_tiles.channels);
    const int64_t in_rows = in_blocks * kChannelBlock;
    std::vector<float> sums(static_cast<size_t>(out_blocks * kChannelBlock * in_rows * kProducts));
    const auto read = GSD_SELECT_KERNEL(conv3x3_read);
    const auto read_gradient = GSD_SELECT_KERNEL(conv3x3_read_gradient);
    const auto add_products = GSD_SELECT_KERNEL(conv3x3_add_products);
    const int64_t pairs = divided(out_blocks, 2);
    ConvTiles some_x = x_tiles, some_y = y_tiles;
    for (int64_t first = 0; first < x_tiles.count; first += places) {
        some_x.first = some_y.first = first;
        some_x.count = some_y.count = std::min(places, x_tiles.count - first);
        in_parallel(some_x.count, 4, [&](int64_t from, int64_t to) {
            read(some_x, source.const_data_ptr(), from, to, values.scratch());
            read_gradient(some_y, upstream.const_data_ptr(), from, to, gradients.scratch());
        });
        in_parallel(kProducts * pairs, 1, [&](int64_t from, int64_t to) {
            for (int64_t i = from; i < to; ++i) {
                const int64_t block = i / kProducts * 2;
                add_products(values.scratch(), gradients.scratch(), some_x.count, in_blocks,
                             i % kProducts, block, std::min(block + 2, out_blocks), sums.data());
            }
        });
    }
    const ConvWeights shape = checked_weights(gradient);
    const auto unpack = GSD_SELECT_KERNEL(conv3x3_unpack);
    in_parallel(out_blocks, 1, [&](int64_t from, int64_t to) {
        unpack(shape, sums.data(), from, to, gradient.mutable_data_ptr<float>());
    });
    return gradient;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gsd, CPU, m) {
    m.impl("conv3x3", TORCH_BOX(&conv3x3));
    m.impl("conv3x3_pack", TORCH_BOX(&conv3x3_pack));
    m.impl("conv3x3_weight_gradient", TORCH_BOX(&conv3x3_weight_gradient));
}
