// Work is shared out by blocks of positions and, for attention, by heads and queries. One thread takes a block through
// all layers that lie between two attentions, so that what it computes stays in its cache.
#include "encoder.h"

#include <algorithm>
#include <cmath>

namespace stapes {
namespace {

constexpr int QUERIES = 2 * ATTENTION_QUERIES;

int n_parts(int n, int size) { return (n + size - 1) / size; }

// 96 positions are three blocks of keys and whole tiles of the products. Fewer would read (or widen) weights more often
// than their hidden values gain by lying nearer. AMX waits for weights from further away: more positions share them, as
// long as each thread has four blocks, which end about together.
int block_for(const Model& model, int n_threads) {
    if (!model.kernels.has_amx) return 96;
    return std::clamp(round_up(n_parts(model.sizes.n_audio_ctx, 4 * n_threads), PANEL), 96, 192);
}

}  // namespace

Encoder::Worker::Worker(const Model& model, int block, int widest)
    : scratch(widest, model.sizes.n_state / model.sizes.n_audio_head, model.sizes.n_audio_ctx),
      rows(model.kernels, block, model.sizes.n_state),
      hidden_rows(model.kernels, block, model.encoder.front().mlp_in.weight.view().n),
      hidden(static_cast<std::size_t>(block) * hidden_rows.stride() * sizeof(float)),
      normalised(static_cast<std::size_t>(block * model.stride) * sizeof(float)),
      projected(static_cast<std::size_t>(block * model.stride) * sizeof(float)) {}

Encoder::Encoder(const Model& model, int n_threads)
    : model_(model),
      kernels_(model.kernels),
      n_state_(model.sizes.n_state),
      padded_state_(round_up(model.sizes.n_state, PANEL)),
      n_positions_(model.sizes.n_audio_ctx),
      stride_(static_cast<std::size_t>(model.stride)),
      block_(block_for(model, n_threads)),
      self_({model.audio_type, n_state_ / model.sizes.n_audio_head}, 1, model.sizes.n_audio_head,
            round_up(n_positions_, PANEL) / PANEL) {
    const auto n = static_cast<std::size_t>(n_positions_);
    const auto value = static_cast<std::size_t>(size_of(model_.rows_type));
    mel_ = Memory((2 * n + 2) * static_cast<std::size_t>(model_.sizes.n_mels) * value);
    convolved_ = Memory((2 * n + 2) * stride_ * value);
    x_ = Memory(n * stride_ * sizeof(float));
    queries_ = Memory(n * stride_ * sizeof(float));
    mixed_ = Memory(n * stride_ * sizeof(float));
    int widest = std::max(model_.conv1.weight.view().k, model_.conv2.weight.view().k);
    widest = std::max({widest, padded_state_, model_.encoder.front().mlp_in.weight.view().n});
    for (int i = 0; i < n_threads; ++i) workers_.push_back(std::make_unique<Worker>(model_, block_, widest));
}

void Encoder::run(const float* mel, int n_positions, Window& window, Team& team) {
    n_positions_ = n_positions;
    end_mel();
    const auto by_blocks = [&](int n, auto&& work) {
        team.share(n_parts(n, block_), [&](int part, int thread) {
            work(part * block_, std::min(block_, n - part * block_), *workers_[static_cast<std::size_t>(thread)]);
        });
    };
    const int n_layers = model_.sizes.n_audio_layer, n_heads = model_.sizes.n_audio_head;
    by_blocks(2 * n_positions_, [&](int first, int n, Worker&) { take_mel(mel, first, n); });
    by_blocks(2 * n_positions_, [&](int first, int n, Worker& worker) { convolve_first(first, n, worker); });
    by_blocks(n_positions_, [&](int first, int n, Worker& worker) {
        convolve_second(first, n, worker);
        project(0, first, n, worker);
    });
    for (int layer = 0; layer < n_layers; ++layer) {
        const int parts = n_parts(n_positions_, QUERIES);
        team.share(parts * n_heads, [&](int part, int thread) {
            const int first = part % parts * QUERIES;
            attend(layer, part / parts, first, std::min(QUERIES, n_positions_ - first),
                   *workers_[static_cast<std::size_t>(thread)]);
        });
        by_blocks(n_positions_, [&](int first, int n, Worker& worker) {
            finish(layer, first, n, worker);
            if (layer + 1 < n_layers) project(layer + 1, first, n, worker);
            else project_cross(first, n, worker, window);
        });
    }
}

// A row of zeros after the last frame, where a longer window had a frame. (Of the convolved frames, the second
// convolution's steps of two do not reach that row.)
void Encoder::end_mel() {
    const std::size_t row =
        static_cast<std::size_t>(model_.sizes.n_mels) * static_cast<std::size_t>(size_of(model_.rows_type));
    std::memset(mel_.bytes() + static_cast<std::size_t>(2 * n_positions_ + 1) * row, 0, row);
}

// (n_mels, frames) -> rows of frames, behind the row of zeros.
void Encoder::take_mel(const float* mel, int first, int n) {
    const auto n_mels = static_cast<std::size_t>(model_.sizes.n_mels),
               n_frames = static_cast<std::size_t>(2 * n_positions_);
    for (int frame = first; frame < first + n; ++frame) {
        const std::size_t at = static_cast<std::size_t>(frame + 1) * n_mels;
        for (std::size_t bin = 0; bin < n_mels; ++bin) {
            const float value = mel[bin * n_frames + static_cast<std::size_t>(frame)];
            if (model_.rows_type == Type::f32) mel_.as()[at + bin] = value;
            else mel_.as<bf16>()[at + bin] = to_bf16(value);
        }
    }
}

// Three frames lie side by side: a row of the product is a window that slides over them.
void Encoder::convolve_first(int first, int n, Worker& worker) {
    const Weights w = model_.conv1.weight.view();
    const auto value = static_cast<std::size_t>(size_of(model_.rows_type));
    const std::size_t frame = static_cast<std::size_t>(model_.sizes.n_mels) * value;
    const Rows a{model_.rows_type, mel_.bytes() + static_cast<std::size_t>(first) * frame, frame, nullptr};
    Product p = product_of(a, n, w, model_.conv1, worker.scratch);
    p.activation = model_.gelu();
    p.c = convolved_.bytes() + static_cast<std::size_t>(first + 1) * stride_ * value;
    p.c_type = model_.rows_type;
    p.c_stride = stride_;
    kernels_.multiply(p);
}

void Encoder::convolve_second(int first, int n, Worker& worker) {
    const Weights w = model_.conv2.weight.view();
    const std::size_t row = stride_ * static_cast<std::size_t>(size_of(model_.rows_type));
    const Rows a{model_.rows_type, convolved_.bytes() + 2 * static_cast<std::size_t>(first) * row, 2 * row, nullptr};
    Product p = product_of(a, n, w, model_.conv2, worker.scratch);
    const std::size_t at = static_cast<std::size_t>(first) * stride_;
    p.activation = model_.gelu();
    p.residual = model_.audio_positions.as() + at;
    p.c = x_.as() + at;
    p.c_stride = stride_;
    kernels_.multiply(p);
}

// A part of a layer's outputs for some positions, put away as keys or values of layer `index`.
void Encoder::keep(const Rows& a, const Linear& layer, int first_panel, int first, int n, bool as_keys, int index,
                   KeyValues& to, Worker& worker) {
    const Weights w = layer.weight.view();
    Product p = product_of(a, n, w, layer, worker.scratch);
    p.first_panel = first_panel;
    p.last_panel = first_panel + padded_state_ / PANEL;
    p.c = worker.projected.as();
    p.c_stride = stride_;
    kernels_.multiply(p);
    for (int head = 0; head < to.n_heads; ++head) {
        for (int row = 0; row < n; row += PANEL) {
            const float* from = worker.projected.as() + static_cast<std::size_t>(row) * stride_ + head * to.shape.width;
            const int block = (first + row) / PANEL, count = std::min(PANEL, n - row);
            if (as_keys) kernels_.store_keys(to.shape, from, stride_, count, 0, to.keys(index, head, block));
            else kernels_.store_values(to.shape, from, stride_, count, 0, to.values(index, head, block));
        }
    }
}

void Encoder::project(int layer, int first, int n, Worker& worker) {
    const Block& block = model_.encoder[static_cast<std::size_t>(layer)];
    const std::size_t at = static_cast<std::size_t>(first) * stride_;
    const Type type = block.qkv.rows;
    worker.rows.normalise(x_.as() + at, block.attn_norm, 0, n, type, worker.normalised.as());
    const Weights w = block.qkv.weight.view();
    Product p = product_of(worker.rows.rows(type), n, w, block.qkv, worker.scratch);
    p.last_panel = padded_state_ / PANEL;
    p.c = queries_.as() + at;
    p.c_stride = stride_;
    kernels_.multiply(p);
    keep(worker.rows.rows(type), block.qkv, padded_state_ / PANEL, first, n, true, 0, self_, worker);
    keep(worker.rows.rows(type), block.qkv, 2 * padded_state_ / PANEL, first, n, false, 0, self_, worker);
}

// What attention writes: what the next product takes, or float32 if that has to be quantised.
Type Encoder::mixed_type(int layer) const {
    const Type type = model_.encoder[static_cast<std::size_t>(layer)].attn_out.rows;
    return is_integer(type) ? Type::f32 : type;
}

void Encoder::attend(int layer, int head, int first, int n, Worker& worker) {
    const std::size_t at =
        static_cast<std::size_t>(first) * stride_ + static_cast<std::size_t>(head * self_.shape.width);
    const Type out_type = mixed_type(layer);
    Attention call{};
    call.shape = self_.shape;
    call.scale = 1.0f / std::sqrt(static_cast<float>(self_.shape.width));
    call.queries = queries_.as() + at;
    call.query_stride = stride_;
    call.n_queries = n;
    worker.scratch.attend_to(call, self_, 0, head);
    call.n_keys = n_positions_;
    call.first_visible = n_positions_;
    call.out = mixed_.bytes() + at * static_cast<std::size_t>(size_of(out_type));
    call.out_type = out_type;
    call.out_stride = stride_;
    call.scratch = worker.scratch.attention.bytes();
    call.rough = model_.precision != Precision::float32;
    kernels_.attend(call);
}

void Encoder::finish(int layer, int first, int n, Worker& worker) {
    const Block& block = model_.encoder[static_cast<std::size_t>(layer)];
    const std::size_t at = static_cast<std::size_t>(first) * stride_;
    const Type type = block.attn_out.rows;
    const auto value = static_cast<std::size_t>(size_of(mixed_type(layer)));
    Rows mixed{type, mixed_.bytes() + at * value, stride_ * value, nullptr};
    if (is_integer(type)) {
        worker.rows.take(mixed_.as() + at, 0, n, type);
        mixed = worker.rows.rows(type);
    }
    const Weights w = block.attn_out.weight.view();
    Product p = product_of(mixed, n, w, block.attn_out, worker.scratch);
    p.residual = x_.as() + at;
    p.c = x_.as() + at;
    p.c_stride = stride_;
    kernels_.multiply(p);
    feed_forward(block, first, n, worker);
}

void Encoder::feed_forward(const Block& block, int first, int n, Worker& worker) {
    const std::size_t at = static_cast<std::size_t>(first) * stride_;
    const Type in_type = block.mlp_in.rows, out_type = block.mlp_out.rows;
    const bool quantised = is_integer(out_type);
    worker.rows.normalise(x_.as() + at, block.mlp_norm, 0, n, in_type, worker.normalised.as());
    const Weights in = block.mlp_in.weight.view(), out = block.mlp_out.weight.view();
    Product p = product_of(worker.rows.rows(in_type), n, in, block.mlp_in, worker.scratch);
    p.activation = model_.gelu();
    p.c = quantised ? worker.hidden.bytes() : worker.hidden_rows.place(0, out_type);
    p.c_type = quantised ? Type::f32 : out_type;
    p.c_stride = worker.hidden_rows.stride();
    kernels_.multiply(p);
    if (quantised) worker.hidden_rows.take(worker.hidden.as(), 0, n, out_type);
    p = product_of(worker.hidden_rows.rows(out_type), n, out, block.mlp_out, worker.scratch);
    p.residual = x_.as() + at;
    p.c = x_.as() + at;
    p.c_stride = stride_;
    kernels_.multiply(p);
}

void Encoder::project_cross(int first, int n, Worker& worker, Window& window) {
    const Type type = model_.decoder.front().cross_key.rows;
    worker.rows.normalise(x_.as() + static_cast<std::size_t>(first) * stride_, model_.audio_norm, 0, n, type,
                          worker.normalised.as());
    for (int layer = 0; layer < model_.sizes.n_text_layer; ++layer) {
        const Block& block = model_.decoder[static_cast<std::size_t>(layer)];
        keep(worker.rows.rows(type), block.cross_key, 0, first, n, true, layer, window, worker);
        keep(worker.rows.rows(type), block.cross_value, 0, first, n, false, layer, window, worker);
    }
}

}  // namespace stapes
