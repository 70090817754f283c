"""NumPy arrays as recordings: which are accepted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stapes.audio.formats import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from stapes.audio.pcm import Samples
from stapes.errors import AudioError

_BLOCK_SAMPLES = 1 << 16


def check_array(array: npt.NDArray[np.generic], sample_rate: int) -> Samples:
    """The array as float32 (n,), 1.0 full scale; the same memory where it is that already.

    Raises AudioError for other shapes, other types than floats and int16, and for NaN or infinity.
    """
    if array.ndim != 1:
        raise AudioError(
            f"an array of shape {array.shape} is not mono audio; pass one channel of shape (n,), "
            "for example array.mean(axis=...) over the channels"
        )
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"sample_rate={sample_rate}: expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} samples per second"
        )
    if array.dtype == np.int16:
        scaled: Samples = array.astype(np.float32) / np.float32(32768.0)
        return scaled
    if array.dtype.kind != "f":
        raise AudioError(f"an array of {array.dtype} has no defined loudness; pass int16, or floats between -1 and 1")
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinity below
        samples = np.ascontiguousarray(array, dtype=np.float32)
    for start in range(0, samples.size, _BLOCK_SAMPLES):
        if not np.isfinite(samples[start : start + _BLOCK_SAMPLES]).all():
            raise AudioError("the array holds NaN or infinity; replace them, for example by np.nan_to_num(array)")
    return samples
