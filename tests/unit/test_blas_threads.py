"""The BLAS thread count: two while that is faster, one otherwise."""

from __future__ import annotations

from stapes.backends.numpy.blas_threads import AdaptiveThreads


def used(threads: AdaptiveThreads, seconds: float, n: int = 1) -> list[int]:
    found = []
    for _ in range(n):
        found.append(threads.n_threads)
        threads.note(seconds)
    return found


def test_the_first_step_is_the_measure_and_two_threads_follow() -> None:
    assert used(AdaptiveThreads(2), 0.01, 4) == [1, 2, 2, 2]


def test_a_step_that_waits_sends_the_next_ones_to_one_thread() -> None:
    threads = AdaptiveThreads(4)
    assert used(threads, 0.01, 2) == [1, 2]
    assert used(threads, 0.15) == [2]
    assert used(threads, 0.01, 65) == [1] * 64 + [2]


def test_a_little_slower_is_not_waiting() -> None:
    threads = AdaptiveThreads(2)
    used(threads, 0.01)
    assert used(threads, 0.014, 5) == [2] * 5


def test_one_thread_stays_one() -> None:
    threads = AdaptiveThreads(1)
    assert set(used(threads, 0.01, 5) + used(threads, 0.5, 5)) == {1}
