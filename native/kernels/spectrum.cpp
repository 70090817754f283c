// The spectrogram of voice activity detection: sizes of the spectrum of 256 real samples, W frames at once, one in each
// lane.
//
// 256 = 16 * 16, as log_mel_transform.h takes 400 apart: with n = 16 a + b and k = c + 16 d, X[k] is a transform over a
// of 16 real numbers for each b, a turn by exp(-2 pi i b c / 256), and a transform over b of 16 complex numbers for
// each c. Only c = 0..8 are needed, as X[256 - k] is the conjugate of X[k]. A transform of 16 is one of 4 after
// another, turned between.
#include "functions.h"
#include "tile.h"

namespace stapes::STAPES_ISA {
namespace {

constexpr int N = 256, SIDE = 16, N_TURNS = SIDE / 2 + 1;
constexpr float ROOT_HALF = 0.707106781f, COSINE = 0.923879533f, SINE = 0.382683432f;  // of 45 and of 22.5 degrees

struct Complex { F32 re, im; };

STAPES_INLINE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
STAPES_INLINE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
STAPES_INLINE Complex conjugate(Complex a) { return {a.re, set1(0.0f) - a.im}; }
STAPES_INLINE Complex turned_right(Complex a) { return {a.im, set1(0.0f) - a.re}; }  // times -i
STAPES_INLINE Complex turned(Complex a, F32 cosine, F32 sine) {
    return {fma(a.re, cosine, set1(0.0f) - a.im * sine), fma(a.re, sine, a.im * cosine)};
}

struct Tables {
    float window[N];               // Hann's
    float cosines[N_TURNS][SIDE];  // exp(-2 pi i b c / 256) at [c][b]
    float sines[N_TURNS][SIDE];    // ... its imaginary part
    Tables() {
        constexpr double TURN = 2.0 * 3.14159265358979323846;
        for (int n = 0; n < N; ++n) window[n] = static_cast<float>(0.5 - 0.5 * std::cos(TURN * n / N));
        for (int c = 0; c < N_TURNS; ++c) {
            for (int b = 0; b < SIDE; ++b) {
                cosines[c][b] = static_cast<float>(std::cos(TURN * (b * c) / N));
                sines[c][b] = static_cast<float>(-std::sin(TURN * (b * c) / N));
            }
        }
    }
};

// a times exp(-2 pi i STEPS / 16).
template <int STEPS>
STAPES_INLINE Complex turn(Complex a) {
    if constexpr (STEPS == 0) return a;
    else if constexpr (STEPS >= 4) return turn<STEPS - 4>(turned_right(a));
    else if constexpr (STEPS == 2) return {(a.re + a.im) * set1(ROOT_HALF), (a.im - a.re) * set1(ROOT_HALF)};
    else return turned(a, set1(STEPS == 1 ? COSINE : SINE), set1(STEPS == 1 ? -SINE : -COSINE));
}

STAPES_INLINE void transform4(Complex x0, Complex x1, Complex x2, Complex x3, Complex (&y)[4]) {
    const Complex even = x0 + x2, even_rest = x0 - x2, odd = x1 + x3, odd_rest = turned_right(x1 - x3);
    y[0] = even + odd;
    y[1] = even_rest + odd_rest;
    y[2] = even - odd;
    y[3] = even_rest - odd_rest;
}

// Transform of 16 complex numbers: write(k, y) takes one.
template <class Write>
STAPES_INLINE void transform16(const Complex (&x)[SIDE], const Write& write) {
    Complex parts[4][4];  // at [b][c]
    unrolled<4>([&](auto b)
                    __attribute__((always_inline)) { transform4(x[b], x[b + 4], x[b + 8], x[b + 12], parts[b]); });
    unrolled<4>([&](auto c) __attribute__((always_inline)) {
        Complex y[4];
        transform4(parts[0][c], turn<c>(parts[1][c]), turn<2 * c>(parts[2][c]), turn<3 * c>(parts[3][c]), y);
        unrolled<4>([&](auto d) __attribute__((always_inline)) { write(c + 4 * d, y[d]); });
    });
}

// Transform of 16 real numbers: x(i) gives one; results 0..8, the rest are their conjugates.
template <class Read>
STAPES_INLINE void real_transform16(const Read& x, Complex (&y)[N_TURNS]) {
    F32 sums[4], rests[4];
    Complex quarters[4];
    unrolled<4>([&](auto b) __attribute__((always_inline)) {
        const F32 x0 = x(b), x1 = x(b + 4), x2 = x(b + 8), x3 = x(b + 12);
        const F32 even = x0 + x2, odd = x1 + x3;
        sums[b] = even + odd;
        rests[b] = even - odd;
        quarters[b] = {x0 - x2, x3 - x1};
    });
    const F32 zero = set1(0.0f), even = sums[0] + sums[2], odd = sums[1] + sums[3];
    y[0] = {even + odd, zero};
    y[4] = {sums[0] - sums[2], sums[3] - sums[1]};
    y[8] = {even - odd, zero};
    const F32 across = (rests[1] - rests[3]) * set1(ROOT_HALF), along = (rests[1] + rests[3]) * set1(ROOT_HALF);
    y[2] = {rests[0] + across, zero - (rests[2] + along)};
    y[6] = {rests[0] - across, rests[2] - along};
    Complex found[4];
    transform4(quarters[0], turn<1>(quarters[1]), turn<2>(quarters[2]), turn<3>(quarters[3]), found);
    y[1] = found[0];
    y[5] = found[1];
    y[7] = conjugate(found[2]);
    y[3] = conjugate(found[3]);
}

STAPES_INLINE F32 size_of(Complex x) { return sqrt(fma(x.re, x.re, x.im * x.im)); }

// W columns. Never inlined: one copy of the code, so that the compiler cannot round one caller's frames differently.
__attribute__((noinline)) void spectra(const Tables& tables, const float* samples, float* out) {
    Complex between[N_TURNS][SIDE];
    for (int b = 0; b < SIDE; ++b) {
        Complex y[N_TURNS];
        const auto windowed = [&](int a) __attribute__((always_inline)) {
            return load(samples + (SIDE * a + b) * PANEL) * set1(tables.window[SIDE * a + b]);
        };
        real_transform16(windowed, y);
        unrolled<N_TURNS>([&](auto c) __attribute__((always_inline)) {
            between[c][b] = turned(y[c], set1(tables.cosines[c][b]), set1(tables.sines[c][b]));
        });
    }
    Complex y[N_TURNS];
    real_transform16([&](int b) __attribute__((always_inline)) { return between[0][b].re; }, y);
    for (int d = 0; d < N_TURNS; ++d) store(out + SIDE * d * PANEL, size_of(y[d]));
    // Results above 128 stand for 256 - k, which no c <= 8 reaches otherwise; c = 8 reaches its own a second time.
    for (int c = 1; c < N_TURNS; ++c) {
        transform16(between[c], [&](int d, Complex x) __attribute__((always_inline)) {
            const int k = d < SIDE / 2 ? c + SIDE * d : N - c - SIDE * d;
            store(out + k * PANEL, size_of(x));
        });
    }
}

}  // namespace

void magnitudes(const float* samples, int n_columns, float* out) {
    static const Tables tables;
    for (int column = 0; column < n_columns; column += W) spectra(tables, samples + column, out + column);
}

}  // namespace stapes::STAPES_ISA
