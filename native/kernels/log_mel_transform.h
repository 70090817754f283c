// The power spectrum of 400 real samples, for W / 2 frames at once: each lane is another frame.
//
// 400 = 20 * 20. With n = 20 a + b and k = c + 20 d, X[k] is a transform over a of 20 real numbers for each b, a turn
// by exp(-2 pi i b c / 400), and a transform over b of 20 complex numbers for each c. Only c = 0..10 are needed: the
// samples are real, so X[400 - k] is the conjugate of X[k]. A transform of 20 is one of 4 times one of 5 without any
// turn between (I. J. Good, 1958): 4 and 5 have no common factor.
//
// All in double precision: float32's own noise would move what lies just less than 80 dB below the loudest, and is
// still seen by the model, by up to 4e-4 (log10). It takes under a millisecond for 30 s of sound all the same.
#pragma once

#include "vec.h"

namespace stapes::STAPES_ISA {

inline constexpr int N_FFT = 400;
inline constexpr int HOP = 160;
inline constexpr int N_BINS = N_FFT / 2 + 1;
inline constexpr int SIDE = 20;               // N_FFT = SIDE * SIDE
inline constexpr int N_TURNS = SIDE / 2 + 1;  // values of c
inline constexpr int LANES = W / 2;           // frames of one transform
inline constexpr int ROW = W + 2;             // a frame spans 2.5 hops: W frames touch those of W + 2 hops

struct Complex { F64 re, im; };

struct Tables {
    double window[N_FFT];           // Hann's, rounded to float32 as the twin's
    double cosines[N_TURNS][SIDE];  // exp(-2 pi i b c / 400) at [c][b]
    double sines[N_TURNS][SIDE];    // ... its imaginary part
    Tables() {
        constexpr double TURN = 2.0 * 3.14159265358979323846;
        for (int n = 0; n < N_FFT; ++n) window[n] = static_cast<float>(0.5 - 0.5 * std::cos(TURN * n / N_FFT));
        for (int c = 0; c < N_TURNS; ++c) {
            for (int b = 0; b < SIDE; ++b) {
                cosines[c][b] = std::cos(TURN * (b * c) / N_FFT);
                sines[c][b] = -std::sin(TURN * (b * c) / N_FFT);
            }
        }
    }
};

// Transform of 5 real numbers: `first`, then even[m - 1] - i odd[m - 1] for m = 1, 2; the rest are their conjugates.
struct Fifths { F64 first, even[2], odd[2]; };

STAPES_INLINE Fifths fifths(F64 x0, F64 x1, F64 x2, F64 x3, F64 x4) {
    const F64 cos1 = set1_f64(0.30901699437494742), cos2 = set1_f64(-0.80901699437494742);  // of 72 and 144 degrees
    const F64 sin1 = set1_f64(0.95105651629515357), sin2 = set1_f64(0.58778525229247313);
    const F64 minus_sin1 = set1_f64(-0.95105651629515357);
    const F64 sum1 = x1 + x4, sum2 = x2 + x3, difference1 = x1 - x4, difference2 = x2 - x3;
    return {x0 + sum1 + sum2,
            {fma(cos1, sum1, fma(cos2, sum2, x0)), fma(cos2, sum1, fma(cos1, sum2, x0))},
            {fma(sin1, difference1, sin2 * difference2), fma(sin2, difference1, minus_sin1 * difference2)}};
}

// Transform of 5 complex numbers.
STAPES_INLINE void transform5(const Complex (&x)[5], Complex (&y)[5]) {
    const Fifths re = fifths(x[0].re, x[1].re, x[2].re, x[3].re, x[4].re);
    const Fifths im = fifths(x[0].im, x[1].im, x[2].im, x[3].im, x[4].im);
    y[0] = {re.first, im.first};
    y[1] = {re.even[0] + im.odd[0], im.even[0] - re.odd[0]};
    y[2] = {re.even[1] + im.odd[1], im.even[1] - re.odd[1]};
    y[3] = {re.even[1] - im.odd[1], im.even[1] + re.odd[1]};
    y[4] = {re.even[0] - im.odd[0], im.even[0] + re.odd[0]};
}

// The number below 20 that is p modulo 4 and q modulo 5.
constexpr int remainders(int p, int q) { return (5 * p + 16 * q) % SIDE; }

// Transform of 4 of 20 complex numbers, those at 5 i + 4 j: sums[p][j].
template <class Read>
STAPES_INLINE void quarter(const Read& x, int j, Complex (&sums)[4][5]) {
    const Complex x0 = x(4 * j % SIDE), x1 = x((4 * j + 5) % SIDE);
    const Complex x2 = x((4 * j + 10) % SIDE), x3 = x((4 * j + 15) % SIDE);
    const Complex even = {x0.re + x2.re, x0.im + x2.im}, even_rest = {x0.re - x2.re, x0.im - x2.im};
    const Complex odd = {x1.re + x3.re, x1.im + x3.im}, odd_rest = {x1.re - x3.re, x1.im - x3.im};
    sums[0][j] = {even.re + odd.re, even.im + odd.im};
    sums[1][j] = {even_rest.re + odd_rest.im, even_rest.im - odd_rest.re};
    sums[2][j] = {even.re - odd.re, even.im - odd.im};
    sums[3][j] = {even_rest.re - odd_rest.im, even_rest.im + odd_rest.re};
}

// Hands the results p modulo 4 to `write`.
template <class Write>
STAPES_INLINE void write_fifth(const Complex (&sums)[4][5], int p, const Write& write) {
    Complex y[5];
    transform5(sums[p], y);
    write(remainders(p, 0), y[0]);
    write(remainders(p, 1), y[1]);
    write(remainders(p, 2), y[2]);
    write(remainders(p, 3), y[3]);
    write(remainders(p, 4), y[4]);
}

// Transform of 20 complex numbers: x(i) gives one, write(k, y) takes one.
template <class Read, class Write>
STAPES_INLINE void transform20(const Read& x, const Write& write) {
    Complex sums[4][5];
    quarter(x, 0, sums);
    quarter(x, 1, sums);
    quarter(x, 2, sums);
    quarter(x, 3, sums);
    quarter(x, 4, sums);
    write_fifth(sums, 0, write);
    write_fifth(sums, 1, write);
    write_fifth(sums, 2, write);
    write_fifth(sums, 3, write);
}

// As quarter, of real numbers: p = 3 is the conjugate of p = 1.
template <class Read>
STAPES_INLINE void real_quarter(const Read& x, int j, F64 (&sums0)[5], Complex (&sums1)[5], F64 (&sums2)[5]) {
    const F64 x0 = x(4 * j % SIDE), x1 = x((4 * j + 5) % SIDE);
    const F64 x2 = x((4 * j + 10) % SIDE), x3 = x((4 * j + 15) % SIDE);
    const F64 even = x0 + x2, odd = x1 + x3;
    sums0[j] = even + odd;
    sums1[j] = {x0 - x2, x3 - x1};
    sums2[j] = even - odd;
}

// Transform of 20 real numbers: results 0..10; the rest are their conjugates.
template <class Read>
STAPES_INLINE void real_transform20(const Read& x, Complex (&y)[N_TURNS]) {
    F64 sums0[5], sums2[5];
    Complex sums1[5], y1[5];
    real_quarter(x, 0, sums0, sums1, sums2);
    real_quarter(x, 1, sums0, sums1, sums2);
    real_quarter(x, 2, sums0, sums1, sums2);
    real_quarter(x, 3, sums0, sums1, sums2);
    real_quarter(x, 4, sums0, sums1, sums2);
    const F64 zero = set1_f64(0.0);
    const Fifths y0 = fifths(sums0[0], sums0[1], sums0[2], sums0[3], sums0[4]);
    const Fifths y2 = fifths(sums2[0], sums2[1], sums2[2], sums2[3], sums2[4]);
    transform5(sums1, y1);
    // Result k has the remainders (k % 4, k % 5); where those are not at hand, 20 - k has them, and is conjugated.
    y[0] = {y0.first, zero};
    y[1] = y1[1];
    y[2] = {y2.even[1], zero - y2.odd[1]};
    y[3] = {y1[2].re, zero - y1[2].im};
    y[4] = {y0.even[0], y0.odd[0]};
    y[5] = y1[0];
    y[6] = {y2.even[0], zero - y2.odd[0]};
    y[7] = {y1[3].re, zero - y1[3].im};
    y[8] = {y0.even[1], y0.odd[1]};
    y[9] = y1[4];
    y[10] = {y2.first, zero};
}

STAPES_INLINE F64 squared_size(Complex x) { return fma(x.re, x.re, x.im * x.im); }

// samples: HOP rows; row n holds sample n of each hop, W + 2 of them. The lanes are frames, frame j begins with hop j.
// power: N_BINS rows of W; LANES of each are written. turned: room for the values between the two steps.
// Never inlined: one copy of the code, so that the compiler cannot round one caller's frames differently.
__attribute__((noinline)) inline void power_spectra(const Tables& tables, const float* samples,
                                                    Complex (&turned)[N_TURNS][SIDE], float* power) {
    for (int b = 0; b < SIDE; ++b) {
        Complex y[N_TURNS];
        constexpr int STEPS = HOP / SIDE;  // SIDE samples each, of a hop
        const auto windowed = [&](int a) __attribute__((always_inline)) {
            return load_f64(samples + (a % STEPS * SIDE + b) * ROW + a / STEPS) * set1_f64(tables.window[SIDE * a + b]);
        };
        real_transform20(windowed, y);
        for (int c = 0; c < N_TURNS; ++c) {
            const F64 cosine = set1_f64(tables.cosines[c][b]), sine = set1_f64(tables.sines[c][b]);
            turned[c][b] = {y[c].re * cosine - y[c].im * sine, fma(y[c].re, sine, y[c].im * cosine)};
        }
    }
    Complex y[N_TURNS];
    real_transform20([&](int b) __attribute__((always_inline)) { return turned[0][b].re; }, y);
    for (int d = 0; d < N_TURNS; ++d) store_f32(power + SIDE * d * W, squared_size(y[d]));
    // Results above 200 stand for 400 - k, which no c <= 10 reaches otherwise; c = 10 reaches its own a second time.
    for (int c = 1; c < N_TURNS; ++c) {
        transform20([&](int b) __attribute__((always_inline)) { return turned[c][b]; },
                    [&](int d, Complex x) __attribute__((always_inline)) {
                        const int k = d < SIDE / 2 ? c + SIDE * d : N_FFT - c - SIDE * d;
                        store_f32(power + k * W, squared_size(x));
                    });
    }
}

}  // namespace stapes::STAPES_ISA
