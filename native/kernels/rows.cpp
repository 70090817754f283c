// What is done to activations row by row: normalise, quantise, narrow; and where keys and values are put.
#include "functions.h"
#include "tile.h"

namespace stapes::STAPES_ISA {
namespace {

STAPES_INLINE const float* row_of(const float* x, std::size_t stride, int i) { return x + static_cast<std::size_t>(i) * stride; }

// Sum of the row, of what lies behind d too: zeros.
STAPES_INLINE float total(const float* x, int d) {
    F32 sums = set1(0.0f);
    for (int i = 0; i < d; i += W) sums = sums + load(x + i);
    return sum(sums);
}

STAPES_INLINE float squares(const float* x, int d, float mean) {
    F32 sums = set1(0.0f);
    const F32 centre = set1(mean);
    for (int i = 0; i < d; i += W) {
        const F32 away = select(first_lanes(d - i), load(x + i) - centre, set1(0.0f));
        sums = fma(away, away, sums);
    }
    return sum(sums);
}

// W numbers of steps of a row of i16, from value i on: as one integer, or in halves. (A template: a set has only one of both.)
STAPES_INLINE void store_fine(std::uint8_t* to, std::size_t stride, int i, auto step) {
    if constexpr (!MULTIPLIES_I8) {
        store_crossed(to + i * 2, to_i32(step));
    } else {
        // Half a step more: a tie goes up, as the lower half has room for -128 and none for 128.
        const I32 zero = set1_i32(ACTIVATION_ZERO);
        const F32 upper = round((step + set1(0.5f)) * set1(1.0f / 256.0f));
        store_bytes(to + i, to_i32(upper) + zero);
        store_bytes(to + stride + static_cast<std::size_t>(i), to_i32(fma(upper, set1(-256.0f), step)) + zero);
    }
}

}  // namespace

void layer_norm(const float* x, std::size_t x_stride, int n_rows, int d, const float* weight, const float* bias, void* y,
                Type y_type, std::size_t y_stride) {
    const int whole = round_up(d, PANEL);
    for (int row = 0; row < n_rows; ++row) {
        const float* from = row_of(x, x_stride, row);
        const float mean = total(from, d) / static_cast<float>(d);
        const float variance = squares(from, d, mean) / static_cast<float>(d);
        const F32 centre = set1(mean), factor = set1(1.0f / std::sqrt(variance + 1e-5f));
        const std::size_t at = static_cast<std::size_t>(row) * y_stride;
        for (int i = 0; i < whole; i += W) {
            const F32 result = fma((load(from + i) - centre) * factor, load(weight + i), load(bias + i));
            if (y_type == Type::f32) store(static_cast<float*>(y) + at + i, result);
            else store_bf16(static_cast<std::uint16_t*>(y) + at + static_cast<std::size_t>(i), result);
        }
    }
}

void quantize(const float* x, std::size_t x_stride, int n_rows, int d, Type y_type, std::uint8_t* y, std::size_t y_stride, float* scales) {
    const int whole = round_up(d, PANEL);
    const bool fine = y_type == Type::i16;
    const float most = !fine ? 127.0f : MULTIPLIES_I8 ? 127.0f * 256.0f : static_cast<float>(most_steps(d));
    for (int row = 0; row < n_rows; ++row) {
        const float* from = row_of(x, x_stride, row);
        std::uint8_t* to = y + static_cast<std::size_t>(row) * (fine ? 2 : 1) * y_stride;
        F32 highest = set1(0.0f);
        for (int i = 0; i < whole; i += W) highest = max(abs(load(from + i)), highest);
        const float limit = largest(highest);
        scales[row] = limit / most;
        const F32 factor = set1(limit > 0.0f ? most / limit : 0.0f);
        const I32 zero = set1_i32(ACTIVATION_ZERO);
        for (int i = 0; i < whole; i += W) {
            // NaN and what overflows must not wrap round: they count as the largest size.
            const F32 step = round(max(min(load(from + i) * factor, set1(most)), set1(-most)));
            if (!fine) {
                store_bytes(to + i, to_i32(step) + zero);
                continue;
            }
            store_fine(to, y_stride, i, step);
        }
    }
}

void narrow(const float* x, std::size_t x_stride, int n_rows, int d, void* y, std::size_t y_stride) {
    const int whole = round_up(d, PANEL);
    for (int row = 0; row < n_rows; ++row) {
        const float* from = row_of(x, x_stride, row);
        std::uint16_t* to = static_cast<std::uint16_t*>(y) + static_cast<std::size_t>(row) * y_stride;
        for (int i = 0; i < whole; i += W) store_bf16(to + i, load(from + i));
    }
}

namespace {

// A row in steps of a 127th of its largest size: gives what a step means, and by what numbers become steps.
struct Steps {
    float scale, factor;
    // NaN and what overflows must not wrap round: they count as the largest size.
    STAPES_INLINE std::int8_t of(float x) const {
        const float scaled = x * factor;
        return static_cast<std::int8_t>(std::lrintf(scaled < 127.0f ? (scaled > -127.0f ? scaled : -127.0f) : 127.0f));
    }
};

Steps steps_of(const float* x, int n) {
    float limit = 0.0f;
    for (int i = 0; i < n; ++i) limit = limit < std::fabs(x[i]) ? std::fabs(x[i]) : limit;
    return {limit / 127.0f, limit > 0.0f ? 127.0f / limit : 0.0f};
}

}  // namespace

void store_keys(const BlockShape& shape, const float* x, std::size_t x_stride, int n, int position, void* block) {
    for (int i = 0; i < n; ++i) {
        const float* from = row_of(x, x_stride, i);
        const int at = position + i;
        if (shape.type == Type::f32) {
            float* to = static_cast<float*>(block) + at;
            for (int dim = 0; dim < shape.width; ++dim) to[dim * PANEL] = from[dim];
        } else if (shape.type == Type::bf16) {
            bf16* to = static_cast<bf16*>(block) + at * 2;
            for (int dim = 0; dim < shape.width; ++dim) to[dim / 2 * PANEL * 2 + dim % 2] = to_bf16(from[dim]);
        } else {
            std::int8_t* to = static_cast<std::int8_t*>(block);
            const Steps steps = steps_of(from, shape.width);
            for (int dim = 0; dim < shape.width; ++dim) to[dim / 4 * PANEL * 4 + at * 4 + dim % 4] = steps.of(from[dim]);
            std::memcpy(to + shape.key_bytes() - shape.scale_bytes() + at * 4, &steps.scale, 4);
        }
    }
}

void store_values(const BlockShape& shape, const float* x, std::size_t x_stride, int n, int position, void* block) {
    for (int i = 0; i < n; ++i) {
        const float* from = row_of(x, x_stride, i);
        const int at = position + i;
        Steps steps{};
        if (shape.type == Type::i8) {
            steps = steps_of(from, shape.width);
            std::memcpy(static_cast<Byte*>(block) + shape.value_bytes() - shape.scale_bytes() + at * 4, &steps.scale, 4);
        }
        for (int first = 0; first < shape.width; first += PANEL) {
            const int width = shape.width - first < PANEL ? shape.width - first : PANEL;
            if (shape.type == Type::f32) {
                float* to = static_cast<float*>(block) + (first + at) * PANEL;
                for (int dim = 0; dim < width; ++dim) to[dim] = from[first + dim];
            } else if (shape.type == Type::bf16) {
                bf16* to = static_cast<bf16*>(block) + (first + at / 2 * 2) * PANEL + at % 2;
                for (int dim = 0; dim < width; ++dim) to[dim * 2] = to_bf16(from[first + dim]);
            } else {
                std::int8_t* to = static_cast<std::int8_t*>(block) + (first + at / 4 * 4) * PANEL + at % 4;
                for (int dim = 0; dim < width; ++dim) to[dim * 4] = steps.of(from[first + dim]);
            }
        }
    }
}

}  // namespace stapes::STAPES_ISA
