"""The native library's costs and paths against those of NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.backends.base import FloatArray
from stapes.backends.native.library import is_built, library
from stapes.backends.numerics import alignment_cost, dtw_path

pytestmark = pytest.mark.skipif(not is_built(), reason="the native library was not built")

#: medians of numbers whose softmax differs in the seventh digit, normalised
TOLERANCE = 2e-5


def scores_of(seed: int, n_heads: int, n_tokens: int, n_audio_ctx: int) -> FloatArray:
    random = np.random.default_rng(seed)
    return random.standard_normal((n_heads, n_tokens, n_audio_ctx), dtype=np.float32) * np.float32(4)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 1000),
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(1, 60),
    st.integers(0, 60),
    st.integers(0, 5),
)
def test_costs_are_the_twins(
    seed: int, n_heads: int, n_tokens: int, n_audio_ctx: int, n_columns: int, n_before: int
) -> None:
    n_columns, n_before = min(n_columns, n_audio_ctx), min(n_before, n_tokens - 1)
    scores = scores_of(seed, n_heads, n_tokens, n_audio_ctx)
    found = library().alignment_cost(scores, n_columns, n_before)
    expected = alignment_cost(scores, n_columns, n_before)
    assert found.shape == expected.shape == (n_tokens - n_before - 1, n_columns)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max(initial=0) <= TOLERANCE


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, -np.inf])
def test_what_is_no_number_costs_nothing_either(bad: float) -> None:
    scores = scores_of(1, 2, 6, 50)
    scores[0, 3, 7] = bad
    scores[1] = bad
    found = library().alignment_cost(scores, 50, 1)
    assert np.abs(found - alignment_cost(scores, 50, 1)).max() <= TOLERANCE
    assert np.isfinite(found).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 20), st.integers(1, 80), st.sampled_from([None, 1, 2, 3]))
def test_paths_are_the_twins_cell_for_cell(seed: int, n_tokens: int, n_columns: int, levels: int | None) -> None:
    random = np.random.default_rng(seed)
    cost = random.standard_normal((n_tokens, n_columns), dtype=np.float32)
    if levels is not None:  # ties everywhere
        cost = random.integers(0, levels, size=(n_tokens, n_columns)).astype(np.float32)
    assert library().dtw_path(cost).tolist() == dtw_path(cost).tolist()


@pytest.mark.parametrize("given", [(51, 0), (-1, 0), (50, 6), (50, -1)])
def test_columns_and_tokens_that_are_not_there_are_refused(given: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="the scores have fewer"):
        library().alignment_cost(scores_of(1, 2, 6, 50), *given)
