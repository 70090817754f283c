// What the tests of the library share: a check that counts instead of stopping, and random numbers.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "../kernels/kernels.h"

namespace stapes::tests {

inline int n_failed = 0;

// Say what does not hold, where, and go on.
#define CHECK(holds)                                                                        \
    do {                                                                                    \
        if (!(holds)) {                                                                     \
            ++::stapes::tests::n_failed;                                                    \
            std::fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #holds); \
        }                                                                                   \
    } while (false)

inline std::size_t size(int n) { return static_cast<std::size_t>(n); }

// Normally distributed numbers; the same for the same seed.
inline std::vector<float> random_numbers(std::size_t n, unsigned seed, float deviation = 1.0f) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> numbers(0.0f, deviation);
    std::vector<float> made(n);
    for (float& one : made) one = numbers(engine);
    return made;
}

inline std::vector<const Kernels*> all_kernels() {
    int n = 0;
    const Kernels* const* first = usable_kernels(&n);
    return {first, first + n};
}

// How often anything was allocated (allocations.cpp).
std::size_t n_allocations();

void test_kernels();
void test_amx();
void test_pool();
void test_network();
void test_alignment();
void test_speech();

}  // namespace stapes::tests
