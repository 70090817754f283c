"""Which thread steps an engine: one at a time, and the engine's own thread while a caller waits.

That thread starts when it is needed and ends when no work is left. Knows nothing of models.
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


class EngineThread:
    """Runs `step` in a thread of its own. Any thread may call `start`, at any time."""

    def __init__(self, step: Callable[[], bool], has_work: Callable[[], bool], name: str) -> None:
        """step: does one unit of work, False if there was none.   has_work: whether work has come in since."""
        self._step = step
        self._has_work = has_work
        self._name = name
        self._stopping = False
        self.after_fork()
        register(self)

    def after_fork(self) -> None:
        """Have no thread yet; a forked child has neither the parent's thread nor the holder of the gate."""
        self._gate = threading.Lock()  # guards `_thread` between a thread that ends and one that is started
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Have the thread work until no work is left."""
        with self._gate:
            alive = self._thread is not None and self._thread.is_alive()
            if alive or self._stopping:
                return
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
            _running.add(self)

    def stop(self) -> None:
        """End the thread after its present step, and wait for that; it cannot be started again."""
        self._stopping = True
        with self._gate:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while not self._stopping:
            if not self._step() and self._is_over():
                return
        with self._gate:
            self._thread = None

    def _is_over(self) -> bool:
        with self._gate:
            if self._has_work():
                return False
            self._thread = None
            return True


#: threads that must have left native code when the process ends
_running: weakref.WeakSet[EngineThread] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for one in tuple(_running):
        one.stop()
