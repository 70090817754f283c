// Where tokens lie in the sound; the twins of `alignment_cost` and `dtw_path` in stapes/backends/numerics.py.
#pragma once

#include <cstdint>
#include <vector>

namespace stapes {

// scores (n_heads, n_tokens, stride), of which n_columns count -> costs (n_tokens - n_before - 1, n_columns).
std::vector<float> alignment_cost(const float* scores, int n_heads, int n_tokens, int stride, int n_columns,
                                  int n_before);

// costs (n_tokens, n_columns) -> the cheapest path: tokens, then columns, in one vector.
std::vector<std::int32_t> dtw_path(const float* cost, int n_tokens, int n_columns);

}  // namespace stapes
