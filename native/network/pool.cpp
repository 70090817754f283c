#include "pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace stapes {
namespace {

// Longer than Python needs between two steps, shorter than anyone would notice.
constexpr auto SPIN_TIME = std::chrono::microseconds(400);
constexpr int SPINS_PER_LOOK = 64;  // pauses between two looks at the clock

inline void pause_briefly() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// What is being shared out, in one word that can be compared and exchanged: which piece of work, how many parts, which
// next.
struct Ticket {
    std::uint64_t bits;
    static constexpr int PART_BITS = 20;
    static constexpr std::uint64_t PART_MASK = (1u << PART_BITS) - 1;
    static Ticket of(std::uint64_t piece, int n) {
        return {piece << (2 * PART_BITS) | static_cast<std::uint64_t>(n) << PART_BITS};
    }
    std::uint64_t piece() const { return bits >> (2 * PART_BITS); }
    int n() const { return static_cast<int>(bits >> PART_BITS & PART_MASK); }
    int next() const { return static_cast<int>(bits & PART_MASK); }
    bool anything_left() const { return next() < n(); }
};

}  // namespace

class Pool {
  public:
    using Call = void (*)(void*, int, int);

    ~Pool() {
        {
            const std::lock_guard lock(sleep_);
            ending_.store(true);
        }
        wake_.notify_all();
        for (auto& thread : threads_) thread.join();
    }

    // Have n_threads in all, the caller's included. One caller at a time; a team that works meanwhile stays as it is.
    void grow(int n_threads) {
        for (int id = n_threads_.load(); id < n_threads; ++id) {
            threads_.emplace_back([this, id] { help(id); });
            n_threads_.store(id + 1);
        }
    }

    // How many threads work for the caller, itself included, until it gives them back; 0 if others have them.
    int take(int n_threads) {
        if (!taken_.try_lock()) return 0;
        const int size = std::min(n_threads, n_threads_.load());
        // Threads that come later must not help: there is no room for them.
        limit_.store(size, std::memory_order_relaxed);
        return size;
    }
    void give_back() { taken_.unlock(); }

    void run(int n, void* work, Call call) {
        work_.store(work, std::memory_order_relaxed);
        call_.store(call, std::memory_order_relaxed);
        done_.store(0, std::memory_order_relaxed);
        const std::uint64_t piece = Ticket{ticket_.load(std::memory_order_relaxed)}.piece() + 1;
        ticket_.store(Ticket::of(piece, n).bits, std::memory_order_seq_cst);
        if (n_asleep_.load(std::memory_order_seq_cst) > 0) {
            {
                const std::lock_guard lock(sleep_);
            }
            wake_.notify_all();
        }
        while (do_one(0)) {}
        while (done_.load(std::memory_order_acquire) < n) pause_briefly();
    }

  private:
    // Take a part and do it; false if none is left. A thread that has a part may read work_ and call_: they stay until
    // it is done.
    bool do_one(int thread) {
        Ticket ticket{ticket_.load(std::memory_order_acquire)};
        // The limit was set before its tickets were: with another team's limit, the exchange fails.
        while (ticket.anything_left() && thread < limit_.load(std::memory_order_relaxed)) {
            if (ticket_.compare_exchange_weak(ticket.bits, ticket.bits + 1, std::memory_order_acq_rel,
                                              std::memory_order_acquire)) {
                call_.load(std::memory_order_relaxed)(work_.load(std::memory_order_relaxed), ticket.next(), thread);
                done_.fetch_add(1, std::memory_order_release);
                return true;
            }
        }
        return false;
    }

    void help(int id) {
        using Clock = std::chrono::steady_clock;
        auto idle_since = Clock::now();
        while (!ending_.load(std::memory_order_relaxed)) {
            if (do_one(id)) {
                while (do_one(id)) {}
                idle_since = Clock::now();
            }
            for (int i = 0; i < SPINS_PER_LOOK && !Ticket{ticket_.load(std::memory_order_relaxed)}.anything_left(); ++i)
                pause_briefly();
            if (Clock::now() - idle_since > SPIN_TIME) {
                sleep(id);
                idle_since = Clock::now();
            }
        }
    }

    void sleep(int id) {
        std::unique_lock lock(sleep_);
        n_asleep_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, [&] {
            return ending_.load() ||
                   (id < limit_.load() && Ticket{ticket_.load(std::memory_order_seq_cst)}.anything_left());
        });
        n_asleep_.fetch_sub(1, std::memory_order_seq_cst);
    }

    std::mutex taken_;
    std::vector<std::thread> threads_;
    std::atomic<int> n_threads_{1};
    std::atomic<int> limit_{0};
    alignas(64) std::atomic<std::uint64_t> ticket_{0};
    alignas(64) std::atomic<int> done_{0};
    alignas(64) std::atomic<void*> work_{nullptr};
    std::atomic<Call> call_{nullptr};
    std::mutex sleep_;
    std::condition_variable wake_;
    std::atomic<int> n_asleep_{0};
    std::atomic<bool> ending_{false};
};

namespace {

// The process's pool, while anyone has a lease on it. A forked child has none of its parent's threads: it begins anew,
// and leaves its copy of the old pool, locks and all, untouched.
std::mutex& pool_lock() {
    static auto* lock = new std::mutex;
    return *lock;
}
std::weak_ptr<Pool>& shared_pool() {
    static auto* pool = new std::weak_ptr<Pool>;
    return *pool;
}

void forget_in_child() {
    new (&pool_lock()) std::mutex;
    // The old pool must not be destroyed in the child: it would wait for threads that are not there.
    if (auto pool = shared_pool().lock()) new std::shared_ptr<Pool>(std::move(pool));
    new (&shared_pool()) std::weak_ptr<Pool>;
}

std::shared_ptr<Pool> lease(int n_threads, bool make) {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_in_child);
    (void)registered;
    const std::lock_guard lock(pool_lock());
    std::shared_ptr<Pool> pool = shared_pool().lock();
    if (!pool && make) shared_pool() = pool = std::make_shared<Pool>();
    if (pool && make) pool->grow(n_threads);
    return pool;
}

}  // namespace

PoolLease::PoolLease(int n_threads) : pool_(lease(n_threads, true)) {}
PoolLease::~PoolLease() = default;

Team::Team(int n_threads) {
    if (n_threads <= 1) return;
    // In a forked child the engine's lease names its parent's pool: a new one is made.
    std::shared_ptr<Pool> pool = lease(n_threads, false);
    if (!pool) {
        static auto* kept = new std::vector<std::shared_ptr<Pool>>;
        pool = lease(n_threads, true);
        const std::lock_guard lock(pool_lock());
        kept->push_back(pool);
    }
    const int size = pool->take(n_threads);
    if (size == 0) return;
    pool_ = std::move(pool);
    size_ = size;
}

Team::~Team() {
    if (pool_) pool_->give_back();
}

void Team::run(int n, void* work, Call call) {
    if (n <= 0) return;
    if (pool_ && n > 1) return pool_->run(n, work, call);
    for (int part = 0; part < n; ++part) call(work, part, 0);
}

}  // namespace stapes
