// What one row does in a step, and what it gets.
#pragma once

#include <utility>
#include <vector>

#include "key_values.h"

namespace stapes {

// See stapes/backends/base.py (RowStep, RowResult).
struct Request {
    Row* row;
    Window* window;
    int length;  // tokens that the row holds
    std::vector<std::int32_t> tokens;
    bool chooses;
    Sampling sampling;  // logits and n are filled in here
    std::vector<Range> now;
    std::vector<double> uniforms;
    std::vector<int> probe_positions;
    std::vector<std::vector<std::int32_t>> probe_ids;
    std::vector<int> probe_below;  // the ids that they are measured against
    std::vector<int> logits_at;
    std::vector<std::pair<int, int>> attention;  // (layer, head)
    Range within;  // encoder positions that it attends to; the first is a multiple of PANEL
    // Logits.
    std::vector<std::int32_t> ids;
    std::vector<float> logprobs;
    std::vector<std::vector<float>> probe_logits;
    std::vector<float> probe_normalisers;
    std::vector<float> logits;            // (logits_at, n_vocab)
    std::vector<float> attention_scores;  // (attention, tokens, n_audio_ctx)
};

}  // namespace stapes
