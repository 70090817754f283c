"""Greedy decoding and sampling: independent rows. Source: openai/whisper decoding.py at c0d2f62 (GreedyDecoder)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stapes.backends.base import Best, Choice, Draw, RowId, RowResult, RowStep
from stapes.decoding.rows import Candidate, Hypothesis, SearchSetting, add32
from stapes.options import Greedy, Sample


class PickRows:
    """One greedy row, or several that draw. Satisfies `SearchRows`."""

    def __init__(self, setting: SearchSetting, strategy: Greedy | Sample, random: np.random.Generator | None) -> None:
        """Take the strategy; `random` serves this try alone, and is not needed where nothing is drawn."""
        self._setting = setting
        self._temperature = strategy.temperature
        self._n_rows = strategy.n_rows if isinstance(strategy, Sample) else 1
        self._random = random
        self._rows: list[Hypothesis] = []
        self._open: set[RowId] = set()
        self._uniforms = self._draw()

    def _draw(self) -> tuple[float, ...]:
        """Return one number for every row, live or not: a row's numbers do not depend on when the others ended."""
        if self._temperature == 0:
            return ()
        assert self._random is not None
        return tuple(self._random.random(self._n_rows).tolist())

    @property
    def first_choice(self) -> Choice:
        return Draw(self._temperature, self._uniforms) if self._temperature > 0 else Best()

    @property
    def done(self) -> bool:
        return bool(self._rows) and not any(self._live(one) for one in self._rows)

    def _live(self, one: Hypothesis) -> bool:
        return one.tokens[-1] != self._setting.rules.eot and len(one.tokens) < self._setting.max_tokens

    def begin(self, row: RowId, result: RowResult) -> None:
        backend = self._setting.backend
        rows = [row, *(backend.fork(row) for _ in result.ids[1:])]
        self._open.update(rows)
        first = zip(rows, result.ids, result.logprobs, strict=True)
        self._rows = [Hypothesis(one, (token,), add32(0.0, logprob)) for one, token, logprob in first]
        self._uniforms = self._draw()
        self._close_ended()

    def steps(self) -> list[RowStep]:
        draws: list[Choice] = [Draw(self._temperature, (u,)) for u in self._uniforms]
        choices = draws or [Best()]
        return [
            one.step(self._setting.rules, choice)
            for one, choice in zip(self._rows, choices, strict=True)
            if self._live(one)
        ]

    def accept(self, results: Sequence[RowResult]) -> None:
        incoming = iter(results)
        self._rows = [self._grown(one, next(incoming)) if self._live(one) else one for one in self._rows]
        self._uniforms = self._draw()
        self._close_ended()

    @staticmethod
    def _grown(one: Hypothesis, result: RowResult) -> Hypothesis:
        total = add32(one.sum_logprob, result.logprobs[0])
        return replace(one, tokens=(*one.tokens, result.ids[0]), sum_logprob=total)

    def candidates(self) -> list[Candidate]:
        eot = self._setting.rules.eot
        return [
            Candidate(one.tokens[:-1] if one.tokens[-1] == eot else one.tokens, one.sum_logprob) for one in self._rows
        ]

    def _close_ended(self) -> None:
        for one in self._rows:
            if not self._live(one) and one.row in self._open:
                self._open.remove(one.row)
                self._setting.backend.close(one.row)

    def close(self) -> None:
        for row in self._open:
            self._setting.backend.close(row)
        self._open.clear()
