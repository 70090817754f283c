"""The NumPy kernels against the formulas in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from stapes.backends.base import FloatArray
from stapes.backends.numpy.kernels import attend_all, gelu, layer_norm, linear, softmax

sizes = st.integers(1, 40)


def arrays(width: float, *, min_side: int = 1) -> st.SearchStrategy[FloatArray]:
    return npst.arrays(
        np.float32,
        npst.array_shapes(min_dims=2, max_dims=2, min_side=min_side, max_side=24),
        elements=st.floats(-width, width, width=32),
    )


def exact_gelu(x: FloatArray) -> np.ndarray:
    """x * P(X < x) with erfc on the negative side, where 1 + erf would lose all digits."""
    return np.array([0.5 * v * math.erfc(-v / math.sqrt(2.0)) for v in x.astype(np.float64).tolist()])


def test_gelu_is_the_exact_one_not_the_tanh_approximation() -> None:
    x = np.linspace(-12.0, 12.0, 200_001, dtype=np.float32)
    error = np.abs(gelu(x.copy()).astype(np.float64) - exact_gelu(x))
    # float32 keeps 6e-8 of a value's size; the fit is weighted for 2e-7, and the tanh form is 5e-4 off
    assert (error <= 3e-7 * np.maximum(1.0, np.abs(x))).all()


@pytest.mark.parametrize(
    ("x", "expected"), [(1e4, 1e4), (-1e4, 0.0), (3e38, 3e38), (-3e38, 0.0), (0.0, 0.0), (-0.0, 0.0), (1e-38, 5e-39)]
)
def test_gelu_at_the_ends(x: float, expected: float) -> None:
    (found,) = gelu(np.array([x], dtype=np.float32))
    assert found == pytest.approx(expected, rel=1e-6, abs=0.0)


def test_gelu_works_in_place_and_in_blocks() -> None:
    x = np.random.default_rng(0).standard_normal((3, 30_011), dtype=np.float32)  # several blocks and a rest
    alone = np.array([gelu(x[:, i].copy()) for i in range(0, x.shape[1], 997)]).T
    assert gelu(x) is x
    assert np.array_equal(x[:, ::997], alone)


@given(arrays(100.0))
def test_layer_norm_is_the_formula(x: FloatArray) -> None:
    random = np.random.default_rng(x.shape[1])
    weight, bias = random.standard_normal((2, x.shape[1])).astype(np.float32)
    wide = x.astype(np.float64)
    mean = wide.mean(axis=1, keepdims=True)
    variance = ((wide - mean) ** 2).mean(axis=1, keepdims=True)
    expected = (wide - mean) / np.sqrt(variance + 1e-5) * weight + bias
    before = x.copy()
    # Rounding the mean to float32 shifts all by 1e-7 of the largest value; equal values are lost in that
    # (variance 0 against epsilon 1e-5 magnifies it by 316).
    tolerance = 1e-5 + 316 * 3e-7 * float(np.abs(x).max())
    assert np.abs(layer_norm(x, weight, bias) - expected).max() <= tolerance * max(1.0, float(np.abs(weight).max()))
    assert np.array_equal(x, before)


@given(arrays(80.0))
def test_softmax_is_the_formula(x: FloatArray) -> None:
    wide = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    expected = wide / wide.sum(axis=1, keepdims=True)
    found = softmax(x.copy())
    assert np.abs(found - expected).max() <= 1e-6  # of 1: a few float32 roundings
    assert np.abs(found.sum(axis=1, dtype=np.float64) - 1.0).max() <= 1e-5


def test_softmax_gives_nothing_to_what_is_masked_and_survives_extremes() -> None:
    scores = np.array([[1e4, -1e4, -np.inf], [-1e4, -np.inf, -np.inf], [3e38, 3e38, 0.0]], dtype=np.float32)
    expected = [[1, 0, 0], [1, 0, 0], [0.5, 0.5, 0]]
    assert softmax(scores).tolist() == expected


@given(st.integers(1, 300), st.integers(1, 8), st.integers(0, 2**31))
def test_attention_is_the_formula_whatever_the_blocks(n: int, width: int, seed: int) -> None:
    query, key, value = np.random.default_rng(seed).standard_normal((3, n, width)).astype(np.float32)
    scores = query.astype(np.float64) @ key.T.astype(np.float64)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected = weights / weights.sum(axis=1, keepdims=True) @ value.astype(np.float64)
    assert np.abs(attend_all(query, key, value) - expected).max() <= 1e-5  # float32 sums of up to 300 numbers near 1


@given(sizes, sizes, sizes)
def test_linear_multiplies_by_the_transpose_and_adds_the_bias(n: int, d_in: int, d_out: int) -> None:
    random = np.random.default_rng((n, d_in, d_out))
    x = random.integers(-4, 5, (n, d_in)).astype(np.float32)  # small whole numbers: exact in any order
    weight, bias = random.integers(-4, 5, (d_out, d_in)).astype(np.float32), np.arange(d_out, dtype=np.float32)
    expected = np.einsum("ni,oi->no", x, weight)
    assert np.array_equal(linear(x, weight, None), expected)
    assert np.array_equal(linear(x, weight, bias), expected + bias)
