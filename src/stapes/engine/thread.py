"""Who steps an engine: one thread at a time, and a thread of the engine's own while somebody waits.

That thread is begun when it is needed, and gone when nothing is left to do. Knows nothing of models.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stapes.runtime.processes import register


class FairLock:
    """A lock that is handed over in the order of arrival: who steps without end keeps nobody out."""

    def __init__(self) -> None:
        self._entrance = threading.Lock()  # held by whoever is next
        self._turn = threading.Lock()
        self._owner: int | None = None

    @property
    def is_held_here(self) -> bool:
        """Whether the calling thread has the turn."""
        return self._owner == threading.get_ident()

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Wait for the turn and have it; a thread that has it already goes on."""
        if self.is_held_here:
            yield True
            return
        with self._entrance:
            self._turn.acquire()
        yield from self._kept()

    @contextmanager
    def try_hold(self) -> Iterator[bool]:
        """Have the turn if nobody has it, not even the calling thread; tell whether that is so."""
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
    """Runs `step` in a thread of its own. `start` may be called from anywhere, as often as one likes."""

    def __init__(self, step: Callable[[], bool], has_work: Callable[[], bool], name: str) -> None:
        """step: does one unit of work, False if there was none.   has_work: whether something has come in meanwhile."""
        self._step = step
        self._has_work = has_work
        self._name = name
        self._stopping = False
        self.after_fork()
        register(self)

    def after_fork(self) -> None:
        """Be without a thread; in a forked child the parent's is not there, and who held the gate is not either."""
        self._gate = threading.Lock()  # guards `_thread`: who ends and who begins must see the same
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """See to it that the thread works until no work is left."""
        with self._gate:
            alive = self._thread is not None and self._thread.is_alive()
            if alive or self._stopping:
                return
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
            _running.add(self)

    def stop(self) -> None:
        """End the thread after its present step, and wait for that; nothing is begun again."""
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


#: Threads that a process's end must not catch in the middle of native code.
_running: weakref.WeakSet[EngineThread] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for one in tuple(_running):
        one.stop()
