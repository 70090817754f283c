// Matrix products with packed weights, and what is done to their sums before they are stored.
#include "functions.h"
#include "amx.h"

namespace stapes::STAPES_ISA {
namespace {

// The standard normal distribution's logit is x times a polynomial in x squared; see stapes/backends/numpy/kernels.py,
// whose numbers these are.
template <bool ROUGH>
STAPES_INLINE F32 gelu(F32 x) {
    const F32 square = min(x * x, set1(5.5f * 5.5f));
    F32 p = set1(8.569813695485928e-13f);
    p = fma(p, square, set1(-1.434112828491152e-10f));
    p = fma(p, square, set1(1.017622963672693e-08f));
    p = fma(p, square, set1(-3.9867219925326935e-07f));
    p = fma(p, square, set1(9.26130360312527e-06f));
    p = fma(p, square, set1(-0.00011729241668945178f));
    p = fma(p, square, set1(-4.9005800974555314e-05f));
    p = fma(p, square, set1(0.07264959067106247f));
    p = fma(p, square, set1(1.5957748889923096f));
    if constexpr (ROUGH) {
        const F32 logit = p * x, below = exp_rough(set1(0.0f) - abs(logit));
        return quotient_rough(x * select(less(logit, set1(0.0f)), below, set1(1.0f)), set1(1.0f) + below);
    }
    return x / (set1(1.0f) + exp(set1(0.0f) - p * x));
}

// Room for the largest tile's sums; a widened panel lies behind them.
constexpr std::size_t SUMS_BYTES = 4096;
static_assert(2 * WIDE_COLUMNS * W * 4 <= SUMS_BYTES && MAX_ROWS * TILE_COLUMNS * 4 <= SUMS_BYTES);
static_assert(2 * AMX_ROWS * PANEL * 4 <= SUMS_BYTES);

// Integers are worth shaping the tile registers for from so many rows (or halves) on.
constexpr int ROWS_FOR_AMX = 9;

// Where a call computes.
struct Place {
    void* sums;
    AmxTiles<Amx>& tiles;
};

// How many rows of a tile a row of the product is: two where 16 bits are two halves.
int halves_of(const Rows& a) { return MULTIPLIES_I8 && a.type == Type::i16 ? 2 : 1; }

// Integers become numbers; the two halves' sums are put together.
template <class Op>
STAPES_INLINE F32 number_of(const Product& p, const Byte* sums, int n_columns, int row, int column) {
    const auto total = [&](const Byte* from) {
        const I32 sum = Op::read(from);
        return to_f32(ACTIVATION_ZERO == 0 ? sum : sum - load_i32(p.w->corrections + column));
    };
    const F32 scale = set1(p.a.scales[row]) * load(p.w->scales + column);
    if (halves_of(p.a) == 1) return total(sums) * scale;
    return fma(total(sums), set1(256.0f), total(sums + n_columns * 4)) * scale;
}

// Turn a tile's sums into results: n_rows from `row` on, n_columns from `column` on (both of the whole matrix).
template <class Op>
void finish(const Product& p, const void* sums, int row, int n_rows, int column, int n_columns) {
    const int halves = halves_of(p.a);
    const std::size_t first = static_cast<std::size_t>(column - p.first_panel * PANEL);
    for (int i = 0; i < n_rows; ++i) {
        const std::size_t at = static_cast<std::size_t>(row + i) * p.c_stride;
        void* c = static_cast<Byte*>(p.c) + at * static_cast<std::size_t>(size_of(p.c_type));
        const float* residual = p.residual ? p.residual + at : nullptr;
        for (int j = 0; j < n_columns; j += W) {
            const Byte* from = static_cast<const Byte*>(sums) + (i * halves * n_columns + j) * 4;
            F32 x;
            if constexpr (IS_INTEGER<Op>) x = number_of<Op>(p, from, n_columns, row + i, column + j);
            else x = Op::read(from);
            if (p.bias) x = x + load(p.bias + column + j);
            if (p.activation == Activation::gelu) x = gelu<false>(x);
            if (p.activation == Activation::rough_gelu) x = gelu<true>(x);
            if (residual) x = x + load(residual + first + static_cast<std::size_t>(j));
            store_as(p.c_type, c, first + static_cast<std::size_t>(j), x);
        }
    }
}

Tile tile_of(const Product& p, const void* const* b, int row, void* sums) {
    Tile t{};
    const std::size_t stride = p.a.type == Type::i16 ? 2 * p.a.stride : p.a.stride;
    t.a = static_cast<const Byte*>(p.a.data) + static_cast<std::size_t>(row) * stride;
    t.a_stride = stride / static_cast<std::size_t>(halves_of(p.a));
    t.b = b;
    t.b_panel = p.w->panel_bytes();
    t.n_segments = 1;
    t.n_groups = t.groups_per_segment = p.w->n_groups();
    t.out = sums;
    return t;
}

// Some rows against one panel, so many vectors of it at a time.
template <class Op, int VECTORS>
void multiply_rows(const Product& p, const void* panel, int n_groups, int index, int first, int n, const Place& at) {
    const int halves = halves_of(p.a);
    for (int column = 0; column < PANEL; column += VECTORS * W) {
        for_tiles_of<Op>(n, halves, [&](int tile, int n_rows) {
            const int row = first + tile;
            Tile t = tile_of(p, &panel, row, at.sums);
            t.n_groups = t.groups_per_segment = n_groups;
            t.b_offset = static_cast<std::size_t>(column * GROUP_BYTES<Op>);
            t.out_stride = VECTORS * W;
            run<Op, VECTORS>(at.tiles, n_rows * halves, t);
            finish<Op>(p, at.sums, row, n_rows, index * PANEL + column, VECTORS * W);
        });
    }
}

// All rows against one panel at a time, each panel read from memory once. Many rows go through some columns before the
// next: what their tiles share stays in the nearest cache.
template <class Op>
void multiply_panel(const Product& p, const void* panel, int n_groups, int index, const Place& at) {
    const int halves = halves_of(p.a);
    if (p.n_rows * halves > 2 * MAX_ROWS) return multiply_rows<Op, COLUMNS>(p, panel, n_groups, index, 0, p.n_rows, at);
    for_tiles_of<Op>(p.n_rows, halves, [&](int row, int n_rows) {
        if (n_rows * halves <= Op::FEW_ROWS)
            multiply_rows<Op, FEW_ROWS_COLUMNS>(p, panel, n_groups, index, row, n_rows, at);
        else multiply_rows<Op, COLUMNS>(p, panel, n_groups, index, row, n_rows, at);
    });
}

const Byte* panel_at(const Product& p, int index) {
    return static_cast<const Byte*>(p.w->data) + static_cast<std::size_t>(index) * p.w->panel_bytes();
}

// One or two rows (or halves): several panels at once, for enough sums to hide their latency. Returns the first panel
// not done.
template <class Op, int ROWS>
int multiply_wide(const Product& p, void* sums) {
    constexpr int step = WIDE_COLUMNS / VECTORS_PER_PANEL;
    int index = p.first_panel;
    if constexpr (step > 0) {
        for (; index + step <= p.last_panel; index += step) {
            const void* panel = panel_at(p, index);
            Tile t = tile_of(p, &panel, 0, sums);
            t.out_stride = WIDE_COLUMNS * W;
            run_tile<Op, ROWS, WIDE_COLUMNS>(t);
            finish<Op>(p, sums, 0, p.n_rows, index * PANEL, WIDE_COLUMNS * W);
        }
    }
    return index;
}

template <class Op>
void multiply_as(const Product& p) {
    AmxTiles<Amx> tiles;
    const Place at{p.scratch, tiles};
    int index = p.first_panel;
    if constexpr (!Op::ON_AMX) {
        const int halves = p.n_rows * halves_of(p.a);
        if (halves == 1) index = multiply_wide<Op, 1>(p, at.sums);
        if (halves == 2 && N_REGISTERS == 32) index = multiply_wide<Op, 2>(p, at.sums);
    }
    for (; index < p.last_panel; ++index) multiply_panel<Op>(p, panel_at(p, index), p.w->n_groups(), index, at);
}

// Weights that are multiplied in another type than they are stored in: for many rows, each panel is widened once.
template <class Stored, class Wide>
void multiply_stored(const Product& p) {
    if (p.n_rows <= 2 * MAX_ROWS) return multiply_as<Stored>(p);
    Byte* const widened = static_cast<Byte*>(p.scratch) + SUMS_BYTES;
    AmxTiles<Amx> tiles;
    const Place at{p.scratch, tiles};
    for (int index = p.first_panel; index < p.last_panel; ++index) {
        const Byte* from = panel_at(p, index);
        Byte* to = widened;
        for (int group = 0; group < p.w->n_groups(); ++group) {
            unrolled<Stored::PARTS>([&](auto part) __attribute__((always_inline)) {
                unrolled<VECTORS_PER_PANEL>([&](auto vector) __attribute__((always_inline)) {
                    const auto wide = Stored::read_b(from + vector * W * GROUP_BYTES<Stored>, part);
                    Wide::write(to + (part * VECTORS_PER_PANEL + vector) * W * 4, wide);
                });
            });
            from += PANEL * GROUP_BYTES<Stored>;
            to += PANEL * 4 * Stored::PARTS;
        }
        multiply_panel<Wide>(p, widened, p.w->n_groups() * Stored::PARTS, index, at);
    }
}

// With 16 registers a tile widens as it reads: on AMD a conversion has a port of its own, and a panel of float16 stays
// nearer than a widened one. (Intel's conversions take a port that multiplies; not measured there.)
void multiply_f16(const Product& p) {
    if constexpr (N_REGISTERS == 16) multiply_as<OpF16>(p);
    else multiply_stored<OpF16, OpF32>(p);
}

void multiply_bf16(const Product& p) {
    if constexpr (MULTIPLIES_BF16) multiply_as<OpBf16>(p);
    else multiply_stored<OpBf16Stored, OpF32>(p);
}

void multiply_i8(const Product& p) {
    if constexpr (HAS_AMX)
        if (p.n_rows * halves_of(p.a) >= ROWS_FOR_AMX) return multiply_as<OpI8Amx>(p);
    if constexpr (MULTIPLIES_I8) multiply_as<OpI8>(p);
    else multiply_stored<OpI8Stored, OpI16>(p);
}

}  // namespace

void multiply(const Product& p) {
    switch (p.w->type) {
        case Type::f32: return multiply_as<OpF32>(p);
        case Type::f16: return multiply_f16(p);
        case Type::bf16: return multiply_bf16(p);
        case Type::i8: return multiply_i8(p);
        case Type::i16: return;  // no weights are
    }
}

}  // namespace stapes::STAPES_ISA
