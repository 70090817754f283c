#include "network.h"

#include <algorithm>
#include <stdexcept>

#include "decoder.h"
#include "encoder.h"

namespace stapes {

namespace {

// What a linear layer is multiplied in where the precision is int8. Each exception was measured (docs/experiments/).
struct Kind {
    Type weights, rows;
};

Kind kind_of(const std::string& name, const Kernels& kernels) {
    // The convolutions are little work, and the vocabulary's errors go straight into the logits.
    if (name.starts_with("encoder.conv") || name == "decoder.embedding") return {Type::bf16, Type::bf16};
    // What runs once for a window gains little by bytes where a set multiplies bfloat16; what a step reads gains all.
    const bool once_a_window = name.starts_with("encoder.") || name.ends_with("cross_key") || name.ends_with("cross_value");
    if (once_a_window && !kernels.prefers_i16) return {Type::bf16, Type::bf16};
    // Activations of 8 bits would move logits nearly as much again as all else that int8 does
    // (docs/experiments/2026-11-26-int8-on-amx-and-avx512.md).
    return {Type::i8, Type::i16};
}

}  // namespace

KeyValues::KeyValues(BlockShape block_shape, int n_layers, int heads, int blocks)
    : shape(block_shape),
      n_heads(heads),
      n_blocks(blocks),
      memory(n_bytes(block_shape, n_layers, heads, blocks)) {}

std::size_t KeyValues::n_bytes(BlockShape shape, int n_layers, int n_heads, int n_blocks) {
    return static_cast<std::size_t>(n_layers) * static_cast<std::size_t>(n_heads) * static_cast<std::size_t>(n_blocks) *
           (shape.key_bytes() + shape.value_bytes());
}

KeyValues::Head KeyValues::blocks_of(int layer, int head) {
    Head found;
    for (int block = 0; block < n_blocks; ++block) {
        found.keys.push_back(keys(layer, head, block));
        found.values.push_back(values(layer, head, block));
    }
    return found;
}

// A head's keys lie together, and so do its values: a step of one query reads them from end to end, and processors read ahead of
// what runs on, not of what leaves every other block out.
std::byte* KeyValues::keys(int layer, int head, int block) {
    const std::size_t index = static_cast<std::size_t>(layer) * static_cast<std::size_t>(n_heads) + static_cast<std::size_t>(head);
    return memory.bytes() + index * n_bytes(shape, 1, 1, n_blocks) + static_cast<std::size_t>(block) * shape.key_bytes();
}

std::byte* KeyValues::values(int layer, int head, int block) {
    return keys(layer, head, n_blocks) + static_cast<std::size_t>(block) * shape.value_bytes();
}

Network::Network(const Sizes& sizes, Precision precision, const Kernels& kernels, int n_threads)
    : sizes_(sizes),
      precision_(precision),
      kernels_(kernels),
      n_threads_(n_threads),
      stride_(row_stride(sizes.n_state)),
      lease_(n_threads),
      rows_type_(precision == Precision::float32 || !kernels.multiplies_bf16 ? Type::f32 : Type::bf16),
      audio_type_(precision == Precision::int8 && kernels.prefers_i16 ? Type::i16 : rows_type_),
      text_type_(precision == Precision::float32 ? Type::f32 : Type::bf16),
      window_type_(precision == Precision::int8 ? Type::i8 : text_type_),
      encoder_(static_cast<std::size_t>(sizes.n_audio_layer)),
      decoder_(static_cast<std::size_t>(sizes.n_text_layer)) {
    linears_ = {{"encoder.conv1", &conv1_}, {"encoder.conv2", &conv2_}, {"decoder.embedding", &embedding_}, {"decoder.rough_embedding", &rough_embedding_}};
    norms_ = {{"encoder.norm", &audio_norm_}, {"decoder.norm", &text_norm_}};
    for (const bool audio : {true, false}) {
        auto& blocks = audio ? encoder_ : decoder_;
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            const std::string prefix = (audio ? "encoder." : "decoder.") + std::to_string(i) + ".";
            Block& b = blocks[i];
            linears_[prefix + "qkv"] = &b.qkv;
            linears_[prefix + "attn_out"] = &b.attn_out;
            linears_[prefix + "mlp_in"] = &b.mlp_in;
            linears_[prefix + "mlp_out"] = &b.mlp_out;
            norms_[prefix + "attn_norm"] = &b.attn_norm;
            norms_[prefix + "mlp_norm"] = &b.mlp_norm;
            if (audio) continue;
            linears_[prefix + "cross_query"] = &b.cross_query;
            linears_[prefix + "cross_key"] = &b.cross_key;
            linears_[prefix + "cross_value"] = &b.cross_value;
            linears_[prefix + "cross_out"] = &b.cross_out;
            norms_[prefix + "cross_norm"] = &b.cross_norm;
        }
    }
}

Network::~Network() = default;

Linear& Network::linear(const std::string& name) {
    const auto found = linears_.find(name);
    if (found == linears_.end()) throw std::invalid_argument("no linear layer is called " + name);
    return *found->second;
}

Norm& Network::norm(const std::string& name) {
    const auto found = norms_.find(name);
    if (found == norms_.end()) throw std::invalid_argument("no layer norm is called " + name);
    return *found->second;
}

void Network::make_linear(const std::string& name, int n, int k, Type stored) {
    Linear& made = linear(name);
    const Kind kind = precision_ == Precision::int8 ? kind_of(name, kernels_) : Kind{text_type_, rows_type_};
    // Where bfloat16 is but a way to store weights, float16 is as short and keeps all that was published.
    const bool as_published = kind.weights == Type::f32 || (kind.weights == Type::bf16 && rows_type_ == Type::f32 && stored == Type::f16);
    made.weight = Matrix(as_published ? stored : kind.weights, n, k, kernels_.activation_zero);
    made.rows = kind.rows == Type::bf16 ? rows_type_ : kind.rows;
    made.bias = Memory();
    if (name == "decoder.embedding" && precision_ == Precision::int8) make_linear("decoder.rough_embedding", n, k, stored);
}

template <class Source>
void Network::pack(const std::string& name, int first, int n_rows, const Source* rows) {
    Team team(n_threads_);
    linear(name).weight.pack(first, n_rows, rows, team);
    if (name == "decoder.embedding" && precision_ == Precision::int8) rough_embedding_.weight.pack(first, n_rows, rows, team);
}
template void Network::pack(const std::string&, int, int, const float*);
template void Network::pack(const std::string&, int, int, const f16*);

std::size_t Network::weight_bytes() const {
    std::size_t total = audio_positions_.n_bytes() + text_positions_.n_bytes();
    for (const auto& [name, linear] : linears_) total += linear->weight.n_bytes() + linear->bias.n_bytes();
    for (const auto& [name, norm] : norms_) total += norm->weight.n_bytes() + norm->bias.n_bytes();
    return total;
}

std::size_t Network::text_bytes(BlockShape shape, int n_positions) const {
    return KeyValues::n_bytes(shape, sizes_.n_text_layer, sizes_.n_text_head, round_up(n_positions, PANEL) / PANEL);
}

std::size_t Network::window_bytes() const { return text_bytes(window_shape(), sizes_.n_audio_ctx); }
std::size_t Network::row_bytes() const { return text_bytes(text_shape(), sizes_.n_text_ctx); }

std::shared_ptr<Window> Network::encode(const float* mel) {
    if (!encoding_) encoding_ = std::make_unique<Encoder>(*this);
    Team team(n_threads_);
    auto window = fresh_window();
    encoding_->run(mel, *window, team);
    return window;
}

// Memory of a released window is used again: fresh memory costs the system as much time as a layer costs us.
std::shared_ptr<Window> Network::fresh_window() {
    const auto is_free = [](const auto& one) { return one.use_count() == 1; };
    const auto found = std::find_if(windows_.begin(), windows_.end(), is_free);
    auto window = found != windows_.end() ? *found : nullptr;
    std::erase_if(windows_, is_free);
    if (!window) {
        window = std::make_shared<Window>(window_shape(), sizes_.n_text_layer, sizes_.n_text_head, round_up(sizes_.n_audio_ctx, PANEL) / PANEL);
        windows_.push_back(window);
    }
    return window;
}

void Network::step(std::vector<Request*>& requests) {
    if (requests.empty()) return;
    if (!decoding_) decoding_ = std::make_unique<Decoder>(*this);
    Team team(n_threads_);
    decoding_->run(requests, team);
}

std::shared_ptr<Row> Network::fork(const Row& row, int length) const {
    auto made = std::make_shared<Row>(row);
    made->blocks.resize(static_cast<std::size_t>(round_up(length, PANEL) / PANEL));
    return made;
}

}  // namespace stapes
