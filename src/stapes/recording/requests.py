"""The requests of a seek loop, and their answers. Frozen.

Frames are of 10 ms and count in the loop's time, without the pauses that were cut out; `frames` are the same ones
in the recording's time. A request holds all that is needed to answer it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from stapes.audio.intervals import Interval
from stapes.recording.segments import WindowSpan
from stapes.results import Alignment, LanguageGuess, WindowResult
from stapes.vad.spans import SpeechMap


@dataclass(frozen=True, slots=True)
class Decode:
    """Decode the text of a window, after the text `prompt`. Answer: WindowResult."""

    seek: int
    n_frames: int
    prompt: tuple[int, ...]
    language: str | None  # code
    frames: tuple[Interval, ...]
    voices: tuple[Interval, ...] = ()  # speech in it, counted from its first frame, for quiet-speech gain; (): no gain
    encoded_frames: int | None = None  # of the window with what follows the sound; None: a full one's

    @property
    def span(self) -> WindowSpan:
        """Where the window is."""
        return WindowSpan(self.seek, self.n_frames)


@dataclass(frozen=True, slots=True)
class Align:
    """Find the times of the words of `tokens` in the window that was just decoded. Answer: Alignment."""

    seek: int
    n_frames: int
    tokens: tuple[int, ...]  # of text
    language: str | None
    frames: tuple[Interval, ...]
    encoded_frames: int | None = None  # as in `Decode`


@dataclass(frozen=True, slots=True)
class Detect:
    """Detect the language of a window. Answer: LanguageGuess.

    part: frames of the window that count, half-open; None: all.   n_frames: None asks for the recording's first 30 s
    as the reference does, with the spectrum of silence after a shorter one.
    """

    seek: int = 0
    n_frames: int | None = None
    part: Interval | None = None
    frames: tuple[Interval, ...] = ()
    voices: tuple[Interval, ...] = ()
    encoded_frames: int | None = None  # as in `Decode`


@dataclass(frozen=True, slots=True)
class DetectSpeech:
    """Find speech in frames `seek` to `seek + n_frames` (voice activity detection). Answer: SpeechMap."""

    seek: int
    n_frames: int
    frames: tuple[Interval, ...]


Request = Detect | Decode | Align | DetectSpeech
#: A journal keeps guesses and windows' results. A result takes its alignment in and is not aligned again; to detect
#: speech again gives the same.
Answer = LanguageGuess | WindowResult | Alignment | SpeechMap
ANSWERS: Final[dict[type[Request], type[Answer]]] = {
    Detect: LanguageGuess,
    Decode: WindowResult,
    Align: Alignment,
    DetectSpeech: SpeechMap,
}

_Asked = TypeVar("_Asked")
_Found = TypeVar("_Found")
#: yields requests, is sent their answers (checked by the loop), and returns what it found
Asking = Generator[_Asked, Any, _Found]
