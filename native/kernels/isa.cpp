// Which instruction sets are here. The only file, besides the vector header, that knows of processors.
#include <array>
#include <cstring>

#if defined(STAPES_X86) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels.h"

namespace stapes {

// clang-format off: what macros make of STAPES_SETS is no C++ to it.
// STAPES_SETS comes from the build: STAPES_SET(name) for each set that was compiled, the best first.
#define STAPES_SET(name) namespace name { const Kernels& kernels(); }
STAPES_SETS
#undef STAPES_SET
// clang-format on

namespace {
#if defined(STAPES_X86)
struct Leaf { unsigned a, b, c, d; };
Leaf cpuid(unsigned leaf, unsigned subleaf) {
    Leaf found{leaf, 0, subleaf, 0};
    __asm__ volatile("cpuid" : "+a"(found.a), "=b"(found.b), "+c"(found.c), "=d"(found.d));
    return found;
}

// __builtin_cpu_supports also asks whether the system saves the wide registers. Not every compiler that we take knows
// all names: F16C is leaf 1, ECX bit 29; AVX-VNNI is leaf 7, subleaf 1, EAX bit 4.
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && (cpuid(1, 0).c & (1u << 29)) != 0;
}
bool has_avx512_vnni() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}
[[maybe_unused]] bool has_avx2_vnni() { return has_avx2() && cpuid(7, 0).a >= 1 && (cpuid(7, 1).a & (1u << 4)) != 0; }
bool has_avx512_bf16() { return has_avx512_vnni() && __builtin_cpu_supports("avx512bf16"); }

// A process has to ask Linux for the registers of AMX before it uses them; the answer holds for all of its threads.
// AMX-BF16, AMX-TILE and AMX-INT8 are leaf 7, EDX bits 22, 24 and 25.
[[maybe_unused]] bool has_avx512_amx() {
#if defined(__linux__)
    constexpr unsigned all = 1u << 22 | 1u << 24 | 1u << 25;
    constexpr long ask = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return has_avx512_bf16() && (cpuid(7, 0).d & all) == all && syscall(SYS_arch_prctl, ask, tile_data) == 0;
#else
    return false;
#endif
}
#endif
bool has_portable() { return true; }
}  // namespace

// clang-format off
const Kernels* const* usable_kernels(int* n) {
#define STAPES_SET(name) +1
    static std::array<const Kernels*, 0 STAPES_SETS> found{};
#undef STAPES_SET
    static const int count = [] {
        int i = 0;
#if defined(STAPES_X86)
        __builtin_cpu_init();
#endif
#define STAPES_SET(name) if (has_##name()) found[static_cast<std::size_t>(i++)] = &name::kernels();
        STAPES_SETS
#undef STAPES_SET
        return i;
    }();
    *n = count;
    return found.data();
}
// clang-format on

const Kernels* kernels_by_name(const char* name) {
    int n = 0;
    const Kernels* const* all = usable_kernels(&n);
    for (int i = 0; i < n; ++i)
        if (std::strcmp(all[i]->name, name) == 0) return all[i];
    return nullptr;
}

}  // namespace stapes
