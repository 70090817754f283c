#include "model.h"

#include <stdexcept>

namespace stapes {

namespace {

// The type of a linear layer's weights where the precision is int8. Each exception was measured (docs/experiments/).
Type int8_type_of(const std::string& name, const Kernels& kernels) {
    // The convolutions are little work, and the vocabulary's errors go straight into the logits.
    if (name.starts_with("encoder.conv") || name == "decoder.embedding") return Type::bf16;
    // What runs once for a window gains little by bytes where a set multiplies bfloat16; what a step reads gains all.
    const bool once_a_window =
        name.starts_with("encoder.") || name.ends_with("cross_key") || name.ends_with("cross_value");
    // Beside i8 come activations of i16: with 8 bits they would move logits nearly as much again as all else that int8
    // does (docs/experiments/2026-11-26-int8-on-amx-and-avx512.md).
    return once_a_window && !kernels.prefers_i16 ? Type::bf16 : Type::i8;
}

}  // namespace

Precision precision_of(const std::string& name) {
    if (name == "float32") return Precision::float32;
    if (name == "bfloat16") return Precision::bfloat16;
    if (name == "int8") return Precision::int8;
    throw std::invalid_argument("no precision is called " + name);
}

Type type_of_linear(const std::string& name, Precision precision, const Kernels& kernels) {
    if (precision == Precision::int8) return int8_type_of(name, kernels);
    return precision == Precision::float32 ? Type::f32 : Type::bf16;
}

Model::Model(const Sizes& its_sizes, Precision its_precision, const Kernels& its_kernels)
    : sizes(its_sizes),
      precision(its_precision),
      kernels(its_kernels),
      stride(row_stride(its_sizes.n_state)),
      text_type(its_precision == Precision::float32 ? Type::f32 : Type::bf16),
      rows_type(row_type_of(its_kernels, text_type)),
      audio_type(its_precision == Precision::int8 && its_kernels.prefers_i16 ? Type::i16 : rows_type),
      window_type(its_precision == Precision::int8 ? Type::i8 : text_type),
      encoder(static_cast<std::size_t>(its_sizes.n_audio_layer)),
      decoder(static_cast<std::size_t>(its_sizes.n_text_layer)) {
    linears = {{"encoder.conv1", &conv1},
               {"encoder.conv2", &conv2},
               {"decoder.embedding", &embedding},
               {"decoder.approximate_embedding", &approximate_embedding}};
    norms = {{"encoder.norm", &audio_norm}, {"decoder.norm", &text_norm}};
    for (const bool audio : {true, false}) {
        auto& blocks = audio ? encoder : decoder;
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            const std::string prefix = (audio ? "encoder." : "decoder.") + std::to_string(i) + ".";
            Block& b = blocks[i];
            linears[prefix + "qkv"] = &b.qkv;
            linears[prefix + "attn_out"] = &b.attn_out;
            linears[prefix + "mlp_in"] = &b.mlp_in;
            linears[prefix + "mlp_out"] = &b.mlp_out;
            norms[prefix + "attn_norm"] = &b.attn_norm;
            norms[prefix + "mlp_norm"] = &b.mlp_norm;
            if (audio) continue;
            linears[prefix + "cross_query"] = &b.cross_query;
            linears[prefix + "cross_key"] = &b.cross_key;
            linears[prefix + "cross_value"] = &b.cross_value;
            linears[prefix + "cross_out"] = &b.cross_out;
            norms[prefix + "cross_norm"] = &b.cross_norm;
        }
    }
}

Linear& Model::linear(const std::string& name) {
    const auto found = linears.find(name);
    if (found == linears.end()) throw std::invalid_argument("no linear layer is called " + name);
    return *found->second;
}

Norm& Model::norm(const std::string& name) {
    const auto found = norms.find(name);
    if (found == norms.end()) throw std::invalid_argument("no layer norm is called " + name);
    return *found->second;
}

void Model::make_linear(const std::string& name, int n, int k, Type stored) {
    Linear& made = linear(name);
    const Type type = type_of_linear(name, precision, kernels);
    made.rows = row_type_of(kernels, type);
    // Where bfloat16 is but a way to store weights, float16 is as short and keeps all that was published.
    const bool as_published =
        type == Type::f32 || (type == Type::bf16 && made.rows == Type::f32 && stored == Type::f16);
    made.weight = Matrix(as_published ? stored : type, n, k, kernels);
    made.bias = Memory();
    if (name == "decoder.embedding" && precision == Precision::int8)
        make_linear("decoder.approximate_embedding", n, k, stored);
}

template <class Source>
void Model::pack(const std::string& name, int first, int n_rows, const Source* rows, Team& team) {
    linear(name).weight.pack(first, n_rows, rows, team);
    if (name == "decoder.embedding" && precision == Precision::int8)
        approximate_embedding.weight.pack(first, n_rows, rows, team);
}
template void Model::pack(const std::string&, int, int, const float*, Team&);
template void Model::pack(const std::string&, int, int, const f16*, Team&);

std::size_t Model::weight_bytes() const {
    std::size_t total = audio_positions.n_bytes() + text_positions.n_bytes();
    for (const auto& [name, linear] : linears) total += linear->weight.n_bytes() + linear->bias.n_bytes();
    for (const auto& [name, norm] : norms) total += norm->weight.n_bytes() + norm->bias.n_bytes();
    return total;
}

}  // namespace stapes
