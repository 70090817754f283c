// Costs and paths of all small sizes: every cell that is read or written is one of ours.
#include "../network/alignment.h"

#include <algorithm>

#include "check.h"

namespace stapes::tests {
namespace {

void test_path(int n_tokens, int n_columns, const std::vector<float>& cost) {
    const std::vector<std::int32_t> path = dtw_path(cost.data(), n_tokens, n_columns);
    const std::size_t length = path.size() / 2;
    CHECK(length >= size(std::max(n_tokens, n_columns)) && length < size(n_tokens + n_columns));
    CHECK(path.front() == 0 && path[length] == 0);
    CHECK(path[length - 1] == n_tokens - 1 && path.back() == n_columns - 1);
    for (std::size_t i = 1; i < length; ++i) {
        const std::int32_t down = path[i] - path[i - 1], right = path[length + i] - path[length + i - 1];
        CHECK(down >= 0 && down <= 1 && right >= 0 && right <= 1 && down + right > 0);
    }
}

}  // namespace

void test_alignment() {
    constexpr int n_heads = 2, stride = 12;
    for (int n_tokens = 1; n_tokens < 7; ++n_tokens)
        for (int n_columns = 0; n_columns <= stride; ++n_columns)
            for (int n_before = 0; n_before < n_tokens; ++n_before) {
                const auto scores = random_numbers(size(n_heads * n_tokens * stride), static_cast<unsigned>(n_tokens));
                const auto cost = alignment_cost(scores.data(), n_heads, n_tokens, stride, n_columns, n_before);
                const int n_kept = n_tokens - n_before - 1;
                CHECK(cost.size() == size(n_kept * n_columns));
                for (const float one : cost) CHECK(std::isfinite(one));
                if (n_kept && n_columns) test_path(n_kept, n_columns, cost);
            }
}

}  // namespace stapes::tests
