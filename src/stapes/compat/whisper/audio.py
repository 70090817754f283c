"""Sound and its log-mel as openai-whisper 20250625 gives them: `whisper.audio`.

What the original gives as tensors are tensors where the program has imported PyTorch, else `TensorLike` arrays.
"""

from __future__ import annotations

import operator
import os
from typing import Any

import numpy as np
import numpy.typing as npt

import stapes
import stapes.audio
from stapes.compat.tensors import float32_of, is_tensor, on_device, tensor_of, torch_if_imported

SAMPLE_RATE = 16000  # Hz
N_FFT = 400  # samples of a frame: 25 ms
HOP_LENGTH = 160  # samples from frame to frame: 10 ms
CHUNK_LENGTH = 30  # seconds of a window
N_SAMPLES = CHUNK_LENGTH * SAMPLE_RATE  # of a window: 480,000
N_FRAMES = N_SAMPLES // HOP_LENGTH  # of a window: 3000
N_SAMPLES_PER_TOKEN = HOP_LENGTH * 2  # a position of the encoder is two frames
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH  # 100
TOKENS_PER_SECOND = SAMPLE_RATE // N_SAMPLES_PER_TOKEN  # 50

_RANGE = 2.0  # of log-mel: 8 powers of ten below the loudest, divided by 4


def load_audio(file: str, sr: int = SAMPLE_RATE) -> npt.NDArray[np.float32]:
    """Return a recording's samples, all channels mixed: float32 (n,), full scale 1.

    file: a path, or "-" for standard input.   sr: samples a second. Above 16000 there are more samples and no higher
    tones: Whisper's 16 kHz are made first.
    Raises RuntimeError for what cannot be read, TypeError for what is no path.
    """
    if not str(sr).isdigit() or not int(sr):
        raise RuntimeError(f"Failed to load audio: sr must be a whole number of samples a second, got {sr!r}")
    try:
        with stapes.audio.load_audio(os.fsdecode(file)) as recording:
            samples = recording.read(0, recording.n_samples)
    except stapes.AudioError as error:
        raise RuntimeError(f"Failed to load audio: {error}") from error
    return samples if int(sr) == SAMPLE_RATE else _resampled(samples, int(sr))


def _resampled(samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
    """Return 16 kHz samples at another rate, by their spectrum: cut short, or followed by zeros."""
    seconds = len(samples) // SAMPLE_RATE + 2  # one second of zeros at least: the end does not ring into the beginning
    spectrum = np.fft.rfft(samples, seconds * SAMPLE_RATE)
    scaled = np.fft.irfft(spectrum, seconds * rate) * (rate / SAMPLE_RATE)
    return scaled[: -(-len(samples) * rate // SAMPLE_RATE)].astype(np.float32)


def pad_or_trim(array: Any, length: int = N_SAMPLES, *, axis: int = -1) -> Any:
    """Return an array or a tensor, of the same type and on the same device, with `length` elements along an axis.
    Zeros are added at the end; itself where the length is right.
    """
    shape = list(array.shape)
    n_missing = length - shape[axis]
    if n_missing < 0:
        kept = [slice(None)] * len(shape)
        kept[axis] = slice(max(length, 0))
        part = array[tuple(kept)]
        return part.copy() if isinstance(part, np.ndarray) else part.clone()  # the rest can be freed
    if n_missing > 0:
        shape[axis] = n_missing
        if not isinstance(array, np.ndarray):
            return torch_if_imported().cat((array, array.new_zeros(shape)), axis)
        padded = np.concatenate((array, np.zeros(shape, array.dtype)), axis)
        return tensor_of(padded) if is_tensor(array) else padded
    return array


def mel_filters(device: Any, n_mels: int) -> Any:
    """Return Slaney's mel filter bank, each triangle of unit area: float32 tensor (n_mels, 201) on a device.
    Raises AssertionError for another n_mels than 80 and 128.
    """
    _check_n_mels(n_mels)
    return on_device(stapes.audio.mel_filters(int(n_mels)).copy(), device)


def log_mel_spectrogram(audio: Any, n_mels: int = 80, padding: int = 0, device: Any = None) -> Any:
    """Return the log-mel of a recording, normalised as Whisper has it: float32 tensor (n_mels, n // 160).

    audio: a path, or samples at 16 kHz, full scale 1, as an array or a tensor: (samples,), or (batch, samples), which
    gives (batch, n_mels, n // 160) with one floor for all.   padding: zeros after the samples; n counts them.
    device: where the result is; None: where `audio` is.
    Raises AssertionError for another n_mels than 80 and 128, TypeError for what is no sound, RuntimeError for a file
    that cannot be read, for integers, other shapes, and fewer than 201 samples.
    """
    _check_n_mels(n_mels)
    if isinstance(audio, str):
        audio = load_audio(audio)
    if not is_tensor(audio) and not isinstance(audio, np.ndarray):
        raise TypeError(f"expected a path as str, a NumPy array or a tensor, got {type(audio).__name__}")
    if device is None and not isinstance(audio, np.ndarray):
        device = audio.device
    padding = max(operator.index(padding), 0)
    samples = _samples_of(audio, padding)
    with np.errstate(invalid="ignore"):  # NaN in, NaN out
        rows = [stapes.log_mel_spectrogram(one, int(n_mels), padding=padding) for one in np.atleast_2d(samples)]
    mel = rows[0] if samples.ndim == 1 else np.maximum(rows, np.max(rows) - np.float32(_RANGE))
    return on_device(mel, device)


def sound_of(audio: Any) -> npt.NDArray[np.float32]:
    """Return samples that a program gave for `transcribe`, as float32.

    audio: an array, a tensor, or what converts to an array.
    Raises TypeError for what is none of these, RuntimeError for integers.
    """
    if not is_tensor(audio):
        if not hasattr(audio, "__array__") or isinstance(audio, np.generic):
            raise TypeError(f"expected a path as str, a NumPy array or a tensor, got {type(audio).__name__}")
        audio = np.asarray(audio)
    _check_floats(audio)
    return float32_of(audio)


def _check_floats(audio: Any) -> None:
    """Raise TypeError for what is not numbers, RuntimeError for numbers other than floats."""
    if isinstance(audio, np.ndarray) and audio.dtype.kind not in "biufc":
        raise TypeError(f"expected numbers, got an array of {audio.dtype}")
    if "float" not in str(audio.dtype):
        raise RuntimeError(
            f"samples of {audio.dtype} have no defined loudness; pass floats between -1 and 1: 16-bit samples / 32768"
        )


def _samples_of(audio: Any, padding: int) -> npt.NDArray[np.float32]:
    """Return sound as float32 (samples,) or (batch, samples). Raises RuntimeError for what is none."""
    _check_floats(audio)
    samples = float32_of(audio)
    if samples.ndim not in (1, 2):
        raise RuntimeError(f"expected samples of shape (n,) or (batch, n), got {samples.shape}")
    if samples.shape[-1] + padding <= N_FFT // 2:  # which are reflected at both ends
        raise RuntimeError(f"{samples.shape[-1]} samples and {padding} zeros: more than {N_FFT // 2} are needed")
    return samples


def _check_n_mels(n_mels: int) -> None:
    if n_mels not in (80, 128):
        raise AssertionError(f"n_mels must be 80 or 128, got {n_mels!r}")
