#include "alignment.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace stapes {
namespace {

constexpr int MEDIAN_WIDTH = 7, HALF = MEDIAN_WIDTH / 2;

std::size_t size(int n) { return static_cast<std::size_t>(n); }

void softmax(const float* from, int n, float* to) {
    float high = -std::numeric_limits<float>::infinity();
    for (int i = 0; i < n; ++i) high = std::max(high, from[i]);
    double total = 0.0;
    for (int i = 0; i < n; ++i) {
        to[i] = std::exp(from[i] - high);
        total += static_cast<double>(to[i]);
    }
    const float divisor = static_cast<float>(total);
    for (int i = 0; i < n; ++i) to[i] /= divisor;
}

// Each column of (n_tokens, n) to mean 0 and deviation 1; 0 where that is no number.
void normalise(float* x, int n_tokens, int n, std::vector<double>& mean, std::vector<double>& deviation) {
    std::fill(mean.begin(), mean.end(), 0.0);
    std::fill(deviation.begin(), deviation.end(), 0.0);
    for (int token = 0; token < n_tokens; ++token)
        for (int i = 0; i < n; ++i) mean[size(i)] += static_cast<double>(x[size(token) * size(n) + size(i)]);
    for (int i = 0; i < n; ++i) mean[size(i)] /= n_tokens;
    for (int token = 0; token < n_tokens; ++token)
        for (int i = 0; i < n; ++i) {
            const double away = static_cast<double>(x[size(token) * size(n) + size(i)]) - mean[size(i)];
            deviation[size(i)] += away * away;
        }
    for (int i = 0; i < n; ++i) {
        const double found = std::sqrt(deviation[size(i)] / n_tokens);
        deviation[size(i)] = found > 0.0 ? found : std::numeric_limits<double>::infinity();
    }
    for (int token = 0; token < n_tokens; ++token)
        for (int i = 0; i < n; ++i) {
            float& value = x[size(token) * size(n) + size(i)];
            const auto scaled = static_cast<float>((static_cast<double>(value) - mean[size(i)]) / deviation[size(i)]);
            value = std::isnan(scaled) ? 0.0f : scaled;
        }
}

// A network of comparisons that leaves the median of seven in the middle
// (N. Devillard, "Fast median search: an ANSI C implementation", 1998, after J. L. Smith).
void sort_two(float& a, float& b) {
    const float low = std::min(a, b), high = std::max(a, b);
    a = low;
    b = high;
}

float median_of_seven(const float* x) {
    float p0 = x[0], p1 = x[1], p2 = x[2], p3 = x[3], p4 = x[4], p5 = x[5], p6 = x[6];
    // clang-format off: three swaps of a stage a line
    sort_two(p0, p5); sort_two(p0, p3); sort_two(p1, p6);
    sort_two(p2, p4); sort_two(p0, p1); sort_two(p3, p5);
    sort_two(p2, p6); sort_two(p2, p3); sort_two(p3, p6);
    sort_two(p4, p5); sort_two(p1, p4); sort_two(p1, p3);
    sort_two(p3, p4);
    // clang-format on
    return p3;
}

// Adds the smoothed row (n,) to `sums`; `padded` has room for n + 6.
void add_medians(const float* row, int n, float* padded, float* sums) {
    if (n <= HALF) {
        for (int i = 0; i < n; ++i) sums[i] += row[i];
        return;
    }
    for (int i = 1; i <= HALF; ++i) {
        padded[HALF - i] = row[i];
        padded[HALF + n - 1 + i] = row[n - 1 - i];
    }
    std::copy(row, row + n, padded + HALF);
    for (int i = 0; i < n; ++i) sums[i] += median_of_seven(padded + i);
}

}  // namespace

std::vector<float> alignment_cost(const float* scores, int n_heads, int n_tokens, int stride, int n_columns,
                                  int n_before) {
    const int n_kept = n_tokens - n_before - 1;
    std::vector<float> cost(size(n_kept) * size(n_columns)), weights(size(n_tokens) * size(n_columns)),
        padded(size(n_columns) + MEDIAN_WIDTH);
    std::vector<double> mean(size(n_columns)), deviation(size(n_columns));
    for (int head = 0; head < n_heads; ++head) {
        for (int token = 0; token < n_tokens; ++token)
            softmax(scores + (size(head) * size(n_tokens) + size(token)) * size(stride), n_columns,
                    weights.data() + size(token) * size(n_columns));
        normalise(weights.data(), n_tokens, n_columns, mean, deviation);
        for (int kept = 0; kept < n_kept; ++kept)
            add_medians(weights.data() + size(kept + n_before) * size(n_columns), n_columns, padded.data(),
                        cost.data() + size(kept) * size(n_columns));
    }
    for (float& one : cost) one = -(one / static_cast<float>(n_heads));
    return cost;
}

std::vector<std::int32_t> dtw_path(const float* cost, int n_tokens, int n_columns) {
    constexpr std::int8_t both = 0, token = 1, column = 2;  // where the cheapest path came from
    const std::size_t width = size(n_columns) + 1;
    std::vector<std::int8_t> came(size(n_tokens + 1) * width, column);
    std::vector<float> last(width, std::numeric_limits<float>::infinity()), now(width);
    last[0] = 0.0f;
    for (int i = 1; i <= n_tokens; ++i) {
        now[0] = std::numeric_limits<float>::infinity();
        for (int j = 1; j <= n_columns; ++j) {
            const float of_both = last[size(j) - 1], of_token = last[size(j)], of_column = now[size(j) - 1];
            float cheapest = of_column;
            std::int8_t way = column;
            if (of_both < of_token && of_both < of_column) {
                cheapest = of_both;
                way = both;
            } else if (of_token < of_both && of_token < of_column) {
                cheapest = of_token;
                way = token;
            }
            now[size(j)] = cost[size(i - 1) * size(n_columns) + size(j - 1)] + cheapest;
            came[size(i) * width + size(j)] = way;
        }
        std::swap(last, now);
    }
    std::vector<std::int32_t> tokens, columns;
    for (int i = n_tokens, j = n_columns; i > 0 || j > 0;) {
        tokens.push_back(i - 1);
        columns.push_back(j - 1);
        const std::int8_t way = i == 0 ? column : j == 0 ? token : came[size(i) * width + size(j)];
        if (way != column) --i;
        if (way != token) --j;
    }
    std::reverse(tokens.begin(), tokens.end());
    std::reverse(columns.begin(), columns.end());
    tokens.insert(tokens.end(), columns.begin(), columns.end());
    return tokens;
}

}  // namespace stapes
