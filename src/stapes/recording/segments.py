"""One window's tokens -> segments, and how far to move on. Pure.

Source: openai/whisper transcribe.py at c0d2f62, the middle of the seek loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from stapes.audio.mel import FRAMES_PER_SECOND
from stapes.results import Word


@dataclass(frozen=True, slots=True)
class WindowSpan:
    """Where a window's content is, in frames of 10 ms."""

    seek: int
    n_frames: int  # at most 3000

    @property
    def end(self) -> int:
        """The first frame after it."""
        return self.seek + self.n_frames

    @property
    def start_s(self) -> float:
        """When it begins."""
        return self.seek / FRAMES_PER_SECOND

    @property
    def end_s(self) -> float:
        """When it ends."""
        return self.end / FRAMES_PER_SECOND

    @property
    def duration_s(self) -> float:
        """How long it is. start_s + duration_s, as the reference adds them, may differ from end_s in the last bit."""
        return self.n_frames / FRAMES_PER_SECOND


@dataclass(frozen=True, slots=True)
class TimestampIds:
    """Ids of timestamps and the times that they stand for."""

    begin: int  # id of the first one, 0.0 s
    frames_per_step: int  # 2: timestamps are 20 ms apart

    def position(self, token: int) -> int:
        """Return a timestamp's number of steps."""
        return token - self.begin

    def seconds(self, token: int) -> float:
        """Return a timestamp's time from the window's start."""
        return self.position(token) * (self.frames_per_step / FRAMES_PER_SECOND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A segment before it has its text."""

    start_s: float
    end_s: float
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] | None = None  # of each token; None: not asked for
    words: tuple[Word, ...] = ()
    flags: tuple[str, ...] = ()  # guards that took text out of it, or after it


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The pieces of a window's tokens."""

    pieces: tuple[Piece, ...]
    advance: int  # frames to move on, always > 0
    closed: bool = False  # whether it ends in a lone timestamp: nothing is spoken after it


def cut(
    tokens: Sequence[int], window: WindowSpan, times: TimestampIds, logprobs: tuple[float, ...] | None = None
) -> Cut:
    """Cut one window's tokens at each pair of consecutive timestamps.

    tokens: sampled ids without end-of-text.   logprobs: of each; None: not kept.
    A tail that ends in a lone timestamp is a piece too, and the loop moves on by the window. Any other tail is
    dropped, and the loop goes back to the last pair. Without a pair, all is one piece.
    """
    is_time = [token >= times.begin for token in tokens]
    closed = is_time[-2:] == [False, True]
    ends = [i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i]]
    if not ends:
        return Cut(pieces=(_whole(tokens, window, times, logprobs),), advance=window.n_frames, closed=closed)
    if closed:
        ends.append(len(tokens))
    pieces = []
    start = 0
    for end in ends:
        part = tuple(tokens[start:end])
        start_s, end_s = (window.start_s + times.seconds(token) for token in (part[0], part[-1]))
        kept = None if logprobs is None else logprobs[start:end]
        pieces.append(Piece(start_s=start_s, end_s=end_s, tokens=part, logprobs=kept))
        start = end
    advance = window.n_frames if closed else times.position(tokens[start - 1]) * times.frames_per_step
    # Only tokens that break the timestamp rules point nowhere; the reference would decode this window without end.
    return Cut(pieces=tuple(pieces), advance=advance if advance > 0 else window.n_frames, closed=closed)


def bounded(found: Cut, window: WindowSpan) -> Cut:
    """Clamp times to a window that ends early: the network may point after its end."""
    end_s = window.start_s + window.duration_s
    pieces = tuple(replace(one, end_s=min(one.end_s, end_s)) for one in found.pieces if one.start_s < end_s)
    return replace(found, pieces=pieces or found.pieces[:1], advance=min(found.advance, window.n_frames))


def _whole(tokens: Sequence[int], window: WindowSpan, times: TimestampIds, logprobs: tuple[float, ...] | None) -> Piece:
    """Make one piece from the window's start to its last timestamp, or to its end without one."""
    found = [token for token in tokens if token >= times.begin]
    says_end = bool(found) and times.position(found[-1]) != 0
    duration_s = times.seconds(found[-1]) if says_end else window.duration_s
    end_s = window.start_s + duration_s
    return Piece(start_s=window.start_s, end_s=end_s, tokens=tuple(tokens), logprobs=logprobs)


def text_of(tokens: Iterable[int], eot: int) -> tuple[int, ...]:
    """Return the ids of text among tokens; eot: text has lower ids."""
    return tuple(token for token in tokens if token < eot)


def frame(seconds: float) -> int:
    """Return the frame nearest to a time."""
    return round(seconds * FRAMES_PER_SECOND)
