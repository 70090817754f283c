#include "decoder.h"

#include <algorithm>
#include <cmath>

namespace stapes {
namespace {

constexpr int ALONE = 4;        // tokens that are not worth sharing out
constexpr int WIDE_PANELS = 4;  // panels that a single row takes together

std::size_t size(int n) { return static_cast<std::size_t>(n); }

}  // namespace

Decoder::Space::Space(const Model& model, int n)
    : n_tokens(n),
      rows(model.kernels, n, model.sizes.n_state),
      hidden_rows(model.kernels, n, model.decoder.front().mlp_in.weight.view().n),
      x(size(n) * size(model.stride) * sizeof(float)),
      normalised(size(n) * size(model.stride) * sizeof(float)),
      projected(size(n) * 3 * size(model.stride) * sizeof(float)),
      mixed(size(n) * size(model.stride) * sizeof(float)),
      hidden(size(n) * hidden_rows.stride() * sizeof(float)) {}

Decoder::Decoder(const Model& model, int n_threads) : model_(model), kernels_(model.kernels), logits_(model) {
    const int widest = std::max(model.decoder.front().mlp_in.weight.view().n, model.stride);
    for (int i = 0; i < n_threads; ++i)
        scratches_.push_back(std::make_unique<Scratch>(widest, model.sizes.n_state / model.sizes.n_text_head,
                                                       std::max(model.sizes.n_audio_ctx, model.sizes.n_text_ctx)));
}

void Decoder::run(const std::vector<Request*>& requests, Team& team) {
    take_requests(requests);
    prepare(team);
    float* x = space_->x.as();
    const std::size_t stride = size(model_.stride);
    for (int layer = 0; layer < model_.sizes.n_text_layer; ++layer) {
        const Block& block = model_.decoder[size(layer)];
        normalise(block.attn_norm, block.qkv.rows, team);
        multiply(space_->rows, block.qkv, nullptr, space_->projected.as(), 3 * stride, Activation::none, team);
        attend_self(layer, team);
        take(space_->mixed, space_->rows, block.attn_out.rows, team);
        multiply(space_->rows, block.attn_out, x, x, stride, Activation::none, team);
        normalise(block.cross_norm, block.cross_query.rows, team);
        multiply(space_->rows, block.cross_query, nullptr, space_->projected.as(), stride, Activation::none, team);
        attend_cross(layer, team);
        take(space_->mixed, space_->rows, block.cross_out.rows, team);
        multiply(space_->rows, block.cross_out, x, x, stride, Activation::none, team);
        normalise(block.mlp_norm, block.mlp_in.rows, team);
        multiply(space_->rows, block.mlp_in, nullptr, space_->hidden.as(), space_->hidden_rows.stride(), model_.gelu(),
                 team);
        take(space_->hidden, space_->hidden_rows, block.mlp_out.rows, team);
        multiply(space_->hidden_rows, block.mlp_out, x, x, stride, Activation::none, team);
    }
    logits_.compute(requests_, first_tokens_, space_->x.as(), scratches_, team);
}

// Requests of one window side by side, in their order: its keys are read together. (A stable sort of the standard
// library allocates.)
void Decoder::take_requests(const std::vector<Request*>& requests) {
    requests_.clear();
    for (Request* one : requests) {
        const auto by_window = [](const Request* a, const Request* b) { return std::less<>{}(a->window, b->window); };
        requests_.insert(std::upper_bound(requests_.begin(), requests_.end(), one, by_window), one);
    }
    first_tokens_.clear();
    groups_.clear();
    n_tokens_ = 0;
    for (Request* one : requests_) {
        const Request* last = first_tokens_.empty() ? nullptr : requests_[first_tokens_.size() - 1];
        const int n = static_cast<int>(one->tokens.size());
        // A row whose scores are wanted stands for itself.
        const bool joins = last && last->window == one->window && one->attention.empty() && last->attention.empty() &&
                           last->within.first == one->within.first && last->within.last == one->within.last;
        if (joins) groups_.back().n_tokens += n;
        else groups_.push_back({one, n_tokens_, n});
        first_tokens_.push_back(n_tokens_);
        n_tokens_ += n;
    }
}

void Decoder::prepare(Team& team) {
    // Some room to spare, but not that of a batch of prompts for ever after.
    if (!space_ || space_->n_tokens < n_tokens_ || space_->n_tokens > 8 * n_tokens_ + 64)
        space_ = std::make_unique<Space>(model_, n_tokens_ + 8);
    for (Request* one : requests_) own_blocks(*one);
    team.share(static_cast<int>(requests_.size()),
               [&](int part, int) { embed(*requests_[size(part)], first_tokens_[size(part)]); });
}

// Room for the new tokens, in blocks that no other row reads.
void Decoder::own_blocks(Request& request) {
    auto& blocks = request.row->blocks;
    const int last = request.length + static_cast<int>(request.tokens.size()) - 1;
    blocks.resize(size(round_up(request.length, PANEL) / PANEL));  // what was cut off is not kept
    for (int i = request.length / PANEL; i <= last / PANEL; ++i) {
        const bool fresh = i >= static_cast<int>(blocks.size());
        if (fresh) blocks.emplace_back();
        auto& block = blocks[size(i)];
        if (!fresh && block.use_count() == 1) continue;
        auto made =
            std::make_shared<KeyValues>(model_.text_shape(), model_.sizes.n_text_layer, model_.sizes.n_text_head, 1);
        if (!fresh) std::memcpy(made->memory.bytes(), block->memory.bytes(), made->memory.n_bytes());
        block = std::move(made);
    }
}

void Decoder::embed(Request& request, int first_token) {
    const std::size_t stride = size(model_.stride);
    for (std::size_t i = 0; i < request.tokens.size(); ++i) {
        float* x = space_->x.as() + (size(first_token) + i) * stride;
        const float* position = model_.text_positions.as() + (size(request.length) + i) * stride;
        model_.embedding.weight.unpack(request.tokens[i], x);
        for (int dim = 0; dim < model_.sizes.n_state; ++dim) x[dim] += position[dim];
        std::fill(x + model_.sizes.n_state, x + stride, 0.0f);  // of whatever the row held before, NaN must not stay
    }
}

void Decoder::normalise(const Norm& norm, Type type, Team& team) {
    const auto rows = [&](int first, int n) {
        space_->rows.normalise(space_->x.as(), norm, first, n, type, space_->normalised.as());
    };
    if (n_tokens_ > ALONE) return team.share(n_tokens_, [&](int part, int) { rows(part, 1); });
    rows(0, n_tokens_);
}

void Decoder::take(const Memory& from, Operand& to, Type type, Team& team) {
    if (n_tokens_ > ALONE) return team.share(n_tokens_, [&](int part, int) { to.take(from.as(), part, 1, type); });
    to.take(from.as(), 0, n_tokens_, type);
}

void Decoder::multiply(const Operand& from, const Linear& layer, const float* residual, float* c, std::size_t c_stride,
                       Activation activation, Team& team) {
    const Weights w = layer.weight.view();
    const int panels = w.n_panels();
    int chunk = std::max(1, panels / (2 * team.size()));
    if (chunk >= WIDE_PANELS) chunk = chunk / WIDE_PANELS * WIDE_PANELS;
    team.share((panels + chunk - 1) / chunk, [&](int part, int thread) {
        Product p = product_of(from.rows(layer.rows), n_tokens_, w, layer, scratch(thread));
        p.first_panel = part * chunk;
        p.last_panel = std::min(panels, p.first_panel + chunk);
        p.activation = activation;
        p.residual = residual ? residual + p.first_panel * PANEL : nullptr;
        p.c = c + p.first_panel * PANEL;
        p.c_stride = c_stride;
        kernels_.multiply(p);
    });
}

void Decoder::attend_self(int layer, Team& team) {
    const int n_heads = model_.sizes.n_text_head, width = model_.sizes.n_state / n_heads;
    const std::size_t stride = size(model_.stride), padded = size(round_up(model_.sizes.n_state, PANEL));
    team.share(static_cast<int>(requests_.size()) * n_heads, [&](int part, int thread) {
        Request& request = *requests_[size(part / n_heads)];
        const int head = part % n_heads, n = static_cast<int>(request.tokens.size());
        const std::size_t token = size(first_tokens_[size(part / n_heads)]);
        const float* query = space_->projected.as() + token * 3 * stride + head * width;
        const BlockShape shape = model_.text_shape();
        Scratch& own = scratch(thread);
        for (std::size_t i = 0; i < request.row->blocks.size(); ++i) {
            own.keys[i] = request.row->blocks[i]->keys(layer, head, 0);
            own.values[i] = request.row->blocks[i]->values(layer, head, 0);
        }
        for (int done = 0; done < n;) {
            const int position = request.length + done, count = std::min(n - done, PANEL - position % PANEL);
            const float* from = query + size(done) * 3 * stride;
            KeyValues& block = *request.row->blocks[size(position / PANEL)];
            kernels_.store_keys(shape, from + padded, 3 * stride, count, position % PANEL, block.keys(layer, head, 0));
            kernels_.store_values(shape, from + 2 * padded, 3 * stride, count, position % PANEL,
                                  block.values(layer, head, 0));
            done += count;
        }
        Attention call{};
        call.shape = shape;
        call.scale = 1.0f / std::sqrt(static_cast<float>(width));
        call.queries = query;
        call.query_stride = 3 * stride;
        call.n_queries = n;
        call.keys = own.keys.data();
        call.values = own.values.data();
        call.n_keys = request.length + n;
        call.first_visible = request.length + 1;
        call.out = space_->mixed.as() + token * stride + head * width;
        call.out_type = Type::f32;
        call.out_stride = stride;
        call.scratch = own.attention.bytes();
        kernels_.attend(call);
    });
}

float* Decoder::raw_scores_of(Request& request, int layer, int head) {
    const std::size_t n = request.tokens.size() * size(request.within.last - request.within.first);
    for (std::size_t i = 0; i < request.attention.size(); ++i)
        if (request.attention[i] == std::pair{layer, head}) return request.attention_scores.data() + i * n;
    return nullptr;
}

void Decoder::attend_cross(int layer, Team& team) {
    const int n_heads = model_.sizes.n_text_head;
    team.share(static_cast<int>(groups_.size()) * n_heads, [&](int part, int thread) {
        attend_cross_head(layer, part % n_heads, groups_[size(part / n_heads)], scratch(thread));
    });
}

void Decoder::attend_cross_head(int layer, int head, const Group& group, Scratch& scratch) {
    Window& window = *group.first->window;
    const Range within = group.first->within;
    const std::size_t stride = size(model_.stride),
                      at = size(group.first_token) * stride + size(head * window.shape.width);
    Attention call{};
    call.shape = window.shape;
    call.scale = 1.0f / std::sqrt(static_cast<float>(window.shape.width));
    call.queries = space_->projected.as() + at;
    call.query_stride = stride;
    call.n_queries = group.n_tokens;
    scratch.attend_to(call, window, layer, head, within.first / PANEL);
    call.n_keys = call.first_visible = within.last - within.first;
    call.out = space_->mixed.as() + at;
    call.out_type = Type::f32;
    call.out_stride = stride;
    call.raw_scores = raw_scores_of(*group.first, layer, head);
    call.scratch = scratch.attention.bytes();
    kernels_.attend(call);
}

}  // namespace stapes
