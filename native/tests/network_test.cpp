// A whole network of odd sizes with random weights: threads change no bit, forks share and part, what is cut off is
// gone.
#include <algorithm>
#include <cstring>
#include <iterator>
#include <string>

#include "../network/network.h"
#include "check.h"

namespace stapes::tests {
namespace {

// Heads 12 and 18 wide, and 5 and 5: an odd width, and a whole block of keys more.
constexpr Sizes SIZES[] = {{5, 40, 36, 3, 2, 70, 70, 2, 2}, {5, 70, 20, 4, 1, 99, 70, 4, 2}};

void fill(Network& network, const std::string& name, int n, int k, unsigned seed) {
    network.model().make_linear(name, n, k, Type::f32);
    network.pack(name, 0, n, random_numbers(size(n) * size(k), seed, 0.2f).data());
    Linear& made = network.model().linear(name);
    made.bias = Memory(size(round_up(n, PANEL)) * sizeof(float));
    std::memcpy(made.bias.as(), random_numbers(size(n), seed + 1).data(), size(n) * sizeof(float));
}

void fill_norm(Network& network, const std::string& name) {
    Norm& norm = network.model().norm(name);
    const int d = network.model().sizes.n_state;
    norm.weight = Memory(size(round_up(d, PANEL)) * sizeof(float));
    norm.bias = Memory(size(round_up(d, PANEL)) * sizeof(float));
    for (int i = 0; i < d; ++i) norm.weight.as()[i] = 1.0f;
}

std::unique_ptr<Network> made_network(const Sizes& sizes, Precision precision, const Kernels& kernels, int n_threads) {
    auto made = std::make_unique<Network>(sizes, precision, kernels, n_threads);
    const int d = sizes.n_state;
    unsigned seed = 0;
    for (const std::string side : {"encoder.", "decoder."}) {
        for (int layer = 0; layer < (side == "encoder." ? sizes.n_audio_layer : sizes.n_text_layer); ++layer) {
            const std::string block = side + std::to_string(layer) + ".";
            fill(*made, block + "qkv", 2 * round_up(d, PANEL) + d, d, ++seed);
            fill(*made, block + "mlp_in", 4 * d, d, ++seed);
            fill(*made, block + "mlp_out", d, 4 * d, ++seed);
            fill(*made, block + "attn_out", d, d, ++seed);
            fill_norm(*made, block + "attn_norm");
            fill_norm(*made, block + "mlp_norm");
            if (side == "encoder.") continue;
            for (const char* part : {"cross_query", "cross_key", "cross_value", "cross_out"})
                fill(*made, block + part, d, d, ++seed);
            fill_norm(*made, block + "cross_norm");
        }
    }
    fill(*made, "encoder.conv1", d, 3 * sizes.n_mels, ++seed);
    fill(*made, "encoder.conv2", d, 3 * made->model().stride, ++seed);
    made->model().make_linear("decoder.embedding", sizes.n_vocab, d, Type::f32);
    made->pack("decoder.embedding", 0, sizes.n_vocab, random_numbers(size(sizes.n_vocab * d), ++seed).data());
    for (const char* name : {"encoder.norm", "decoder.norm"}) fill_norm(*made, name);
    made->model().audio_positions = Memory(size(sizes.n_audio_ctx) * size(made->model().stride) * sizeof(float));
    made->model().text_positions = Memory(size(sizes.n_text_ctx) * size(made->model().stride) * sizeof(float));
    return made;
}

// A request that chooses after its last token, with room for what is chosen: `ready()` points the choice at that room.
struct Asked : Request {
    std::vector<Range> now{{0, 4}};
    double uniform = 0.5;
    std::vector<std::int32_t> ids;
    std::vector<float> logprobs;

    Sampling& sampling() { return choices.front().sampling; }
    Request* ready() {
        Sampling& c = sampling();
        ids.resize(size(c.n_chosen));
        logprobs.resize(size(c.n_chosen));
        c.now = now.data();
        c.n_now = now.size();
        c.uniforms = &uniform;
        c.ids = ids.data();
        c.logprobs = logprobs.data();
        return this;
    }
};

Asked request_of(const Network& network, Row& row, Window& window, int length, std::vector<std::int32_t> tokens) {
    Asked made{};
    made.row = &row;
    made.window = &window;
    made.length = length;
    const int positions = std::min(window.n_blocks * PANEL, network.model().sizes.n_audio_ctx);
    made.within = {0, positions};
    made.logits_at = {static_cast<int>(tokens.size()) - 1};
    made.attention = {{1, 0}, {0, 1}};
    made.attention_scores.resize(2 * tokens.size() * size(positions));
    made.choices.push_back({static_cast<int>(tokens.size()) - 1, {}});
    made.tokens = std::move(tokens);
    made.sampling().how = Sampling::How::top;
    made.sampling().n_chosen = 3;
    made.sampling().vote_from = 50;
    made.probe_positions = {0};
    made.probe_ids = {{1, 69}};
    made.probe_below = {70};
    return made;
}

std::vector<float> looked_at(const Request& request) {
    std::vector<float> found = request.logits;
    found.insert(found.end(), request.attention_scores.begin(), request.attention_scores.end());
    return found;
}

std::vector<float> step(Network& network, Row& row, Window& window, int length, std::vector<std::int32_t> tokens) {
    Asked request = request_of(network, row, window, length, std::move(tokens));
    network.step({request.ready()});
    CHECK(request.ids.size() == 3 && request.probe_logits.size() == 1);
    return looked_at(request);
}

// A row that only chooses chooses what it chooses when it is looked at.
void check_choice(Network& network, const Row& row, Window& window, int length) {
    for (const auto how : {Sampling::How::best, Sampling::How::top}) {
        std::vector<std::int32_t> ids[2];
        for (const bool looks : {false, true}) {
            const auto fork = network.fork(row, length);
            Asked request = request_of(network, *fork, window, length, {5});
            request.sampling().how = how;
            request.sampling().n_chosen = how == Sampling::How::best ? 1 : 3;
            if (!looks) {
                request.logits_at = request.probe_positions = request.probe_below = {};
                request.probe_ids = {};
            }
            network.step({request.ready()});
            ids[looks] = request.ids;
        }
        CHECK(ids[0] == ids[1]);
    }
}

// Choices after several tokens of a step are those of as many steps of one token.
void check_several_choices(Network& network, const Row& row, Window& window, int length) {
    const std::vector<std::int32_t> tokens{5, 9, 2, 7};
    const auto together = network.fork(row, length), singly = network.fork(row, length);
    Asked request = request_of(network, *together, window, length, tokens);
    request.logits_at = request.probe_positions = request.probe_below = {};
    request.probe_ids = {};
    request.attention = {};
    request.sampling().how = Sampling::How::best;
    request.sampling().n_chosen = 1;
    request.ready();
    request.choices.assign(tokens.size(), request.choices.front());
    request.ids.resize(tokens.size());
    request.logprobs.resize(tokens.size());
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        request.choices[i].position = static_cast<int>(i);
        request.choices[i].sampling.ids = &request.ids[i];
        request.choices[i].sampling.logprobs = &request.logprobs[i];
    }
    network.step({&request});
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        Asked one = request_of(network, *singly, window, length + static_cast<int>(i), {tokens[i]});
        one.logits_at = one.probe_positions = one.probe_below = {};
        one.probe_ids = {};
        one.sampling().how = Sampling::How::best;
        one.sampling().n_chosen = 1;
        network.step({one.ready()});
        CHECK(one.ids[0] == request.ids[i] && one.logprobs[0] == request.logprobs[i]);
    }
}

std::vector<std::int32_t> tokens_of(const Network& network, int n, int seed) {
    std::vector<std::int32_t> made;
    for (int i = 0; i < n; ++i) made.push_back((i * 7 + seed * 13) % network.model().sizes.n_vocab);
    return made;
}

std::shared_ptr<Window> full_window(Network& network, const std::vector<float>& mel) {
    return network.encode(mel.data(), network.model().sizes.n_audio_ctx);
}

// Rows of two windows, with prompts across the border of a block, then one token each, forked and cut off on the way.
std::vector<float> run(Network& network) {
    const auto mel = random_numbers(size(network.model().sizes.n_mels * 2 * network.model().sizes.n_audio_ctx), 77);
    const auto window = full_window(network, mel), other = full_window(network, random_numbers(mel.size(), 78));
    std::vector<Row> rows(3);
    std::vector<Asked> requests;
    for (int i = 0; i < 3; ++i)
        requests.push_back(
            request_of(network, rows[size(i)], i == 1 ? *other : *window, 0, tokens_of(network, 30 + i, i)));
    std::vector<Request*> all;
    for (Asked& one : requests) all.push_back(one.ready());
    network.step(all);
    std::vector<float> found;
    for (const Asked& one : requests) found.insert(found.end(), one.logits.begin(), one.logits.end());
    const auto fork = network.fork(rows[2], 32);
    const auto mine = step(network, rows[2], *window, 32, {5});
    const auto ours = step(network, *fork, *window, 32, {5});
    CHECK(mine == ours);
    check_choice(network, rows[2], *window, 33);
    check_several_choices(network, rows[2], *window, 33);
    const auto later = network.fork(rows[2], 33);  // shares the block that both write next
    step(network, *later, *window, 33, {9, 8, 7});
    const auto again = step(network, rows[2], *window, 33, {6}), its = step(network, *fork, *window, 33, {6});
    CHECK(again == its);
    const auto cut = step(network, *later, *window, 32, {5});
    CHECK(cut == mine);
    for (const auto& one : {mine, again}) found.insert(found.end(), one.begin(), one.end());
    for (const float one : found) CHECK(std::isfinite(one));
    return found;
}

// Short windows: a longer one before leaves no trace in them, nor do they in a longer one after them or beside them.
void check_lengths(Network& network, Network& fresh) {
    const int whole = network.model().sizes.n_audio_ctx;
    const auto mel = random_numbers(size(network.model().sizes.n_mels * 2 * whole), 79);
    const auto of = [&](Network& one, int n_positions) {
        const auto window = one.encode(mel.data(), n_positions);
        CHECK(window->memory.n_bytes() >= one.window_bytes(n_positions));
        CHECK(window->n_blocks == round_up(n_positions, PANEL) / PANEL);
        Row row;
        return step(one, row, *window, 0, {5, 6});
    };
    const auto full = of(network, whole);
    for (int n_positions = PANEL; n_positions < whole; n_positions += PANEL) {
        CHECK(network.window_bytes(n_positions) < network.window_bytes(whole));
        const auto found = of(network, n_positions);
        CHECK(found == of(fresh, n_positions));
        for (const float one : found) CHECK(std::isfinite(one));
        const auto window = full_window(network, mel), part = network.encode(mel.data(), n_positions);
        std::vector<Row> rows(2);
        Asked requests[] = {request_of(network, rows[0], *window, 0, {5, 6}),
                            request_of(network, rows[1], *part, 0, {5, 6})};
        network.step({requests[0].ready(), requests[1].ready()});
        CHECK(looked_at(requests[0]) == full && looked_at(requests[1]) == found);
    }
}

// Windows and steps take no memory once there were some of their kind, but a block for every PANEL tokens of a row.
void check_allocations(Network& network) {
    const auto mel = random_numbers(size(network.model().sizes.n_mels * 2 * network.model().sizes.n_audio_ctx), 77);
    full_window(network, mel);  // released: its memory is free
    const std::size_t before_window = n_allocations();
    const auto window = full_window(network, mel);
    CHECK(n_allocations() == before_window);
    constexpr Sampling::How HOWS[] = {Sampling::How::best, Sampling::How::top, Sampling::How::draw};
    std::vector<Row> rows(std::size(HOWS));
    std::vector<Asked> requests;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        Asked& made = requests.emplace_back(request_of(network, rows[i], *window, 0, {3}));
        made.logits_at = made.probe_positions = made.probe_below = {};
        made.probe_ids = {};
        made.sampling().how = HOWS[i];
        made.sampling().n_chosen = HOWS[i] == Sampling::How::top ? 3 : 1;
        made.sampling().temperature = 0.7;
        if (i == 2) made.attention = {};
    }
    for (int step = 0; step < 60; ++step) {
        std::vector<Request*> all;
        bool begins_block = false;
        for (Asked& one : requests) {
            if (step % 3 == 1 && all.size() == 2) break;  // fewer rows, and then as many again
            begins_block |= one.length % PANEL == 0;
            all.push_back(one.ready());
        }
        const std::size_t before = n_allocations();
        network.step(all);
        CHECK(begins_block ? n_allocations() > before : n_allocations() == before);
        for (Request* one : all) ++one->length;
    }
}

}  // namespace

void test_network() {
    for (const Kernels* kernels : all_kernels()) {
        for (const Precision precision : {Precision::float32, Precision::bfloat16, Precision::int8}) {
            for (const Sizes& sizes : SIZES) {
                const auto alone = made_network(sizes, precision, *kernels, 1),
                           shared = made_network(sizes, precision, *kernels, 3);
                CHECK(run(*alone) == run(*shared));
                check_lengths(*alone, *made_network(sizes, precision, *kernels, 1));
                check_allocations(*alone);
            }
        }
    }
}

}  // namespace stapes::tests
