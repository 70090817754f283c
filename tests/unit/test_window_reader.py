"""Log-mel of windows that are encoded together: jobs at the same time, windows of one job in turn, each its error."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from stapes.engine.window_reader import WindowReader


class Stream:
    def __init__(self, number: int, wait: threading.Barrier | None = None, log: list[int] | None = None) -> None:
        self.number, self._wait, self._log = number, wait, log

    def mel(self) -> Any:
        if self._wait is not None:
            self._wait.wait(timeout=20)  # until as many threads are here
        if self._log is not None:
            self._log.append(self.number)
        if self.number < 0:
            raise OSError(f"disk {self.number} is gone")
        return np.full((1, 2), self.number, np.float32)


def windows(*streams: tuple[int, Stream]) -> Any:
    """Return them with stand-ins for their jobs, which are only told apart."""
    jobs = {number: object() for number, _ in streams}
    return [(jobs[number], stream) for number, stream in streams]


@pytest.mark.parametrize("n_threads", [1, 3])
def test_each_window_gets_its_own_in_order(n_threads: int) -> None:
    asked = windows((1, Stream(10)), (2, Stream(20)), (1, Stream(-11)), (3, Stream(30)), (1, Stream(12)))
    found = WindowReader(n_threads).read(asked)
    assert [str(one) if isinstance(one, Exception) else int(one[0, 0]) for one in found] == [
        10, 20, "disk -11 is gone", 30, 12,
    ]  # fmt: skip


def test_jobs_are_read_at_the_same_time() -> None:
    together = threading.Barrier(3)
    found = WindowReader(3).read(windows(*((number, Stream(number, together)) for number in range(3))))
    assert [int(one[0, 0]) for one in found if not isinstance(one, Exception)] == [0, 1, 2]


def test_windows_of_one_job_are_read_in_turn_and_by_the_calling_thread() -> None:
    log: list[int] = []
    reader = WindowReader(4)
    reader.read(windows(*((7, Stream(number, log=log)) for number in range(20))))
    assert log == list(range(20))
    assert reader._pool is None
