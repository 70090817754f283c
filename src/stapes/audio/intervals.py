"""Sets of intervals of a recording, in frames or in samples. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

#: half-open: (first, first after the end)
Interval = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Intervals:
    """A set of intervals, in order; none is empty, and no two overlap."""

    spans: tuple[Interval, ...] = ()

    @classmethod
    def union(cls, spans: Iterable[Interval]) -> Intervals:
        """Join intervals that overlap or touch. spans: in the order of their starts, none empty."""
        joined: list[Interval] = []
        for start, end in spans:
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(joined[-1][1], end))
            else:
                joined.append((start, end))
        return cls(tuple(joined))

    def within(self, first: int, end: int) -> tuple[Interval, ...]:
        """Return the intersection with first..end."""
        cut = ((max(first, start), min(end, stop)) for start, stop in self.spans)
        return tuple((start, stop) for start, stop in cut if start < stop)

    def counted_from(self, first: int, end: int) -> tuple[Interval, ...]:
        """Return the intersection with first..end, counted from `first`."""
        return tuple((start - first, stop - first) for start, stop in self.within(first, end))

    def length_within(self, first: int, end: int) -> int:
        """Return the length of the intersection with first..end."""
        return sum(stop - start for start, stop in self.within(first, end))

    def without(self, others: Iterable[Interval]) -> Intervals:
        """Return the difference with other intervals; an empty one cuts the interval around it in two."""
        spans = self.spans
        for first, end in others:
            parts = (part for start, stop in spans for part in ((start, min(stop, first)), (max(start, end), stop)))
            spans = tuple((start, stop) for start, stop in parts if start < stop)
        return Intervals(spans)

    def gaps(self, first: int, end: int) -> tuple[Interval, ...]:
        """Return the complement in first..end: one gap before each interval and one after the last, empty ones too."""
        edges = [first, *itertools.chain.from_iterable(self.within(first, end)), end]
        return tuple(zip(edges[::2], edges[1::2], strict=True))
