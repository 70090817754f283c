// The recurrent layer of voice activity detection, step by step; the twin of `_recur` in stapes/vad/silero_numpy.py.
//
// A step waits for its weights, which a core's second cache holds and its first does not: every second step reads them
// from the end, beginning with those that are still near. Sums run over the inputs in order either way.
#include "recurrence.h"

#include "functions.h"
#include "tile.h"

namespace stapes::STAPES_ISA {
namespace {

constexpr int GATES = 4, PER_GATE = RECURRENT_UNITS / W, VECTORS = GATES * PER_GATE;

// exp(x), but held between exp(-86) and exp(86), which no sum with 1 can tell from 0 and infinity. NaN stays NaN.
STAPES_INLINE F32 exp_held(F32 x) {
    const Exponential parts = exp_in_parts(min(set1(86.0f), max(set1(-86.0f), x)));
    return parts.fraction * from_bits((to_i32(parts.power) + set1_i32(127)) << 23);
}

STAPES_INLINE F32 sigmoid(F32 x) { return set1(1.0f) / (set1(1.0f) + exp_held(set1(0.0f) - x)); }

// Within 2 units in the last place: what is small is kept for seconds, so that its roundings add up. The polynomial for
// what lies near 0, where a difference of ones would have few digits, is that of tanhf in the Cephes library.
STAPES_INLINE F32 tanh(F32 x) {
    const F32 square = x * x;
    F32 p = set1(-5.70498872745e-3f);
    p = fma(p, square, set1(2.06390887954e-2f));
    p = fma(p, square, set1(-5.37397155531e-2f));
    p = fma(p, square, set1(1.33314422036e-1f));
    p = fma(p, square, set1(-3.33332819422e-1f));
    const F32 far = set1(1.0f) - set1(2.0f) / (set1(1.0f) + exp_held(x + x));
    return select(less(abs(x), set1(0.625f)), fma(p * square, x, x), far);
}

// RECURRENT_UNITS units, from `unit` on, of one step.
STAPES_INLINE void step_units(const Recurrence& r, const float* gates, int unit) {
    const float* weights = r.weights + static_cast<std::size_t>(unit) * static_cast<std::size_t>(GATES * r.n);
    F32 sums[VECTORS];
    unrolled<VECTORS>([&](auto i) __attribute__((always_inline)) { sums[i] = load(gates + unit * GATES + i * W); });
    for (int k = 0; k < r.n; ++k, weights += VECTORS * W) {
        const F32 before = set1(r.output[k]);
        unrolled<VECTORS>(
            [&](auto i) __attribute__((always_inline)) { sums[i] = fma(before, load(weights + i * W), sums[i]); });
    }
    unrolled<PER_GATE>([&](auto i) __attribute__((always_inline)) {
        const F32 takes = sigmoid(sums[i]), keeps = sigmoid(sums[PER_GATE + i]),
                  gives = sigmoid(sums[3 * PER_GATE + i]);
        const F32 cell = fma(keeps, load(r.cell + unit + i * W), takes * tanh(sums[2 * PER_GATE + i]));
        store(r.cell + unit + i * W, cell);
        store(r.next + unit + i * W, gives * tanh(cell));
    });
}

// Makes what was found the layer's output; returns the number computed from it.
STAPES_INLINE float output_of_step(const Recurrence& r) {
    F32 total = set1(0.0f);
    for (int unit = 0; unit < r.n; unit += W) {
        const F32 output = load(r.next + unit);
        store(r.output + unit, output);
        total = fma(max(set1(0.0f), output), load(r.output_weight + unit), total);  // in this order NaN stays NaN
    }
    return sum(total) + r.output_bias;
}

}  // namespace

void recur(const Recurrence& r) {
    const int last = r.n - RECURRENT_UNITS;
    for (int step = 0; step < r.n_steps; ++step) {
        const float* gates = r.gates + static_cast<std::size_t>(step) * static_cast<std::size_t>(GATES * r.n);
        for (int unit = 0; unit <= last; unit += RECURRENT_UNITS) step_units(r, gates, step % 2 ? last - unit : unit);
        r.probabilities[step] = output_of_step(r);
    }
    for (int step = 0; step < r.n_steps; step += W)
        store(r.probabilities + step, sigmoid(load(r.probabilities + step)));
}

}  // namespace stapes::STAPES_ISA
