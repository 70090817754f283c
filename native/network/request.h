// What one row does in a step, and what it gets.
#pragma once

#include <utility>
#include <vector>

#include "key_values.h"

namespace stapes {

// How to choose the id after one of a request's tokens. The caller sets what `sampling` points at, also where the ids
// and their log-probabilities go; logits, their number and the scratch are filled in here.
struct Choice {
    int position;  // an index into the request's tokens
    Sampling sampling;
};

// See stapes/backends/base.py (StepBatch, StepAnswers).
struct Request {
    Row* row;
    Window* window;
    int length;  // tokens that the row holds
    std::vector<std::int32_t> tokens;
    std::vector<Choice> choices;  // in the order of their positions
    std::vector<int> probe_positions;
    std::vector<std::vector<std::int32_t>> probe_ids;
    std::vector<int> probe_below;  // the ids that they are measured against
    std::vector<int> logits_at;
    std::vector<std::pair<int, int>> attention;  // (layer, head)
    Range within;  // encoder positions that it attends to; the first is a multiple of PANEL
    // Logits.
    std::vector<std::vector<float>> probe_logits;
    std::vector<float> probe_normalisers;
    std::vector<float> logits;            // (logits_at, n_vocab)
    std::vector<float> attention_scores;  // (attention, tokens, positions attended to)

    // Forget what was asked and answered; memory stays for the next step.
    void clear() {
        tokens.clear();
        choices.clear();
        probe_positions.clear();
        probe_ids.clear();
        probe_below.clear();
        logits_at.clear();
        attention.clear();
        probe_logits.clear();
        probe_normalisers.clear();
        logits.clear();
        attention_scores.clear();
    }
};

}  // namespace stapes
