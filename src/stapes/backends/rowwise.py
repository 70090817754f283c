"""A step row by row, for backends that compute each row by itself, and for tests.

`batch_of` and `steps_of` are inverse. `stapes.backends.base` has what each field means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from stapes.backends.base import (
    BEST,
    DRAW,
    Backend,
    Best,
    Choice,
    Constraint,
    Draw,
    ExtraAnswers,
    FloatArray,
    Probe,
    ProbeResult,
    RowExtras,
    RowId,
    StepAnswers,
    StepBatch,
    Top,
)
from stapes.backends.batch import StepBuilder

_NOTHING = RowExtras()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowStep:
    """What one row does in a step.

    choice, constraint: after the last token; None: nothing is chosen.
    earlier: positions before the last one after which the best id is chosen too, each under its own constraint.
    """

    row: RowId
    tokens: tuple[int, ...]
    choice: Choice | None = None
    constraint: Constraint = field(default_factory=Constraint)
    earlier: tuple[tuple[int, Constraint], ...] = ()
    probes: tuple[Probe, ...] = ()
    logits_at: tuple[int, ...] = ()
    attention: tuple[tuple[int, int], ...] = ()
    within: tuple[int, int] | None = None

    @property
    def extras(self) -> RowExtras:
        """What it asks for beside its choices."""
        return RowExtras(probes=self.probes, logits_at=self.logits_at, attention=self.attention, within=self.within)

    @property
    def choices(self) -> list[tuple[int, Choice, Constraint]]:
        """Its choices with their positions, in order."""
        found: list[tuple[int, Choice, Constraint]] = [(at, Best(), constraint) for at, constraint in self.earlier]
        if self.choice is not None:
            found.append((len(self.tokens) - 1, self.choice, self.constraint))
        return found

    @property
    def turns(self) -> list[RowStep]:
        """The same as steps of at most one choice each, one after another."""
        if not self.earlier:
            return [self]
        turns, begin = list[RowStep](), 0
        for position, choice, constraint in self.choices:
            tokens = self.tokens[begin : position + 1]
            turns.append(RowStep(row=self.row, tokens=tokens, choice=choice, constraint=constraint, within=self.within))
            begin = position + 1
        if begin < len(self.tokens):
            turns.append(RowStep(row=self.row, tokens=self.tokens[begin:], within=self.within))
        return turns


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """What one row gives back: the ids of all its choices, in order, and the answers to its extras."""

    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    probes: tuple[ProbeResult, ...] = ()
    logits: FloatArray | None = None
    attention: FloatArray | None = None

    @classmethod
    def joined(cls, turns: Sequence[RowResult]) -> RowResult:
        """Return the result of `RowStep.turns`, of their results."""
        if len(turns) == 1:
            return turns[0]
        return cls(
            ids=tuple(token for one in turns for token in one.ids),
            logprobs=tuple(value for one in turns for value in one.logprobs),
        )


def batch_of(steps: Sequence[RowStep]) -> StepBatch:
    """Return the step of some rows."""
    builder = StepBuilder()
    for one in steps:
        extras = one.extras
        builder.add(one.row, one.tokens, None if extras == _NOTHING else extras)
        for position, choice, constraint in one.choices:
            builder.choose(position, choice, constraint)
    return builder.build()


def steps_of(batch: StepBatch) -> list[RowStep]:
    """Return a step's rows."""
    chosen = _choices_of(batch)
    tokens, ends = batch.tokens.tolist(), batch.token_ends.tolist()
    steps: list[RowStep] = []
    for index, row in enumerate(batch.rows.tolist()):
        new = tuple(tokens[ends[index - 1] if index else 0 : ends[index]])
        extras = batch.extras.get(index, _NOTHING)
        mine = chosen.get(index, [])
        last = mine.pop() if mine and mine[-1][0] == len(new) - 1 else None
        steps.append(
            RowStep(
                row=RowId(row), tokens=new,
                choice=last[1] if last else None, constraint=last[2] if last else Constraint(),
                earlier=tuple((position, constraint) for position, _, constraint in mine),
                probes=extras.probes, logits_at=extras.logits_at, attention=extras.attention, within=extras.within,
            )
        )  # fmt: skip
    return steps


def _choices_of(batch: StepBatch) -> dict[int, list[tuple[int, Choice, Constraint]]]:
    """Return each row's choices, by its index."""
    found: dict[int, list[tuple[int, Choice, Constraint]]] = {}
    uniforms, n_drawn, begin = batch.uniforms.tolist(), 0, 0
    now = [(first, end) for first, end in batch.now.tolist()]
    columns = (
        batch.choice_rows, batch.choice_positions, batch.methods, batch.n_chosen, batch.temperatures,
        batch.permanent_of, batch.now_ends, batch.vote_from,
    )  # fmt: skip
    values = zip(*(one.tolist() for one in columns), strict=True)
    for row, position, method, n, temperature, permanent, end, vote in values:
        choice: Choice = Best() if method == BEST else Top(n)
        if method == DRAW:
            choice = Draw(temperature, tuple(uniforms[n_drawn : n_drawn + n]))
            n_drawn += n
        constraint = Constraint(batch.permanents[permanent], tuple(now[begin:end]), None if vote < 0 else vote)
        begin = end
        found.setdefault(row, []).append((position, choice, constraint))
    return found


def step_rows(backend: Backend, steps: Sequence[RowStep]) -> list[RowResult]:
    """Step some rows; return their results in the same order."""
    batch = batch_of(steps)
    return results_of(batch, backend.step(batch))


def answers_of(results: Sequence[RowResult]) -> StepAnswers:
    """Return a step's answers, of the results of its rows."""
    extras = {
        index: ExtraAnswers(probes=one.probes, logits=one.logits, attention=one.attention)
        for index, one in enumerate(results)
        if one.probes or one.logits is not None or one.attention is not None
    }
    return StepAnswers(
        np.array([token for one in results for token in one.ids], np.int32),
        np.array([value for one in results for value in one.logprobs], np.float32),
        extras,
    )


def results_of(batch: StepBatch, answers: StepAnswers) -> list[RowResult]:
    """Return each row's results."""
    n_chosen = np.bincount(batch.choice_rows, batch.n_chosen, len(batch.rows)).astype(int)
    ends = [0, *np.cumsum(n_chosen).tolist()]
    ids, logprobs = answers.ids.tolist(), answers.logprobs.tolist()
    results: list[RowResult] = []
    for index, (start, end) in enumerate(pairwise(ends)):
        extra = answers.extras.get(index, ExtraAnswers())
        results.append(
            RowResult(
                ids=tuple(ids[start:end]), logprobs=tuple(logprobs[start:end]),
                probes=extra.probes, logits=extra.logits, attention=extra.attention,
            )
        )  # fmt: skip
    return results
