"""The BLAS thread count: two while that is faster, one otherwise."""

from __future__ import annotations

from stapes.backends.numpy.blas_threads import Pace


def used(pace: Pace, seconds: float, n: int = 1) -> list[int]:
    found = []
    for _ in range(n):
        found.append(pace.n_threads)
        pace.note(seconds)
    return found


def test_the_first_step_is_the_measure_and_two_threads_follow() -> None:
    assert used(Pace(2), 0.01, 4) == [1, 2, 2, 2]


def test_a_step_that_waits_sends_the_next_ones_to_one_thread() -> None:
    pace = Pace(4)
    assert used(pace, 0.01, 2) == [1, 2]
    assert used(pace, 0.15) == [2]
    assert used(pace, 0.01, 65) == [1] * 64 + [2]


def test_a_little_slower_is_not_waiting() -> None:
    pace = Pace(2)
    used(pace, 0.01)
    assert used(pace, 0.014, 5) == [2] * 5


def test_one_thread_stays_one() -> None:
    pace = Pace(1)
    assert set(used(pace, 0.01, 5) + used(pace, 0.5, 5)) == {1}
