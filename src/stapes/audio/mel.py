"""Samples -> log-mel windows, with the numbers of openai/whisper's `log_mel_spectrogram(padding=480000)`.

Frame f covers samples f * 160 - 200 to f * 160 + 199 of a signal that is reflected before its first sample
and followed by 30 s of zero samples. Knows nothing of models: the caller says how many mel bins there are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stapes.audio.pcm import SAMPLE_RATE, Samples

N_FFT = 400  # samples of one frame: 25 ms
HOP_LENGTH = 160  # samples from frame to frame: 10 ms
FRAMES_PER_SECOND = 100  # 16000 samples a second / 160 samples a frame
N_FRAMES = 3000  # of a window: 30 s / 10 ms
N_SAMPLES = N_FRAMES * HOP_LENGTH  # of a window: 480,000
N_BINS = N_FFT // 2 + 1  # frequencies of a real transform: 0 to 8000 Hz by 40 Hz
_HALF_FFT = N_FFT // 2  # a frame is centred on its first hop
_KEPT_FRAMES = 2 * N_FRAMES  # a recording of up to two windows keeps its frames from the pass for the maximum
# Quiet speech is lifted to 10 dB below the loudest, by 60 dB at most; the floor is 80 dB below the loudest.
_QUIETER, _MOST_GAIN = np.float32(1.0), np.float32(6.0)

Mel = npt.NDArray[np.float32]  # (n_mels, n_frames)
Kernel = Callable[[Samples, npt.NDArray[np.float32]], Mel]


def seconds_of(frame: float) -> float:
    """Return when a frame begins, in seconds."""
    return frame / FRAMES_PER_SECOND


class SampleReader(Protocol):
    """What LogMel needs of a recording."""

    @property
    def n_samples(self) -> int:
        """Length in samples at 16 kHz."""

    def read(self, start: int, stop: int) -> Samples:
        """Samples start..stop, float32."""


class LogMel:
    """The log-mel spectrogram of one recording, computed on demand.

    recording: read in blocks, never as a whole.   n_mels: 80, or 128 for large-v3.
    kernel: the backend's, or `stapes.backends.numerics.log10_mel`.
    """

    def __init__(self, recording: SampleReader, n_mels: int, *, kernel: Kernel) -> None:
        self._recording = recording
        self._filters = mel_filters(n_mels)
        self._kernel = kernel
        self._lock = threading.Lock()
        self._maximum: np.float32 | None = None
        self._kept: Mel | None = None

    @property
    def n_mels(self) -> int:
        """Mel bins of a frame."""
        return int(self._filters.shape[0])

    @property
    def content_frames(self) -> int:
        """How many frames belong to the recording; later ones belong to the 30 s of zero samples."""
        return self._recording.n_samples // HOP_LENGTH

    @property
    def maximum(self) -> float:
        """The largest log10 mel power of the recording and the zeros after it; one pass, on first use."""
        return float(self.find_maximum())

    def window(self, start_frame: int, n_frames: int) -> Mel:
        """Return n_frames (at most 3000) normalised frames from start_frame on, then 0.0: float32 (n_mels, 3000)."""
        return self.joined([(start_frame, start_frame + n_frames)])

    def joined(self, stretches: Iterable[tuple[int, int]], length: int = N_FRAMES) -> Mel:
        """Return normalised frames of half-open stretches, one after the other, then 0.0: (n_mels, length).

        Stretches may end after the recording: there are 30 s of silence.
        """
        return _padded(self._normalise(self._log10_stretches(stretches)), length)

    def with_quiet_gain(
        self, stretches: Iterable[tuple[int, int]], speech: Sequence[tuple[int, int]], length: int = N_FRAMES
    ) -> Mel:
        """Return `joined` with quiet speech lifted, and the floor 80 dB below the loudest of these frames.
        speech: half-open spans, in order, counted from the first of these frames.
        """
        log10_power = quiet_gain(self._log10_stretches(stretches), speech)
        return _padded(_normalised(log10_power, log10_power.max(initial=self._silence())), length)

    def _log10_stretches(self, stretches: Iterable[tuple[int, int]]) -> Mel:
        found = [np.empty((self.n_mels, 0), np.float32)]
        for first, end in stretches:
            assert 0 <= first <= end <= self.content_frames + N_FRAMES, (first, end)
            found.append(self._log10_frames(first, end - first))
        return np.concatenate(found, axis=1)

    def opening(self) -> Mel:
        """Return frames 0..2999 for language detection, float32 (n_mels, 3000): after a short recording comes the
        log-mel of its zero samples, not 0.0 as in `window`.
        """
        return self._normalise(self._log10_frames(0, N_FRAMES))

    def _normalise(self, log10_power: Mel) -> Mel:
        return _normalised(log10_power, self.find_maximum())

    @property
    def _sounding_frames(self) -> int:
        """How many frames touch a sample of the recording; all later ones see zeros only."""
        n_samples = self._recording.n_samples
        return (n_samples + _HALF_FFT - 1) // HOP_LENGTH + 1 if n_samples else 0

    def find_maximum(self, check: Callable[[], None] = lambda: None) -> np.float32:
        """Look for the maximum, once. check: called before each 30 s of audio; what it raises ends the search."""
        with self._lock:
            if self._maximum is None:
                n_frames = self._sounding_frames
                if n_frames <= _KEPT_FRAMES:
                    self._kept = self._compute(0, n_frames)
                    self._maximum = max(self._silence(), self._kept.max(initial=-np.inf))
                else:
                    blocks = range(0, n_frames, N_FRAMES)
                    maxima = [self._checked(check, at, min(N_FRAMES, n_frames - at)).max() for at in blocks]
                    self._maximum = max(self._silence(), *maxima)
            return self._maximum

    def _checked(self, check: Callable[[], None], start_frame: int, n_frames: int) -> Mel:
        check()
        return self._compute(start_frame, n_frames)

    def _log10_frames(self, start_frame: int, n_frames: int) -> Mel:
        """Return frames of log10 power (n_mels, n_frames), silence after the recording."""
        self.find_maximum()
        n_sounding = min(n_frames, max(0, self._sounding_frames - start_frame))
        frames = np.full((self.n_mels, n_frames), self._silence(), np.float32)
        if self._kept is not None:
            frames[:, :n_sounding] = self._kept[:, start_frame : start_frame + n_sounding]
        else:
            frames[:, :n_sounding] = self._compute(start_frame, n_sounding)
        return frames

    def _compute(self, start_frame: int, n_frames: int) -> Mel:
        if n_frames == 0:
            return np.empty((self.n_mels, 0), np.float32)
        start = start_frame * HOP_LENGTH - _HALF_FFT
        samples = read_padded(self._recording, start, start + (n_frames - 1) * HOP_LENGTH + N_FFT)
        return self._kernel(samples, self._filters)

    def _silence(self) -> np.float32:
        return np.float32(self._kernel(np.zeros(N_FFT, np.float32), self._filters)[0, 0])


def window_mel(samples: Samples, n_mels: int, kernel: Kernel) -> Mel:
    """Return the log-mel (n_mels, 3000) of one window alone: up to 480,000 samples, zeros after them.

    The numbers of openai/whisper's `log_mel_spectrogram(pad_or_trim(samples))`: the window is reflected at both ends.
    """
    return whole_mel(samples, n_mels, kernel, padding=N_SAMPLES - samples.size)


def whole_mel(samples: Samples, n_mels: int, kernel: Kernel, padding: int = 0) -> Mel:
    """Return the log-mel (n_mels, n // 160) of n samples: those given, and zeros after them.

    padding: the number of zeros. The numbers of openai/whisper's `log_mel_spectrogram`: reflected at both ends.
    """
    n_frames = (samples.size + padding) // HOP_LENGTH
    if not n_frames:
        return np.empty((n_mels, 0), np.float32)
    signal = np.pad(np.pad(samples, (0, padding)), _HALF_FFT, mode="reflect")
    log10_power = kernel(signal[: (n_frames - 1) * HOP_LENGTH + N_FFT], mel_filters(n_mels))
    return _normalised(log10_power, log10_power.max())


def quiet_gain(log10_power: Mel, speech: Sequence[tuple[int, int]]) -> Mel:
    """Return log-mel with quiet speech lifted to 10 dB below the loudest speech.

    Between two stretches the gain changes evenly. No frame is lifted above that level.

    log10_power: (n_mels, n_frames).   speech: half-open spans in frames, in order; later frames do not count.
    """
    speech = [one for one in speech if one[0] < log10_power.shape[1]]
    if not speech:
        return log10_power
    peaks = np.array([log10_power[:, first:end].max() for first, end in speech], np.float32)
    top = peaks.max() - _QUIETER
    gains = np.clip(top - peaks, 0.0, _MOST_GAIN)
    edges = [frame for first, end in speech for frame in (first, end - 1)]
    gain = np.interp(np.arange(log10_power.shape[1]), edges, np.repeat(gains, 2)).astype(np.float32)
    headroom = np.maximum(top - log10_power.max(axis=0), 0.0)  # music beside quiet speech is loud already
    found: Mel = log10_power + np.minimum(gain, headroom)
    return found


def _normalised(log10_power: Mel, maximum: np.float32) -> Mel:
    floor = maximum - np.float32(8.0)  # 80 dB below the loudest
    return (np.maximum(log10_power, floor) + np.float32(4.0)) / np.float32(4.0)


def _padded(frames: Mel, length: int) -> Mel:
    n_mels, n_frames = frames.shape
    assert n_frames <= length, (n_frames, length)
    window = np.zeros((n_mels, length), np.float32)
    window[:, :n_frames] = frames
    return window


def read_padded(recording: SampleReader, start: int, stop: int) -> Samples:
    """Return samples start..stop: before 0 comes the reflection (sample 1 at -1), after the end come zeros.
    start: at least -200, as torch.stft(center=True) pads for 400 samples.
    """
    samples = np.zeros(stop - start, np.float32)
    inside = recording.read(min(max(start, 0), recording.n_samples), min(max(stop, 0), recording.n_samples))
    samples[max(0, -start) : max(0, -start) + inside.size] = inside
    if start < 0:
        mirrored = np.zeros(-start, np.float32)  # samples start..-1
        mirror = recording.read(0, min(1 - start, recording.n_samples))[1:]
        mirrored[-start - mirror.size :] = mirror[::-1]
        samples[:-start] = mirrored[: stop - start]
    return samples


@cache
def mel_filters(n_mels: int) -> npt.NDArray[np.float32]:
    """Return Slaney's mel filter bank, each triangle of unit area: float32 (n_mels, 201), read-only.
    Source: M. Slaney, Auditory Toolbox (1998), `mfcc`; the numbers that librosa.filters.mel gives for 16 kHz.
    """
    hertz = np.linspace(0.0, SAMPLE_RATE / 2, N_BINS)
    edges = _hertz_of_mel(np.linspace(0.0, _mel_of_hertz(SAMPLE_RATE / 2), n_mels + 2))
    widths = np.diff(edges)
    slopes = edges[:, None] - hertz[None, :]  # (n_mels + 2, 201)
    rising = -slopes[:-2] / widths[:-1, None]
    falling = slopes[2:] / widths[1:, None]
    # Rounded here and once more below, as librosa does: that makes the numbers equal to the last bit.
    triangles = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    unit_area = 2.0 / (edges[2:] - edges[:-2])
    filters: npt.NDArray[np.float32] = (triangles * unit_area[:, None]).astype(np.float32)
    filters.flags.writeable = False
    return filters


# Slaney's scale: linear up to 1000 Hz (15 mel), then 27 mel for each factor of 6.4.
_HERTZ_PER_MEL = 200.0 / 3.0
_LINEAR_MEL = 1000.0 / _HERTZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def _mel_of_hertz(hertz: float) -> float:
    assert hertz >= 1000.0, hertz
    return float(_LINEAR_MEL + np.log(hertz / 1000.0) / _LOG_STEP)


def _hertz_of_mel(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    bent = 1000.0 * np.exp(_LOG_STEP * (mel - _LINEAR_MEL))
    return np.where(mel < _LINEAR_MEL, mel * _HERTZ_PER_MEL, bent)
