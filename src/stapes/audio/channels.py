"""The channels of decoded frames: one of them by name, and whether they cancel each other when mixed."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from av.audio.frame import AudioFrame

#: names of channels in libav's layouts, the usual ones first; without names, the first channel is the left one
_NAMES: Final = {"left": ("FL", "DL"), "right": ("FR", "DR")}
#: libav's sample formats without the "p" of planar ones -> full scale, and the value of silence
_SCALES: Final = {"u8": (128.0, 128.0), "s16": (2.0**15, 0.0), "s32": (2.0**31, 0.0), "flt": (1.0, 0.0),
                  "dbl": (1.0, 0.0)}  # fmt: skip
#: From as many planes on PyAV 18 reads beyond the end of their list, which ends the process.
#: https://github.com/PyAV-Org/PyAV/blob/v18.1.0/av/audio/frame.py#L147
_UNREADABLE_PLANES: Final = 8
#: one frame in 4 and one sample in 5 of it are enough, and cost a second for two hours
_EVERY_FRAME: Final = 4
_EVERY_SAMPLE: Final = 5
#: mean square below which a channel counts as silent: -80 dB
_SILENT: Final = 1e-8
#: Power of the sum over the sum of powers: 1 for unlike channels, n for n equal ones. Below it, sound is lost: 13 dB.
_CANCELLED: Final = 0.05
#: share of the seconds with sound in which channels must cancel each other for a warning
_NOTED_SHARE: Final = 0.1


def channel_index(frame: AudioFrame, side: Literal["left", "right"]) -> int | None:
    """The index of the left or right channel; None if there is only one channel."""
    if frame.layout.nb_channels < 2:
        return None
    names = [channel.name for channel in frame.layout.channels]
    known = [names.index(name) for name in _NAMES[side] if name in names]
    return known[0] if known else int(side == "right")


class CancelMeter:
    """Counts the seconds in which channels cancel each other: one is the other inverted, after a fault in a cable."""

    def __init__(self) -> None:
        self.cancelled_s = 0.0
        self.loud_s = 0.0
        self._n_frames = 0
        self._block_s = 0.0
        self._n_samples = 0
        self._power_of_sum = self._sum_of_powers = 0.0

    def note(self, frame: AudioFrame) -> None:
        """Look at a decoded frame."""
        n_channels = frame.layout.nb_channels
        scale = _SCALES.get(frame.format.name.removesuffix("p"))
        if n_channels < 2 or scale is None or (frame.format.is_planar and n_channels >= _UNREADABLE_PLANES):
            return
        self._block_s += frame.samples / frame.sample_rate
        if self._n_frames % _EVERY_FRAME == 0:
            samples = frame.to_ndarray()
            samples = samples.T if frame.format.is_planar else samples.reshape(-1, n_channels)  # (n, channels)
            values = (samples[::_EVERY_SAMPLE].astype(np.float32) - np.float32(scale[1])) / np.float32(scale[0])
            mixed = values.sum(axis=1)
            self._n_samples += values.size
            self._power_of_sum += float(np.vdot(mixed, mixed))
            self._sum_of_powers += float(np.vdot(values, values))
        self._n_frames += 1
        if self._block_s >= 1.0:
            self._end_block()

    def _end_block(self) -> None:
        if self._sum_of_powers > _SILENT * self._n_samples:
            self.loud_s += self._block_s
            if self._power_of_sum < _CANCELLED * self._sum_of_powers:
                self.cancelled_s += self._block_s
        self._block_s, self._n_samples, self._power_of_sum, self._sum_of_powers = 0.0, 0, 0.0, 0.0

    @property
    def cancels(self) -> bool:
        """Whether so much was cancelled that words may be missing; asked after the last frame."""
        self._end_block()
        return self.cancelled_s > _NOTED_SHARE * self.loud_s
