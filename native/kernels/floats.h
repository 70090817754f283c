// bfloat16 and float16 as they lie in memory, one number at a time.
//
// Functions here must never be emitted: of several copies, compiled for different instruction sets, the linker keeps
// one.
#pragma once

#include <bit>
#include <cstdint>

namespace stapes {

struct bf16 { std::uint16_t bits; };
struct f16 { std::uint16_t bits; };

[[gnu::always_inline]] inline float to_float(float x) { return x; }

[[gnu::always_inline]] inline float to_float(bf16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }

[[gnu::always_inline]] inline float to_float(f16 x) {
    const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
    const std::uint32_t magnitude = x.bits & 0x7fffu;
    // Multiplying by 2^112 moves float16's exponent bias to float32's, and makes numbers of its subnormals.
    const float scaled = std::bit_cast<float>(magnitude << 13) * std::bit_cast<float>(239u << 23);
    // What was infinite or NaN has its fraction by now, and needs the largest exponent. Written without a branch, so
    // that loops over many numbers become vectors.
    const std::uint32_t largest = magnitude >= 0x7c00u ? 0x7f800000u : 0u;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | largest | sign);
}

// Round to nearest, ties to even; NaN stays NaN.
[[gnu::always_inline]] inline bf16 to_bf16(float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
    return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace stapes
