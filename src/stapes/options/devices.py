"""Names of devices: "cpu", "cuda", "cuda:1", "cuda:0,cuda:1", "mps". What is really there: `stapes.check_device`."""

from __future__ import annotations

from typing import Any, Final

from stapes.errors import OptionError

DEVICES: Final = ("cpu", "cuda", "mps")
#: of which there may be several, each with its number
_NUMBERED: Final = "cuda"


def device_names(device: Any) -> tuple[str, ...]:
    """Return the devices that a text names, GPUs with their numbers: "cuda" is ("cuda:0",), "auto" is ("auto",).
    Raises OptionError for a name that is not in this version, a number that is none, and a device named twice.
    """
    if not isinstance(device, str):
        raise OptionError(f"device must be a name such as cpu or cuda:0, got {device!r}")
    if device == "auto":
        return (device,)
    names = [_one(part.strip(), device) for part in device.split(",")]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"device {device!r} names {name} twice")
        if len(names) > 1 and not name.startswith(_NUMBERED):
            raise OptionError(f"device {device!r}: several devices must all be {_NUMBERED}, and {name} is not")
    return tuple(names)


def _one(name: str, whole: str) -> str:
    """Return a name with its number.   whole: the text that it is in, for messages."""
    kind, colon, number = name.partition(":")
    if kind not in DEVICES:
        raise OptionError(
            f"device {name or whole!r} is not in this version; there are: {', '.join(DEVICES)}, auto, and with a "
            "number cuda:1 or cuda:0,cuda:1"
        )
    if kind != _NUMBERED:
        if colon:
            raise OptionError(f"device {name!r}: only {_NUMBERED} takes a number; give {kind!r}")
        return kind
    if not colon:
        return f"{kind}:0"
    if not (number.isascii() and number.isdigit() and len(number) < 5):
        raise OptionError(f"device {name!r}: {number!r} is not the number of a GPU; the first one is {kind}:0")
    return f"{kind}:{int(number)}"
