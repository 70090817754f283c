"""Which thread steps an engine: one at a time, and the engine's own thread while a caller waits.

That thread starts when it is needed, sleeps while open jobs have nothing to do, and ends when no job is left.
Knows nothing of models.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stapes.runtime.processes import register


class FairLock:
    """Reentrant FIFO lock; no thread can starve the others."""

    def __init__(self) -> None:
        self.after_fork()
        register(self)

    def after_fork(self) -> None:
        """Make the locks: those of a forked child's parent may be held by threads that the child does not have."""
        self._entrance = threading.Lock()  # held by the next in line
        self._turn = threading.Lock()
        self._owner: int | None = None

    @property
    def is_held_here(self) -> bool:
        """Whether the calling thread holds the lock."""
        return self._owner == threading.get_ident()

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Wait for the lock and hold it; a thread that holds it already goes on."""
        if self.is_held_here:
            yield True
            return
        with self._entrance:
            self._turn.acquire()
        yield from self._kept()

    @contextmanager
    def try_hold(self) -> Iterator[bool]:
        """Hold the lock if no thread holds it, the calling one included; yield whether it was free. Never waits."""
        if self.is_held_here or not self._turn.acquire(blocking=False):
            yield False
        else:
            yield from self._kept()

    def _kept(self) -> Iterator[bool]:
        self._owner = threading.get_ident()
        try:
            yield True
        finally:
            self._owner = None
            self._turn.release()


class WorkSignal:
    """Wakes the threads that wait for work. Any thread may notify, a finalizer or a signal handler included.

    A thread reads `count`, looks for work, finds none, and waits for another count: no notification is lost.
    """

    def __init__(self) -> None:
        self.count = 0  # of notifications
        self.after_fork()
        register(self)

    def after_fork(self) -> None:
        """Make the condition again: the parent's may have been locked at the fork."""
        self._changed = threading.Condition()  # its lock is reentrant: a finalizer may run while it is held

    def notify(self) -> None:
        """Wake the threads that wait; holds the lock for a moment only."""
        with self._changed:
            self.count += 1
            self._changed.notify_all()

    def wait(self, seen: int, timeout_s: float | None) -> None:
        """Wait until `count` is not `seen` any more, or so many seconds; None: for as long as it takes."""
        limit_s = None if timeout_s is None else min(max(timeout_s, 0.0), _LONGEST_WAIT_S)
        with self._changed:
            self._changed.wait_for(lambda: self.count != seen, limit_s)


#: below what the system's clocks can count; a wait that ends early is begun again
_LONGEST_WAIT_S = 3600.0


class EngineThread:
    """Works in a thread of its own. Any thread may call `start`, at any time."""

    def __init__(self, work: Callable[[int], bool], signal: WorkSignal, name: str) -> None:
        """signal: ends the thread's waiting.
        work: does one unit of work, or waits for another count of `signal`; False if no job is left.
        """
        self._work = work
        self._signal = signal
        self._name = name
        self._stopping = False
        self.after_fork()
        register(self)

    def after_fork(self) -> None:
        """Have no thread yet; a forked child has neither the parent's thread nor the holder of the gate."""
        self._gate = threading.Lock()  # guards `_thread` between a thread that ends and one that is started
        self._asked_for = False  # whether `start` was called since the thread looked for jobs
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Have the thread work until no job is left."""
        with self._gate:
            self._asked_for = True
            alive = self._thread is not None and self._thread.is_alive()
            if alive or self._stopping:
                return
            self._asked_for = False
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
            _running.add(self)

    def stop(self) -> None:
        """End the thread after its present step, and wait for that; it cannot be started again."""
        self._stopping = True
        self._signal.notify()
        with self._gate:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            seen = self._signal.count  # first, as a stop of the thread notifies
            if self._stopping:
                break
            if not self._work(seen) and self._is_over():
                return
        with self._gate:
            self._thread = None

    def _is_over(self) -> bool:
        """Whether no job has come in since the last look."""
        with self._gate:
            if self._asked_for:
                self._asked_for = False
                return False
            self._thread = None
            return True


#: threads that must have left native code when the process ends
_running: weakref.WeakSet[EngineThread] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for one in tuple(_running):
        one.stop()
