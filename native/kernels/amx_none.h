// No AMX. Included by vec.h alone.
#pragma once

namespace stapes::STAPES_ISA {

inline constexpr bool HAS_AMX = false;

struct Amx {
    static void shape(int) {}
    static void release() {}
};

}  // namespace stapes::STAPES_ISA
