"""Each kernel of the native library, on every instruction set that this machine has, against its NumPy twin.

Throughout: float32 rounds by 2^-24 of a number's size and bfloat16 by 2^-8. A sum of n numbers, in any order, is off by
at most n such roundings of the sum of their sizes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stapes.backends import sampling as choosing
from stapes.backends.base import Best, Choice, Constraint, Draw, FloatArray, IdRanges, Top
from stapes.backends.numpy.kernels import gelu
from tests.choices import choices

Array = npt.NDArray[Any]

native: Any = pytest.importorskip("stapes._native", reason="the native library was not built", exc_type=ImportError)
kernels = native.kernels
ISAS: list[str] = native.isa_names()
each_isa = pytest.mark.parametrize("isa", ISAS)

PANEL = 32
F32_ROUNDING, BF16_ROUNDING = 2.0**-24, 2.0**-8
TYPES = ("f32", "f16", "bf16", "i8")  # of weights: rows beside i8 are integers of 16 bits
#: whether a set multiplies bytes, and rows of bf16: without, rows lie there as whole integers, and as float32
MULTIPLIES: dict[str, tuple[bool, bool]] = {isa: kernels.multiplies(isa) for isa in ISAS}
each_product = pytest.mark.parametrize(("isa", "kind"), [(isa, kind) for isa in ISAS for kind in TYPES])

#: (rows, outputs, inputs): whole tiles of every set, one more and one less; single rows that take many panels at once
SHAPES = (
    (1, 1, 1), (1, 300, 257), (2, 300, 40), (2, 31, 1), (3, 1, 33), (5, 97, 100), (6, 64, 64), (7, 33, 2),
    (12, 129, 66), (13, 32, 3), (24, 70, 130), (25, 65, 31), (30, 40, 129),
)  # fmt: skip
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


def rows(n: int, d: int, seed: int = 0, *, size: float = 1.0) -> FloatArray:
    return (np.random.default_rng((seed, n, d)).standard_normal((n, d)) * size).astype(np.float32)


def as_bf16(x: FloatArray) -> FloatArray:
    """Round to bfloat16, ties to even; finite numbers alone."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded: FloatArray = ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return rounded


def stored(weights: FloatArray, kind: str) -> Array:
    """Return weights as the library takes them: float16's bits where they are stored so."""
    return weights.astype(np.float16).view(np.uint16) if kind == "f16" else weights


def multiply(isa: str, kind: str, a: FloatArray, weights: FloatArray, **given_options: Any) -> FloatArray:
    """Multiply (m, k) with (n, k) transposed, all panels by default; what follows the last column comes too."""
    n_panels = -(-len(weights) // PANEL)
    options = {"bias": None, "activation": "none", "residual": None, "result": "f32", "first_panel": 0}
    options["last_panel"] = n_panels
    found: FloatArray = kernels.multiply(isa, kind, a, stored(weights, kind), **(options | given_options))
    return found


def most_steps(isa: str, k: int) -> int:
    """Return how many steps the largest number of a row of k values has."""
    return 127 * 256 if MULTIPLIES[isa][0] else min(2**15 - 1, (2**31 - 1) // (127 * k))


def steps_of(isa: str, x: FloatArray) -> tuple[Array, FloatArray]:
    """Quantise rows as the library promises to; (m, k) whole steps, (m,) what a step means."""
    most = np.float32(most_steps(isa, x.shape[1]))
    limit = np.abs(x).max(axis=1, initial=0.0)
    factor = np.divide(most, limit, out=np.zeros_like(limit), where=limit > 0)
    return np.rint(x * factor[:, None]).astype(np.int64), limit / most


def operands(isa: str, kind: str, a: FloatArray, weights: FloatArray) -> tuple[Array, Array]:
    """Return both sides as they are multiplied, in float64."""
    right = np.asarray(kernels.stored_weights(isa, kind, stored(weights, kind)), np.float64)
    if kind == "i8":
        steps, scales = steps_of(isa, a)
        return steps * scales[:, None].astype(np.float64), right
    return (as_bf16(a) if kind == "bf16" and MULTIPLIES[isa][1] else a).astype(np.float64), right


# Products.


@each_product
def test_weights_are_stored_to_the_type_s_precision(isa: str, kind: str) -> None:
    weights = np.concatenate((rows(40, 37), np.zeros((1, 37), np.float32)))
    found = kernels.stored_weights(isa, kind, stored(weights, kind))
    if kind == "f32":
        assert found.tobytes() == weights.tobytes()
    elif kind == "f16":
        assert np.array_equal(found, weights.astype(np.float16))
    elif kind == "bf16":
        assert np.array_equal(found, as_bf16(weights))
    else:
        # Half a step of the row's own, and the roundings of its size.
        step = np.abs(weights).max(axis=1, keepdims=True) / 127
        assert (np.abs(found - weights) <= step * (0.5 + 127 * 4 * F32_ROUNDING)).all()


@each_product
@each_shape
def test_products(isa: str, kind: str, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    a, weights, bias, residual = rows(m, k), rows(n, k, 1), rows(1, n, 2)[0], rows(m, n, 3)
    left, right = operands(isa, kind, a, weights)
    exact, sizes = left @ right.T, np.abs(left) @ np.abs(right).T
    # Integers are added without rounding; only what follows rounds. Other sums have k products and as many additions.
    tolerance = (4 if kind == "i8" else 2 * k + 2) * F32_ROUNDING * sizes
    found = multiply(isa, kind, a, weights)
    assert found.shape == (m, -(-n // PANEL) * PANEL)
    assert (np.abs(found[:, :n] - exact) <= tolerance).all()
    assert not found[:, n:].any()  # the next kernel relies on zeros
    found = multiply(isa, kind, a, weights, bias=bias, residual=residual)
    sizes = tolerance + 4 * F32_ROUNDING * (np.abs(exact) + np.abs(bias) + np.abs(residual))
    assert (np.abs(found[:, :n] - (exact + bias + residual)) <= sizes).all()
    assert not found[:, n:].any()


@each_product
def test_a_product_s_gelu_is_the_twin_s(isa: str, kind: str) -> None:
    m, n, k = 9, 70, 48
    a, weights, bias, residual = rows(m, k), rows(n, k, 1, size=0.3), rows(1, n, 2)[0], rows(m, n, 3)
    before = multiply(isa, kind, a, weights, bias=bias)[:, :n]
    expected = gelu(np.ascontiguousarray(before)) + residual
    found = multiply(isa, kind, a, weights, bias=bias, activation="gelu", residual=residual)
    # Both are within 3e-7 of the exact function's size: two exponentials with their two roundings, and a division.
    assert (np.abs(found[:, :n] - expected) <= 6e-7 * (np.abs(before) + np.abs(residual))).all()
    assert not found[:, n:].any()


@each_isa
def test_gelu_s_ends(isa: str) -> None:
    x = np.array([[-1e30, -100.0, -20.0, -0.0, 0.0, 20.0, 100.0, 1e30]], np.float32).T
    found = multiply(isa, "f32", x, np.ones((1, 1), np.float32), activation="gelu")[:, 0]
    assert (np.abs(found - np.maximum(x[:, 0], 0)) <= 1e-26).all()  # -20 times the chance of 20 deviations, or less


@each_product
def test_products_can_be_written_as_bf16(isa: str, kind: str) -> None:
    a, weights = rows(7, 40), rows(70, 40, 1)
    found = multiply(isa, kind, a, weights, result="bf16")
    assert np.array_equal(found, as_bf16(multiply(isa, kind, a, weights)))


@each_product
def test_a_rough_gelu_is_about_right(isa: str, kind: str) -> None:
    a, weights = rows(9, 48), rows(70, 48, 1, size=3.0)  # from deep below zero, where little is left, to far above
    expected = gelu(np.ascontiguousarray(multiply(isa, kind, a, weights)[:, :70]))
    found = multiply(isa, kind, a, weights, activation="rough_gelu")
    assert (np.abs(found[:, :70] - expected) <= 1e-4 * np.abs(expected) + 1e-30).all()
    assert not found[:, 70:].any()


@each_isa
def test_a_rough_gelu_s_ends(isa: str) -> None:
    x = np.array([[-1e30, -100.0, -20.0, -0.0, 0.0, 20.0, 100.0, 1e30, np.nan]], np.float32).T
    found = multiply(isa, "f32", x, np.ones((1, 1), np.float32), activation="rough_gelu")[:, 0]
    assert (np.abs(found - np.maximum(x[:, 0], 0))[:-1] <= np.maximum(1e-4 * x[:-1, 0], 1e-7)).all()
    assert np.isnan(found[-1])


@each_product
def test_a_row_s_product_depends_on_nothing_beside_it(isa: str, kind: str) -> None:
    """Neither on how many rows there are, nor on which of the outputs are wanted: to the last bit."""
    a, weights, bias = rows(30, 70), rows(300, 70, 1), rows(1, 300, 2)[0]
    whole = multiply(isa, kind, a, weights, bias=bias)
    for first, last in ((0, 1), (3, 5), (5, 8), (0, 6), (1, 8), (2, 14), (6, 19), (5, 30)):
        assert multiply(isa, kind, a[first:last], weights, bias=bias).tobytes() == whole[first:last].tobytes()
    for first, last in ((0, 1), (1, 4), (2, 10), (9, 10), (4, 4)):
        for n in (1, 2, 30):
            some = multiply(isa, kind, a[:n], weights, bias=bias, first_panel=first, last_panel=last)
            assert some.tobytes() == np.ascontiguousarray(whole[:n, first * PANEL : last * PANEL]).tobytes()


@each_shape
def test_integer_products_are_the_same_on_every_instruction_set(shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    for as_bytes in (True, False):  # 16 bits are another number of steps where bytes are not multiplied
        isas = [isa for isa in ISAS if MULTIPLIES[isa][0] == as_bytes]
        found = {multiply(isa, "i8", rows(m, k), rows(n, k, 1)).tobytes() for isa in isas}
        assert len(found) == min(len(isas), 1)


@each_product
@pytest.mark.parametrize("k", [1, 2, 510, 512, 514, 2048, 5120, 40002])
def test_the_largest_integers_do_not_overflow(isa: str, kind: str, k: int) -> None:
    """Whisper's longest sums have 5,120 products; the most steps on either side of each, all of one sign."""
    for n_rows in (1, 2, 16):
        a, weights = np.ones((n_rows, k), np.float32), np.ones((3, k), np.float32)
        a[1::2], weights[1], weights[2, ::2] = -1, -1, -1
        found = multiply(isa, kind, a, weights)[:2, :3]
        balance = 0 if k > 1 else -1
        assert np.allclose(found, np.array([[k, -k, balance], [-k, k, -balance]])[:n_rows], rtol=1e-6, atol=0)


@each_product
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_no_number_stays_in_its_row(isa: str, kind: str, poison: float) -> None:
    a, weights = rows(14, 50), rows(40, 50, 1)
    clean = multiply(isa, kind, a, weights)
    a[5, 17] = poison
    found = multiply(isa, kind, a, weights)
    assert np.delete(found, 5, axis=0).tobytes() == np.delete(clean, 5, axis=0).tobytes()
    weights[3, 7] = poison
    with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite
        assert multiply(isa, kind, a, weights, activation="gelu").shape == clean.shape  # some result


@each_product
def test_no_rows_are_no_work(isa: str, kind: str) -> None:
    assert multiply(isa, kind, rows(0, 5), rows(3, 5)).shape == (0, PANEL)
    ones = np.ones(5, np.float32)
    assert kernels.layer_norm(isa, rows(0, 5), ones, ones, "f32").shape == (0, PANEL)
    assert kernels.narrow(isa, rows(0, 5)).shape == (0, PANEL)
    assert kernels.quantize(isa, rows(0, 5))[0].shape == (0, PANEL)


# Rows.


@each_isa
@pytest.mark.parametrize("d", [1, 2, 15, 16, 17, 31, 32, 33, 100, 384, 1281])
def test_layer_norm(isa: str, d: int) -> None:
    x = rows(6, d) * np.float32(3) + np.float32(1)
    x[3] = 0.0
    x[4] *= 1e3
    weight, bias = rows(1, d, 1)[0], rows(1, d, 2)[0]
    away = x.astype(np.float64) - x.mean(axis=1, keepdims=True, dtype=np.float64)
    deviation = np.sqrt((away**2).mean(axis=1, keepdims=True) + 1e-5)
    expected = away / deviation * weight + bias
    # The mean's own rounding moves all values of a row; it counts in deviations.
    mean_error = (d + 2) * F32_ROUNDING * np.abs(x).mean(axis=1, keepdims=True) / deviation
    tolerance = (mean_error + (d + 8) * F32_ROUNDING * np.abs(away / deviation)) * np.abs(weight)
    found = kernels.layer_norm(isa, x, weight, bias, "f32")
    assert (np.abs(found[:, :d] - expected) <= tolerance + 4 * F32_ROUNDING * (1e-30 + np.abs(bias))).all()
    assert not found[:, d:].any()
    assert np.array_equal(kernels.layer_norm(isa, x, weight, bias, "bf16"), as_bf16(found))
    assert kernels.layer_norm(isa, x[2:5], weight, bias, "f32").tobytes() == found[2:5].tobytes()


@each_isa
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_layer_norm_of_no_numbers(isa: str, poison: float) -> None:
    x, weight, bias = rows(4, 40), np.ones(40, np.float32), np.zeros(40, np.float32)
    clean = kernels.layer_norm(isa, x, weight, bias, "f32")
    x[1, 7] = poison
    found = kernels.layer_norm(isa, x, weight, bias, "f32")
    assert np.isnan(found[1, :40]).all()
    assert np.delete(found, 1, axis=0).tobytes() == np.delete(clean, 1, axis=0).tobytes()


@each_isa
@pytest.mark.parametrize("d", [1, 31, 32, 33, 200])
def test_rows_are_quantised_as_promised(isa: str, d: int) -> None:
    x = np.concatenate((rows(20, d), rows(5, d, size=1e-20), rows(5, d, size=1e20), np.zeros((1, d), np.float32)))
    steps, scales = steps_of(isa, x)
    found_steps, found_scales = kernels.quantize(isa, x)
    assert found_scales.tobytes() == scales.tobytes()
    assert np.array_equal(found_steps[:, :d], steps)
    assert not found_steps[:, d:].any()


@each_isa
def test_every_number_of_steps_can_be_stored(isa: str) -> None:
    """Of 16 bits, each half must fit into 8, whatever the other one is."""
    most = most_steps(isa, 64)
    numbers = np.resize(np.arange(-most, most + 1, dtype=np.float32), (-(-(2 * most + 1) // 63), 63))
    x = np.insert(numbers, 7, most, axis=1)  # so that a step is 1
    steps, _ = kernels.quantize(isa, x)
    assert np.array_equal(steps[:, :64], x.astype(np.int32))


@each_isa
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e-45, 3.4e38])
def test_rows_at_the_ends_of_float32_are_quantised_somehow(isa: str, poison: float) -> None:
    x = rows(3, 50)
    clean, _ = kernels.quantize(isa, x)
    x[1] = 0.0
    x[1, 3] = poison
    found, scales = kernels.quantize(isa, x)
    assert np.abs(found).max() <= most_steps(isa, 50)
    assert np.array_equal(found[[0, 2]], clean[[0, 2]])
    if poison == 3.4e38:
        assert abs(found[1, 3] * float(scales[1]) / poison - 1) < 1e-6


@each_isa
@given(st.lists(st.floats(width=32), min_size=1, max_size=70))
@settings(max_examples=40, deadline=None)
def test_numbers_become_the_nearest_bf16(isa: str, values: list[float]) -> None:
    x = np.array([values], np.float32)
    found = kernels.narrow(isa, x)[:, : x.size]
    assert np.array_equal(np.isnan(found), np.isnan(x))
    normal = np.isfinite(x) & (np.abs(x) >= np.finfo(np.float32).tiny)
    assert np.array_equal(found[normal], as_bf16(x)[normal])
    assert np.array_equal(found[np.isinf(x)], x[np.isinf(x)])
    # The instruction for it takes numbers below the smallest normal one for zero.
    small = np.abs(x) < np.finfo(np.float32).tiny
    assert (np.abs(found[small]) <= np.finfo(np.float32).tiny).all()


# Attention.

WIDTHS = (1, 3, 20, 32, 33, 64, 80)
each_attention = pytest.mark.parametrize(
    ("isa", "kind"),
    [(isa, kind) for isa in ISAS for kind in ("f32", "bf16", "i8", "i16")],
)
#: of keys and values that are integers: the steps of the largest
STEPS = {"i8": 127, "i16": 4095}
N_KEYS = (1, 2, 31, 32, 33, 63, 511, 512, 513, 544, 1023, 1025, 1100)


def attend(
    isa: str, kind: str, q: FloatArray, k: FloatArray, v: FloatArray, **given_options: Any
) -> tuple[FloatArray, FloatArray]:
    options = {"first_visible": len(k), "wants_scores": False, "result": "f32", "stored_at_a_time": PANEL}
    mixed, scores = kernels.attend(isa, kind, q, k, v, **(options | given_options))
    return mixed, scores


def in_steps(x: FloatArray, most: int) -> Array:
    """Round each row to whole numbers of steps, `most` of them in its largest number."""
    step = np.abs(x.astype(np.float64)).max(axis=1, keepdims=True, initial=0.0) / most
    rounded: Array = np.rint(np.divide(x, step, out=np.zeros(x.shape), where=step > 0)) * step
    return rounded


def as_attended(isa: str, kind: str, q: FloatArray, k: FloatArray, v: FloatArray) -> tuple[Array, Array, Array]:
    """Return queries, keys and values as they are multiplied."""
    if kind == "bf16":
        return as_bf16(q) if MULTIPLIES[isa][1] else q, as_bf16(k), as_bf16(v)
    if kind in STEPS:
        return in_steps(q, query_steps(kind, q.shape[1])), in_steps(k, STEPS[kind]), in_steps(v, STEPS[kind])
    return q, k, v


def query_steps(kind: str, width: int) -> int:
    """Return how many steps the largest number of a query has, beside such keys."""
    return min(2**15 - 1, (2**31 - 1) // (STEPS[kind] * width))


def check_attention(isa: str, kind: str, n_queries: int, n_keys: int, width: int, first_visible: int) -> None:
    q, k, v = rows(n_queries, width, 1, size=2.0), rows(n_keys, width, 2), rows(n_keys, width, 3)
    mixed, scores = attend(isa, kind, q, k, v, first_visible=first_visible, wants_scores=True)
    scaled, k, v = as_attended(isa, kind, q * np.float32(1 / np.sqrt(np.float32(width))), k, v)
    exact = scaled.astype(np.float64) @ k.T.astype(np.float64)
    score_error = (2 * width + 4) * F32_ROUNDING * (np.abs(scaled) @ np.abs(k.T))
    if kind in STEPS:  # a tie may be rounded the other way: a step of a query, or of a key, in one product
        tie = 1 / STEPS[kind] + 1 / query_steps(kind, width)
        score_error = score_error + np.abs(scaled).max() * np.abs(k).max() * tie
    assert (np.abs(scores - exact) <= score_error).all()
    visible = np.arange(n_keys) < np.arange(first_visible, first_visible + n_queries)[:, None]
    weights = np.where(visible, np.exp(exact - np.where(visible, exact, -np.inf).max(axis=1, keepdims=True)), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    # A score's error is its weight's relative one, and enters twice: through the sum too. float32's exponential is good
    # to 2 units; beside lower types it is good to 1e-5, and where bfloat16 is multiplied, weights are rounded to it.
    relative = 2 * score_error.max(initial=0.0) + (n_keys + 12) * F32_ROUNDING
    relative += 2e-5 * (kind != "f32") + BF16_ROUNDING * (kind == "bf16" and MULTIPLIES[isa][1])
    allowed = relative * (weights @ np.abs(v))
    if kind in STEPS:  # half a step of each weight: the largest has 32,767, or all of them 2^31 over a value's
        step = np.maximum(weights.max(axis=1, keepdims=True) / 32767, STEPS[kind] / 2**31)
        allowed = allowed + n_keys / 2 * step * np.abs(v).max() * 2
    assert (np.abs(mixed - weights @ v) <= allowed).all()


@each_isa
def test_attention_may_be_rough_beside_float32_too(isa: str) -> None:
    q, k, v = rows(9, 40, 1), rows(600, 40, 2), rows(600, 40, 3)
    exact, _ = attend(isa, "f32", q, k, v, first_visible=590)
    found, _ = attend(isa, "f32", q, k, v, first_visible=590, rough=True)
    size = attend(isa, "f32", q, k, np.abs(v), first_visible=590)[0]
    assert (np.abs(found - exact) <= (2e-5 + 600 * F32_ROUNDING) * size).all()


@each_attention
@pytest.mark.parametrize("n_keys", N_KEYS)
def test_attention_over_everything(isa: str, kind: str, n_keys: int) -> None:
    check_attention(isa, kind, 5, n_keys, 64, n_keys)


@each_attention
@pytest.mark.parametrize("width", WIDTHS)
def test_attention_over_what_came_before(isa: str, kind: str, width: int) -> None:
    for n_queries, first_visible in ((1, 1), (50, 1), (13, 30), (97, 480), (3, 1021)):
        check_attention(isa, kind, n_queries, first_visible + n_queries - 1, width, first_visible)


@each_attention
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 600), st.integers(1, 70), st.integers(1, 700))
def test_attention_of_any_size(
    isa: str, kind: str, n_queries: int, n_keys: int, width: int, first_visible: int
) -> None:
    check_attention(isa, kind, n_queries, n_keys, width, first_visible)


@each_attention
def test_a_query_depends_on_nothing_but_what_it_sees(isa: str, kind: str) -> None:
    """Neither on the queries beside it nor on keys after its own, nor on how they were stored: to the last bit."""
    q, k, v = rows(60, 20, 1), rows(1100, 20, 2), rows(1100, 20, 3)
    for first_visible in (1, 30, 490, 1041):
        whole, scores = attend(isa, kind, q, k, v, first_visible=first_visible, wants_scores=True)
        for first, last in ((0, 1), (5, 17), (47, 49), (12, 60)):
            n = first_visible + last - 1
            some, its_scores = attend(
                isa, kind, q[first:last], k[:n], v[:n],
                first_visible=first_visible + first, wants_scores=True, stored_at_a_time=first + 1,
            )  # fmt: skip
            assert some.tobytes() == whole[first:last].tobytes()
            assert its_scores.tobytes() == np.ascontiguousarray(scores[first:last, :n]).tobytes()


@each_attention
def test_attention_can_be_written_as_bf16(isa: str, kind: str) -> None:
    q, k, v = rows(5, 33, 1), rows(70, 33, 2), rows(70, 33, 3)
    assert np.array_equal(attend(isa, kind, q, k, v, result="bf16")[0], as_bf16(attend(isa, kind, q, k, v)[0]))


@each_attention
def test_attention_to_one_key_among_many_is_that_key_s_value(isa: str, kind: str) -> None:
    """Scores beyond what an exponential holds: the greatest wins, wherever it stands."""
    for n_keys, winner in ((1, 0), (100, 99), (1100, 0), (1100, 600), (1100, 1099)):
        k, v = np.zeros((n_keys, 4), np.float32), rows(n_keys, 4)
        k[winner] = 500.0
        mixed, _ = attend(isa, kind, np.full((2, 4), 500.0, np.float32), k, v)
        expected = as_attended(isa, kind, v, v, v)[2][[winner, winner]]
        # Steps are float32 numbers, and multiplied as such.
        assert (np.abs(mixed - expected) <= 4 * F32_ROUNDING * np.abs(expected) * (kind in STEPS)).all()


@each_attention
@pytest.mark.parametrize("width", [64, 80, 1280])
def test_the_largest_sums_fit(isa: str, kind: str, width: int) -> None:
    """All numbers as large as may be and of one sign, and all keys alike: 512 equal weights."""
    for sign in (1.0, -1.0):
        q, k = np.full((3, width), 0.5, np.float32), np.full((1100, width), sign * 0.5, np.float32)
        v = np.full((1100, width), sign * 7.0, np.float32)
        mixed, scores = attend(isa, kind, q, k, v, wants_scores=True)
        assert scores == pytest.approx(np.full((3, 1100), sign * 0.25 * np.sqrt(width)), rel=1e-3)
        assert mixed == pytest.approx(v[:3], rel=2e-3)


@each_attention
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_query_that_is_no_number_spoils_no_other(isa: str, kind: str, poison: float) -> None:
    q, k, v = rows(20, 10, 1), rows(600, 10, 2), rows(600, 10, 3)
    clean, _ = attend(isa, kind, q, k, v, first_visible=590)
    q[7, 3] = poison
    found, _ = attend(isa, kind, q, k, v, first_visible=590)
    assert np.delete(found, 7, axis=0).tobytes() == np.delete(clean, 7, axis=0).tobytes()
    k[100, 2], v[300, 1] = poison, poison
    assert attend(isa, kind, q, k, v, wants_scores=True)[0].shape == q.shape  # some result


# Choosing.


def choose(
    isa: str, logits: FloatArray, choice: Choice, constraint: Constraint
) -> tuple[list[int], list[float], FloatArray]:
    how = {Best: "best", Draw: "draw", Top: "top"}[type(choice)]
    found: tuple[list[int], list[float], FloatArray] = kernels.choose(
        isa,
        logits,
        how,
        min(choice.n, len(logits)) if isinstance(choice, Top) else 1,
        choice.temperature if isinstance(choice, Draw) else 1.0,
        list(choice.uniforms) if isinstance(choice, Draw) else [],
        constraint.permanent.array,
        list(constraint.now),
        -1 if constraint.vote_from is None else constraint.vote_from,
    )
    return found


def vote_margin(logits: FloatArray, constraint: Constraint) -> float:
    """How far the upper ids are ahead in the vote, in log-probability; far where there is none."""
    if constraint.vote_from is None:
        return np.inf
    left = logits.copy()
    choosing.constrain(left, Constraint(constraint.permanent, constraint.now))
    border = constraint.vote_from
    above = choosing.log_sum_exp(left[border:])
    return np.inf if np.isneginf(above) else float(above - left[:border].max(initial=-np.inf))


def check_choice(isa: str, logits: FloatArray, choice: Choice, constraint: Constraint) -> None:
    changed = logits.copy()
    ids, logprobs = choosing.choose(choosing.constrain(changed, constraint), changed, choice)
    found_ids, found_logprobs, found_changed = choose(isa, logits, choice, constraint)
    assert tuple(found_ids) == ids
    # The normaliser is a float32 sum in another order, in at least four lanes, and is taken from numbers of some 10.
    assert found_logprobs == pytest.approx(logprobs, abs=len(logits) / 4 * F32_ROUNDING + 5e-6)
    assert found_changed.tobytes() == changed.tobytes()


@st.composite
def constraints(draw: st.DrawFn, n_vocab: int) -> Constraint:
    one = st.integers(0, n_vocab)
    ranges = st.tuples(one, one).map(lambda pair: (min(pair), max(pair)))
    return Constraint(
        IdRanges(draw(st.lists(st.integers(0, n_vocab - 1), max_size=4))),
        now=tuple(draw(st.lists(ranges, max_size=3))),
        vote_from=draw(st.none() | one),
    )


@each_isa
@settings(max_examples=150, deadline=None)
@given(st.data(), st.lists(st.integers(-40, 40), min_size=1, max_size=50), choices)
def test_choosing_is_the_twin_s(isa: str, data: st.DataObject, values: list[int], choice: Choice) -> None:
    logits = (np.array(values) / 4).astype(np.float32)  # exact, and equal often
    constraint = data.draw(constraints(len(values)))
    assume(abs(vote_margin(logits, constraint)) > 1e-5)  # a tie of the vote: float32 may see it either way
    check_choice(isa, logits, choice, constraint)


@each_isa
@pytest.mark.parametrize(
    "choice", [Best(), Top(6), Draw(0.7, (0.0, 0.1, 0.501, 0.999))], ids=lambda one: type(one).__name__
)
def test_choosing_from_a_whole_vocabulary(isa: str, choice: Choice) -> None:
    n_vocab, begin = 51865, 50364
    for seed in range(5):
        logits = rows(1, n_vocab, seed, size=5.0)[0]
        logits[begin:] += np.float32(seed - 2)
        for now in ((), ((0, begin),), ((begin, n_vocab),), ((0, 10), (5, 50257), (begin + 50, n_vocab))):
            check_choice(isa, logits, choice, Constraint(IdRanges(range(1, 400, 3)), now, begin))


@each_isa
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("choice", [Best(), Top(5), Draw(0.5, (0.1, 0.9))], ids=lambda one: type(one).__name__)
def test_logits_that_are_no_numbers_choose_some_id(isa: str, poison: float, choice: Choice) -> None:
    for n_poisoned in (1, 39, 40):
        logits = rows(1, 40)[0]
        logits[:n_poisoned] = poison
        ids, _, _ = choose(isa, logits, choice, Constraint(vote_from=20))
        assert all(0 <= one < 40 for one in ids)


# Candidates: of approximate logits, the panels that have to be known exactly.


def mark_candidates(isa: str, rough: FloatArray, errors: FloatArray, n: int, constraint: Constraint) -> Array:
    vote_from = -1 if constraint.vote_from is None else constraint.vote_from
    found: Array = kernels.mark_candidates(
        isa, rough, errors, min(n, len(rough)), constraint.permanent.array, list(constraint.now), vote_from
    )
    return found


def check_candidates(
    isa: str, logits: FloatArray, rough: FloatArray, errors: FloatArray, choice: Best | Top, constraint: Constraint
) -> int:
    """The ids are those of the exact logits, once the candidates are exact. Gives how many panels are."""
    panels = mark_candidates(isa, rough, errors, choice.n if isinstance(choice, Top) else 1, constraint)
    known = np.where(np.repeat(panels, PANEL)[: len(logits)] == 1, logits, rough)
    assert choose(isa, known, choice, constraint)[0] == choose(isa, logits, choice, constraint)[0]
    return int(panels.sum())


@each_isa
@settings(max_examples=300, deadline=None)
@given(
    st.data(),
    st.lists(st.integers(-12, 12), min_size=1, max_size=150),
    st.one_of(st.just(Best()), st.builds(Top, st.integers(1, 30))),
    st.integers(0, 2**32 - 1),
)
def test_candidates_decide_the_choice(
    isa: str, data: st.DataObject, values: list[int], choice: Best | Top, seed: int
) -> None:
    logits = (np.array(values) / 4).astype(np.float32)  # exact, and equal often
    constraint = data.draw(constraints(len(values)))
    assume(abs(vote_margin(logits, constraint)) > 1e-5)
    random = np.random.default_rng(seed)
    errors = random.choice([0.0, 0.25, 1.0, 5.0], size=-(-len(logits) // PANEL)).astype(np.float32)
    away = random.choice([-1.0, 0.0, 1.0], len(logits)) * np.repeat(errors, PANEL)[: len(logits)]
    check_candidates(isa, logits, logits + away.astype(np.float32), errors, choice, constraint)


@each_isa
def test_few_panels_are_candidates_where_something_stands_out(isa: str) -> None:
    n_vocab, begin = 51865, 50364
    errors = np.full(-(-n_vocab // PANEL), 0.4, np.float32)
    random = np.random.default_rng(3)
    some = IdRanges(range(1, 400, 3))
    for seed in range(3):
        logits = rows(1, n_vocab, seed)[0]
        rough = logits + random.uniform(-0.4, 0.4, n_vocab).astype(np.float32)
        for best in (1000, 50257, begin, n_vocab - 1):
            for values in (logits, rough):
                values[best] = 20.0
            wins = Constraint(some, vote_from=begin)
            assert check_candidates(isa, logits, rough, errors, Best(), wins) == 1
            assert check_candidates(isa, logits, rough, errors, Top(6), Constraint(some)) < 200
            # All text, or all but it, may be forbidden; or everything but one id.
            for now in ((0, begin), (begin, n_vocab)):
                check_candidates(isa, logits, rough, errors, Best(), Constraint(some, (now,), begin))
            alone = Constraint(now=((0, 77), (78, n_vocab)), vote_from=begin)
            assert check_candidates(isa, logits, rough, errors, Best(), alone) == 1
            assert check_candidates(isa, logits, rough, errors, Top(4), alone) == 1
            for values in (logits, rough):
                values[best] = 0.0
    nothing = Constraint(now=((0, n_vocab),))
    assert check_candidates(isa, logits, rough, errors, Best(), nothing) == 0


@each_isa
def test_all_panels_are_candidates_where_nothing_stands_out(isa: str) -> None:
    logits, errors = np.zeros(1000, np.float32), np.full(32, 0.1, np.float32)
    assert mark_candidates(isa, logits, errors, 1, Constraint()).all()
    assert mark_candidates(isa, logits, errors, 1, Constraint(now=((0, 320),))).nonzero()[0].tolist() == list(
        range(10, 32)
    )


@each_isa
def test_the_upper_ids_are_all_known_where_their_vote_is_open(isa: str) -> None:
    logits = np.full(320, -5.0, np.float32)
    logits[64:] = -np.log(np.float32(256.0))  # together 0
    for text, expected in ((0.05, 9), (2.0, 1), (-2.0, 8)):
        logits[10] = text
        constraint = Constraint(vote_from=64)
        assert check_candidates(isa, logits, logits, np.full(10, 0.1, np.float32), Best(), constraint) == expected


@each_isa
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_panels_whose_error_is_no_number_are_candidates(isa: str, poison: float) -> None:
    logits, errors = rows(1, 1000)[0], np.full(32, 0.01, np.float32)
    logits[500] = 30.0
    errors[3] = errors[31] = poison
    for forbidden in ((), ((96, 128),), ((0, 400),)):
        assert mark_candidates(isa, logits, errors, 1, Constraint(now=forbidden)).nonzero()[0].tolist() == [3, 15, 31]
    assert mark_candidates(isa, logits, np.full(32, poison, np.float32), 1, Constraint(vote_from=600)).all()
    logits[:] = poison
    assert mark_candidates(isa, logits, np.full(32, poison, np.float32), 5, Constraint(vote_from=600)).all()


@each_isa
def test_log_sum_exp(isa: str) -> None:
    for n in (*range(1, 70), 1000, 51865):
        x = rows(1, n, size=4.0)[0]
        exact = np.log(np.exp(x.astype(np.float64)).sum())
        # As many roundings as additions, of numbers that are all positive; and those of the result.
        assert abs(kernels.log_sum_exp(isa, x) - exact) <= (n / 4 + 12) * F32_ROUNDING + 2 * F32_ROUNDING * abs(exact)
    assert kernels.log_sum_exp(isa, np.full(20, -np.inf, np.float32)) == -np.inf
    assert kernels.log_sum_exp(isa, np.array([-np.inf, 3.0, -np.inf], np.float32)) == 3.0
    assert kernels.log_sum_exp(isa, np.array([-1000.0, 1000.0], np.float32)) == 1000.0


def test_an_instruction_set_that_is_not_here_is_refused() -> None:
    with pytest.raises(ValueError, match="instruction set"):
        kernels.log_sum_exp("abacus", np.zeros(3, np.float32))
