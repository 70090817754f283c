// No matrix unit. Included by vec.h alone.
#pragma once

namespace stapes::STAPES_ISA {

inline constexpr bool HAS_UNIT = false;

struct Unit {
    static void shape(int) {}
    static void release() {}
};

}  // namespace stapes::STAPES_ISA
