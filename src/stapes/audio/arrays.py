"""NumPy arrays, and what converts to one (torch tensors on the CPU), as recordings: which are accepted."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from stapes.audio.formats import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from stapes.audio.pcm import SAMPLE_RATE, Samples
from stapes.errors import AudioError, OptionError

_BLOCK_SAMPLES = 1 << 16
_UINT8_ZERO = 128  # as in wav files of 8 bits
_LOUDEST = 1000.0  # 60 dB above full scale: such samples have another scale, that of 16 bits
_ACCEPTED = "pass floats between -1 and 1, signed integers of 8 to 32 bits, or uint8 as in a wav file"


def array_of(source: object) -> npt.NDArray[np.generic] | None:
    """Return the array that an object is, or that its `__array__` gives; None for an object without.
    Raises AudioError where the conversion fails, as for a tensor on a GPU.
    """
    if isinstance(source, np.ndarray):
        return source
    if isinstance(source, np.generic) or not hasattr(type(source), "__array__"):
        return None
    kind = type(source).__name__
    try:
        array = np.asarray(source)
    except Exception as failure:  # whatever another library raises
        raise AudioError(
            f"the {kind} does not convert to a NumPy array ({failure}); convert it yourself, "
            "for a tensor by .detach().float().cpu().numpy()"
        ) from failure
    if array.dtype == object:
        raise AudioError(f"the {kind} does not convert to an array of numbers; {_ACCEPTED}")
    return array


def rate_of(sample_rate: Any) -> int:
    """Return a sample rate in Hz as a Python int; None means 16000.
    Raises OptionError for what is no whole number (16000.0 is one), AudioError for a rate that no recording has.
    """
    if sample_rate is None:
        return SAMPLE_RATE
    whole = sample_rate
    if isinstance(sample_rate, float | np.floating) and float(sample_rate).is_integer():
        whole = int(sample_rate)
    try:
        rate = operator.index(whole)
    except TypeError:
        rate = None
    if rate is None or isinstance(sample_rate, bool | np.bool_):
        raise OptionError(f"sample_rate must be a whole number of samples per second, got {sample_rate!r}")
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise AudioError(f"sample_rate={rate}: expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} samples per second")
    return rate


def check_array(array: npt.NDArray[np.generic]) -> tuple[Samples, tuple[str, ...]]:
    """Return the array as float32 (n,), 1.0 full scale, and what is odd about it, one sentence each.

    float32 in this machine's byte order is not copied. Integers are divided by 2 ** (bits - 1).
    Raises AudioError for other shapes and types, and for NaN or infinity.
    """
    if array.ndim != 1:
        raise AudioError(
            f"an array of shape {array.shape} is not mono audio; pass one channel of shape (n,), "
            "for example array.mean(axis=...) over the channels"
        )
    kind, bits = array.dtype.kind, array.dtype.itemsize * 8
    if kind == "u" and bits == 8:
        return (array.astype(np.float32) - np.float32(_UINT8_ZERO)) / np.float32(_UINT8_ZERO), ()
    if kind == "i" and bits <= 32:
        return array.astype(np.float32) / np.float32(2 ** (bits - 1)), _notes_of_integers(array)
    if kind != "f":
        raise AudioError(f"an array of {array.dtype} has no defined loudness; {_ACCEPTED}")
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinity below
        samples = np.ascontiguousarray(array, dtype=np.float32)
    loudest = 0.0
    for start in range(0, samples.size, _BLOCK_SAMPLES):
        block = samples[start : start + _BLOCK_SAMPLES]
        loudest = max(loudest, float(block.max()), -float(block.min()))
        if not np.isfinite(block).all():
            raise AudioError("the array holds NaN or infinity; replace them, for example by np.nan_to_num(array)")
    return samples, _notes_of_floats(loudest)


def _notes_of_integers(array: npt.NDArray[Any]) -> tuple[str, ...]:
    bits = array.dtype.itemsize * 8
    if bits <= 16 or not array.any():
        return ()
    low, high = int(array.min()), int(array.max())
    if low < -(2**15) or high >= 2**15:
        return ()
    return (
        f"the {array.dtype.name} array stays between {low} and {high}, as 16-bit samples do, and is read as very quiet "
        f"sound of {bits} bits; if its samples have 16 bits, pass array.astype(numpy.int16)",
    )


def _notes_of_floats(loudest: float) -> tuple[str, ...]:
    if loudest <= _LOUDEST:
        return ()
    return (
        f"the array's loudest sample is {loudest:g}, and floats are read with a full scale of 1; "
        "if it holds 16-bit samples, divide it by 32768",
    )
