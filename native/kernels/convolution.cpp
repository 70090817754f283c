// The convolutions of voice activity detection over PANEL chunks, one in each column: weights are what is broadcast.
#include "functions.h"
#include "tile.h"

namespace stapes::STAPES_ISA {

void convolve(const Convolution& c) {
    for (int column = 0; column < c.n_columns; column += TILE_COLUMNS) {
        const void* const x = c.x + column;
        for_tiles(c.n_outputs, MAX_ROWS, [&](int first, int n_rows) {
            float* out = c.out + first * PANEL + column;
            Tile t{};
            t.a = reinterpret_cast<const Byte*>(c.weights + static_cast<std::size_t>(first) * c.stride);
            t.a_stride = c.stride * sizeof(float);
            t.b = &x;
            t.n_segments = 1;
            t.n_groups = t.groups_per_segment = c.n_inputs;
            t.out = out;
            t.out_stride = PANEL;
            run_rows<OpF32>(n_rows, t);
            for (int i = 0; i < n_rows; ++i) {
                const F32 bias = set1(c.bias[first + i]);
                for (int j = i * PANEL; j < i * PANEL + TILE_COLUMNS; j += W)
                    store(out + j, max(set1(0.0f), load(out + j) + bias));  // in this order NaN stays NaN
            }
        });
    }
}

}  // namespace stapes::STAPES_ISA
