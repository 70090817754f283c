// Threads that share out one piece of work after another, without a trip through the system between two of them.
//
// One pool for the process. A call that finds it taken works alone: several engines share the cores, they do not fight.
// A thread that has nothing to do spins for a moment and then sleeps. A helper that the system holds up delays no
// other: parts are taken one by one, and a piece of work is done when all its parts are, whichever thread did them.
#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <type_traits>

namespace stapes {

class Pool;

// Keeps the pool's threads alive; they end with the last lease.
class PoolLease {
  public:
    explicit PoolLease(int n_threads);
    ~PoolLease();
    PoolLease(const PoolLease&) = delete;
    PoolLease& operator=(const PoolLease&) = delete;

  private:
    std::shared_ptr<Pool> pool_;
};

// The threads that work for one call: this one and, if no other team has them, the pool's.
class Team {
  public:
    explicit Team(int n_threads);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int size() const { return size_; }

    // work(part, thread) for every part in 0..n-1; thread is in 0..size()-1. Returns when all are done; throws what the
    // first of them threw.
    template <class Work>
    void share(int n, Work&& work) {
        struct Guarded {
            std::remove_reference_t<Work>& work;
            std::atomic<bool> failed{false};
            std::exception_ptr error{};
        } guarded{work};
        run(n, &guarded, [](void* g, int part, int thread) {
            auto& one = *static_cast<Guarded*>(g);
            try {
                one.work(part, thread);
            } catch (...) {
                if (!one.failed.exchange(true)) one.error = std::current_exception();
            }
        });
        if (guarded.error) std::rethrow_exception(guarded.error);
    }

  private:
    using Call = void (*)(void*, int, int);
    void run(int n, void* work, Call call);

    std::shared_ptr<Pool> pool_;
    int size_ = 1;
};

}  // namespace stapes
