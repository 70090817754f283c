// What the processor does at best, for measurements alone: multiply what is in registers, and read memory from end to
// end.
#include <type_traits>

#include "functions.h"
#include "amx.h"

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

// Gives how many products that were.
template <class Op>
double multiply_rounds(std::int64_t n_rounds) {
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
    return static_cast<double>(n_rounds) * SUMS * W * GROUP<Op>;
}

// So many four-byte groups does a register of A meet one of B for.
constexpr int AMX_PRODUCTS = AMX_ROWS * AMX_GROUPS * AMX_ROWS;

// On AMX: as many products of registers as a micro-kernel's.
template <class U, bool INTEGERS>
void multiply_rounds_on_amx(std::int64_t n_rounds) {
    alignas(64) const Byte zeros[AMX_ROWS * AMX_ROW_BYTES]{};
    AmxTiles<U> tiles;
    tiles.shape(2 * AMX_ROWS);
    U::template load<4>(zeros, AMX_ROW_BYTES);
    U::template load<5>(zeros, AMX_ROW_BYTES);
    U::template load<6>(zeros, AMX_ROW_BYTES);
    U::template load<7>(zeros, AMX_ROW_BYTES);
    for (std::int64_t round = 0; round < n_rounds; ++round) {
        amx_dot<U, INTEGERS, 0, 4, 6>();
        amx_dot<U, INTEGERS, 1, 4, 7>();
        amx_dot<U, INTEGERS, 2, 5, 6>();
        amx_dot<U, INTEGERS, 3, 5, 7>();
    }
}

template <class U>
double multiply_on_amx(Type type, std::int64_t n_vector_rounds) {
    const std::int64_t n_rounds = n_vector_rounds / 16;  // each is longer
    if (type == Type::i8) multiply_rounds_on_amx<U, true>(n_rounds);
    else multiply_rounds_on_amx<U, false>(n_rounds);
    return static_cast<double>(n_rounds) * 4 * AMX_PRODUCTS * group_of(type);
}

}  // namespace

double multiply_in_registers(Type type, std::int64_t n_rounds) {
    if constexpr (HAS_AMX)
        if (type == Type::i8 || type == Type::bf16) return multiply_on_amx<Amx>(type, n_rounds);
    switch (type) {
        case Type::i8: return multiply_rounds<std::conditional_t<MULTIPLIES_I8, OpI8, OpI16>>(n_rounds);
        case Type::i16: return multiply_rounds<OpI16>(n_rounds);
        case Type::bf16: return multiply_rounds<std::conditional_t<MULTIPLIES_BF16, OpBf16, OpF32>>(n_rounds);
        default: return multiply_rounds<OpF32>(n_rounds);
    }
}

void read_through(const void* data, std::size_t n_bytes) {
    constexpr std::size_t AT_ONCE = 8, step = AT_ONCE * W * 4;
    const Byte* from = static_cast<const Byte*>(data);
    std::array<I32, AT_ONCE> sums;
    unrolled<AT_ONCE>([&](auto i) __attribute__((always_inline)) { sums[i] = zero_i32(); });
    for (const Byte* const end = from + n_bytes / step * step; from < end; from += step)
        unrolled<AT_ONCE>([&](auto i)
                              __attribute__((always_inline)) { sums[i] = sums[i] + load_i32(from + i * W * 4); });
    unrolled<AT_ONCE>([&](auto i) __attribute__((always_inline)) { hide(sums[i]); });
}

}  // namespace stapes::STAPES_ISA
