// Attention that never writes all scores: a few queries against a stretch of keys at a time, with a running maximum.
//
// A stretch always begins at a multiple of its length, and keys that a query may not see weigh exactly nothing, so that
// a query's numbers depend neither on the queries beside it nor on keys behind its own.
#include "functions.h"
#include "steps.h"
#include "amx.h"

namespace stapes::STAPES_ISA {
namespace {

constexpr int STRETCH = ATTENTION_STRETCH, N_QUERIES = ATTENTION_QUERIES;
constexpr int SCORE_STRIDE = STRETCH + PANEL;  // not a power of two: rows would share one set of the cache
constexpr float NOTHING = -INFINITY;

// Queries and weights are f32, bf16 where the set multiplies that, or integers of 16 bits beside integer keys and
// values.

// The most steps of a weight; and what is too little to be counted, as its reciprocal times so many steps is no
// float32.
constexpr float WEIGHT_STEPS = 0x7fff, NEGLIGIBLE = 1e-33f;

struct Scratch {
    void* queries;     // (N_QUERIES, wide) f32, bf16 or i16
    float* scores;     // (N_QUERIES, SCORE_STRIDE)
    void* weights;     // the same in bf16 or i16; for f32, the scores themselves
    float* mixed;      // (N_QUERIES, wide)
    void* partial;     // the same: sums of integers
    float* highest;    // (N_QUERIES)
    float* sums;       // (N_QUERIES)
    float* steps;      // (2, N_QUERIES) what a step of queries, and of weights, means
    std::size_t wide;  // values from one row to the next: the width rounded up to PANEL, and some more
    AmxTiles<Amx>* tiles;
};

Scratch cut(void* memory, int width, AmxTiles<Amx>& tiles) {
    float* at = static_cast<float*>(memory);
    Scratch s{};
    s.tiles = &tiles;
    s.wide = static_cast<std::size_t>(round_up(width, PANEL) + PANEL);
    const auto take = [&](std::size_t n) {
        float* here = at;
        at += n;
        return here;
    };
    s.queries = take(N_QUERIES * s.wide);
    s.scores = take(N_QUERIES * SCORE_STRIDE);
    s.weights = take(N_QUERIES * SCORE_STRIDE);
    s.mixed = take(N_QUERIES * s.wide);
    s.partial = take(N_QUERIES * s.wide);
    s.highest = take(N_QUERIES);
    s.sums = take(N_QUERIES);
    s.steps = take(2 * N_QUERIES);
    return s;
}

// A query in steps of 16 bits, interleaved as keys are; gives what a step means.
float count_query(const float* x, const BlockShape& shape, std::int16_t* to) {
    const int most = most_steps(shape.width, shape.steps());
    return count_steps(
        round_up(shape.width, PANEL), static_cast<float>(most), [&](int i) { return load(x + i); },
        [&](int i, F32 steps) { store_interleaved(to + i, to_i32(steps)); });
}

// The queries, scaled, in the type that they are multiplied in.
template <class Op>
void take_queries(const Attention& c, int first, int n, const Scratch& s) {
    const int width = c.shape.width, whole = round_up(width, PANEL);
    for (int i = 0; i < n; ++i) {
        const float* from = c.queries + static_cast<std::size_t>(first + i) * c.query_stride;
        const std::size_t row = static_cast<std::size_t>(i) * s.wide;
        float* to = (A_BYTES<Op> == 4 ? static_cast<float*>(s.queries) + row : s.mixed);
        int dim = 0;
        for (; dim + W <= width; dim += W) store(to + dim, load(from + dim) * set1(c.scale));
        for (; dim < whole; ++dim) to[dim] = dim < width ? from[dim] * c.scale : 0.0f;
        if constexpr (IS_INTEGER<Op>)
            s.steps[i] = count_query(to, c.shape, static_cast<std::int16_t*>(s.queries) + row);
        else if constexpr (A_BYTES<Op> == 2)
            narrow(to, s.wide, 1, width, static_cast<std::uint16_t*>(s.queries) + row, s.wide);
    }
}

// What one step means, of the positions of a block.
const float* scales_of(const BlockShape& shape, const void* block, std::size_t n_bytes) {
    return reinterpret_cast<const float*>(static_cast<const Byte*>(block) + n_bytes - shape.scale_bytes());
}

// One block of keys.
template <class Op, int VECTORS>
void score_tile(const Attention& c, int block, float* scores, int row, int n_rows, const Scratch& s) {
    for (int key = 0; key < PANEL; key += VECTORS * W) {
        Tile t{};
        t.a_stride = s.wide * A_BYTES<Op>;
        t.a = static_cast<const Byte*>(s.queries) + static_cast<std::size_t>(row) * t.a_stride;
        t.b = c.keys + block;
        t.b_offset = static_cast<std::size_t>(key * GROUP_BYTES<Op>);
        t.n_segments = 1;
        t.n_groups = t.groups_per_segment = c.shape.padded_width() / GROUP<Op>;
        t.out = scores + row * SCORE_STRIDE + key;
        t.out_stride = SCORE_STRIDE;
        if constexpr (IS_INTEGER<Op>) {
            t.row_steps = s.steps + row;
            t.column_steps = scales_of(c.shape, c.keys[block], c.shape.key_bytes()) + key;
        }
        run<Op, VECTORS>(*s.tiles, n_rows, t);
    }
}

template <class Op>
void score(const Attention& c, int first_key, int n_keys, int n_queries, const Scratch& s) {
    const auto one = [&](int key, int row, int n_rows) {
        const int block = (first_key + key) / PANEL;
        if (n_rows <= Op::FEW_ROWS) score_tile<Op, FEW_ROWS_COLUMNS>(c, block, s.scores + key, row, n_rows, s);
        else score_tile<Op, COLUMNS>(c, block, s.scores + key, row, n_rows, s);
    };
    if constexpr (Op::ON_AMX) {  // to shape the tile registers anew for each block would take longer than the block
        for_tiles_of<Op>(n_queries, 1, [&](int row, int n_rows) {
            for (int key = 0; key < n_keys; key += PANEL) one(key, row, n_rows);
        });
    } else {
        for (int key = 0; key < n_keys; key += PANEL)
            for_tiles_of<Op>(n_queries, 1, [&](int row, int n_rows) { one(key, row, n_rows); });
    }
}

// The most that a stretch's weights add up to: products with steps of values add up to less than 2^31, however weights
// are rounded.
float most_weight(const BlockShape& shape) { return 0.999f * static_cast<float>(0x7fffffff / shape.steps() - STRETCH); }

// One query's weights, by now as many of their values' steps as they count, become integers; highest and total are of
// each lane.
void count_weights(const Attention& c, int n_keys, int i, F32 highest, F32 total, const Scratch& s) {
    const float* weights = s.scores + i * SCORE_STRIDE;
    std::int16_t* to = static_cast<std::int16_t*>(s.weights) + i * SCORE_STRIDE;
    const float by_total = sum(total) * (WEIGHT_STEPS / most_weight(c.shape));
    const float limit = largest(highest) > by_total ? largest(highest) : by_total;
    s.steps[N_QUERIES + i] = limit / WEIGHT_STEPS;
    const F32 factor = set1(limit > NEGLIGIBLE ? WEIGHT_STEPS / limit : 0.0f);
    // What is no number counts as nothing: as the most, a stretch of it would overflow.
    const auto steps = [&](int key) {
        return to_i32(min(max(load(weights + key) * factor, set1(0.0f)), set1(WEIGHT_STEPS)));
    };
    for (int key = 0; key < round_up(n_keys, PANEL); key += 2 * W)
        store_two_interleaved(to + key, steps(key), steps(key + W));
}

// The highest of a query's scores, some panels.
float highest_of(const float* scores, int n) {
    // A maximum for each vector of a panel: a single one would be waited for.
    std::array<F32, VECTORS_PER_PANEL> highest;
    highest.fill(set1(NOTHING));
    for (int key = 0; key < n; key += PANEL)
        unrolled<VECTORS_PER_PANEL>([&](auto vector) __attribute__((always_inline)) {
            highest[vector] = max(load(scores + key + vector * W), highest[vector]);
        });
    F32 above = highest[0];
    for (const F32& one : highest) above = max(one, above);
    return largest(above);
}

// One query's scores become weights under the running maximum; what was mixed so far shrinks with it.
template <class Op, bool ROUGH>
void weigh(const Attention& c, int first_key, int n_keys, int visible, int i, const Scratch& s) {
    float* scores = s.scores + i * SCORE_STRIDE;
    const int seen = visible - first_key < 0 ? 0 : visible - first_key < n_keys ? visible - first_key : n_keys;
    const int whole = round_up(n_keys, PANEL);
    for (int key = seen / W * W; key < whole; key += W)
        store(scores + key, select(first_lanes(seen - key < 0 ? 0 : seen - key), load(scores + key), set1(NOTHING)));
    const float above = highest_of(scores, whole), limit = above > s.highest[i] ? above : s.highest[i];
    const F32 top = set1(limit == NOTHING ? 0.0f : limit);
    F32 sums = set1(0.0f), highest = set1(0.0f), total = set1(0.0f);
    const auto weight = [&](int key) {
        return ROUGH ? exp_rough(load(scores + key) - top) : exp_below_overflow(load(scores + key) - top);
    };
    const auto take = [&](int key, F32 x, const float* scales) {
        sums = sums + x;
        if constexpr (std::is_same_v<Op, OpBf16>) {
            store_bf16(static_cast<std::uint16_t*>(s.weights) + i * SCORE_STRIDE + key, x);
        } else if constexpr (IS_INTEGER<Op>) {
            const F32 scaled = x * load(scales + key % PANEL);
            store(scores + key, scaled);
            highest = max(scaled, highest);
            total = total + scaled;
        } else {
            store(scores + key, x);
        }
    };
    for (int block = 0; block < whole; block += PANEL) {
        const float* scales = nullptr;
        if constexpr (IS_INTEGER<Op>)
            scales = scales_of(c.shape, c.values[(first_key + block) / PANEL], c.shape.value_bytes());
        if (block + PANEL <= seen) {
            unrolled<VECTORS_PER_PANEL>([&](auto vector) __attribute__((always_inline)) {
                take(block + vector * W, weight(block + vector * W), scales);
            });
        } else {
            for (int key = block; key < block + PANEL; key += W)
                take(key, key < seen ? select(first_lanes(seen - key), weight(key), set1(0.0f)) : set1(0.0f), scales);
        }
    }
    if constexpr (IS_INTEGER<Op>) count_weights(c, n_keys, i, highest, total, s);
    const float shrink = s.highest[i] == NOTHING ? 0.0f : std::exp(s.highest[i] - limit);
    s.sums[i] = s.sums[i] * shrink + sum(sums);
    s.highest[i] = limit;
    float* mixed = s.mixed + static_cast<std::size_t>(i) * s.wide;
    for (int dim = 0; dim < round_up(c.shape.width, PANEL); dim += W)
        store(mixed + dim, load(mixed + dim) * set1(shrink));
}

template <class Op, int VECTORS>
void mix_tile(const Attention& c, int first_key, int n_keys, int row, int n_rows, const Scratch& s) {
    for (int dim = 0; dim < c.shape.width; dim += VECTORS * W) {
        Tile t{};
        const void* weights = A_BYTES<Op> == 4 ? static_cast<const void*>(s.scores) : s.weights;
        t.a_stride = SCORE_STRIDE * A_BYTES<Op>;
        t.a = static_cast<const Byte*>(weights) + static_cast<std::size_t>(row) * t.a_stride;
        t.b = c.values + first_key / PANEL;
        t.b_panel = static_cast<std::size_t>(PANEL) * PANEL * 4 / GROUP<Op>;
        t.b_offset =
            static_cast<std::size_t>(dim / PANEL) * t.b_panel + static_cast<std::size_t>(dim % PANEL * GROUP_BYTES<Op>);
        t.groups_per_segment = PANEL / GROUP<Op>;
        t.n_segments = round_up(n_keys, PANEL) / PANEL;
        t.n_groups = t.n_segments * t.groups_per_segment;
        t.out =
            (IS_INTEGER<Op> ? static_cast<float*>(s.partial) : s.mixed) + static_cast<std::size_t>(row) * s.wide + dim;
        t.out_stride = s.wide;
        t.add = !IS_INTEGER<Op>;
        run<Op, VECTORS>(*s.tiles, n_rows, t);
    }
}

template <class Op>
void mix(const Attention& c, int first_key, int n_keys, int n_queries, const Scratch& s) {
    for_tiles_of<Op>(n_queries, 1, [&](int row, int n_rows) {
        if (n_rows <= Op::FEW_ROWS) mix_tile<Op, FEW_ROWS_COLUMNS>(c, first_key, n_keys, row, n_rows, s);
        else mix_tile<Op, COLUMNS>(c, first_key, n_keys, row, n_rows, s);
    });
    if constexpr (IS_INTEGER<Op>) {
        for (int i = 0; i < n_queries; ++i) {
            const std::size_t at = static_cast<std::size_t>(i) * s.wide;
            const F32 step = set1(s.steps[N_QUERIES + i]);
            for (int dim = 0; dim < round_up(c.shape.width, PANEL); dim += W) {
                const F32 sums = to_f32(load_i32(static_cast<const float*>(s.partial) + at + dim));
                store(s.mixed + at + dim, fma(sums, step, load(s.mixed + at + dim)));
            }
        }
    }
}

void put_out(const Attention& c, int first, int n, const Scratch& s) {
    for (int i = 0; i < n; ++i) {
        const float* from = s.mixed + static_cast<std::size_t>(i) * s.wide;
        const float factor = 1.0f / s.sums[i];
        const std::size_t at = static_cast<std::size_t>(first + i) * c.out_stride;
        int dim = 0;
        for (; dim + W <= c.shape.width; dim += W)
            store_as(c.out_type, c.out, at + static_cast<std::size_t>(dim), load(from + dim) * set1(factor));
        for (; dim < c.shape.width; ++dim) {  // the next head's follow: no vector may reach over them
            if (c.out_type == Type::f32)
                static_cast<float*>(c.out)[at + static_cast<std::size_t>(dim)] = from[dim] * factor;
            else static_cast<bf16*>(c.out)[at + static_cast<std::size_t>(dim)] = to_bf16(from[dim] * factor);
        }
    }
}

template <class Op, bool ROUGH = true>
void attend_as(const Attention& c) {
    AmxTiles<Amx> tiles;
    const Scratch s = cut(c.scratch, c.shape.width, tiles);
    for (int first = 0; first < c.n_queries; first += N_QUERIES) {
        const int n = c.n_queries - first < N_QUERIES ? c.n_queries - first : N_QUERIES;
        take_queries<Op>(c, first, n, s);
        for (int i = 0; i < n; ++i) {
            s.highest[i] = NOTHING;
            s.sums[i] = 0.0f;
            std::memset(s.mixed + static_cast<std::size_t>(i) * s.wide, 0, s.wide * 4);
        }
        for (int key = 0; key < c.n_keys; key += STRETCH) {
            const int n_keys = c.n_keys - key < STRETCH ? c.n_keys - key : STRETCH;
            score<Op>(c, key, n_keys, n, s);
            for (int i = 0; i < n; ++i) {
                if (c.raw_scores)
                    std::memcpy(
                        c.raw_scores + static_cast<std::size_t>(first + i) * static_cast<std::size_t>(c.n_keys) + key,
                        s.scores + i * SCORE_STRIDE, static_cast<std::size_t>(n_keys) * 4);
                weigh<Op, ROUGH>(c, key, n_keys, c.first_visible + first + i, i, s);
            }
            mix<Op>(c, key, n_keys, n, s);
        }
        put_out(c, first, n, s);
    }
}

}  // namespace

void attend(const Attention& call) {
    switch (call.shape.type) {
        case Type::f32: return call.rough ? attend_as<OpF32>(call) : attend_as<OpF32, false>(call);
        case Type::bf16: return attend_as<std::conditional_t<MULTIPLIES_BF16, OpBf16, OpBf16Stored>>(call);
        case Type::i16: return attend_as<OpI16>(call);
        default: return attend_as<OpI8Stored>(call);
    }
}

}  // namespace stapes::STAPES_ISA
