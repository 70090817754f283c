// Counts what this program takes from the free store, so that a test can say that a step takes nothing.
#include <cstdlib>
#include <new>

#include "check.h"

namespace stapes::tests {
namespace {

std::atomic<std::size_t> n_allocated{0};

void* counted(void* memory) {
    ++n_allocated;
    if (!memory) throw std::bad_alloc();
    return memory;
}

}  // namespace

std::size_t n_allocations() { return n_allocated.load(); }

}  // namespace stapes::tests

void* operator new(std::size_t n_bytes) { return stapes::tests::counted(std::malloc(n_bytes ? n_bytes : 1)); }
void* operator new(std::size_t n_bytes, std::align_val_t alignment) {
    const auto unit = static_cast<std::size_t>(alignment);
    return stapes::tests::counted(std::aligned_alloc(unit, (n_bytes + unit - 1) / unit * unit));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
