"""Words and pauses: attention may lay a word beside a long pause into it, where nobody speaks. Pure.

Changes the times that are told, never what the loop does next.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from stapes.recording.listening import Heard
from stapes.results import Segment, Word, WordTiming

#: shorter pauses are left to attention
LEAST_PAUSE_S = 1.5
#: what the network hears of a word begins that much late at most, and ends that much early; whatever lies nearer to
#: speech than twice this is right as it is
_BLUR_S = 0.12
_FRAMES_PER_SECOND = 100


def has_hole(timings: Sequence[WordTiming], duration_s: float) -> bool:
    """Whether a window's words leave room for a pause: two of them begin so far apart, or none for so long."""
    starts = [0.0, *(one.start_s for one in timings), duration_s]
    return any(later - start >= LEAST_PAUSE_S for start, later in itertools.pairwise(starts))


def out_of_pauses(segments: Sequence[Segment], heard: Heard, first: int, end: int) -> list[Segment]:
    """Move what words have of their time in a pause out of it, and segments with them.

    heard: in the window's frames, `first` up to `end`.   A word that lies in a pause whole goes to the speech that is
    nearer, and keeps its length where there is room.
    """
    speech = [(a / _FRAMES_PER_SECOND, b / _FRAMES_PER_SECOND) for a, b in _without_short_pauses(heard.spans)]
    if not speech:
        return list(segments)
    edges = [first / _FRAMES_PER_SECOND, *(time for span in speech for time in span), end / _FRAMES_PER_SECOND]
    pauses = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= LEAST_PAUSE_S]
    found: list[Segment] = []
    said_until_s = 0.0
    for segment in segments:
        words: list[Word] = []
        for word in segment.words or ():
            moved = _moved(word, pauses, first / _FRAMES_PER_SECOND, end / _FRAMES_PER_SECOND)
            start_s = max(said_until_s, moved.start_s) if words or found else moved.start_s
            said_until_s = max(start_s, moved.end_s)
            words.append(replace(moved, start_s=start_s, end_s=said_until_s))
        found.append(_with_words(segment, words))
    return found


def _without_short_pauses(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and start - joined[-1][1] < LEAST_PAUSE_S * _FRAMES_PER_SECOND:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _moved(word: Word, pauses: Sequence[tuple[float, float]], first_s: float, end_s: float) -> Word:
    """Give a word the part of its time that is no pause."""
    for pause_start, pause_end in pauses:
        # Where a pause ends with the window, nobody knows when speech goes on: there is nowhere to move to.
        before = pause_start if pause_start > first_s else None
        after = pause_end if pause_end < end_s else None
        if word.end_s <= pause_start + 2 * _BLUR_S or word.start_s >= pause_end - 2 * _BLUR_S:
            continue
        duration_s = word.end_s - word.start_s
        if (
            word.end_s > pause_end + _BLUR_S
        ):  # over the whole of it too: attention runs ahead over pauses, and seldom lags
            return replace(word, start_s=round(pause_end - _BLUR_S, 2))
        if word.start_s < pause_start - _BLUR_S:
            return replace(word, end_s=round(pause_start + _BLUR_S, 2))
        if after is not None and (before is None or pause_end - word.end_s <= word.start_s - pause_start):
            start_s = round(pause_end - _BLUR_S, 2)
            return replace(word, start_s=start_s, end_s=round(start_s + duration_s, 2))
        if before is not None:
            end = round(pause_start + _BLUR_S, 2)
            return replace(word, start_s=max(0.0, round(end - duration_s, 2)), end_s=end)
    return word


def _with_words(segment: Segment, words: Sequence[Word]) -> Segment:
    if not words:
        return segment
    start_s = words[0].start_s if segment.words and segment.start_s == segment.words[0].start_s else segment.start_s
    end_s = words[-1].end_s if segment.words and segment.end_s == segment.words[-1].end_s else segment.end_s
    return replace(segment, words=tuple(words), start_s=min(start_s, words[0].start_s), end_s=max(end_s, start_s))
