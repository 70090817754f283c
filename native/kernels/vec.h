// The thin vector type that every kernel is written over: one set of names, an implementation for each instruction set.
//
// A kernel source is compiled once for each set, with STAPES_ISA naming the namespace its code lives in. Nothing
// outside this file and the ones it includes knows what processor it runs on.
//
//   F32          W floats                      load, store, set1, arithmetic, fma, min, max, sqrt, round, select, sums
//   quotient_rough                             a / b to 2^-14, where that is quicker
//   I32          W 32-bit integers             what four-byte groups are added up in
//   F64          W / 2 doubles                 load from floats, store as floats, arithmetic, fma: for transforms
//   load_f16, store_bf16                       other storage types, converted
//   dot_f32 / dot_bf16 / dot_i8 / dot_i16      acc + sum over one four-byte group of a times the same group of b
//   even_bytes, odd_bf16, ...                  groups of two or four taken apart, for sets that do not multiply them
//   HAS_AMX, Amx                               AMX instructions, for processors that have them (amx.h)
//
// A "group" is the unit of every matrix product here: four bytes along the inner dimension, one float32, two bfloat16
// or 16-bit integers, or four int8. That makes one micro-kernel serve all of them (matrix.cpp).
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "floats.h"

#ifndef STAPES_ISA
#error "STAPES_ISA names the instruction set's namespace"
#endif

#define STAPES_INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__)
#include "vec_avx512.h"
#elif defined(__AVX2__)
#include "vec_avx2.h"
#else
#include "vec_portable.h"
#endif

#if defined(STAPES_AMX)
#include "amx_instructions.h"
#else
#include "amx_none.h"
#endif

namespace stapes::STAPES_ISA {

// exp(x) = fraction * 2^power for x in -88.7..88.7; what comes of NaN is no number. The polynomial of the fraction, and
// ln 2 in two parts, are the coefficients of expf in the Cephes library.
struct Exponential { F32 fraction, power; };
STAPES_INLINE Exponential exp_in_parts(F32 x) {
    const F32 n = round(x * set1(1.44269504f));
    F32 r = fma(n, set1(-0.693359375f), x);
    r = fma(n, set1(2.12194440e-4f), r);
    F32 p = set1(1.9875691500e-4f);
    p = fma(p, r, set1(1.3981999507e-3f));
    p = fma(p, r, set1(8.3334519073e-3f));
    p = fma(p, r, set1(4.1665795894e-2f));
    p = fma(p, r, set1(1.6666665459e-1f));
    p = fma(p, r, set1(5.0000001201e-1f));
    return {fma(p, r * r, r + set1(1.0f)), n};
}

// exp(x) for x <= 88.7 within 2 units in the last place; 0 below -87.3, so that an exponential of -infinity is 0. NaN
// stays NaN: of two operands of which one is none, `max` and `min` give the second.
STAPES_INLINE F32 exp_below_overflow(F32 x) {
    const Exponential parts = exp_in_parts(max(set1(-87.33654f), x));
    return select(less(x, set1(-87.33654f)), set1(0.0f), scale_by_power_of_two(parts.fraction, parts.power));
}

// The same for any x: +infinity above 88.7.
STAPES_INLINE F32 exp(F32 x) {
    return select(less(set1(88.72283f), x), set1(INFINITY), exp_below_overflow(min(set1(88.72283f), x)));
}

// exp(x) for x <= 0, to 1e-5 of its size, and 1 of 0: enough beside keys and values of bfloat16 or int8.
STAPES_INLINE F32 exp_rough(F32 x) {
    const F32 scaled = max(x, set1(-87.0f)) * set1(1.44269504f);
    const F32 n = round(scaled);
    const F32 r = scaled - n;
    F32 p = set1(0.009585382f);
    p = fma(p, r, set1(0.055906627f));
    p = fma(p, r, set1(0.24024038f));
    p = fma(p, r, set1(0.6931242f));
    p = fma(p, r, set1(1.0f));
    return scale_by_power_of_two(p, n);
}

}  // namespace stapes::STAPES_ISA
