"""What happens to a recording on its way, for those who keep a record of it. Frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from stapes.recording.time_map import TimeMap
from stapes.results import Flag, LanguageGuess, Segment, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageDetected:
    """The language was asked for: of the recording, or of a part of a window (docs/languages.md)."""

    guess: LanguageGuess
    language: str | None = None  # code, once the recording's is known by it; None: not yet, or there are several
    resumed: bool = False  # known from an earlier run, not asked again


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowDone:
    """A window has its final result, and the loop has moved on behind it."""

    window: Window
    segments: tuple[Segment, ...]
    flags: tuple[Flag, ...] = ()  # what guards did in it, and behind it up to the next one
    resumed: bool = False  # known from an earlier run, not decoded again

    def moved(self, time_map: TimeMap) -> WindowDone:
        """Give it in the time of the recording that its own was cut from."""
        return replace(
            self,
            window=time_map.window(self.window),
            segments=tuple(map(time_map.segment, self.segments)),
            flags=tuple(map(time_map.flag, self.flags)),
        )


JobEvent = LanguageDetected | WindowDone
EventSink = Callable[[JobEvent], None]
