// Memory that kernels read and write: aligned to cache lines, zero at first, given back by its owner.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

namespace stapes {

class Memory {
  public:
    Memory() = default;
    explicit Memory(std::size_t n_bytes) : n_bytes_(n_bytes) {
        // Weights are read from end to end in every step: large pages spare the processor looking up small ones.
        const std::size_t alignment = n_bytes >= LARGE ? LARGE_PAGE : ALIGNMENT;
        const std::size_t whole = (n_bytes + ALIGNMENT + alignment - 1) / alignment * alignment;
        data_ = {static_cast<std::byte*>(::operator new(whole, std::align_val_t{alignment})),
                 Free{std::align_val_t{alignment}}};
#if defined(MADV_HUGEPAGE)
        if (n_bytes >= LARGE) {
            madvise(data_.get(), whole, MADV_HUGEPAGE);  // a wish: what comes of it does not matter
            // Linux gives zeros when a page is first written: so threads that fill them share that work.
            if (madvise(data_.get(), whole, MADV_DONTNEED) == 0) return;
        }
#endif
        std::memset(data_.get(), 0, whole);
    }

    std::size_t n_bytes() const { return n_bytes_; }
    std::byte* bytes() { return data_.get(); }
    const std::byte* bytes() const { return data_.get(); }
    template <class T = float>
    T* as() {
        return reinterpret_cast<T*>(data_.get());
    }
    template <class T = float>
    const T* as() const {
        return reinterpret_cast<const T*>(data_.get());
    }

  private:
    static constexpr std::size_t ALIGNMENT = 64;  // a cache line; so much is also readable behind the end
    static constexpr std::size_t LARGE_PAGE = 2u << 20, LARGE = 4u << 20;
    struct Free {
        std::align_val_t alignment;
        void operator()(std::byte* p) const { ::operator delete(p, alignment); }
    };
    std::unique_ptr<std::byte, Free> data_;
    std::size_t n_bytes_ = 0;
};

}  // namespace stapes
