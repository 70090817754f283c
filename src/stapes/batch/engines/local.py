"""Processes on this machine. One that a recording ends is started again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, repeat
from multiprocessing import get_context, parent_process
from queue import SimpleQueue
from typing import Final

from stapes.batch.rows import Chunk, ChunkResult, Work
from stapes.batch.worker import prepare, transcribe_rows
from stapes.errors import BackendError

#: chunks of a worker: one in work, one that waits
_AHEAD: Final = 2
#: of a process that ends before it has its engine
_STARTS: Final = 3


def run(
    work: Work,
    chunks: Iterator[Chunk],
    *,
    address: str | None = None,
    workers: int | None = None,
    insecure_cluster: bool = False,
) -> Generator[ChunkResult]:
    """Yield what became of each chunk, as it comes. Chunks are taken as workers are free.

    workers: processes, one by default.   Raises what a worker raises.
    """
    del address, insecure_cluster  # there is no cluster
    n_workers = workers or 1
    todo: SimpleQueue[Chunk | None] = SimpleQueue()
    results: SimpleQueue[ChunkResult | BaseException] = SimpleQueue()
    carriers = [_Worker(work, todo, results) for _ in range(n_workers)]
    n_open = 0
    try:
        for one in carriers:
            one.start()
        for chunk in chain(chunks, repeat(None)):
            if chunk is None and not n_open:
                return
            if chunk is not None:
                todo.put(chunk)
                n_open += 1
            if chunk is None or n_open >= _AHEAD * n_workers:
                result = results.get()
                if isinstance(result, BaseException):
                    raise result
                n_open -= 1
                yield result
    finally:
        for one in carriers:
            one.kill()
            todo.put(None)
        for one in carriers:
            one.join()


class _Worker(threading.Thread):
    """A thread that feeds one process."""

    def __init__(
        self, work: Work, todo: SimpleQueue[Chunk | None], results: SimpleQueue[ChunkResult | BaseException]
    ) -> None:
        super().__init__(name="stapes batch", daemon=True)
        self._work, self._todo, self._results = work, todo, results
        self._pool: ProcessPoolExecutor | None = None
        self._killed = threading.Event()

    def run(self) -> None:
        """Feed the process until there is no chunk."""
        try:
            while (chunk := self._todo.get()) is not None:
                if self._pool is None:
                    self._start()
                self._results.put(self._run(chunk))
        except BaseException as error:
            self._results.put(error)

    def _run(self, chunk: Chunk) -> ChunkResult:
        for _ in range(self._work.most_losses(chunk)):
            assert self._pool is not None
            try:
                return self._pool.submit(_run, self._work, chunk).result()
            except BrokenProcessPool:
                self._start()
        raise BackendError(f"chunk {chunk.name}: its worker ends again and again, also outside of a try")

    def _start(self) -> None:
        for _ in range(_STARTS):
            if self._killed.is_set():
                break
            self._pool = ProcessPoolExecutor(1, get_context("spawn"), _set_up)
            prepared = self._pool.submit(prepare, self._work)
            if self._killed.is_set():  # before there was a process
                self.kill()
            try:
                prepared.result()
            except (BrokenProcessPool, CancelledError):
                continue
            else:
                return
        raise BackendError(
            "a worker ended while it loaded the model, as processes do that the system ends for want of memory; give "
            "fewer --workers, or a smaller model"
        )

    def kill(self) -> None:
        """End the process at once; what it was at is done again another time."""
        self._killed.set()
        if self._pool is not None:
            for process in tuple((self._pool._processes or {}).values()):
                process.kill()
            self._pool.shutdown(wait=False, cancel_futures=True)


def _set_up() -> None:
    """Leave Ctrl-C to the driver, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_driver, daemon=True).start()


def _end_with_driver() -> None:
    driver = parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)


def _run(work: Work, chunk: Chunk) -> ChunkResult:
    return next(transcribe_rows(work, [chunk]))
