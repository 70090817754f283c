#include "matrix.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <type_traits>

namespace stapes {
namespace {

// The largest magnitude, NaN left out. Magnitudes are in the order of their bits.
float largest_magnitude(const float* values, int n) {
    std::int32_t largest = 0;
    for (int i = 0; i < n; ++i) {
        const std::int32_t bits = std::bit_cast<std::int32_t>(values[i]) & 0x7fffffff;
        const std::int32_t counted = bits > 0x7f800000 ? 0 : bits;
        largest = counted > largest ? counted : largest;
    }
    return std::bit_cast<float>(largest);
}

bool all_finite(const float* values, int n) {
    std::int32_t largest = 0;
    for (int i = 0; i < n; ++i) {
        const std::int32_t bits = std::bit_cast<std::int32_t>(values[i]) & 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return largest < 0x7f800000;
}

// The nearest whole number, ties to even, of |x| < 2^22; 0 of what is not finite.
[[gnu::always_inline]] inline std::int32_t nearest(float x) {
    constexpr float shift = 12582912.0f;  // 1.5 * 2^23: the lowest bit of the sum is worth 1
    const std::int32_t steps = std::bit_cast<std::int32_t>(x + shift) - std::bit_cast<std::int32_t>(shift);
    return (std::bit_cast<std::int32_t>(x) & 0x7fffffff) < 0x7f800000 ? steps : 0;
}

}  // namespace

Matrix::Matrix(Type type, int n, int k, int zero) : type_(type), n_(n), k_(k), zero_(zero) {
    const Weights w = view();
    packed_ = Memory(static_cast<std::size_t>(w.n_panels()) * w.panel_bytes());
    if (type == Type::i8) {
        scales_ = Memory(static_cast<std::size_t>(round_up(n, PANEL)) * sizeof(float));
        corrections_ = Memory(static_cast<std::size_t>(round_up(n, PANEL)) * sizeof(std::int32_t));
        steps_ = Memory(scales_.n_bytes());
    }
}

float Matrix::step_of(int panel) const {
    const float* steps = steps_.as() + panel * PANEL;
    return *std::max_element(steps, steps + PANEL);
}

Weights Matrix::view() const {
    return {type_, n_, k_, packed_.bytes(), scales_.as<float>(), corrections_.as<std::int32_t>()};
}

// Where one weight lies, counted in values.
std::size_t Matrix::place(int output, int input) const {
    const Weights w = view();
    const int group = w.group();
    const std::size_t panel =
        static_cast<std::size_t>(output / PANEL) * static_cast<std::size_t>(w.n_groups() * group) * PANEL;
    return panel + static_cast<std::size_t>((input / group * PANEL + output % PANEL) * group + input % group);
}

// Calls f.operator()<TYPE>() for a type that weights have.
template <class F>
void with_type(Type type, F&& f) {
    switch (type) {
        case Type::f32: return f.template operator()<Type::f32>();
        case Type::f16: return f.template operator()<Type::f16>();
        case Type::bf16: return f.template operator()<Type::bf16>();
        case Type::i8: return f.template operator()<Type::i8>();
        case Type::i16: throw std::logic_error("weights are not of 16-bit integers");
    }
}

// Packing is written as loops over a whole row without calls or branches, which compilers turn into vectors: it is a
// good part of the time that a model takes to load.

// Lay out a row of values that are already of the packed type: its groups lie a panel apart. The last one is whole.
template <class Value>
void Matrix::lay_out(int output, const Value* row) {
    const Weights w = view();
    const auto spread = [&]<class Group>(Group) {
        std::byte* to = packed_.bytes() + place(output, 0) * sizeof(Value);
        const auto* from = reinterpret_cast<const std::byte*>(row);
        for (int i = 0; i < w.n_groups(); ++i, from += sizeof(Group), to += PANEL * sizeof(Group))
            std::memcpy(to, from, sizeof(Group));
    };
    if (static_cast<std::size_t>(w.group()) * sizeof(Value) == 2) spread(std::uint16_t{});
    else spread(std::uint32_t{});
}

void Matrix::quantize_row(int output, const float* values, std::int8_t* row) {
    constexpr auto most = static_cast<float>(traits_of(Type::i8).steps);
    const float largest = largest_magnitude(values, k_);
    const float factor = largest > 0.0f && std::isfinite(largest) ? most / largest : 0.0f;
    std::int32_t sum = 0;
    for (int i = 0; i < k_; ++i) {
        const std::int32_t steps = nearest(values[i] * factor);
        sum += steps;
        row[i] = static_cast<std::int8_t>(steps);
    }
    scales_.as<float>()[output] = largest / most;
    steps_.as<float>()[output] = all_finite(values, k_) ? largest / most : std::numeric_limits<float>::infinity();
    corrections_.as<std::int32_t>()[output] = zero_ * sum;
}

template <Type TYPE, class Source>
void Matrix::pack_panel(int first, int n_rows, const Source* source) {
    using Value = ValueOf<TYPE>;
    std::vector<float> values(TYPE == Type::i8 ? static_cast<std::size_t>(k_) : 0);
    std::vector<Value> row(static_cast<std::size_t>(round_up(k_, group_of(TYPE))));
    for (int output = first; output < first + n_rows; ++output, source += k_) {
        if constexpr (std::is_same_v<Value, Source>) {
            std::copy_n(source, k_, row.data());
        } else if constexpr (TYPE == Type::f32) {
            for (int i = 0; i < k_; ++i) row[static_cast<std::size_t>(i)] = to_float(source[i]);
        } else if constexpr (TYPE == Type::bf16) {
            for (int i = 0; i < k_; ++i) row[static_cast<std::size_t>(i)] = to_bf16(to_float(source[i]));
        } else if constexpr (TYPE == Type::i8) {
            for (int i = 0; i < k_; ++i) values[static_cast<std::size_t>(i)] = to_float(source[i]);
            quantize_row(output, values.data(), row.data());
        } else {
            throw std::logic_error("float32 is not packed as float16");
        }
        lay_out(output, row.data());
    }
}

template <class Source>
void Matrix::pack_rows(int first, int n_rows, const Source* source, Team& team) {
    team.share((n_rows + PANEL - 1) / PANEL, [&](int part, int) {
        const int done = part * PANEL, n = std::min(PANEL, n_rows - done);
        with_type(type_, [&]<Type TYPE>() {
            pack_panel<TYPE>(first + done, n, source + static_cast<std::size_t>(done) * static_cast<std::size_t>(k_));
        });
    });
}

void Matrix::pack(int first, int n_rows, const float* source, Team& team) { pack_rows(first, n_rows, source, team); }
void Matrix::pack(int first, int n_rows, const f16* source, Team& team) { pack_rows(first, n_rows, source, team); }

void Matrix::unpack(int output, float* values) const {
    with_type(type_, [&]<Type TYPE>() {
        const auto* packed = packed_.as<ValueOf<TYPE>>();
        for (int i = 0; i < k_; ++i) {
            if constexpr (TYPE == Type::i8)
                values[i] = static_cast<float>(packed[place(output, i)]) * scales_.as<float>()[output];
            else values[i] = to_float(packed[place(output, i)]);
        }
    });
}

}  // namespace stapes
