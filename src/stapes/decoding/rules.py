"""Which ids may come next, as data: forbidden ranges made from the tokens sampled so far. A backend applies them.
Source: openai/whisper decoding.py at c0d2f62 (SuppressBlank, SuppressTokens, ApplyTimestampRules).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stapes.backends.base import Constraint, IdRange, IdRanges
from stapes.options import Rules
from stapes.tokenizer import Tokenizer
from stapes.tokenizer.suppressed import suppressed_by_text


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingRules:
    """The rules of one job; `constraint` applies them to a row."""

    permanent: IdRanges  # forbidden at every position
    at_start: tuple[IdRange, ...]  # forbidden at the first sampled position
    timestamps: bool
    eot: int
    timestamp_begin: int
    latest_start: int | None  # last id allowed as the first timestamp
    n_vocab: int

    @classmethod
    def make(cls, tokenizer: Tokenizer, options: Rules, seconds_per_timestamp: float) -> DecodingRules:
        """Make the rules for one model and one set of options. seconds_per_timestamp: 0.02 in every published model."""
        special = tokenizer.special
        forbidden = {*tokenizer.never_sampled(options.suppress_tokens), *suppressed_by_text(tokenizer, options)}
        forbidden.update(tokenizer.unused)
        timestamps = tokenizer.has_timestamps and not options.without_timestamps
        if timestamps:
            forbidden.update(tokenizer.without_timestamps)
        blanks = (*tokenizer.blank, special.eot) if options.suppress_blank else ()
        latest = None
        if options.max_initial_timestamp:  # 0 and None: no cap, as in the reference
            latest = special.timestamp_begin + round(options.max_initial_timestamp / seconds_per_timestamp)
        return cls(
            permanent=IdRanges(sorted(forbidden)),
            at_start=tuple((one, one + 1) for one in blanks),
            timestamps=timestamps,
            eot=special.eot,
            timestamp_begin=special.timestamp_begin,
            latest_start=latest,
            n_vocab=tokenizer.n_vocab,
        )

    def constraint(self, sampled: Sequence[int]) -> Constraint:
        """Return what may follow the tokens sampled so far (prompt and prefix not among them)."""
        now = self.at_start if not sampled else ()
        if not self.timestamps:
            return Constraint(self.permanent, now)
        return Constraint(self.permanent, (*now, *self._timestamp_ranges(sampled)), vote_from=self.timestamp_begin)

    def _timestamp_ranges(self, sampled: Sequence[int]) -> tuple[IdRange, ...]:
        begin = self.timestamp_begin
        if not sampled:  # a window opens with a timestamp
            opening: tuple[IdRange, ...] = ((0, begin),)
            return opening if self.latest_start is None else (*opening, (self.latest_start + 1, self.n_vocab))
        last_is = sampled[-1] >= begin
        before_is = len(sampled) < 2 or sampled[-2] >= begin
        if last_is and before_is:  # two in a row, or the opening one: text comes next
            return ((begin, self.n_vocab),)
        latest = next((one for one in reversed(sampled) if one >= begin), None)
        if last_is:  # text has just been closed: the next segment opens, at the same time or later, or all ends
            return ((0, self.eot), (begin, sampled[-1]))
        # Inside text: the closing timestamp must be later than the opening one.
        return () if latest is None else ((begin, latest + 1),)
