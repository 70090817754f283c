#include "matrix.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <type_traits>

namespace stapes {
Matrix::Matrix(Type type, int n, int k, const Kernels& kernels) : type_(type), n_(n), k_(k), kernels_(&kernels) {
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
    const QuantizedRow found = kernels_->quantize_weights(values, k_, row);
    scales_.as<float>()[output] = found.step;
    steps_.as<float>()[output] = found.all_finite ? found.step : std::numeric_limits<float>::infinity();
    corrections_.as<std::int32_t>()[output] = kernels_->activation_zero * found.sum;
}

template <Type TYPE, class Source>
void Matrix::pack_panel(int first, int n_rows, const Source* source) {
    using Value = ValueOf<TYPE>;
    const auto k = static_cast<std::size_t>(k_), whole = static_cast<std::size_t>(round_up(k_, PANEL));
    std::vector<Source> read(whole);
    std::vector<float> values(whole);
    std::vector<Value> row(whole);
    for (int output = first; output < first + n_rows; ++output, source += k) {
        if constexpr (std::is_same_v<Value, Source>) {
            std::memcpy(row.data(), source, k * sizeof(Value));
        } else if constexpr (TYPE == Type::f16) {
            throw std::logic_error("float32 is not packed as float16");
        } else {
            std::memcpy(read.data(), source, k * sizeof(Source));
            float* const numbers = TYPE == Type::f32 ? reinterpret_cast<float*>(row.data()) : values.data();
            if constexpr (std::is_same_v<Source, f16>) kernels_->widen(read.data(), k_, numbers);
            else std::memcpy(numbers, read.data(), k * sizeof(float));
            if constexpr (TYPE == Type::bf16) kernels_->narrow(numbers, whole, 1, k_, row.data(), whole);
            else if constexpr (TYPE == Type::i8) quantize_row(output, numbers, row.data());
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
