// Vectors of as many floats as a register of the instruction set holds that the including file is
// compiled for, in the compiler's own vector types: + - * / and comparisons work on them lane by
// lane, and a * b + c becomes one instruction where there is one. Unnamed namespace: see
// bfloat16.h.

#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "cpu/vectors/bfloat16.h"

namespace {

#if defined(__AVX512F__)
constexpr int kFloats = 16;
#elif defined(__AVX2__)
constexpr int kFloats = 8;
#else
constexpr int kFloats = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * kFloats)));
typedef int32_t Ints __attribute__((vector_size(4 * kFloats)));
typedef uint32_t Words __attribute__((vector_size(4 * kFloats)));
typedef uint16_t HalfWords __attribute__((vector_size(2 * kFloats)));
typedef float LowFloats __attribute__((vector_size(2 * kFloats)));
typedef double Doubles __attribute__((vector_size(4 * kFloats)));  // half as many

// A number known to the compiler, to be passed to a generic lambda.
template <int64_t number>
struct Count {
    static constexpr int64_t value = number;
};

inline Floats broadcast(float value) { return Floats{} + value; }

inline Floats load(const float* source) {
    Floats result;
    __builtin_memcpy(&result, source, sizeof(result));
    return result;
}

inline Floats load(const BFloat16* source) {
#if defined(__AVX512F__)
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
    return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
#elif defined(__AVX2__)
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source));
    return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16);
#else
    HalfWords bits;
    __builtin_memcpy(&bits, source, sizeof(bits));
    return (Floats)(__builtin_convertvector(bits, Words) << 16);
#endif
}

inline Ints load(const int32_t* source) {
    Ints result;
    __builtin_memcpy(&result, source, sizeof(result));
    return result;
}

inline void store(float* target, Floats value) { __builtin_memcpy(target, &value, sizeof(value)); }

// Rounds to nearest, ties to even; a NaN stays one.
inline void store(BFloat16* target, Floats value) {
#if defined(__AVX512BF16__)
    const __m256bh half = _mm512_cvtneps_pbh((__m512)value);
    __builtin_memcpy(target, &half, sizeof(half));
#else
    const Words bits = (Words)value;
    const Words rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    const Words result = value != value ? Words{} + 0x7FC0 : rounded;
    const HalfWords half = __builtin_convertvector(result, HalfWords);
    __builtin_memcpy(target, &half, sizeof(half));
#endif
}

// The first `count` elements; zero, or -1 for integers, in the other lanes.
template <class T>
inline Floats load_some(const T* source, int64_t count) {
    Floats result = {};
    for (int64_t i = 0; i < count; ++i) result[i] = to_float(source[i]);
    return result;
}

inline Ints load_some(const int32_t* source, int64_t count) {
    Ints result = Ints{} - 1;
    for (int64_t i = 0; i < count; ++i) result[i] = source[i];
    return result;
}

template <class T>
inline void store_some(T* target, int64_t count, Floats value) {
    T lanes[kFloats];
    store(lanes, value);
    for (int64_t i = 0; i < count; ++i) target[i] = lanes[i];
}

#if defined(__AVX512F__)
inline Floats load_some(const float* source, int64_t count) {
    return (Floats)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), source);
}

inline void store_some(float* target, int64_t count, Floats value) {
    _mm512_mask_storeu_ps(target, static_cast<__mmask16>((1u << count) - 1), (__m512)value);
}
#elif defined(__AVX2__)
inline __m256i first_lanes(int64_t count) {
    const Ints lanes = {0, 1, 2, 3, 4, 5, 6, 7};
    return (__m256i)(lanes < static_cast<int32_t>(count));
}

inline Floats load_some(const float* source, int64_t count) {
    return (Floats)_mm256_maskload_ps(source, first_lanes(count));
}

inline void store_some(float* target, int64_t count, Floats value) {
    _mm256_maskstore_ps(target, first_lanes(count), (__m256)value);
}
#endif

// Calls each(i, lanes) for the vectors of a run; the last one may be partial.
template <class Each>
inline void for_vectors(int64_t first, int64_t count, const Each& each) {
    const int64_t end = first + count;
    int64_t i = first;
    for (; i + kFloats <= end; i += kFloats) each(i, kFloats);
    if (i < end) each(i, end - i);
}

template <class T>
inline Floats load_lanes(const T* source, int64_t lanes) {
    return lanes == kFloats ? load(source) : load_some(source, lanes);
}

inline Ints load_lanes(const int32_t* source, int64_t lanes) {
    return lanes == kFloats ? load(source) : load_some(source, lanes);
}

template <class T>
inline void store_lanes(T* target, int64_t lanes, Floats value) {
    if (lanes == kFloats) {
        store(target, value);
    } else {
        store_some(target, lanes, value);
    }
}

#if defined(__AVX512F__)
inline Floats smaller(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
inline Floats larger(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
inline Ints smaller(Ints a, Ints b) { return (Ints)_mm512_min_epi32((__m512i)a, (__m512i)b); }
inline Ints larger(Ints a, Ints b) { return (Ints)_mm512_max_epi32((__m512i)a, (__m512i)b); }
#elif defined(__AVX2__)
inline Floats smaller(Floats a, Floats b) { return (Floats)_mm256_min_ps((__m256)a, (__m256)b); }
inline Floats larger(Floats a, Floats b) { return (Floats)_mm256_max_ps((__m256)a, (__m256)b); }
inline Ints smaller(Ints a, Ints b) { return (Ints)_mm256_min_epi32((__m256i)a, (__m256i)b); }
inline Ints larger(Ints a, Ints b) { return (Ints)_mm256_max_epi32((__m256i)a, (__m256i)b); }
#else
inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
inline Ints smaller(Ints a, Ints b) { return a < b ? a : b; }
inline Ints larger(Ints a, Ints b) { return a > b ? a : b; }
#endif
inline Floats magnitude(Floats a) { return (Floats)((Words)a & 0x7FFFFFFFu); }

inline void widen(Floats value, Doubles& low, Doubles& high) {
    LowFloats halves[2];
    __builtin_memcpy(halves, &value, sizeof(value));
    low = __builtin_convertvector(halves[0], Doubles);
    high = __builtin_convertvector(halves[1], Doubles);
}

// The lanes, added in an order that is the same every time.
inline double sum_of(Doubles value) {
    double total = 0.0;
    for (int i = 0; i < kFloats / 2; ++i) total += value[i];
    return total;
}

inline double sum_of(Floats value) {
    Doubles low, high;
    widen(value, low, high);
    return sum_of(low + high);
}

// The largest lane, and the lanes' sum in float32.
#if defined(__AVX512F__)
inline float most_of(Floats value) { return _mm512_reduce_max_ps((__m512)value); }
inline float total_of(Floats value) { return _mm512_reduce_add_ps((__m512)value); }
#elif defined(__AVX__)
// The two halves side by side, and again, until one is left.
template <class Join>
inline float joined(Floats value, const Join& join) {
    const __m256 all = (__m256)value;
    const __m128 four = join(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
    const __m128 two = join(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(join(two, _mm_movehdup_ps(two)));
}
inline float most_of(Floats value) {
    return joined(value, [](__m128 a, __m128 b) { return _mm_max_ps(a, b); });
}
inline float total_of(Floats value) {
    return joined(value, [](__m128 a, __m128 b) { return _mm_add_ps(a, b); });
}
#else
inline float most_of(Floats value) {
    float most = value[0];
    for (int i = 1; i < kFloats; ++i) most = most < value[i] ? value[i] : most;
    return most;
}
inline float total_of(Floats value) {
    float pairs[kFloats / 2];
    for (int i = 0; i < kFloats / 2; ++i) pairs[i] = value[i] + value[i + kFloats / 2];
    for (int half = kFloats / 4; half > 0; half /= 2) {
        for (int i = 0; i < half; ++i) pairs[i] += pairs[i + half];
    }
    return pairs[0];
}
#endif

// e^x to 2 units in the last place, for x up to 88; towards 0 where it underflows. The polynomial
// is that of Cephes' expf. A NaN stays one: of the arguments of larger() the second is kept.
inline Floats exp_of(Floats x) {
#if defined(__AVX512F__)
    x = larger(broadcast(-104.0f), x);
    const Floats n = (Floats)_mm512_roundscale_ps((__m512)(x * 1.44269504f), 0);
#else
    x = larger(broadcast(-87.33654f), x);
    const Floats magic = broadcast(12582912.0f);  // 1.5 * 2^23: the sum is rounded to an integer,
    const Floats shifted = x * 1.44269504f + magic;
    const Floats n = shifted - magic;
#endif
    Floats r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    Floats p = broadcast(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + (r + 1.0f);
#if defined(__AVX512F__)
    return (Floats)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    const Ints scale = ((Ints)shifted << 23) + (127 << 23);  // which is in its lowest bits
    return p * (Floats)scale;
#endif
}

// 1 / x of x from 1 to 2^126, to 2 units in the last place: an estimate, and a step of Newton's.
inline Floats inverse_of(Floats x) {
#if defined(__AVX512F__)
    const Floats estimate = (Floats)_mm512_rcp14_ps((__m512)x);
#elif defined(__AVX2__)
    const Floats estimate = (Floats)_mm256_rcp_ps((__m256)x);
#endif
#if defined(__AVX2__)
    return estimate + estimate * (1.0f - x * estimate);
#else
    return 1.0f / x;
#endif
}

// 2^t of t up to 127, from a whole number and a polynomial of the rest. `terms` of the polynomial
// give one part in 10^7 (6), or in 14000 (4), which is enough for what is rounded to bfloat16. They
// were fitted for the least relative error.
template <int terms>
inline Floats power_of_two(Floats t) {
#if defined(__AVX512F__)
    t = larger(broadcast(-150.0f), t);
    const Floats n = (Floats)_mm512_roundscale_ps((__m512)t, 0);
#else
    const Floats magic = broadcast(12582912.0f);  // see exp_of
    t = larger(broadcast(-126.0f), t);
    const Floats shifted = t + magic;
    const Floats n = shifted - magic;
#endif
    const Floats f = t - n;
    Floats p;
    if constexpr (terms == 6) {
        p = f * 0.00132764718f + 0.00967554133f;
        p = p * f + 0.0555071327f;
        p = p * f + 0.240221197f;
        p = p * f + 0.693146967f;
        p = p * f + 1.00000007f;
    } else {
        p = f * 0.05517166f + 0.24261112f;
        p = p * f + 0.69326099f;
        p = p * f + 0.99992807f;
    }
#if defined(__AVX512F__)
    return (Floats)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    return p * (Floats)(((Ints)shifted << 23) + (127 << 23));
#endif
}

// 1 / (1 + e^-x), with the terms of power_of_two.
template <int terms = 6>
inline Floats sigmoid_of(Floats x) {
    const Floats d = 1.0f + power_of_two<terms>(smaller(x * -1.44269504f, broadcast(115.0f)));
#if defined(__AVX512F__)
    if constexpr (terms != 6) return (Floats)_mm512_rcp14_ps((__m512)d);
#endif
    return inverse_of(d);
}

// ln x of positive normal x. The polynomial is that of Cephes' logf.
inline Floats log_of(Floats x) {
    const Ints half_root = Ints{} + 0x3F3504F3;  // sqrt(1/2), the lower end of the mantissa's range
    const Ints exponent = ((Ints)x - half_root) >> 23;
    const Floats f = (Floats)((Ints)x - (exponent << 23)) - 1.0f;
    const Floats e = __builtin_convertvector(exponent, Floats);
    Floats p = broadcast(7.0376836292e-2f);
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    const Floats z = f * f;
    Floats tail = p * f * z;
    tail = tail + e * -2.12194440e-4f;
    tail = tail - 0.5f * z;
    return e * 0.693359375f + (f + tail);
}

}  // namespace
