"""The arithmetic of a transformer in NumPy, float32: plain; every faster kernel is tested against it."""

from __future__ import annotations

import numpy as np

from stapes.backends.base import FloatArray

# The standard normal distribution's logit, log(P(X < x) / P(X > x)), is x times a smooth function of x squared. These
# are its minimax coefficients on |x| <= 5.5, lowest power first (tools/fit_gelu.py), weighted so that x * P(X < x)
# is right within 2e-7 of its size: as near as float32 comes. Beyond 5.5 the answer is x or 0 to the last bit but one.
_LOGIT = tuple(
    np.float32(one)
    for one in (
        1.5957748889923096, 0.07264959067106247, -4.9005800974555314e-05, -0.00011729241668945178,
        9.26130360312527e-06, -3.9867219925326935e-07, 1.017622963672693e-08, -1.434112828491152e-10,
        8.569813695485928e-13,
    )
)  # fmt: skip
_LOGIT_END = np.float32(5.5**2)
_GELU_BLOCK = 32768  # values: 128 KiB, three buffers of which stay in a core's cache
_ATTENTION_BLOCK = 250  # queries: their scores against 1,500 keys fill 1.5 MB
_LARGEST_SCORE = 80.0  # 1,500 times exp(80) is still a float32
_SMALLEST_SUM = 1e-25  # below it, small weights would be lost to float32's smallest numbers


def linear(x: FloatArray, weight: FloatArray, bias: FloatArray | None) -> FloatArray:
    """x (n, in) times weight (out, in) transposed, plus bias (out,) -> (n, out)."""
    y: FloatArray = x @ weight.T
    if bias is not None:
        y += bias
    return y


def layer_norm(x: FloatArray, weight: FloatArray, bias: FloatArray) -> FloatArray:
    """Normalise each row of (n, d) to mean 0 and variance 1 (epsilon 1e-5), then scale and shift."""
    y: FloatArray = x - x.mean(axis=1, keepdims=True, dtype=np.float32)
    variance = np.einsum("ij,ij->i", y, y)[:, None] / np.float32(x.shape[1])
    y /= np.sqrt(variance + np.float32(1e-5))
    y *= weight
    y += bias
    return y


def gelu(x: FloatArray) -> FloatArray:
    """x * P(X < x), the exact Gaussian error linear unit, in place; x is contiguous."""
    flat = x.reshape(-1)
    # exp overflows to infinity for large negative x, and x / infinity is the zero that is meant.
    with np.errstate(over="ignore"):
        for start in range(0, flat.size, _GELU_BLOCK):
            _gelu_block(flat[start : start + _GELU_BLOCK])
    return x


def _gelu_block(x: FloatArray) -> None:
    square = x * x
    np.minimum(square, _LOGIT_END, out=square)
    logit = np.full_like(square, _LOGIT[-1])
    for coefficient in _LOGIT[-2::-1]:
        logit *= square
        logit += coefficient
    logit *= x
    np.negative(logit, out=logit)
    np.exp(logit, out=logit)
    logit += 1
    np.divide(x, logit, out=x)


def softmax(scores: FloatArray) -> FloatArray:
    """Softmax over the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def attend_all(query: FloatArray, key: FloatArray, value: FloatArray) -> FloatArray:
    """Return one head's attention of every position to every position: (n, width).
    query, key, value: (n, width), views allowed; query is already scaled.
    """
    query, key = np.ascontiguousarray(query), np.ascontiguousarray(key)
    # A column of ones lets the product that mixes the values sum the weights too.
    value = np.concatenate((value, np.ones((len(value), 1), np.float32)), axis=1)
    out = np.empty_like(query)
    for start in range(0, len(query), _ATTENTION_BLOCK):
        rows = slice(start, start + _ATTENTION_BLOCK)
        mixed = _mix(query[rows] @ key.T, value, safely=False)
        if mixed is None:
            mixed = _mix(query[rows] @ key.T, value, safely=True)
        assert mixed is not None
        np.divide(mixed[:, :-1], mixed[:, -1:], out=out[rows])
    return out


def _mix(scores: FloatArray, value: FloatArray, *, safely: bool) -> FloatArray | None:
    """Weigh the values with the exponentials of the scores, in place; None asks for another try, `safely`.

    The scores' own size is safe in all but extreme windows; `safely` subtracts each row's maximum first, which costs
    two more passes over them.
    """
    if safely:
        scores -= scores.max(axis=1, keepdims=True)
    elif scores.max() > _LARGEST_SCORE:
        return None
    np.exp(scores, out=scores)
    mixed: FloatArray = scores @ value
    return mixed if safely or mixed[:, -1].min() > _SMALLEST_SUM else None
