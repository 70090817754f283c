// The micro-kernel on AMX, the matrix unit of some processors: up to 32 rows of A times a panel of B, sums in four
// registers.
//
// Packed groups are laid out as AMX reads them, so that operands, sums and all around them are as in tile.h. Sums run
// over the inner dimension 16 groups at a time, however many rows there are. Everything takes the type that issues the
// instructions from its caller: the
// tests have one that any processor can run.
#pragma once

#include "tile.h"

namespace stapes::STAPES_ISA {

inline constexpr int AMX_GROUPS = 16;             // of a register of A in each row, and rows of one of B
inline constexpr std::size_t AMX_ROW_BYTES = 64;  // of a row

// Owns the tile registers for the length of a kernel's call: what another library left in them does not matter, and
// nothing stays.
template <class U>
class AmxTiles {
  public:
    AmxTiles() = default;
    ~AmxTiles() {
        if (n_rows_ != 0) U::release();
    }
    AmxTiles(const AmxTiles&) = delete;
    AmxTiles& operator=(const AmxTiles&) = delete;

    // Shape the registers for n_rows of A, if they are not so already.
    void shape(int n_rows) {
        if (n_rows != n_rows_) U::shape(n_rows);
        n_rows_ = n_rows;
    }

  private:
    int n_rows_ = 0;
};

template <class U, bool INTEGERS, int SUMS, int A, int B>
STAPES_INLINE void amx_dot() {
    if constexpr (INTEGERS) U::template dot_i8<SUMS, A, B>();
    else U::template dot_bf16<SUMS, A, B>();
}

// Sixteen groups.
template <class U, bool INTEGERS>
STAPES_INLINE void amx_step(const Byte* a, std::size_t a_stride, const Byte* b, bool below) {
    constexpr std::size_t b_stride = PANEL * 4;
    U::template load<6>(b, b_stride);
    U::template load<4>(a, a_stride);
    amx_dot<U, INTEGERS, 0, 4, 6>();
    U::template load<7>(b + AMX_ROW_BYTES, b_stride);
    amx_dot<U, INTEGERS, 1, 4, 7>();
    if (!below) return;
    U::template load<5>(a + AMX_ROWS * a_stride, a_stride);
    amx_dot<U, INTEGERS, 2, 5, 6>();
    amx_dot<U, INTEGERS, 3, 5, 7>();
}

// Fewer than sixteen groups, copied to where zeros follow: behind them may lie what is no number.
template <class U, bool INTEGERS>
void amx_rest(const Byte* a, std::size_t a_stride, const Byte* b, int n_groups, int n_rows) {
    alignas(64) Byte rows[2 * AMX_ROWS * AMX_ROW_BYTES] = {}, groups[AMX_GROUPS * PANEL * 4] = {};
    for (int row = 0; row < n_rows; ++row) {
        const auto i = static_cast<std::size_t>(row);
        std::memcpy(rows + i * AMX_ROW_BYTES, a + i * a_stride, static_cast<std::size_t>(n_groups) * 4);
    }
    std::memcpy(groups, b, static_cast<std::size_t>(n_groups) * PANEL * 4);
    amx_step<U, INTEGERS>(rows, AMX_ROW_BYTES, groups, n_rows > AMX_ROWS);
}

// n_rows (1 to 32) against one panel.
template <class U, bool INTEGERS>
void run_on_amx(AmxTiles<U>& tiles, int n_rows, const Tile& t) {
    Byte* const out = static_cast<Byte*>(t.out);
    const bool below = n_rows > AMX_ROWS;
    const std::size_t out_stride = t.out_stride * 4;
    Byte* const out_below = out + AMX_ROWS * out_stride;
    tiles.shape(n_rows);
    if (t.add) {
        U::template load<0>(out, out_stride);
        U::template load<1>(out + AMX_ROW_BYTES, out_stride);
        if (below) U::template load<2>(out_below, out_stride);
        if (below) U::template load<3>(out_below + AMX_ROW_BYTES, out_stride);
    } else {
        U::template zero<0>();
        U::template zero<1>();
        if (below) U::template zero<2>();
        if (below) U::template zero<3>();
    }
    const Byte* a = t.a;
    int left = t.n_groups;
    for (int segment = 0; segment < t.n_segments; ++segment) {
        const Byte* b = static_cast<const Byte*>(t.b[segment]) + t.b_offset;
        int n = left < t.groups_per_segment ? left : t.groups_per_segment;
        left -= n;
        for (; n >= AMX_GROUPS; n -= AMX_GROUPS) {
            if (INTEGERS && !below)  // few rows of integers are those of a step
                unrolled<AMX_GROUPS>([&](auto i) __attribute__((always_inline)) {
                    read_ahead<OpI8Amx, VECTORS_PER_PANEL>(b + i * PANEL * 4, 0);
                });
            amx_step<U, INTEGERS>(a, t.a_stride, b, below);
            a += AMX_ROW_BYTES;
            b += AMX_GROUPS * PANEL * 4;
        }
        if (n > 0) amx_rest<U, INTEGERS>(a, t.a_stride, b, n, n_rows);
        a += n * 4;
    }
    U::template store<0>(out, out_stride);
    U::template store<1>(out + AMX_ROW_BYTES, out_stride);
    if (below) U::template store<2>(out_below, out_stride);
    if (below) U::template store<3>(out_below + AMX_ROW_BYTES, out_stride);
}

// run_rows of tile.h, on AMX where the operation runs there.
template <class Op, int VECTORS>
STAPES_INLINE void run(AmxTiles<Amx>& tiles, int n_rows, const Tile& t) {
    if constexpr (Op::ON_AMX) {
        static_assert(VECTORS * W == PANEL);
        run_on_amx<Amx, IS_INTEGER<Op>>(tiles, n_rows, t);
    } else {
        run_rows<Op, VECTORS>(n_rows, t);
    }
}

}  // namespace stapes::STAPES_ISA
