"""The compiled library, if this installation has one."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from stapes.errors import BackendError

#: what it computes in; only the first is exact (docs/native.md)
PRECISIONS: Final = ("float32", "bfloat16", "int8")


def library() -> Any:
    """Import the library. Raises BackendError if it was not built, or does not fit this system."""
    try:
        return import_module("stapes._native")
    except ImportError as error:
        raise BackendError(f"the native library is not here ({error})") from error


def is_built() -> bool:
    """Whether this installation has the library."""
    return library_problem() is None


def library_problem() -> str | None:
    """Return why the library cannot be used; None if it can."""
    try:
        library()
    except BackendError as error:
        return str(error.__cause__)
    return None
