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
            if constexpr (std::is_same_v<Op, OpF32>) static_cast<float*>(s.queries)[at] = from[dim] * c.scale;
            else static_cast<bf16*>(s.queries)[at] = to_bf16(from[dim] * c.scale);
        }
        if constexpr (!std::is_same_v<Op, OpF32>)
            if (c.shape.width % 2) static_cast<bf16*>(s.queries)[static_cast<std::size_t>(i) * wide + static_cast<std::size_t>(c.shape.width)] = {0};
    }
}

template <class Op>
void score(const Attention& c, int first_key, int n_keys, int n_queries, const Scratch& s, std::size_t wide) {
    constexpr int group = std::is_same_v<Op, OpF32> ? 1 : 2;
    for (int key = 0; key < n_keys; key += PANEL) {
        for (int row = 0; row < n_queries; row += MAX_ROWS) {
            for (int column = 0; column < PANEL; column += TILE_COLUMNS) {
                Tile t{};
                t.a_stride = wide * 4 / group;
                t.a = static_cast<const Byte*>(s.queries) + static_cast<std::size_t>(row) * t.a_stride;
                t.b = c.keys + (first_key + key) / PANEL;
                t.b_offset = static_cast<std::size_t>(column * 4);
                t.n_segments = 1;
                t.n_groups = t.groups_per_segment = (c.shape.width + group - 1) / group;
                t.out = s.scores + row * SCORE_STRIDE + key + column;
                t.out_stride = SCORE_STRIDE;
                run_rows<Op>(n_queries - row < MAX_ROWS ? n_queries - row : MAX_ROWS, t);
            }
        }
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
            store_bf16(static_cast<std::uint16_t*>(s.weights) + i * SCORE_STRIDE + key, y);
        }
    }
    const float shrink = s.highest[i] == NOTHING ? 0.0f : std::exp(s.highest[i] - limit);
    s.sums[i] = s.sums[i] * shrink + sum(sums);
    s.highest[i] = limit;
    float* mixed = s.mixed + static_cast<std::size_t>(i) * wide;
    for (int dim = 0; dim < round_up(c.shape.width, PANEL); dim += W) store(mixed + dim, load(mixed + dim) * set1(shrink));
}

template <class Op>
void mix(const Attention& c, int first_key, int n_keys, int n_queries, const Scratch& s, std::size_t wide) {
    constexpr bool exact = std::is_same_v<Op, OpF32>;
    const std::size_t panel_bytes = static_cast<std::size_t>(PANEL) * PANEL * (exact ? 4 : 2);
    for (int dim = 0; dim < c.shape.width; dim += TILE_COLUMNS) {
        for (int row = 0; row < n_queries; row += MAX_ROWS) {
            Tile t{};
            const void* weights = exact ? static_cast<const void*>(s.scores) : s.weights;
            t.a_stride = SCORE_STRIDE * (exact ? 4 : 2);
            t.a = static_cast<const Byte*>(weights) + static_cast<std::size_t>(row) * t.a_stride;
            t.b = c.values + first_key / PANEL;
            t.b_offset = static_cast<std::size_t>(dim / PANEL) * panel_bytes + static_cast<std::size_t>(dim % PANEL * 4);
            t.groups_per_segment = PANEL / (exact ? 1 : 2);
            t.n_segments = round_up(n_keys, PANEL) / PANEL;
            t.n_groups = t.n_segments * t.groups_per_segment;
            t.out = s.mixed + static_cast<std::size_t>(row) * wide + dim;
            t.out_stride = wide;
            t.add = true;
            run_rows<Op>(n_queries - row < MAX_ROWS ? n_queries - row : MAX_ROWS, t);
        }
    }
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
    else attend_as<OpBf16>(call);
}

}  // namespace stapes::STAPES_ISA
