// A row of numbers as whole numbers of steps, in one place for weights' partners, keys, values and queries.
#pragma once

#include "vec.h"

namespace stapes::STAPES_ISA {

// read(i) gives the W numbers from i on, 0 <= i < n; put(i, steps) takes theirs, of which the largest size is `most`.
// Gives what a step means.
template <class Read, class Put>
STAPES_INLINE float count_steps(int n, float most, Read&& read, Put&& put) {
    F32 highest = set1(0.0f);
    for (int i = 0; i < n; i += W) highest = max(abs(read(i)), highest);
    const float limit = largest(highest);
    const F32 factor = set1(limit > 0.0f ? most / limit : 0.0f);
    // NaN and what overflows must not wrap round: they count as the largest size.
    for (int i = 0; i < n; i += W) put(i, round(max(min(read(i) * factor, set1(most)), set1(-most))));
    return limit / most;
}

}  // namespace stapes::STAPES_ISA
