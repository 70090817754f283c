"""The warning of a load without the native library, separated from all other warnings."""

from __future__ import annotations

from stapes.backends.native.library import is_built

#: how the warning begins
ON_NUMPY = "running on NumPy, several times slower than the native library"


def other_lines(errors: str) -> list[str]:
    """Return a command's lines on standard error but for the warning of NumPy, which loading has to write once where
    the library is not built, and never where it is.
    """
    lines = errors.splitlines()
    others = [line for line in lines if not line.startswith(f"stapes: warning: {ON_NUMPY}")]
    assert len(lines) - len(others) == (0 if is_built() else 1), errors
    return others
