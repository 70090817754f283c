"""Words -> readable subtitles: which words share one, where its lines break, how long it is shown. Pure.

Limits, for any words: lines no wider and no more than asked for, no subtitle longer than asked for, none over another,
every word once and in order. Goals, as far as speech allows: breaks at sentences, clauses and pauses, two even lines,
the reading speed and the shortest duration.

One pass of dynamic programming finds the cheapest breaks of the whole recording: a subtitle costs something by itself,
for where it ends, how its lines break, pauses and ends of sentences inside, and for being too short or too fast. What
a single break costs: line_breaks.py.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final, NamedTuple

from stapes.output.line_breaks import SENTENCE, Piece, pieces
from stapes.results import Segment, Word

#: a gap of less than two frames (24 a second) only flickers
_FLICKER_S: Final = 2 / 24
#: A cue has at most a hundred words. These costs count relative to a cost of 1 for each subtitle.
_END_WEIGHT: Final = 2.5  # times the cost of the break where it ends
_SENTENCE_INSIDE: Final = 1.1  # for each sentence that ends inside
_SENTENCE_IN_LINE: Final = 0.7  # more, where no line ends with it
_UNEVEN_WEIGHT: Final = 1.0  # times the square of the lines' difference, as a share of the widest line
_TOP_HEAVY: Final = 0.1  # where the upper line is the wider one
_EMPTY_WEIGHT: Final = 0.6  # times the square of the share that is not filled
_PAUSE_WEIGHT: Final = 2.0  # for each second of a pause inside, from the first part of a second on
_FREE_PAUSE_S: Final = 0.4
_SHORT_WEIGHT: Final = 2.0  # times the missing part of the shortest duration, as a share
_FAST_WEIGHT: Final = 0.5  # times what is over the reading speed, as a share, up to twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a subtitle."""

    line_width: int  # columns
    line_count: int
    chars_per_second: float
    min_duration_s: float
    max_duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """One subtitle."""

    start_s: float
    end_s: float
    text: str  # lines with a line feed between them
    words: tuple[Word, ...] = ()  # each with the space or line feed before it; empty: their times are not known


def readable_cues(segments: Sequence[Segment], limits: Limits, duration_s: float = math.inf) -> Iterator[Cue]:
    """Yield the subtitles of segments, from their words where there are any, else from their text.
    duration_s: of the recording; no subtitle is lengthened beyond it.
    """
    found = pieces(segments, limits.line_width, limits.max_duration_s)
    worded = all(segment.words is not None for segment in segments)
    chosen = _Chooser(found, limits).choose()
    for number, breaks in enumerate(chosen):
        end = chosen[number + 1][0] if number + 1 < len(chosen) else len(found)
        next_s = found[end].start_s if end < len(found) else math.inf
        lines = [found[start:stop] for start, stop in zip(breaks, (*breaks[1:], end), strict=True)]
        yield _cue(lines, next_s, duration_s, limits, worded=worded)


def _cue(lines: Sequence[Sequence[Piece]], next_s: float, duration_s: float, limits: Limits, *, worded: bool) -> Cue:
    """Make a subtitle that is shown until it can be read, as far as the next one and the limits allow."""
    start_s, spoken_s = lines[0][0].start_s, lines[-1][-1].end_s
    width = sum(_width(line) + 1 for line in lines) - 1
    wanted_s = max(spoken_s, start_s + limits.min_duration_s, start_s + width / limits.chars_per_second)
    last_s = min(next_s, start_s + limits.max_duration_s)
    end_s = min(wanted_s, max(spoken_s, duration_s), last_s)
    if 0 < next_s - end_s < _FLICKER_S and next_s == last_s:
        end_s = next_s
    words = tuple(
        replace(word, text=_spaced(word, first=i == j == 0, in_cue=n > 0), end_s=min(word.end_s, end_s))
        for n, line in enumerate(lines)
        for i, piece in enumerate(line)
        for j, word in enumerate(piece.words)
    )
    return Cue(start_s=start_s, end_s=end_s, text="".join(word.text for word in words), words=words if worded else ())


def _spaced(word: Word, *, first: bool, in_cue: bool) -> str:
    """Return a word's text with its space, or a line feed where it begins another line."""
    if not first:
        return word.text
    return ("\n" if in_cue else "") + word.text.lstrip()


def _width(line: Sequence[Piece]) -> int:
    return sum(piece.space + piece.width for piece in line) - line[0].space


class _Lines(NamedTuple):
    cost: float
    starts: tuple[int, ...]  # the pieces that begin lines
    width: int  # of the last one


class _Chooser:
    """Finds the cheapest way to cut pieces into subtitles, and those into lines."""

    def __init__(self, found: Sequence[Piece], limits: Limits) -> None:
        self._n = len(found)
        self._limits = limits
        self._starts = [piece.start_s for piece in found]
        self._ends = [piece.end_s for piece in found]
        self._spaces = [piece.space for piece in found] + [0]
        self._costs = [piece.break_cost for piece in found] + [SENTENCE]
        #: sums over the pieces before each, so that a difference is a sum over a stretch
        self._widths = [0, *accumulate(piece.space + piece.width for piece in found)]
        self._pauses = [0.0, *accumulate(max(0.0, piece.pause_s - _FREE_PAUSE_S) for piece in found)]
        #: where a line that begins with each piece is full
        self._farthest = [
            bisect_right(self._widths, self._widths[i] + piece.space + limits.line_width) - 1
            for i, piece in enumerate(found)
        ] + [self._n]
        self._sentences = [0, *accumulate(int(i > 0 and one.break_cost == SENTENCE) for i, one in enumerate(found))]

    def choose(self) -> list[tuple[int, ...]]:
        best = [0.0] + [math.inf] * self._n
        lines: list[tuple[int, ...]] = [()] * (self._n + 1)
        for first in range(self._n):
            for end, cost, starts in self._from(first):
                if best[first] + cost < best[end]:
                    best[end], lines[end] = best[first] + cost, starts
        chosen = []
        end = self._n
        while end:
            chosen.append(lines[end])
            end = lines[end][0]
        return chosen[::-1]

    def _from(self, first: int) -> Iterator[tuple[int, float, tuple[int, ...]]]:
        """Yield (end, cost, lines' first pieces) of every subtitle that may begin here. Only needed lines are tried:
        what fits into one line is one, and n lines count where they are cheaper than fewer.
        """
        latest = bisect_right(self._ends, self._starts[first] + self._limits.max_duration_s)
        latest = max(first + 1, latest)  # one piece may always stand alone
        #: where lines may end -> cost of all of them, their first pieces, the last one's width
        reached: dict[int, _Lines] = {
            end: _Lines(0.0, (first,), self._width(first, end))
            for end in range(first + 1, min(latest, self._farthest[first]) + 1)
        }
        cheapest: dict[int, float] = {}
        for number in range(self._limits.line_count):
            if number:
                reached = self._one_line_more(reached, self._farthest[first], latest, cheapest)
            for end, lines in reached.items():
                cheapest[end] = lines.cost
                yield end, lines.cost + self._cue_cost(first, end), lines.starts

    def _one_line_more(
        self, reached: Mapping[int, _Lines], one_line: int, latest: int, cheapest: Mapping[int, float]
    ) -> dict[int, _Lines]:
        """Add a line to each of these, up to `latest`, where that leads beyond one line and is cheaper than before."""
        found: dict[int, _Lines] = {}
        costs = dict(cheapest)
        unevenness = _UNEVEN_WEIGHT / self._limits.line_width**2
        for start, (so_far, starts, above) in reached.items():
            cost = so_far + self._costs[start] - (_SENTENCE_IN_LINE if self._costs[start] == SENTENCE else 0.0)
            before = self._widths[start] + self._spaces[start]
            for end in range(max(start, one_line) + 1, min(latest, self._farthest[start]) + 1):
                # This line is run some hundred thousand times for each hour of speech.
                width = self._widths[end] - before
                total = cost + unevenness * (above - width) ** 2 + (_TOP_HEAVY if above > width else 0.0)
                if total < costs.get(end, math.inf):
                    costs[end] = total
                    found[end] = _Lines(total, (*starts, start), width)
        return found

    def _width(self, start: int, end: int) -> int:
        return self._widths[end] - self._widths[start] - self._spaces[start]

    def _cue_cost(self, first: int, end: int) -> float:
        limits = self._limits
        next_s = self._starts[end] if end < self._n else math.inf
        shown_s = min(next_s - self._starts[first], limits.max_duration_s)
        width = self._width(first, end)
        cost = 1.0 + _END_WEIGHT * self._costs[end]
        cost += _PAUSE_WEIGHT * (self._pauses[end] - self._pauses[first + 1])
        cost += (_SENTENCE_INSIDE + _SENTENCE_IN_LINE) * (self._sentences[end] - self._sentences[first + 1])
        cost += _EMPTY_WEIGHT * (1.0 - width / (limits.line_width * limits.line_count)) ** 2
        if shown_s < limits.min_duration_s:
            cost += _SHORT_WEIGHT * (1.0 - shown_s / limits.min_duration_s)
        readable_s = width / limits.chars_per_second
        if shown_s < readable_s:
            cost += _FAST_WEIGHT * min(2.0, readable_s / max(shown_s, 0.01) - 1.0)
        return cost
