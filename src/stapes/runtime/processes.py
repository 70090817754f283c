"""Objects that processes cannot share: they are not pickled, and a forked child makes their locks again.

A forked child has a copy of all memory but none of the parent's other threads: their locks stay locked, and
their work is never done. So locks, threads and queues are made again there; weights and results stay.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, Final, NoReturn, Protocol

from stapes.errors import NotCopiedError


class BoundToProcess:
    """Refuses to be pickled or copied, as multiprocessing, joblib and copy.deepcopy would have it."""

    #: what the object is, why it cannot be pickled, and what to do instead
    _cannot_be_pickled: ClassVar[str]

    def __reduce_ex__(self, _protocol: Any) -> NoReturn:
        raise NotCopiedError(self._cannot_be_pickled)


class BegunAnew(Protocol):
    """An object that must be prepared in a forked child before use."""

    def after_fork(self) -> None:
        """Make locks, threads and queues again; called in the child, where no other thread runs."""


_registered: weakref.WeakSet[BegunAnew] = weakref.WeakSet()


def register(one: BegunAnew) -> None:
    """Have `after_fork` called in every forked child, as long as the object lives."""
    _registered.add(one)


def keep_for_ever(one: object) -> None:
    """Have an object never be released, not even when the process ends: in a forked child, what only its parent may."""
    import ctypes  # noqa: PLC0415 (only where a process forks)

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


class ForkGate:
    """A lock that forks of other threads wait for: no fork happens while it is held."""

    _hooks_are_there = False

    def __init__(self) -> None:
        self.begin()
        _gates.add(self)
        if hasattr(os, "register_at_fork") and not ForkGate._hooks_are_there:
            # The last to be registered is the first to be called before a fork: while it waits, none of the locks is
            # held that logging and concurrent.futures hold over forks.
            ForkGate._hooks_are_there = True
            os.register_at_fork(before=_close_gates, after_in_parent=_open_gates, after_in_child=_renew_gates)

    def begin(self) -> None:
        """Make the locks."""
        self._entrance = threading.Lock()  # held by the next thread: one that steps without pause lets forks in
        self._lock = threading.RLock()  # reentrant, as a signal's handler may fork in the middle of it

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it."""
        lock = self._lock
        with self._entrance:
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def close(self) -> bool:
        """Take the lock for a fork; False if that takes too long, as a fork must not wait without end."""
        if not self._entrance.acquire(timeout=_LONGEST_WAIT_S):
            return False
        try:
            return self._lock.acquire(timeout=_LONGEST_WAIT_S)
        finally:
            self._entrance.release()

    def open(self) -> None:
        """Release the lock."""
        self._lock.release()


#: longer than a window takes to be encoded
_LONGEST_WAIT_S: Final = 20.0
_gates: weakref.WeakSet[ForkGate] = weakref.WeakSet()
_forking = threading.local()  # `closed`: the gates that this thread holds while it forks


def _close_gates() -> None:
    _forking.closed = [gate for gate in tuple(_gates) if gate.close()]


def _open_gates() -> None:
    for gate in _forking.closed:
        gate.open()


def _renew_gates() -> None:
    for gate in tuple(_gates):
        gate.begin()


def unlock_cached_properties(owner: type) -> None:
    """Make the locks of a class's cached properties again; from Python 3.12 on there are none."""
    for one in vars(owner).values():
        if isinstance(one, cached_property) and hasattr(one, "lock"):
            one.lock = threading.RLock()


def _after_fork() -> None:
    for one in tuple(_registered):
        one.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)
