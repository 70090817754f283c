// Candidates: which panels of approximate logits may decide what is chosen, and have to be scored again, exactly.
#include <algorithm>

#include "functions.h"
#include "sampling.h"

namespace stapes::STAPES_ISA {
namespace {

// What lies so far below the best moves the sum of the exponentials by little: it may stay approximate
// (docs/native.md).
constexpr float NEAR = 3.0f;

// Ids of one panel: no exact logit lies above `high`, and the highest not below `low`. (A type of this namespace, as in
// choose.cpp.)
struct Bounds {
    int panel;
    float high, low;
};

// BoundsList of some panels, in the scratch of the call.
struct BoundsList {
    Bounds *first, *last;
    const Bounds* begin() const { return first; }
    const Bounds* end() const { return last; }
    int n() const { return static_cast<int>(last - first); }
};

// The ids first..last-1, panel by panel. NaN of a bound tells that it is not known.
void enter(const Sampling& c, const float* errors, int first, int last, BoundsList& to) {
    while (first < last) {
        const int panel = first / PANEL, end = std::min(last, (panel + 1) * PANEL);
        const float highest = highest_of(c.logits + first, end - first);
        *to.last++ = {panel, highest + errors[panel], highest - errors[panel]};
        first = end;
    }
}

// Mark the panels that may hold one of the n highest, or one near the highest: all that do not lie lower for certain.
void mark(const BoundsList& all, int n, void* memory, std::uint8_t* panels) {
    if (n == 0) return;
    float floor = NEVER;
    if (n <= all.n()) {
        TopK<Bounds> best(memory, n);  // by their lower bounds
        for (const Bounds& one : all)
            if (!std::isnan(one.low)) best.offer(one, [](const Bounds& a, const Bounds& b) { return a.low > b.low; });
        if (best.full()) floor = std::min(best.all()[n - 1].low, best.all()[0].low - NEAR);
    }
    for (const Bounds& one : all)
        if (one.high != NEVER && !(one.high < floor)) panels[one.panel] = 1;
}

struct Sides {
    BoundsList lower, upper;  // ids below the vote's border, and the others
};

enum class Vote : std::uint8_t { lost, won, open };  // by the upper ids

Vote vote_of(const Sampling& c, const float* errors, const Sides& sides) {
    float high = NEVER, low = NEVER, error = 0.0f;
    for (const Bounds& one : sides.lower) {
        if (!(one.high <= high)) high = one.high;
        if (std::isnan(high)) return Vote::open;
        if (one.low > low) low = one.low;
    }
    for (const Bounds& one : sides.upper) {
        if (one.high == NEVER) continue;
        if (!(errors[one.panel] < INFINITY)) return Vote::open;
        error = std::max(error, errors[one.panel]);
    }
    const float total = log_sum_exp(c.logits + c.vote_from, c.n - c.vote_from);
    if (total + error < low) return Vote::lost;
    return total - error > high ? Vote::won : Vote::open;
}

}  // namespace

void mark_candidates(const Sampling& c, const float* errors, std::uint8_t* panels) {
    forbid(c);
    const int n_panels = round_up(c.n, PANEL) / PANEL;
    for (int panel = 0; panel < n_panels; ++panel) panels[panel] = !(errors[panel] < INFINITY);
    Bounds* const memory = static_cast<Bounds*>(c.scratch);
    Sides sides{{memory, memory}, {}};
    enter(c, errors, 0, std::max(c.vote_from, 0), sides.lower);
    sides.upper = {sides.lower.last, sides.lower.last};
    enter(c, errors, std::max(c.vote_from, 0), c.n, sides.upper);
    void* const rest = sides.upper.last;
    const Vote vote = c.vote_from < 0 ? Vote::won : vote_of(c, errors, sides);
    if (vote == Vote::open) {
        mark(sides.lower, c.n_chosen, rest, panels);
        mark(sides.upper, n_panels, rest, panels);  // all of them: their sum has to be known
        return;
    }
    mark({vote == Vote::lost ? sides.lower.first : sides.upper.first, sides.upper.last}, c.n_chosen, rest, panels);
}

}  // namespace stapes::STAPES_ISA
