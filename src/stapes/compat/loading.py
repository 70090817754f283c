"""What both faces share: devices, absent parts, arguments that have no counterpart, and the types of errors.

An error of ours is of each type that an original has for the same mistake, so that the handlers of programs catch it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Final, NoReturn

from stapes.errors import OptionError
from stapes.runtime.warn import warn

#: set under `stapes run-as` to what the command is run as: faces then take "cuda" and float16 for CPU and float32
RUN_AS_VARIABLE: Final = "STAPES_RUN_AS"
_WAY_OUT: Final = "give 'cpu'; under 'stapes run-as' whole programs run on the CPU, with a warning"


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


def check_device(device: Any, others: tuple[str, ...] = ()) -> None:
    """Raise DeviceError for a device that stapes does not have; under `run-as`, a GPU is the CPU, with a warning.

    device: a name, a torch.device, or None: any.   others: further names of any device.
    """
    kind = str(device).partition(":")[0]
    if device is None or kind in ("cpu", *others):
        return
    if kind != "cuda":
        raise DeviceError(f"unsupported device {str(device)!r}: this version of stapes computes on CPUs; give 'cpu'")
    if not under_run_as():
        raise DeviceError(f"device {str(device)!r}: this version of stapes computes on CPUs; {_WAY_OUT}")
    warn(f"device {str(device)!r}: this version of stapes computes on CPUs, and goes on there")


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
