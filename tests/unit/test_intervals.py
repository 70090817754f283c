"""Sets of intervals against sets of numbers."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from stapes.audio.intervals import Interval, Intervals

bounds = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair)))


@st.composite
def intervals(draw: st.DrawFn) -> Intervals:
    """Draw a set of intervals, in order, some of which touch."""
    edges = sorted(draw(st.sets(st.integers(0, 60), max_size=12)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    if draw(st.booleans()):
        pairs = [*itertools.pairwise(edges)][: len(pairs)]
    return Intervals(tuple(pairs))


def numbers(spans: tuple[Interval, ...]) -> set[int]:
    return {one for first, end in spans for one in range(first, end)}


@given(intervals(), bounds)
def test_intersection_length_and_complement(some: Intervals, part: Interval) -> None:
    inside = some.within(*part)
    assert numbers(inside) == numbers(some.spans) & set(range(*part))
    assert all(first < end for first, end in inside)
    assert numbers(some.counted_from(*part)) == {one - part[0] for one in numbers(inside)}
    assert some.length_within(*part) == len(numbers(inside))
    gaps = some.gaps(*part)
    assert len(gaps) == len(inside) + 1
    assert numbers(gaps) == set(range(*part)) - numbers(inside)


@given(intervals(), st.lists(bounds, max_size=4))
def test_difference(some: Intervals, others: list[Interval]) -> None:
    left = some.without(others)
    assert numbers(left.spans) == numbers(some.spans) - numbers(tuple(others))
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(left.spans))


@given(st.lists(bounds.filter(lambda one: one[0] < one[1]), max_size=6))
def test_union(spans: list[Interval]) -> None:
    joined = Intervals.union(sorted(spans)).spans
    assert numbers(joined) == numbers(tuple(spans))
    assert all(one[1] < other[0] for one, other in itertools.pairwise(joined))


def test_an_empty_interval_cuts_the_one_around_it() -> None:
    assert Intervals(((0, 10),)).without([(4, 4)]).spans == ((0, 4), (4, 10))
    assert Intervals(((0, 10),)).without([(0, 0), (10, 10)]).spans == ((0, 10),)
