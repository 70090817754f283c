"""A window that holds a long pause, and what of it is decoded for itself. Pure: no model, no audio.

Whisper reads speech on both sides of a long pause worse than either side alone: it leaves some out, or fills the pause.
docs/guards.md has the measurements behind the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from stapes.recording.listening import RUN_UP, Heard
from stapes.results import WindowResult

#: frames without speech that make a pause a long one
LONG_PAUSE = 300
#: frames of speech, at a part's end, that are not worth a window of their own
_NOTHING_LEFT = 50
#: scores of text that is likely to be wrong, where there is reason to doubt it at all
_AVG_LOGPROB, _COMPRESSION = -0.6, 2.2


@dataclass(frozen=True, slots=True)
class Part:
    """What is decoded for itself: speech between two long pauses, in frames of the recording."""

    first: int
    speech_end: int  # the frame behind its last speech
    end: int  # the first frame that is not decoded with it
    behind: int  # where speech begins behind the pause, or the window ended that it was found in

    def start(self, seek: int) -> int:
        """Say where to go on: behind the pause, once no speech is left before it."""
        decoded = seek > self.first and seek >= self.speech_end - _NOTHING_LEFT
        return self.behind if decoded and seek < self.behind else seek

    def size(self, seek: int, size: int) -> int:
        """Say how many frames of a window from `seek` on to decode."""
        return min(size, self.end - seek) if self.first <= seek < self.end else size


@dataclass(frozen=True, slots=True)
class Again:
    """Where to decode a window's speech anew, and what of it for itself; None: as much as a window holds."""

    seek: int
    part: Part | None
    pause: tuple[int, int]  # the first long one: first frame, and the first behind it


def is_unsure(result: WindowResult) -> bool:
    """Whether a window's text is likely to be wrong."""
    refused = len(result.tries) > 1
    return refused or result.avg_logprob < _AVG_LOGPROB or result.compression_ratio > _COMPRESSION


def without_pauses(heard: Heard, first: int, end: int) -> Again | None:
    """Say what to decode of a window of frames first..end instead, so that it holds no long pause.

    None: it holds none, or no speech.
    """
    runs: list[tuple[int, int]] = []  # of speech, between long pauses
    for start, stop in heard.within(first, end):
        if runs and start - runs[-1][1] < LONG_PAUSE:
            runs[-1] = runs[-1][0], stop
        else:
            runs.append((start, stop))
    if not runs:
        return None
    start, stop = runs[0]
    behind = runs[1][0] if len(runs) > 1 else end
    before = (first, start) if start - first >= LONG_PAUSE else None
    seek = first if before is None else start - RUN_UP
    if behind - stop < LONG_PAUSE:
        return None if before is None else Again(seek, None, before)
    part = Part(seek, stop, stop + RUN_UP, behind - RUN_UP if len(runs) > 1 else end)
    return Again(seek, part, before or (stop, behind))
