#include "matrix.h"

#include <cmath>
#include <type_traits>
#include <vector>

namespace stapes {
Matrix::Matrix(Type type, int n, int k, int zero) : type_(type), n_(n), k_(k), zero_(zero) {
    const Weights w = view();
    packed_ = Memory(static_cast<std::size_t>(w.n_panels()) * w.panel_bytes());
    if (type == Type::i8) {
        scales_ = Memory(static_cast<std::size_t>(round_up(n, PANEL)) * sizeof(float));
        corrections_ = Memory(static_cast<std::size_t>(round_up(n, PANEL)) * sizeof(std::int32_t));
    }
}

Weights Matrix::view() const { return {type_, n_, k_, packed_.bytes(), scales_.as<float>(), corrections_.as<std::int32_t>()}; }

// Where one weight lies, counted in values.
std::size_t Matrix::place(int output, int input) const {
    const Weights w = view();
    const int group = w.group();
    const std::size_t panel = static_cast<std::size_t>(output / PANEL) * static_cast<std::size_t>(w.n_groups() * group) * PANEL;
    return panel + static_cast<std::size_t>((input / group * PANEL + output % PANEL) * group + input % group);
}

template <class Source>
void Matrix::pack_row(int output, const Source* source) {
    const std::size_t start = place(output, 0);
    const auto group = static_cast<std::size_t>(view().group()), step = group * PANEL, k = static_cast<std::size_t>(k_);
    const auto at = [&](std::size_t i) { return start + i / group * step + i % group; };
    switch (type_) {
        case Type::f32:
            for (std::size_t i = 0; i < k; ++i) packed_.as<float>()[at(i)] = to_float(source[i]);
            break;
        case Type::f16:
            if constexpr (std::is_same_v<Source, f16>)
                for (std::size_t i = 0; i < k; ++i) packed_.as<f16>()[at(i)] = source[i];
            break;
        case Type::bf16:
            for (std::size_t i = 0; i < k; ++i) packed_.as<bf16>()[at(i)] = to_bf16(to_float(source[i]));
            break;
        case Type::i8: quantize_row(output, source); break;
        case Type::i16: break;  // weights never are
    }
}

template <class Source>
void Matrix::quantize_row(int output, const Source* source) {
    std::vector<float> values(static_cast<std::size_t>(k_));
    float largest = 0.0f;
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = to_float(source[i]);
        largest = std::fmax(largest, std::fabs(values[i]));
    }
    const float factor = largest > 0.0f && std::isfinite(largest) ? 127.0f / largest : 0.0f;
    std::int8_t* const packed = packed_.as<std::int8_t>() + place(output, 0);
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        const float scaled = values[i] * factor;
        const int steps = std::isfinite(scaled) ? static_cast<int>(std::lrintf(scaled)) : 0;
        sum += steps;
        packed[i / 4 * 4 * PANEL + i % 4] = static_cast<std::int8_t>(steps);
    }
    scales_.as<float>()[output] = largest / 127.0f;
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
