// Activations on their way into a product: normalised, and in the type that the product takes.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "key_values.h"
#include "model.h"

namespace stapes {

// Workspace of one thread, made once. most_positions: of the longest list of keys that is attended to.
struct Scratch {
    Scratch(int widest, int head_width, int most_positions)
        : product(product_scratch(widest)),
          attention(attention_scratch(head_width)),
          keys(static_cast<std::size_t>(round_up(most_positions, PANEL) / PANEL)),
          values(keys.size()) {}
    Memory product, attention;
    Memory choice;                          // as large as the choices so far needed
    std::vector<const void*> keys, values;  // addresses of one head's blocks

    // The addresses of a head's blocks from `first_block` on become those that `call` attends to.
    void attend_to(Attention& call, KeyValues& to, int layer, int head, int first_block = 0) {
        for (int block = first_block; block < to.n_blocks; ++block) {
            keys[static_cast<std::size_t>(block - first_block)] = to.keys(layer, head, block);
            values[static_cast<std::size_t>(block - first_block)] = to.values(layer, head, block);
        }
        call.keys = keys.data();
        call.values = values.data();
    }
};
using Scratches = std::vector<std::unique_ptr<Scratch>>;  // one for each thread

// The left operand of products of up to n_rows rows of d values, in the type that the product takes.
class Operand {
  public:
    Operand(const Kernels& kernels, int n_rows, int d)
        : kernels_(kernels),
          d_(d),
          stride_(static_cast<std::size_t>(row_stride(d))),
          data_(static_cast<std::size_t>(n_rows) * stride_ * sizeof(float)),
          scales_(static_cast<std::size_t>(n_rows) * sizeof(float)) {}

    std::size_t stride() const { return stride_; }

    // Layer norm of x's rows first..first+n-1 (stride as here); of x itself where it is to be quantised, in place.
    void normalise(const float* x, const Norm& norm, int first, int n, Type type, float* between) {
        const std::size_t at = static_cast<std::size_t>(first) * stride_;
        const bool quantised = is_integer(type);
        void* to = quantised ? static_cast<void*>(between + at) : place(first, type);
        kernels_.layer_norm(x + at, stride_, n, d_, norm.weight.as(), norm.bias.as(), to, quantised ? Type::f32 : type,
                            stride_);
        if (quantised) take(between, first, n, type);
    }

    // Rows of x as they are.
    void take(const float* x, int first, int n, Type type) {
        const std::size_t at = static_cast<std::size_t>(first) * stride_;
        if (is_integer(type))
            kernels_.quantize(x + at, stride_, n, d_, reinterpret_cast<std::uint8_t*>(place(first, type)), stride_,
                              scales_.as() + first);
        else if (type == Type::bf16) kernels_.narrow(x + at, stride_, n, d_, place(first, type), stride_);
        else std::memcpy(place(first, type), x + at, static_cast<std::size_t>(n) * stride_ * sizeof(float));
    }

    // Where rows of a type lie; another kernel may write f32 or bf16 there itself.
    std::byte* place(int first, Type type) {
        return data_.bytes() + static_cast<std::size_t>(first) * stride_ * static_cast<std::size_t>(size_of(type));
    }

    // The rows from `first` on.
    Rows rows(Type type, int first = 0) const {
        const std::size_t bytes = stride_ * static_cast<std::size_t>(size_of(type)),
                          stride = type == Type::i16 ? stride_ : bytes;
        return {type, data_.bytes() + static_cast<std::size_t>(first) * bytes, stride, scales_.as() + first};
    }

  private:
    const Kernels& kernels_;
    int d_;
    std::size_t stride_;
    Memory data_, scales_;
};

// A product of whole rows with a linear layer; what is not named is plain.
inline Product product_of(const Rows& a, int n_rows, const Weights& w, const Linear& layer, Scratch& scratch) {
    Product p{};
    p.a = a;
    p.n_rows = n_rows;
    p.w = &w;
    p.first_panel = 0;
    p.last_panel = w.n_panels();
    p.bias = layer.bias_or_null();
    p.activation = Activation::none;
    p.c_type = Type::f32;
    p.scratch = scratch.product.bytes();
    return p;
}

}  // namespace stapes
