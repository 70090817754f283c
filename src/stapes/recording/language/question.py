"""Language detection: a forced pass over the start-of-transcript token gives each language's probability.

Source: openai/whisper decoding.py at c0d2f62 (detect_language).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stapes.backends.base import (
    FRAMES_PER_POSITION,
    PART_POSITIONS,
    Backend,
    ExtraAnswers,
    Probe,
    ProbeResult,
    RowExtras,
    WindowId,
)
from stapes.decoding.quality import check_answer
from stapes.errors import OptionError
from stapes.options import Speech
from stapes.recording.passes import ForcedPass
from stapes.results import LanguageGuess
from stapes.tokenizer import Tokenizer


def candidates_of(tokenizer: Tokenizer, speech: Speech) -> tuple[str, ...]:
    """Return the codes to choose among, in the order of their ids.

    Raises OptionError for a language that the model does not know, and for options that need a choice where a model
    knows one language.
    """
    if not tokenizer.multilingual:
        if speech.multilingual or speech.languages is not None:
            wish = "multilingual" if speech.multilingual else f"languages {','.join(speech.languages or ())}"
            raise OptionError(f"this model knows English only: {wish} cannot be; leave it out or load another model")
        return ()
    for code in speech.candidates or ():
        tokenizer.start_sequence(code, speech.task)  # raises for one that it does not know
    return tuple(one for one in tokenizer.special.languages if speech.candidates is None or one in speech.candidates)


class LanguageQuestion(ForcedPass[LanguageGuess]):
    """Detects which of some languages is spoken in a window."""

    def __init__(
        self,
        backend: Backend,
        window: WindowId,
        tokenizer: Tokenizer,
        candidates: Sequence[str],
        part: tuple[int, int] | None = None,
    ) -> None:
        """part: frames of the window that count, half-open; None: all."""
        super().__init__(backend, window)
        self._sot = tokenizer.special.sot
        self._candidates = candidates
        self._ids = tuple(tokenizer.special.languages[code] for code in candidates)
        self._within = None if part is None else positions_of(*part)

    def _question(self) -> tuple[tuple[int, ...], RowExtras]:
        return (self._sot,), RowExtras(probes=(Probe(0, self._ids),), within=self._within)

    def _answer(self, answers: ExtraAnswers) -> LanguageGuess:
        return language_guess(answers.probes[0], self._candidates)


def positions_of(first: int, end: int) -> tuple[int, int]:
    """Return the encoder positions of frames first..end; the first one is rounded to where a part may begin."""
    last = max(1, end // FRAMES_PER_POSITION)
    begin = round(first / FRAMES_PER_POSITION / PART_POSITIONS) * PART_POSITIONS
    return (begin if begin < last else (last - 1) // PART_POSITIONS * PART_POSITIONS), last


def language_guess(probe: ProbeResult, candidates: Sequence[str]) -> LanguageGuess:
    """Return the candidates' probabilities; of equals the first in the vocabulary wins.

    Raises CheckpointError where the logits are not numbers.
    """
    logits = probe.logits.astype(np.float64)
    check_answer(float(logits.sum()))
    weights = np.exp(logits - logits.max())
    return _ranked(dict(zip(candidates, (weights / weights.sum()).tolist(), strict=True)))


def mean_guess(guesses: Sequence[LanguageGuess], weights: Sequence[float] | None = None) -> LanguageGuess:
    """Return the mean of the probabilities, and its most probable language; one guess is its own mean."""
    if len(guesses) == 1:
        return guesses[0]
    weights = weights or [1.0] * len(guesses)
    shares = dict.fromkeys(guesses[0].probabilities, 0.0)
    for guess, weight in zip(guesses, weights, strict=True):
        for code, share in guess.probabilities.items():
            shares[code] += share * weight / sum(weights)
    return _ranked(shares)


def _ranked(shares: dict[str, float]) -> LanguageGuess:
    best_first = dict(sorted(shares.items(), key=lambda item: -item[1]))
    return LanguageGuess(language=next(iter(best_first)), probabilities=best_first)
