// bfloat16 as raw bits. Everything is in an unnamed namespace: each kernel file is compiled for its
// own instruction set, so no function may be merged with that of another file.

#pragma once

#include <bit>
#include <cstdint>

namespace {

struct BFloat16 {
    uint16_t bits;
};

inline float to_float(float value) { return value; }

inline float to_float(BFloat16 value) {
    return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

inline void store(float* target, float value) { *target = value; }

// Rounds to nearest, ties to even; a NaN stays one.
inline void store(BFloat16* target, float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    target->bits = static_cast<uint16_t>(value != value ? 0x7FC0 : rounded);
}

}  // namespace
