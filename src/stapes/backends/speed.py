"""How fast this processor multiplies and reads, measured in some 40 ms and kept for the next time.

The file is in the user's cache folder, one for each processor model. It decides nothing but which precision `auto`
takes of those that are allowed, and is measured again where it is not what was written.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stapes.backends.native.library import PRECISIONS

_TURNS, _ROUNDS = 3, 5  # of each precision, in turn: the quickest round counts, half a millisecond undisturbed
_READ_BYTES = 32 << 20  # about as many as a step of `base` reads: more than the near caches hold
_MOST_CACHED_BYTES = 1 << 16
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Speed:
    """What one thread does in a second: products of numbers in a layer of the encoder, by `key`, and bytes read."""

    products: Mapping[str, float]
    read_bytes: float


def key(isa: str, precision: str) -> str:
    """Name a set and a precision in `Speed.products`."""
    return f"{isa}/{precision}"


def processor_speed(native: Any, isas: Sequence[str]) -> Speed:
    """Return what was measured on this processor before, else measure it.   native: the library.   isas: sets to try,
    the best first.
    """
    keys = [key(isa, precision) for isa in isas for precision in PRECISIONS]
    name = f"speed-{_processor_hash(keys)}.json"
    known = None
    with suppress(RuntimeError):  # a user without a home folder
        known = _read(_cache_folder() / name, keys)
    if known is None:
        known = measure(native, isas)
        with suppress(OSError, RuntimeError):  # a folder that cannot be written: measured at each start
            _write(_cache_folder() / name, known)
    return known


def measure(native: Any, isas: Sequence[str]) -> Speed:
    """Measure all sets and precisions in turn, so that what else runs on the machine hinders all alike."""
    pairs = [(isa, precision) for isa in isas for precision in PRECISIONS]
    numbers = np.ones(_READ_BYTES // 4, np.float32)
    products, read_bytes = dict.fromkeys((key(*pair) for pair in pairs), 0.0), 0.0
    for _ in range(_TURNS):
        for pair in pairs:
            products[key(*pair)] = max(products[key(*pair)], native.peak.multiply_layer(*pair, _ROUNDS))
        started = time.perf_counter()
        native.peak.read_through(isas[0], numbers, 1)
        read_bytes = max(read_bytes, numbers.nbytes / max(time.perf_counter() - started, 1e-9))
    return Speed(products, read_bytes)


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "stapes"


def _processor_hash(keys: Sequence[str]) -> str:
    """Return what stands for the processor's model, and for what is measured on it."""
    named = ("vendor_id", "cpu family", "model", "model name", "stepping")
    lines: list[str] = []
    with suppress(OSError, UnicodeDecodeError), Path("/proc/cpuinfo").open(encoding="utf-8") as info:
        for line in info:
            if not line.strip():
                break  # one processor's lines
            if line.partition(":")[0].strip() in named:
                lines.append(line.strip())
    # platform.processor() starts another program on most systems: only where nothing else names the processor.
    said = [_FORMAT, platform.machine(), lines or platform.processor(), list(keys)]
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=8).hexdigest()


def _read(path: Path, keys: Sequence[str]) -> Speed | None:
    """Return what a file says; None where it is not there, or does not say it as it was written."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        with path.open("rb") as file:
            said = json.loads(file.read(_MOST_CACHED_BYTES))
        products = {one: float(said["products"][one]) for one in keys}
        read_bytes = float(said["read_bytes"])
        if all(math.isfinite(rate) and rate > 0 for rate in (*products.values(), read_bytes)):
            return Speed(products, read_bytes)
    return None


def _write(path: Path, speed: Speed) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.stem, delete=False, encoding="utf-8") as file:
        try:
            json.dump(asdict(speed), file)
            file.close()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
