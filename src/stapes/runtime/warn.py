"""Warnings of stapes, each attributed to the line of the program that called it, not to a line of stapes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from types import FrameType
from typing import Any, Final, ParamSpec, TypeVar

from stapes.errors import StapesWarning

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: packages whose lines are no place to look for a warning's cause: ours, and those that call ours for the user
_PASSED_OVER: Final = frozenset({__name__.partition(".")[0], *sys.stdlib_module_names})
#: where a call in a thread of a pool was made; None: look at the frames of this thread
_place: ContextVar[dict[str, Any] | None] = ContextVar("place", default=None)


def warn(message: str, kind: type[Warning] = StapesWarning) -> None:
    """Issue a warning at the innermost frame that is neither of stapes nor of the standard library."""
    warnings.warn_explicit(message, kind, **(_place.get() or _place_of(sys._getframe(1))))


def warning_here(call: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return a function that does what `call` does in another thread, with its warnings attributed to this caller."""
    place = _place_of(sys._getframe(1))

    def run(*arguments: _P.args, **keywords: _P.kwargs) -> _T:
        token = _place.set(place)
        try:
            return call(*arguments, **keywords)
        finally:
            _place.reset(token)

    return run


def _place_of(frame: FrameType) -> dict[str, Any]:
    """Return what `warnings.warn_explicit` asks for; of the outermost frame where none is the user's."""
    while _is_passed_over(frame) and frame.f_back is not None:
        frame = frame.f_back
    names = frame.f_globals
    return {
        "filename": frame.f_code.co_filename,
        "lineno": frame.f_lineno,
        "module": names.get("__name__", "<unknown>"),
        "registry": names.setdefault("__warningregistry__", {}),
    }


def _is_passed_over(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _PASSED_OVER
