// Which instruction sets are here. The only file, besides the vector header, that knows of processors.
#include <array>
#include <cstring>

#include "kernels.h"

namespace stapes {

namespace portable { const Kernels& kernels(); }
#if defined(STAPES_X86)
namespace avx2 { const Kernels& kernels(); }
namespace avx2_vnni { const Kernels& kernels(); }
namespace avx512_vnni { const Kernels& kernels(); }
namespace avx512_bf16 { const Kernels& kernels(); }

namespace {
struct Leaf { unsigned a, b, c, d; };
Leaf cpuid(unsigned leaf, unsigned subleaf) {
    Leaf found{leaf, 0, subleaf, 0};
    __asm__ volatile("cpuid" : "+a"(found.a), "=b"(found.b), "+c"(found.c), "=d"(found.d));
    return found;
}

// __builtin_cpu_supports also asks whether the system saves the wide registers. Not every compiler that we take knows all
// names: F16C is leaf 1, ECX bit 29; AVX-VNNI is leaf 7, subleaf 1, EAX bit 4.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && (cpuid(1, 0).c & (1u << 29)) != 0; }
bool has_avx512_vnni() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
bool has_avx_vnni() { return has_avx2() && cpuid(7, 0).a >= 1 && (cpuid(7, 1).a & (1u << 4)) != 0; }
}  // namespace
#endif

const Kernels* const* usable_kernels(int* n) {
    static std::array<const Kernels*, 5> found{};
    static const int count = [] {
        int i = 0;
        const auto add = [&](const Kernels& one) { found[static_cast<std::size_t>(i++)] = &one; };
#if defined(STAPES_X86)
        __builtin_cpu_init();
        if (has_avx512_vnni() && __builtin_cpu_supports("avx512bf16")) add(avx512_bf16::kernels());
        if (has_avx512_vnni()) add(avx512_vnni::kernels());
        if (has_avx_vnni()) add(avx2_vnni::kernels());
        if (has_avx2()) add(avx2::kernels());
#endif
        add(portable::kernels());
        return i;
    }();
    *n = count;
    return found.data();
}

const Kernels* kernels_by_name(const char* name) {
    int n = 0;
    const Kernels* const* all = usable_kernels(&n);
    for (int i = 0; i < n; ++i)
        if (std::strcmp(all[i]->name, name) == 0) return all[i];
    return nullptr;
}

}  // namespace stapes
