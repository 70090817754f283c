"""How many random cases a test tries: few by default, many under `make random`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

THOROUGH = os.environ.get("STAPES_RANDOM") == "thorough"


def cases(usual: int, thorough: int) -> int:
    """Return the number of cases of this run."""
    return thorough if THOROUGH else usual


def random_cases(usual: int, thorough: int, **more: Any) -> Callable[[Any], Any]:
    """Mark a Hypothesis test for `make random`, and set how many cases it tries."""
    chosen = settings(max_examples=cases(usual, thorough), deadline=None, **more)
    return lambda test: pytest.mark.random(chosen(test))


def slowly(*values: Any) -> list[Any]:
    """Return parameters that only `make random` tries."""
    return [pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=pytest.mark.slow) for one in values]
