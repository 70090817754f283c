// Times the kernels at the shapes of Whisper base, in one thread, on each instruction set of this machine. No Python.
//
// A row is the median of repeats, after one that warms the caches: weights of a few megabytes then come from a cache,
// those of the vocabulary from memory. Operations are two for each weight and row, or for each number of a key or
// value.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "../network/key_values.h"
#include "../network/operands.h"
#include "../network/speech.h"

namespace stapes {
namespace {

constexpr int N_STATE = 512, N_HIDDEN = 2048, N_VOCAB = 51865, N_AUDIO_CTX = 1500, N_MELS = 80, WIDTH = 64;
constexpr int N_PAST = 224;  // tokens of a long text, in a row's KV cache
constexpr std::size_t LEAST_REPEATS = 5, MOST_REPEATS = 200;
constexpr double SECONDS_A_CASE = 0.2;

std::size_t size(int n) { return static_cast<std::size_t>(n); }

std::vector<float> random_numbers(std::size_t n, float deviation = 1.0f) {
    static std::mt19937 engine(1);
    std::normal_distribution<float> numbers(0.0f, deviation);
    std::vector<float> made(n);
    for (float& one : made) one = numbers(engine);
    return made;
}

template <class Work>
double median_seconds(Work&& work) {
    using Clock = std::chrono::steady_clock;
    work();
    std::vector<double> taken;
    double total = 0.0;
    while (taken.size() < LEAST_REPEATS || (total < SECONDS_A_CASE && taken.size() < MOST_REPEATS)) {
        const auto begin = Clock::now();
        work();
        taken.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
        total += taken.back();
    }
    std::nth_element(taken.begin(), taken.begin() + static_cast<std::ptrdiff_t>(taken.size() / 2), taken.end());
    return taken[taken.size() / 2];
}

// operations and bytes of one repeat; 0: no figure.
void print_row(const Kernels& kernels, const std::string& what, const std::string& type, const std::string& shape,
               double seconds, double operations, double bytes) {
    char speed[24] = "", rate[24] = "";
    if (operations > 0.0) std::snprintf(speed, sizeof speed, "%.1f", operations / seconds * 1e-9);
    if (bytes > 0.0) std::snprintf(rate, sizeof rate, "%.1f", bytes / seconds * 1e-9);
    std::printf("%-12s %-26s %-5s %-22s %10.1f %9s %8s\n", kernels.name, what.c_str(), type.c_str(), shape.c_str(),
                seconds * 1e6, speed, rate);
    std::fflush(stdout);
}

// Random weights (n, k), packed.
Matrix made_matrix(const Kernels& kernels, Type type, int n, int k) {
    Matrix made(type, n, k, kernels);
    Team alone(1);
    const auto numbers = random_numbers(size(k), 0.05f);
    std::vector<f16> halves(size(k));
    for (std::size_t i = 0; i < halves.size(); ++i)
        halves[i].bits = static_cast<std::uint16_t>(0x2800 + i % 1024);  // 0.03 to 0.06
    for (int output = 0; output < n; ++output) {
        if (type == Type::f16) made.pack(output, 1, halves.data(), alone);
        else made.pack(output, 1, numbers.data(), alone);
    }
    return made;
}

// A product of n_rows rows, ready to be multiplied.
struct Gemm {
    Gemm(const Kernels& its_kernels, const Matrix& matrix, int n_rows)
        : kernels(its_kernels),
          weights(matrix.view()),
          rows(its_kernels, n_rows, weights.k),
          c(size(n_rows) * size(row_stride(weights.n)) * sizeof(float)),
          scratch(product_scratch(weights.k)) {
        const Type type = row_type_of(kernels, weights.type);
        const auto numbers = random_numbers(rows.stride() * size(n_rows));
        rows.take(numbers.data(), 0, n_rows, type);
        product.a = rows.rows(type);
        product.n_rows = n_rows;
        product.w = &weights;
        product.last_panel = weights.n_panels();
        product.c = c.bytes();
        product.c_type = Type::f32;
        product.c_stride = size(row_stride(weights.n));
        product.scratch = scratch.bytes();
    }
    Gemm(const Gemm&) = delete;
    double operations() const { return 2.0 * weights.n * weights.k * product.n_rows; }
    double bytes() const { return static_cast<double>(weights.panel_bytes()) * weights.n_panels(); }
    void run() const { kernels.multiply(product); }

    const Kernels& kernels;
    Weights weights;
    Operand rows;
    Memory c, scratch;
    Product product{};
};

void bench_products(const Kernels& kernels) {
    for (const Type type : {Type::f32, Type::f16, Type::bf16, Type::i8}) {
        for (const auto& [n, k] : {std::pair{N_HIDDEN, N_STATE}, {N_STATE, N_HIDDEN}}) {
            const Matrix matrix = made_matrix(kernels, type, n, k);
            for (const int n_rows : {1, 8, N_AUDIO_CTX}) {
                const Gemm gemm(kernels, matrix, n_rows);
                const double seconds = median_seconds([&] { gemm.run(); });
                const std::string shape =
                    std::to_string(n_rows) + " x " + std::to_string(k) + " x " + std::to_string(n);
                print_row(kernels, n_rows == 1 ? "GEMV" : "GEMM", traits_of(type).name, shape, seconds,
                          gemm.operations(), n_rows <= 8 ? gemm.bytes() : 0.0);
            }
        }
    }
}

void bench_attention(const Kernels& kernels, const std::string& what, Type type, int n_queries, int n_keys) {
    const BlockShape shape{type, WIDTH};
    KeyValues cache(shape, 1, 1, round_up(n_keys, PANEL) / PANEL);
    const std::size_t stride = size(row_stride(WIDTH));
    const auto numbers = random_numbers(size(std::max(n_queries, n_keys)) * stride);
    for (int at = 0; at < n_keys; at += PANEL) {
        const float* from = numbers.data() + size(at) * stride;
        kernels.store_keys(shape, from, stride, std::min(PANEL, n_keys - at), 0, cache.keys(0, 0, at / PANEL));
        kernels.store_values(shape, from, stride, std::min(PANEL, n_keys - at), 0, cache.values(0, 0, at / PANEL));
    }
    Memory out(size(n_queries) * stride * sizeof(float));
    Scratch scratch(WIDTH, WIDTH, n_keys);
    Attention call{};
    call.shape = shape;
    call.scale = 1.0f / std::sqrt(static_cast<float>(WIDTH));
    call.queries = numbers.data();
    call.query_stride = stride;
    call.n_queries = n_queries;
    scratch.attend_to(call, cache, 0, 0);
    call.n_keys = call.first_visible = n_keys;
    call.out = out.bytes();
    call.out_type = Type::f32;
    call.out_stride = stride;
    call.scratch = scratch.attention.bytes();
    call.rough = type != Type::f32;
    const double seconds = median_seconds([&] { kernels.attend(call); });
    print_row(kernels, what, traits_of(type).name,
              std::to_string(n_queries) + " x " + std::to_string(n_keys) + " x " + std::to_string(WIDTH), seconds,
              4.0 * n_queries * n_keys * WIDTH, n_queries <= 8 ? static_cast<double>(cache.memory.n_bytes()) : 0.0);
}

// The vocabulary's product for one row, and the choice; in 8 bits the candidates too, without their exact re-scoring.
void bench_logits(const Kernels& kernels, Type type) {
    const Matrix matrix = made_matrix(kernels, type, N_VOCAB, N_STATE);
    const Gemm gemm(kernels, matrix, 1);
    std::int32_t ids[5];
    float logprobs[5];
    Sampling sampling{};
    sampling.logits = static_cast<float*>(gemm.product.c);
    sampling.n = N_VOCAB;
    sampling.vote_from = -1;
    sampling.ids = ids;
    sampling.logprobs = logprobs;
    const int n_panels = gemm.weights.n_panels();
    const std::vector<float> errors(size(n_panels), 0.1f);
    std::vector<std::uint8_t> panels(size(n_panels));
    for (const auto how : {Sampling::How::best, Sampling::How::top}) {
        sampling.how = how;
        sampling.n_chosen = how == Sampling::How::best ? 1 : 5;
        std::vector<std::byte> scratch(sampling_scratch(sampling));
        sampling.scratch = scratch.data();
        const double seconds = median_seconds([&] {
            gemm.run();
            if (type == Type::i8) kernels.mark_candidates(sampling, errors.data(), panels.data());
            kernels.choose(sampling);
        });
        print_row(kernels, how == Sampling::How::best ? "logits + best id" : "logits + top 5", traits_of(type).name,
                  "1 x " + std::to_string(N_STATE) + " x " + std::to_string(N_VOCAB), seconds, gemm.operations(),
                  gemm.bytes());
    }
}

void bench_log_mel(const Kernels& kernels) {
    constexpr int hop = 160, frame = 400, bins = 201, n_frames = 3000;
    const auto samples = random_numbers(size((n_frames - 1) * hop + frame), 0.1f);
    std::vector<float> filters(size(N_MELS * bins)), out(size(N_MELS * n_frames));
    for (int mel = 0; mel < N_MELS; ++mel)  // filters a few bins wide
        for (int bin = mel * 2; bin < mel * 2 + 2 + mel / 8; ++bin) filters[size(mel * bins + bin)] = 0.01f;
    const double seconds = median_seconds(
        [&] { kernels.log_mel(samples.data(), size(n_frames), filters.data(), N_MELS, out.data(), size(n_frames)); });
    print_row(kernels, "log-mel of 30 s", "f32", std::to_string(N_MELS) + " x " + std::to_string(n_frames), seconds,
              0.0, 0.0);
}

void bench_vad(const Kernels& kernels) {
    constexpr int n_units = 128, second = 16000;
    struct Layer { int n_inputs, n_outputs, stride; };
    std::vector<std::vector<float>> weights, biases;
    std::vector<SpeechConvolution> convolutions;
    for (const auto& [n_inputs, n_outputs, stride] :
         {Layer{SpeechNetwork::N_BINS, 128, 1}, {128, 64, 2}, {64, 64, 2}, {64, n_units, 1}}) {
        weights.push_back(random_numbers(size(n_outputs * n_inputs * 3), 0.05f));
        biases.push_back(random_numbers(size(n_outputs), 0.05f));
        convolutions.push_back({weights.back().data(), biases.back().data(), n_inputs, n_outputs, stride});
    }
    const auto input = random_numbers(size(4 * n_units * n_units), 0.05f),
               state = random_numbers(size(4 * n_units * n_units), 0.05f);
    const auto bias = random_numbers(size(4 * n_units), 0.05f), output = random_numbers(size(n_units), 0.05f);
    const SpeechNetwork network(kernels, convolutions,
                                {input.data(), state.data(), bias.data(), output.data(), 0.0f, n_units, n_units});
    const auto samples = random_numbers(size(second), 0.1f);
    std::vector<float> probabilities(SpeechNetwork::chunks_of(samples.size()));
    SpeechState kept(n_units);
    const double seconds =
        median_seconds([&] { network.detect(kept, samples.data(), samples.size(), probabilities.data()); });
    print_row(kernels, "VAD of 1 s", "f32", std::to_string(probabilities.size()) + " chunks", seconds, 0.0, 0.0);
}

void bench(const Kernels& kernels) {
    bench_products(kernels);
    for (const Type type : {Type::f32, Type::bf16, Type::i16})
        bench_attention(kernels, "attention, encoder", type, N_AUDIO_CTX, N_AUDIO_CTX);
    for (const Type type : {Type::f32, Type::bf16, Type::i8})
        bench_attention(kernels, "attention, window", type, 1, N_AUDIO_CTX);
    for (const Type type : {Type::f32, Type::bf16}) bench_attention(kernels, "attention, KV cache", type, 1, N_PAST);
    for (const Type type : {Type::f16, Type::bf16, Type::i8}) bench_logits(kernels, type);
    bench_log_mel(kernels);
    bench_vad(kernels);
}

}  // namespace
}  // namespace stapes

// Names of instruction sets; without any, all that run here.
int main(int n_arguments, char** arguments) {
    std::vector<const stapes::Kernels*> wanted;
    for (int i = 1; i < n_arguments; ++i) {
        wanted.push_back(stapes::kernels_by_name(arguments[i]));
        if (!wanted.back()) {
            std::fprintf(stderr, "native_bench: no instruction set %s on this machine\n", arguments[i]);
            return 2;
        }
    }
    if (wanted.empty()) {
        int n = 0;
        const stapes::Kernels* const* all = stapes::usable_kernels(&n);
        wanted.assign(all, all + n);
    }
    std::printf("%-12s %-26s %-5s %-22s %10s %9s %8s\n", "set", "what (one thread)", "type", "shape", "median us",
                "GFLOP/s", "GB/s");
    for (const stapes::Kernels* one : wanted) stapes::bench(*one);
}
