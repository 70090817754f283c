"""The time that a seek loop counts in: a clip's, without the pauses that were left out of it. Pure.

Up to the first pause that is left out it is the recording's own. What has been decoded lies before whatever is left
out later, so that times that were told stay true.

A recording that was itself put together out of spans, as with `vad=True`, has seams of its own, known here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stapes.audio.mel import FRAMES_PER_SECOND, HOP_LENGTH
from stapes.recording.listening import Frames
from stapes.recording.splice import Seam, TimeMap
from stapes.recording.vad import Span
from stapes.results import Flag, Segment, Window


class Timeline:
    """What is left of a recording, one stretch behind the other."""

    def __init__(self, content_frames: int, spliced_at: Sequence[Seam] = ()) -> None:
        """Take the recording's length, and where it was put together out of spans."""
        self._content_frames = content_frames
        self._spliced_at = tuple(spliced_at)
        self._map: TimeMap | None = None  # None: nothing is left out
        self.n_frames = content_frames  # that are left

    def put_back(self) -> None:
        """Count in the recording's time again."""
        self._map, self.n_frames = None, self._content_frames

    def leave_out(self, pauses: Iterable[tuple[int, int]]) -> None:
        """Take frames out. pauses: in this time, half-open, in order and apart; not empty, and not all there is."""
        edges = [0, *(frame for pause in pauses for frame in pause), self.n_frames]
        kept = [part for first, end in zip(edges[::2], edges[1::2], strict=True) for part in self.frames(first, end)]
        spans = [Span(first * HOP_LENGTH, end * HOP_LENGTH) for first, end in kept]
        self._map = TimeMap(spans, self._content_frames * HOP_LENGTH)
        self.n_frames = sum(end - first for first, end in kept)

    @property
    def left_out_before(self) -> tuple[int, ...]:
        """Frames before which something was left out."""
        return () if self._map is None else tuple(seam.at for seam in self._map.seams)

    def seams(self, first: int, end: int) -> tuple[Seam, ...]:
        """Give what lies between two frames of the seams: those of what was left out, and the recording's own."""
        known = self._spliced_at
        if self._map is not None:
            own = (Seam(self._left(one.at), (self._left(one.quiet[0]), self._left(one.quiet[1]))) for one in known)
            known = tuple(sorted((*self._map.seams, *own), key=lambda one: one.at))
        return tuple(one for one in known if first <= one.at <= end)

    def _left(self, frame: int) -> int:
        """Say how many frames are left before a frame of the recording."""
        return sum(max(0, min(stop, frame) - start) for start, stop in self.frames(0, self.n_frames))

    def frames(self, first: int, end: int) -> Frames:
        """Say which frames of the recording frames first..end are."""
        return ((first, end),) if self._map is None else self._map.frames(first, end)

    def frame(self, frame: int) -> int:
        """Say which frame of the recording a frame is; one behind the end is the end."""
        return self.frames(frame, frame + 1)[0][0] if frame < self.n_frames else self._content_frames

    def end(self, seconds: float) -> float:
        """Say when something ends in the recording."""
        return seconds if self._map is None else self._map.end(seconds)

    def segments(self, ones: Sequence[Segment]) -> list[Segment]:
        """Give segments in the recording's time."""
        return list(ones) if self._map is None else [self._map.segment(one) for one in ones]

    def flag(self, one: Flag) -> Flag:
        """Give what a guard did in the recording's time."""
        return one if self._map is None else self._map.flag(one)

    def window(self, one: Window) -> Window:
        """Give a window in the recording's time, with what is left out of it."""
        return one if self._map is None else self._map.window(one)


def clips_in_frames(times: tuple[float, ...], content_frames: int) -> list[tuple[int, int]]:
    """Turn seconds (start, end, start, end, ...) into frames; a last start alone runs to the recording's end."""
    points = [round(time * FRAMES_PER_SECOND) for time in times] or [0]
    if len(points) % 2:
        points.append(content_frames)
    # An end past the recording would keep the reference decoding nothing for ever.
    return [(start, min(end, content_frames)) for start, end in zip(points[::2], points[1::2], strict=True)]
