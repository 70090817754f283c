"""Greedy decoding and sampling: independent rows. Source: openai/whisper decoding.py at c0d2f62 (GreedyDecoder)."""

from __future__ import annotations

import numpy as np

from stapes.backends.base import Best, Choice, Draw, RowId
from stapes.backends.batch import AnswerShare, StepBuilder
from stapes.decoding.rows import Candidate, Hypothesis, SearchSetting
from stapes.options import Greedy, Sample

_BEST = Best()


class PickRows:
    """One greedy row, or several that draw. Satisfies `SearchRows`."""

    def __init__(self, setting: SearchSetting, strategy: Greedy | Sample, random: np.random.Generator | None) -> None:
        """Take the strategy; `random` serves this try alone, and is not needed where nothing is drawn."""
        self._setting = setting
        self._temperature = strategy.temperature
        self._n_rows = strategy.n_rows if isinstance(strategy, Sample) else 1
        self._random = random
        self._rows: list[Hypothesis] = []
        self._live: list[tuple[int, Hypothesis]] = []  # with their numbers among `_rows`
        self._uniforms = self._draw()

    def _draw(self) -> tuple[float, ...]:
        """Return one number for every row, live or not: a row's numbers do not depend on when the others ended."""
        if self._temperature == 0:
            return ()
        assert self._random is not None
        return tuple(self._random.random(self._n_rows).tolist())

    @property
    def first_choice(self) -> Choice:
        return Draw(self._temperature, self._uniforms) if self._temperature > 0 else _BEST

    @property
    def done(self) -> bool:
        return bool(self._rows) and not self._live

    @property
    def n_live(self) -> int:
        return len(self._live)

    def begin(self, row: RowId, share: AnswerShare) -> None:
        backend = self._setting.backend
        rows = [row, *(backend.fork(row) for _ in share.ids[1:])]
        self._rows = [self._setting.first(one) for one in rows]
        self._live = list(enumerate(self._rows))
        self.accept(share)

    def add_to(self, step: StepBuilder) -> None:
        for one, choice in self._asked():
            self._setting.ask(step, one, choice)

    def _asked(self) -> list[tuple[Hypothesis, Choice]]:
        draws = self._uniforms
        return [(one, Draw(self._temperature, (draws[i],)) if draws else _BEST) for i, one in self._live]

    def accept(self, share: AnswerShare) -> None:
        rules, most = self._setting.rules, self._setting.max_tokens
        live: list[tuple[int, Hypothesis]] = []
        ids, logprobs = self._setting.chosen(self._asked() if share.all_extras else (), share)
        for (i, one), token, logprob in zip(self._live, ids, logprobs, strict=True):
            one.grow(token, logprob, rules)
            if token != rules.eot and len(one.tokens) < most:
                live.append((i, one))
            else:
                self._setting.backend.close(one.row)
        self._live = live
        self._uniforms = self._draw()

    def candidates(self) -> list[Candidate]:
        return [one.candidate(self._setting.rules.eot) for one in self._rows]

    def close(self) -> None:
        for _, one in self._live:
            self._setting.backend.close(one.row)
        self._live = []
