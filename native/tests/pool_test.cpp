// Threads: every part is done once, by a thread that the team has, whatever else the pool has done and is doing.
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <stdexcept>
#include <thread>

#include "../network/pool.h"
#include "check.h"

namespace stapes::tests {
namespace {

// The work of one part: some microseconds, so that helpers come in time.
void work() {
    volatile int n = 0;
    for (int i = 0; i < 2000; ++i) n = n + i;
}

void check_share(Team& team, int n) {
    std::vector<int> times(size(n));
    std::atomic<int> strangers{0};
    team.share(n, [&](int part, int thread) {
        work();
        ++times[size(part)];
        if (thread < 0 || thread >= team.size()) ++strangers;
    });
    CHECK(strangers == 0);
    for (const int one : times) CHECK(one == 1);
}

void test_many_small_shares() {
    for (int n_threads = 1; n_threads <= 4; ++n_threads) {
        const PoolLease lease(n_threads);
        for (int round = 0; round < 30; ++round) {
            Team team(n_threads);
            CHECK(team.size() == n_threads);
            for (const int n : {0, 1, 2, 3, 7, 40, 50}) check_share(team, n);
        }
    }
}

// A team of few must not be helped by the threads of the larger one before it: it has no room for them. Other work on
// the machine holds helpers up between looking for a part and taking it.
void test_teams_of_different_sizes_take_turns() {
    const PoolLease lease(4);
    std::atomic<bool> ending{false};
    std::vector<std::thread> others;
    for (int i = 0; i < 4; ++i)
        others.emplace_back([&] {
            while (!ending) work();
        });
    for (int round = 0; round < 20000; ++round) {
        Team team(round % 2 ? 4 : 2);
        check_share(team, 1 + round % 9);
        check_share(team, 5);
    }
    ending = true;
    for (auto& one : others) one.join();
}

void test_three_callers_at_once() {
    const auto call = [] {
        const PoolLease lease(3);
        for (int round = 0; round < 100; ++round) {
            Team team(3);
            check_share(team, 11);
        }
    };
    std::thread other(call), third(call);
    call();
    other.join();
    third.join();
}

void test_leases_nest_and_grow() {
    const PoolLease outer(2);
    for (int n_threads = 3; n_threads <= 5; ++n_threads) {
        const PoolLease inner(n_threads);
        Team team(n_threads);
        CHECK(team.size() == n_threads);
        check_share(team, 30);
    }
    Team team(2);
    check_share(team, 30);
}

void test_sleeping_helpers_wake() {
    const PoolLease lease(3);
    for (int round = 0; round < 10; ++round) {
        std::this_thread::sleep_for(std::chrono::milliseconds(round % 3));
        Team team(3);
        check_share(team, 20);
    }
    // Parts that wait for each other can only be done by several threads.
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    Team team(2);
    std::atomic<int> n_here{0};
    team.share(2, [&](int, int) {
        ++n_here;
        while (n_here < 2) std::this_thread::yield();
    });
    CHECK(n_here == 2);
}

void test_what_is_thrown_arrives() {
    const PoolLease lease(3);
    Team team(3);
    std::atomic<int> n_done{0};
    bool arrived = false;
    try {
        team.share(20, [&](int part, int) {
            ++n_done;
            if (part == 7) throw std::runtime_error("seven");
        });
    } catch (const std::runtime_error&) {
        arrived = true;
    }
    CHECK(arrived && n_done == 20);
    check_share(team, 20);
}

// A team inside the part of another one works alone.
void test_a_taken_pool_is_no_obstacle() {
    const PoolLease lease(2);
    Team team(2);
    std::thread other([] {
        Team alone(2);
        CHECK(alone.size() == 1);
        check_share(alone, 9);
    });
    other.join();
    check_share(team, 9);
}

// An engine that is opened while another one encodes waits for nothing, and its threads stay out of the other's work.
void test_the_pool_grows_while_a_team_works() {
    const PoolLease lease(2);
    auto team = std::make_unique<Team>(4);
    CHECK(team->size() == 2);
    std::promise<void> opened;
    std::thread other([&] {
        const PoolLease larger(4);
        Team alone(4);
        CHECK(alone.size() == 1);
        opened.set_value();
        check_share(alone, 9);
    });
    for (int round = 0; round < 100; ++round) check_share(*team, 40);
    CHECK(opened.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready);
    team.reset();
    other.join();
}

}  // namespace

void test_pool() {
    test_many_small_shares();
    test_teams_of_different_sizes_take_turns();
    test_three_callers_at_once();
    test_leases_nest_and_grow();
    test_sleeping_helpers_wake();
    test_what_is_thrown_arrives();
    test_a_taken_pool_is_no_obstacle();
    test_the_pool_grows_while_a_team_works();
}

}  // namespace stapes::tests
