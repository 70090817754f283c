// A transformer's sizes, precision and packed weights. The encoder, the decoder and the logits read it as `const
// Model&`.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "../kernels/kernels.h"
#include "matrix.h"
#include "memory.h"
#include "pool.h"

namespace stapes {

struct Sizes {
    int n_mels, n_audio_ctx, n_state, n_audio_head, n_audio_layer;
    int n_vocab, n_text_ctx, n_text_head, n_text_layer;
};

enum class Precision : std::uint8_t { float32, bfloat16, int8 };
// By its name; throws std::invalid_argument.
Precision precision_of(const std::string& name);
// The type of a linear layer's weights, by its name.
Type type_of_linear(const std::string& name, Precision precision, const Kernels& kernels);

struct Linear {
    Matrix weight;
    Memory bias;            // empty: none
    Type rows = Type::f32;  // what it is multiplied with
    const float* bias_or_null() const { return bias.n_bytes() ? bias.as() : nullptr; }
};

struct Norm { Memory weight, bias; };

struct Block {
    Norm attn_norm, cross_norm, mlp_norm;
    Linear qkv, attn_out, cross_query, cross_key, cross_value, cross_out, mlp_in, mlp_out;
};

// The weights are filled in once, by name: "encoder.conv1", "encoder.0.qkv", "decoder.0.cross_key",
// "decoder.embedding", ...
struct Model {
    Model(const Sizes& sizes, Precision precision, const Kernels& kernels);
    Model(const Model&) = delete;  // the maps point into it
    Model& operator=(const Model&) = delete;

    // Allocates a linear layer; stored: the type in memory of weights that are multiplied as float32.
    void make_linear(const std::string& name, int n, int k, Type stored);
    // Packs rows (n_rows, k) of a layer's weights, from output `first` on.
    template <class Source>
    void pack(const std::string& name, int first, int n_rows, const Source* rows, Team& team);
    // Throw std::invalid_argument for a name that is not in the maps.
    Linear& linear(const std::string& name);
    Norm& norm(const std::string& name);

    std::size_t weight_bytes() const;
    // Of one head's self-attention keys and values in the decoder, and of a window's.
    BlockShape text_shape() const { return {text_type, sizes.n_state / sizes.n_text_head}; }
    BlockShape window_shape() const { return {window_type, text_shape().width}; }
    // Precise where what follows is.
    Activation gelu() const { return precision == Precision::float32 ? Activation::gelu : Activation::rough_gelu; }

    const Sizes sizes;
    const Precision precision;
    const Kernels& kernels;
    const int stride;        // values from one row of activations to the next
    const Type text_type;    // f32 or bf16: of the decoder's self-attention keys and values
    const Type rows_type;    // f32 or bf16: of activations that are not quantised
    const Type audio_type;   // f32, bf16 or i16: of the encoder's keys and values
    const Type window_type;  // f32, bf16 or i8: of a window's
    Linear conv1, conv2, embedding;
    Linear approximate_embedding;  // int8 only: the vocabulary in 8 bits, whose logits are approximate
    Norm audio_norm, text_norm;
    Memory audio_positions, text_positions;  // (positions, stride)
    std::vector<Block> encoder, decoder;
    std::unordered_map<std::string, Linear*> linears;
    std::unordered_map<std::string, Norm*> norms;
};

}  // namespace stapes
