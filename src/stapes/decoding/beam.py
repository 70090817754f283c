"""Beam search with patience. Source: openai/whisper decoding.py at c0d2f62 (BeamSearchDecoder), arXiv:2204.05424."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from stapes.backends.base import Choice, RowId, Top
from stapes.backends.batch import AnswerShare, StepBuilder
from stapes.decoding.quality import check_answer
from stapes.decoding.rows import Candidate, Hypothesis, SearchSetting
from stapes.options import Beam


class BeamRows:
    """The best `size` rows, extended together. Satisfies `SearchRows`."""

    def __init__(self, setting: SearchSetting, beam: Beam) -> None:
        self._setting = setting
        self._beam = beam
        self._choice = Top(min(beam.size + 1, setting.rules.n_vocab))  # one of them may be end-of-text
        self._live: list[Hypothesis] = []
        self._finished: list[Candidate] = []
        self._n_sampled = 0

    @property
    def first_choice(self) -> Choice:
        return self._choice

    @property
    def done(self) -> bool:
        full = self._n_sampled >= self._setting.max_tokens
        return self._n_sampled > 0 and (full or len(self._finished) >= self._beam.max_finished)

    @property
    def n_live(self) -> int:
        return len(self._live)

    def begin(self, row: RowId, share: AnswerShare) -> None:
        self._live = [self._setting.first(row)]  # one row: at first all rows are equal
        self.accept(share)

    def add_to(self, step: StepBuilder) -> None:
        for one in self._live:
            self._setting.ask(step, one, self._choice)

    def accept(self, share: AnswerShare) -> None:
        # The best continuations that do not end live on; those that end, and rank before the last of these, finish.
        # With faster-whisper's rules, those finish that rank among the best `size`; right after a prefix, only the very
        # best (CTranslate2 4.8 decoding.cc).
        asked = [(one, self._choice) for one in self._live] if share.all_extras else ()
        ids, logprobs = self._setting.chosen(asked, share)
        if not ids:  # nothing can be ranked, now or later
            check_answer(math.nan)
        each = self._choice.n  # continuations of a row, row after row
        before = np.repeat(np.array([one.sum_logprob for one in self._live], np.float32), each)
        sums = (before + np.array(logprobs, np.float32)).tolist()  # in float32: see `add32`
        order = sorted(range(len(sums)), key=sums.__getitem__, reverse=True)  # stable: of equals the earlier row's wins
        self._n_sampled += 1
        survivors: list[int] = []
        strict = self._setting.as_faster_whisper
        n_may_end = 1 if self._n_sampled == 1 and not self._setting.rules.opens else self._beam.size
        for place, i in enumerate(order):
            if ids[i] != self._setting.rules.eot:
                survivors.append(i)
                if len(survivors) == self._beam.size:
                    break
            elif place < n_may_end if strict else len(self._finished) < self._beam.max_finished:
                ended = self._live[i // each].candidate(self._setting.rules.eot)
                self._finished.append(replace(ended, sum_logprob=sums[i]))
        self._replace_rows([(self._live[i // each], ids[i], logprobs[i]) for i in survivors])

    def _replace_rows(self, survivors: list[tuple[Hypothesis, int, float]]) -> None:
        """Give every survivor a row: its source's own for the first that asks, a fork of it for the others."""
        backend = self._setting.backend
        taken: set[RowId] = set()
        live: list[Hypothesis] = []
        for source, token, logprob in survivors:
            row = backend.fork(source.row) if source.row in taken else source.row
            taken.add(source.row)
            kept = None if source.logprobs is None else source.logprobs.copy()
            one = Hypothesis(row, source.tokens.copy(), source.sum_logprob, source.latest, kept)
            one.grow(token, logprob, self._setting.rules)
            live.append(one)
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
            found.append(self._live[i].candidate(self._setting.rules.eot))
        return found

    def close(self) -> None:
        for one in self._live:
            self._setting.backend.close(one.row)
        self._live = []
