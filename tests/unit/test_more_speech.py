"""Utterances are joined up to a window, and prompts without words are told from sentences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.more_speech import _LONGEST_S, _SILENCE_S, _as_spoken, joined


@given(st.lists(st.floats(0.1, 60.0)))
def test_utterances_are_joined_in_order_as_long_as_they_fit(lengths_s: list[float]) -> None:
    groups = joined(lengths_s)
    assert [i for group in groups for i in group] == list(range(len(lengths_s)))
    totals = [sum(lengths_s[i] for i in group) + _SILENCE_S * (len(group) - 1) for group in groups]
    assert all(len(group) == 1 or total <= _LONGEST_S + 1e-6 for group, total in zip(groups, totals, strict=True))
    following = [lengths_s[group[0]] for group in groups[1:]]
    assert all(total + _SILENCE_S + one > _LONGEST_S - 1e-6 for total, one in zip(totals, following, strict=False))


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Please press 1.", True),
        ("Qu'est-ce que c'est?", True),
        ("[this is a beep]", False),
        ("La conferenza ? piena.", False),
        ("A", False),
        ("12", False),
        ("on / off", False),
    ],
)
def test_texts_with_remarks_or_without_words_are_left_out(text: str, spoken: bool) -> None:
    assert _as_spoken(text) is spoken
