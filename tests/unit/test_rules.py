"""The timestamp rules of openai/whisper, a row of the table for each."""

from __future__ import annotations

import pytest

from stapes.decoding.rules import DecodingRules
from stapes.options import Rules
from stapes.testing import small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer

TOKENIZER = Tokenizer(tiny_spec(), small_vocabulary())
(NO_TIMESTAMPS,) = TOKENIZER.without_timestamps
SPECIAL = TOKENIZER.special
EOT, BEGIN, N_VOCAB = SPECIAL.eot, SPECIAL.timestamp_begin, TOKENIZER.n_vocab
LAST = N_VOCAB - 1  # 30.00 s
A, B = TOKENIZER.encode("ab")

TEXT = frozenset(range(EOT))
END = frozenset({EOT})
#: special tokens that no rule names: languages; every other one is always forbidden
OTHERS = frozenset(SPECIAL.languages.values())


def ts(seconds: float) -> int:
    return BEGIN + round(seconds / 0.02)


def times(first: int, last: int = LAST) -> frozenset[int]:
    return frozenset(range(first, last + 1))


def allowed(sampled: tuple[int, ...], **options: object) -> frozenset[int]:
    """Return the ids that may follow, apart from those that are always forbidden."""
    rules = DecodingRules.make(TOKENIZER, Rules(**options), 0.02)  # type: ignore[arg-type]
    constraint = rules.constraint(sampled)
    assert constraint.permanent is rules.permanent  # one object per job
    forbidden = {one for start, stop in constraint.now for one in range(start, stop)}
    return frozenset(range(N_VOCAB)) - forbidden


#: what has been sampled -> what may follow, beside the ids that are never sampled
TABLE: list[tuple[str, tuple[int, ...], frozenset[int]]] = [
    ("nothing yet: a timestamp of at most 1.0 s", (), times(BEGIN, ts(1.0))),
    ("the opening timestamp: text", (ts(0.5),), TEXT | END | OTHERS),
    ("text: more, the end, or a later timestamp", (ts(0.5), A), TEXT | END | OTHERS | times(ts(0.52))),
    ("more text: the same", (ts(0.5), A, B), TEXT | END | OTHERS | times(ts(0.52))),
    ("text and timestamp: a timestamp, the same or later, or the end", (ts(0), A, ts(2)),
     times(ts(2)) | END | OTHERS),
    ("two timestamps: text", (ts(0), A, ts(2), ts(2)), TEXT | END | OTHERS),
    ("two timestamps, the second later: text", (ts(0), A, ts(2), ts(3)), TEXT | END | OTHERS),
    ("text of the second segment: a timestamp after its beginning", (ts(0), A, ts(2), ts(3), B),
     TEXT | END | OTHERS | times(ts(3.02))),
    ("the latest counts, not the first", (ts(0), A, ts(2), ts(2), B, ts(4), ts(4), A, B),
     TEXT | END | OTHERS | times(ts(4.02))),
    ("at 30.00 s no later one is left", (ts(0), A, LAST, LAST, B), TEXT | END | OTHERS),
    ("closed at 30.00 s: that again, or the end", (ts(0), A, LAST), frozenset({LAST}) | END | OTHERS),
]  # fmt: skip


@pytest.mark.parametrize(("sampled", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_may_follow(sampled: tuple[int, ...], expected: frozenset[int]) -> None:
    never = frozenset(DecodingRules.make(TOKENIZER, Rules(), 0.02).permanent.array.tolist())
    assert allowed(sampled) - never == expected - never


@pytest.mark.parametrize("cap", [None, 0])
def test_without_a_cap_any_timestamp_opens(cap: float | None) -> None:
    assert allowed((), max_initial_timestamp=cap) == times(BEGIN)


@pytest.mark.parametrize(("cap", "last"), [(0.02, 0.02), (0.5, 0.5), (2.0, 2.0), (30.0, 30.0), (0.005, 0.0)])
def test_the_cap_is_the_last_that_opens(cap: float, last: float) -> None:
    assert allowed((), max_initial_timestamp=cap) == times(BEGIN, ts(last))


def test_a_window_does_not_begin_blank_or_empty() -> None:
    blank = frozenset(TOKENIZER.blank)
    everything = frozenset(range(N_VOCAB))
    assert allowed((), without_timestamps=True) == everything - blank - END
    assert allowed((), without_timestamps=True, suppress_blank=False) == everything
    assert allowed((A,), without_timestamps=True) == everything  # at the first position only


def test_without_timestamps_no_rule_of_theirs_holds_and_nothing_is_voted_on() -> None:
    rules = DecodingRules.make(TOKENIZER, Rules(without_timestamps=True), 0.02)
    for sampled in ((), (A,), (ts(1), A, ts(0))):
        assert rules.constraint(sampled).vote_from is None
    assert NO_TIMESTAMPS not in rules.permanent  # forbidden by the timestamp rules only


def test_timestamps_outvote_text_from_their_first_id_on() -> None:
    rules = DecodingRules.make(TOKENIZER, Rules(), 0.02)
    for _, sampled, _ in TABLE:
        assert rules.constraint(sampled).vote_from == BEGIN
    assert NO_TIMESTAMPS in rules.permanent


def test_never_sampled_are_non_speech_and_the_specials_that_steer() -> None:
    rules = DecodingRules.make(TOKENIZER, Rules(), 0.02)
    steering = {
        SPECIAL.sot,
        SPECIAL.translate,
        SPECIAL.transcribe,
        SPECIAL.sot_lm,
        SPECIAL.sot_prev,
        SPECIAL.no_speech,
        SPECIAL.no_timestamps,
    }
    assert set(rules.permanent.array.tolist()) == steering | set(TOKENIZER.non_speech)
    assert not OTHERS & set(rules.permanent.array.tolist())
    assert EOT not in rules.permanent


def test_an_empty_list_switches_all_of_these_off() -> None:
    rules = DecodingRules.make(TOKENIZER, Rules(suppress_tokens=()), 0.02)
    assert rules.permanent.array.tolist() == [SPECIAL.no_timestamps]


@pytest.mark.parametrize("seconds_per_timestamp", [0.02, 0.04])
def test_the_cap_counts_in_the_models_own_timestamps(seconds_per_timestamp: float) -> None:
    rules = DecodingRules.make(TOKENIZER, Rules(), seconds_per_timestamp)
    assert rules.latest_start == BEGIN + round(1.0 / seconds_per_timestamp)
