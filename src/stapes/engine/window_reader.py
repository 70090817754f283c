"""Reads the log-mel of windows that are encoded together, those of several jobs at the same time.

A GPU encodes sixteen windows in the time that one thread takes to compute the log-mel of a few.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from stapes.backends.base import FloatArray
from stapes.engine.scheduled_job import ScheduledJob
from stapes.recording.base import WindowStream


class WindowReader:
    """Owns the threads, which start when several jobs are read."""

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads
        self._pool: ThreadPoolExecutor | None = None

    def read(self, windows: Sequence[tuple[ScheduledJob, WindowStream]]) -> list[FloatArray | Exception]:
        """Return each window's log-mel (n_mels, frames), or why it cannot be read."""
        jobs = list(dict.fromkeys(job for job, _ in windows))
        streams = [[stream for owner, stream in windows if owner is job] for job in jobs]
        if len(jobs) == 1 or self._n_threads == 1:
            groups = [_read_in_turn(one) for one in streams]
        else:
            self._pool = self._pool or ThreadPoolExecutor(self._n_threads, "stapes-mel")
            groups = list(self._pool.map(_read_in_turn, streams))
        found = dict(zip(jobs, map(iter, groups), strict=True))
        return [next(found[job]) for job, _ in windows]


def _read_in_turn(streams: Sequence[WindowStream]) -> list[FloatArray | Exception]:
    """Read windows of one job, which need not be ready for several threads."""
    found: list[FloatArray | Exception] = []
    for one in streams:
        try:
            found.append(one.mel())
        except Exception as error:  # of one recording: the others go on
            found.append(error)
    return found
