"""What greedy search, sampling and beam search share: rows that grow, and candidates made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stapes.backends.base import Backend, Choice, FloatArray, RowExtras, RowId
from stapes.backends.batch import AnswerShare, StepBuilder
from stapes.backends.sampling import choose, constrain
from stapes.decoding.rules import DecodingRules

#: what a row is asked for whose choice is made here
_LOGITS = RowExtras(logits_at=(0,))


@dataclass(slots=True)
class Hypothesis:
    """A row and what it has sampled. The last token is not in the row yet: the next step brings it."""

    row: RowId
    tokens: list[int]
    sum_logprob: float
    latest: int | None  # the last timestamp among `tokens`
    logprobs: list[float] | None  # of each token; None: not kept

    def grow(self, token: int, logprob: float, rules: DecodingRules) -> None:
        """Append a token."""
        self.tokens.append(token)
        self.sum_logprob = add32(self.sum_logprob, logprob)
        if self.logprobs is not None:
            self.logprobs.append(logprob)
        if token >= rules.timestamp_begin:
            self.latest = token

    def add_to(self, step: StepBuilder, rules: DecodingRules, choice: Choice) -> None:
        """Add what this row does next."""
        step.add(self.row, self.tokens[-1:])
        step.choose(0, choice, rules.constraint_after(self.tokens, self.latest))

    def candidate(self, eot: int) -> Candidate:
        """Return the row as finished, whether it has ended or was cut off."""
        n = len(self.tokens) - (self.tokens[-1:] == [eot])
        logprobs = None if self.logprobs is None else tuple(self.logprobs[:n])
        return Candidate(tuple(self.tokens[:n]), self.sum_logprob, logprobs)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A finished row: its tokens without end-of-text, and the sum of all log-probabilities, end-of-text's included."""

    tokens: tuple[int, ...]
    sum_logprob: float
    logprobs: tuple[float, ...] | None = None  # of each token; None: not kept


class SearchRows(Protocol):
    """One try at a window: rows that are stepped until the search is done."""

    @property
    def first_choice(self) -> Choice:
        """How the first token is chosen, on a row that holds the prompt."""

    @property
    def done(self) -> bool:
        """Whether no row needs another step."""

    def begin(self, row: RowId, share: AnswerShare) -> None:
        """Take over a row that holds the prompt, and what was chosen after it."""

    @property
    def n_live(self) -> int:
        """How many rows are stepped next."""

    def add_to(self, step: StepBuilder) -> None:
        """Add what the live rows do next."""

    def accept(self, share: AnswerShare) -> None:
        """Take the answers to what `add_to` added."""

    def candidates(self) -> list[Candidate]:
        """Give what was found, in the order in which equals win."""

    def close(self) -> None:
        """Give the rows back; may be called at any time."""


@dataclass(frozen=True, slots=True)
class SearchSetting:
    """What every search needs."""

    backend: Backend
    rules: DecodingRules
    max_tokens: int  # sampled tokens, end-of-text included, after which a search ends
    token_logprobs: bool = False  # whether each token's log-probability is kept
    repetition_penalty: float = 1.0
    as_faster_whisper: bool = False

    def first(self, row: RowId) -> Hypothesis:
        """Return a row that has sampled nothing."""
        return Hypothesis(row, [], 0.0, None, [] if self.token_logprobs else None)

    def ask(self, step: StepBuilder, one: Hypothesis, choice: Choice) -> None:
        """Add what a row does next: a choice, or its whole logits where they are changed before it is made."""
        if self.repetition_penalty == 1.0:
            one.add_to(step, self.rules, choice)
        else:
            step.add(one.row, one.tokens[-1:], _LOGITS)

    def chosen(self, asked: Sequence[tuple[Hypothesis, Choice]], share: AnswerShare) -> tuple[list[int], list[float]]:
        """Return what was chosen after rows that were asked: ids and log-probabilities, row after row."""
        if not share.all_extras or share.ids:  # the backend has chosen
            return share.ids, share.logprobs
        ids: list[int] = []
        logprobs: list[float] = []
        for (one, choice), extras in zip(asked, share.all_extras, strict=True):
            assert extras.logits is not None
            logits = penalised(extras.logits[0], one.tokens, self.repetition_penalty)
            allowed = constrain(logits, self.rules.constraint_after(one.tokens, one.latest))
            found = choose(allowed, logits, choice)
            ids.extend(found[0])
            logprobs.extend(found[1])
        return ids, logprobs


def penalised(logits: FloatArray, said: Sequence[int], penalty: float) -> FloatArray:
    """Return logits (n_vocab,) in which tokens that were said are less likely: each once, however often it was said.

    Source: arXiv:1909.05858, as CTranslate2 4.8 has it (RepetitionPenalty).
    """
    changed = logits.copy()
    ids = np.unique(np.array(said, np.int64))
    changed[ids] = np.where(logits[ids] < 0, logits[ids] * np.float32(penalty), logits[ids] / np.float32(penalty))
    return changed


def add32(total: float, logprob: float) -> float:
    """Add in float32, as the reference sums its log-probabilities: ties then fall as they do there."""
    return float(np.float32(total) + np.float32(logprob))


def rank(
    candidates: Sequence[Candidate], length_penalty: float | None, *, in_powers: bool = False, n_before: int = 0
) -> Candidate:
    """Return the candidate with the best score per length; the first of equals.
    length_penalty: None divides by the number of tokens; else by ((5 + n) / 6) ** penalty (arXiv:1609.08144).
    in_powers: whether to divide by n ** penalty, as CTranslate2 4.8 does (finalize_hypothesis_score).
    n_before: tokens of a prefix, which count in n there.
    """

    def score(one: Candidate) -> float:
        # The reference divides by zero for an empty row; one token's length keeps the order of sums.
        length = max(len(one.tokens) + n_before, 1)
        if length_penalty is None:
            return one.sum_logprob / length
        divisor: float = (length if in_powers else (5 + len(one.tokens)) / 6) ** length_penalty
        return one.sum_logprob / divisor

    return max(candidates, key=score)
