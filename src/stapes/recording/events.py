"""Events of one recording, for callbacks and journals. Frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from stapes.recording.time_map import TimeMap
from stapes.results import Flag, LanguageGuess, Segment, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageDetected:
    """A language was detected: of the recording, or of a part of a window (docs/languages.md)."""

    guess: LanguageGuess
    language: str | None = None  # code of the recording's language; None: not known yet, or there are several
    resumed: bool = False  # from an earlier run, not detected again


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowDone:
    """A window has its final result, and the loop has moved on."""

    window: Window
    segments: tuple[Segment, ...]
    flags: tuple[Flag, ...] = ()  # what guards did in it, and after it up to the next window
    resumed: bool = False  # known from an earlier run, not decoded again

    def moved(self, time_map: TimeMap) -> WindowDone:
        """Return the event with its times mapped."""
        return replace(
            self,
            window=time_map.window(self.window),
            segments=tuple(map(time_map.segment, self.segments)),
            flags=tuple(map(time_map.flag, self.flags)),
        )


JobEvent = LanguageDetected | WindowDone
EventSink = Callable[[JobEvent], None]
