"""The outline of a recording: its lowest and highest sample in each of some thousand stretches. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stapes.audio.mel import SampleReader
from stapes.audio.pcm import SAMPLE_RATE

_Levels = npt.NDArray[np.int8]  # (n,), 127 is full scale

#: stretches a second where the recording is short, and stretches in all: above an hour they grow longer
_PER_SECOND, _MOST = 50, 180_000
#: samples read at once: 2 MB
_BLOCK_SAMPLES = 1 << 19
_FULL_SCALE = 127


@dataclass(frozen=True, slots=True)
class Waveform:
    """Lowest and highest sample of equal stretches."""

    low: _Levels
    high: _Levels
    duration_s: float

    def coarser(self, n_most: int) -> Waveform:
        """Return a waveform with neighbours joined, of at most so many stretches."""
        if len(self.low) <= n_most:
            return self
        starts = np.arange(n_most) * len(self.low) // n_most
        return Waveform(np.minimum.reduceat(self.low, starts), np.maximum.reduceat(self.high, starts), self.duration_s)

    @property
    def loudest(self) -> int:
        """The highest level on either side of 0; at least 1."""
        return max(1, int(self.high.max(initial=0)), -int(self.low.min(initial=0)))


def waveform(recording: SampleReader) -> Waveform:
    """Return a recording's outline, in bounded memory: 50 stretches a second, and 180,000 in all at most."""
    n_samples = recording.n_samples
    n_stretches = min(n_samples, _MOST, max(1, -(-n_samples * _PER_SECOND // SAMPLE_RATE)))
    edges = np.arange(n_stretches + 1, dtype=np.int64) * n_samples // max(1, n_stretches)
    low, high = (np.zeros(n_stretches, np.int8) for _ in range(2))
    first = 0
    while first < n_stretches:
        last = max(first + 1, int(np.searchsorted(edges, edges[first] + _BLOCK_SAMPLES, "right")) - 1)
        samples = recording.read(int(edges[first]), int(edges[last]))
        starts = edges[first:last] - edges[first]
        low[first:last] = _levels(np.minimum.reduceat(samples, starts))
        high[first:last] = _levels(np.maximum.reduceat(samples, starts))
        first = last
    return Waveform(low, high, n_samples / SAMPLE_RATE)


def _levels(samples: npt.NDArray[np.float32]) -> _Levels:
    """Round samples away from 0, so that what is not silent is seen; NaN is 0."""
    scaled = np.nan_to_num(samples, nan=0.0) * _FULL_SCALE
    away = np.copysign(np.ceil(np.abs(scaled) - 0.5 / _FULL_SCALE), scaled)
    levels: _Levels = np.clip(away, -_FULL_SCALE, _FULL_SCALE).astype(np.int8)
    return levels
