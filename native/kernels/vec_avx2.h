// AVX2 with FMA and F16C; AVX-VNNI where it is compiled for it. Included by vec.h alone.
#pragma once

#include <immintrin.h>

namespace stapes::STAPES_ISA {

inline constexpr int W = 8;  // lanes of four bytes
inline constexpr int N_REGISTERS = 16;
#if defined(__AVXVNNI__)
inline constexpr bool MULTIPLIES_I8 = true, MULTIPLIES_BF16 = true;
inline constexpr bool PREFERS_I16 = true;    // to bfloat16, which takes several instructions
inline constexpr int ACTIVATION_ZERO = 128;  // int8 activations are stored unsigned, with this added
#else
inline constexpr bool MULTIPLIES_I8 = false, MULTIPLIES_BF16 = false;
inline constexpr bool PREFERS_I16 = true;
inline constexpr int ACTIVATION_ZERO = 0;
#endif

struct F32 { __m256 v; };
struct I32 { __m256i v; };
struct F64 { __m256d v; };
struct Mask { __m256 v; };

STAPES_INLINE F32 load(const float* p) { return {_mm256_loadu_ps(p)}; }
STAPES_INLINE void store(float* p, F32 x) { _mm256_storeu_ps(p, x.v); }
STAPES_INLINE F32 set1(float x) { return {_mm256_set1_ps(x)}; }
STAPES_INLINE F32 operator+(F32 a, F32 b) { return {_mm256_add_ps(a.v, b.v)}; }
STAPES_INLINE F32 operator-(F32 a, F32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
STAPES_INLINE F32 operator*(F32 a, F32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
STAPES_INLINE F32 operator/(F32 a, F32 b) { return {_mm256_div_ps(a.v, b.v)}; }
STAPES_INLINE F32 quotient_rough(F32 a, F32 b) { return a / b; }
STAPES_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
STAPES_INLINE F32 min(F32 a, F32 b) { return {_mm256_min_ps(a.v, b.v)}; }
STAPES_INLINE F32 max(F32 a, F32 b) { return {_mm256_max_ps(a.v, b.v)}; }
STAPES_INLINE F32 abs(F32 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
STAPES_INLINE F32 sqrt(F32 a) { return {_mm256_sqrt_ps(a.v)}; }
STAPES_INLINE F32 round(F32 a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
STAPES_INLINE Mask less(F32 a, F32 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
STAPES_INLINE Mask is_nan(F32 a) { return {_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)}; }
STAPES_INLINE F32 select(Mask where, F32 yes, F32 no) { return {_mm256_blendv_ps(no.v, yes.v, where.v)}; }
// Lanes below n.
STAPES_INLINE Mask first_lanes(int n) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lanes))};
}
STAPES_INLINE float sum(F32 a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
STAPES_INLINE float largest(F32 a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
// a * 2^n where a and the result are normal numbers: n is added to the exponent, and may be 128 where a is below 1. NaN
// stays NaN.
STAPES_INLINE F32 scale_by_power_of_two(F32 a, F32 n) {
    return {_mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(a.v), _mm256_slli_epi32(_mm256_cvtps_epi32(n.v), 23)))};
}

STAPES_INLINE F32 load_f16(const void* p) { return {_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)))}; }
STAPES_INLINE void store_bf16(void* p, F32 x) {
    const __m256i bits = _mm256_castps_si256(x.v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
    const __m256i kept = _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(is_nan(x).v));
    const __m128i low = _mm256_castsi256_si128(kept), high = _mm256_extracti128_si256(kept, 1);
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm_packus_epi32(low, high));
}

STAPES_INLINE I32 zero_i32() { return {_mm256_setzero_si256()}; }
STAPES_INLINE I32 load_i32(const void* p) { return {_mm256_loadu_si256(static_cast<const __m256i*>(p))}; }
STAPES_INLINE void store_i32(void* p, I32 x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x.v); }
STAPES_INLINE I32 set1_i32(std::int32_t x) { return {_mm256_set1_epi32(x)}; }
STAPES_INLINE I32 operator+(I32 a, I32 b) { return {_mm256_add_epi32(a.v, b.v)}; }
STAPES_INLINE I32 operator-(I32 a, I32 b) { return {_mm256_sub_epi32(a.v, b.v)}; }
STAPES_INLINE F32 to_f32(I32 a) { return {_mm256_cvtepi32_ps(a.v)}; }
STAPES_INLINE I32 to_i32(F32 a) { return {_mm256_cvtps_epi32(a.v)}; }
STAPES_INLINE I32 bits_of(F32 a) { return {_mm256_castps_si256(a.v)}; }
STAPES_INLINE F32 from_bits(I32 a) { return {_mm256_castsi256_ps(a.v)}; }
STAPES_INLINE I32 operator<<(I32 a, int n) { return {_mm256_slli_epi32(a.v, n)}; }
STAPES_INLINE I32 operator>>(I32 a, int n) { return {_mm256_srai_epi32(a.v, n)}; }
// W int32 in -128..255 -> W bytes.
STAPES_INLINE void store_bytes(void* p, I32 x) {
    const __m256i low_bytes =
        _mm256_shuffle_epi8(x.v, _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8,
                                                  12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));
    const __m128i joined =
        _mm_unpacklo_epi32(_mm256_castsi256_si128(low_bytes), _mm256_extracti128_si256(low_bytes, 1));
    _mm_storel_epi64(static_cast<__m128i*>(p), joined);
}

// W int32 in -32768..32767 -> W 16-bit integers; in every four, the second and the third change places.
STAPES_INLINE void store_interleaved(void* p, I32 x) {
    const __m256i halves =
        _mm256_shuffle_epi8(x.v, _mm256_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1, 0, 1, 8, 9,
                                                  4, 5, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1));
    _mm_storeu_si128(static_cast<__m128i*>(p),
                     _mm_unpacklo_epi64(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)));
}
// 2 W of them, one vector's after the other's.
STAPES_INLINE void store_two_interleaved(void* p, I32 a, I32 b) {
    const __m256i joined = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.v, b.v), 0xd8);
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0, 1, 4, 5, 2, 3, 6, 7,
                                           8, 9, 12, 13, 10, 11, 14, 15);
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm256_shuffle_epi8(joined, order));
}

// One four-byte group of a row of A in every lane.
STAPES_INLINE I32 broadcast_group(const void* p) {
    std::int32_t bits;
    std::memcpy(&bits, p, 4);
    return {_mm256_set1_epi32(bits)};
}

STAPES_INLINE F32 dot_f32(F32 acc, I32 a, F32 b) { return {_mm256_fmadd_ps(_mm256_castsi256_ps(a.v), b.v, acc.v)}; }
#if defined(__AVXVNNI__)
STAPES_INLINE F32 dot_bf16(F32 acc, I32 a, I32 b) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    const __m256 a0 = _mm256_castsi256_ps(_mm256_slli_epi32(a.v, 16)),
                 b0 = _mm256_castsi256_ps(_mm256_slli_epi32(b.v, 16));
    const __m256 a1 = _mm256_castsi256_ps(_mm256_and_si256(a.v, high)),
                 b1 = _mm256_castsi256_ps(_mm256_and_si256(b.v, high));
    return {_mm256_fmadd_ps(a1, b1, _mm256_fmadd_ps(a0, b0, acc.v))};
}
STAPES_INLINE I32 dot_i8(I32 acc, I32 a, I32 b) { return {_mm256_dpbusd_avx_epi32(acc.v, a.v, b.v)}; }
STAPES_INLINE I32 dot_i16(I32 acc, I32 a, I32 b) { return {_mm256_dpwssd_avx_epi32(acc.v, a.v, b.v)}; }
#else
STAPES_INLINE I32 dot_i16(I32 acc, I32 a, I32 b) { return {_mm256_add_epi32(acc.v, _mm256_madd_epi16(a.v, b.v))}; }
#endif

// The even or the odd ones of a vector of bytes, as 16-bit integers.
STAPES_INLINE I32 even_bytes(I32 a) { return {_mm256_srai_epi16(_mm256_slli_epi16(a.v, 8), 8)}; }
STAPES_INLINE I32 odd_bytes(I32 a) { return {_mm256_srai_epi16(a.v, 8)}; }
// The even or the odd ones of a vector of bfloat16.
STAPES_INLINE F32 even_bf16(I32 a) { return {_mm256_castsi256_ps(_mm256_slli_epi32(a.v, 16))}; }
STAPES_INLINE F32 odd_bf16(I32 a) { return {_mm256_castsi256_ps(_mm256_and_si256(a.v, _mm256_set1_epi32(-65536)))}; }

STAPES_INLINE F64 load_f64(const float* p) { return {_mm256_cvtps_pd(_mm_loadu_ps(p))}; }
STAPES_INLINE void store_f32(float* p, F64 x) { _mm_storeu_ps(p, _mm256_cvtpd_ps(x.v)); }
STAPES_INLINE F64 set1_f64(double x) { return {_mm256_set1_pd(x)}; }
STAPES_INLINE F64 operator+(F64 a, F64 b) { return {_mm256_add_pd(a.v, b.v)}; }
STAPES_INLINE F64 operator-(F64 a, F64 b) { return {_mm256_sub_pd(a.v, b.v)}; }
STAPES_INLINE F64 operator*(F64 a, F64 b) { return {_mm256_mul_pd(a.v, b.v)}; }
STAPES_INLINE F64 fma(F64 a, F64 b, F64 c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }

}  // namespace stapes::STAPES_ISA
