// The types of numbers in memory, and everything that follows from a type: said here, once.
//
// Functions here must never be emitted: of several copies, compiled for different instruction sets, the linker keeps
// one.
#pragma once

#include <cstdint>
#include <type_traits>

#include "floats.h"

namespace stapes {

#define STAPES_ALWAYS_INLINE [[gnu::always_inline]] inline

enum class Type : std::uint8_t { f32, f16, bf16, i8, i16 };
inline constexpr int N_TYPES = 5;

struct TypeTraits {
    const char* name;
    int size;   // bytes of a value
    int group;  // values that the micro-kernel multiplies together: four bytes, but for f16, which becomes float32
    int steps;  // the largest integer that a weight, key or value is rounded to; 0: not an integer
};

STAPES_ALWAYS_INLINE constexpr TypeTraits traits_of(Type type) {
    switch (type) {
        case Type::f32: return {"f32", 4, 1, 0};
        case Type::f16: return {"f16", 2, 1, 0};
        case Type::bf16: return {"bf16", 2, 2, 0};
        case Type::i8: return {"i8", 1, 4, 127};
        default: return {"i16", 2, 2, 4095};
    }
}

STAPES_ALWAYS_INLINE constexpr int size_of(Type type) { return traits_of(type).size; }
STAPES_ALWAYS_INLINE constexpr int group_of(Type type) { return traits_of(type).group; }
STAPES_ALWAYS_INLINE constexpr bool is_integer(Type type) { return traits_of(type).steps != 0; }

// A value of a type, in C++.
template <Type TYPE>
using ValueOf = std::conditional_t<
    TYPE == Type::f32, float,
    std::conditional_t<
        TYPE == Type::f16, f16,
        std::conditional_t<TYPE == Type::bf16, bf16, std::conditional_t<TYPE == Type::i8, std::int8_t, std::int16_t>>>>;

}  // namespace stapes
