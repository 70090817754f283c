// What sanitizers should see: every kernel over odd sizes, threads that come and go, and a whole small network. That the
// numbers are right, tests/contract says; here they are only asked to be the same, whoever computed them.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "network/network.h"
#include "suites.h"

namespace {

using namespace stapes;

#define CHECK(condition)                                                          \
    do {                                                                          \
        if (!(condition)) {                                                       \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                         \
        }                                                                         \
    } while (false)

std::vector<float> numbers(std::size_t n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 0.3f);
    std::vector<float> made(n);
    for (float& one : made) one = normal(random);
    return made;
}

void every_part_is_done_once(int n_threads, int n_parts) {
    const PoolLease lease(n_threads);
    for (int round = 0; round < 200; ++round) {
        std::vector<int> done(static_cast<std::size_t>(n_parts));
        Team team(n_threads);
        CHECK(team.size() >= 1 && team.size() <= n_threads);
        team.share(n_parts, [&](int part, int thread) {
            CHECK(thread < n_threads);
            ++done[static_cast<std::size_t>(part)];
        });
        for (const int one : done) CHECK(one == 1);
    }
}

void callers_do_not_wait_for_each_other() {
    const PoolLease lease(3);
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; ++i) callers.emplace_back([] { every_part_is_done_once(3, 7); });
    for (auto& one : callers) one.join();
}

void helpers_wake_up() {
    const PoolLease lease(4);
    for (int round = 0; round < 5; ++round) {
        every_part_is_done_once(4, 5);
        std::this_thread::sleep_for(std::chrono::milliseconds(3));  // long enough for all to fall asleep
    }
}

void what_a_part_throws_arrives() {
    const PoolLease lease(2);
    Team team(2);
    bool caught = false;
    try {
        team.share(4, [](int part, int) {
            if (part == 2) throw std::bad_alloc();
        });
    } catch (const std::bad_alloc&) {
        caught = true;
    }
    CHECK(caught);
}

void fill(Network& net, const std::string& name, int n, int k, unsigned seed) {
    Team team(1);
    net.make_linear(name, n, k, Type::f32);
    net.linear(name).weight.pack(0, n, numbers(static_cast<std::size_t>(n) * static_cast<std::size_t>(k), seed).data(), team);
}

void fill(Network& net, const std::string& name) {
    const auto whole = static_cast<std::size_t>(round_up(net.sizes().n_state, PANEL)) * sizeof(float);
    Norm& norm = net.norm(name);
    norm.weight = Memory(whole);
    norm.bias = Memory(whole);
    for (int i = 0; i < net.sizes().n_state; ++i) norm.weight.as()[i] = 1.0f;
}

std::unique_ptr<Network> small_network(Precision precision, const Kernels& kernels, int n_threads) {
    const Sizes sizes{5, 70, 20, 4, 1, 99, 70, 4, 2};
    auto net = std::make_unique<Network>(sizes, precision, kernels, n_threads);
    const int d = sizes.n_state, padded = round_up(d, PANEL), stride = net->stride();
    unsigned seed = 1;
    fill(*net, "encoder.conv1", d, 3 * sizes.n_mels, seed++);
    fill(*net, "encoder.conv2", d, 3 * stride, seed++);
    fill(*net, "decoder.embedding", sizes.n_vocab, d, seed++);
    for (const std::string name : {"encoder.norm", "decoder.norm"}) fill(*net, name);
    for (const std::string block : {"encoder.0.", "decoder.0.", "decoder.1."}) {
        fill(*net, block + "qkv", 2 * padded + d, d, seed++);
        for (const std::string name : {"attn_out", "cross_query", "cross_key", "cross_value", "cross_out"})
            if (block != "encoder.0." || name == "attn_out") fill(*net, block + name, d, d, seed++);
        fill(*net, block + "mlp_in", 4 * d, d, seed++);
        fill(*net, block + "mlp_out", d, 4 * d, seed++);
        for (const std::string name : {"attn_norm", "cross_norm", "mlp_norm"})
            if (block != "encoder.0." || name != "cross_norm") fill(*net, block + name);
    }
    net->positions(true) = Memory(static_cast<std::size_t>(sizes.n_audio_ctx * stride) * sizeof(float));
    net->positions(false) = Memory(static_cast<std::size_t>(sizes.n_text_ctx * stride) * sizeof(float));
    return net;
}

Request request(Row& row, Window& window, int length, std::vector<std::int32_t> tokens) {
    Request made{};
    made.row = &row;
    made.window = &window;
    made.length = length;
    made.tokens = std::move(tokens);
    made.logits_at = {static_cast<int>(made.tokens.size()) - 1};
    made.attention = {{1, 2}};
    made.attention_scores.resize(made.tokens.size() * 70);
    made.chooses = true;
    made.now = {{0, 7}};
    made.choosing.vote_from = 60;
    made.choosing.how = Choosing::How::top;
    made.choosing.n_chosen = 3;
    return made;
}

std::vector<float> logits_of(Network& net, int n_threads) {
    const auto mel = numbers(5 * 140, 77);
    std::vector<float> found;
    auto first = net.encode(mel.data()), second = net.encode(mel.data());
    Row one, two;
    std::vector<std::int32_t> prompt(37, 3);
    Request a = request(one, *first, 0, prompt), b = request(two, *second, 0, {1, 2});
    std::vector<Request*> both{&a, &b};
    net.step(both);
    auto fork = net.fork(one, 35);
    Request c = request(*fork, *first, 35, {9, 8}), d = request(one, *first, 37, {5});
    std::vector<Request*> later{&c, &d};
    net.step(later);
    for (const Request* each : {&a, &b, &c, &d}) {
        CHECK(each->ids.size() == 3);
        found.insert(found.end(), each->logits.begin(), each->logits.end());
    }
    CHECK(n_threads >= 1);
    return found;
}

void a_network_gives_the_same_with_every_number_of_threads() {
    int n_isas = 0;
    const Kernels* const* isas = usable_kernels(&n_isas);
    for (int isa = 0; isa < n_isas; ++isa) {
        for (const Precision precision : {Precision::float32, Precision::bfloat16, Precision::int8}) {
            std::vector<float> expected;
            for (const int n_threads : {1, 3}) {
                auto net = small_network(precision, *isas[isa], n_threads);
                const auto found = logits_of(*net, n_threads);
                for (const float one : found) CHECK(std::isfinite(one));
                CHECK(expected.empty() || found == expected);
                expected = found;
            }
        }
    }
}

void every_set_finds_the_same_spectrum() {
    int n_isas = 0;
    const Kernels* const* isas = usable_kernels(&n_isas);
    const auto filters = numbers(3 * 201, 5);
    for (const std::size_t n_frames : {1, 2, 17, 33}) {
        const auto samples = numbers((n_frames - 1) * 160 + 400, 6);
        for (int isa = 0; isa < n_isas; ++isa) {
            std::vector<float> mel(3 * n_frames);
            isas[isa]->log_mel(samples.data(), n_frames, filters.data(), 3, mel.data(), n_frames);
            for (const float one : mel) CHECK(one >= -10.0f);
        }
    }
}

}  // namespace

int main() {
    for (const int n_threads : {1, 2, 4})
        for (const int n_parts : {0, 1, 3, 50}) every_part_is_done_once(n_threads, n_parts);
    callers_do_not_wait_for_each_other();
    helpers_wake_up();
    what_a_part_throws_arrives();
    every_set_finds_the_same_spectrum();
    a_network_gives_the_same_with_every_number_of_threads();
    if (stapes::tests::run_suites()) return 1;
    std::puts("all native tests passed");
}
