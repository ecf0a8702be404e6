// gsd::conv4x4_weight_gradient on the CPU: of convolutions with a kernel of 4x4, stride 2 and
// padding 1, and of their transposes. Both join a large image and a small one of half its size:
//
//     gradient[s][l][k] = sum over pixels p of small[s][p] * large[l][2 p + k - 1].
//
// Some rows of both are laid out with whole blocks of channels and zeros around, where each of the
// 16 k is a product of matrices. What is added in which order does not depend on threads.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/checks.h"
#include "cpu/isa.h"
#include "cpu/kernels/matrix_product.h"
#include "cpu/room.h"

namespace {

using gsd::Room;
using gsd::ScalarType;
using gsd::Tensor;
using torch::headeronly::MemoryFormat;

constexpr int64_t kSide = 4, kTaps = kSide * kSide;
constexpr int64_t kBlock = 16;    // channels are filled up to a multiple of this
constexpr int64_t kPixels = 256;  // of the small image, at least, that are summed before the rest

int64_t whole_blocks(int64_t channels) { return (channels + kBlock - 1) / kBlock * kBlock; }

// float32 images in channels_last memory.
struct Images {
    const float* data;
    int64_t channels, height, width;

    explicit Images(const Tensor& images)
        : data(images.const_data_ptr<float>()),
          channels(images.size(1)),
          height(images.size(2)),
          width(images.size(3)) {}

    // The pixels of a row from -margin on, `count` of them, with whole blocks of channels; zeros
    // where there are none.
    void copy_row(int64_t image, int64_t y, int64_t margin, int64_t count, float* to) const {
        const int64_t row = whole_blocks(channels);
        std::fill(to, to + count * row, 0.0f);
        if (y < 0 || y >= height) return;
        const float* from = data + (image * height + y) * width * channels;
        const int64_t there = std::min(width, count - margin);
        for (int64_t x = 0; x < there; ++x) {
            std::memcpy(to + (x + margin) * row, from + x * channels,
                        sizeof(float) * static_cast<size_t>(channels));
        }
    }
};

Tensor checked_images(const char* name, const Tensor& images) {
    GSD_CHECK(images.dim() == 4, "conv4x4_weight_gradient: ", name,
              " must have shape (N, C, H, W)");
    return torch::stable::contiguous(torch::stable::to(images, ScalarType::Float),
                                     MemoryFormat::ChannelsLast);
}

Tensor conv4x4_weight_gradient(const Tensor& small, const Tensor& large) {
    const Tensor small_images = checked_images("small", small);
    const Tensor large_images = checked_images("large", large);
    const Images of_small(small_images), of_large(large_images);
    const int64_t images = small.size(0), width = of_small.width;
    GSD_CHECK(large.size(0) == images && of_large.height / 2 == of_small.height &&
                  of_large.width / 2 == width,
              "conv4x4_weight_gradient: small must have half the size of large");
    Tensor gradient = torch::stable::empty({of_small.channels, of_large.channels, kSide, kSide},
                                           ScalarType::Float, std::nullopt, std::nullopt,
                                           std::nullopt, MemoryFormat::ChannelsLast);
    if (small.numel() == 0 || large.numel() == 0) return torch::stable::zero_(gradient);

    const int64_t small_row = whole_blocks(of_small.channels);
    const int64_t large_row = whole_blocks(of_large.channels);
    const int64_t pairs = small_row * large_row, wide = 2 * width + 2;
    const int64_t most = std::clamp<int64_t>(kPixels / width, 1, of_small.height);  // rows at once
    const Room small_rows(most * width * small_row), large_rows((2 * most + 2) * wide * large_row);
    const Room parts(kTaps * pairs);
    std::vector<float> sums(static_cast<size_t>(kTaps * pairs));
    const auto add_product = GSD_SELECT_KERNEL(add_product);
    const auto in_parallel = [](int64_t count, const auto& each) {
        torch::stable::parallel_for(0, count, 1, [&](int64_t first, int64_t end) {
            for (int64_t i = first; i < end; ++i) each(i);
        });
    };
    const auto add_rows = [&](int64_t image, int64_t first, int64_t rows) {
        in_parallel(2 * rows + 2, [&](int64_t i) {
            of_large.copy_row(image, 2 * first + i - 1, 1, wide,
                              large_rows.data() + i * wide * large_row);
            if (i >= rows) return;
            of_small.copy_row(image, first + i, 0, width,
                              small_rows.data() + i * width * small_row);
        });
        in_parallel(kTaps, [&](int64_t tap) {
            float* part = parts.data() + tap * pairs;
            std::fill(part, part + pairs, 0.0f);
            for (int64_t y = 0; y < rows; ++y) {
                const int64_t pixel = (2 * y + tap / kSide) * wide + tap % kSide;
                add_product({.rows = small_row,
                             .columns = large_row,
                             .steps = width,
                             .a = small_rows.data() + y * width * small_row,
                             .a_row = 1,
                             .a_step = small_row,
                             .b = large_rows.data() + pixel * large_row,
                             .b_step = 2 * large_row,
                             .c = part,
                             .c_row = large_row});
            }
            float* sum = sums.data() + tap * pairs;
            for (int64_t i = 0; i < pairs; ++i) sum[i] += part[i];
        });
    };
    for (int64_t image = 0; image < images; ++image) {
        for (int64_t first = 0; first < of_small.height; first += most) {
            add_rows(image, first, std::min(most, of_small.height - first));
        }
    }
    float* to = gradient.mutable_data_ptr<float>();
    for (int64_t s = 0; s < of_small.channels; ++s) {
        for (int64_t tap = 0; tap < kTaps; ++tap, to += of_large.channels) {
            std::copy_n(sums.data() + tap * pairs + s * large_row, of_large.channels, to);
        }
    }
    return gradient;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gsd, CPU, m) {
    m.impl("conv4x4_weight_gradient", TORCH_BOX(&conv4x4_weight_gradient));
}
