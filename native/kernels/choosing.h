// What choosing and what comes before it have in common.
#pragma once

#include "kernels.h"
#include "vec.h"

namespace stapes::STAPES_ISA {

inline constexpr float NEVER = -INFINITY;

// NaN left out.
STAPES_INLINE float highest_of(const float* x, int n) {
    F32 high = set1(NEVER);
    int i = 0;
    for (; i + W <= n; i += W) high = max(load(x + i), high);
    float found = largest(high);
    for (; i < n; ++i) found = x[i] > found ? x[i] : found;
    return found;
}

STAPES_INLINE void forbid(const Choosing& c) {
    for (std::size_t i = 0; i < c.n_permanent; ++i) c.logits[c.permanent[i]] = NEVER;
    for (std::size_t i = 0; i < c.n_now; ++i)
        for (std::int32_t id = c.now[i].first; id < c.now[i].last; ++id) c.logits[id] = NEVER;
}

}  // namespace stapes::STAPES_ISA
