"""Which ids may come next, as data: forbidden ranges made from the tokens sampled so far. A backend applies them.
Source: openai/whisper decoding.py at c0d2f62 (SuppressBlank, SuppressTokens, ApplyTimestampRules).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

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
    last_timestamp: int | None = None  # None: any
    no_repeat_ngram_size: int = 0  # 0: any sequence may come again
    opens: bool = True  # whether the first sampled token is a timestamp
    _shorter: dict[int, DecodingRules] = field(default_factory=dict, compare=False, repr=False)
    _constraints: dict[tuple[str, int | None], Constraint] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def make(
        cls,
        tokenizer: Tokenizer,
        options: Rules,
        seconds_per_timestamp: float,
        no_repeat_ngram_size: int = 0,
        *,
        zero_is_a_cap: bool = False,
    ) -> DecodingRules:
        """Make the rules for one model and one set of options.

        seconds_per_timestamp: 0.02 in every published model.
        zero_is_a_cap: whether max_initial_timestamp 0 has a window begin at 0.0 s; in the reference it is no cap.
        """
        special = tokenizer.special
        forbidden = {*tokenizer.never_sampled(options.suppress_tokens), *suppressed_by_text(tokenizer, options)}
        forbidden.update(tokenizer.unused)
        timestamps = tokenizer.has_timestamps and not options.without_timestamps
        if timestamps:
            forbidden.update(tokenizer.without_timestamps)
        blanks = (*tokenizer.blank, special.eot) if options.suppress_blank else ()
        latest, cap_s = None, options.max_initial_timestamp
        if cap_s or (cap_s == 0 and zero_is_a_cap):
            latest = special.timestamp_begin + round(cap_s / seconds_per_timestamp)
        return cls(
            permanent=IdRanges(sorted(forbidden)),
            at_start=tuple((one, one + 1) for one in blanks),
            timestamps=timestamps,
            eot=special.eot,
            timestamp_begin=special.timestamp_begin,
            latest_start=latest,
            n_vocab=tokenizer.n_vocab,
            no_repeat_ngram_size=no_repeat_ngram_size,
        )

    def up_to(self, positions: int) -> DecodingRules:
        """Return the rules of a window of so many encoder positions: no timestamp is after its end."""
        found = self._shorter.get(positions)
        if found is None:
            found = replace(self, last_timestamp=self.timestamp_begin + positions, _constraints={})
            self._shorter[positions] = found
        return found

    def after_prefix(self) -> DecodingRules:
        """Return the rules of a window whose beginning is given, its first timestamp included."""
        return replace(self, opens=False, _shorter={}, _constraints={})

    def constraint(self, sampled: Sequence[int]) -> Constraint:
        """Return what may follow the tokens sampled so far (prompt and prefix not among them)."""
        latest = next((one for one in reversed(sampled) if one >= self.timestamp_begin), None)
        return self.constraint_after(sampled, latest)

    def constraint_after(self, sampled: Sequence[int], latest: int | None) -> Constraint:
        """Return the same, where the latest timestamp among the sampled tokens is known."""
        found = self._by_state(sampled, latest)
        if not self.no_repeat_ngram_size:
            return found
        ranges = tuple((one, one + 1) for one in ids_that_repeat(sampled, self.no_repeat_ngram_size))
        return replace(found, now=(*found.now, *ranges)) if ranges else found

    def _by_state(self, sampled: Sequence[int], latest: int | None) -> Constraint:
        if not sampled:
            return self._cached("opening", 0)
        if not self.timestamps:
            return self._cached("any", 0)
        begin = self.timestamp_begin
        if sampled[-1] < begin:
            return self._cached("text", latest)
        if len(sampled) < 2 or sampled[-2] >= begin:
            return self._cached("opened", 0)
        return self._cached("closed", latest)

    def _cached(self, state: str, latest: int | None) -> Constraint:
        """Return a state's constraint; one object each, as most tokens find the state of the token before."""
        found = self._constraints.get((state, latest))
        if found is None:
            now = self.at_start if state == "opening" else ()
            vote_from = self.timestamp_begin if self.timestamps else None
            if self.timestamps:
                now = (*now, *self._timestamp_ranges(state, latest))
            if self.last_timestamp is not None:
                now = (*now, (self.last_timestamp + 1, self.n_vocab))
            found = self._constraints[state, latest] = Constraint(self.permanent, now, vote_from)
        return found

    def _timestamp_ranges(self, state: str, latest: int | None) -> tuple[IdRange, ...]:
        begin = self.timestamp_begin
        if state == "opening":  # a window opens with a timestamp
            if not self.opens:
                return ()
            opening: tuple[IdRange, ...] = ((0, begin),)
            return opening if self.latest_start is None else (*opening, (self.latest_start + 1, self.n_vocab))
        if state == "opened":  # two timestamps in a row, or the opening one: text comes next
            return ((begin, self.n_vocab),)
        if latest is None:
            return ()
        if state == "closed":  # the next segment opens, at the same time or later, or all ends
            return ((0, self.eot), (begin, latest))
        # Inside text: the closing timestamp must be later than the opening one.
        return ((begin, latest + 1),)


def ids_that_repeat(sampled: Sequence[int], n: int) -> list[int]:
    """Return the ids, ascending, after which a sequence of n tokens would be there a second time.

    Source: CTranslate2 4.8 decoding_utils.cc (NoRepeatNgram).
    """
    if len(sampled) < n:
        return []
    begun = tuple(sampled[len(sampled) - (n - 1) :])
    places = range(len(sampled) - n + 1)
    return sorted({sampled[start + n - 1] for start in places if tuple(sampled[start : start + n - 1]) == begun})
