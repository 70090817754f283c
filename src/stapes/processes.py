"""What one process cannot share with another: objects that are not pickled, and what a forked child begins anew.

A forked child has a copy of all memory but none of the parent's other threads: what they held locked stays locked, and
what they were to do is never done. So locks, threads and queues are made again there; weights and results stay.
"""

from __future__ import annotations

import os
import threading
import weakref
from functools import cached_property
from typing import Any, ClassVar, NoReturn, Protocol

from stapes.errors import NotCopiedError


class BoundToProcess:
    """Refuses to be pickled or copied, as multiprocessing, joblib and copy.deepcopy would have it."""

    #: what the object is, why it cannot be pickled, and what to do instead
    _cannot_be_pickled: ClassVar[str]

    def __reduce_ex__(self, _protocol: Any) -> NoReturn:
        raise NotCopiedError(self._cannot_be_pickled)


class BegunAnew(Protocol):
    """What has to do something in a forked child before it is used there."""

    def after_fork(self) -> None:
        """Make locks, threads and queues again; called in the child, where no other thread runs."""


_registered: weakref.WeakSet[BegunAnew] = weakref.WeakSet()


def register(one: BegunAnew) -> None:
    """Have `after_fork` called in every forked child, as long as the object lives."""
    _registered.add(one)


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
