#include "speech.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace stapes {
namespace {

constexpr int GATES = 4;
constexpr int WINDOW = 3;  // frames of a convolution
constexpr int BLOCK =
    4 * PANEL;  // chunks at a time: weights of convolutions are near for all of them, then those of the recurrence
constexpr int CHUNK_WITH_CONTEXT = SpeechNetwork::CONTEXT + SpeechNetwork::CHUNK;

std::size_t size(int n) { return static_cast<std::size_t>(n); }

Memory copy_of(const float* values, int n) {
    Memory memory(size(round_up(n, PANEL)) * sizeof(float));
    std::memcpy(memory.as(), values, size(n) * sizeof(float));
    return memory;
}

// A chunk with its context, whole: where it lies, or in `own` where it does not lie in one piece.
const float* with_context(const SpeechState& state, const float* samples, std::size_t n_samples, std::size_t chunk,
                          float* own) {
    const std::size_t first = chunk * SpeechNetwork::CHUNK, n = std::min(n_samples - first, size(SpeechNetwork::CHUNK));
    if (chunk > 0 && n == size(SpeechNetwork::CHUNK)) return samples + first - SpeechNetwork::CONTEXT;
    const float* context = chunk > 0 ? samples + first - SpeechNetwork::CONTEXT : state.context.data();
    std::copy_n(context, SpeechNetwork::CONTEXT, own);
    std::copy_n(samples + first, n, own + SpeechNetwork::CONTEXT);
    std::fill(own + SpeechNetwork::CONTEXT + n, own + CHUNK_WITH_CONTEXT, 0.0f);
    return own;
}

// Chunks side by side, with the samples before and, mirrored, after them: (64 + 512 + 64, PANEL).
void to_columns(const float* const* chunks, int n_columns, float* columns) {
    constexpr int stretch = 64;  // some lines of a cache at a time, as chunks lie in each other's places there
    for (int first = 0; first < CHUNK_WITH_CONTEXT; first += stretch)
        for (int column = 0; column < n_columns; ++column)
            for (int i = first; i < first + stretch; ++i) columns[i * PANEL + column] = chunks[column][i];
    for (int i = 0; i < SpeechNetwork::CONTEXT; ++i)
        std::memcpy(columns + (CHUNK_WITH_CONTEXT + i) * PANEL, columns + (CHUNK_WITH_CONTEXT - 2 - i) * PANEL,
                    PANEL * sizeof(float));
}

}  // namespace

SpeechState::SpeechState(int n_units)
    : context(size(SpeechNetwork::CONTEXT)), output(size(n_units)), cell(size(n_units)) {}

// What one call computes with: the first row for PANEL chunks, the second for all of a block.
struct SpeechNetwork::Scratch {
    Scratch(int most_channels, int n_inputs, int n_units, int n_chunks)
        : columns(size((CHUNK_WITH_CONTEXT + CONTEXT) * PANEL) * sizeof(float)),
          frames(size(N_FRAMES * N_BINS * PANEL) * sizeof(float)),
          one(size(N_FRAMES * most_channels * PANEL) * sizeof(float)),
          other(one.n_bytes()),
          rows(size(n_chunks * round_up(n_inputs, PANEL)) * sizeof(float)),
          gates(size(n_chunks * GATES * n_units) * sizeof(float)),
          next(size(n_units) * sizeof(float)),
          probabilities(size(round_up(n_chunks, PANEL)) * sizeof(float)),
          product(product_scratch(n_inputs)) {}
    Memory columns, frames, one, other;
    Memory rows, gates, next, probabilities, product;
};

SpeechNetwork::SpeechNetwork(const Kernels& kernels, const std::vector<SpeechConvolution>& convolutions,
                             const SpeechRecurrence& recurrence)
    : kernels_(kernels),
      n_units_(recurrence.n),
      n_recurrent_inputs_(recurrence.n_inputs),
      output_bias_(recurrence.output_bias) {
    int n_channels = N_BINS, n_frames = N_FRAMES;
    for (const SpeechConvolution& one : convolutions) {
        if (one.n_inputs != n_channels || one.n_outputs < 1 || one.stride < 1)
            throw std::invalid_argument("convolutions do not fit together");
        pack_layer(one);
        n_channels = one.n_outputs;
        n_frames = (n_frames - 1) / one.stride + 1;
    }
    if (n_frames != 1 || n_channels != recurrence.n_inputs)
        throw std::invalid_argument("the recurrent layer does not fit the last convolution");
    if (n_units_ < 1 || n_units_ % PANEL)
        throw std::invalid_argument("units of the recurrent layer are not whole panels");
    pack_recurrence(recurrence);
}

void SpeechNetwork::pack_layer(const SpeechConvolution& convolution) {
    const auto [weight, bias, n_inputs, n_outputs, stride] = convolution;
    Layer layer{n_inputs, n_outputs, stride, Memory(size(n_outputs * WINDOW * n_inputs) * sizeof(float)),
                copy_of(bias, n_outputs)};
    for (int output = 0; output < n_outputs; ++output)
        for (int input = 0; input < n_inputs; ++input)
            for (int frame = 0; frame < WINDOW; ++frame)
                layer.weights.as()[(output * WINDOW + frame) * n_inputs + input] =
                    weight[(output * n_inputs + input) * WINDOW + frame];
    most_channels_ = std::max(most_channels_, n_outputs);
    layers_.push_back(std::move(layer));
}

// Where the kernel wants one of the 4 n rows of gates.
int SpeechNetwork::gate_place(int row) const {
    const int units = kernels_.recurrent_units, gate = row / n_units_, unit = row % n_units_;
    return (unit / units * GATES + gate) * units + unit % units;
}

void SpeechNetwork::pack_recurrence(const SpeechRecurrence& recurrence) {
    const int n_gates = GATES * n_units_, units = kernels_.recurrent_units;
    Team alone(1);
    input_weight_ = Matrix(Type::f32, n_gates, n_recurrent_inputs_, kernels_);
    gate_bias_ = Memory(size(n_gates) * sizeof(float));
    state_weight_ = Memory(size(n_gates * n_units_) * sizeof(float));
    output_weight_ = copy_of(recurrence.output_weight, n_units_);
    for (int row = 0; row < n_gates; ++row) {
        const int place = gate_place(row), block = place / (GATES * units), inside = place % (GATES * units);
        input_weight_.pack(place, 1, recurrence.input_weight + size(row) * size(n_recurrent_inputs_), alone);
        gate_bias_.as()[place] = recurrence.bias[row];
        for (int k = 0; k < n_units_; ++k)
            state_weight_.as()[(block * n_units_ + k) * GATES * units + inside] =
                recurrence.state_weight[row * n_units_ + k];
    }
}

void SpeechNetwork::detect(SpeechState& state, const float* samples, std::size_t n_samples,
                           float* probabilities) const {
    const std::size_t n_chunks = chunks_of(n_samples);
    if (n_chunks == 0) return;
    Scratch scratch(most_channels_, n_recurrent_inputs_, n_units_, static_cast<int>(std::min(n_chunks, size(BLOCK))));
    float first[CHUNK_WITH_CONTEXT], last[CHUNK_WITH_CONTEXT];
    const int row = round_up(n_recurrent_inputs_, PANEL);
    for (std::size_t block = 0; block < n_chunks; block += BLOCK) {
        const int n = static_cast<int>(std::min(n_chunks - block, size(BLOCK)));
        for (int panel = 0; panel < n; panel += PANEL) {
            const float* chunks[PANEL];
            const int n_columns = std::min(n - panel, PANEL);
            for (int column = 0; column < n_columns; ++column) {
                const std::size_t chunk = block + size(panel + column);
                chunks[column] = with_context(state, samples, n_samples, chunk, chunk ? last : first);
            }
            convolve_columns(chunks, n_columns, scratch, scratch.rows.as() + panel * row);
            if (block + size(panel + n_columns) == n_chunks)
                std::copy_n(chunks[n_columns - 1] + CHUNK, CONTEXT, state.context.data());
        }
        recur(state, n, scratch);
        std::memcpy(probabilities + block, scratch.probabilities.as(), size(n) * sizeof(float));
    }
}

// What the convolutions make of up to PANEL chunks, a row for each.
void SpeechNetwork::convolve_columns(const float* const* chunks, int n_columns, Scratch& scratch, float* rows) const {
    to_columns(chunks, n_columns, scratch.columns.as());
    for (int frame = 0; frame < N_FRAMES; ++frame)
        kernels_.magnitudes(scratch.columns.as() + frame * HOP * PANEL, n_columns,
                            scratch.frames.as() + frame * N_BINS * PANEL);
    const float* x = scratch.frames.as();
    float *out = scratch.one.as(), *other = scratch.other.as();
    int n_frames = N_FRAMES;
    for (const Layer& layer : layers_) {
        n_frames = convolve(layer, x, n_frames, n_columns, out);
        x = out;
        std::swap(out, other);
    }
    for (int column = 0; column < n_columns; ++column)
        for (int i = 0; i < n_recurrent_inputs_; ++i)
            rows[column * round_up(n_recurrent_inputs_, PANEL) + i] = x[i * PANEL + column];
}

// (n_frames, n_inputs, PANEL) -> (frames given back, n_outputs, PANEL). What lies before the first and behind the last
// frame is zero.
int SpeechNetwork::convolve(const Layer& layer, const float* x, int n_frames, int n_columns, float* out) const {
    const int n_out = (n_frames - 1) / layer.stride + 1;
    for (int frame = 0; frame < n_out; ++frame) {
        const int from = frame * layer.stride - 1, first = std::max(from, 0), end = std::min(from + WINDOW, n_frames);
        Convolution c{};
        c.weights = layer.weights.as() + (first - from) * layer.n_inputs;
        c.stride = size(WINDOW * layer.n_inputs);
        c.bias = layer.bias.as();
        c.n_parts = end - first;
        c.n_inputs = layer.n_inputs;
        c.n_outputs = layer.n_outputs;
        c.x = x + first * layer.n_inputs * PANEL;
        c.n_columns = n_columns;
        c.out = out + frame * layer.n_outputs * PANEL;
        kernels_.convolve(c);
    }
    return n_out;
}

void SpeechNetwork::recur(SpeechState& state, int n_chunks, Scratch& scratch) const {
    const Weights weights = input_weight_.view();
    Product p{};
    p.a = {Type::f32, scratch.rows.bytes(), size(round_up(n_recurrent_inputs_, PANEL)) * sizeof(float), nullptr};
    p.n_rows = n_chunks;
    p.w = &weights;
    p.last_panel = weights.n_panels();
    p.bias = gate_bias_.as();
    p.c = scratch.gates.bytes();
    p.c_type = Type::f32;
    p.c_stride = size(GATES * n_units_);
    p.scratch = scratch.product.bytes();
    kernels_.multiply(p);
    Recurrence r{};
    r.weights = state_weight_.as();
    r.n = n_units_;
    r.n_steps = n_chunks;
    r.gates = scratch.gates.as();
    r.output = state.output.data();
    r.cell = state.cell.data();
    r.next = scratch.next.as();
    r.output_weight = output_weight_.as();
    r.output_bias = output_bias_;
    r.probabilities = scratch.probabilities.as();
    kernels_.recur(r);
}

}  // namespace stapes
