"""Measured costs: right for a backend whose calls have known costs, and unmoved by a call that was held up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.engine.costs import CostMeter, MeasuredCosts
from tests.random_cases import random_cases


def test_nothing_is_known_before_a_call() -> None:
    meter = CostMeter()
    assert meter.measured == MeasuredCosts(encode_s=None, prefill_s=None, step_s=None, row_s=None)
    assert (meter.encode_s, meter.step_s(5, 7)) == (0.0, 0.0)


@random_cases(20, 500)
@given(st.floats(1e-4, 0.1), st.floats(1e-5, 0.05), st.floats(1e-5, 0.01), st.integers(0, 10**6))
def test_costs_are_found_though_one_call_in_ten_is_held_up(fixed: float, row: float, token: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    meter = CostMeter()
    for number in range(200):
        n_rows = int(random.integers(1, 17))
        n_tokens = int(random.integers(3, 230)) if number % 4 == 0 else 0
        held_up = 30.0 if number % 10 == 3 else 1.0
        meter.note_step(n_rows, n_tokens, held_up * (fixed + row * n_rows + token * n_tokens))
        meter.note_encode(1 + number % 4, held_up * 0.3 * (1 + number % 4))
    found = meter.measured
    assert found.encode_s == pytest.approx(0.3)
    assert found.row_s == pytest.approx(row, rel=0.02)
    assert found.step_s == pytest.approx(fixed, rel=0.02, abs=row / 10)
    assert found.prefill_s == pytest.approx(token, rel=0.02)
    assert meter.step_s(3, 50) == pytest.approx(fixed + 3 * row + 50 * token, rel=0.05)


def test_estimates_follow_a_machine_that_becomes_slower() -> None:
    meter = CostMeter()
    for slowness in (1.0, 4.0):
        for number in range(300):
            meter.note_step(1 + number % 8, 0, slowness * (0.002 + 0.001 * (1 + number % 8)))
            meter.note_encode(1, slowness * 0.2)
    assert meter.measured.row_s == pytest.approx(0.004)
    assert meter.measured.step_s == pytest.approx(0.008)
    assert meter.measured.encode_s == pytest.approx(0.8)


def test_with_one_number_of_rows_a_row_is_taken_to_cost_its_share_of_all() -> None:
    meter = CostMeter()
    meter.note_step(4, 0, 0.02)
    assert meter.step_s(8, 0) == pytest.approx(0.04)
    assert meter.measured.row_s is None


def test_a_clock_that_stands_still_makes_no_error() -> None:
    meter = CostMeter()
    for n_rows in (1, 2, 2, 5):
        meter.note_step(n_rows, n_rows % 2, 0.0)
    assert meter.step_s(3, 9) == 0.0


def test_where_every_step_had_a_prompt_a_row_is_taken_to_cost_a_token_s_share() -> None:
    meter = CostMeter()
    known = [meter.knows_steps]
    meter.note_step(3, 17, 0.2)
    assert [*known, meter.knows_steps] == [False, True]
    assert meter.step_s(5, 0) == pytest.approx(0.05)
    assert meter.step_s(0, 17) > 0.1
