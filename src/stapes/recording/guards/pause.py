"""Long pauses in a window, and what of them is left out before it is decoded again. Pure.

Whisper reads speech around a long pause worse than speech without one: it leaves some out, or fills the pause.
docs/guards.md has the measurements behind the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stapes.recording.guards.rules import LONG_PAUSE
from stapes.results import WindowResult
from stapes.vad.detector import SpeechMap

#: frames of it that are kept on either side: sentences have pauses.
#: At a window's end too: somebody may speak right behind it
_KEPT = 80

#: scores of text that is likely to be wrong, where there is reason to doubt it at all
_AVG_LOGPROB, _COMPRESSION = -0.6, 2.2


@dataclass(frozen=True, slots=True)
class Pause:
    """A long pause, and what of it is left out, in frames: half-open."""

    start: int
    end: int
    left_out: tuple[int, int]


def long_pauses(heard: SpeechMap, first: int, end: int, seams: Sequence[int] = ()) -> tuple[Pause, ...]:
    """Find the long pauses of a window of frames first..end, in order; none where nobody speaks at all.

    seams: frames before which something was left out already: what is kept of a pause before one stays.
    """
    spans = heard.within(first, end)
    if not spans:
        return ()
    edges = [first, *(frame for span in spans for frame in span), end]
    found = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start >= LONG_PAUSE:
            kept_until = start if start == first else start + _KEPT
            kept_until = next((seam for seam in seams if start < seam <= start + 2 * _KEPT), kept_until)
            found.append(Pause(start, stop, (kept_until, stop - _KEPT)))
    return tuple(found)


def spoil(pauses: Sequence[Pause], result: WindowResult, clip: tuple[int, int]) -> bool:
    """Whether doubtful text is to be decoded again without its long pauses: before all speech or behind it, one counts
    only where the text is likely to be wrong. clip: what the recording's text is made of, in frames.
    """
    refused = len(result.tries) > 1
    unsure = refused or result.avg_logprob < _AVG_LOGPROB or result.compression_ratio > _COMPRESSION
    return any(unsure or (clip[0] < one.start and one.end < clip[1]) for one in pauses)
