// AMX: eight tile registers of 16 rows of 64 bytes, and what multiplies them. Included by vec.h alone.
//
// Written as instructions: GCC's intrinsics take a register's number as text, and do not say that they read memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace stapes::STAPES_ISA {

inline constexpr bool HAS_AMX = true;

// The rows of each register and their bytes, as the processor reads them.
struct alignas(64) Shape {
    std::uint8_t palette = 1, start_row = 0;
    std::array<std::uint8_t, 14> reserved{};
    std::array<std::uint16_t, 16> row_bytes{};
    std::array<std::uint8_t, 16> rows{};
};
static_assert(sizeof(Shape) == 64);

// By the rows that are multiplied: registers 0, 1 and 4 hold the first 16 of them, 2, 3 and 5 the others; 6 and 7 are
// whole.
inline constexpr std::array<Shape, 33> SHAPES = [] {
    std::array<Shape, 33> made{};
    for (std::size_t n_rows = 0; n_rows < made.size(); ++n_rows) {
        const std::size_t above = n_rows < 16 ? n_rows : 16;
        for (std::size_t i = 0; i < 8; ++i) {
            const std::size_t rows = i >= 6 ? 16 : i == 2 || i == 3 || i == 5 ? n_rows - above : above;
            made[n_rows].rows[i] = static_cast<std::uint8_t>(rows);
            made[n_rows].row_bytes[i] = rows == 0 ? 0 : 64;
        }
    }
    return made;
}();

class Amx {
  public:
    // Clears all registers.
    static void shape(int n_rows) {
        __asm__ volatile("ldtilecfg %0" : : "m"(SHAPES[static_cast<std::size_t>(n_rows)]) : "memory");
    }
    static void release() { __asm__ volatile("tilerelease" : : : "memory"); }

    template <int REGISTER>
    static void zero() {
        __asm__ volatile("tilezero %%tmm%c0" : : "i"(REGISTER));
    }
    // stride: bytes from one row to the next.
    template <int REGISTER>
    static void load(const void* p, std::size_t stride) {
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(REGISTER) : "memory");
    }
    template <int REGISTER>
    static void store(void* p, std::size_t stride) {
        __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(REGISTER) : "memory");
    }
    // sums += a . b: of unsigned with signed bytes, or of bfloat16.
    template <int SUMS, int A, int B>
    static void dot_i8() {
        __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUMS), "i"(A), "i"(B));
    }
    template <int SUMS, int A, int B>
    static void dot_bf16() {
        __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUMS), "i"(A), "i"(B));
    }
};

}  // namespace stapes::STAPES_ISA
