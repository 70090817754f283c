// Sampling the next id from logits: the twin of stapes/backends/sampling.py.
#include <algorithm>

#include "functions.h"
#include "sampling.h"

namespace stapes::STAPES_ISA {
namespace {

// A type of this namespace: the vector's functions become this instruction set's own, which no other can be linked to.
struct Candidate {
    float logprob;
    int id;
};

// The lowest index of the largest value.
int index_of_highest(const float* x, int n) {
    const float high = highest_of(x, n);
    int i = 0;
    while (i + PANEL <= n && highest_of(x + i, PANEL) != high) i += PANEL;
    for (; i < n; ++i)
        if (x[i] == high) return i;
    return 0;
}

// The log of the summed exponentials of what is allowed, after the vote.
float normalise(const Sampling& c) {
    const float total = log_sum_exp(c.logits, c.n);
    if (c.vote_from < 0) return total;
    // Both sides as log-probabilities, as the twin compares them.
    const float upper = log_sum_exp(c.logits + c.vote_from, c.n - c.vote_from) - total;
    const float best_lower = highest_of(c.logits, c.vote_from) - total;
    if (!(upper > best_lower)) return total;
    for (int id = 0; id < c.vote_from; ++id) c.logits[id] = NEVER;
    return log_sum_exp(c.logits, c.n);
}

// The first of n growing numbers that is above x; n if none is.
int first_above(const double* numbers, int n, double x) {
    int low = 0, high = n;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (x < numbers[middle]) high = middle;
        else low = middle + 1;
    }
    return low;
}

void draw(const Sampling& c) {
    const float high = highest_of(c.logits, c.n);
    if (high == NEVER || std::isnan(high)) {
        std::fill(c.ids, c.ids + c.n_chosen, 0);
        return;
    }
    double* const cumulated = static_cast<double*>(c.scratch);
    double sum = 0.0;
    int last = 0;
    for (int id = 0; id < c.n; ++id) {
        const double away = (static_cast<double>(c.logits[id]) - static_cast<double>(high)) / c.temperature;
        const double weight = away < -746.0 ? 0.0 : std::exp(away);
        if (weight > 0.0) last = id;
        cumulated[id] = sum += weight;
    }
    for (int i = 0; i < c.n_chosen; ++i) {
        c.ids[i] = std::min(first_above(cumulated, c.n, c.uniforms[i] * sum), last);
    }
}

// The best first; of equals the lower id.
void top(const Sampling& c, float total) {
    if (c.n_chosen == 0) return;
    const auto better = [](const Candidate& a, const Candidate& b) {
        return a.logprob > b.logprob || (a.logprob == b.logprob && a.id < b.id);
    };
    TopK<Candidate> kept(c.scratch, c.n_chosen);
    for (int id = 0; id < c.n; ++id) kept.offer({total == NEVER ? NEVER : c.logits[id] - total, id}, better);
    for (int i = 0; i < c.n_chosen; ++i) c.ids[i] = kept.all()[i].id;
}

}  // namespace

float log_sum_exp(const float* x, int n) {
    const float high = highest_of(x, n);
    if (high == NEVER) return NEVER;
    F32 sums = set1(0.0f);
    int i = 0;
    for (; i + W <= n; i += W) sums = sums + exp(load(x + i) - set1(high));
    float rest[W] = {};
    if (i < n) {
        for (int j = 0; j < W; ++j) rest[j] = i + j < n ? x[i + j] : NEVER;
        sums = sums + exp(load(rest) - set1(high));
    }
    return high + std::log(sum(sums));
}

void choose(const Sampling& c) {
    forbid(c);
    const float total = normalise(c);
    switch (c.how) {
        case Sampling::How::best: c.ids[0] = index_of_highest(c.logits, c.n); break;
        case Sampling::How::draw: draw(c); break;
        case Sampling::How::top: top(c, total); break;
    }
    for (int i = 0; i < c.n_chosen; ++i) c.logprobs[i] = total == NEVER ? NEVER : c.logits[c.ids[i]] - total;
}

}  // namespace stapes::STAPES_ISA
