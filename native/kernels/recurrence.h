// How many units of a recurrent layer are computed together: two vectors for each of four gates fill as many registers
// as hide the latency of their sums.
#pragma once

#include "vec.h"

namespace stapes::STAPES_ISA {

inline constexpr int RECURRENT_UNITS = 2 * W;

}  // namespace stapes::STAPES_ISA
