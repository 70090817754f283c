// What the processor does at best, for measurements alone: multiply what is in registers, and read memory from end to end.
#include <type_traits>

#include "functions.h"
#include "tile.h"

namespace stapes::STAPES_ISA {
namespace {

// Enough sums that each is ready when its turn comes again; the other registers hold what is multiplied.
constexpr int SUMS = N_REGISTERS == 32 ? 24 : 12;

// Keeps a value in a register, and the compiler from knowing it.
template <class Vector>
STAPES_INLINE void hide(Vector& x) {
#if defined(__x86_64__)
    __asm__ volatile("" : "+x"(x.v));
#elif defined(__aarch64__)
    __asm__ volatile("" : "+w"(x.v));
#else
    __asm__ volatile("" : "+m"(x.v));
#endif
}

template <class Op>
void multiply_rounds(std::int64_t n_rounds) {
    alignas(64) const Byte zeros[W * 4]{};
    std::array<typename Op::Sum, SUMS> sums;
    unrolled<SUMS>([&](auto i) __attribute__((always_inline)) { sums[i] = Op::zero(); });
    I32 a = zero_i32();
    auto b = Op::read_b(zeros, std::integral_constant<int, 0>{});
    hide(a);
    for (std::int64_t round = 0; round < n_rounds; ++round)
        unrolled<SUMS>([&](auto i) __attribute__((always_inline)) {
            hide(b);  // otherwise one product would do for all sums
            sums[i] = Op::dot(sums[i], a, b);
        });
    unrolled<SUMS>([&](auto i) __attribute__((always_inline)) { hide(sums[i]); });
}

}  // namespace

double multiply_in_registers(Type type, std::int64_t n_rounds) {
    const double groups = static_cast<double>(n_rounds) * SUMS * W;
    if (type == Type::i8) {
        multiply_rounds<std::conditional_t<MULTIPLIES_I8, OpI8, OpI16>>(n_rounds);
        return groups * (MULTIPLIES_I8 ? 4 : 2);
    }
    if (type == Type::bf16 && MULTIPLIES_BF16) {
        multiply_rounds<std::conditional_t<MULTIPLIES_BF16, OpBf16, OpF32>>(n_rounds);
        return groups * 2;
    }
    multiply_rounds<OpF32>(n_rounds);
    return groups;
}

void read_through(const void* data, std::size_t n_bytes) {
    constexpr std::size_t AT_ONCE = 8, step = AT_ONCE * W * 4;
    const Byte* from = static_cast<const Byte*>(data);
    std::array<I32, AT_ONCE> sums;
    unrolled<AT_ONCE>([&](auto i) __attribute__((always_inline)) { sums[i] = zero_i32(); });
    for (const Byte* const end = from + n_bytes / step * step; from < end; from += step)
        unrolled<AT_ONCE>([&](auto i) __attribute__((always_inline)) { sums[i] = sums[i] + load_i32(from + i * W * 4); });
    unrolled<AT_ONCE>([&](auto i) __attribute__((always_inline)) { hide(sums[i]); });
}

}  // namespace stapes::STAPES_ISA
