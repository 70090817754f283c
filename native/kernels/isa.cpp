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
// __builtin_cpu_supports also asks whether the system saves the wide registers.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }
bool has_avx512_vnni() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
// GCC 11 and clang 14 know no name for this bit: leaf 7, subleaf 1, EAX bit 4.
bool has_avx_vnni() {
    unsigned a = 7, b = 0, c = 1, d = 0;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return has_avx2() && (a & (1u << 4)) != 0;
}
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
