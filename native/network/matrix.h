// Weights as the kernels multiply them: packed once, when a model is loaded.
#pragma once

#include <vector>

#include "../kernels/kernels.h"
#include "memory.h"
#include "pool.h"

namespace stapes {

// The type of rows that a set multiplies weights of a type with.
inline Type row_type_of(const Kernels& kernels, Type weights) {
    if (weights == Type::i8) return Type::i16;
    return weights == Type::bf16 && kernels.multiplies_bf16 ? Type::bf16 : Type::f32;
}

// A matrix of weights, (n outputs, k inputs), filled by stretches of outputs.
class Matrix {
  public:
    Matrix() = default;
    // kernels: those that multiply it.
    Matrix(Type type, int n, int k, const Kernels& kernels);

    // Pack rows (n_rows, k) of `source`, which may lie at an odd address, from output `first` on.
    void pack(int first, int n_rows, const float* source, Team& team);
    void pack(int first, int n_rows, const f16* source, Team& team);
    // Read one output's weights back: k values.
    void unpack(int output, float* values) const;

    // i8: how much a weight of the panel may be rounded by, twice over: its coarsest step; infinite beside what is no
    // number.
    float step_of(int panel) const;

    Weights view() const;
    std::size_t n_bytes() const {
        return packed_.n_bytes() + scales_.n_bytes() + corrections_.n_bytes() + steps_.n_bytes();
    }

  private:
    template <class Source>
    void pack_rows(int first, int n_rows, const Source* source, Team& team);
    template <Type TYPE, class Source>
    void pack_panel(int first, int n_rows, const Source* source);
    void quantize_row(int output, const float* values, std::int8_t* row);
    template <class Value>
    void lay_out(int output, const Value* row);
    std::size_t place(int output, int input) const;

    Type type_ = Type::f32;
    int n_ = 0, k_ = 0;
    const Kernels* kernels_ = nullptr;
    Memory packed_, scales_, corrections_;
    Memory steps_;  // as scales_, but infinite where a weight is no number
};

}  // namespace stapes
