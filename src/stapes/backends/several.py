"""Several devices behind one backend: a window lives on the device that has the fewest, and its rows with it.

Devices compute at the same time, each in a thread of its own, within one `encode` or `step`. So one engine and one
scheduler serve them all, and nothing above knows how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import TypeVar

from stapes.backends.base import (
    Backend,
    BackendInfo,
    FloatArray,
    LogMelKernel,
    RowId,
    StepAnswers,
    StepBatch,
    TokenColumnsKernel,
    WindowId,
)
from stapes.backends.handles import Handles, HandlesBackend
from stapes.backends.rowwise import RowResult, RowStep, answers_of, batch_of, results_of, steps_of
from stapes.errors import BackendError
from stapes.runtime.processes import register

T = TypeVar("T")


class SeveralBackends(HandlesBackend[tuple[int, WindowId], tuple[int, RowId]]):
    """Satisfies `stapes.backends.base.Backend`. Its windows and rows are (number of a backend, its own id)."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        """backends: of one model and one precision, each on a device of its own; they are shut down with it."""
        self._backends = tuple(backends)
        first = self._backends[0]
        self.spec = first.spec
        self.handles = Handles(first.spec)
        self._closed = False
        self.after_fork()
        register(self)

    def after_fork(self) -> None:
        """Make the threads; a forked child has none of the parent's."""
        self._threads = [ThreadPoolExecutor(1, "stapes-device") for _ in self._backends]

    @property
    def info(self) -> BackendInfo:
        """The first one's, with the devices of all, and their memory and windows together."""
        each = [one.info for one in self._backends]
        bounds = [one.max_memory for one in each if one.max_memory is not None]
        policy = replace(
            each[0].policy,
            windows_per_encode=sum(one.policy.windows_per_encode for one in each),
            windows_in_flight=sum(one.policy.windows_in_flight for one in each),
        )
        return replace(
            each[0],
            device=",".join(one.device for one in each),
            weight_bytes=sum(one.weight_bytes for one in each),
            max_memory=len(each) * min(bounds) if len(bounds) == len(each) else None,  # as many windows on each
            policy=policy,
        )

    @property
    def log10_mel(self) -> LogMelKernel:
        return self._backends[0].log10_mel

    @property
    def token_columns(self) -> TokenColumnsKernel:
        return self._backends[0].token_columns

    # Windows.

    def window_bytes(self, positions: int) -> int:
        return self._backends[0].window_bytes(positions)

    def encode(self, mel: FloatArray) -> list[WindowId]:
        positions = self.handles.check_mel(mel)
        held = [0] * len(self._backends)
        for number, _ in self.handles.memories():
            held[number] += 1
        mine: dict[int, list[int]] = {}  # which of these windows each backend takes
        for index in range(len(mel)):
            number = held.index(min(held))
            held[number] += 1
            mine.setdefault(number, []).append(index)
        # A failure of one ends the call; windows that another has encoded by then are released.
        done = self._on_each({number: _encoding(mel[indices]) for number, indices in mine.items()}, self._forget)
        owners = {
            index: (number, its) for number, ids in done.items() for index, its in zip(mine[number], ids, strict=True)
        }
        return [self.handles.add_window(owners[index], positions) for index in range(len(mel))]

    def _forget(self, number: int, windows: Sequence[WindowId]) -> None:
        for one in windows:
            self._backends[number].release(one)

    def is_encoded(self, window: WindowId) -> bool:
        number, its = self.handles.window(window).memory
        return self._backends[number].is_encoded(its)

    def release(self, window: WindowId) -> None:
        number, its = self.handles.window(window).memory
        self.handles.release(window)
        self._backends[number].release(its)

    # Rows.

    def open(self, window: WindowId) -> RowId:
        number, its = self.handles.window(window).memory
        return self.handles.add_row(window, (number, self._backends[number].open(its)))

    def fork(self, row: RowId) -> RowId:
        source = self.handles.row(row)
        number, its = source.cache
        return self.handles.add_row(source.window, (number, self._backends[number].fork(its)), source.length)

    def truncate(self, row: RowId, length: int) -> None:
        self.handles.truncate(row, length)
        number, its = self.handles.row(row).cache
        self._backends[number].truncate(its, length)

    def close(self, row: RowId) -> None:
        number, its = self.handles.row(row).cache
        self.handles.close(row)
        self._backends[number].close(its)

    def shut_down(self) -> None:
        self.handles.clear()
        if self._closed:
            return
        self._closed = True
        for thread, one in zip(self._threads, self._backends, strict=True):
            thread.submit(one.shut_down).result()
            thread.shutdown()

    def step(self, batch: StepBatch) -> StepAnswers:
        rows, _, counts = self.handles.check(batch)
        steps, mine = steps_of(batch), dict[int, list[int]]()
        for index, row in enumerate(rows):
            mine.setdefault(row.cache[0], []).append(index)
        done = self._on_each(
            {
                number: _stepping([replace(steps[index], row=rows[index].cache[1]) for index in indices])
                for number, indices in mine.items()
            }
        )
        for row, n in zip(rows, counts, strict=True):
            row.length += n
        results = {index: one for number, its in done.items() for index, one in zip(mine[number], its, strict=True)}
        return answers_of([results[index] for index in range(len(rows))])

    def _on_each(
        self, calls: Mapping[int, Callable[[Backend], T]], undo: Callable[[int, T], None] = lambda _number, _made: None
    ) -> dict[int, T]:
        """Make a call of some backends, each in its thread: wait for all. If one fails, undo the others and raise.

        Libraries of GPUs keep handles and plans for each thread that calls them, so that it is always the same one.
        """
        if self._closed:
            raise BackendError("this backend was shut down")
        futures = {number: self._threads[number].submit(call, self._backends[number]) for number, call in calls.items()}
        try:
            wait(futures.values())
            return {number: one.result() for number, one in futures.items()}
        except BaseException:  # of one of them, or Ctrl-C: no call may be left to run into the next one
            wait(futures.values())
            for number, one in futures.items():
                if one.exception() is None:
                    undo(number, one.result())
            raise


def _encoding(mel: FloatArray) -> Callable[[Backend], list[WindowId]]:
    return lambda backend: backend.encode(mel)


def _stepping(steps: Sequence[RowStep]) -> Callable[[Backend], list[RowResult]]:
    batch = batch_of(steps)
    return lambda backend: results_of(batch, backend.step(batch))
