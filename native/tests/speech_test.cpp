// The kernels for voice activity against naive loops, and the network: a recording in pieces gives the bits of one
// call.
#include "../network/speech.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "check.h"

namespace stapes::tests {
namespace {

void check_magnitudes(const Kernels& kernels, int n_columns) {
    constexpr int n = SpeechNetwork::FRAME, n_bins = SpeechNetwork::N_BINS;
    const auto samples = random_numbers(size(n * PANEL), 1);
    std::vector<float> out(size(n_bins * PANEL), -1.0f);
    kernels.magnitudes(samples.data(), n_columns, out.data());
    for (int column = 0; column < n_columns; ++column) {
        for (int bin = 0; bin < n_bins; ++bin) {
            double re = 0.0, im = 0.0;
            for (int i = 0; i < n; ++i) {
                const double turn = 2.0 * 3.14159265358979323846 / n,
                             x = static_cast<double>(samples[size(i * PANEL + column)]);
                const double windowed = x * (0.5 - 0.5 * std::cos(turn * i));
                re += windowed * std::cos(turn * (i * bin));
                im -= windowed * std::sin(turn * (i * bin));
            }
            CHECK(std::fabs(out[size(bin * PANEL + column)] - static_cast<float>(std::hypot(re, im))) < 2e-5f);
        }
    }
}

struct Layer { int n_parts, n_inputs, n_outputs, n_columns; };

void check_convolution(const Kernels& kernels, const Layer& layer) {
    const auto [n_parts, n_each, n_outputs, n_columns] = layer;
    const int n_inputs = n_parts * n_each;
    const auto weights = random_numbers(size(n_outputs * n_inputs), 2), bias = random_numbers(size(n_outputs), 3);
    const auto x = random_numbers(size(n_inputs * PANEL), 4);
    std::vector<float> out(size(n_outputs * PANEL), -1.0f);
    kernels.convolve(
        {weights.data(), size(n_inputs), bias.data(), n_parts, n_each, n_outputs, x.data(), n_columns, out.data()});
    for (int i = 0; i < n_outputs; ++i) {
        for (int column = 0; column < n_columns; ++column) {
            double sum = static_cast<double>(bias[size(i)]);
            for (int j = 0; j < n_inputs; ++j)
                sum += static_cast<double>(weights[size(i * n_inputs + j)]) *
                       static_cast<double>(x[size(j * PANEL + column)]);
            CHECK(std::fabs(out[size(i * PANEL + column)] - static_cast<float>(std::max(sum, 0.0))) < 1e-4f);
        }
    }
}

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

void check_recurrence(const Kernels& kernels, int n, int n_steps) {
    const int units = kernels.recurrent_units;
    const auto weights = random_numbers(size(4 * n * n), 5, 0.1f), output_weight = random_numbers(size(n), 6),
               gates = random_numbers(size(n_steps * 4 * n), 7, 3.0f);
    std::vector<float> output(size(n)), cell(size(n)), next(size(n)), probabilities(size(round_up(n_steps, PANEL)));
    kernels.recur({weights.data(), n, n_steps, gates.data(), output.data(), cell.data(), next.data(),
                   output_weight.data(), 0.5f, probabilities.data()});
    std::vector<double> exact_output(size(n)), exact_cell(size(n));
    for (int step = 0; step < n_steps; ++step) {
        std::vector<double> after(size(n));
        double sum = 0.5;
        for (int unit = 0; unit < n; ++unit) {
            double gate[4];
            for (int i = 0; i < 4; ++i) {
                const int inside = i * units + unit % units, block = unit / units;
                gate[i] = static_cast<double>(gates[size(step * 4 * n + block * 4 * units + inside)]);
                for (int k = 0; k < n; ++k)
                    gate[i] += static_cast<double>(weights[size((block * n + k) * 4 * units + inside)]) *
                               exact_output[size(k)];
            }
            exact_cell[size(unit)] = sigmoid(gate[1]) * exact_cell[size(unit)] + sigmoid(gate[0]) * std::tanh(gate[2]);
            after[size(unit)] = sigmoid(gate[3]) * std::tanh(exact_cell[size(unit)]);
            sum += static_cast<double>(output_weight[size(unit)]) * std::max(after[size(unit)], 0.0);
        }
        exact_output = after;
        CHECK(std::fabs(probabilities[size(step)] - static_cast<float>(sigmoid(sum))) < 1e-5f);
    }
    for (std::size_t i = 0; i < size(n); ++i) {
        CHECK(std::fabs(output[i] - static_cast<float>(exact_output[i])) < 1e-5f);
        CHECK(std::fabs(cell[i] - static_cast<float>(exact_cell[i])) < 1e-5f);
    }
}

// A network with few channels, as odd as may be.
class Small {
  public:
    SpeechNetwork network(const Kernels& kernels) const {
        const std::vector<SpeechConvolution> layers{{weights_.data(), bias_.data(), SpeechNetwork::N_BINS, 7, 1},
                                                    {weights_.data(), bias_.data(), 7, 13, 2},
                                                    {weights_.data(), bias_.data(), 13, 5, 3}};
        return SpeechNetwork(kernels, layers,
                             {weights_.data(), weights_.data(), bias_.data(), bias_.data(), 0.25f, PANEL, 5});
    }

  private:
    std::vector<float> weights_ = random_numbers(size(4 * PANEL * PANEL), 8, 0.1f),
                       bias_ = random_numbers(size(4 * PANEL), 9, 0.1f);
};

void check_pieces(const Kernels& kernels, std::size_t n_samples, std::size_t chunks_at_a_time) {
    const SpeechNetwork network = Small().network(kernels);
    const auto samples = random_numbers(n_samples, 10);
    std::vector<float> whole(SpeechNetwork::chunks_of(n_samples), -1.0f), pieces = whole;
    SpeechState of_whole(network.n_units()), of_pieces(network.n_units());
    network.detect(of_whole, samples.data(), n_samples, whole.data());
    const std::size_t step = chunks_at_a_time * SpeechNetwork::CHUNK;
    for (std::size_t first = 0; first < n_samples; first += step)
        network.detect(of_pieces, samples.data() + first, std::min(step, n_samples - first),
                       pieces.data() + first / SpeechNetwork::CHUNK);
    CHECK(whole.empty() || std::memcmp(whole.data(), pieces.data(), whole.size() * sizeof(float)) == 0);
    CHECK(of_whole.output == of_pieces.output && of_whole.cell == of_pieces.cell &&
          of_whole.context == of_pieces.context);
    for (const float one : whole) CHECK(one > 0.0f && one < 1.0f);
}

void check_no_number(const Kernels& kernels, float odd) {
    const SpeechNetwork network = Small().network(kernels);
    auto samples = random_numbers(size(40 * SpeechNetwork::CHUNK), 11);
    samples[size(35 * SpeechNetwork::CHUNK + 100)] = odd;
    SpeechState state(network.n_units());
    std::vector<float> found(40);
    network.detect(state, samples.data(), samples.size(), found.data());
    for (std::size_t i = 0; i < found.size(); ++i) CHECK(std::isnan(found[i]) == (i >= 35));
}

template <class F>
bool refuses(F&& f) {
    try {
        f();
    } catch (const std::invalid_argument&) {
        return true;
    }
    return false;
}

void test_layers_that_do_not_fit_are_refused(const Kernels& kernels) {
    const std::vector<float> x(size(4 * PANEL * PANEL));
    const auto make = [&](int n_inputs, int stride, int n_units) {
        SpeechNetwork(kernels, {{x.data(), x.data(), n_inputs, 5, stride}},
                      {x.data(), x.data(), x.data(), x.data(), 0.0f, n_units, 5});
    };
    make(SpeechNetwork::N_BINS, 4, PANEL);
    CHECK(refuses([&] { make(SpeechNetwork::N_BINS - 1, 4, PANEL); }));
    CHECK(refuses([&] { make(SpeechNetwork::N_BINS, 3, PANEL); }));
    CHECK(refuses([&] { make(SpeechNetwork::N_BINS, 0, PANEL); }));
    CHECK(refuses([&] { make(SpeechNetwork::N_BINS, 4, PANEL - 1); }));
    CHECK(refuses([&] { make(SpeechNetwork::N_BINS, 4, 0); }));
}

}  // namespace

void test_speech() {
    for (const Kernels* kernels : all_kernels()) {
        for (const int n_columns : {1, 9, PANEL}) check_magnitudes(*kernels, n_columns);
        for (const Layer& one : {Layer{1, 1, 1, 1}, {2, 7, 2, PANEL}, {3, 129, 13, 17}, {3, 20, 25, 8}})
            check_convolution(*kernels, one);
        for (const int n_steps : {1, 2, 33}) check_recurrence(*kernels, 2 * PANEL, n_steps);
        for (const std::size_t n_samples : {0, 1, 511, 512, 513, 33 * 512, 140 * 512 + 1})
            for (const std::size_t chunks_at_a_time : {1, 5, 32, 129})
                check_pieces(*kernels, n_samples, chunks_at_a_time);
        for (const float odd : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
            check_no_number(*kernels, odd);
        test_layers_that_do_not_fit_are_refused(*kernels);
    }
}

}  // namespace stapes::tests
