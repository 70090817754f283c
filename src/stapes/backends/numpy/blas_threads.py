"""Adaptive number of BLAS threads (1 or 2) for the decoder's GEMV.

BLAS's threads spin. On a quiet machine two of them read the weights twice as fast as one; beside a busy process each
product waits for the system's scheduler, and a step takes ten times as long
(docs/experiments/2026-11-23-numpy-decoder-threads.md). Sums are the same.
"""

from __future__ import annotations

import math

#: more threads gain little where memory is the limit, and would cut products where sums change
_MOST_THREADS = 2
#: so many steps on one thread before two are tried again: a bad try then costs about a tenth
_STEPS_ALONE = 64
#: a step that takes so many times as long as the best one on one thread has been waiting
_WAITED = 1.5


class AdaptiveThreads:
    """Chooses the number of threads (`n_threads`) from the durations of steps (`note`)."""

    def __init__(self, threads: int) -> None:
        """threads: how many may be used at all."""
        self._most = min(threads, _MOST_THREADS)
        self._best_alone_s = math.inf
        self._left_alone = 1  # the first step is the reference

    @property
    def n_threads(self) -> int:
        """How many threads the next step uses."""
        return 1 if self._left_alone else self._most

    def note(self, seconds_per_row: float) -> None:
        """Take the time of a step that used `n_threads`."""
        if self._left_alone:
            self._best_alone_s = min(self._best_alone_s, seconds_per_row)
            self._left_alone -= 1
        elif seconds_per_row > _WAITED * self._best_alone_s:
            self._left_alone = _STEPS_ALONE
