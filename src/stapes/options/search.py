"""How tokens are searched, and when a window is tried again."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from stapes.errors import OptionError
from stapes.options.checks import make_plain, number, option, plain_items, require, whole

#: far beyond what makes sense; above them numbers overflow
_HOTTEST, _MOST_PATIENCE, _MOST_ROWS = 1e6, 1e6, 10**6
#: the ladder of temperatures: each is tried when the one before it failed
LADDER = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy:
    """One row, always the most probable token."""

    temperature: ClassVar[float] = 0.0
    length_penalty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Rows that draw their tokens; the best by the ranking wins."""

    temperature: float
    n_rows: int = 1
    length_penalty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """Beam search: the best `size` rows continue (patience: arXiv:2204.05424)."""

    temperature: ClassVar[float] = 0.0
    size: int
    patience: float = 1.0
    length_penalty: float | None = None

    @property
    def max_finished(self) -> int:
        """The search ends when so many rows have finished."""
        return round(self.size * self.patience)


Strategy = Greedy | Sample | Beam


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How tokens are searched: greedy, beam search at temperature 0, sampling above it."""

    temperature: tuple[float, ...] = option(
        LADDER, "sampling temperature; several are tried in turn while a window fails the thresholds"
    )
    beam_size: int | None = option(None, "rows of the beam search at temperature 0; None searches greedily", "rows")
    patience: float | None = option(
        None, "the beam search ends when beam_size * patience rows have finished; None is 1.0 (arXiv:2204.05424)"
    )
    best_of: int | None = option(None, "samples at a temperature above 0, of which the best is kept", "rows")
    length_penalty: float | None = option(
        None, "exponent of the length penalty when rows are ranked (arXiv:1609.08144); None divides by the length"
    )
    repetition_penalty: float = option(
        1.0, "above 1: what a window has said already becomes less likely, each token's logit by this factor; slow"
    )
    no_repeat_ngram_size: int = option(
        0, "forbid sequences of so many tokens that a window already has, its timestamps included; 0: none", "tokens"
    )
    seed: int = option(0, "seed of the sampling above temperature 0; a job's draws depend on nothing else")

    def __post_init__(self) -> None:
        make_plain(self)
        object.__setattr__(self, "temperature", _temperatures(self.temperature))
        whole("beam_size", self.beam_size)
        whole("best_of", self.best_of)
        number("beam_size", self.beam_size, low=1, high=_MOST_ROWS)
        number("best_of", self.best_of, low=1, high=_MOST_ROWS)
        whole("seed", self.seed, low=0)
        require(self.repetition_penalty is not None, "repetition_penalty must be a number, got None")
        number("repetition_penalty", self.repetition_penalty, low=0.01, high=100)
        require(self.no_repeat_ngram_size is not None, "no_repeat_ngram_size must be a whole number, got None")
        whole("no_repeat_ngram_size", self.no_repeat_ngram_size, low=0)
        number("patience", self.patience, low=0, high=_MOST_PATIENCE)
        number("length_penalty", self.length_penalty, low=0, high=1)
        if self.patience is not None and 0.0 in self.temperature:
            require(self.beam_size is not None, "patience needs a beam search: give beam_size too")
        beams = self.at(0.0)
        if isinstance(beams, Beam) and not beams.max_finished:
            raise OptionError(
                f"beam_size {beams.size} with patience {beams.patience:g} ends before any row has finished"
            )

    @property
    def most_rows(self) -> int:
        """How many rows a try holds at most."""
        sampled = self.best_of or 1 if any(self.temperature) else 1
        return max(sampled, (self.beam_size or 1) if 0.0 in self.temperature else 1)

    def at(self, temperature: float) -> Strategy:
        """Return the strategy for one try: beams only at temperature 0, samples only above it."""
        if temperature > 0:
            return Sample(temperature=temperature, n_rows=self.best_of or 1, length_penalty=self.length_penalty)
        if self.beam_size is None:
            return Greedy(length_penalty=self.length_penalty)
        return Beam(size=self.beam_size, patience=self.patience or 1.0, length_penalty=self.length_penalty)


def _temperatures(value: Any) -> tuple[float, ...]:
    try:
        ladder = (value,) if isinstance(value, (int, float)) else tuple(plain_items(value))
    except TypeError:
        raise OptionError(f"temperature must be a number or several, got {value!r}") from None
    require(len(ladder) > 0, "temperature needs at least one value")
    for one in ladder:
        require(one is not None, "temperature must be a number or several, got None among them")
        number("temperature", one, low=0, high=_HOTTEST)
    return tuple(float(one) for one in ladder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When a window is decoded again at a higher temperature, and when it is taken for silence."""

    compression_ratio_threshold: float | None = option(
        2.4, "decode again if the text compresses better than this: it repeats itself"
    )
    logprob_threshold: float | None = option(
        -1.0, "decode again if the average log-probability of the tokens is below this"
    )
    no_speech_threshold: float | None = option(
        0.6, "take a window for silence if its no-speech probability exceeds this and logprob_threshold failed too"
    )

    def __post_init__(self) -> None:
        make_plain(self)
        for item in fields(self):
            number(item.name, getattr(self, item.name))
