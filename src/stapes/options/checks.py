"""How an option is written down, and what its value is held to."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any

from stapes.errors import OptionError


def option(default: Any, help_text: str, unit: str = "") -> Any:
    """Make a field that carries its help and its unit ("s", "tokens", "ids", "")."""
    return field(default=default, metadata={"help": help_text, "unit": unit})


def require(condition: bool, message: str) -> None:
    """Raise OptionError with the message unless the condition holds."""
    if not condition:
        raise OptionError(message)


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> None:
    """Hold a value to be a number from `low` to `high`, or None."""
    if value is None:
        return
    require(
        isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high,
        f"{name} must be a number{_between(low, high)}, got {value!r}",
    )


def _between(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return ""
    return f" of at least {low:g}" if math.isinf(high) else f" from {low:g} to {high:g}"


def whole(name: str, value: Any, low: int = 1) -> None:
    """Hold a value to be a whole number of at least `low`, or None."""
    if value is not None:
        whole = isinstance(value, int) and not isinstance(value, bool)
        require(whole and value >= low, f"{name} must be a whole number of at least {low}, got {value!r}")


def flag(name: str, value: Any) -> None:
    """Hold a value to be a truth value."""
    require(isinstance(value, bool), f"{name} must be True or False, got {value!r}")
