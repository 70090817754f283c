// The kernels as the rest of the library calls them: one table of functions for each instruction set, chosen once.
//
// Kernels know arrays, shapes and types. Conventions, the same for all:
// - Activations are rows; a row's stride is a whole number of panels (PANEL values), and the values after its last one
//   are zero, so that no kernel needs a special case for a remainder. Every kernel keeps it so.
// - Sums run in an order that depends on the inner dimension alone, never on how many rows or columns there are: the
//   numbers of a row do not depend on the rows beside it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "types.h"

namespace stapes {

inline constexpr int PANEL = 32;  // output columns that are packed and computed together

STAPES_ALWAYS_INLINE constexpr int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

// Values from one row of activations to the next. More than they need: rows a power of two apart would share one set of
// the cache. Two panels more: rows of bytes begin with a cache line, where d is a multiple of one.
STAPES_ALWAYS_INLINE constexpr int row_stride(int d) { return round_up(d, PANEL) + 2 * PANEL; }

// A weight matrix (n outputs, k inputs), packed as [n / PANEL][k / g][PANEL][g]: g values of four bytes together, one
// where `type` is f16 (float16-stored numbers that are multiplied as float32).
struct Weights {
    Type type;
    int n;
    int k;
    const void* data;
    const float* scales;              // i8: (n rounded up to PANEL) what one step means
    const std::int32_t* corrections;  // i8: (n rounded up to PANEL) activation_zero times the sum of its integers

    STAPES_ALWAYS_INLINE int n_panels() const { return round_up(n, PANEL) / PANEL; }
    STAPES_ALWAYS_INLINE int group() const { return group_of(type); }
    STAPES_ALWAYS_INLINE int n_groups() const { return (k + group() - 1) / group(); }
    STAPES_ALWAYS_INLINE std::size_t panel_bytes() const {
        return static_cast<std::size_t>(n_groups()) * PANEL * static_cast<std::size_t>(group() * size_of(type));
    }
};

// The left operand of a product: rows of f32, bf16, or i16 with a scale for each row.
//
// Where the set multiplies bytes (Kernels::multiplies_i8), a row of i16 lies there as two rows of bytes, its upper and
// its lower halves: integers of 16 bits for twice the multiplications, and no more reading of weights. Elsewhere it is
// 16-bit integers, in every four of which the second and the third have changed places: weights' bytes become 16-bit
// integers by two shifts, the even ones and the odd ones.
struct Rows {
    Type type;
    const void* data;
    std::size_t stride;   // bytes; of i16, half of those from one row to the next
    const float* scales;  // i16: what one step means, for each row
};

// The largest number of steps of rows that are multiplied as 16-bit integers: k products with a partner of so many
// steps, a weight's if nothing else is said, add up to less than 2^31.
STAPES_ALWAYS_INLINE constexpr int most_steps(int k, int partner = traits_of(Type::i8).steps) {
    const int most = 0x7fffffff / partner / (k > 0 ? k : 1);
    return most < 0x7fff ? most : 0x7fff;
}

enum class Activation : std::uint8_t { none, gelu, rough_gelu };  // rough: off by up to 1e-4 of its size

// Where the i-th of interleaved values lies: in every four, the second and the third have changed places. Its own
// inverse.
STAPES_ALWAYS_INLINE constexpr int interleaved(int i) { return i / 4 * 4 + i % 2 * 2 + i % 4 / 2; }

// c[i, j] = activation(a[i] . w[j] + bias[j]) * factor + residual[i, j] for all rows and the panels first..last-1.
struct Product {
    Rows a;
    int n_rows;
    const Weights* w;
    int first_panel, last_panel;
    const float* bias;  // (n rounded up to PANEL), or null
    Activation activation;
    const float* residual;  // (n_rows, stride), or null; may be c itself
    void* c;                // f32 or bf16
    Type c_type;
    std::size_t c_stride;  // values, of c and of residual
    void* scratch;         // product_scratch bytes for each thread
};
STAPES_ALWAYS_INLINE constexpr std::size_t product_scratch(int k) {
    return 4096 + static_cast<std::size_t>(round_up(k, 4)) * PANEL * 4;
}

// Keys and values of one head lie in blocks of PANEL positions:
//   keys    [width / g][PANEL positions][g]          the right operand of query x keys
//   values  [width / PANEL][PANEL / g][PANEL][g]     the right operand of weights x values; dimensions are the columns
// in type f32 (g = 1), bf16 (g = 2), i8 (g = 4) or i16 (g = 2, interleaved along the inner dimension as rows are);
// integers are followed by what one step of each position means: PANEL f32. Positions that were never written hold
// zeros.
struct BlockShape {
    Type type;
    int width;
    STAPES_ALWAYS_INLINE int group() const { return group_of(type); }
    STAPES_ALWAYS_INLINE int steps() const { return traits_of(type).steps; }
    STAPES_ALWAYS_INLINE std::size_t scale_bytes() const { return is_integer(type) ? PANEL * sizeof(float) : 0; }
    // Of a key: what is interleaved lies in fours.
    STAPES_ALWAYS_INLINE int padded_width() const { return round_up(width, is_integer(type) ? 4 : group()); }
    STAPES_ALWAYS_INLINE std::size_t key_bytes() const {
        return static_cast<std::size_t>(padded_width() * PANEL * size_of(type)) + scale_bytes();
    }
    STAPES_ALWAYS_INLINE std::size_t value_bytes() const {
        return static_cast<std::size_t>(round_up(width, PANEL) * PANEL * size_of(type)) + scale_bytes();
    }
};

// Attention of some queries of one head: softmax(scale * q . K) . V.
struct Attention {
    BlockShape shape;
    float scale;
    const float* queries;  // (n_queries, query_stride)
    std::size_t query_stride;
    int n_queries;
    const void* const* keys;    // blocks
    const void* const* values;  // blocks
    int n_keys;
    int first_visible;       // query i sees keys 0 .. min(n_keys, first_visible + i) - 1
    void* out;               // (n_queries, out_stride): `width` values are written
    Type out_type;           // f32 or bf16
    std::size_t out_stride;  // values
    float* raw_scores;       // (n_queries, n_keys) scaled, before the softmax; or null
    void* scratch;           // attention_scratch bytes for each thread
    bool rough = false;      // beside f32 too, exponentials may be off by 1e-5
};
constexpr int ATTENTION_QUERIES = 48;   // queries at a time
constexpr int ATTENTION_STRETCH = 512;  // keys at a time: their scores stay in the nearer caches
STAPES_ALWAYS_INLINE constexpr std::size_t attention_scratch(int width) {
    const auto wide = static_cast<std::size_t>(round_up(width, PANEL) + PANEL);
    return static_cast<std::size_t>(ATTENTION_QUERIES) * (3 * wide + 2 * (ATTENTION_STRETCH + PANEL) + 4) * 4;
}

// What may come next, and how it is chosen; see stapes/backends/base.py (Constraint, Best, Draw, Top).
struct Range { std::int32_t first, last; };  // half-open
struct Sampling {
    float* logits;  // (n,), changed: -infinity where forbidden
    int n;
    const std::int64_t* permanent;  // sorted forbidden ids
    std::size_t n_permanent;
    const Range* now;
    std::size_t n_now;
    int vote_from;  // -1: no vote
    enum class How : std::uint8_t { best, draw, top } how;
    double temperature;
    const double* uniforms;
    int n_chosen;  // of `ids` and `logprobs`
    std::int32_t* ids;
    float* logprobs;
    void* scratch;  // sampling_scratch bytes for each thread
};
// Bounds of each panel and the best of them (a panel at the vote's border counts twice), the n_chosen best ids and one
// more, or what n weights of a draw add up to.
STAPES_ALWAYS_INLINE constexpr std::size_t sampling_scratch(const Sampling& c) {
    const auto bounds = static_cast<std::size_t>(round_up(c.n, PANEL) / PANEL + 2) * 2 * 12,
               best = static_cast<std::size_t>(c.n_chosen + 1) * 8;
    const auto sums = c.how == Sampling::How::draw ? static_cast<std::size_t>(c.n) * 8 : 0,
               most = bounds > best ? bounds : best;
    return most > sums ? most : sums;
}

// The kernels for voice activity hold PANEL chunks of a recording side by side, one in each column: (rows, PANEL).

// out[i] = max(0, sum over j of weights[i, j] * x[j] + bias[i]) for the first n_columns columns, rounded up to whole
// tiles. The inputs are summed up in n_parts parts, and then those: a third of the error of one long sum.
struct Convolution {
    const float* weights;  // (n_outputs, stride), of which n_parts * n_inputs count
    std::size_t stride;
    const float* bias;  // (n_outputs,)
    int n_parts, n_inputs, n_outputs;
    const float* x;  // (n_parts * n_inputs, PANEL)
    int n_columns;
    float* out;  // (n_outputs, PANEL)
};

// A recurrent layer of `n` units (a multiple of PANEL) with input, forget, cell and output gates, and one number
// computed from its output after each step. Gates lie as [n / units][4][units], weights as [n / units][n
// inputs][4][units]; units: Kernels::recurrent_units.
struct Recurrence {
    const float* weights;
    int n, n_steps;
    const float* gates;          // (n_steps, 4 n): what the layer's input and the bias give
    float* output;               // (n,): of the step before the first, and then of the last
    float* cell;                 // (n,)
    float* next;                 // (n,): scratch
    const float* output_weight;  // (n,): weights of that number
    float output_bias;
    float* probabilities;  // (n_steps rounded up to PANEL,): sigmoid(output_weight . max(0, output) + output_bias)
};

// What a row of i8 means: values that are no finite numbers are counted as 0.
struct QuantizedRow {
    float step;
    bool all_finite;
    std::int32_t sum;  // of the integers
};

struct Kernels {
    const char* name;
    bool multiplies_i8;    // rows of integers lie in halves
    bool multiplies_bf16;  // otherwise, rows beside weights, keys or values of bf16 are f32
    bool prefers_i16;      // keys and values of i16 are multiplied in fewer instructions than those of bf16 or f32
    bool has_amx;          // AMX multiplies bytes and bfloat16: reading weights is what products wait for
    int activation_zero;   // what is added to int8 activations when they are stored
    void (*multiply)(const Product&);
    // y[i] = normalised x[i] * weight + bias; d values of each row, epsilon 1e-5. y may be f32 or bf16.
    void (*layer_norm)(const float* x, std::size_t x_stride, int n_rows, int d, const float* weight, const float* bias,
                       void* y, Type y_type, std::size_t y_stride);
    // Rows of f32 -> i16 (127 * 256 steps, or most_steps(d)) with a scale for each row: what one step means. d is
    // rounded up to whole panels; a row takes two times y_stride bytes.
    void (*quantize)(const float* x, std::size_t x_stride, int n_rows, int d, std::uint8_t* y, std::size_t y_stride,
                     float* scales);
    // Rows of f32 -> bf16.
    void (*narrow)(const float* x, std::size_t x_stride, int n_rows, int d, void* y, std::size_t y_stride);
    // A row of float16 -> f32. n is rounded up to whole panels.
    void (*widen)(const void* x, int n, float* y);
    // A row of weights, f32 -> i8: as many steps to either side of 0 as there are. n is rounded up to whole panels.
    QuantizedRow (*quantize_weights)(const float* x, int n, std::int8_t* y);
    // Put n positions, from `position` (inside one block) on, of a head's keys or values (rows of f32) into a block.
    void (*store_keys)(const BlockShape& shape, const float* x, std::size_t x_stride, int n, int position, void* block);
    void (*store_values)(const BlockShape& shape, const float* x, std::size_t x_stride, int n, int position,
                         void* block);
    void (*attend)(const Attention&);
    void (*choose)(const Sampling&);
    // Logits that are each off by at most their panel's error: mark (1, otherwise 0) the panels of which the exact
    // logits have to be known for `choose` to choose what it would choose from exact ones. Forbids, as `choose` does.
    // All panels of an error that is no number are marked.
    void (*mark_candidates)(const Sampling&, const float* errors, std::uint8_t* panels);
    // log of the sum of the exponentials of (n,).
    float (*log_sum_exp)(const float* x, int n);
    // Samples ((n_frames - 1) * 160 + 400,) -> log10 of max(mel power, 1e-10): (n_mels, n_frames) at out_stride values.
    void (*log_mel)(const float* samples, std::size_t n_frames, const float* filters, int n_mels, float* out,
                    std::size_t out_stride);
    int recurrent_units;  // of a recurrent layer, whose gates lie together
    // Samples (256, PANEL) -> sizes of their spectrum behind Hann's window (129, PANEL), of the first n_columns
    // columns, rounded up to whole vectors.
    void (*magnitudes)(const float* samples, int n_columns, float* out);
    void (*convolve)(const Convolution&);
    void (*recur)(const Recurrence&);
    // For measurements: multiply-adds as a product of f32, bf16, i8 or i16 takes them, without any memory; gives how
    // many products that were.
    double (*multiply_in_registers)(Type type, std::int64_t n_rounds);
    // ... and memory that is read from end to end.
    void (*read_through)(const void* data, std::size_t n_bytes);
};

// The instruction sets that this build holds and this processor can run, best first.
const Kernels* const* usable_kernels(int* n);
// One of them by its name; null if it is not there.
const Kernels* kernels_by_name(const char* name);

}  // namespace stapes
