"""Beam search with patience. Source: openai/whisper decoding.py at c0d2f62 (BeamSearchDecoder), arXiv:2204.05424."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stapes.backends.base import Choice, RowId, RowResult, RowStep, Top
from stapes.decoding.quality import check_answer
from stapes.decoding.rows import Candidate, Hypothesis, SearchSetting, add32
from stapes.options import Beam


@dataclass(frozen=True, slots=True)
class _Next:
    """A row's sequence with one more token."""

    source: RowId
    tokens: tuple[int, ...]
    sum_logprob: float


class BeamRows:
    """The best `size` rows, extended together. Satisfies `SearchRows`."""

    def __init__(self, setting: SearchSetting, beam: Beam) -> None:
        self._setting = setting
        self._beam = beam
        self._live: list[Hypothesis] = []
        self._finished: list[Candidate] = []
        self._n_sampled = 0

    @property
    def first_choice(self) -> Choice:
        return Top(self._beam.size + 1)  # one of them may be end-of-text

    @property
    def done(self) -> bool:
        full = self._n_sampled >= self._setting.max_tokens
        return self._n_sampled > 0 and (full or len(self._finished) >= self._beam.max_finished)

    def begin(self, row: RowId, result: RowResult) -> None:
        self._live = [Hypothesis(row, (), 0.0)]  # one row: at first all rows are equal
        self.accept([result])

    def steps(self) -> list[RowStep]:
        return [one.step(self._setting.rules, self.first_choice) for one in self._live]

    def accept(self, results: Sequence[RowResult]) -> None:
        # The best continuations that do not end live on; those that end, and rank before the last of these, finish.
        candidates = [
            _Next(one.row, (*one.tokens, token), add32(one.sum_logprob, logprob))
            for one, result in zip(self._live, results, strict=True)
            for token, logprob in zip(result.ids, result.logprobs, strict=True)
        ]
        if not candidates:  # nothing can be ranked, now or later
            check_answer(math.nan)
        candidates.sort(key=lambda one: one.sum_logprob, reverse=True)  # stable: of equals the earlier row's wins
        self._n_sampled += 1
        survivors: list[_Next] = []
        for one in candidates:
            if one.tokens[-1] != self._setting.rules.eot:
                survivors.append(one)
                if len(survivors) == self._beam.size:
                    break
            elif len(self._finished) < self._beam.max_finished:
                self._finished.append(Candidate(one.tokens[:-1], one.sum_logprob))
        self._replace_rows(survivors)

    def _replace_rows(self, survivors: list[_Next]) -> None:
        """Give every survivor a row: its source's own for the first that asks, a fork of it for the others."""
        backend = self._setting.backend
        taken: set[RowId] = set()
        live: list[Hypothesis] = []
        for one in survivors:
            row = backend.fork(one.source) if one.source in taken else one.source
            taken.add(one.source)
            live.append(Hypothesis(row, one.tokens, one.sum_logprob))
        for old in self._live:
            if old.row not in taken:
                backend.close(old.row)
        self._live = live

    def candidates(self) -> list[Candidate]:
        found = list(self._finished)
        sums = np.array([one.sum_logprob for one in self._live], dtype=np.float32)
        for i in np.argsort(sums)[::-1]:
            if len(found) >= self._beam.size:
                break
            found.append(Candidate(self._live[i].tokens, self._live[i].sum_logprob))
        return found

    def close(self) -> None:
        for one in self._live:
            self._setting.backend.close(one.row)
        self._live = []
