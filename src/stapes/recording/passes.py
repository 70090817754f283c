"""What is done over one encoded window: rows are stepped until there is a result. Knows no rule and no recording.

A state machine like `stapes.decoding.window`: rows of many windows share a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from stapes.backends.base import Backend, RowId, RowResult, RowStep, WindowId

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class WindowPass(Protocol[Result_co]):
    """Rows over one window. The window's memory belongs to whoever made the work."""

    @property
    def result(self) -> Result_co | None:
        """What came of it; None while it goes on."""

    def steps(self) -> list[RowStep]:
        """Say what the backend is to do next; nothing once there is a result."""

    def accept(self, results: Sequence[RowResult]) -> None:
        """Take the results of `steps`, in its order."""

    def close(self) -> None:
        """Give every row back; may be called at any time, and twice."""


class ForcedPass(ABC, Generic[Result]):
    """One pass of one row over tokens that are known. Satisfies `WindowPass`."""

    def __init__(self, backend: Backend, window: WindowId) -> None:
        self._backend = backend
        self._row: RowId | None = backend.open(window)
        self.result: Result | None = None

    @abstractmethod
    def _step(self, row: RowId) -> RowStep:
        """Say what is to be read, and what is asked of it."""

    @abstractmethod
    def _answer(self, result: RowResult) -> Result:
        """Make the answer of what came of it."""

    def steps(self) -> list[RowStep]:
        """Say what the backend is to do next; nothing once there is a result."""
        return [] if self._row is None else [self._step(self._row)]

    def accept(self, results: Sequence[RowResult]) -> None:
        """Take the result of `steps`."""
        (result,) = results
        self.result = self._answer(result)
        self.close()

    def close(self) -> None:
        """Give the row back; may be called at any time, and twice."""
        if self._row is not None:
            self._backend.close(self._row)
            self._row = None


class WindowSlot(Generic[Result]):
    """The one window that somebody holds, if any, and the one work that goes on over it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._window: WindowId | None = None
        self._work: WindowPass[Result] | None = None

    @property
    def is_there(self) -> bool:
        """Whether a window's memory is held."""
        return self._window is not None

    @property
    def window(self) -> WindowId:
        """The window that is held."""
        assert self._window is not None
        return self._window

    def take(self, window: WindowId) -> None:
        """Hold a window's memory from now on, until `release`."""
        self._window = window

    def begin(self, work: WindowPass[Result]) -> None:
        """Work over the window, of which nothing else is being asked."""
        self._work = work

    def steps(self) -> list[RowStep]:
        """Say which rows are to be stepped; none where no work goes on."""
        return [] if self._work is None else self._work.steps()

    def accept(self, results: Sequence[RowResult]) -> Result | None:
        """Take the results of `steps`, in its order; give what came of the work once it is over."""
        assert self._work is not None
        self._work.accept(results)
        result = self._work.result
        if result is not None:
            self._work = None
        return result

    def release(self) -> None:
        """Give rows and window back; may be called at any time, and twice."""
        if self._work is not None:
            self._work.close()
            self._work = None
        if self._window is not None:
            self._backend.release(self._window)
            self._window = None
