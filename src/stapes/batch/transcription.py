"""Transcribes rows side by side in one engine: threads fetch and read, the engine decodes, threads write."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from stapes.batch.rows import Row, Work
from stapes.batch.sources import is_address, opened
from stapes.engine.concurrency import default_concurrency, reading_threads
from stapes.errors import CancelledError
from stapes.options import TranscribeOptions
from stapes.results import Transcript

#: a row, its transcript or its error, and its length in seconds
Outcome = tuple[Row, Transcript | Exception, float]

#: threads that fetch recordings from addresses, which mostly wait
_FETCHING: Final = 8
_WRITING: Final = 8


class Transcription:
    """Takes rows through an engine. Ends each of them with an outcome; `stop` ends all that are open."""

    def __init__(self, engine: Any, work: Work, folder: Path, write: Callable[[Row, Transcript], None]) -> None:
        """folder: for temporary copies.   write: keeps a transcript; called from several threads."""
        self._engine, self._work, self._folder, self._write = engine, work, folder, write
        self._outcomes: SimpleQueue[tuple[Row, Transcript | BaseException, float]] = SimpleQueue()
        self._stopped = threading.Event()
        self._jobs: set[Any] = set()

    def run(self, rows: Sequence[Row]) -> Generator[Outcome]:
        """Yield the outcome of each row as it comes, in any order."""
        options = options_of(self._work.options, "{}")
        n_open = self._work.concurrency or default_concurrency(self._engine.info, options, len(rows))
        n_reading = reading_threads(self._engine.info, n_open)
        if any(is_address(row.uri) for row in rows):
            n_reading = min(n_open, max(n_reading, _FETCHING))
        self._room = threading.Semaphore(n_open)
        readers = ThreadPoolExecutor(n_reading, "stapes reader")
        self._writers = ThreadPoolExecutor(min(n_open, _WRITING), "stapes writer")
        try:
            for row in rows:
                readers.submit(self._read, row)
            for _ in rows:
                row, outcome, duration_s = self._outcomes.get()
                if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
                    raise outcome
                yield row, outcome, duration_s
        finally:
            self._stopped.set()
            for job in tuple(self._jobs):
                job.cancel()
            self._room.release(len(rows))
            readers.shutdown(wait=False, cancel_futures=True)
            self._writers.shutdown(wait=False)

    def _read(self, row: Row) -> None:
        """Fetch and read a recording, and hand it to the engine."""
        self._room.acquire()
        try:
            self._check()
            options = options_of(self._work.options, row.options)
            with opened(row.uri, timeout_s=self._work.fetch_timeout_s, folder=self._folder) as path:
                most = self._work.max_duration_s
                job = self._engine.submit(path, options=options, max_duration_s=most, check=self._check)
            self._jobs.add(job)
            job.when_ended(lambda ended: self._ended(row, ended))
        except BaseException as error:  # one recording's failure is its own
            self._end(row, error, 0.0)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise CancelledError("stopped while it was read")

    def _ended(self, row: Row, job: Any) -> None:
        """Have the result written, in another thread than the engine's."""
        with suppress(RuntimeError):  # stopped: its outcome has no reader
            self._writers.submit(self._finish, row, job)

    def _finish(self, row: Row, job: Any) -> None:
        self._jobs.discard(job)
        duration_s = job.progress.total_s
        try:
            transcript = job.result()
            self._write(row, transcript)
        except BaseException as error:
            self._end(row, error, duration_s)
        else:
            self._end(row, transcript, duration_s)

    def _end(self, row: Row, outcome: Transcript | BaseException, duration_s: float) -> None:
        self._room.release()
        self._outcomes.put((row, outcome, duration_s))


@lru_cache(4096)
def options_of(shared: str, own: str) -> TranscribeOptions:
    """Return the options of a row: those of the whole batch, and its own in their place. Both are JSON."""
    return TranscribeOptions.from_keywords({**json.loads(shared), **json.loads(own)})
