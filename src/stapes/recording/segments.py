"""One window's tokens -> segments, and how far to move on. Pure.

Source: openai/whisper transcribe.py at c0d2f62, the middle of the seek loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stapes.audio.mel import FRAMES_PER_SECOND
from stapes.results import Word

#: seconds per frame: 10 ms
FRAME_SECONDS = 160 / 16000


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowGeometry:
    """Where a window lies."""

    seek: int  # first frame of the window in the recording, 10 ms each
    n_frames: int  # frames of content, at most 3000
    frames_per_timestamp: int  # 2: timestamps are 20 ms apart
    timestamp_begin: int

    @property
    def offset_s(self) -> float:
        """Seconds from the recording's start to the window's."""
        return float(self.seek * 160 / 16000)

    def position(self, token: int) -> int:
        """How many timestamp steps a timestamp lies behind the window's start."""
        return token - self.timestamp_begin

    def seconds(self, token: int) -> float:
        """When a timestamp lies in the recording."""
        return self.offset_s + self.position(token) * (self.frames_per_timestamp * 160 / 16000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A segment before it has its text."""

    start_s: float
    end_s: float
    tokens: tuple[int, ...]
    words: tuple[Word, ...] = ()
    flags: tuple[str, ...] = ()  # guards that took text out of it, or behind it


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What a window's tokens say."""

    pieces: tuple[Piece, ...]
    advance: int  # frames to move on, always > 0
    closed: bool = False  # whether it ends in a lone timestamp: nothing is spoken behind it


def cut(tokens: Sequence[int], window: WindowGeometry) -> Cut:
    """Cut one window's tokens at each pair of consecutive timestamps.

    tokens: sampled ids without end-of-text.
    A tail that ends in a lone timestamp is a piece too, and the loop moves on by the window. Any other tail is
    dropped, and the loop goes back to the last pair. Without a pair, all is one piece.
    """
    is_time = [token >= window.timestamp_begin for token in tokens]
    closed = is_time[-2:] == [False, True]
    ends = [i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i]]
    if not ends:
        return Cut(pieces=(_whole(tokens, window),), advance=window.n_frames, closed=closed)
    if closed:
        ends.append(len(tokens))
    pieces = []
    start = 0
    for end in ends:
        part = tuple(tokens[start:end])
        pieces.append(Piece(start_s=window.seconds(part[0]), end_s=window.seconds(part[-1]), tokens=part))
        start = end
    advance = window.n_frames if closed else window.position(tokens[start - 1]) * window.frames_per_timestamp
    # Only tokens that break the timestamp rules point nowhere; the reference would decode this window for ever.
    return Cut(pieces=tuple(pieces), advance=advance if advance > 0 else window.n_frames, closed=closed)


def bounded(found: Cut, window: WindowGeometry) -> Cut:
    """Hold times to a window that ends where something else begins: the network may point behind its end."""
    end_s = window.offset_s + window.n_frames * 160 / 16000
    pieces = tuple(replace(one, end_s=min(one.end_s, end_s)) for one in found.pieces if one.start_s < end_s)
    return replace(found, pieces=pieces or found.pieces[:1], advance=min(found.advance, window.n_frames))


def _whole(tokens: Sequence[int], window: WindowGeometry) -> Piece:
    """One piece from the window's start to its last timestamp, or to its end where that says nothing."""
    times = [token for token in tokens if token >= window.timestamp_begin]
    if times and window.position(times[-1]) != 0:
        duration = window.position(times[-1]) * (window.frames_per_timestamp * 160 / 16000)
    else:
        duration = window.n_frames * 160 / 16000
    return Piece(start_s=window.offset_s, end_s=window.offset_s + duration, tokens=tuple(tokens))


@dataclass(frozen=True, slots=True)
class Place:
    """Which stretch was decoded, in frames of the recording."""

    seek: int
    n_frames: int

    @property
    def end(self) -> int:
        """The first frame behind it."""
        return self.seek + self.n_frames

    @property
    def start_s(self) -> float:
        """Where it begins."""
        return self.seek / FRAMES_PER_SECOND

    @property
    def end_s(self) -> float:
        """Where it ends."""
        return self.end / FRAMES_PER_SECOND
