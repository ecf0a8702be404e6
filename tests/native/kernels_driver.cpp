// Runs every kernel of every instruction set on buffers of just the size that it may touch, built
// with the address and undefined-behaviour sanitizers (test_sanitized_kernels.py). No torch.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cpu/isa.h"
#include "cpu/kernels/add_noise.h"
#include "cpu/kernels/conv3x3.h"
#include "cpu/kernels/group_norm_silu.h"
#include "cpu/kernels/linear_attention.h"
#include "cpu/kernels/matrix_product.h"
#include "cpu/kernels/multi_loss.h"
#include "cpu/kernels/p2_loss.h"

namespace {

using gsd::Element;

size_t bytes_of(Element element) {
    return element == Element::uint8 ? 1 : element == Element::bfloat16 ? 2 : 4;
}

// Elements on the heap, without a byte to spare; read and written as float32.
struct Buffer {
    Element element;
    std::vector<unsigned char> bytes;

    // Results start as NaN.
    Buffer(Element type, int64_t count) : element(type), bytes(bytes_of(type) * count, 0xFF) {}

    static Buffer filled(Element type, int64_t count) {
        Buffer buffer(type, count);
        for (int64_t i = 0; i < count; ++i) {
            const float value = 2.0f * std::sin(0.7f * static_cast<float>(i)) - 0.3f;
            uint32_t bits;
            std::memcpy(&bits, &value, 4);
            const uint16_t half = static_cast<uint16_t>(bits >> 16);
            if (type == Element::uint8) {
                buffer.bytes[static_cast<size_t>(i)] = static_cast<unsigned char>(i);
            } else if (type == Element::bfloat16) {
                std::memcpy(buffer.bytes.data() + 2 * i, &half, 2);
            } else {
                std::memcpy(buffer.bytes.data() + 4 * i, &value, 4);
            }
        }
        return buffer;
    }

    std::vector<float> values() const {
        std::vector<float> result;
        for (size_t i = 0; i < bytes.size(); i += bytes_of(element)) {
            uint32_t bits = 0;
            std::memcpy(element == Element::bfloat16 ? reinterpret_cast<char*>(&bits) + 2
                                                     : reinterpret_cast<char*>(&bits),
                        bytes.data() + i, bytes_of(element));
            result.emplace_back();
            std::memcpy(&result.back(), &bits, 4);
        }
        return result;
    }

    bool finite() const {
        const std::vector<float> found = values();
        return std::all_of(found.begin(), found.end(), [](float v) { return std::isfinite(v); });
    }
};

const char* current = "";

void require(bool good, const char* what, int64_t a, int64_t b) {
    if (good) return;
    std::printf("%s: %s is wrong for %lld, %lld\n", current, what, static_cast<long long>(a),
                static_cast<long long>(b));
    std::exit(1);
}

std::vector<float> numbers(int64_t count, float value) {
    return std::vector<float>(static_cast<size_t>(count), value);
}

template <class Kernel>
void check_add_noise(Kernel kernel) {
    for (int64_t count : {1, 3, 4, 17, 255, 256, 257, 1000}) {
        for (Element element : {Element::uint8, Element::float32, Element::bfloat16}) {
            const Buffer x0 = Buffer::filled(element, count);
            const Element result = element == Element::uint8 ? Element::float32 : element;
            Buffer x_t(result, count), noise(result, count);
            kernel({element, x0.bytes.data(), x_t.bytes.data(), noise.bytes.data(), count, 0, 7, 3,
                    0.8f, 0.6f});
            require(x_t.finite() && noise.finite(), "add_noise", count, bytes_of(element));
        }
    }
}

template <class Kernel>
void check_p2_loss(Kernel kernel) {
    for (int64_t count : {1, 15, 16, 17, 1000}) {
        for (Element element : {Element::float32, Element::bfloat16}) {
            const Buffer pred = Buffer::filled(element, count);
            const Buffer noise = Buffer::filled(element, count);
            Buffer grad(element, count);
            const double sum = kernel(
                {element, pred.bytes.data(), noise.bytes.data(), grad.bytes.data(), count, 0.5f});
            require(sum == 0.0 && grad.finite(), "p2_loss", count, bytes_of(element));
        }
    }
}

template <class Statistics, class Errors, class Gradient>
void check_multi_loss(Statistics statistics, Errors errors, Gradient gradient) {
    for (int64_t classes : {1, 2, 5, 9}) {
        for (int64_t pixels : {1, 15, 16, 17, 600}) {
            for (int options = 0; options < 8; ++options) {
                const Element element = options & 1 ? Element::bfloat16 : Element::float32;
                const Buffer logits = Buffer::filled(element, classes * pixels);
                Buffer probabilities(Element::float32, classes * pixels);
                Buffer log_true(Element::float32, pixels), grad(element, classes * pixels);
                std::vector<int64_t> labels(static_cast<size_t>(pixels));
                std::vector<int32_t> class_numbers(labels.size());
                for (size_t i = 0; i < labels.size(); ++i) {
                    labels[i] = i % 7 == 3 ? 255 : static_cast<int64_t>(i) % classes;
                }
                const std::vector<float> weights = numbers(classes, 1.5f);
                const gsd::MultiLossImage image = {
                    .element = element,
                    .pixel_form = (options & 2) != 0,
                    .focal_gamma = options & 4 ? 1.5f : 2.0f,
                    .classes = classes,
                    .pixels = pixels,
                    .logits = logits.bytes.data(),
                    .ignores = true,
                    .ignored = 255,
                    .labels = labels.data(),
                    .class_numbers = class_numbers.data(),
                    .class_weights = weights.data(),
                    .probabilities = reinterpret_cast<float*>(probabilities.bytes.data()),
                    .log_true = reinterpret_cast<float*>(log_true.bytes.data()),
                    .grad = grad.bytes.data(),
                };
                std::vector<gsd::PlaneSums> planes(static_cast<size_t>(classes));
                const gsd::PlaneShape shape = {.mean = 0.3f,
                                               .inverse = 2.0f,
                                               .error_at = {{-0.5f, -0.4f}, {1.5f, 0.1f}},
                                               .threshold = 0.2f,
                                               .weight = 1.0f,
                                               .per_slope = 0.1f,
                                               .constant = {0.01f, 0.02f},
                                               .per_centred = 0.03f};
                const std::vector<gsd::PlaneShape> shapes(planes.size(), shape);
                gsd::PixelSums sums = {};
                const bool good = statistics(image, 0, pixels, planes.data(), &sums);
                errors(image, shapes.data(), 0, pixels, planes.data());
                gradient(image, shapes.data(), {0.1f, 0.2f, 0.3f}, 0, pixels);
                require(good && std::isfinite(sums.focal) && probabilities.finite() &&
                            log_true.finite() && grad.finite(),
                        "multi_loss", classes, pixels);
                labels[0] = classes;
                require(!statistics(image, 0, pixels, planes.data(), &sums), "a bad label", classes,
                        pixels);
            }
        }
    }
}

template <class Sums, class Apply, class GradientSums, class Gradient>
void check_group_norm_silu(Sums sums, Apply apply, GradientSums gradient_sums, Gradient gradient) {
    for (int64_t tokens : {1, 5, 65, 130}) {
        for (int64_t channels : {1, 8, 16, 17, 64, 70}) {
            for (Element element : {Element::float32, Element::bfloat16}) {
                const int64_t count = tokens * channels;
                const Buffer x = Buffer::filled(element, count);
                const Buffer other = Buffer::filled(element, count);
                Buffer y(element, count), grad_x(element, count);
                const std::vector<float> one = numbers(channels, 1.0f);
                std::vector<float> a = one, b = one, c = one;
                gsd::NormRun run = {};
                run.element = element;
                run.tokens = tokens;
                run.channels = channels;
                run.x = x.bytes.data();
                sums(run, a.data(), b.data(), c.data());
                run.scale = run.offset = run.shift = run.mean = one.data();
                run.per_z = run.per_centred = run.constant = one.data();
                run.residual = run.grad_y = other.bytes.data();
                run.result = y.bytes.data();
                apply(run);
                gradient_sums(run, a.data(), b.data(), c.data());
                run.result = grad_x.bytes.data();
                gradient(run);
                require(y.finite() && grad_x.finite(), "group_norm_silu", tokens, channels);
            }
        }
    }
}

// The steps of a convolution, of one instruction set.
struct ConvKernels {
    decltype(&gsd::generic::conv3x3_pack) pack;
    decltype(&gsd::generic::conv3x3_unpack) unpack;
    decltype(&gsd::generic::conv3x3_read) read;
    decltype(&gsd::generic::conv3x3_read_gradient) read_gradient;
    decltype(&gsd::generic::conv3x3_write) write;
    decltype(&gsd::generic::conv3x3_add_products) add_products;
};

#define GSD_CONV_KERNELS(isa)                                                           \
    {gsd::isa::conv3x3_pack,          gsd::isa::conv3x3_unpack, gsd::isa::conv3x3_read, \
     gsd::isa::conv3x3_read_gradient, gsd::isa::conv3x3_write,  gsd::isa::conv3x3_add_products}

// Two images of 6x9 pixels, of which few tiles are whole, against the sum itself.
void check_conv3x3(const ConvKernels& kernels) {
    constexpr int64_t block = gsd::kChannelBlock, height = 6, width = 9, tiles = 12, places = 13;
    for (int64_t in : {1, 7, 16, 35}) {
        for (int64_t out : {1, 9, 33, 64}) {
            for (Element element : {Element::float32, Element::bfloat16}) {
                const int64_t pixels = 2 * height * width;
                const Buffer x = Buffer::filled(element, pixels * in);
                const Buffer grad_y = Buffer::filled(element, pixels * out);
                Buffer y(element, pixels * out);
                const int64_t in_blocks = (in + block - 1) / block;
                const int64_t out_blocks = (out + block - 1) / block;
                const gsd::ConvWeights shape = {in, out, 9 * in, 9, 3, 1};
                std::vector<float> weights = numbers(9 * in * out, 0.0f), grad_w = weights;
                for (size_t i = 0; i < weights.size(); ++i) {
                    weights[i] = std::sin(0.9f * static_cast<float>(i));
                }
                const std::vector<float> bias = numbers(out, 0.5f);
                std::vector<float> packed = numbers(out_blocks * block * in * gsd::kProducts, 0.0f);
                kernels.pack(shape, weights.data(), 0, out_blocks, packed.data());
                const auto room = [&](int64_t blocks) {
                    return numbers(gsd::kProducts * (blocks * places + 1) * block, NAN);
                };
                std::vector<float> read = room(in_blocks), read_gradient = room(out_blocks);
                std::vector<float> products = room(out_blocks);
                const auto scratch = [&](std::vector<float>& data) {
                    return gsd::ConvScratch{data.data(), places,
                                            static_cast<int64_t>(data.size()) / gsd::kProducts};
                };
                const gsd::ConvTiles from = {element, height, width, in, 0, tiles};
                const gsd::ConvTiles to = {element, height, width, out, 0, tiles};
                kernels.read(from, x.bytes.data(), 0, tiles, scratch(read));
                kernels.write(to, scratch(read), in, packed.data(), bias.data(), 0, out_blocks,
                              products.data(), y.bytes.data());
                kernels.read_gradient(to, grad_y.bytes.data(), 0, tiles, scratch(read_gradient));
                std::vector<float> sums =
                    numbers(gsd::kProducts * in_blocks * out_blocks * block * block, 0.0f);
                for (int64_t i = 0; i < gsd::kProducts; ++i) {
                    kernels.add_products(scratch(read), scratch(read_gradient), tiles, in_blocks, i,
                                         0, out_blocks, sums.data());
                }
                kernels.unpack(shape, sums.data(), 0, out_blocks, grad_w.data());

                const std::vector<float> xs = x.values(), gs = grad_y.values(), ys = y.values();
                std::vector<double> found_y(ys.size(), 0.5), found_w(weights.size());
                for (int64_t p = 0; p < pixels; ++p) {
                    for (int64_t k = 0; k < 9; ++k) {
                        const int64_t row = p / width % height + k / 3 - 1;
                        const int64_t column = p % width + k % 3 - 1;
                        if (row < 0 || row >= height || column < 0 || column >= width) continue;
                        const int64_t q = p + (k / 3 - 1) * width + k % 3 - 1;
                        for (int64_t o = 0; o < out; ++o) {
                            for (int64_t c = 0; c < in; ++c) {
                                const size_t w = static_cast<size_t>((o * in + c) * 9 + k);
                                const float value = xs[static_cast<size_t>(q * in + c)];
                                found_y[static_cast<size_t>(p * out + o)] += weights[w] * value;
                                found_w[w] += gs[static_cast<size_t>(p * out + o)] * value;
                            }
                        }
                    }
                }
                const float tolerance = element == Element::float32 ? 1e-4f : 0.3f;
                for (size_t i = 0; i < ys.size(); ++i) {
                    require(std::fabs(ys[i] - found_y[i]) <= tolerance, "conv3x3", in, out);
                }
                for (size_t i = 0; i < found_w.size(); ++i) {
                    require(std::fabs(grad_w[i] - found_w[i]) <= 1e-2, "gradient of conv3x3", in,
                            out);
                }
            }
        }
    }
}

// The passes of the linear attention, of one instruction set.
struct AttentionKernels {
    decltype(&gsd::generic::pack_factor) pack_factor;
    decltype(&gsd::generic::add_product) add_product;
    decltype(&gsd::generic::attention_keys) keys;
    decltype(&gsd::generic::attention_output) output;
    decltype(&gsd::generic::attention_finish) finish;
    decltype(&gsd::generic::attention_gradient_sums) gradient_sums;
    decltype(&gsd::generic::attention_gradient) gradient;
    decltype(&gsd::generic::attention_gradient_finish) gradient_finish;
};

#define GSD_ATTENTION_KERNELS(isa)                                    \
    {gsd::isa::pack_factor,        gsd::isa::add_product,             \
     gsd::isa::attention_keys,     gsd::isa::attention_output,        \
     gsd::isa::attention_finish,   gsd::isa::attention_gradient_sums, \
     gsd::isa::attention_gradient, gsd::isa::attention_gradient_finish}

int64_t rounded_up(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

// Numbers between -size and size, the same every time.
std::vector<float> wave(int64_t count, float size) {
    std::vector<float> result(static_cast<size_t>(count));
    for (size_t i = 0; i < result.size(); ++i) {
        result[i] = size * std::sin(1.3f * static_cast<float>(i));
    }
    return result;
}

std::vector<char> packed(const AttentionKernels& kernels, Element element,
                         const gsd::FactorSource& source) {
    std::vector<char> result(
        static_cast<size_t>(4 * rounded_up(source.depth, 32) * rounded_up(source.columns, 16)));
    kernels.pack_factor(element, source, result.data());
    return result;
}

// Everything that the passes write, each result after the other.
std::vector<std::vector<float>> attention_results(const AttentionKernels& kernels, Element element,
                                                  int64_t tokens, int64_t channels, int64_t heads,
                                                  int64_t size) {
    const int64_t hidden = heads * size, row = rounded_up(channels, gsd::kChannelMultiple);
    const Buffer x = Buffer::filled(element, tokens * channels);
    Buffer y(element, tokens * channels), grad_x(element, tokens * channels);
    const std::vector<float> weights = wave(3 * hidden * channels, 0.2f);
    const std::vector<float> qkv_bias = wave(3 * hidden, 0.5f), one = numbers(channels, 1.0f);
    const std::vector<float> bias = wave(row, 0.1f), lse = numbers(hidden, 3.0f);
    const std::vector<float> matrix = wave(hidden * row, 0.3f), start = wave(hidden, 0.1f);
    const std::vector<float> small = wave(size * size, 0.2f);
    const std::vector<char> qkv =
        packed(kernels, element, {weights.data(), channels, 1, 3 * hidden, channels, one.data()});
    const std::vector<char> into_x =
        packed(kernels, element, {weights.data(), 3 * hidden, channels, channels, 1, nullptr});
    const std::vector<char> folded =
        packed(kernels, element, {matrix.data(), hidden, row, channels, 1, nullptr});
    const std::vector<char> turned =
        packed(kernels, element, {matrix.data(), channels, 1, hidden, row, nullptr});
    gsd::AttentionGradientRun gradient = {};
    gsd::AttentionRun& run = gradient.forward;
    run.element = element;
    run.tokens = tokens;
    run.channels = channels;
    run.heads = heads;
    run.head_size = size;
    run.x = x.bytes.data();
    run.mean = 0.1f;
    run.rstd = 0.7f;
    run.qkv = qkv.data();
    run.qkv_bias = qkv_bias.data();
    run.folded = folded.data();
    run.out_bias = bias.data();
    run.scale = run.offset = one.data();
    run.result = y.bytes.data();
    std::vector<float> most(static_cast<size_t>(hidden)), sums(most), k_by_x(most.size() * row);
    kernels.keys(run, most.data(), sums.data(), k_by_x.data());
    kernels.output(run);
    std::vector<std::vector<float>> results = {most, sums, y.values()};
    kernels.finish(run);
    results.push_back(y.values());

    run.result = grad_x.bytes.data();
    gradient.grad_y = x.bytes.data();
    gradient.per_y = gradient.gain = one.data();
    gradient.constant = 0.1f;
    gradient.per_centred = -0.2f;
    gradient.k_lse = lse.data();
    gradient.turned = turned.data();
    gradient.into_keys = turned.data();
    gradient.keys_start = start.data();
    gradient.into_x = into_x.data();
    gradient.per_x = 0.3f;
    gradient.x_constant = 0.4f;
    std::vector<float> by_y(static_cast<size_t>(hidden * row)), by_q(most.size() * hidden);
    std::vector<float> q(most), y_sums(one);
    kernels.gradient_sums(gradient, by_y.data(), by_q.data(), q.data(), y_sums.data());
    for (int64_t i = 0; i < hidden; ++i) {  // only the lower half is defined
        std::fill(by_q.begin() + i * hidden + i + 1, by_q.begin() + (i + 1) * hidden, 0.0f);
    }
    std::vector<float> by_x(static_cast<size_t>(3 * hidden * row)), grads(qkv_bias);
    kernels.gradient(gradient, by_x.data(), grads.data());
    kernels.gradient_finish(gradient);
    for (const auto& result : {by_q, q, y_sums, grads, grad_x.values()}) results.push_back(result);
    for (const auto* matrix_result :
         {&k_by_x, &by_y, &by_x}) {  // what lies beyond the channels is not
        std::vector<float> inside;
        for (size_t i = 0; i < matrix_result->size(); ++i) {
            if (static_cast<int64_t>(i) % row < channels) inside.push_back((*matrix_result)[i]);
        }
        results.push_back(inside);
    }
    std::vector<float> product(static_cast<size_t>(size * row));
    kernels.add_product(
        {size, row, size, small.data(), size, 1, matrix.data(), row, product.data(), row});
    results.push_back(product);
    return results;
}

// Against the generic kernels. Where bfloat16 is multiplied as such, differences of rounded numbers
// are off by several percent with a single token.
void check_linear_attention(const AttentionKernels& kernels) {
    const AttentionKernels plain = GSD_ATTENTION_KERNELS(generic);
    const char* names[] = {"largest k", "sum of exp(k)",  "o",          "y",      "q by q",
                           "q",         "grad_y",         "gradients",  "grad_x", "k by x",
                           "q by y",    "gradients by x", "add_product"};
    for (int64_t tokens : {1, 95, 97, 200}) {
        for (int64_t channels : {8, 33, 64}) {
            for (int64_t size : {16, 32}) {
                for (Element element : {Element::float32, Element::bfloat16}) {
                    const auto found =
                        attention_results(kernels, element, tokens, channels, 2, size);
                    const auto expected =
                        attention_results(plain, element, tokens, channels, 2, size);
                    const float tolerance = element == Element::float32 ? 1e-5f : 1e-1f;
                    for (size_t i = 0; i < found.size(); ++i) {
                        float most = 0.0f, error = 0.0f;
                        for (size_t j = 0; j < found[i].size(); ++j) {
                            most = std::max(most, std::fabs(expected[i][j]));
                            const float apart = std::fabs(found[i][j] - expected[i][j]);
                            error = apart <= error ? error : apart;  // keeps a NaN
                        }
                        require(error <= tolerance * most, names[i], tokens, channels);
                    }
                }
            }
        }
    }
}

// The tiles of AMX are emulated.
bool can_run(gsd::Isa isa) {
    return gsd::cpu_has(isa == gsd::Isa::amx ? gsd::Isa::avx512_bf16 : isa);
}

}  // namespace

#define GSD_CHECK(isa)                                                                             \
    if (!can_run(gsd::Isa::isa)) {                                                                 \
        std::printf("skipped: this machine has no %s\n", #isa);                                    \
    } else {                                                                                       \
        current = #isa;                                                                            \
        check_add_noise(gsd::isa::add_noise);                                                      \
        check_conv3x3(GSD_CONV_KERNELS(isa));                                                      \
        check_p2_loss(gsd::isa::p2_loss);                                                          \
        check_multi_loss(gsd::isa::multi_loss_statistics, gsd::isa::multi_loss_errors,             \
                         gsd::isa::multi_loss_gradient);                                           \
        check_group_norm_silu(gsd::isa::channel_sums, gsd::isa::group_norm_silu,                   \
                              gsd::isa::group_norm_silu_sums, gsd::isa::group_norm_silu_gradient); \
        check_linear_attention(GSD_ATTENTION_KERNELS(isa));                                        \
        std::printf("checked: %s\n", #isa);                                                        \
    }

int main() {
    GSD_CHECK(generic)
#ifdef GSD_HAVE_AVX2
    GSD_CHECK(avx2)
    GSD_CHECK(avx512)
    GSD_CHECK(avx512_bf16)
    GSD_CHECK(amx)
#endif
}
