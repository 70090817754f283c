"""The log-mel spectrogram of a recording, as in faster_whisper.feature_extractor.

At Whisper's own settings the numbers are those of `stapes.log_mel_spectrogram`; at others, NumPy computes them here.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

import stapes

#: n_mels of Whisper's models; the sampling rate, frame and hop that all of them have
_WHISPER_MELS: Final = (80, 128)
_WHISPER_SETTINGS: Final = (16000, 400, 160)
#: Slaney's scale: linear up to 1000 Hz, which is 15 mel; 27 mel for each factor of 6.4 above
_HERTZ_PER_MEL: Final = 200.0 / 3
_LINEAR_MELS: Final = 15.0
_LOG_STEP: Final = np.log(6.4) / 27
#: the upper edge of the last filter at every sampling rate: 8000 Hz, as the original has it
_HIGHEST_MEL: Final = _LINEAR_MELS + np.log(8.0) / _LOG_STEP


class FeatureExtractor:
    """Computes log-mel features of samples. Its attributes may be set, `mel_filters` among them."""

    def __init__(
        self,
        feature_size: int = 80,
        sampling_rate: int = 16000,
        hop_length: int = 160,
        chunk_length: int = 30,
        n_fft: int = 400,
    ) -> None:
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.sampling_rate = sampling_rate
        self.time_per_frame = hop_length / sampling_rate
        self.chunk_length = chunk_length
        self._set_window(chunk_length)
        self.mel_filters: npt.NDArray[Any] = self.get_mel_filters(sampling_rate, n_fft, feature_size).astype(np.float32)

    def _set_window(self, seconds: int) -> None:
        self.n_samples = seconds * self.sampling_rate
        self.nb_max_frames = self.n_samples // self.hop_length

    @staticmethod
    def get_mel_filters(sr: int, n_fft: int, n_mels: int = 128) -> npt.NDArray[np.float64]:
        """Return Slaney's filter bank from 0 to 8000 Hz, each triangle of unit area: float64 (n_mels, n_fft // 2 + 1).

        Source: M. Slaney, Auditory Toolbox (1998), `mfcc`.
        """
        mels = np.linspace(0.0, _HIGHEST_MEL, int(n_mels) + 2)
        bent = 1000.0 * np.exp(_LOG_STEP * (mels - _LINEAR_MELS))
        edges = np.where(mels < _LINEAR_MELS, mels * _HERTZ_PER_MEL, bent)[:, None]
        hertz = np.fft.rfftfreq(n_fft, 1.0 / sr)
        low, centre, high = edges[:-2], edges[1:-1], edges[2:]
        triangles = np.minimum((hertz - low) / (centre - low), (high - hertz) / (high - centre))
        filters: npt.NDArray[np.float64] = np.maximum(triangles, 0.0) * (2.0 / (high - low))
        return filters

    @staticmethod
    def stft(
        input_array: npt.NDArray[Any],
        n_fft: int,
        hop_length: int | None = None,
        win_length: int | None = None,
        window: npt.NDArray[Any] | None = None,
        center: bool = True,
        mode: Literal["reflect", "constant", "edge", "symmetric", "wrap"] = "reflect",
        normalized: bool = False,
        onesided: bool | None = None,
        return_complex: bool | None = None,
    ) -> npt.NDArray[Any]:
        """Return the short-time Fourier transform of a signal: ([batch,] frequencies, frames).

        input_array: floats or complex numbers, (n,) or (batch, n).   The parameters mean what they mean for torch.stft;
        return_complex False or, for real input, None gives the real parts alone.
        Raises ValueError.
        """
        is_complex = np.iscomplexobj(input_array)
        hop_length = n_fft // 4 if hop_length is None else hop_length
        win_length = n_fft if win_length is None else win_length
        if return_complex is None:
            return_complex = is_complex or (window is not None and np.iscomplexobj(window))
        if not (is_complex or np.issubdtype(input_array.dtype, np.floating)):
            raise ValueError(f"stft: takes floats or complex numbers, got {input_array.dtype}")
        if input_array.ndim not in (1, 2):
            raise ValueError(f"stft: takes an array of one or two dimensions, got {input_array.ndim}")
        if is_complex and onesided:
            raise ValueError("stft: the transform of complex input cannot be one-sided")
        if center:
            widths = [(0, 0)] * (input_array.ndim - 1) + [(n_fft // 2, n_fft // 2)]
            input_array = np.pad(input_array, widths, mode=mode)
        _check_lengths(input_array.shape[-1], n_fft, hop_length, win_length)
        frames = np.lib.stride_tricks.sliding_window_view(input_array, n_fft, axis=-1)[..., ::hop_length, :]
        if window is not None:
            frames = frames * _centred(window, win_length, n_fft)
        transform = np.fft.fft if is_complex else np.fft.rfft
        spectrum = np.swapaxes(transform(frames, axis=-1, norm="ortho" if normalized else None), -1, -2)
        return spectrum if return_complex else spectrum.real

    def __call__(
        self, waveform: npt.NDArray[Any], padding: int = 160, chunk_length: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Return normalised log-mel features: float32 (n_mels, n // hop_length).

        waveform: (samples,), full scale 1.   padding: zeros after it; n counts them.
        chunk_length: seconds of a window from now on; None leaves it.
        """
        if chunk_length is not None:
            self._set_window(chunk_length)
        samples = np.asarray(waveform, np.float32)
        if self._is_whisper():
            return stapes.log_mel_spectrogram(samples, len(self.mel_filters), padding=padding or 0)
        if padding:
            samples = np.pad(samples, (0, padding))
        window = np.hanning(self.n_fft + 1)[:-1].astype(np.float32)
        spectrum = self.stft(samples, self.n_fft, self.hop_length, window=window, return_complex=True)[..., :-1]
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        log_power = np.log10(np.maximum(self.mel_filters.astype(np.float32) @ power, np.float32(1e-10)))
        features: npt.NDArray[np.float32] = (np.maximum(log_power, log_power.max() - 8) + 4) / 4
        return features

    def _is_whisper(self) -> bool:
        """Whether settings and filters are those of Whisper's models; filters may have been set."""
        n_mels = len(self.mel_filters)
        if n_mels not in _WHISPER_MELS or (self.sampling_rate, self.n_fft, self.hop_length) != _WHISPER_SETTINGS:
            return False
        own = _whisper_filters(n_mels)
        return self.mel_filters.shape == own.shape and np.allclose(self.mel_filters, own, rtol=1e-5, atol=1e-8)


@cache
def _whisper_filters(n_mels: int) -> npt.NDArray[np.float64]:
    """Return the filters of Whisper's settings, made once: every chunk of a recording asks for them."""
    sampling_rate, n_fft, _ = _WHISPER_SETTINGS
    return FeatureExtractor.get_mel_filters(sampling_rate, n_fft, n_mels)


def _check_lengths(n_samples: int, n_fft: int, hop_length: int, win_length: int) -> None:
    if not 0 < n_fft <= n_samples:
        raise ValueError(f"stft: n_fft must be from 1 to the {n_samples} samples there are, got {n_fft}")
    if hop_length <= 0:
        raise ValueError(f"stft: hop_length must be above 0, got {hop_length}")
    if not 0 < win_length <= n_fft:
        raise ValueError(f"stft: win_length must be from 1 to n_fft, {n_fft}, got {win_length}")


def _centred(window: npt.NDArray[Any], win_length: int, n_fft: int) -> npt.NDArray[Any]:
    """Return a window of win_length with zeros on both sides: (n_fft,)."""
    if window.shape != (win_length,):
        raise ValueError(f"stft: window must have shape ({win_length},), got {window.shape}")
    left = (n_fft - win_length) // 2
    return np.pad(window, (left, n_fft - win_length - left))
