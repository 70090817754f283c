"""Decoding of audio files and the length of feature arrays, as in faster_whisper.audio."""

from __future__ import annotations

import errno
import os
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from stapes.audio import load_samples
from stapes.errors import AudioError


class InvalidAudioError(AudioError, ValueError):
    """A file is not audio, or has no audio stream. PyAV's own error for the first is a ValueError too."""


def decode_audio(
    input_file: str | os.PathLike[str] | bytes | IO[bytes], sampling_rate: int = 16000, split_stereo: bool = False
) -> Any:
    """Return the samples of a file's first audio stream, mixed to mono: float32 (n,), full scale 1.

    input_file: a path, a binary file object, or a file's bytes.   sampling_rate: the wanted one, in Hz.
    split_stereo: return two arrays, left and right; a mono file's are equal, and 3 dB quieter.
    Raises FileNotFoundError and other OSErrors for what cannot be opened; InvalidAudioError, a ValueError, for what is
    not audio.
    """
    if input_file == "":
        raise FileNotFoundError(errno.ENOENT, "no such file: the name is empty", input_file)
    layout: Literal["mono", "stereo"] = "stereo" if split_stereo else "mono"
    try:
        samples = load_samples(input_file, sample_rate=sampling_rate, layout=layout, audio_track=1)
    except AudioError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from error
        if isinstance(input_file, str | os.PathLike) and os.path.isdir(input_file):  # noqa: PTH112 (any kind of path)
            raise IsADirectoryError(str(error)) from error
        raise InvalidAudioError(str(error)) from error
    return (samples[:, 0], samples[:, 1]) if split_stereo else samples[:, 0]


def pad_or_trim(array: npt.NDArray[Any], length: int = 3000, *, axis: int = -1) -> npt.NDArray[Any]:
    """Return an array that is `length` long on one axis: its beginning, or itself with zeros after it."""
    n_present = array.shape[axis]
    if n_present > length:
        return array.take(np.arange(length), axis=axis)
    if n_present < length:
        widths = np.zeros((array.ndim, 2), int)
        widths[axis, 1] = length - n_present
        return np.pad(array, widths)
    return array
