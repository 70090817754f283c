"""What `Engine.decode_windows` takes: log-mels or sound, and the options of one decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import fields
from typing import Any

import numpy as np

from stapes.audio.load import AudioSource, load_audio
from stapes.audio.mel import N_FRAMES, N_SAMPLES, Kernel, window_mel
from stapes.backends.base import FloatArray
from stapes.errors import OptionError
from stapes.options import Rules, Search, Speech, TranscribeOptions
from stapes.options.checks import number, plain, plain_items, require, whole

#: a log-mel (n_mels, 3000), or sound as `Engine.transcribe` takes it, of which the first 30 s count
WindowSource = AudioSource | FloatArray
#: beyond it, the network's own sums might overflow
_LARGEST_LOG_MEL = 1e6
_LANGUAGES = ("language", "languages")
_OPTIONS = (
    *_LANGUAGES,
    "task",
    *(item.name for group in (Search, Rules) for item in fields(group)),
    "token_logprobs",
    "word_timestamps",
    "rules_of",
)


def window_options(keywords: Mapping[str, Any]) -> TranscribeOptions:
    """Return the options of one decoding at one temperature, 0 by default. Raises OptionError for any other keyword."""
    if wrong := [name for name in keywords if name not in _OPTIONS]:
        raise OptionError(
            f"decode_window does not take {wrong[0]}; it takes prompt, prefix, interactive, {', '.join(_OPTIONS)}"
        )
    temperature = plain(keywords.get("temperature", 0.0))
    number("temperature", temperature, low=0)
    nothing = dict.fromkeys(("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold"))
    given = {**keywords, "temperature": temperature, "mode": "reference", **nothing}
    return TranscribeOptions.from_keywords(given)


def window_languages(keywords: Mapping[str, Any]) -> Speech:
    """Return the options of a window's language detection. Raises OptionError for any other keyword."""
    if wrong := [name for name in keywords if name != "languages"]:
        raise OptionError(f"detect_window_language does not take {wrong[0]}; it takes languages")
    return Speech(**keywords)


def token_ids(name: str, value: Any) -> tuple[int, ...]:
    """Return ids of tokens. Raises OptionError for a text or anything else."""
    unordered = isinstance(value, (str, bytes, Set, Mapping))
    try:
        ids = () if unordered else tuple(plain_items(value))
    except TypeError:
        ids = (value,)
    if unordered or any(type(one) is not int for one in ids):
        raise OptionError(f"{name} must be ids of tokens, such as a list of numbers, got {value!r:.60}")
    return ids


def sounding_frames(value: Any, n_windows: int) -> list[int]:
    """Return how many frames of each window have sound. Raises OptionError where their number is another one."""
    frames = [N_FRAMES] * n_windows if value is None else plain_items(value)
    require(len(frames) == n_windows, f"n_frames must be one number for each of {n_windows} windows, got {value!r}")
    for one in frames:
        whole("n_frames", one, low=0)
        require(one is not None and one <= N_FRAMES, f"n_frames must be at most {N_FRAMES} frames of 10 ms, got {one}")
    return frames


def mel_of(window: WindowSource, n_mels: int, kernel: Kernel) -> FloatArray:
    """Return a window's log-mel (n_mels, 3000). Raises OptionError for another shape, AudioError where sound is not."""
    if getattr(window, "ndim", 1) < 2:
        with load_audio(window) as recording:
            return window_mel(recording.read(0, min(N_SAMPLES, recording.n_samples)), n_mels, kernel)
    try:
        numbers = np.asarray(window)
        if np.iscomplexobj(numbers):
            raise TypeError("they are complex")
        mel = np.ascontiguousarray(numbers, np.float32)
    except (TypeError, ValueError, RuntimeError) as error:  # such as a tensor that is on a GPU, or has gradients
        raise OptionError(f"a window's log-mel cannot become an array of numbers: {error}") from error
    if mel.shape != (n_mels, N_FRAMES):
        raise OptionError(f"a window's log-mel has the shape ({n_mels}, {N_FRAMES}) for this model, got {mel.shape}")
    if not np.abs(mel).max() <= _LARGEST_LOG_MEL:  # NaN is not
        raise OptionError(
            f"a window's log-mel holds NaN, infinity, or numbers beyond {_LARGEST_LOG_MEL:g}; normalised as Whisper "
            "has it, they are from about -1 to 2"
        )
    return mel


def batch_of(windows: Sequence[WindowSource] | FloatArray) -> list[WindowSource]:
    """Return the windows of a batch: a list, or an array (windows, n_mels, 3000)."""
    if isinstance(windows, (list, tuple)):
        return list(windows)
    if getattr(windows, "ndim", 0) == 3:
        return [windows[i] for i in range(len(windows))]
    raise OptionError("windows must be a list of windows, or an array (windows, n_mels, 3000)")
