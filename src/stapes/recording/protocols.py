"""What the scheduler works on: a stream has at most one window at a time, a recording has one or more streams.

listen:  events = stream.hear()                            where stream.needs_vad
encode:  stream.attach(window encoded from stream.mel())   where stream.needs_window
decode:  events = stream.accept(results of stream.steps())
tell:    work.in_order(stream, events)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stapes.backends.base import FloatArray, RowResult, RowStep, WindowId
from stapes.recording.events import JobEvent
from stapes.results import LanguageGuess, Transcript


@dataclass(frozen=True, slots=True)
class WindowCost:
    """What is taken at most beside the memory of a window, while it is held."""

    rows: int  # decoder rows that are open at once
    answer_bytes: int = 0  # of one step, while that lasts; see `RowStep.answer_bytes`


class WindowStream(Protocol):
    """One window after another."""

    @property
    def needs_vad(self) -> bool:
        """Whether the next thing to do is to listen on, with `hear`: a long silence is listened to bit by bit."""

    @property
    def needs_window(self) -> bool:
        """Whether the next thing to do is to encode what `mel` gives."""

    @property
    def holds_window(self) -> bool:
        """Whether a window's memory is in its hands."""

    @property
    def window_cost(self) -> WindowCost:
        """What it takes at most beside a window's memory."""

    def hear(self) -> Sequence[JobEvent]:
        """Listen for a while, as short as a step; tell of what that settles."""

    def mel(self) -> FloatArray:
        """Give the log-mel (n_mels, 3000) of the window that is to be encoded."""

    def attach(self, window: WindowId) -> None:
        """Take the memory of the window that was encoded from `mel`."""

    def steps(self) -> list[RowStep]:
        """Say which rows are to be stepped; none while a window is needed."""

    def accept(self, results: Sequence[RowResult]) -> Sequence[JobEvent]:
        """Take the results of `steps`, in its order; tell of windows that this ends."""


class RecordingWork(Protocol):
    """One recording on its way through the model."""

    @property
    def duration_s(self) -> float:
        """The recording's length in seconds."""

    @property
    def done_s(self) -> float:
        """How far it has come, in seconds of audio."""

    @property
    def done(self) -> bool:
        """Whether the whole recording has been decoded."""

    @property
    def language_guess(self) -> LanguageGuess | None:
        """Which language was detected; None if it was given, or is not known yet."""

    def first_events(self) -> Sequence[JobEvent]:
        """Tell of what was known from an earlier run."""

    def streams(self) -> Sequence[WindowStream]:
        """What can be worked on side by side, the most urgent first."""

    def in_order(self, stream: WindowStream, events: Sequence[JobEvent]) -> Sequence[JobEvent]:
        """Take what one of its streams tells; give all that can be told now, in the recording's order."""

    def transcript(self) -> Transcript:
        """Give everything found so far."""

    def close(self) -> None:
        """Give rows, windows and recording back; may be called at any time, and twice."""
