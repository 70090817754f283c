"""Speech probabilities of chunks -> spans of speech. Pure.

The settings carry the names and the meaning that users of Silero know.
Source: https://github.com/snakers4/silero-vad (v6.2, get_speech_timestamps).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from stapes.audio.intervals import Interval, Intervals
from stapes.errors import OptionError
from stapes.options import Voice
from stapes.options.checks import make_plain, number, require

#: probabilities are of 512 samples each, and spans are counted in samples at 16 kHz
CHUNK_SAMPLES, SAMPLE_RATE = 512, 16_000
#: how far below `threshold` a chunk must fall to end speech, so that wavering speech is one span
_HYSTERESIS, _LOWEST = 0.15, 0.01
#: a span that is cut holds two chunks at least
_LEAST_S = 2 * CHUNK_SAMPLES / SAMPLE_RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceSettings:
    """When a chunk counts as speech, and when speech begins and ends."""

    threshold: float = 0.5  # probability from which on a chunk is speech
    neg_threshold: float | None = None  # below it a chunk is quiet; None: 0.15 below `threshold`
    min_speech_duration_ms: float = 250.0  # what is shorter is no speech
    max_speech_duration_s: float = math.inf  # what is longer is cut
    min_silence_duration_ms: float = 100.0  # a shorter pause ends no span
    speech_pad_ms: float = 30.0  # by which spans grow on both sides

    @classmethod
    def of(cls, settings: Voice) -> VoiceSettings:
        """Take an option group's settings. Raises OptionError for those that do not go together."""
        return cls(**{item.name: getattr(settings, f"vad_{item.name}") for item in fields(cls)})

    def __post_init__(self) -> None:
        make_plain(self)  # a NumPy number of few bits overflows in samples
        for item in fields(self):
            value = getattr(self, item.name)
            require(value is not None or item.default is None, f"{item.name} must be a number, got None")
            number(item.name, value)
        if not 0 < self.threshold <= 1:
            raise OptionError(f"threshold must be above 0 and at most 1, got {self.threshold}")
        if self.neg_threshold is not None and not 0 <= self.neg_threshold <= self.threshold:
            raise OptionError(f"neg_threshold must be from 0 to threshold, got {self.neg_threshold}")
        for name in ("min_speech_duration_ms", "min_silence_duration_ms", "speech_pad_ms"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise OptionError(f"{name} must be a number of at least 0, got {value}")
        if not self.max_speech_duration_s > _LEAST_S + 2 * self.speech_pad_ms / 1000:
            raise OptionError(
                f"max_speech_duration_s must be more than {_LEAST_S} s and twice speech_pad_ms, "
                f"got {self.max_speech_duration_s}"
            )


#: Where speech is, in frames of 10 ms.
SpeechMap = Intervals
#: frames before speech at which to begin: a window that begins with the first sound itself is decoded worse
RUN_UP = 50


def speech_spans(probabilities: Sequence[float], n_samples: int, settings: VoiceSettings) -> tuple[Interval, ...]:
    """Find the spans of speech as Silero gives them, padded: in order, apart from each other, inside the recording.

    probabilities: as for `unpadded_spans`.
    """
    return padded(unpadded_spans(probabilities, n_samples, settings), n_samples, settings)


def unpadded_spans(probabilities: Sequence[float], n_samples: int, settings: VoiceSettings) -> tuple[Interval, ...]:
    """Find the spans of speech before they are padded: in order, apart from each other.

    probabilities: of chunks of 512 samples, the last one cut short by the recording's end at n_samples.
    A span begins with a chunk of at least `threshold` and ends where `min_silence_duration_ms` follow that are quieter
    than `neg_threshold`. Spans shorter than `min_speech_duration_ms` are no speech; those that would exceed
    `max_speech_duration_s` are cut in their last pause, or, without one, where they exceed it.
    """
    return tuple(
        (start, end) for start, end in _spans(probabilities, n_samples, settings)
        if end - start >= settings.min_speech_duration_ms * SAMPLE_RATE / 1000
    )  # fmt: skip


def _spans(probabilities: Sequence[float], n_samples: int, settings: VoiceSettings) -> list[Interval]:
    quiet = (
        settings.neg_threshold if settings.neg_threshold is not None else max(settings.threshold - _HYSTERESIS, _LOWEST)
    )
    patience = settings.min_silence_duration_ms * SAMPLE_RATE / 1000
    longest = settings.max_speech_duration_s * SAMPLE_RATE - 2 * settings.speech_pad_ms * SAMPLE_RATE / 1000
    spans: list[Interval] = []
    start: int | None = None  # of the speech that goes on
    pause: int | None = None  # where it fell quiet last
    last_pause: Interval | None = None  # the last one long enough to cut in
    for place, probability in enumerate(probabilities):
        at = place * CHUNK_SAMPLES
        if start is None:
            if probability >= settings.threshold:
                start, pause, last_pause = at, None, None
            continue
        if probability >= settings.threshold and pause is not None:
            last_pause = (pause, at)
            pause = None
        elif probability < quiet and pause is None:
            pause = at
        if pause is not None and at - pause >= patience:
            spans.append((start, pause))
            start = None
        elif at + CHUNK_SAMPLES - start > longest:
            end, begin = last_pause or (at, at)
            spans.append((start, end))
            start, last_pause = begin, None
    if start is not None:
        spans.append((start, n_samples))
    return list(Intervals(tuple(spans)).within(0, n_samples))


def padded(spans: Sequence[Interval], n_samples: int, settings: VoiceSettings) -> tuple[Interval, ...]:
    """Let each span grow by `speech_pad_ms` on both sides, or by half of the pause between two."""
    pad = int(settings.speech_pad_ms * SAMPLE_RATE / 1000)
    found: list[Interval] = []
    for place, (start, end) in enumerate(spans):
        before = start - (spans[place - 1][1] if place else 0)
        after = (spans[place + 1][0] if place + 1 < len(spans) else n_samples) - end
        # Two that share a pause share it evenly; at the recording's ends, a span may take all of it.
        left = min(pad, before // 2 if place else before)
        right = min(pad, after - after // 2 if place + 1 < len(spans) else after)
        found.append((start - left, end + right))
    return tuple(found)
