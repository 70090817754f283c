// Attention that never writes all scores: a few queries against a stretch of keys at a time, with a running maximum.
//
// A stretch always begins at a multiple of its length, and keys that a query may not see weigh exactly nothing, so that a
// query's numbers depend neither on the queries beside it nor on keys behind its own.
#include "functions.h"
#include "tile.h"

namespace stapes::STAPES_ISA {
namespace {

constexpr int STRETCH = ATTENTION_STRETCH, N_QUERIES = ATTENTION_QUERIES;
constexpr int SCORE_STRIDE = STRETCH + 16;  // not a power of two: rows would share one set of the cache
constexpr float NOTHING = -INFINITY;

// Queries and weights are f32, or bf16 where the set multiplies that.
template <class Op>
constexpr bool WIDE = !std::is_same_v<Op, OpBf16>;
// Keys and values are f32, or two bf16 to a group.
template <class Op>
constexpr int GROUP = std::is_same_v<Op, OpF32> ? 1 : 2;

struct Scratch {
    void* queries;   // (N_QUERIES, width rounded up to PANEL) f32 or bf16
    float* scores;   // (N_QUERIES, SCORE_STRIDE)
    void* weights;   // the same in bf16; for f32, the scores themselves
    float* mixed;    // (N_QUERIES, width rounded up to PANEL)
    float* highest;  // (N_QUERIES)
    float* sums;     // (N_QUERIES)
};

Scratch cut(void* memory, int width) {
    const std::size_t wide = static_cast<std::size_t>(round_up(width, PANEL) + 16);
    float* at = static_cast<float*>(memory);
    Scratch s{};
    const auto take = [&](std::size_t n) { float* here = at; at += n; return here; };
    s.queries = take(N_QUERIES * wide);
    s.scores = take(N_QUERIES * SCORE_STRIDE);
    s.weights = take(N_QUERIES * SCORE_STRIDE);
    s.mixed = take(N_QUERIES * wide);
    s.highest = take(N_QUERIES);
    s.sums = take(N_QUERIES);
    return s;
}

// The queries, scaled, in the type that they are multiplied in.
template <class Op>
void take_queries(const Attention& c, int first, int n, const Scratch& s, std::size_t wide) {
    for (int i = 0; i < n; ++i) {
        const float* from = c.queries + static_cast<std::size_t>(first + i) * c.query_stride;
        for (int dim = 0; dim < c.shape.width; ++dim) {
            const std::size_t at = static_cast<std::size_t>(i) * wide + static_cast<std::size_t>(dim);
            if constexpr (WIDE<Op>) static_cast<float*>(s.queries)[at] = from[dim] * c.scale;
            else static_cast<bf16*>(s.queries)[at] = to_bf16(from[dim] * c.scale);
        }
        if (c.shape.width % GROUP<Op> == 0) continue;
        const std::size_t end = static_cast<std::size_t>(i) * wide + static_cast<std::size_t>(c.shape.width);
        if constexpr (WIDE<Op>) static_cast<float*>(s.queries)[end] = 0.0f;
        else static_cast<bf16*>(s.queries)[end] = {0};
    }
}

// One block of keys.
template <class Op, int VECTORS>
void score_tile(const Attention& c, int block, float* scores, int row, int n_rows, const Scratch& s, std::size_t wide) {
    for (int key = 0; key < PANEL; key += VECTORS * W) {
        Tile t{};
        t.a_stride = wide * (WIDE<Op> ? 4 : 2);
        t.a = static_cast<const Byte*>(s.queries) + static_cast<std::size_t>(row) * t.a_stride;
        t.b = c.keys + block;
        t.b_offset = static_cast<std::size_t>(key * Op::B_GROUP);
        t.n_segments = 1;
        t.n_groups = t.groups_per_segment = (c.shape.width + GROUP<Op> - 1) / GROUP<Op>;
        t.out = scores + row * SCORE_STRIDE + key;
        t.out_stride = SCORE_STRIDE;
        run_rows<Op, VECTORS>(n_rows, t);
    }
}

template <class Op>
void score(const Attention& c, int first_key, int n_keys, int n_queries, const Scratch& s, std::size_t wide) {
    for (int key = 0; key < n_keys; key += PANEL) {
        const int block = (first_key + key) / PANEL;
        for_tiles(n_queries, Op::MOST_ROWS, [&](int row, int n_rows) {
            if (n_rows <= Op::FEW_ROWS) score_tile<Op, FEW_ROWS_COLUMNS>(c, block, s.scores + key, row, n_rows, s, wide);
            else score_tile<Op, COLUMNS>(c, block, s.scores + key, row, n_rows, s, wide);
        });
    }
}

// One query's scores become weights under the running maximum; what was mixed so far shrinks with it.
template <class Op>
void weigh(const Attention& c, int first_key, int n_keys, int visible, int i, const Scratch& s, std::size_t wide) {
    float* scores = s.scores + i * SCORE_STRIDE;
    const int seen = visible - first_key < 0 ? 0 : visible - first_key < n_keys ? visible - first_key : n_keys;
    const int whole = round_up(n_keys, PANEL);
    F32 highest = set1(NOTHING);
    for (int key = 0; key < whole; key += W) {
        const F32 x = key + W <= seen ? load(scores + key) : select(first_lanes(seen - key < 0 ? 0 : seen - key), load(scores + key), set1(NOTHING));
        store(scores + key, x);
        highest = max(x, highest);
    }
    const float limit = largest(highest) > s.highest[i] ? largest(highest) : s.highest[i];
    const F32 top = set1(limit == NOTHING ? 0.0f : limit);
    F32 sums = set1(0.0f);
    for (int key = 0; key < whole; key += W) {
        if constexpr (std::is_same_v<Op, OpF32>) {
            const F32 x = exp(load(scores + key) - top);
            sums = sums + x;
            store(scores + key, x);
        } else {
            const F32 x = key < seen ? exp_rough(load(scores + key) - top) : set1(0.0f);
            const F32 y = key + W <= seen ? x : select(first_lanes(seen - key < 0 ? 0 : seen - key), x, set1(0.0f));
            sums = sums + y;
            if constexpr (WIDE<Op>) store(scores + key, y);
            else store_bf16(static_cast<std::uint16_t*>(s.weights) + i * SCORE_STRIDE + key, y);
        }
    }
    const float shrink = s.highest[i] == NOTHING ? 0.0f : std::exp(s.highest[i] - limit);
    s.sums[i] = s.sums[i] * shrink + sum(sums);
    s.highest[i] = limit;
    float* mixed = s.mixed + static_cast<std::size_t>(i) * wide;
    for (int dim = 0; dim < round_up(c.shape.width, PANEL); dim += W) store(mixed + dim, load(mixed + dim) * set1(shrink));
}

template <class Op, int VECTORS>
void mix_tile(const Attention& c, int first_key, int n_keys, int row, int n_rows, const Scratch& s, std::size_t wide) {
    for (int dim = 0; dim < c.shape.width; dim += VECTORS * W) {
        Tile t{};
        const void* weights = WIDE<Op> ? static_cast<const void*>(s.scores) : s.weights;
        t.a_stride = SCORE_STRIDE * (WIDE<Op> ? 4 : 2);
        t.a = static_cast<const Byte*>(weights) + static_cast<std::size_t>(row) * t.a_stride;
        t.b = c.values + first_key / PANEL;
        t.b_panel = static_cast<std::size_t>(PANEL) * PANEL * 4 / GROUP<Op>;
        t.b_offset = static_cast<std::size_t>(dim / PANEL) * t.b_panel + static_cast<std::size_t>(dim % PANEL * Op::B_GROUP);
        t.groups_per_segment = PANEL / GROUP<Op>;
        t.n_segments = round_up(n_keys, PANEL) / PANEL;
        t.n_groups = t.n_segments * t.groups_per_segment;
        t.out = s.mixed + static_cast<std::size_t>(row) * wide + dim;
        t.out_stride = wide;
        t.add = true;
        run_rows<Op, VECTORS>(n_rows, t);
    }
}

template <class Op>
void mix(const Attention& c, int first_key, int n_keys, int n_queries, const Scratch& s, std::size_t wide) {
    for_tiles(n_queries, Op::MOST_ROWS, [&](int row, int n_rows) {
        if (n_rows <= Op::FEW_ROWS) mix_tile<Op, FEW_ROWS_COLUMNS>(c, first_key, n_keys, row, n_rows, s, wide);
        else mix_tile<Op, COLUMNS>(c, first_key, n_keys, row, n_rows, s, wide);
    });
}

void put_out(const Attention& c, int first, int n, const Scratch& s, std::size_t wide) {
    for (int i = 0; i < n; ++i) {
        const float* from = s.mixed + static_cast<std::size_t>(i) * wide;
        const float factor = 1.0f / s.sums[i];
        const std::size_t at = static_cast<std::size_t>(first + i) * c.out_stride;
        for (int dim = 0; dim < c.shape.width; ++dim) {
            if (c.out_type == Type::f32) static_cast<float*>(c.out)[at + static_cast<std::size_t>(dim)] = from[dim] * factor;
            else static_cast<bf16*>(c.out)[at + static_cast<std::size_t>(dim)] = to_bf16(from[dim] * factor);
        }
    }
}

template <class Op>
void attend_as(const Attention& c) {
    const Scratch s = cut(c.scratch, c.shape.width);
    const std::size_t wide = static_cast<std::size_t>(round_up(c.shape.width, PANEL) + 16);
    for (int first = 0; first < c.n_queries; first += N_QUERIES) {
        const int n = c.n_queries - first < N_QUERIES ? c.n_queries - first : N_QUERIES;
        take_queries<Op>(c, first, n, s, wide);
        for (int i = 0; i < n; ++i) {
            s.highest[i] = NOTHING;
            s.sums[i] = 0.0f;
            std::memset(s.mixed + static_cast<std::size_t>(i) * wide, 0, wide * 4);
        }
        for (int key = 0; key < c.n_keys; key += STRETCH) {
            const int n_keys = c.n_keys - key < STRETCH ? c.n_keys - key : STRETCH;
            score<Op>(c, key, n_keys, n, s, wide);
            for (int i = 0; i < n; ++i) {
                if (c.raw_scores)
                    std::memcpy(c.raw_scores + static_cast<std::size_t>(first + i) * static_cast<std::size_t>(c.n_keys) + key,
                                s.scores + i * SCORE_STRIDE, static_cast<std::size_t>(n_keys) * 4);
                weigh<Op>(c, key, n_keys, c.first_visible + first + i, i, s, wide);
            }
            mix<Op>(c, key, n_keys, n, s, wide);
        }
        put_out(c, first, n, s, wide);
    }
}

}  // namespace

void attend(const Attention& call) {
    if (call.shape.type == Type::f32) attend_as<OpF32>(call);
    else attend_as<std::conditional_t<MULTIPLIES_BF16, OpBf16, OpBf16Stored>>(call);
}

}  // namespace stapes::STAPES_ISA
