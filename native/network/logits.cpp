#include "logits.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace stapes {
namespace {

constexpr int WIDE_PANELS = 4;  // panels that a single row takes together

// A weight is off by anything up to half a step, a logit by the length of the row times a step over the square root of
// 12, typically; so many times that, it is hardly ever (docs/native.md).
constexpr float TIMES_TYPICAL = 5.0f, TYPICAL = 0.288675135f;

std::size_t size(int n) { return static_cast<std::size_t>(n); }

bool looks(const Request& request) { return !request.logits_at.empty() || !request.probe_positions.empty(); }

// Ids that may come: everything below and above the span is forbidden.
Range allowed_span(const Sampling& sampling, int n_vocab) {
    Range span{0, n_vocab};
    for (std::size_t i = 0; i < sampling.n_now; ++i) {
        const Range& one = sampling.now[i];
        if (one.first == 0) span.first = std::max(span.first, one.last);
        if (one.last >= n_vocab) span.last = std::min(span.last, one.first);
    }
    return span.first < span.last ? span : Range{0, 0};
}

Range joined(const Range& a, const Range& b) {
    if (a.first >= a.last) return b;
    return b.first < b.last ? Range{std::min(a.first, b.first), std::max(a.last, b.last)} : a;
}

Range ids_of(const Request& request, int n_vocab) {
    if (looks(request)) return {0, n_vocab};
    Range span{0, 0};
    for (const Choice& one : request.choices) span = joined(span, allowed_span(one.sampling, n_vocab));
    return span;
}

Range panels_of(const Range& ids) { return {ids.first / PANEL, round_up(ids.last, PANEL) / PANEL}; }

float length_of(const float* x, int n) {
    double sum = 0.0;
    for (int i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    return static_cast<float>(std::sqrt(sum));
}

}  // namespace

Logits::Logits(const Model& model)
    : model_(model),
      kernels_(model.kernels),
      n_panels_(model.embedding.weight.view().n_panels()),
      logits_stride_(size((n_panels_ + 1) * PANEL)) {
    if (!model.approximate_embedding.weight.n_bytes()) return;
    for (int panel = 0; panel < n_panels_; ++panel) steps_.push_back(model.approximate_embedding.weight.step_of(panel));
}

void Logits::compute(const std::vector<Request*>& requests, const std::vector<int>& first_tokens, const float* x,
                     Scratches& scratches, Team& team) {
    list(requests);
    if (wanted_.empty()) return;
    make_room();
    normalise(first_tokens, x);
    multiply(rows_->rows(model_.embedding.rows), exact_, model_.embedding, scratches, team);
    if (approximate_.n()) {
        multiply(approximate_rows_->rows(model_.approximate_embedding.rows), approximate_, model_.approximate_embedding,
                 scratches, team);
        rescore(scratches, team);
    }
    team.share(static_cast<int>(requests.size()), [&](int part, int thread) {
        write_results(*requests[size(part)], first_wanted_[size(part)], *scratches[size(thread)]);
    });
}

// A draw may fall on any id: all of its logits have to be the finer ones.
bool Logits::only_chooses(const Request& request) const {
    const auto draws = [](const Choice& one) { return one.sampling.how == Sampling::How::draw; };
    return !steps_.empty() && !request.choices.empty() && !looks(request) &&
           std::none_of(request.choices.begin(), request.choices.end(), draws);
}

// Which rows are wanted: first those that are multiplied in full, then the others.
void Logits::list(const std::vector<Request*>& requests) {
    wanted_.clear();
    first_wanted_.assign(requests.size(), 0);
    for (const bool approximate : {false, true}) {
        Stretch& stretch = approximate ? approximate_ : exact_;
        stretch = {static_cast<int>(wanted_.size()), 0, {0, 0}};
        for (std::size_t i = 0; i < requests.size(); ++i) {
            Request& one = *requests[i];
            if (only_chooses(one) != approximate) continue;
            first_wanted_[i] = static_cast<int>(wanted_.size());
            for (Choice& choice : one.choices) wanted_.push_back({i, choice.position, &choice});
            for (const int position : one.probe_positions) wanted_.push_back({i, position, nullptr});
            for (const int position : one.logits_at) wanted_.push_back({i, position, nullptr});
            stretch.ids = joined(stretch.ids, ids_of(one, model_.sizes.n_vocab));
        }
        stretch.last = static_cast<int>(wanted_.size());
    }
}

// Memory is kept from step to step, but that of a forced pass, many times as large, only as long as such passes go on.
void Logits::make_room() {
    const std::size_t n = wanted_.size(), row = size(model_.stride) * sizeof(float);
    if (room_ < n || room_ > 2 * n + 8) {
        room_ = 0;
        for (Memory* one : {&x_, &normalised_, &logits_, &errors_, &candidates_})
            *one = Memory();  // before the new is taken
        x_ = Memory(n * row);
        normalised_ = Memory(n * row);
        logits_ = Memory(n * logits_stride_ * sizeof(float));
        rows_ = std::make_unique<Operand>(kernels_, static_cast<int>(n), model_.sizes.n_state);
        room_ = n;
        if (steps_.empty()) return;
        approximate_rows_ = std::make_unique<Operand>(kernels_, static_cast<int>(n), model_.sizes.n_state);
        errors_ = Memory(n * size(n_panels_) * sizeof(float));
        candidates_ = Memory(n * size(n_panels_));
    }
}

void Logits::normalise(const std::vector<int>& first_tokens, const float* x) {
    const std::size_t stride = size(model_.stride);
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
        const std::size_t token = size(first_tokens[wanted_[i].request] + wanted_[i].position);
        std::memcpy(x_.as() + i * stride, x + token * stride, stride * sizeof(float));
    }
    rows_->normalise(x_.as(), model_.text_norm, 0, static_cast<int>(wanted_.size()), model_.embedding.rows,
                     normalised_.as());
    if (!approximate_.n()) return;
    const std::size_t at = size(approximate_.first) * stride;
    approximate_rows_->normalise(x_.as() + at, model_.text_norm, 0, approximate_.n(), model_.approximate_embedding.rows,
                                 normalised_.as() + at);
}

void Logits::multiply(const Rows& rows, const Stretch& stretch, const Linear& vocabulary, Scratches& scratches,
                      Team& team) {
    const Weights w = vocabulary.weight.view();
    const Range panels = panels_of(stretch.ids);
    const int n = stretch.n() ? panels.last - panels.first : 0,
              chunk = std::max(WIDE_PANELS, n / (8 * team.size()) / WIDE_PANELS * WIDE_PANELS);
    team.share((n + chunk - 1) / chunk, [&](int part, int thread) {
        Product p = product_of(rows, stretch.n(), w, vocabulary, *scratches[size(thread)]);
        p.first_panel = panels.first + part * chunk;
        p.last_panel = std::min(panels.last, p.first_panel + chunk);
        p.c = logits_of(stretch.first) + p.first_panel * PANEL;
        p.c_stride = logits_stride_;
        kernels_.multiply(p);
    });
}

// Exact re-scoring of what may decide each approximate row's choice. A row in which nothing stands out is multiplied as
// a whole.
void Logits::rescore(Scratches& scratches, Team& team) {
    team.share(approximate_.n(), [&](int part, int thread) {
        const int row = approximate_.first + part;
        find_candidates(*wanted_[size(row)].choice, row, *scratches[size(thread)]);
    });
    const int chunk = std::max(WIDE_PANELS, n_panels_ / (8 * team.size()) / WIDE_PANELS * WIDE_PANELS);
    team.share((n_panels_ + chunk - 1) / chunk, [&](int part, int thread) {
        const Range panels{part * chunk, std::min(n_panels_, (part + 1) * chunk)};
        for (int row = approximate_.first; row < approximate_.last; ++row)
            rescore_panels(row, panels, *scratches[size(thread)]);
    });
}

void Logits::find_candidates(Choice& choice, int row, Scratch& scratch) {
    forbid_outside(approximate_, row);
    const std::size_t at = size(row) * size(n_panels_);
    const float length = length_of(normalised_.as() + size(row) * size(model_.stride), model_.sizes.n_state);
    float* errors = errors_.as() + at;
    for (int panel = 0; panel < n_panels_; ++panel)
        errors[panel] = TIMES_TYPICAL * TYPICAL * length * steps_[size(panel)];
    kernels_.mark_candidates(sampling_of(choice, row, scratch), errors, candidates_.as<std::uint8_t>() + at);
}

// Those of some panels that are candidates, as many together as lie side by side.
void Logits::rescore_panels(int row, Range panels, Scratch& scratch) {
    const std::uint8_t* candidates = candidates_.as<std::uint8_t>() + size(row) * size(n_panels_);
    const Weights w = model_.embedding.weight.view();
    const auto from = [&](int panel, std::uint8_t wanted) {
        return static_cast<int>(std::find(candidates + panel, candidates + panels.last, wanted) - candidates);
    };
    for (int panel = from(panels.first, 1); panel < panels.last; panel = from(panel, 1)) {
        Product p = product_of(rows_->rows(model_.embedding.rows, row), 1, w, model_.embedding, scratch);
        p.first_panel = panel;
        p.last_panel = panel = from(panel, 0);
        p.c = logits_of(row) + p.first_panel * PANEL;
        p.c_stride = logits_stride_;
        kernels_.multiply(p);
    }
}

// What was not multiplied cannot be chosen.
void Logits::forbid_outside(const Stretch& stretch, int row) {
    constexpr float never = -std::numeric_limits<float>::infinity();
    const Range panels = panels_of(stretch.ids);
    float* logits = logits_of(row);
    std::fill(logits, logits + panels.first * PANEL, never);
    std::fill(logits + panels.last * PANEL, logits + logits_stride_, never);
}

Sampling& Logits::sampling_of(Choice& choice, int row, Scratch& scratch) {
    Sampling& c = choice.sampling;
    c.logits = logits_of(row);
    c.n = model_.sizes.n_vocab;
    const std::size_t needed = sampling_scratch(c);
    if (scratch.choice.n_bytes() < needed) scratch.choice = Memory(needed);
    c.scratch = scratch.choice.bytes();
    return c;
}

void Logits::write_results(Request& request, int row, Scratch& scratch) {
    const int n_vocab = model_.sizes.n_vocab;
    for (Choice& choice : request.choices) {
        if (row < approximate_.first) forbid_outside(exact_, row);
        kernels_.choose(sampling_of(choice, row++, scratch));
    }
    request.probe_logits.reserve(request.probe_ids.size());
    request.probe_normalisers.reserve(request.probe_ids.size());
    request.logits.reserve(request.logits_at.size() * size(n_vocab));
    for (std::size_t i = 0; i < request.probe_ids.size(); ++i) {
        const float* logits = logits_of(row++);
        std::vector<float>& values = request.probe_logits.emplace_back();
        values.reserve(request.probe_ids[i].size());
        for (const std::int32_t id : request.probe_ids[i]) values.push_back(logits[id]);
        request.probe_normalisers.push_back(kernels_.log_sum_exp(logits, request.probe_below[i]));
    }
    for (std::size_t i = 0; i < request.logits_at.size(); ++i) {
        const float* logits = logits_of(row++);
        request.logits.insert(request.logits.end(), logits, logits + n_vocab);
    }
}

}  // namespace stapes
