"""The bootstrap that decides which precisions `auto` may take."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.precision_evidence import LEAST_WORDS, MOST_POINTS, compare, units_of


def test_the_same_errors_pass_and_many_more_fail() -> None:
    n = 600
    words, exact = [20] * n, [2] * n
    same = compare(words, exact, exact, list(range(n)))
    assert (same.points, same.upper_points, same.verdict) == (0.0, 0.0, True)
    worse = compare(words, exact, [3] * 60 + [2] * (n - 60), list(range(n)))  # 0.5 points
    assert worse.points == 0.5
    assert worse.verdict is False


def test_copies_of_one_utterance_count_as_one() -> None:
    n = 600
    words, exact = [20] * n, [2] * n
    other = [5] * 5 + [2] * (n - 5)  # 0.125 points
    single = compare(words, exact, other, list(range(n)))
    copies = compare(words, exact, other, [0] * 5 + list(range(1, n - 4)))
    assert single.points == copies.points
    assert single.upper_points < MOST_POINTS < copies.upper_points
    assert (single.verdict, copies.verdict) == (True, None)
    assert copies.words_to_decide > copies.words


def test_too_few_words_are_undecided_and_it_is_said_how_many_would_decide() -> None:
    words, exact = [20] * 50, [2] * 50
    few = compare(words, exact, [3, 1] * 25, list(range(50)))
    assert few.verdict is None
    assert few.words_to_decide >= LEAST_WORDS
    assert compare([], [], [], []).verdict is None


def test_units_are_texts_and_what_is_part_of_them() -> None:
    texts = [
        "one two three four",
        "five six seven eight",
        "zero one two three four nine",
        "five six seven eight",
        "one",
    ]
    assert units_of(texts) == [0, 1, 0, 1, 2]
    assert units_of([]) == []


@given(st.lists(st.text("ab ", max_size=12), max_size=8))
def test_units_are_numbered_from_zero_without_gaps(texts: list[str]) -> None:
    units = units_of(texts)
    assert set(units) == set(range(len(set(units))))


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_the_upper_bound_is_no_less_than_the_difference_s_median(rows: list[tuple[int, int, int]]) -> None:
    words, exact, other = (list(column) for column in zip(*rows, strict=True))
    found = compare(words, exact, other, list(range(len(rows))))
    assert found.words == sum(words)
    assert found.errors - found.errors_float32 == sum(other) - sum(exact)
    assert found.upper_points >= min(100 * (o - e) / w for w, e, o in rows) - 1e-9
