// AVX-512: F, BW, DQ, VL and VNNI; BF16 where it is compiled for it. Included by vec.h alone.
#pragma once

// GCC 12 takes the don't-care operands inside its own intrinsics for uninitialised variables (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

namespace stapes::STAPES_ISA {

inline constexpr int W = 16;  // lanes of four bytes
inline constexpr int N_REGISTERS = 32;
inline constexpr bool MULTIPLIES_I8 = true, MULTIPLIES_BF16 = true;
#if defined(__AVX512BF16__)
inline constexpr bool PREFERS_I16 = false;
#else
inline constexpr bool PREFERS_I16 = true;  // to bfloat16, which takes several instructions
#endif
inline constexpr int ACTIVATION_ZERO = 128;  // int8 activations are stored unsigned, with this added

struct F32 { __m512 v; };
struct I32 { __m512i v; };
struct F64 { __m512d v; };
using Mask = __mmask16;

STAPES_INLINE F32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
STAPES_INLINE void store(float* p, F32 x) { _mm512_storeu_ps(p, x.v); }
STAPES_INLINE F32 set1(float x) { return {_mm512_set1_ps(x)}; }
STAPES_INLINE F32 operator+(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
STAPES_INLINE F32 operator-(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
STAPES_INLINE F32 operator*(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
STAPES_INLINE F32 operator/(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
// To 2^-14 of its size.
STAPES_INLINE F32 quotient_rough(F32 a, F32 b) { return {_mm512_mul_ps(a.v, _mm512_rcp14_ps(b.v))}; }
STAPES_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
STAPES_INLINE F32 min(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
STAPES_INLINE F32 max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
STAPES_INLINE F32 abs(F32 a) { return {_mm512_abs_ps(a.v)}; }
STAPES_INLINE F32 sqrt(F32 a) { return {_mm512_sqrt_ps(a.v)}; }
STAPES_INLINE F32 round(F32 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
STAPES_INLINE F32 scale_by_power_of_two(F32 a, F32 n) { return {_mm512_scalef_ps(a.v, n.v)}; }
STAPES_INLINE Mask less(F32 a, F32 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ); }
STAPES_INLINE Mask is_nan(F32 a) { return _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q); }
STAPES_INLINE F32 select(Mask where, F32 yes, F32 no) { return {_mm512_mask_blend_ps(where, no.v, yes.v)}; }
// Lanes below n.
STAPES_INLINE Mask first_lanes(int n) { return n >= W ? Mask(0xffff) : Mask((1u << n) - 1u); }
STAPES_INLINE float sum(F32 a) { return _mm512_reduce_add_ps(a.v); }
STAPES_INLINE float largest(F32 a) { return _mm512_reduce_max_ps(a.v); }

STAPES_INLINE F32 load_f16(const void* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
}
STAPES_INLINE void store_bf16(void* p, F32 x) {
#if defined(__AVX512BF16__)
    const __m256bh narrow = _mm512_cvtneps_pbh(x.v);
    std::memcpy(p, &narrow, 32);
#else
    const __m512i bits = _mm512_castps_si512(x.v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
    const __m512i kept = _mm512_mask_blend_epi32(is_nan(x), rounded, quiet);
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(kept));
#endif
}

STAPES_INLINE I32 zero_i32() { return {_mm512_setzero_si512()}; }
STAPES_INLINE I32 load_i32(const void* p) { return {_mm512_loadu_si512(p)}; }
STAPES_INLINE void store_i32(void* p, I32 x) { _mm512_storeu_si512(p, x.v); }
STAPES_INLINE I32 set1_i32(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
STAPES_INLINE I32 operator+(I32 a, I32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
STAPES_INLINE I32 operator-(I32 a, I32 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
STAPES_INLINE F32 to_f32(I32 a) { return {_mm512_cvtepi32_ps(a.v)}; }
STAPES_INLINE I32 to_i32(F32 a) { return {_mm512_cvtps_epi32(a.v)}; }
STAPES_INLINE I32 bits_of(F32 a) { return {_mm512_castps_si512(a.v)}; }
STAPES_INLINE F32 from_bits(I32 a) { return {_mm512_castsi512_ps(a.v)}; }
STAPES_INLINE I32 operator<<(I32 a, int n) { return {_mm512_slli_epi32(a.v, static_cast<unsigned>(n))}; }
STAPES_INLINE I32 operator>>(I32 a, int n) { return {_mm512_srai_epi32(a.v, static_cast<unsigned>(n))}; }
// W int32 in -128..255 -> W bytes.
STAPES_INLINE void store_bytes(void* p, I32 x) {
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x.v));
}

// W int32 in -32768..32767 -> W 16-bit integers; in every four, the second and the third change places.
STAPES_INLINE void store_interleaved(void* p, I32 x) {
    const __m256i halves = _mm512_cvtepi32_epi16(x.v);
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(halves, 0xd8), 0xd8));
}
// 2 W of them, one vector's after the other's.
STAPES_INLINE void store_two_interleaved(void* p, I32 a, I32 b) {
    store_interleaved(p, a);
    store_interleaved(static_cast<std::int16_t*>(p) + W, b);
}

// One four-byte group of a row of A in every lane.
STAPES_INLINE I32 broadcast_group(const void* p) {
    std::int32_t bits;
    std::memcpy(&bits, p, 4);
    return {_mm512_set1_epi32(bits)};
}

STAPES_INLINE F32 dot_f32(F32 acc, I32 a, F32 b) { return {_mm512_fmadd_ps(_mm512_castsi512_ps(a.v), b.v, acc.v)}; }
STAPES_INLINE F32 dot_bf16(F32 acc, I32 a, I32 b) {
#if defined(__AVX512BF16__)
    return {_mm512_dpbf16_ps(acc.v, std::bit_cast<__m512bh>(a.v), std::bit_cast<__m512bh>(b.v))};
#else
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    const __m512 a0 = _mm512_castsi512_ps(_mm512_slli_epi32(a.v, 16)),
                 b0 = _mm512_castsi512_ps(_mm512_slli_epi32(b.v, 16));
    const __m512 a1 = _mm512_castsi512_ps(_mm512_and_si512(a.v, high)),
                 b1 = _mm512_castsi512_ps(_mm512_and_si512(b.v, high));
    return {_mm512_fmadd_ps(a1, b1, _mm512_fmadd_ps(a0, b0, acc.v))};
#endif
}
STAPES_INLINE I32 dot_i8(I32 acc, I32 a, I32 b) { return {_mm512_dpbusd_epi32(acc.v, a.v, b.v)}; }
STAPES_INLINE I32 dot_i16(I32 acc, I32 a, I32 b) { return {_mm512_dpwssd_epi32(acc.v, a.v, b.v)}; }

// The even or the odd ones of a vector of bytes, as 16-bit integers.
STAPES_INLINE I32 even_bytes(I32 a) { return {_mm512_srai_epi16(_mm512_slli_epi16(a.v, 8), 8)}; }
STAPES_INLINE I32 odd_bytes(I32 a) { return {_mm512_srai_epi16(a.v, 8)}; }

STAPES_INLINE F64 load_f64(const float* p) { return {_mm512_cvtps_pd(_mm256_loadu_ps(p))}; }
STAPES_INLINE void store_f32(float* p, F64 x) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(x.v)); }
STAPES_INLINE F64 set1_f64(double x) { return {_mm512_set1_pd(x)}; }
STAPES_INLINE F64 operator+(F64 a, F64 b) { return {_mm512_add_pd(a.v, b.v)}; }
STAPES_INLINE F64 operator-(F64 a, F64 b) { return {_mm512_sub_pd(a.v, b.v)}; }
STAPES_INLINE F64 operator*(F64 a, F64 b) { return {_mm512_mul_pd(a.v, b.v)}; }
STAPES_INLINE F64 fma(F64 a, F64 b, F64 c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }

}  // namespace stapes::STAPES_ISA
