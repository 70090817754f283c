"""Pause guard: doubtful text around a long pause is decoded again without the pause.

Whisper makes more errors around a long pause than without one: it leaves speech out, or fills the pause with text.
Sees speech in a window and the scores of its text. May cut pauses out of the timeline, after which the window is
another one, and end a window early, in a pause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stapes.audio.intervals import Interval
from stapes.audio.mel import FRAMES_PER_SECOND
from stapes.recording.guards.rules import LONG_PAUSE, is_doubtful
from stapes.recording.guards.state import GuardState
from stapes.recording.segments import Cut, WindowSpan
from stapes.results import WindowResult
from stapes.vad.spans import SpeechMap

#: frames of it that are kept on either side: sentences have pauses.
#: At a window's end too: there may be speech right after it
_KEPT = 80
#: scores of doubtful text that is likely to be wrong
_AVG_LOGPROB, _COMPRESSION = -0.6, 2.2
#: frames that a window has at least that ends in a pause; speech reaches its end as far as so many frames before it
_LEAST_WINDOW, _TO_THE_END = 1000, 5
_DOUBTFUL = "the text around this pause was doubtful"


@dataclass(frozen=True, slots=True)
class Pause:
    """A long pause, and the part that is cut out, in frames: half-open."""

    start: int
    end: int
    left_out: Interval


@dataclass(frozen=True, slots=True)
class Again:
    """How a window is decoded again: without its long pauses, or without its prompt."""

    pauses: tuple[Pause, ...] = ()
    without_prompt: bool = False


def long_pauses(speech: SpeechMap, first: int, end: int, seams: Sequence[int] = ()) -> tuple[Pause, ...]:
    """Find the long pauses of a window of frames first..end, in order; none where there is no speech at all.

    seams: frames before which something was cut out already: the kept part of a pause before a seam stays.
    """
    if not speech.within(first, end):
        return ()
    found = []
    for start, stop in speech.gaps(first, end):
        if stop - start >= LONG_PAUSE:
            kept_until = start if start == first else start + _KEPT
            kept_until = next((seam for seam in seams if start < seam <= start + 2 * _KEPT), kept_until)
            found.append(Pause(start, stop, (kept_until, stop - _KEPT)))
    return tuple(found)


def should_cut(pauses: Sequence[Pause], result: WindowResult, clip: Interval) -> bool:
    """Whether doubtful text is to be decoded again without its long pauses: one before all speech or after it counts
    only where the text is likely to be wrong. clip: what the recording's text is made of, in frames.
    """
    refused = len(result.tries) > 1
    unsure = refused or result.avg_logprob < _AVG_LOGPROB or result.compression_ratio > _COMPRESSION
    return any(unsure or (clip[0] < one.start and one.end < clip[1]) for one in pauses)


def pauses_to_cut(
    state: GuardState, result: WindowResult, found: Cut, window: WindowSpan, clip: Interval
) -> tuple[Pause, ...]:
    """Return the long pauses to cut out before a window is decoded again; none: it stays as it is."""
    if not state.on.pause_guard or state.speech is None or state.without_pauses:
        return ()
    if not is_doubtful(result, found, window, state.eot):
        return ()
    pauses = _pauses_of(state, window)
    return pauses if should_cut(pauses, result, clip) else ()


def more_pauses(state: GuardState, window: WindowSpan) -> tuple[Pause, ...]:
    """Return the long pauses that moved into a window when others were cut out of it."""
    return _pauses_of(state, window) if state.without_pauses else ()


def _pauses_of(state: GuardState, window: WindowSpan) -> tuple[Pause, ...]:
    if state.speech is None:
        return ()
    return long_pauses(state.speech, window.seek, window.end, state.timeline.left_out_before)


def cut_out(state: GuardState, pauses: Sequence[Pause]) -> None:
    """Take long pauses out of the timeline; the window is then another one."""
    for one in pauses:
        flag = state.flag("pause", one.start / FRAMES_PER_SECOND, one.end / FRAMES_PER_SECOND, _DOUBTFUL)
        last = state.flags[-1] if state.flags else None
        goes_on = last is not None and last.guard == "pause" and flag.start_s <= last.end_s  # beyond the window
        state.add(flag, extends_last=goes_on)
    state.timeline.leave_out(one.left_out for one in pauses)
    state.without_pauses, state.speech = True, None


def frames_to_decode(state: GuardState, window: WindowSpan, *, is_rest: bool) -> int:
    """Return how many frames of a window to decode.

    A window that would end inside speech ends in the last pause that was cut out of it, so that the next window has the
    whole sentence.
    """
    speech = state.speech if state.without_pauses and not is_rest else None
    if speech is None or not speech.within(window.end - _TO_THE_END, window.end):
        return window.n_frames
    seams = state.timeline.seams(window.seek + _LEAST_WINDOW, window.end)
    return seams[-1].at - window.seek if seams else window.n_frames


def voices(state: GuardState, first: int, end: int) -> tuple[Interval, ...]:
    """Return speech in frames first..end, counted from the first, where long pauses were cut out; else nothing."""
    return state.speech.counted_from(first, end) if state.without_pauses and state.speech else ()
