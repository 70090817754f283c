// Any processor: four lanes in the compiler's own vector types, which become SSE2 on x86-64 and NEON on Arm.
// Included by vec.h alone.
#pragma once

namespace stapes::STAPES_ISA {

inline constexpr int W = 4;  // lanes of four bytes
inline constexpr int N_REGISTERS = 16;
inline constexpr bool MULTIPLIES_I8 = false, MULTIPLIES_BF16 = false, PREFERS_I16 = true;
inline constexpr int ACTIVATION_ZERO = 0;

typedef float F32Lanes __attribute__((vector_size(16)));
typedef std::int32_t I32Lanes __attribute__((vector_size(16)));
typedef std::uint32_t U32Lanes __attribute__((vector_size(16)));
typedef std::int16_t I16Lanes __attribute__((vector_size(16)));
typedef double F64Lanes __attribute__((vector_size(16)));

struct F32 { F32Lanes v; };
struct I32 { I32Lanes v; };
struct F64 { F64Lanes v; };
struct Mask { I32Lanes v; };

STAPES_INLINE F32 load(const float* p) {
    F32 x;
    std::memcpy(&x.v, p, 16);
    return x;
}
STAPES_INLINE void store(float* p, F32 x) { std::memcpy(p, &x.v, 16); }
STAPES_INLINE F32 set1(float x) { return {F32Lanes{x, x, x, x}}; }
STAPES_INLINE F32 operator+(F32 a, F32 b) { return {a.v + b.v}; }
STAPES_INLINE F32 operator-(F32 a, F32 b) { return {a.v - b.v}; }
STAPES_INLINE F32 operator*(F32 a, F32 b) { return {a.v * b.v}; }
STAPES_INLINE F32 operator/(F32 a, F32 b) { return {a.v / b.v}; }
STAPES_INLINE F32 quotient_rough(F32 a, F32 b) { return a / b; }
// Not fused where the processor cannot: std::fma in software would take a hundred times as long.
STAPES_INLINE F32 fma(F32 a, F32 b, F32 c) { return {a.v * b.v + c.v}; }
STAPES_INLINE Mask less(F32 a, F32 b) { return {a.v < b.v}; }
STAPES_INLINE Mask is_nan(F32 a) { return {a.v != a.v}; }
STAPES_INLINE F32 select(Mask where, F32 yes, F32 no) {
    const auto bits = (where.v & std::bit_cast<I32Lanes>(yes.v)) | (~where.v & std::bit_cast<I32Lanes>(no.v));
    return {std::bit_cast<F32Lanes>(bits)};
}
// Like x86's: the second operand where either is NaN.
STAPES_INLINE F32 min(F32 a, F32 b) { return select(less(a, b), a, b); }
STAPES_INLINE F32 max(F32 a, F32 b) { return select(less(b, a), a, b); }
STAPES_INLINE F32 abs(F32 a) {
    return {std::bit_cast<F32Lanes>(std::bit_cast<I32Lanes>(a.v) &
                                    I32Lanes{0x7fffffff, 0x7fffffff, 0x7fffffff, 0x7fffffff})};
}
STAPES_INLINE F32 sqrt(F32 a) {
    return {
        F32Lanes{__builtin_sqrtf(a.v[0]), __builtin_sqrtf(a.v[1]), __builtin_sqrtf(a.v[2]), __builtin_sqrtf(a.v[3])}};
}
// To the nearest integer, ties to even, for |a| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
STAPES_INLINE F32 round(F32 a) {
    const F32 shift = set1(12582912.0f);
    F32 moved = a + shift;
    __asm__("" : "+m"(moved));  // the compiler may not see through it
    return moved - shift;
}
// Lanes below n.
STAPES_INLINE Mask first_lanes(int n) { return {I32Lanes{0, 1, 2, 3} < I32Lanes{n, n, n, n}}; }
STAPES_INLINE float sum(F32 a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
STAPES_INLINE float largest(F32 a) {
    const float x = a.v[0] > a.v[1] ? a.v[0] : a.v[1], y = a.v[2] > a.v[3] ? a.v[2] : a.v[3];
    return x > y ? x : y;
}

STAPES_INLINE I32 zero_i32() { return {I32Lanes{0, 0, 0, 0}}; }
STAPES_INLINE I32 load_i32(const void* p) {
    I32 x;
    std::memcpy(&x.v, p, 16);
    return x;
}
STAPES_INLINE void store_i32(void* p, I32 x) { std::memcpy(p, &x.v, 16); }
STAPES_INLINE I32 set1_i32(std::int32_t x) { return {I32Lanes{x, x, x, x}}; }
// Sums wrap around, as a processor's do: signed lanes may not.
STAPES_INLINE I32 operator+(I32 a, I32 b) {
    return {std::bit_cast<I32Lanes>(std::bit_cast<U32Lanes>(a.v) + std::bit_cast<U32Lanes>(b.v))};
}
STAPES_INLINE I32 operator-(I32 a, I32 b) {
    return {std::bit_cast<I32Lanes>(std::bit_cast<U32Lanes>(a.v) - std::bit_cast<U32Lanes>(b.v))};
}
STAPES_INLINE F32 to_f32(I32 a) { return {__builtin_convertvector(a.v, F32Lanes)}; }
// To the nearest integer; the lowest number for NaN and what does not fit, as on x86.
STAPES_INLINE I32 to_i32(F32 a) {
    const F32 rounded = round(a);
    I32 x;
    for (int i = 0; i < W; ++i) {
        const float one = rounded.v[i];
        x.v[i] = one >= -2147483648.0f && one < 2147483648.0f ? static_cast<std::int32_t>(one) : INT32_MIN;
    }
    return x;
}
STAPES_INLINE I32 bits_of(F32 a) { return {std::bit_cast<I32Lanes>(a.v)}; }
STAPES_INLINE F32 from_bits(I32 a) { return {std::bit_cast<F32Lanes>(a.v)}; }
STAPES_INLINE I32 operator<<(I32 a, int n) { return {a.v << n}; }
STAPES_INLINE I32 operator>>(I32 a, int n) { return {a.v >> n}; }
// W int32 in -128..255 -> W bytes.
STAPES_INLINE void store_bytes(void* p, I32 x) {
    for (int i = 0; i < W; ++i) static_cast<std::uint8_t*>(p)[i] = static_cast<std::uint8_t>(x.v[i]);
}
// W int32 in -32768..32767 -> W 16-bit integers; in every four, the second and the third change places.
STAPES_INLINE void store_interleaved(void* p, I32 x) {
    const std::int16_t interleaved[W] = {static_cast<std::int16_t>(x.v[0]), static_cast<std::int16_t>(x.v[2]),
                                         static_cast<std::int16_t>(x.v[1]), static_cast<std::int16_t>(x.v[3])};
    std::memcpy(p, interleaved, sizeof interleaved);
}
// 2 W of them, one vector's after the other's.
STAPES_INLINE void store_two_interleaved(void* p, I32 a, I32 b) {
    store_interleaved(p, a);
    store_interleaved(static_cast<std::int16_t*>(p) + W, b);
}
// a * 2^n for n in -126..128: in two factors, so that 2^128 is none.
STAPES_INLINE F32 scale_by_power_of_two(F32 a, F32 n) {
    const I32Lanes exponent = to_i32(n).v, half = exponent >> 1, rest = exponent - half;
    const auto one = std::bit_cast<F32Lanes>((half + 127) << 23), two = std::bit_cast<F32Lanes>((rest + 127) << 23);
    return {a.v * one * two};
}

STAPES_INLINE F32 load_f16(const void* p) {
    f16 bits[W];
    std::memcpy(bits, p, sizeof bits);
    return {F32Lanes{to_float(bits[0]), to_float(bits[1]), to_float(bits[2]), to_float(bits[3])}};
}
STAPES_INLINE void store_bf16(void* p, F32 x) {
    const bf16 bits[W] = {to_bf16(x.v[0]), to_bf16(x.v[1]), to_bf16(x.v[2]), to_bf16(x.v[3])};
    std::memcpy(p, bits, sizeof bits);
}

// One four-byte group of a row of A in every lane.
STAPES_INLINE I32 broadcast_group(const void* p) {
    std::int32_t bits;
    std::memcpy(&bits, p, 4);
    return set1_i32(bits);
}

STAPES_INLINE F32 dot_f32(F32 acc, I32 a, F32 b) { return fma(F32{std::bit_cast<F32Lanes>(a.v)}, b, acc); }
// Numbers lie lowest first, as on every little-endian processor.
STAPES_INLINE I32 dot_i16(I32 acc, I32 a, I32 b) {
    return {acc.v + ((a.v << 16) >> 16) * ((b.v << 16) >> 16) + (a.v >> 16) * (b.v >> 16)};
}
// The even or the odd ones of a vector of bytes, as 16-bit integers.
STAPES_INLINE I32 even_bytes(I32 a) { return {std::bit_cast<I32Lanes>((std::bit_cast<I16Lanes>(a.v) << 8) >> 8)}; }
STAPES_INLINE I32 odd_bytes(I32 a) { return {std::bit_cast<I32Lanes>(std::bit_cast<I16Lanes>(a.v) >> 8)}; }
// The even or the odd ones of a vector of bfloat16.
STAPES_INLINE F32 even_bf16(I32 a) { return {std::bit_cast<F32Lanes>(a.v << 16)}; }
STAPES_INLINE F32 odd_bf16(I32 a) { return {std::bit_cast<F32Lanes>(a.v & -65536)}; }

STAPES_INLINE F64 load_f64(const float* p) { return {F64Lanes{p[0], p[1]}}; }
STAPES_INLINE void store_f32(float* p, F64 x) {
    p[0] = static_cast<float>(x.v[0]);
    p[1] = static_cast<float>(x.v[1]);
}
STAPES_INLINE F64 set1_f64(double x) { return {F64Lanes{x, x}}; }
STAPES_INLINE F64 operator+(F64 a, F64 b) { return {a.v + b.v}; }
STAPES_INLINE F64 operator-(F64 a, F64 b) { return {a.v - b.v}; }
STAPES_INLINE F64 operator*(F64 a, F64 b) { return {a.v * b.v}; }
STAPES_INLINE F64 fma(F64 a, F64 b, F64 c) { return {a.v * b.v + c.v}; }

}  // namespace stapes::STAPES_ISA
