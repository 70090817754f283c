"""A log-mel spectrogram without a model, for programs that decode windows themselves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stapes.audio.mel import whole_mel
from stapes.backends.select import log_mel_kernel
from stapes.options.checks import require, whole

_N_MELS = (80, 128)


def log_mel_spectrogram(
    samples: npt.NDArray[np.floating], n_mels: int = 80, *, padding: int = 0
) -> npt.NDArray[np.float32]:
    """Return the log-mel of a recording, normalised as Whisper has it: float32 (n_mels, n // 160).

    samples: (samples,) at 16 kHz, full scale 1.   n_mels: 80, or 128 for large-v3 and its kin.
    padding: zeros after the samples; n counts them.   Both ends are reflected, as openai/whisper has it.
    `Engine.decode_window` takes windows of it, (n_mels, 3000). Raises OptionError.
    """
    require(n_mels in _N_MELS, f"n_mels must be one of {_N_MELS}, got {n_mels!r}")
    whole("padding", padding, low=0)
    sound = np.asarray(samples, np.float32)
    require(sound.ndim == 1, f"samples must be of one channel, got an array of shape {sound.shape}")
    return whole_mel(sound, n_mels, log_mel_kernel(), padding)
