"""Errors that name what is here, for those who look for an attribute of another program."""

from __future__ import annotations

from collections.abc import Mapping
from opcode import opmap
from types import FrameType
from typing import TYPE_CHECKING, ClassVar


class Hints:
    """Adds to an AttributeError what to take instead."""

    __slots__ = ()
    #: their name -> ours, an attribute or a function of a module; or a sentence
    _others: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def _hint(cls, name: str) -> str:
        """Return what to take instead of a name in `_others`."""
        ours = cls._others[name]
        if ": " in ours:
            return ours
        return f"take {'' if ours.startswith('stapes.') else '.'}{ours} instead"

    if not TYPE_CHECKING:  # to a type checker they stay errors

        def __getattr__(self, name: str) -> object:
            if name not in self._others:
                return super().__getattribute__(name)  # raises what Python says
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}; {self._hint(name)}")


def unpacks_two(frame: FrameType) -> bool:
    """Return whether a frame is executing `a, b = ...`."""
    code, place = frame.f_code.co_code, frame.f_lasti
    return tuple(code[place : place + 2]) == (opmap["UNPACK_SEQUENCE"], 2)
