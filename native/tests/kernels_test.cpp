// Each kernel against a naive loop, in buffers of exactly the size that kernels.h asks for.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "../network/operands.h"
#include "check.h"

namespace stapes::tests {
namespace {

float widened(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

// Rows of d values each, `stride` apart, with zeros between.
Memory in_rows(const std::vector<float>& x, int d, std::size_t stride) {
    const std::size_t n = x.size() / size(d);
    Memory memory(n * stride * sizeof(float));
    for (std::size_t i = 0; i < n; ++i)
        std::memcpy(memory.as() + i * stride, x.data() + i * size(d), size(d) * sizeof(float));
    return memory;
}

// How far a product may lie from the exact one: a step of the weights; of bfloat16, its rounding.
float allowed(Type type, int k) {
    const float terms = std::sqrt(static_cast<float>(k));
    switch (type) {
        case Type::i8: return 0.08f * terms + 0.05f;
        case Type::bf16: return 0.04f * terms + 0.02f;
        default: return 1e-5f * (terms + 1.0f);
    }
}

struct Shape { int m, n, k; };

void check_product(const Kernels& kernels, Type type, const Shape& shape) {
    const auto [m, n, k] = shape;
    const auto a = random_numbers(size(m * k), 1), weights = random_numbers(size(n * k), 2),
               bias = random_numbers(size(n), 3);
    Team team(1);
    Matrix matrix(type, n, k, kernels);
    matrix.pack(0, n, weights.data(), team);
    const Weights view = matrix.view();
    Operand rows(kernels, m, k);
    const Type row_type = type == Type::i8                                 ? Type::i16
                          : type == Type::bf16 && !kernels.multiplies_bf16 ? Type::f32
                                                                           : type;
    rows.take(in_rows(a, k, rows.stride()).as(), 0, m, row_type);
    const std::size_t stride = size(round_up(n, PANEL));
    Memory c(size(m) * stride * sizeof(float)), scratch(product_scratch(k)), bias_row(stride * sizeof(float));
    std::memcpy(bias_row.as(), bias.data(), bias.size() * sizeof(float));
    Product p{};
    p.a = rows.rows(row_type);
    p.n_rows = m;
    p.w = &view;
    p.last_panel = view.n_panels();
    p.bias = bias_row.as();
    p.residual = c.as();  // zeros
    p.c = c.bytes();
    p.c_type = Type::f32;
    p.c_stride = stride;
    p.scratch = scratch.bytes();
    kernels.multiply(p);
    for (int i = 0; i < m; ++i) {
        for (int j = 0; j < n; ++j) {
            double sum = bias[size(j)];
            for (int x = 0; x < k; ++x)
                sum += static_cast<double>(a[size(i * k + x)]) * static_cast<double>(weights[size(j * k + x)]);
            CHECK(std::fabs(c.as()[size(i) * stride + size(j)] - static_cast<float>(sum)) <= allowed(type, k));
        }
        for (std::size_t j = size(n); j < stride; ++j) CHECK(c.as()[size(i) * stride + j] == 0.0f);
    }
}

void check_rows(const Kernels& kernels, int m, int d) {
    const std::size_t stride = size(round_up(d, PANEL));
    const Memory x = in_rows(random_numbers(size(m * d), 4, 2.0f), d, stride);
    Memory ones(stride * sizeof(float)), zeros(stride * sizeof(float)), y(size(m) * stride * sizeof(float)),
        scales(size(m) * sizeof(float));
    std::fill(ones.as(), ones.as() + d, 1.0f);
    kernels.layer_norm(x.as(), stride, m, d, ones.as(), zeros.as(), y.bytes(), Type::f32, stride);
    for (int i = 0; i < m; ++i) {
        double sum = 0.0, squares = 0.0;
        for (std::size_t j = 0; j < size(d); ++j) sum += static_cast<double>(y.as()[size(i) * stride + j]);
        for (std::size_t j = 0; j < size(d); ++j)
            squares += std::pow(static_cast<double>(y.as()[size(i) * stride + j]), 2);
        CHECK(std::fabs(sum) < 1e-3);
        CHECK(d < 8 || std::fabs(squares / d - 1.0) < 1e-2);
    }
    kernels.narrow(x.as(), stride, m, d, y.bytes(), stride);
    for (std::size_t i = 0; i < size(m) * stride; ++i)
        CHECK(std::fabs(widened(y.as<std::uint16_t>()[i]) - x.as()[i]) <= 0.004f * std::fabs(x.as()[i]));
    Memory steps(size(m) * 2 * stride);
    kernels.quantize(x.as(), stride, m, d, steps.as<std::uint8_t>(), stride, scales.as());
    for (int i = 0; i < m; ++i) {
        const std::size_t row = size(i) * stride;
        const float largest = std::fabs(*std::max_element(
            x.as() + row, x.as() + row + d, [](float a, float b) { return std::fabs(a) < std::fabs(b); }));
        const int most = kernels.multiplies_i8 ? 127 * 256 : most_steps(d);
        CHECK(std::fabs(scales.as()[i] * static_cast<float>(most) - largest) <= 1e-6f * largest);
    }
    CHECK(std::fabs(kernels.log_sum_exp(ones.as(), d) - (1.0f + std::log(static_cast<float>(d)))) < 1e-5f);
}

struct Case { int n_queries, n_keys, width, first_visible; };

void check_attention(const Kernels& kernels, Type type, const Case& c) {
    const BlockShape shape{type, c.width};
    const std::size_t width = size(c.width), n_keys = size(c.n_keys),
                      n_blocks = size(round_up(c.n_keys, PANEL) / PANEL);
    const auto q = random_numbers(size(c.n_queries) * width, 5), k = random_numbers(n_keys * width, 6),
               v = random_numbers(n_keys * width, 7);
    std::vector<Memory> blocks;
    std::vector<const void*> keys, values;
    for (std::size_t i = 0; i < n_blocks; ++i) {
        const int first = static_cast<int>(i) * PANEL, count = std::min(PANEL, c.n_keys - first);
        blocks.emplace_back(shape.key_bytes());
        kernels.store_keys(shape, k.data() + size(first) * width, width, count, 0, blocks.back().bytes());
        keys.push_back(blocks.back().bytes());
        blocks.emplace_back(shape.value_bytes());
        kernels.store_values(shape, v.data() + size(first) * width, width, count, 0, blocks.back().bytes());
        values.push_back(blocks.back().bytes());
    }
    std::vector<float> out(q.size()), scores(size(c.n_queries) * n_keys);
    Memory scratch(attention_scratch(c.width));
    const float scale = 1.0f / std::sqrt(static_cast<float>(c.width));
    kernels.attend({shape, scale, q.data(), width, c.n_queries, keys.data(), values.data(), c.n_keys, c.first_visible,
                    out.data(), Type::f32, width, scores.data(), scratch.bytes()});
    for (int i = 0; i < c.n_queries; ++i) {
        std::vector<double> mixed(width);
        double total = 0.0;
        for (int key = 0; key < std::min(c.n_keys, c.first_visible + i); ++key) {
            double score = 0.0;
            for (std::size_t x = 0; x < width; ++x)
                score += static_cast<double>(q[size(i) * width + x]) * static_cast<double>(k[size(key) * width + x]);
            score *= static_cast<double>(scale);
            CHECK(std::fabs(scores[size(i) * n_keys + size(key)] - static_cast<float>(score)) <
                  (type == Type::f32 ? 1e-4f : 0.1f));
            total += std::exp(score);
            for (std::size_t x = 0; x < width; ++x)
                mixed[x] += std::exp(score) * static_cast<double>(v[size(key) * width + x]);
        }
        for (std::size_t x = 0; x < width; ++x)
            CHECK(std::fabs(out[size(i) * width + x] - static_cast<float>(mixed[x] / total)) <
                  (type == Type::f32 ? 1e-4f : 0.05f));
    }
}

void check_sampling(const Kernels& kernels, int n) {
    auto logits = random_numbers(size(n), 8, 3.0f);
    const std::vector<std::int64_t> permanent{0};
    const std::vector<Range> now{{n / 2, n / 2 + 1}};
    const std::vector<double> uniforms{0.0, 0.5, 0.999999};
    for (const auto how : {Sampling::How::best, Sampling::How::draw, Sampling::How::top}) {
        auto changed = logits;
        const int n_chosen = how == Sampling::How::best ? 1 : how == Sampling::How::draw ? 3 : std::min(3, n);
        std::vector<std::int32_t> ids(size(n_chosen), -1);
        std::vector<float> logprobs(size(n_chosen), 1.0f);
        Sampling sampling{
            changed.data(),  n,        permanent.data(), permanent.size(), now.data(), now.size(), n * 3 / 4, how, 0.7,
            uniforms.data(), n_chosen, ids.data(),       logprobs.data(),  nullptr};
        std::vector<std::byte> scratch(sampling_scratch(sampling));  // to the byte, for the sanitizers
        sampling.scratch = scratch.data();
        kernels.choose(sampling);
        // With bounds that settle the vote, and with some that leave it open.
        for (const float error : {0.0f, 100.0f}) {
            const std::vector<float> errors(size(round_up(n, PANEL) / PANEL), error);
            std::vector<std::uint8_t> panels(errors.size(), 2);
            for (const int vote_from : {-1, 0, n / 2, n}) {
                changed = logits;
                sampling.vote_from = vote_from;
                kernels.mark_candidates(sampling, errors.data(), panels.data());
                for (const std::uint8_t one : panels) CHECK(one <= 1);
            }
        }
        for (std::size_t i = 0; i < ids.size(); ++i) CHECK(0 <= ids[i] && ids[i] < n && logprobs[i] <= 1e-5f);
    }
}

void check_log_mel(const Kernels& kernels, std::size_t n_frames, int n_mels) {
    const auto samples = random_numbers((n_frames - 1) * 160 + 400, 9, 0.1f);
    std::vector<float> filters(size(n_mels) * 201),
        out(size(n_mels) * n_frames, std::numeric_limits<float>::quiet_NaN());
    for (std::size_t mel = 0; mel < size(n_mels); ++mel) filters[mel * 201 + mel % 201] = 1.0f;
    kernels.log_mel(samples.data(), n_frames, filters.data(), n_mels, out.data(), n_frames);
    for (const float one : out) CHECK(one >= -10.0f && one < 5.0f);
}

// What a weight is once it is packed, by the plain definition.
float packed(Type type, float x, float largest) {
    if (type == Type::bf16) return to_float(to_bf16(x));
    if (type != Type::i8) return x;
    const float scaled = x * (largest > 0.0f && std::isfinite(largest) ? 127.0f / largest : 0.0f);
    return (std::isfinite(scaled) ? static_cast<float>(std::lrintf(scaled)) : 0.0f) * (largest / 127.0f);
}

void check_packing(const Kernels& kernels, Type type, int k, float odd) {
    const int n = 37;
    auto weights = random_numbers(size(n * k), 4);
    for (int i = 0; i < k; ++i) weights[size(k + i)] = static_cast<float>(i % 255 - 127) / 2.0f;  // halves: ties
    weights[size(2 * k)] = odd;
    for (int i = 0; i < k; ++i) weights[size(3 * k + i)] = 0.0f;
    Team team(1);
    Matrix matrix(type, n, k, kernels);
    matrix.pack(0, n, weights.data(), team);
    std::vector<float> found(size(k));
    for (int output = 0; output < n; ++output) {
        float largest = 0.0f;
        for (int i = 0; i < k; ++i) largest = std::fmax(largest, std::fabs(weights[size(output * k + i)]));
        matrix.unpack(output, found.data());
        for (int i = 0; i < k; ++i) {
            const float expected = packed(type, weights[size(output * k + i)], largest);
            CHECK(found[size(i)] == expected || (std::isnan(found[size(i)]) && std::isnan(expected)));
        }
    }
}

// At odd addresses, too: files keep weights where it suits them.
void check_every_float16_is_read(const Kernels& kernels) {
    std::vector<std::byte> all(2 * (1u << 16) + 1);
    for (std::size_t i = 0; i < 1u << 16; ++i) {
        const auto bits = static_cast<std::uint16_t>(i);
        std::memcpy(&all[2 * i + 1], &bits, sizeof bits);
    }
    Team team(1);
    Matrix matrix(Type::f32, 64, 1024, kernels);
    matrix.pack(0, 64, reinterpret_cast<const f16*>(&all[1]), team);
    std::vector<float> found(1024);
    for (std::size_t i = 0; i < 1u << 16; ++i) {
        if (i % 1024 == 0) matrix.unpack(static_cast<int>(i / 1024), found.data());
        const int exponent = static_cast<int>(i >> 10 & 31), fraction = static_cast<int>(i & 1023);
        const float magnitude = exponent ? std::ldexp(static_cast<float>(1024 + fraction), exponent - 25)
                                         : std::ldexp(static_cast<float>(fraction), -24);
        const float expected = exponent < 31 ? magnitude
                               : fraction    ? std::numeric_limits<float>::quiet_NaN()
                                             : std::numeric_limits<float>::infinity();
        const float one = found[i % 1024];
        CHECK(std::isnan(expected) ? std::isnan(one) : std::fabs(one) == expected);
        CHECK(std::signbit(one) == (i >= 1u << 15));
    }
}

// No more than is asked for is read, and what is counted is what a set's instructions multiply.
void check_peak(const Kernels& kernels) {
    for (const std::size_t n : {0, 1, 63, 64, 1000}) {
        const std::vector<float> numbers(n, 1.0f);
        kernels.read_through(numbers.data(), n * sizeof(float));
    }
    constexpr int N_ROUNDS = 16;  // of vectors: one of AMX, which takes products of bf16 and i8
    const auto n_products = [&](Type type, int times) { return kernels.multiply_in_registers(type, times * N_ROUNDS); };
    for (const Type type : {Type::f32, Type::bf16, Type::i8, Type::i16})
        CHECK(n_products(type, 1) > 0 && n_products(type, 2) == 2 * n_products(type, 1));
    const double f32 = n_products(Type::f32, 1), bf16 = n_products(Type::bf16, 1), i8 = n_products(Type::i8, 1);
    CHECK(kernels.has_amx || bf16 == (kernels.multiplies_bf16 ? 2 : 1) * f32);
    CHECK(kernels.has_amx ? i8 == 2 * bf16 : i8 == (kernels.multiplies_i8 ? 4 : 2) * f32);
    CHECK(n_products(Type::i16, 1) == 2 * f32);
}

}  // namespace

void test_kernels() {
    constexpr float infinite = std::numeric_limits<float>::infinity(), none = std::numeric_limits<float>::quiet_NaN();
    for (const Kernels* kernels : all_kernels()) {
        for (const Type type : {Type::f32, Type::bf16, Type::i8})
            for (const int k : {1, 2, 7, 64, 301})
                for (const float odd : {1.0f, 3e38f, 1e-45f, infinite, none}) check_packing(*kernels, type, k, odd);
        check_every_float16_is_read(*kernels);
        for (const Type type : {Type::f32, Type::bf16, Type::i8})
            for (const Shape& one :
                 {Shape{1, 1, 1}, {1, 300, 33}, {2, 130, 7}, {3, 31, 64}, {6, 65, 2}, {13, 33, 31}, {25, 64, 50}})
                check_product(*kernels, type, one);
        for (const int d : {1, 15, 33, 100}) check_rows(*kernels, 3, d);
        for (const Type type : {Type::f32, Type::bf16, Type::i8, Type::i16})
            for (const Case& one :
                 {Case{1, 1, 1, 1}, {3, 33, 20, 31}, {50, 600, 33, 551}, {1, 513, 64, 513}, {49, 49, 3, 1}})
                check_attention(*kernels, type, one);
        for (const int n : {2, 17, 100}) check_sampling(*kernels, n);
        for (const int n_frames : {1, 2, 7, 17, 33}) check_log_mel(*kernels, size(n_frames), 5);
        check_peak(*kernels);
    }
}

}  // namespace stapes::tests
