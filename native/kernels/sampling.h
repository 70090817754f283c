// What choosing an id and marking candidates have in common.
#pragma once

#include <algorithm>

#include "kernels.h"
#include "vec.h"

namespace stapes::STAPES_ISA {

inline constexpr float NEVER = -INFINITY;

// NaN left out.
STAPES_INLINE float highest_of(const float* x, int n) {
    F32 high = set1(NEVER);
    int i = 0;
    for (; i + W <= n; i += W) high = max(load(x + i), high);
    float found = largest(high);
    for (; i < n; ++i) found = x[i] > found ? x[i] : found;
    return found;
}

// Top-k: the k best of what is offered, sorted, the best first; of equals, what came first. T is a type of this
// namespace, and so the functions compiled for it are: no other instruction set can be linked to them.
template <class T>
class TopK {
  public:
    // memory: of k + 1.
    TopK(void* memory, int k) : all_(static_cast<T*>(memory)), k_(k) {}

    template <class Better>
    STAPES_INLINE void offer(const T& one, Better&& better) {
        if (full() && !better(one, all_[n_ - 1])) return;
        T* const place = std::upper_bound(all_, all_ + n_, one, better);
        for (T* at = all_ + n_; at > place; --at) *at = at[-1];
        *place = one;
        if (!full()) ++n_;
    }
    const T* all() const { return all_; }
    bool full() const { return n_ == k_; }

  private:
    T* all_;
    int k_, n_ = 0;
};

STAPES_INLINE void forbid(const Sampling& c) {
    for (std::size_t i = 0; i < c.n_permanent; ++i) c.logits[c.permanent[i]] = NEVER;
    for (std::size_t i = 0; i < c.n_now; ++i)
        for (std::int32_t id = c.now[i].first; id < c.now[i].last; ++id) c.logits[id] = NEVER;
}

}  // namespace stapes::STAPES_ISA
