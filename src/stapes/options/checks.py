"""How an option is declared, and checks of values. Each check raises OptionError."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import field, fields
from typing import Any

from stapes.errors import OptionError


def option(default: Any, help_text: str, unit: str = "") -> Any:
    """Make a field that carries its help and its unit ("s", "tokens", "ids", "")."""
    return field(default=default, metadata={"help": help_text, "unit": unit})


def make_plain(group: Any) -> None:
    """Turn the values of a frozen option group into Python's own types; the first call in its `__post_init__`."""
    for item in fields(group):
        object.__setattr__(group, item.name, plain(getattr(group, item.name)))


def plain(value: Any) -> Any:
    """Return a NumPy scalar, an array or an enum's member as Python's own value; anything else as it is.

    A value that only equals Python's has another form in JSON, and in a journal's key.
    """
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # NumPy's, or a tensor's
        kind, value = getattr(value.dtype, "kind", ""), value.tolist()
        if kind == "f" and hasattr(value, "dtype"):  # a long double's tolist() is a long double
            return float(value)
    if isinstance(value, str):
        return str.__str__(value)  # str(value) would give an enum member's name
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if isinstance(value, float) else int(value)
    return value


def plain_items(values: Iterable[Any]) -> list[Any]:
    """Return the items of an iterable, each as `plain` returns it."""
    return [plain(one) for one in values]


def require(condition: bool, message: str) -> None:
    """Raise OptionError with the message unless the condition holds."""
    if not condition:
        raise OptionError(message)


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise OptionError unless a value is a number from `low` to `high`, or None."""
    if value is None:
        return
    require(is_number(value) and low <= value <= high, f"{name} must be a number{_between(low, high)}, got {value!r}")


def is_number(value: Any) -> bool:
    """Return whether a value is a number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _between(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return ""
    return f" of at least {low:g}" if math.isinf(high) else f" from {low:g} to {high:g}"


def above_0(name: str, value: Any) -> None:
    """Raise OptionError unless a value is a number above 0, or None."""
    if value is not None:
        require(is_number(value) and value > 0, f"{name} must be a number above 0, got {value!r}")


def whole(name: str, value: Any, low: int = 1) -> None:
    """Raise OptionError unless a value is a whole number of at least `low`, or None."""
    if value is not None:
        is_whole = isinstance(value, int) and is_number(value)
        require(is_whole and value >= low, f"{name} must be a whole number of at least {low}, got {value!r}")


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise OptionError unless a value is one of the choices."""
    require(value in choices, f"{name} must be one of {', '.join(choices)}; got {value!r}")


def text(name: str, value: Any) -> None:
    """Raise OptionError unless a value is text or None."""
    require(value is None or isinstance(value, str), f"{name} must be text or None, got {value!r}")


def flag(name: str, value: Any) -> None:
    """Raise OptionError unless a value is True or False."""
    require(isinstance(value, bool), f"{name} must be True or False, got {value!r}")
