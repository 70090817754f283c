"""Options' values as texts, as flags and form fields give them: how each type is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, get_args, get_origin

Read = Callable[[str], Any]


class NotReadError(ValueError):
    """A text is no value of its type; the message says what to give."""


def boolean(text: str) -> bool:
    """Read True or False as `whisper` does, and in other usual spellings."""
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in known:
        raise NotReadError(f"give True or False, got {text!r}")
    return known[text.lower()]


def reader(convert: Callable[[str], Any], what: str) -> Read:
    """Make what reads a value, or None where `what` says so."""

    def read(text: str) -> Any:
        if text == "None" and what.endswith("None"):
            return None
        try:
            return convert(text)
        except ValueError:
            raise NotReadError(f"give {what}, got {text!r}") from None

    return read


whole: Final = reader(int, "a whole number or None")
number: Final = reader(float, "a number or None")


def optional_text(text: str) -> str | None:
    """Read a text that may be None."""
    return None if text == "None" else text


#: an option's type -> how its text is read, and what stands for its value on the help page
_KINDS: Final[Mapping[Any, tuple[Read, str]]] = {
    bool: (boolean, "True|False"),
    int: (whole, "N"),
    int | None: (whole, "N"),
    float: (number, "X"),
    float | None: (number, "X"),
    str: (str, "TEXT"),
    str | None: (str, "TEXT"),  # "None" is a word here, as in the reference
    tuple[int, ...]: (str, "IDS"),
    tuple[float, ...]: (str, "SECONDS"),
    tuple[str, ...]: (str, "TEXTS"),
    tuple[str, ...] | None: (optional_text, "TEXTS"),
}
#: the same for options whose type does not say it
_BY_NAME: Final[Mapping[str, tuple[Read, str]]] = {
    "temperature": (reader(float, "one number"), "X"),
    "language": (optional_text, "LANGUAGE"),
    "languages": (optional_text, "LANGUAGES"),
}


def choices_of(kind: object) -> tuple[str, ...] | None:
    """Return the values of a Literal type; None for any other."""
    return get_args(kind) if get_origin(kind) is Literal else None


def reader_of(name: str, kind: object) -> tuple[Read, str]:
    """Return how the text of an option is read, and what stands for its value on a help page."""
    if choices := choices_of(kind):
        return str, "|".join(choices)
    return _BY_NAME.get(name) or _KINDS[kind]
