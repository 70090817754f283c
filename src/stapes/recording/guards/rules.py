"""Rules that the guards share: when a window's text is doubtful, and what they remove from it. Pure.

docs/guards.md has the measurements of these numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from stapes.audio.mel import FRAMES_PER_SECOND
from stapes.recording.segments import Cut, WindowSpan, frame, text_of
from stapes.results import WindowResult

#: frames without speech that make a pause a long one
LONG_PAUSE = 300
#: characters of text that speech may have beyond what was found of it: the VAD network needs a moment to react
FREE_CHARACTERS = 12
#: frames of speech worth going back for, and from a window's start
WORTH_GOING_BACK = 100
#: scores that speech rarely has: the VAD runs on few windows of speech
_NO_SPEECH, _AVG_LOGPROB, _COMPRESSION = 0.3, -0.7, 2.4
#: text tokens a second; speech without long pauses has three and more
_SPARSE = 1.5
#: frames without text, between a window's last word and where the loop would go on, that make it doubtful
_LONG_REST = 200


@dataclass(frozen=True, slots=True)
class Skip:
    """A window is not decoded."""


@dataclass(frozen=True, slots=True)
class ChooseAnew:
    """The timeline has changed from a frame on: another window is there now."""

    first: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """Text that a guard removes."""

    guard: str
    start_s: float
    end_s: float
    tokens: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Guarded:
    """A window's remaining pieces. Without pieces, the window counts as silence."""

    found: Cut
    dropped: tuple[Dropped, ...] = ()

    @property
    def looped(self) -> bool:
        """Whether a loop was dropped."""
        return any(one.guard == "loop" for one in self.dropped)


def is_doubtful(result: WindowResult, found: Cut, window: WindowSpan, eot: int) -> bool:
    """Whether a window's scores or times are a reason to run the VAD; rarely so for speech. eot: text has lower ids."""
    return (
        result.no_speech_prob > _NO_SPEECH
        or result.avg_logprob < _AVG_LOGPROB
        or result.compression_ratio > _COMPRESSION
        or len(text_of(result.tokens, eot)) < _SPARSE * window.n_frames / FRAMES_PER_SECOND
        or window.seek + found.advance - frame(found.pieces[-1].end_s) > _LONG_REST
    )
