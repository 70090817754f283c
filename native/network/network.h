// An encoder-decoder transformer on the kernels: encode windows, step decoder rows. It knows sizes and arrays; what the
// tokens mean, it does not know.
//
// Threads: calls on one network come from one thread at a time. A window or a row lives as long as a pointer to it.
#pragma once

#include <memory>
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

struct Linear {
    Matrix weight;
    Memory bias;          // empty: none
    Type rows = Type::f32;  // what it is multiplied with
    const float* bias_or_null() const { return bias.n_bytes() ? bias.as() : nullptr; }
};

struct Norm {
    Memory weight, bias;
};

struct Block {
    Norm attn_norm, cross_norm, mlp_norm;
    Linear qkv, attn_out, cross_query, cross_key, cross_value, cross_out, mlp_in, mlp_out;
};

// Keys and values of many positions, for every layer and head: layer by layer, head by head, block by block.
struct KeyValues {
    KeyValues(BlockShape shape, int n_layers, int n_heads, int n_blocks);
    static std::size_t n_bytes(BlockShape shape, int n_layers, int n_heads, int n_blocks);
    BlockShape shape;
    int n_heads, n_blocks;
    Memory memory;
    std::byte* keys(int layer, int head, int block);
    std::byte* values(int layer, int head, int block);
    // All blocks of one head, as attention takes them.
    struct Head {
        std::vector<const void*> keys, values;
    };
    Head blocks_of(int layer, int head);
};

// What the decoder reads of an encoded window: cross-attention keys and values.
using Window = KeyValues;

// A decoder row's self-attention keys and values, in blocks of PANEL positions that forks share until one writes.
struct Row {
    std::vector<std::shared_ptr<KeyValues>> blocks;
};

// What one row does in a step, and what it gets: see stapes/backends/base.py (RowStep, RowResult).
struct Request {
    Row* row;
    Window* window;
    int length;  // tokens that the row holds
    std::vector<std::int32_t> tokens;
    bool chooses;
    Choosing choosing;  // logits and n are filled in here
    std::vector<Range> now;
    std::vector<double> uniforms;
    std::vector<int> probe_positions;
    std::vector<std::vector<std::int32_t>> probe_ids;
    std::vector<int> probe_below;  // the ids that they are measured against
    std::vector<int> logits_at;
    std::vector<std::pair<int, int>> attention;  // (layer, head)
    Range within;  // encoder positions that it attends to; the first is a multiple of PANEL
    // Answers.
    std::vector<std::int32_t> ids;
    std::vector<float> logprobs;
    std::vector<std::vector<float>> probe_logits;
    std::vector<float> probe_normalisers;
    std::vector<float> logits;            // (logits_at, n_vocab)
    std::vector<float> attention_scores;  // (attention, tokens, n_audio_ctx)
};

class Answers;
class Encoder;
class Decoder;

class Network {
  public:
    Network(const Sizes& sizes, Precision precision, const Kernels& kernels, int n_threads);
    ~Network();

    // Loading. names: "encoder.conv1", "encoder.0.qkv", "decoder.0.cross_key", "decoder.embedding", ...
    // Make room for a linear layer; stored: how its weights lie in memory if they are multiplied as float32.
    void make_linear(const std::string& name, int n, int k, Type stored);
    Linear& linear(const std::string& name);
    // Pack rows (n_rows, k) of a layer's weights, from output `first` on.
    template <class Source>
    void pack(const std::string& name, int first, int n_rows, const Source* rows);
    Norm& norm(const std::string& name);
    // Positional embeddings, (positions, n_state) in rows of `stride()`.
    Memory& positions(bool of_encoder) { return of_encoder ? audio_positions_ : text_positions_; }

    int stride() const { return stride_; }  // values from one row of activations to the next
    int n_threads() const { return n_threads_; }
    const Sizes& sizes() const { return sizes_; }
    const Kernels& kernels() const { return kernels_; }
    std::size_t weight_bytes() const;
    std::size_t window_bytes() const;
    std::size_t row_bytes() const;

    // mel: (n_mels, 2 * n_audio_ctx).
    std::shared_ptr<Window> encode(const float* mel);
    std::shared_ptr<Row> fork(const Row& row, int length) const;
    void step(std::vector<Request*>& requests);

  private:
    friend class Answers;
    friend class Encoder;
    friend class Decoder;

    // The decoder's own keys and values, and those of a window.
    BlockShape text_shape() const { return {text_type_, sizes_.n_state / sizes_.n_text_head}; }
    BlockShape window_shape() const { return {window_type_, text_shape().width}; }
    // Precise where what follows is.
    Activation gelu() const { return precision_ == Precision::float32 ? Activation::gelu : Activation::rough_gelu; }
    std::size_t text_bytes(BlockShape shape, int n_positions) const;
    std::shared_ptr<Window> fresh_window();

    Sizes sizes_;
    Precision precision_;
    const Kernels& kernels_;
    int n_threads_;
    int stride_;
    PoolLease lease_;
    Type rows_type_;   // f32 or bf16: of rows that are not quantised
    Type audio_type_;  // f32, bf16 or i16: of the encoder's keys and values
    Type text_type_;  // f32 or bf16: of the decoder's keys and values
    Type window_type_;  // f32, bf16 or i8: of a window's
    Linear conv1_, conv2_, embedding_;
    Linear rough_embedding_;  // in int8: the vocabulary's 8 bits, which tell what to multiply in full
    Norm audio_norm_, text_norm_;
    Memory audio_positions_, text_positions_;
    std::vector<Block> encoder_, decoder_;
    std::unordered_map<std::string, Linear*> linears_;
    std::unordered_map<std::string, Norm*> norms_;
    std::vector<std::shared_ptr<Window>> windows_;  // all that are in use, and one that is free
    std::unique_ptr<Encoder> encoding_;  // made with the first window, and the decoder with the first step
    std::unique_ptr<Decoder> decoding_;
};

}  // namespace stapes
