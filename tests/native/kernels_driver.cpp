// Runs every kernel of every instruction set on buffers of just the size that it may touch, built
// with the address and undefined-behaviour sanitizers (test_sanitized_kernels.py). No torch.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cpu/isa.h"
#include "cpu/kernels/add_noise.h"
#include "cpu/kernels/group_norm_silu.h"
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

    bool finite() const {
        for (size_t i = 0; i < bytes.size(); i += bytes_of(element)) {
            uint32_t bits = 0;
            std::memcpy(element == Element::bfloat16 ? reinterpret_cast<char*>(&bits) + 2
                                                     : reinterpret_cast<char*>(&bits),
                        bytes.data() + i, bytes_of(element));
            float value;
            std::memcpy(&value, &bits, 4);
            if (!std::isfinite(value)) return false;
        }
        return true;
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
                const std::vector<gsd::PlaneShape> shapes(
                    planes.size(), {0.3f, 2.0f, 0.1f, 1.5f, -0.5f, 0.2f, 1.0f, 0.1f, 0.01f, 0.02f});
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

}  // namespace

#define GSD_CHECK(isa)                                                                             \
    if (!gsd::cpu_has(gsd::Isa::isa)) {                                                            \
        std::printf("skipped: this machine has no %s\n", #isa);                                    \
    } else {                                                                                       \
        current = #isa;                                                                            \
        check_add_noise(gsd::isa::add_noise);                                                      \
        check_p2_loss(gsd::isa::p2_loss);                                                          \
        check_multi_loss(gsd::isa::multi_loss_statistics, gsd::isa::multi_loss_errors,             \
                         gsd::isa::multi_loss_gradient);                                           \
        check_group_norm_silu(gsd::isa::channel_sums, gsd::isa::group_norm_silu,                   \
                              gsd::isa::group_norm_silu_sums, gsd::isa::group_norm_silu_gradient); \
        std::printf("checked: %s\n", #isa);                                                        \
    }

int main() {
    GSD_CHECK(generic)
#ifdef GSD_HAVE_AVX2
    GSD_CHECK(avx2)
    GSD_CHECK(avx512)
    GSD_CHECK(avx512_bf16)
#endif
}
