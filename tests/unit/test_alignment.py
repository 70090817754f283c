"""From attention to columns: the smoothing, the path, and NaN."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.backends.base import FloatArray
from stapes.backends.numerics import alignment_cost, dtw_path, entries, median_filter, token_columns


def costs(seed: int, n_tokens: int, n_columns: int, *, levels: int | None = None) -> FloatArray:
    random = np.random.default_rng(seed)
    if levels is not None:  # few different values: ties everywhere
        return random.integers(0, levels, size=(n_tokens, n_columns)).astype(np.float32)
    return random.standard_normal((n_tokens, n_columns), dtype=np.float32)


def plain_path(cost: FloatArray) -> list[tuple[int, int]]:
    """Go through the cells one by one, as in a textbook."""
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf, dtype=np.float32)
    came = np.zeros((n + 1, m + 1), dtype=int)
    total[0, 0] = 0
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            both, token, column = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
            way = 0 if both < min(token, column) else 1 if token < min(both, column) else 2
            came[i, j] = way
            total[i, j] = cost[i - 1, j - 1] + (both, token, column)[way]
    i, j = n, m
    path: list[tuple[int, int]] = []
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        way = 2 if i == 0 else 1 if j == 0 else int(came[i, j])
        i, j = i - (way != 2), j - (way != 1)
    return path[::-1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 30), st.sampled_from([None, 1, 2, 3]))
def test_the_path_is_the_textbooks(seed: int, n_tokens: int, n_columns: int, levels: int | None) -> None:
    cost = costs(seed, n_tokens, n_columns, levels=levels)
    path = dtw_path(cost)
    assert list(zip(*path.tolist(), strict=True)) == plain_path(cost)
    assert path[:, 0].tolist() == [0, 0]
    assert path[:, -1].tolist() == [n_tokens - 1, n_columns - 1]
    steps = np.diff(path, axis=1)
    assert set(map(tuple, steps.T.tolist())) <= {(0, 1), (1, 0), (1, 1)}
    found = entries(path)
    assert len(found) == n_tokens
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("n_columns", [1, 2, 3, 4, 7, 20])
def test_the_median_is_that_of_seven_columns_mirrored_at_the_ends(n_columns: int) -> None:
    x = costs(3, 2, n_columns)
    found = median_filter(x)
    if n_columns <= 3:
        assert (found == x).all()
        return
    mirrored = [*range(3, 0, -1), *range(n_columns), *range(n_columns - 2, n_columns - 5, -1)]
    for row, smooth in zip(x, found, strict=True):
        assert smooth.tolist() == [float(np.median(row[mirrored[i : i + 7]])) for i in range(n_columns)]


def test_attention_that_moves_on_gives_columns_that_move_with_it() -> None:
    scores = np.zeros((2, 6, 100), np.float32)
    for token in range(6):
        scores[:, token, 10 + 15 * token : 25 + 15 * token] = 8.0
    found = token_columns(scores, 100, 1)
    assert len(found) == 4
    assert np.abs(found[1:] - [40, 55, 70]).max() <= 1  # the first token begins where the sound does
    assert found[0] == 0


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, -np.inf])
def test_attention_that_says_nothing_costs_nothing(bad: float) -> None:
    scores = np.full((2, 5, 40), bad, np.float32)
    assert (alignment_cost(scores, 40, 1) == 0).all()
    found = token_columns(scores, 40, 1)
    assert len(found) == 3
    assert ((found >= 0) & (found < 40)).all()


def test_without_columns_everything_is_at_the_beginning() -> None:
    assert token_columns(costs(0, 15, 40).reshape(3, 5, 40), 0, 1).tolist() == [0, 0, 0]
