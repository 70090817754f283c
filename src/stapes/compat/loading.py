"""What both faces share: devices, absent parts, arguments that have no counterpart, and the types of errors.

An error of ours is of each type that an original has for the same mistake, so that the handlers of programs catch it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Final, NoReturn

from stapes.errors import OptionError, StapesError
from stapes.runtime.warn import warn

#: set under `stapes run-as` to what the command is run as: where a program asks for a GPU that cannot be used, faces
#: then go on with the CPU and float32
RUN_AS_VARIABLE: Final = "STAPES_RUN_AS"
_WAY_OUT: Final = "or give 'cpu'; under 'stapes run-as' whole programs then run on the CPU, with a warning"


class ArgumentError(OptionError, TypeError, AssertionError):
    """An argument has a value that it cannot have. The originals raise ValueError, TypeError or AssertionError."""


class DeviceError(ValueError, RuntimeError):
    """There is no such device. PyTorch and CTranslate2 raise RuntimeError for a GPU, CTranslate2 else ValueError."""


@contextmanager
def argument_errors() -> Iterator[None]:
    """Raise ArgumentError for an OptionError of stapes."""
    try:
        yield
    except ArgumentError:
        raise
    except OptionError as error:
        raise ArgumentError(str(error)) from error


def under_run_as() -> bool:
    """Whether a program runs under `stapes run-as`."""
    return bool(os.environ.get(RUN_AS_VARIABLE))


def usable_device(device: Any, **keywords: Any) -> str:
    """Return the device to load on, as `stapes.check_device` does: "cpu", "cuda:0", "cuda:0,cuda:1".

    device: a name, a torch.device, or "auto".   keywords: of `stapes.check_device`.
    Raises DeviceError for a device that stapes does not have or that cannot be used; under `run-as`, such a GPU is the
    CPU, with a warning.
    """
    name = str(device)
    kind = name.partition(":")[0]
    if kind == "cpu":
        return kind
    if kind not in ("auto", "cuda"):
        raise DeviceError(f"unsupported device {name!r}: give 'cpu', or 'cuda' for a GPU")
    import stapes  # noqa: PLC0415 (the engine, which takes a tenth of a second, is not needed for the CPU)

    try:
        return stapes.check_device(name, **keywords)
    except StapesError as error:
        if not under_run_as():
            raise DeviceError(f"{error}; {_WAY_OUT}") from error
        warn(f"{error}; going on with the CPU")
        return "cpu"


def refuse_unless_default(what: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise NotImplementedError for an argument that is known, and has another value than its default."""
    for name, value in given.items():
        if value != defaults[name]:
            raise NotImplementedError(f"{what}: {name}={value!r} has no counterpart in stapes; leave {name} out")


class _Absent:
    """A class of an original that has no counterpart: it can be named, and raises where it is made."""

    reason: ClassVar[str]

    def __init__(self, *arguments: Any, **keywords: Any) -> NoReturn:
        raise NotImplementedError(f"{type(self).__name__}: {self.reason}")


def absent_class(name: str, module: str, reason: str) -> type:
    """Return a class that stands for one of the original's, and says why it is not here."""
    return type(name, (_Absent,), {"reason": reason, "__module__": module, "__doc__": f"Not here: {reason}."})
