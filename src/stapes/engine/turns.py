"""Turns while interactive jobs have work: when background jobs get a unit, and which of their rows may join a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from stapes.engine.costs import CostMeter

#: background jobs get one unit in ten, and at least one every 2 s; a window is encoded for them every 2 s
_ONE_IN, EVERY_S = 10, 2.0
#: what rows of background jobs may add to the cost of a step that interactive rows wait for: a quarter
_MOST_ADDED: Final = 1.25


class Rows(Protocol):
    """Rows of one window that are stepped together."""

    @property
    def n_rows(self) -> int:
        """How many rows, where each brings one token."""

    @property
    def n_tokens(self) -> int:
        """Else: how many tokens of a prompt, or of a text that is aligned."""


Kind = TypeVar("Kind", bound=Rows)


@dataclass(slots=True)
class BackgroundTurns:
    """Counts the units of interactive jobs since background jobs had one. Times are of one clock, in seconds."""

    last_s: float  # when they had one, or had nothing to wait for
    last_encode_s: float  # the same of units that encode a window, the longest ones
    n_urgent: int = 0

    def restart(self, now_s: float, *, encodes: bool) -> None:
        """Note a unit of background jobs, or that none of them waits for interactive ones.

        encodes: whether it encodes a window, or nothing keeps them from that.
        """
        self.last_s, self.n_urgent = now_s, 0
        if encodes:
            self.last_encode_s = now_s

    def is_due(self, now_s: float) -> bool:
        """Whether the next unit is theirs."""
        return self.n_urgent >= _ONE_IN - 1 or now_s - self.last_s >= EVERY_S or self.encode_is_due(now_s)

    def encode_is_due(self, now_s: float) -> bool:
        """Whether it may encode a window."""
        return now_s - self.last_encode_s >= EVERY_S


def joining(urgent: Sequence[Kind], others: Sequence[Kind], costs: CostMeter) -> list[Kind]:
    """Return which windows' rows may join a step of interactive rows: all of a window's or none, and no prompts.

    others: of background jobs, the most urgent first.
    """
    n_rows, n_tokens = _size(urgent)
    limit_s = _MOST_ADDED * costs.step_s(n_rows, n_tokens)
    chosen: list[Kind] = []
    for one in others:
        if costs.knows_steps and not one.n_tokens and costs.step_s(n_rows + one.n_rows, n_tokens) <= limit_s:
            chosen.append(one)
            n_rows += one.n_rows
    return chosen


def in_their_turn(urgent: Sequence[Kind], others: Sequence[Kind], costs: CostMeter) -> list[Kind]:
    """Return which windows' rows a step in the background jobs' turn takes: the first, and what may join then."""
    return [*others[:1], *joining([*urgent, *others[:1]], others[1:], costs)]


def _size(rows: Sequence[Rows]) -> tuple[int, int]:
    return sum(one.n_rows for one in rows), sum(one.n_tokens for one in rows)
