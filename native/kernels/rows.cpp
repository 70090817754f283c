// What is done to activations row by row: normalise, quantise, narrow; and where keys and values are put.
#include "functions.h"
#include "steps.h"
#include "tile.h"

namespace stapes::STAPES_ISA {
namespace {

STAPES_INLINE const float* row_of(const float* x, std::size_t stride, int i) {
    return x + static_cast<std::size_t>(i) * stride;
}

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

// W numbers of steps of a row of i16, from value i on: as one integer, or in halves. (A template: a set has only one of
// both.)
STAPES_INLINE void store_fine(std::uint8_t* to, std::size_t stride, int i, auto step) {
    if constexpr (!MULTIPLIES_I8) {
        store_interleaved(to + i * 2, to_i32(step));
    } else {
        // Half a step more: a tie goes up, as the lower half has room for -128 and none for 128.
        const I32 zero = set1_i32(ACTIVATION_ZERO);
        const F32 upper = round((step + set1(0.5f)) * set1(1.0f / 256.0f));
        store_bytes(to + i, to_i32(upper) + zero);
        store_bytes(to + stride + static_cast<std::size_t>(i), to_i32(fma(upper, set1(-256.0f), step)) + zero);
    }
}

}  // namespace

void layer_norm(const float* x, std::size_t x_stride, int n_rows, int d, const float* weight, const float* bias,
                void* y, Type y_type, std::size_t y_stride) {
    const int whole = round_up(d, PANEL);
    for (int row = 0; row < n_rows; ++row) {
        const float* from = row_of(x, x_stride, row);
        const float mean = total(from, d) / static_cast<float>(d);
        const float variance = squares(from, d, mean) / static_cast<float>(d);
        const F32 centre = set1(mean), factor = set1(1.0f / std::sqrt(variance + 1e-5f));
        const std::size_t at = static_cast<std::size_t>(row) * y_stride;
        for (int i = 0; i < whole; i += W) {
            const F32 result = fma((load(from + i) - centre) * factor, load(weight + i), load(bias + i));
            store_as(y_type, y, at + static_cast<std::size_t>(i), result);
        }
    }
}

void quantize(const float* x, std::size_t x_stride, int n_rows, int d, std::uint8_t* y, std::size_t y_stride,
              float* scales) {
    const int whole = round_up(d, PANEL);
    const float most = MULTIPLIES_I8 ? 127.0f * 256.0f : static_cast<float>(most_steps(d));
    for (int row = 0; row < n_rows; ++row) {
        const float* from = row_of(x, x_stride, row);
        std::uint8_t* to = y + static_cast<std::size_t>(row) * 2 * y_stride;
        scales[row] = count_steps(
            whole, most, [&](int i) { return load(from + i); },
            [&](int i, F32 steps) { store_fine(to, y_stride, i, steps); });
    }
}

void widen(const void* x, int n, float* y) {
    const auto* from = static_cast<const std::uint16_t*>(x);
    for (int i = 0; i < n; i += W) store(y + i, load_f16(from + i));
}

QuantizedRow quantize_weights(const float* x, int n, std::int8_t* y) {
    constexpr auto most = static_cast<float>(traits_of(Type::i8).steps);
    const F32 zero = set1(0.0f);
    F32 highest = zero, sums = zero, doubtful = zero;
    for (int i = 0; i < n; i += W) {
        highest = max(abs(load(x + i)), highest);           // without NaN, whose comparison is false
        doubtful = doubtful + (load(x + i) - load(x + i));  // NaN where one is no finite number
    }
    const float limit = largest(highest);
    const F32 factor = set1(limit > 0.0f && limit < INFINITY ? most / limit : 0.0f);
    for (int i = 0; i < n; i += W) {
        const F32 exact = load(x + i) * factor;
        const F32 steps = select(is_nan(exact - exact), zero, round(exact));
        sums = sums + steps;  // whole numbers, far below 2^24
        store_bytes(y + i, to_i32(steps));
    }
    return {limit / most, sum(doubtful) == 0.0f, static_cast<std::int32_t>(sum(sums))};
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

// The W values from i on of a row of n, and zeros behind them.
STAPES_INLINE F32 part_of(const float* x, int n, int i) {
    if (i + W <= n) return load(x + i);
    float rest[W] = {};
    std::memcpy(rest, x + i, static_cast<std::size_t>(n - i) * sizeof(float));
    return load(rest);
}

// A row of n values in steps, W at a time: put(i, steps) takes those from value i on, of which the ones behind n are
// some; those of 16 bits are interleaved. Gives what a step means.
template <Type TYPE, class Put>
float in_steps(const float* x, int n, Put&& put) {
    return count_steps(
        n, static_cast<float>(traits_of(TYPE).steps), [&](int i) { return part_of(x, n, i); },
        [&](int i, F32 steps) {
            ValueOf<TYPE> part[W];
            if constexpr (TYPE == Type::i8) store_bytes(part, to_i32(steps));
            else store_interleaved(part, to_i32(steps));
            put(i, part);
        });
}

// A position's key in a block of integers: groups of four bytes lie a panel apart.
template <Type TYPE>
float store_steps_of_key(const BlockShape& shape, const float* from, int at, Byte* block) {
    constexpr int group = group_of(TYPE);
    return in_steps<TYPE>(from, shape.width, [&](int dim, const ValueOf<TYPE>* steps) {
        for (int j = 0; j < W && dim + j < shape.padded_width(); j += group)
            std::memcpy(block + ((dim + j) / group * PANEL + at) * 4, steps + j, 4);
    });
}

// A position's value: a group holds one dimension of several positions.
template <Type TYPE>
float store_steps_of_value(const BlockShape& shape, const float* from, int at, Byte* block) {
    using Value = ValueOf<TYPE>;
    constexpr int group = group_of(TYPE);
    const int place = TYPE == Type::i8 ? at : interleaved(at);
    Value* const to = reinterpret_cast<Value*>(block) + place / group * group * PANEL + place % group;
    return in_steps<TYPE>(from, shape.width, [&](int dim, const Value* steps) {
        Value* here = to + dim / PANEL * PANEL * PANEL + dim % PANEL * group;
        for (int j = 0; j < W && dim + j < shape.width; ++j)
            here[j * group] = steps[TYPE == Type::i8 ? j : interleaved(j)];
    });
}

// Values of bfloat16: those of two positions alternate.
void store_narrow_values(const BlockShape& shape, const float* x, std::size_t x_stride, int n, int position,
                         std::uint16_t* block) {
    for (int i = 0; i < n;) {
        const int at = position + i;
        const bool both = at % 2 == 0 && i + 1 < n;
        for (int dim = 0; dim < shape.width; dim += W) {
            std::uint16_t* to = block + (dim / PANEL * PANEL + at / 2 * 2) * PANEL + dim % PANEL * 2;
            const int count = shape.width - dim < W ? shape.width - dim : W;
            std::uint16_t even[W], odd[W];
            store_bf16(even, part_of(row_of(x, x_stride, i), shape.width, dim));
            if (both) store_bf16(odd, part_of(row_of(x, x_stride, i + 1), shape.width, dim));
            for (int j = 0; j < count; ++j) {
                if (both) to[2 * j] = even[j], to[2 * j + 1] = odd[j];
                else to[2 * j + at % 2] = even[j];
            }
        }
        i += both ? 2 : 1;
    }
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
            Byte* to = static_cast<Byte*>(block) + at * 4;
            for (int dim = 0; dim < shape.width; dim += W) {
                std::uint16_t part[W];
                store_bf16(part, part_of(from, shape.width, dim));
                for (int j = 0; j < W && dim + j < shape.width; j += 2)
                    std::memcpy(to + (dim + j) * PANEL * 2, part + j, 4);
            }
        } else {
            Byte* to = static_cast<Byte*>(block);
            const auto put = shape.type == Type::i8 ? store_steps_of_key<Type::i8> : store_steps_of_key<Type::i16>;
            const float step = put(shape, from, at, to);
            std::memcpy(to + shape.key_bytes() - shape.scale_bytes() + at * 4, &step, 4);
        }
    }
}

void store_values(const BlockShape& shape, const float* x, std::size_t x_stride, int n, int position, void* block) {
    if (shape.type == Type::bf16)
        return store_narrow_values(shape, x, x_stride, n, position, static_cast<std::uint16_t*>(block));
    for (int i = 0; i < n; ++i) {
        const float* from = row_of(x, x_stride, i);
        const int at = position + i;
        if (is_integer(shape.type)) {
            Byte* to = static_cast<Byte*>(block);
            const auto put = shape.type == Type::i8 ? store_steps_of_value<Type::i8> : store_steps_of_value<Type::i16>;
            const float step = put(shape, from, at, to);
            std::memcpy(to + shape.value_bytes() - shape.scale_bytes() + at * 4, &step, 4);
            continue;
        }
        for (int first = 0; first < shape.width; first += PANEL) {
            const int width = shape.width - first < PANEL ? shape.width - first : PANEL;
            float* to = static_cast<float*>(block) + (first + at) * PANEL;
            for (int dim = 0; dim < width; ++dim) to[dim] = from[first + dim];
        }
    }
}

}  // namespace stapes::STAPES_ISA
