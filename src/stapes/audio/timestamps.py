"""Where decoded samples are in their container's time, from the timestamps of decoded frames. Pure.

The model gets samples without gaps. A container may begin its sound later than its picture, leave out what a recorder
lost, or follow a clock that is not quite the sample rate. Then times counted in samples and times in players differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from stapes.audio.mel import FRAMES_PER_SECOND, HOP_LENGTH

#: Timestamps in milliseconds, long frames and encoders' run-in move single frames by less.
_JITTER_S: Final = 0.1
#: a difference that is worth a warning, and another clock
_NOTED_S: Final = 0.25
#: further back than this, timestamps started again (concatenated files) and do not refer to the sound before
_LONGEST_OVERLAP_S: Final = 10.0
#: No recording is late by more than a day; a forged timestamp must not make a day of silence a year of it.
_LONGEST_GAP_S: Final = 86_400.0
_MOST_PIECES: Final = 10_000

Spans = tuple[tuple[int, int], ...]


class Timestamps:
    """Finds the pieces in which samples and timestamps advance together."""

    def __init__(self, start_s: float | None, *, guessed_s: float = 0.0) -> None:
        """start_s: the timestamp at which the container begins, that of all its streams; None: its first sound.
        guessed_s: so much sound at the beginning may have timestamps that libav counts from 0, as it knows no better.
        """
        self._start_s = start_s
        self._guessed_s = guessed_s
        self._position_s = 0.0  # of the next frame, in decoded samples
        self._pieces = [(0.0, 0.0)]  # where each begins in samples, and by how much its timestamps are ahead
        self._doubtful: tuple[float, float] | None = None  # a piece that a second frame has to confirm
        self.end_s = 0.0  # timestamp at which the last frame ends
        self.restarted_at_s: float | None = None  # where timestamps started again, in samples

    def note(self, timestamp_s: float | None, duration_s: float) -> None:
        """Take the timestamp of the next decoded frame, and its length."""
        if timestamp_s is not None:
            if self._start_s is None:
                self._start_s = timestamp_s
            self._compare(timestamp_s - self._start_s - self._position_s)
            self.end_s = timestamp_s + duration_s
        self._position_s += duration_s

    def _compare(self, ahead_s: float) -> None:
        if abs(ahead_s - self._pieces[-1][1]) <= _JITTER_S:
            self._doubtful = None
        elif self._doubtful is None or abs(ahead_s - self._doubtful[1]) > _JITTER_S:
            self._doubtful = self._position_s, ahead_s
        else:
            self._begin_piece(*self._doubtful)
            self._doubtful = None

    def _begin_piece(self, position_s: float, ahead_s: float) -> None:
        before_s = self._pieces[-1][1]
        if 0 < position_s < self._guessed_s and len(self._pieces) == 1 and self._start_s is not None:
            self._start_s += ahead_s - before_s
        elif ahead_s < before_s - _LONGEST_OVERLAP_S or ahead_s > _LONGEST_GAP_S or len(self._pieces) >= _MOST_PIECES:
            assert self._start_s is not None
            self._start_s += ahead_s - before_s  # goes on as if without a break
            if self.restarted_at_s is None:
                self.restarted_at_s = position_s
        elif position_s == 0.0:
            self._pieces = [(0.0, max(0.0, ahead_s))]
        else:
            self._pieces.append((position_s, max(ahead_s, -position_s)))

    def spans(self, n_samples: int) -> Spans:
        """Return the pieces in the container's time, in samples at 16 kHz; none where its time is that of the samples.
        n_samples: decoded, at 16 kHz.   A piece may begin before the previous one ends.
        """
        if all(abs(ahead_s) < _JITTER_S for _, ahead_s in self._pieces):
            return ()
        begins = [_whole_frames(position_s) for position_s, _ in self._pieces] + [n_samples]
        ahead = [_whole_frames(ahead_s) for _, ahead_s in self._pieces]
        ends = [min(begin, n_samples) for begin in begins]
        found = zip(ends[:-1], ends[1:], ahead, strict=True)
        return tuple((begin + moved, end + moved) for begin, end, moved in found if begin < end)

    def notes(self) -> Iterator[str]:
        """Yield clauses, to follow "its", on differences that need another clock."""
        (_, late_s), *later = self._pieces
        if late_s >= _NOTED_S:
            yield f"sound begins {late_s:.1f} s later than the file (its picture or another stream)"
        jumps = [
            (at_s, ahead_s - before_s) for (at_s, ahead_s), (_, before_s) in zip(later, self._pieces, strict=False)
        ]
        gaps = [(at_s, jump_s) for at_s, jump_s in jumps if jump_s > 0]
        gaps_s = sum(jump_s for _, jump_s in gaps)
        if gaps_s >= _NOTED_S and len(gaps) == 1:
            yield f"timestamps have a gap of {gaps_s:.1f} s after {gaps[0][0]:.1f} s of sound"
        elif gaps_s >= _NOTED_S:
            yield f"timestamps have {len(gaps)} gaps, {gaps_s:.1f} s in all, the first after {gaps[0][0]:.1f} s"
        overlaps = [(at_s, -jump_s) for at_s, jump_s in jumps if jump_s < 0]
        overlaps_s = sum(jump_s for _, jump_s in overlaps)
        if overlaps_s >= _NOTED_S:
            yield f"timestamps go back by {overlaps_s:.1f} s, first after {overlaps[0][0]:.1f} s of sound"


def _whole_frames(seconds: float) -> int:
    return round(seconds * FRAMES_PER_SECOND) * HOP_LENGTH
