"""Passes over one encoded window: rows are stepped until there is a result. Knows no decoding rule and no recording.

A pass is a state machine like `stapes.decoding.window`, so that rows of many windows share a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from stapes.backends.base import Backend, ExtraAnswers, RowExtras, RowId, WindowId
from stapes.backends.batch import AnswerShare, StepBuilder, StepLoad

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class WindowPass(Protocol[Result_co]):
    """Rows over one window. The pass does not release the window."""

    @property
    def result(self) -> Result_co | None:
        """The result; None until the pass has ended."""

    def load(self) -> StepLoad:
        """Return what the next step takes; nothing once there is a result."""

    def add_to(self, step: StepBuilder) -> None:
        """Add what the backend has to do next."""

    def accept(self, share: AnswerShare) -> None:
        """Take the answers to what `add_to` added."""

    def close(self) -> None:
        """Close every row; may be called at any time, and twice."""


class ForcedPass(ABC, Generic[Result]):
    """Forced (teacher-forced) pass: one step of one row over tokens that are known. Satisfies `WindowPass`."""

    def __init__(self, backend: Backend, window: WindowId) -> None:
        self._backend = backend
        self._positions = backend.positions(window)
        self._row: RowId | None = backend.open(window)
        self.result: Result | None = None

    @abstractmethod
    def _question(self) -> tuple[Sequence[int], RowExtras]:
        """Return the tokens to read, and the outputs wanted of them."""

    @abstractmethod
    def _answer(self, answers: ExtraAnswers) -> Result:
        """Make the pass's result of the answers."""

    def load(self) -> StepLoad:
        """Return what the step takes; nothing once there is a result."""
        if self._row is None:
            return StepLoad()
        tokens, extras = self._question()
        return StepLoad(1, len(tokens), extras.answer_bytes(self._backend.spec, len(tokens), self._positions))

    def add_to(self, step: StepBuilder) -> None:
        """Add the step."""
        assert self._row is not None
        step.add(self._row, *self._question())

    def accept(self, share: AnswerShare) -> None:
        """Take the answers."""
        assert share.extras is not None
        self.result = self._answer(share.extras)
        self.close()

    def close(self) -> None:
        """Close the row; may be called at any time, and twice."""
        if self._row is not None:
            self._backend.close(self._row)
            self._row = None


class WindowSlot(Generic[Result]):
    """Owns at most one encoded window and the pass running on it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._window: WindowId | None = None
        self._pass: WindowPass[Result] | None = None

    @property
    def is_there(self) -> bool:
        """Whether a window is held."""
        return self._window is not None

    @property
    def window(self) -> WindowId:
        """The window that is held."""
        assert self._window is not None
        return self._window

    def take(self, window: WindowId) -> None:
        """Own a window until `release`."""
        self._window = window

    def begin(self, one: WindowPass[Result]) -> None:
        """Start a pass on the window; the one before it has ended."""
        self._pass = one

    def load(self) -> StepLoad:
        """Return what the pass's next step takes; nothing where no pass runs."""
        return StepLoad() if self._pass is None else self._pass.load()

    def add_to(self, step: StepBuilder) -> None:
        """Add the pass's rows to a step."""
        assert self._pass is not None
        self._pass.add_to(step)

    def accept(self, share: AnswerShare) -> Result | None:
        """Take the answers to what `add_to` added; return the pass's result once it has ended."""
        assert self._pass is not None
        self._pass.accept(share)
        result = self._pass.result
        if result is not None:
            self._pass = None
        return result

    def release(self) -> None:
        """Close rows and release the window; may be called at any time, and twice."""
        if self._pass is not None:
            self._pass.close()
            self._pass = None
        if self._window is not None:
            self._backend.release(self._window)
            self._window = None
