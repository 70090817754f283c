// Voice activity detection: a spectrogram, convolutions and one recurrent layer, chunk by chunk; the twin of
// stapes/vad/silero_numpy.py.
//
// Threads: a network is never changed once it is made, and any number of threads may use it; a state is one thread's at
// a time.
#pragma once

#include <cstddef>
#include <vector>

#include "../kernels/kernels.h"
#include "matrix.h"
#include "memory.h"

namespace stapes {

// A convolution over frames, three wide.
struct SpeechConvolution {
    const float* weight;  // (n_outputs, n_inputs, 3)
    const float* bias;    // (n_outputs,)
    int n_inputs, n_outputs, stride;
};

// Gates: input, forget, cell, output.
struct SpeechRecurrence {
    const float* input_weight;   // (4 n, n_inputs)
    const float* state_weight;   // (4 n, n)
    const float* bias;           // (4 n,)
    const float* output_weight;  // (n,)
    float output_bias;
    int n, n_inputs;
};

// The state of one recording after the samples so far. All zeros: before the first.
struct SpeechState {
    explicit SpeechState(int n_units);
    std::vector<float> context, output, cell;
};

class SpeechNetwork {
  public:
    static constexpr int CHUNK = 512, CONTEXT = 64;  // samples; the context lies before the chunk
    static constexpr int FRAME = 256, HOP = 128, N_BINS = FRAME / 2 + 1, N_FRAMES = 4;

    // Packs the weights. Throws std::invalid_argument if layers do not fit together, or units are not whole panels.
    SpeechNetwork(const Kernels& kernels, const std::vector<SpeechConvolution>& convolutions,
                  const SpeechRecurrence& recurrence);

    int n_units() const { return n_units_; }
    // Samples going on where the state's last call ended -> the probability of speech in each chunk, the last of which
    // is filled up with zeros. What comes out does not depend on how a recording's chunks are dealt out to calls.
    void detect(SpeechState& state, const float* samples, std::size_t n_samples, float* probabilities) const;
    static std::size_t chunks_of(std::size_t n_samples) { return (n_samples + CHUNK - 1) / CHUNK; }

  private:
    struct Layer {
        int n_inputs, n_outputs, stride;
        Memory weights, bias;  // (n_outputs, 3 frames, n_inputs), (n_outputs,)
    };
    struct Scratch;

    int gate_place(int row) const;
    void pack_layer(const SpeechConvolution& convolution);
    void pack_recurrence(const SpeechRecurrence& recurrence);
    void convolve_columns(const float* const* chunks, int n_columns, Scratch& scratch, float* rows) const;
    int convolve(const Layer& layer, const float* x, int n_frames, int n_columns, float* out) const;
    void recur(SpeechState& state, int n_chunks, Scratch& scratch) const;

    const Kernels& kernels_;
    std::vector<Layer> layers_;
    int n_units_, n_recurrent_inputs_, most_channels_ = N_BINS;
    Matrix input_weight_;
    Memory gate_bias_, state_weight_, output_weight_;
    float output_bias_;
};

}  // namespace stapes
