// The micro-kernel: a few rows of A times a few vectors of columns of B, every sum in a register of its own.
//
// One source for all types: they differ in how a vector of B is read and in one multiply-add (Op). Sums run over the
// inner dimension in order, so that they do not depend on the tile's size.
#pragma once

#include <array>
#include <utility>

#include "kernels.h"
#include "vec.h"

namespace stapes::STAPES_ISA {

using Byte = std::uint8_t;

inline constexpr int VECTORS_PER_PANEL = PANEL / W;
inline constexpr int MAX_ROWS = N_REGISTERS == 32 ? 12 : 6;  // 24 or 12 sums; the rest holds B and one group of A
inline constexpr int COLUMNS = 2;                            // vectors of B that a tall tile covers
inline constexpr int WIDE_COLUMNS = 8;                       // ... and a single row: enough sums to hide their latency
inline constexpr int TILE_COLUMNS = COLUMNS * W;
inline constexpr int AMX_ROWS = 16;  // of a tile register (amx.h)
inline constexpr int FEW_ROWS_COLUMNS = N_REGISTERS == 16 && VECTORS_PER_PANEL >= 4 ? 4 : COLUMNS;  // ... or a few rows

// W results in a row of f32 or bf16.
STAPES_INLINE void store_as(Type type, void* row, std::size_t column, F32 x) {
    if (type == Type::f32) store(static_cast<float*>(row) + column, x);
    else store_bf16(static_cast<std::uint16_t*>(row) + column, x);
}

struct OpF32 {
    using Sum = F32;
    static constexpr Type TYPE = Type::f32;     // of B
    static constexpr int PARTS = 1;             // groups of A that a group of B is multiplied with, one after another
    static constexpr int MOST_ROWS = MAX_ROWS;  // of a tile
    static constexpr int FEW_ROWS = 3;          // so many rows leave registers for more columns
    static constexpr bool ON_AMX = false;       // runs on AMX
    static constexpr int READS_AHEAD = 0;       // rows of the tallest tile that asks for its share of B before its turn
    static STAPES_INLINE Sum zero() { return set1(0.0f); }
    static STAPES_INLINE Sum read(const void* p) { return load(static_cast<const float*>(p)); }
    static STAPES_INLINE void write(void* p, Sum x) { store(static_cast<float*>(p), x); }
    static STAPES_INLINE auto read_b(const Byte* p, auto) { return load(reinterpret_cast<const float*>(p)); }
    static STAPES_INLINE Sum dot(Sum sum, I32 a, F32 b) { return dot_f32(sum, a, b); }
};

struct OpF16 : OpF32 {
    static constexpr Type TYPE = Type::f16;
    static STAPES_INLINE auto read_b(const Byte* p, auto) { return load_f16(p); }
};

// bfloat16 with float32: two numbers of a column, one after the other.
struct OpBf16Stored : OpF32 {
    static constexpr Type TYPE = Type::bf16;
    static constexpr int PARTS = 2;
    static constexpr int MOST_ROWS = 4;  // compilers spill the sums of larger ones
    static constexpr int FEW_ROWS = 2;
    static STAPES_INLINE auto read_b(const auto* p, auto part) {
        if constexpr (part == 0) return even_bf16(load_i32(p));
        else return odd_bf16(load_i32(p));
    }
};

// Operations that a set may lack are looked up where they are used.
struct OpBf16 : OpF32 {
    static constexpr Type TYPE = Type::bf16;
    static constexpr bool ON_AMX = HAS_AMX;
    static constexpr int MOST_ROWS = ON_AMX ? 2 * AMX_ROWS : MAX_ROWS;
    static STAPES_INLINE auto read_b(const Byte* p, auto) { return load_i32(p); }
    static STAPES_INLINE Sum dot(Sum sum, auto a, auto b) { return dot_bf16(sum, a, b); }
};

struct OpI8 {
    using Sum = I32;
    static constexpr Type TYPE = Type::i8;
    static constexpr int PARTS = 1;
    static constexpr int MOST_ROWS = MAX_ROWS;
    static constexpr int FEW_ROWS = 3;
    static constexpr bool ON_AMX = false;
    static constexpr int READS_AHEAD = MAX_ROWS - 1;  // the tallest are the encoder's: many share what one has read
    static STAPES_INLINE Sum zero() { return zero_i32(); }
    static STAPES_INLINE Sum read(const void* p) { return load_i32(p); }
    static STAPES_INLINE void write(void* p, Sum x) { store_i32(p, x); }
    static STAPES_INLINE auto read_b(const Byte* p, auto) { return load_i32(p); }
    static STAPES_INLINE Sum dot(Sum sum, auto a, auto b) { return dot_i8(sum, a, b); }
};

// Sums of integers are the same wherever they are made: a few rows take what needs no shaping.
struct OpI8Amx : OpI8 {
    static constexpr bool ON_AMX = true;
    static constexpr int MOST_ROWS = 2 * AMX_ROWS;
};

struct OpI16 : OpI8 {
    static constexpr Type TYPE = Type::i16;
    static constexpr int READS_AHEAD = 0;  // a panel that was widened lies in the cache
    static STAPES_INLINE Sum dot(Sum sum, auto a, auto b) { return dot_i16(sum, a, b); }
};

// int8 with 16-bit integers: the first and third number of a column, then the second and fourth.
struct OpI8Stored : OpI16 {
    static constexpr Type TYPE = Type::i8;
    static constexpr int READS_AHEAD = MAX_ROWS;
    static constexpr int PARTS = 2;
    static STAPES_INLINE auto read_b(const auto* p, auto part) {
        if constexpr (part == 0) return even_bytes(load_i32(p));
        else return odd_bytes(load_i32(p));
    }
};

// What follows of an operation from its types.
template <class Op>
inline constexpr bool IS_INTEGER = is_integer(Op::TYPE);
template <class Op>
inline constexpr int GROUP = group_of(Op::TYPE);  // values of one group of one column
template <class Op>
inline constexpr int GROUP_BYTES = GROUP<Op> * size_of(Op::TYPE);
template <class Op>
inline constexpr int A_BYTES = 4 * Op::PARTS / GROUP<Op>;  // of a value of A: its groups have four bytes

// Calls f(0), f(1), ... f(N - 1) with constants: arrays indexed by them are taken apart into registers, where a loop's
// would be spilled.
template <int N, class F>
STAPES_INLINE void unrolled(F&& f) {
    [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
        (f(std::integral_constant<int, I>{}), ...);
    }(std::make_integer_sequence<int, N>{});
}

struct Tile {
    const Byte* a;
    std::size_t a_stride;  // bytes
    const void* const* b;  // where each segment of the inner dimension begins
    std::size_t b_offset;  // bytes from there to the tile's first column
    std::size_t b_panel;   // bytes from one panel to the next
    int n_segments;
    int groups_per_segment;
    int n_groups;            // of B, in all segments; the last may be cut short
    void* out;               // sums
    std::size_t out_stride;  // sums
    bool add;                // begin with what is there
    // Sums of integers become numbers if these are given: what one step of each row, and of each column, means.
    const float* row_steps;
    const float* column_steps;
};

// Asks for what lies READ_AHEAD bytes behind a group, in each panel that the tile reads. Processors do so by
// themselves, but not across the end of a page, and not early enough where much is computed on few bytes. Where little
// is, it only costs.
inline constexpr std::size_t READ_AHEAD = 4096, CACHE_LINE = 64;
template <class Op, int VECTORS>
STAPES_INLINE void read_ahead(const Byte* b, std::size_t b_panel) {
    constexpr int panels = (VECTORS + VECTORS_PER_PANEL - 1) / VECTORS_PER_PANEL;
    constexpr int lines = PANEL * GROUP_BYTES<Op> / static_cast<int>(CACHE_LINE);
    unrolled<panels * lines>([&](auto i) __attribute__((always_inline)) {
        __builtin_prefetch(b + i / lines * b_panel + READ_AHEAD + i % lines * CACHE_LINE);
    });
}

template <class Op, int ROWS, int VECTORS>
void run_tile(const Tile& t) {
    using Sum = typename Op::Sum;
    constexpr auto column = [](int vector) constexpr { return vector % VECTORS_PER_PANEL * W * GROUP_BYTES<Op>; };
    std::array<Sum, ROWS * VECTORS> sums;
    Byte* const out = static_cast<Byte*>(t.out);
    const std::size_t out_stride = t.out_stride * 4;
    unrolled<ROWS>([&](auto row) __attribute__((always_inline)) {
        unrolled<VECTORS>([&](auto vector) __attribute__((always_inline)) {
            sums[row * VECTORS + vector] = t.add ? Op::read(out + row * out_stride + vector * W * 4) : Op::zero();
        });
    });
    const Byte* a = t.a;
    const std::size_t stride = t.a_stride;
    int left = t.n_groups;
    for (int segment = 0; segment < t.n_segments; ++segment) {
        const Byte* b = static_cast<const Byte*>(t.b[segment]) + t.b_offset;
        const int n = left < t.groups_per_segment ? left : t.groups_per_segment;
        left -= n;
        // Three rows share a pointer: an address can hold one and two times the stride.
        const Byte *a0 = a, *a3 = a + 3 * stride, *a6 = a + 6 * stride, *a9 = a + 9 * stride;
        for (int i = 0; i < n; ++i) {
            if constexpr (ROWS <= Op::READS_AHEAD) read_ahead<Op, VECTORS>(b, t.b_panel);
            unrolled<Op::PARTS>([&](auto part) __attribute__((always_inline)) {
                // Parts are read anew: together they would not fit into the registers.
                if constexpr (part > 0) __asm__ volatile("" : "+r"(b) : : "memory");
                const auto read_b = [&](auto vector) __attribute__((always_inline)) {
                    return Op::read_b(b + vector / VECTORS_PER_PANEL * t.b_panel + column(vector), part);
                };
                const auto read_a = [&](auto row) __attribute__((always_inline)) {
                    const Byte* base = row < 3 ? a0 : row < 6 ? a3 : row < 9 ? a6 : a9;
                    return broadcast_group(base + row % 3 * stride + part * 4);
                };
                // Whichever is less stays in registers.
                if constexpr (ROWS < VECTORS) {
                    std::array<I32, ROWS> groups;
                    unrolled<ROWS>([&](auto row) __attribute__((always_inline)) { groups[row] = read_a(row); });
                    unrolled<VECTORS>([&](auto vector) __attribute__((always_inline)) {
                        const auto one = read_b(vector);
                        unrolled<ROWS>([&](auto row) __attribute__((always_inline)) {
                            sums[row * VECTORS + vector] = Op::dot(sums[row * VECTORS + vector], groups[row], one);
                        });
                    });
                } else {
                    std::array<decltype(read_b(part)), VECTORS> columns;
                    unrolled<VECTORS>([&](auto vector)
                                          __attribute__((always_inline)) { columns[vector] = read_b(vector); });
                    unrolled<ROWS>([&](auto row) __attribute__((always_inline)) {
                        const I32 one = read_a(row);
                        unrolled<VECTORS>([&](auto vector) __attribute__((always_inline)) {
                            sums[row * VECTORS + vector] = Op::dot(sums[row * VECTORS + vector], one, columns[vector]);
                        });
                    });
                }
            });
            b += PANEL * GROUP_BYTES<Op>;
            a0 += 4 * Op::PARTS;
            if constexpr (ROWS > 3) a3 += 4 * Op::PARTS;
            if constexpr (ROWS > 6) a6 += 4 * Op::PARTS;
            if constexpr (ROWS > 9) a9 += 4 * Op::PARTS;
        }
        a += static_cast<std::size_t>(n) * 4 * Op::PARTS;
    }
    if constexpr (IS_INTEGER<Op>) {
        if (t.row_steps) {
            unrolled<ROWS>([&](auto row) __attribute__((always_inline)) {
                const F32 step = set1(t.row_steps[row]);
                unrolled<VECTORS>([&](auto vector) __attribute__((always_inline)) {
                    store(reinterpret_cast<float*>(out + row * out_stride) + vector * W,
                          to_f32(sums[row * VECTORS + vector]) * (load(t.column_steps + vector * W) * step));
                });
            });
            return;
        }
    }
    unrolled<ROWS>([&](auto row) __attribute__((always_inline)) {
        unrolled<VECTORS>([&](auto vector) __attribute__((always_inline)) {
            Op::write(out + row * out_stride + vector * W * 4, sums[row * VECTORS + vector]);
        });
    });
}

// run_tile for 1 to `Op::MOST_ROWS` rows, or to `Op::FEW_ROWS` where they are wide.
template <class Op, int VECTORS = COLUMNS>
STAPES_INLINE void run_rows(int n_rows, const Tile& t) {
    using Run = void (*)(const Tile&);
    static constexpr auto runs = []<int... I>(std::integer_sequence<int, I...>) {
        return std::array<Run, sizeof...(I)>{run_tile<Op, I + 1, VECTORS>...};
    }(std::make_integer_sequence<int, VECTORS == COLUMNS ? Op::MOST_ROWS : Op::FEW_ROWS>{});
    runs[static_cast<std::size_t>(n_rows - 1)](t);
}

// Deals rows out evenly: a tile of one or two would wait for its sums. Calls f(first, n) for each tile, of which each
// but the last ends at a multiple of `whole`, half of `most` or 1.
template <class F>
STAPES_INLINE void for_tiles(int n_rows, int most, int whole, F&& f) {
    const int n_tiles = (n_rows + most - 1) / most;
    for (int tile = 0, first = 0; tile < n_tiles; ++tile) {
        const int end = round_up(n_rows * (tile + 1) / n_tiles, whole), last = end < n_rows ? end : n_rows;
        f(first, last - first);
        first = last;
    }
}

// The same for an operation's tiles, of rows that are `halves` of its own each.
template <class Op, class F>
STAPES_INLINE void for_tiles_of(int n_rows, int halves, F&& f) {
    for_tiles(n_rows, Op::MOST_ROWS / halves, Op::ON_AMX ? AMX_ROWS / halves : 1, f);
}

}  // namespace stapes::STAPES_ISA
