"""Makes a step's arrays of rows that are added one by one, and gives each source of rows its share of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from stapes.backends.base import (
    BEST,
    DRAW,
    TOP,
    Backend,
    Best,
    Choice,
    Constraint,
    Draw,
    ExtraAnswers,
    IdRanges,
    IntArray,
    RowExtras,
    RowId,
    StepAnswers,
    StepBatch,
)

_NO_VOTE = -1


class StepLoad(NamedTuple):
    """What a step of some rows takes."""

    rows: int = 0
    tokens: int = 0  # new ones: more than rows where a prompt is read (prefill)
    answer_bytes: int = 0  # of memory, while the step lasts, beside what a row always takes


@dataclass(frozen=True, slots=True)
class AnswerShare:
    """The answers to the rows of one source: of all their choices, in order, and of the rows' extras."""

    ids: list[int]
    logprobs: list[float]
    extras: ExtraAnswers | None = None  # of the first row
    all_extras: tuple[ExtraAnswers, ...] = ()  # of each row that asked for some


class StepBuilder:
    """Collects the rows of one step, source by source."""

    def __init__(self) -> None:
        self._ends: list[tuple[int, int]] = []  # of each source: rows and chosen ids up to there
        self._n_ids = 0
        self._rows: list[RowId] = []
        self._tokens: list[int] = []
        self._token_ends: list[int] = []
        self._choice_rows: list[int] = []
        self._choice_positions: list[int] = []
        self._methods: list[int] = []
        self._n_chosen: list[int] = []
        self._temperatures: list[float] = []
        self._uniforms: list[float] = []
        self._permanents: list[IdRanges] = []
        self._indices: dict[int, int] = {}  # id of a set -> its place in `_permanents`
        self._permanent_of: list[int] = []
        self._now: list[tuple[int, int]] = []
        self._now_ends: list[int] = []
        self._vote_from: list[int] = []
        self._extras: dict[int, RowExtras] = {}

    def add(self, row: RowId, tokens: Sequence[int], extras: RowExtras | None = None) -> None:
        """Add a row with its new tokens."""
        if extras is not None:
            self._extras[len(self._rows)] = extras
        self._rows.append(row)
        self._tokens.extend(tokens)
        self._token_ends.append(len(self._tokens))

    def choose(self, position: int, choice: Choice, constraint: Constraint) -> None:
        """Choose after a token, counted from 0, of the row that was added last."""
        self._choice_rows.append(len(self._rows) - 1)
        self._choice_positions.append(position)
        if isinstance(choice, Best):
            self._methods.append(BEST)
            self._n_chosen.append(1)
            self._temperatures.append(1.0)
        elif isinstance(choice, Draw):
            self._methods.append(DRAW)
            self._n_chosen.append(len(choice.uniforms))
            self._temperatures.append(choice.temperature)
            self._uniforms.extend(choice.uniforms)
        else:
            self._methods.append(TOP)
            self._n_chosen.append(choice.n)
            self._temperatures.append(1.0)
        self._n_ids += self._n_chosen[-1]
        self._permanent_of.append(self._index(constraint.permanent))
        self._now.extend(constraint.now)
        self._now_ends.append(len(self._now))
        self._vote_from.append(_NO_VOTE if constraint.vote_from is None else constraint.vote_from)

    def _index(self, permanent: IdRanges) -> int:
        index = self._indices.setdefault(id(permanent), len(self._permanents))
        if index == len(self._permanents):
            self._permanents.append(permanent)
        return index

    def end_source(self) -> None:
        """Say that the next row comes from another source."""
        self._ends.append((len(self._rows), self._n_ids))

    def shares(self, answers: StepAnswers) -> list[AnswerShare]:
        """Return each source's share of the answers."""
        ids, logprobs, found = answers.ids.tolist(), answers.logprobs.tolist(), answers.extras
        shares: list[AnswerShare] = []
        row = start = 0
        for end_row, end in self._ends:
            all_extras = tuple(found[i] for i in range(row, end_row) if i in found) if found else ()
            shares.append(AnswerShare(ids[start:end], logprobs[start:end], found.get(row), all_extras))
            row, start = end_row, end
        return shares

    def build(self) -> StepBatch:
        """Return the step."""
        return StepBatch(
            rows=np.array(self._rows, np.int64),
            tokens=_ints(self._tokens),
            token_ends=_ints(self._token_ends),
            choice_rows=_ints(self._choice_rows),
            choice_positions=_ints(self._choice_positions),
            methods=_ints(self._methods),
            n_chosen=_ints(self._n_chosen),
            temperatures=np.array(self._temperatures, np.float64),
            uniforms=np.array(self._uniforms, np.float64),
            permanents=tuple(self._permanents),
            permanent_of=_ints(self._permanent_of),
            now=_ints(self._now).reshape(-1, 2),
            now_ends=_ints(self._now_ends),
            vote_from=_ints(self._vote_from),
            extras=self._extras,
        )


class StepSource(Protocol):
    """Whatever adds rows to a step."""

    def add_to(self, step: StepBuilder) -> None:
        """Add rows."""


def step_one(backend: Backend, source: StepSource) -> AnswerShare:
    """Step the rows of one source alone; return the answers to them."""
    step = StepBuilder()
    source.add_to(step)
    step.end_source()
    (share,) = step.shares(backend.step(step.build()))
    return share


def _ints(values: Sequence[Any]) -> IntArray:
    return np.array(values, np.int32)
