"""Text that repeats itself over and over: found in tokens, not in characters. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: a phrase said so often, and so many tokens said again, are no speech: what the reference says of 281 windows of
#: speech repeats at most 13 tokens, twice (docs/guards.md)
LEAST_TIMES, LEAST_REPEATED = 4, 16
#: of a phrase
_MOST_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Loop:
    """A phrase that follows itself: tokens[start : start + phrase] again and again up to `end`."""

    start: int  # below 0: it began in the text before
    phrase: int
    end: int

    @property
    def times(self) -> int:
        """How many times the phrase is there whole."""
        return (self.end - self.start) // self.phrase


def find_loop(tokens: Sequence[int], before: Sequence[int] = ()) -> Loop | None:
    """Return the longest loop among ids of text; of equals the one of the shortest phrase.
    before: the text before them, where a loop may have begun; at least one whole phrase is among `tokens`.
    """
    ids = np.asarray((*before, *tokens), np.int64)
    found: Loop | None = None
    for phrase in range(1, min(_MOST_TOKENS, len(ids) // LEAST_TIMES) + 1):
        same = ids[:-phrase] == ids[phrase:]
        if np.count_nonzero(same) < LEAST_REPEATED:  # as nearly always
            continue
        for start, end in _runs(same):
            loop = Loop(start - len(before), phrase, end + phrase - len(before))
            loops = loop.times >= LEAST_TIMES and end - start >= LEAST_REPEATED and loop.end >= phrase
            if loops and (found is None or loop.end - loop.start > found.end - found.start):
                found = loop
    return found


def _runs(same: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(same.astype(np.int8), prepend=0, append=0))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]
