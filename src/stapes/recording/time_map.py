"""Maps between a recording's time and the time of its remaining parts. Pure."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from stapes.audio.intervals import Interval, Intervals
from stapes.audio.mel import FRAMES_PER_SECOND, HOP_LENGTH
from stapes.results import Flag, Segment, Transcript, Window, Word
from stapes.vad.spans import SAMPLE_RATE

#: frames by which two times that are meant to be equal may differ in their last bits
_HAIR = 1e-6


@dataclass(frozen=True, slots=True)
class Seam:
    """Where two spans meet, in frames of the joined recording."""

    at: int
    quiet: Interval  # frames without speech around it; empty where that is not known


class TimeMap:
    """Maps the time of joined spans to the time of the recording that they were cut from."""

    def __init__(self, spans: Sequence[Interval], n_samples: int, speech: Sequence[Interval] | None = None) -> None:
        """Take spans in samples whose bounds are whole frames, in order and apart, of a recording of so many samples.

        speech: where speech is in them, in whole frames too; None: not known.
        """
        self._spans = tuple(spans) or ((0, 0),)
        self._speech = self._spans if speech is None else tuple(speech)
        #: where each span begins in the joined recording, in frames, and where the last one ends
        self._begin = [0, *itertools.accumulate((end - start) / HOP_LENGTH for start, end in self._spans)]
        #: the earliest time of each span: where timestamps overlap, the end of the spans before it
        floor = itertools.accumulate((end for _, end in self._spans[:-1]), max, initial=-math.inf)
        self._floor_s = [end / SAMPLE_RATE for end in floor]
        self.duration_s = n_samples / SAMPLE_RATE

    @classmethod
    def of_container(cls, spans: Sequence[Interval]) -> TimeMap | None:
        """Make the map to a container's time (`Recording.spans`); None where its time is that of the samples.

        Here spans may overlap, as timestamps of a recorder with a slow clock do. Times still never go back.
        """
        return cls(spans, max(end for _, end in spans)) if spans else None

    def then(self, outer: TimeMap) -> TimeMap:
        """Return the map that applies this one first, then `outer`."""
        pieces = [
            (first * HOP_LENGTH, end * HOP_LENGTH)
            for start, stop in self._spans
            for first, end in outer.frames(start // HOP_LENGTH, -(-stop // HOP_LENGTH))
        ]
        return TimeMap(pieces, round(outer.duration_s * SAMPLE_RATE))

    def back(self, seconds: float) -> float:
        """Map a time back; a time between two spans maps to where they meet, one after the last stays after it."""
        frame = seconds * FRAMES_PER_SECOND
        for (start, end), begin in zip(self._spans, self._begin, strict=False):
            if frame < end / HOP_LENGTH:
                return (begin + max(0.0, frame - start / HOP_LENGTH)) / FRAMES_PER_SECOND
        return (self._begin[-1] + frame - end / HOP_LENGTH) / FRAMES_PER_SECOND

    def window_back(self, one: Window) -> Window:
        """Return a mapped window in the time in which it was decoded."""
        edges = [
            [round(self.back(frame / FRAMES_PER_SECOND) * FRAMES_PER_SECOND) for frame in part] for part in one.frames
        ]
        return replace(one, seek=edges[0][0], left_out=_left_out(edges))

    def start(self, seconds: float) -> float:
        """Map a start: where two spans meet, it belongs to the later one."""
        return self._moved(seconds, bisect.bisect_right(self._begin, seconds * FRAMES_PER_SECOND + _HAIR) - 1)

    def end(self, seconds: float) -> float:
        """Map an end: where two spans meet, it belongs to the earlier one."""
        return self._moved(seconds, bisect.bisect_left(self._begin, seconds * FRAMES_PER_SECOND - _HAIR) - 1)

    def _moved(self, seconds: float, span: int) -> float:
        span = min(max(span, 0), len(self._spans) - 1)
        frames = self._spans[span][0] / HOP_LENGTH - self._begin[span]
        seconds = min(seconds, self._begin[-1] / FRAMES_PER_SECOND)  # a model's times may be after its sound
        moved = max(round(seconds + frames / FRAMES_PER_SECOND, 3), self._floor_s[span])
        return min(moved, self.duration_s)

    def segment(self, one: Segment) -> Segment:
        """Map a segment: a segment may span a cut, a word stays on one side."""
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
        """Map a window: its start, the parts left out of it, and where the loop went on."""
        frames = [mapped for first, end in one.frames for mapped in self.frames(first, end)]
        seek, next_seek = self._frame(one.seek), self._frame(one.next_seek)
        return replace(one, seek=seek, next_seek=next_seek, left_out=_left_out(frames))

    @property
    def seams(self) -> tuple[Seam, ...]:
        """Return the places at which spans meet, in order."""
        starts, ends = [start for start, _ in self._speech], [end for _, end in self._speech]
        found = []
        for at, ((start, cut), (resumed, end)) in zip(self._begin[1:-1], itertools.pairwise(self._spans), strict=True):
            last, first = bisect.bisect_left(starts, cut) - 1, bisect.bisect_right(ends, resumed)
            silent = cut - max(start, min(cut, ends[last] if last >= 0 else 0))
            until = min(end, max(resumed, starts[first] if first < len(starts) else end))
            quiet = round(at - silent / HOP_LENGTH), round(at + (until - resumed) / HOP_LENGTH)
            found.append(Seam(round(at), quiet))
        return tuple(found)

    def frames(self, first: int, end: int) -> tuple[Interval, ...]:
        """Map frames first..end to the recording's frames, in order and apart."""
        found = []
        for span, begin in zip(self._spans, self._begin, strict=False):
            start, stop = span[0] / HOP_LENGTH, span[1] / HOP_LENGTH
            lower, upper = max(start, start + first - begin), min(stop, start + end - begin)
            if lower < upper:
                found.append((round(lower), round(upper)))
        return tuple(found)

    def flag(self, one: Flag) -> Flag:
        """Map a guard's flag."""
        start_s = self.start(one.start_s)
        return replace(one, start_s=start_s, end_s=max(start_s, self.end(one.end_s)))

    def transcript(self, one: Transcript) -> Transcript:
        """Map a transcript."""
        return replace(
            one,
            segments=tuple(map(self.segment, one.segments)),
            windows=tuple(map(self.window, one.windows)),
            flags=tuple(map(self.flag, one.flags)),
        )

    def _frame(self, seek: int) -> int:
        return round(self.start(seek / FRAMES_PER_SECOND) * FRAMES_PER_SECOND)


def _left_out(frames: Sequence[Sequence[int]]) -> tuple[Interval, ...]:
    """Return the gaps between stretches; none where they touch or overlap."""
    edges = ((before[1], after[0]) for before, after in itertools.pairwise(frames))
    return tuple((end, first) for end, first in edges if end < first)


class Timeline:
    """The remaining stretches of a recording, joined."""

    def __init__(self, content_frames: int, spliced_at: Sequence[Seam] = ()) -> None:
        """Take the recording's length, and where it was joined from spans."""
        self._content_frames = content_frames
        self._spliced_at = tuple(spliced_at)
        self._map: TimeMap | None = None  # None: nothing is left out
        self.n_frames = content_frames  # that are left

    def put_back(self) -> None:
        """Restore all frames."""
        self._map, self.n_frames = None, self._content_frames

    def leave_out(self, pauses: Iterable[tuple[int, int]]) -> None:
        """Take frames out. pauses: in this time, half-open, in order and apart; not empty, and not all frames."""
        kept = [part for gap in Intervals(tuple(pauses)).gaps(0, self.n_frames) for part in self.frames(*gap)]
        spans = [(first * HOP_LENGTH, end * HOP_LENGTH) for first, end in kept]
        self._map = TimeMap(spans, self._content_frames * HOP_LENGTH)
        self.n_frames = sum(end - first for first, end in kept)

    @property
    def left_out_before(self) -> tuple[int, ...]:
        """Frames before which something was left out."""
        return () if self._map is None else tuple(seam.at for seam in self._map.seams)

    def seams(self, first: int, end: int) -> tuple[Seam, ...]:
        """Return the seams between two frames: those of the cuts, and the recording's."""
        known = self._spliced_at
        if self._map is not None:
            own = (Seam(self._left(one.at), (self._left(one.quiet[0]), self._left(one.quiet[1]))) for one in known)
            known = tuple(sorted((*self._map.seams, *own), key=lambda one: one.at))
        return tuple(one for one in known if first <= one.at <= end)

    def _left(self, frame: int) -> int:
        """Return how many frames are left before a frame of the recording."""
        return sum(max(0, min(stop, frame) - start) for start, stop in self.frames(0, self.n_frames))

    def frames(self, first: int, end: int) -> tuple[Interval, ...]:
        """Map frames first..end to the recording's frames."""
        return ((first, end),) if self._map is None else self._map.frames(first, end)

    def frame(self, frame: int) -> int:
        """Map a frame to the recording's; one after the end maps to the end."""
        return self.frames(frame, frame + 1)[0][0] if frame < self.n_frames else self._content_frames

    def end(self, seconds: float) -> float:
        """Map an end to the recording's time."""
        return seconds if self._map is None else self._map.end(seconds)

    def segments(self, ones: Sequence[Segment]) -> list[Segment]:
        """Return segments in the recording's time."""
        return list(ones) if self._map is None else [self._map.segment(one) for one in ones]

    def flag(self, one: Flag) -> Flag:
        """Return a guard's flag in the recording's time."""
        return one if self._map is None else self._map.flag(one)

    def window(self, one: Window) -> Window:
        """Return a window in the recording's time, with what is left out of it."""
        return one if self._map is None else self._map.window(one)


def clips_in_frames(times: tuple[float, ...], content_frames: int) -> list[tuple[int, int]]:
    """Turn seconds (start, end, start, end, ...) into frames; a last start alone runs to the recording's end."""
    points = [round(time * FRAMES_PER_SECOND) for time in times] or [0]
    if len(points) % 2:
        points.append(content_frames)
    # An end past the recording would keep the reference decoding nothing without end.
    return [(start, min(end, content_frames)) for start, end in zip(points[::2], points[1::2], strict=True)]
