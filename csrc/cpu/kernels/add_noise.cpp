// The noise kernel, written as plain loops over kLanes counters at a time so that the compiler
// vectorises them for whatever instruction set this file is compiled for. Without fused
// multiply-add (see CMakeLists.txt) every operation is exactly rounded, so all of them give the
// same bits. Unnamed namespace: see bfloat16.h.

#include "cpu/kernels/add_noise.h"

#include <bit>
#include <cmath>
#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "common/philox.h"
#include "cpu/vectors/bfloat16.h"

namespace {

constexpr int kLanes = 64;
constexpr int kNormals = 4 * kLanes;

// A register of 64-bit lanes, of which the generator's words fill the lower halves. What is in the
// upper halves does not matter: the multiplication ignores it.
#if defined(__AVX512F__)
typedef uint64_t Wide __attribute__((vector_size(64)));
inline Wide multiply(Wide a, Wide b) { return (Wide)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
#elif defined(__AVX2__)
typedef uint64_t Wide __attribute__((vector_size(32)));
inline Wide multiply(Wide a, Wide b) { return (Wide)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
#elif defined(__SSE2__)
typedef uint64_t Wide __attribute__((vector_size(16)));
inline Wide multiply(Wide a, Wide b) { return (Wide)_mm_mul_epu32((__m128i)a, (__m128i)b); }
#else
typedef uint64_t Wide __attribute__((vector_size(16)));
inline Wide multiply(Wide a, Wide b) { return (a & 0xFFFFFFFFu) * b; }
#endif
constexpr int kWide = sizeof(Wide) / sizeof(uint64_t);
typedef uint32_t Narrow __attribute__((vector_size(sizeof(Wide) / 2)));

// Philox of kLanes consecutive blocks of one sample: words[i][lane], i = 0..3.
inline void philox(uint64_t first_block, uint64_t sample, uint64_t seed,
                   uint32_t (&words)[4][kLanes]) {
    const Wide multiplier0 = Wide{} + gsd::kPhiloxMultiplier0;
    const Wide multiplier1 = Wide{} + gsd::kPhiloxMultiplier1;
    Wide blocks;
    for (int i = 0; i < kWide; ++i) blocks[i] = first_block + static_cast<uint64_t>(i);
    Wide keys[gsd::kPhiloxRounds][2];
    uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    for (auto& key : keys) {
        key[0] = Wide{} + key0;
        key[1] = Wide{} + key1;
        key0 += gsd::kPhiloxWeyl0;
        key1 += gsd::kPhiloxWeyl1;
    }
    for (int lane = 0; lane < kLanes; lane += kWide) {
        Wide c0 = blocks + static_cast<uint64_t>(lane);
        Wide c1 = c0 >> 32, c2 = Wide{} + sample, c3 = c2 >> 32;
        for (const auto& key : keys) {
            const Wide p0 = multiply(c0, multiplier0), p1 = multiply(c2, multiplier1);
            c0 = (p1 >> 32) ^ c1 ^ key[0];
            c2 = (p0 >> 32) ^ c3 ^ key[1];
            c1 = p1;
            c3 = p0;
        }
        const Wide counters[4] = {c0, c1, c2, c3};
        for (int i = 0; i < 4; ++i) {
            const Narrow low = __builtin_convertvector(counters[i], Narrow);
            __builtin_memcpy(&words[i][lane], &low, sizeof(low));
        }
    }
}

// ln((x + 1) * 2^-32). Close to 1 the argument is held as its distance from 1, which is exact
// there, so that small radii keep their precision. The polynomial is that of Cephes' logf.
inline float log_uniform(uint32_t x) {
    const bool near_one = x >= 0xC0000000u;
    const uint32_t x1 = x + 1;
    // In two exact halves: AVX2 has no conversion from unsigned integers.
    const float u = (static_cast<float>(static_cast<int32_t>(x1 >> 16)) * 65536.0f +
                     static_cast<float>(static_cast<int32_t>(x1 & 0xFFFF))) *
                    0x1p-32f;
    const int32_t bits = std::bit_cast<int32_t>(u);
    const int32_t half_root = 0x3F3504F3;  // sqrt(1/2), the lower end of the mantissa's range
    const int32_t shifted = (bits - half_root) >> 23;
    const float mantissa = std::bit_cast<float>(bits - shifted * (1 << 23));
    const float distance = static_cast<float>(static_cast<int32_t>(~x & 0x3FFFFFFF)) * 0x1p-32f;
    const float f = near_one ? -distance : mantissa - 1.0f;
    const float exponent = near_one ? 0.0f : static_cast<float>(shifted);
    float p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    const float z = f * f;
    float tail = p * f * z;
    tail = tail + exponent * -2.12194440e-4f;
    tail = tail - 0.5f * z;
    return exponent * 0.693359375f + (f + tail);
}

// Cosine and sine of 2 pi (y >> 8) 2^-24. The quadrant is taken off in integers, exactly; the
// polynomials are those of Cephes' sinf and cosf.
inline void cos_sin(uint32_t y, float& cosine, float& sine) {
    const int32_t turn = static_cast<int32_t>(y >> 8);
    const int32_t quadrant = (turn + (1 << 21)) >> 22;
    const float r = static_cast<float>(turn - (quadrant << 22)) * 3.7450704e-7f;  // 2 pi 2^-24
    const float z = r * r;
    float s = -1.9515295891e-4f;
    s = s * z + 8.3321608736e-3f;
    s = s * z - 1.6666654611e-1f;
    s = s * z * r + r;
    float c = 2.443315711809948e-5f;
    c = c * z - 1.388731625493765e-3f;
    c = c * z + 4.166664568298827e-2f;
    c = 1.0f - (0.5f * z - c * z * z);  // in this order 1 is rounded once
    const bool swap = quadrant & 1;
    const uint32_t cosine_sign = static_cast<uint32_t>((quadrant + 1) & 2) << 30;
    const uint32_t sine_sign = static_cast<uint32_t>(quadrant & 2) << 30;
    cosine = std::bit_cast<float>(std::bit_cast<uint32_t>(swap ? s : c) ^ cosine_sign);
    sine = std::bit_cast<float>(std::bit_cast<uint32_t>(swap ? c : s) ^ sine_sign);
}

// Box and Muller's transform of kLanes blocks, in the order of the elements.
inline void normals(const uint32_t (&words)[4][kLanes], float (&result)[kNormals]) {
    float n[4][kLanes];
    for (int pair = 0; pair < 4; pair += 2) {
        for (int lane = 0; lane < kLanes; ++lane) {
            const float radius = std::sqrt(-2.0f * log_uniform(words[pair][lane]));
            float cosine, sine;
            cos_sin(words[pair + 1][lane], cosine, sine);
            n[pair][lane] = radius * cosine;
            n[pair + 1][lane] = radius * sine;
        }
    }
    for (int lane = 0; lane < kLanes; ++lane) {
        result[4 * lane] = n[0][lane];
        result[4 * lane + 1] = n[1][lane];
        result[4 * lane + 2] = n[2][lane];
        result[4 * lane + 3] = n[3][lane];
    }
}

// Grey levels 0..255 to -1..1, both ends exact.
inline float scaled(uint8_t level) {
    return static_cast<float>(2 * static_cast<int32_t>(level) - 255) * (1.0f / 255.0f);
}
inline float scaled(float value) { return value; }
inline float scaled(BFloat16 value) { return to_float(value); }

template <class In, class Out>
inline void mix(const float* n, const In* __restrict x0, Out* __restrict x_t, Out* __restrict noise,
                int64_t count, float signal, float sigma) {
    for (int64_t i = 0; i < count; ++i) {
        store(x_t + i, signal * scaled(x0[i]) + sigma * n[i]);
        store(noise + i, n[i]);
    }
}

template <class In, class Out>
void add_noise_run(const gsd::AddNoiseRun& run) {
    const In* x0 = static_cast<const In*>(run.x0);
    Out* x_t = static_cast<Out*>(run.x_t);
    Out* noise = static_cast<Out*>(run.noise);
    uint32_t words[4][kLanes];
    float n[kNormals];
    for (int64_t start = 0; start < run.count; start += kNormals) {
        philox(run.first_block + static_cast<uint64_t>(start / 4), run.sample, run.seed, words);
        normals(words, n);
        const int64_t left = run.count - start;
        if (left >= kNormals) {  // a constant length lets the compiler drop the loop's tail
            mix(n, x0 + start, x_t + start, noise + start, kNormals, run.signal, run.sigma);
        } else {
            mix(n, x0 + start, x_t + start, noise + start, left, run.signal, run.sigma);
        }
    }
}

}  // namespace

void gsd::GSD_ISA::add_noise(const AddNoiseRun& run) {
    switch (run.element) {
        case gsd::Element::uint8:
            return add_noise_run<uint8_t, float>(run);
        case gsd::Element::float32:
            return add_noise_run<float, float>(run);
        case gsd::Element::bfloat16:
            return add_noise_run<BFloat16, BFloat16>(run);
    }
}
