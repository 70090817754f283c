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
float largest_magnitude(const std::vector<float>& values) {
    std::int32_t largest = 0;
    for (const float one : values) {
        const std::int32_t bits = std::bit_cast<std::int32_t>(one) & 0x7fffffff;
        const std::int32_t counted = bits > 0x7f800000 ? 0 : bits;
        largest = counted > largest ? counted : largest;
    }
    return std::bit_cast<float>(largest);
}

bool all_finite(const std::vector<float>& values) {
    std::int32_t largest = 0;
    for (const float one : values) {
        const std::int32_t bits = std::bit_cast<std::int32_t>(one) & 0x7fffffff;
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

Weights Matrix::view() const { return {type_, n_, k_, packed_.bytes(), scales_.as<float>(), corrections_.as<std::int32_t>()}; }

// Where one weight lies, counted in values.
std::size_t Matrix::place(int output, int input) const {
    const Weights w = view();
    const int group = w.group();
    const std::size_t panel = static_cast<std::size_t>(output / PANEL) * static_cast<std::size_t>(w.n_groups() * group) * PANEL;
    return panel + static_cast<std::size_t>((input / group * PANEL + output % PANEL) * group + input % group);
}

// Packing is written as loops over a whole row without calls or branches, which compilers turn into vectors: it is a good
// part of the time that a model takes to load.

// Lay out a row of values that are already of the packed type: its groups lie a panel apart. The last one may be cut short.
template <class Value>
void Matrix::lay_out(int output, std::vector<Value>& row) {
    const Weights w = view();
    row.resize(static_cast<std::size_t>(w.n_groups() * w.group()));
    const auto spread = [&]<class Group>(Group) {
        std::byte* to = packed_.bytes() + place(output, 0) * sizeof(Value);
        const auto* from = reinterpret_cast<const std::byte*>(row.data());
        for (int i = 0; i < w.n_groups(); ++i, from += sizeof(Group), to += PANEL * sizeof(Group)) std::memcpy(to, from, sizeof(Group));
    };
    switch (static_cast<std::size_t>(w.group()) * sizeof(Value)) {
        case 2: return spread(std::uint16_t{});
        case 4: return spread(std::uint32_t{});
        default: throw std::logic_error("groups of weights are of 2 or 4 bytes");
    }
}

template <class Source>
void Matrix::pack_row(int output, const Source* source) {
    const auto k = static_cast<std::size_t>(k_);
    switch (type_) {
        case Type::f32: {
            std::vector<float> row(k);
            for (std::size_t i = 0; i < k; ++i) row[i] = to_float(source[i]);
            return lay_out(output, row);
        }
        case Type::f16:
            if constexpr (std::is_same_v<Source, f16>) {
                std::vector<f16> row(source, source + k);
                lay_out(output, row);
            }
            return;
        case Type::bf16: {
            std::vector<bf16> row(k);
            for (std::size_t i = 0; i < k; ++i) row[i] = to_bf16(to_float(source[i]));
            return lay_out(output, row);
        }
        case Type::i8: return quantize_row(output, source);
        case Type::i16: return;  // weights never are
    }
}

template <class Source>
void Matrix::quantize_row(int output, const Source* source) {
    std::vector<float> values(static_cast<std::size_t>(k_));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = to_float(source[i]);
    const float largest = largest_magnitude(values);
    const float factor = largest > 0.0f && std::isfinite(largest) ? 127.0f / largest : 0.0f;
    std::vector<std::int8_t> row(values.size());
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        const std::int32_t steps = nearest(values[i] * factor);
        sum += steps;
        row[i] = static_cast<std::int8_t>(steps);
    }
    lay_out(output, row);
    scales_.as<float>()[output] = largest / 127.0f;
    steps_.as<float>()[output] = all_finite(values) ? largest / 127.0f : std::numeric_limits<float>::infinity();
    corrections_.as<std::int32_t>()[output] = zero_ * sum;
}

template <class Source>
void Matrix::pack_rows(int first, int n_rows, const Source* source, Team& team) {
    team.share((n_rows + PANEL - 1) / PANEL, [&](int part, int) {
        for (int row = part * PANEL; row < n_rows && row < (part + 1) * PANEL; ++row)
            pack_row(first + row, source + static_cast<std::size_t>(row) * static_cast<std::size_t>(k_));
    });
}

void Matrix::pack(int first, int n_rows, const float* source, Team& team) { pack_rows(first, n_rows, source, team); }
void Matrix::pack(int first, int n_rows, const f16* source, Team& team) { pack_rows(first, n_rows, source, team); }

void Matrix::unpack(int output, float* values) const {
    for (int i = 0; i < k_; ++i) {
        const std::size_t at = place(output, i);
        switch (type_) {
            case Type::f32: values[i] = packed_.as<float>()[at]; break;
            case Type::f16: values[i] = to_float(packed_.as<f16>()[at]); break;
            case Type::bf16: values[i] = to_float(packed_.as<bf16>()[at]); break;
            case Type::i8: values[i] = static_cast<float>(packed_.as<std::int8_t>()[at]) * scales_.as<float>()[output]; break;
            case Type::i16: break;
        }
    }
}

}  // namespace stapes
