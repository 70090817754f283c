"""A recording without the stretches in which nobody speaks, and the way back to its own time. Pure."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stapes.audio.mel import FRAMES_PER_SECOND, HOP_LENGTH
from stapes.recording.listening import Frames
from stapes.recording.vad import SAMPLE_RATE, Span
from stapes.results import Flag, Segment, Transcript, Window, Word

#: frames by which two times that are meant to be equal may differ in their last bits
_HAIR = 1e-6


@dataclass(frozen=True, slots=True)
class Seam:
    """Where two spans meet, in frames of the spliced recording."""

    at: int
    quiet: tuple[int, int]  # what lies around it in which nobody was heard: half-open; empty where that is not known


class TimeMap:
    """From the time of spans that are played one behind the other to that of the recording they were cut from."""

    def __init__(self, spans: Sequence[Span], n_samples: int, heard: Sequence[Span] | None = None) -> None:
        """Take spans whose bounds are whole frames, in order and apart, of a recording of so many samples.

        heard: where in them somebody speaks, in whole frames too; None: not known.
        """
        self._spans = tuple(spans) or (Span(0, 0),)
        self._heard = self._spans if heard is None else tuple(heard)
        #: where each span begins in the spliced recording, in frames, and where the last one ends
        self._begin = [
            0, *itertools.accumulate((span.end - span.start) / HOP_LENGTH for span in self._spans)
        ]  # fmt: skip
        #: before which no time of a span lies: the end of those before it, where timestamps overlap
        self._floor_s = [
            end / SAMPLE_RATE
            for end in itertools.accumulate((span.end for span in self._spans[:-1]), max, initial=-math.inf)
        ]
        self.duration_s = n_samples / SAMPLE_RATE

    @classmethod
    def of_container(cls, spans: Sequence[tuple[int, int]]) -> TimeMap | None:
        """Make the map to a container's time (`Recording.spans`); None where its time is that of the samples.

        Here spans may overlap, as a recorder's timestamps do where its clock runs slow; times still never go back.
        """
        return cls([Span(*span) for span in spans], max(end for _, end in spans)) if spans else None

    def then(self, outer: TimeMap) -> TimeMap:
        """Make the map that maps by this one, and what comes of that by `outer`."""
        pieces = [
            Span(first * HOP_LENGTH, end * HOP_LENGTH)
            for span in self._spans
            for first, end in outer.frames(span.start // HOP_LENGTH, -(-span.end // HOP_LENGTH))
        ]
        return TimeMap(pieces, round(outer.duration_s * SAMPLE_RATE))

    def back(self, seconds: float) -> float:
        """Map a time the other way; one between two spans is where they meet, one behind the last stays behind it."""
        frame = seconds * FRAMES_PER_SECOND
        for span, begin in zip(self._spans, self._begin, strict=False):
            start, end = span.start / HOP_LENGTH, span.end / HOP_LENGTH
            if frame < end:
                return (begin + max(0.0, frame - start)) / FRAMES_PER_SECOND
        return (self._begin[-1] + frame - end) / FRAMES_PER_SECOND

    def window_back(self, one: Window) -> Window:
        """Give a window that was mapped in the time it was decoded in."""
        edges = [
            [round(self.back(frame / FRAMES_PER_SECOND) * FRAMES_PER_SECOND) for frame in part] for part in one.frames
        ]
        return replace(one, seek=edges[0][0], left_out=_left_out(edges))

    def start(self, seconds: float) -> float:
        """Map when something begins: what begins where two spans meet belongs to the later one."""
        return self._moved(seconds, bisect.bisect_right(self._begin, seconds * FRAMES_PER_SECOND + _HAIR) - 1)

    def end(self, seconds: float) -> float:
        """Map when something ends: what ends where two spans meet belongs to the earlier one."""
        return self._moved(seconds, bisect.bisect_left(self._begin, seconds * FRAMES_PER_SECOND - _HAIR) - 1)

    def _moved(self, seconds: float, span: int) -> float:
        span = min(max(span, 0), len(self._spans) - 1)
        frames = self._spans[span].start / HOP_LENGTH - self._begin[span]
        seconds = min(seconds, self._begin[-1] / FRAMES_PER_SECOND)  # a model's times may lie behind its sound
        moved = max(round(seconds + frames / FRAMES_PER_SECOND, 3), self._floor_s[span])
        return min(moved, self.duration_s)

    def segment(self, one: Segment) -> Segment:
        """Map a segment: one that goes over a cut lasts from one span into the other, a word stays on one side."""
        start_s, end_s = self.start(one.start_s), self.end(one.end_s)
        words = None if one.words is None else tuple(map(self._word, one.words))
        if words:
            start_s, end_s = min(start_s, words[0].start_s), max(words[-1].end_s, start_s)
        return replace(one, seek=self._frame(one.seek), start_s=start_s, end_s=max(start_s, end_s), words=words)

    def _word(self, word: Word) -> Word:
        middle = (word.start_s + word.end_s) / 2 * FRAMES_PER_SECOND
        span = min(max(bisect.bisect_right(self._begin, middle + _HAIR) - 1, 0), len(self._spans) - 1)
        first, last = (self._begin[span + i] / FRAMES_PER_SECOND for i in (0, 1))
        start_s, end_s = (min(max(time, first), last) for time in (word.start_s, word.end_s))
        return replace(word, start_s=self._moved(start_s, span), end_s=self._moved(end_s, span))

    def window(self, one: Window) -> Window:
        """Map where a window begins and what is left out of it, and where the loop went on."""
        frames = [mapped for first, end in one.frames for mapped in self.frames(first, end)]
        seek, next_seek = self._frame(one.seek), self._frame(one.next_seek)
        return replace(one, seek=seek, next_seek=next_seek, left_out=_left_out(frames))

    @property
    def seams(self) -> tuple[Seam, ...]:
        """Give the places at which spans meet, in order."""
        starts, ends = [one.start for one in self._heard], [one.end for one in self._heard]
        found = []
        for at, (before, behind) in zip(self._begin[1:-1], itertools.pairwise(self._spans), strict=True):
            last, first = bisect.bisect_left(starts, before.end) - 1, bisect.bisect_right(ends, behind.start)
            silent = before.end - max(before.start, min(before.end, ends[last] if last >= 0 else 0))
            until = min(behind.end, max(behind.start, starts[first] if first < len(starts) else behind.end))
            quiet = round(at - silent / HOP_LENGTH), round(at + (until - behind.start) / HOP_LENGTH)
            found.append(Seam(round(at), quiet))
        return tuple(found)

    def frames(self, first: int, end: int) -> tuple[tuple[int, int], ...]:
        """Say which frames of the recording frames first..end are: half-open stretches, in order and apart."""
        found = []
        for span, begin in zip(self._spans, self._begin, strict=False):
            start, stop = span.start / HOP_LENGTH, span.end / HOP_LENGTH
            lower, upper = max(start, start + first - begin), min(stop, start + end - begin)
            if lower < upper:
                found.append((round(lower), round(upper)))
        return tuple(found)

    def flag(self, one: Flag) -> Flag:
        """Map what a guard did."""
        start_s = self.start(one.start_s)
        return replace(one, start_s=start_s, end_s=max(start_s, self.end(one.end_s)))

    def transcript(self, one: Transcript) -> Transcript:
        """Map everything found."""
        return replace(
            one,
            segments=tuple(map(self.segment, one.segments)),
            windows=tuple(map(self.window, one.windows)),
            flags=tuple(map(self.flag, one.flags)),
        )

    def _frame(self, seek: int) -> int:
        return round(self.start(seek / FRAMES_PER_SECOND) * FRAMES_PER_SECOND)


def _left_out(frames: Sequence[Sequence[int]]) -> Frames:
    """Say what lies between stretches; nothing where they touch, or overlap."""
    edges = ((before[1], behind[0]) for before, behind in itertools.pairwise(frames))
    return tuple((end, first) for end, first in edges if end < first)


def whole_frames(spans: Sequence[Span], n_samples: int) -> tuple[Span, ...]:
    """Widen spans to whole frames of 10 ms, so that times move by whole frames; those that then touch are joined."""
    found: list[Span] = []
    for span in spans:
        start = span.start // HOP_LENGTH * HOP_LENGTH
        end = min(-(-span.end // HOP_LENGTH) * HOP_LENGTH, n_samples)
        if found and start <= found[-1].end:
            found[-1] = Span(found[-1].start, end)
        else:
            found.append(Span(start, end))
    return tuple(found)


def within(spans: Sequence[Span], clips: Sequence[tuple[int, int]]) -> tuple[Span, ...]:
    """Give what of spans lies in clips (first frame, first behind the end), in the recording's order."""
    cut = (
        Span(max(span.start, first * HOP_LENGTH), min(span.end, last * HOP_LENGTH))
        for first, last in clips for span in spans
    )  # fmt: skip
    return tuple(sorted((span for span in cut if span.start < span.end), key=lambda span: span.start))
