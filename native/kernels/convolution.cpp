// The convolutions of voice activity detection over PANEL chunks, one in each column: weights are what is broadcast.
#include "functions.h"
#include "tile.h"

namespace stapes::STAPES_ISA {
namespace {

// Puts a part's sums to those before it; after the last part comes the bias.
STAPES_INLINE void add_part(const Convolution& c, int part, int first, int n_rows, const float* sums, float* out) {
    const F32 zero = set1(0.0f);
    for (int i = 0; i < n_rows; ++i, out += PANEL, sums += TILE_COLUMNS) {
        const F32 bias = set1(c.bias[first + i]);
        for (int j = 0; j < TILE_COLUMNS; j += W) {
            F32 x = load(sums + j);
            if (part > 0) x = load(out + j) + x;
            if (part + 1 == c.n_parts) x = max(zero, x + bias);  // in this order NaN stays NaN
            store(out + j, x);
        }
    }
}

}  // namespace

void convolve(const Convolution& c) {
    alignas(64) float sums[MAX_ROWS * TILE_COLUMNS];
    for (int column = 0; column < c.n_columns; column += TILE_COLUMNS) {
        for_tiles(c.n_outputs, MAX_ROWS, 1, [&](int first, int n_rows) {
            for (int part = 0; part < c.n_parts; ++part) {
                const void* const x = c.x + part * c.n_inputs * PANEL + column;
                Tile t{};
                t.a = reinterpret_cast<const Byte*>(c.weights + static_cast<std::size_t>(first) * c.stride +
                                                    part * c.n_inputs);
                t.a_stride = c.stride * sizeof(float);
                t.b = &x;
                t.n_segments = 1;
                t.n_groups = t.groups_per_segment = c.n_inputs;
                t.out = sums;
                t.out_stride = TILE_COLUMNS;
                run_rows<OpF32>(n_rows, t);
                add_part(c, part, first, n_rows, sums, c.out + first * PANEL + column);
            }
        });
    }
}

}  // namespace stapes::STAPES_ISA
