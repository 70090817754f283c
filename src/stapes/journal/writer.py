"""The thread that writes a journal: it does tasks in the order in which they were put, many in one transaction.

Putting a task never waits for the disk. Independent of what a task does.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from stapes.runtime.processes import ForkGate, register

#: most memory of queued tasks; a window's answer takes about 4 kB
MAX_QUEUE_BYTES: Final = 16 << 20
#: A wait on Windows cannot be interrupted by Ctrl-C: it returns at this interval.
_WAKE_S: Final = 0.5
#: in one transaction: a disk that writes little in its last seconds has whole transactions of it
_MOST_BYTES: Final = 1 << 20


def _nothing(*_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task for the journal's connection, in the writer's thread.

    run: reads or changes rows, inside a transaction; called again where the transaction of several tasks fails.
    refused: called where a row cannot hold its values.   then: called once, when the task is written or dropped.
    Neither may raise.   n_bytes: counts towards the queue's limit; a task of 0 bytes always has room.
    """

    run: Callable[[sqlite3.Connection], object] = _nothing
    refused: Callable[[Exception], None] = _nothing
    then: Callable[[], None] = _nothing
    n_bytes: int = 0


class JournalWriter:
    """A queue of tasks and its thread, from the start to `close`. Any thread may call. A forked child has none."""

    def __init__(self, write: Callable[[Sequence[Task]], None], end: Callable[[], None]) -> None:
        """write: does tasks.   end: called after the last one. Both are called in the thread, and may not raise."""
        self._write = write
        self._finish = end
        self._gate = ForkGate()  # SQLite's own locks must not be held over a fork
        self._begin()
        self._thread = threading.Thread(target=self._run, name="stapes journal", daemon=True)
        self._thread.start()
        register(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Task] = deque()
        self._in_work: list[Task] = []
        self._n_bytes = 0  # of both
        self._closing = False

    def after_fork(self) -> None:
        """Accept no task: the thread has stayed with the parent."""
        self._begin()
        self._closing = True

    def put(self, task: Task) -> bool:
        """Add a task; False if it has no room. After `close` it is dropped."""
        with self._changed:
            if not self._closing:
                if task.n_bytes and self._n_bytes + task.n_bytes > MAX_QUEUE_BYTES:
                    return False
                self._waiting.append(task)
                self._n_bytes += task.n_bytes
                self._changed.notify_all()
                return True
        task.then()
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait until what was put so far is written or dropped; False on timeout."""
        reached = threading.Event()
        self.put(Task(then=reached.set))
        return wait_for(reached, timeout_s)

    def close(self, timeout_s: float) -> bool:
        """End the thread after the tasks that wait; False if it has not ended by then."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def drop(self) -> None:
        """Drop all tasks; the thread ends as soon as the disk responds."""
        with self._changed:
            self._closing = True
            dropped = [*self._in_work, *self._waiting]
            self._waiting.clear()
            self._in_work = []
            self._changed.notify_all()
        _call_then(dropped)

    def _run(self) -> None:
        while tasks := self._next():
            with self._gate.held():
                self._write(tasks)
            with self._changed:
                ended, self._in_work = self._in_work, []  # `drop` may have taken them
                self._n_bytes -= sum(task.n_bytes for task in tasks)
            _call_then(ended)
        with self._gate.held():
            self._finish()

    def _next(self) -> list[Task]:
        """Wait for tasks, and take what goes into one transaction; nothing once the queue is closed and empty."""
        tasks: list[Task] = []
        n_bytes = 0
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            while self._waiting and n_bytes < _MOST_BYTES:
                tasks.append(self._waiting.popleft())
                n_bytes += tasks[-1].n_bytes
            self._in_work = tasks
        return tasks


def wait_for(event: threading.Event, timeout_s: float | None = None) -> bool:
    """Wait for an event, so that Ctrl-C can end it; False on timeout."""
    end_s = None if timeout_s is None else time.monotonic() + timeout_s
    while not event.is_set():
        left_s = _WAKE_S if end_s is None else min(_WAKE_S, end_s - time.monotonic())
        if left_s <= 0:
            return False
        event.wait(left_s)
    return True


def _call_then(tasks: Iterable[Task]) -> None:
    for task in tasks:
        task.then()
