// Samples -> log10 of their mel power; the twin of `log10_mel` in stapes/backends/numerics.py.
//
// W frames at a time, a frame in each lane: no number of a frame ever meets another frame's.
#include <memory>

#include "functions.h"
#include "log_mel_transform.h"
#include "vec.h"

namespace stapes::STAPES_ISA {
namespace {

// The bins that a filter weighs.
struct Span { int first, end; };

std::unique_ptr<Span[]> find_spans(const float* filters, int n_mels) {
    std::unique_ptr<Span[]> spans(new Span[static_cast<std::size_t>(n_mels)]);
    for (int mel = 0; mel < n_mels; ++mel) {
        const float* filter = filters + static_cast<std::size_t>(mel) * N_BINS;
        Span& span = spans[static_cast<std::size_t>(mel)];
        span = {0, N_BINS};
        while (span.end > 0 && filter[span.end - 1] == 0.0f) --span.end;
        while (span.first < span.end && filter[span.first] == 0.0f) ++span.first;
    }
    return spans;
}

// log10(x) within 0.72 units in the last place of the larger of it and 1, for normal x > 0; NaN and infinity stay.
STAPES_INLINE F32 log10(F32 x) {
    // x = 2^exponent * m with m in sqrt(1/2)..sqrt(2); the constant is sqrt(1/2).
    const I32 exponent = (bits_of(x) - set1_i32(0x3f3504f3)) >> 23;
    const F32 m = from_bits(bits_of(x) - (exponent << 23)), one = set1(1.0f);
    // ln m = 2 artanh(s) = 2 (s + s^3 / 3 + s^5 / 5 + ...), |s| < 0.172; the factor is 2 / ln 10.
    const F32 s = (m - one) / (m + one), square = s * s;
    F32 p = set1(0.868588964f / 9);
    p = fma(p, square, set1(0.868588964f / 7));
    p = fma(p, square, set1(0.868588964f / 5));
    p = fma(p, square, set1(0.868588964f / 3));
    p = fma(p, square, set1(0.868588964f));
    // log10(2) in two parts: the first has 12 bits, so that its products are exact.
    const F32 n = to_f32(exponent);
    const F32 result = fma(n, set1(0x1.344p-2f), fma(n, set1(4.6050390e-6f), s * p));
    return select(less(x, set1(INFINITY)), result, x);
}

struct Scratch {
    float samples[HOP * ROW];  // one row for each sample of a hop, a column for each hop
    Complex turned[N_TURNS][SIDE];
    float power[N_BINS * W];
};

// Puts the hops of n frames into the columns. The last one is half as long: frames end there.
void transpose_hops(const float* samples, int n, float* columns) {
    for (int hop = 0; hop < n + 2; ++hop) {
        const float* from = samples + hop * HOP;
        const int length = hop == n + 1 ? HOP / 2 : HOP;
        for (int i = 0; i < length; ++i) columns[i * ROW + hop] = from[i];
    }
}

// One filter's log10 power of W frames.
STAPES_INLINE F32 weigh(const float* filter, Span span, const float* power) {
    F32 sum = set1(0.0f);
    for (int bin = span.first; bin < span.end; ++bin) sum = fma(set1(filter[bin]), load(power + bin * W), sum);
    return log10(max(set1(1e-10f), sum));  // in this order NaN stays NaN
}

}  // namespace

void log_mel(const float* samples, std::size_t n_frames, const float* filters, int n_mels, float* out,
             std::size_t out_stride) {
    static const Tables tables;
    const auto spans = find_spans(filters, n_mels);
    alignas(64) Scratch scratch;
    std::memset(scratch.samples, 0, sizeof scratch.samples);  // the last frames need not fill the lanes
    for (std::size_t frame = 0; frame < n_frames; frame += W) {
        const std::size_t n_left = n_frames - frame;
        const int n = n_left < W ? static_cast<int>(n_left) : W;
        transpose_hops(samples + frame * HOP, n, scratch.samples);
        for (int lane = 0; lane < W; lane += LANES)
            power_spectra(tables, scratch.samples + lane, scratch.turned, scratch.power + lane);
        for (int mel = 0; mel < n_mels; ++mel) {
            const std::size_t row = static_cast<std::size_t>(mel);
            const F32 result = weigh(filters + row * N_BINS, spans[row], scratch.power);
            float* to = out + row * out_stride + frame;
            if (n == W) {
                store(to, result);
            } else {
                float lanes[W];
                store(lanes, result);
                std::memcpy(to, lanes, static_cast<std::size_t>(n) * sizeof(float));
            }
        }
    }
}

}  // namespace stapes::STAPES_ISA
