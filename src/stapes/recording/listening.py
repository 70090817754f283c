"""Where somebody speaks in a recording: in all of it, or in a stretch that a seek loop asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stapes.audio.pcm import Recording
from stapes.backends.base import SpeechListener
from stapes.recording.vad import CHUNK_SAMPLES, Span, VoiceSettings, speech_spans

OpenListener = Callable[[], SpeechListener]
_BLOCK_SAMPLES = 1000 * CHUNK_SAMPLES  # 32 s at a time: memory does not grow with the recording
_SAMPLES_PER_FRAME = 160
#: a network that has heard nothing yet is unsure of what comes first
_LEAD_SAMPLES = 64 * CHUNK_SAMPLES
#: softer than Silero's own: a stretch is without speech only where not even one chunk resembles it (docs/guards.md)
_VOICE = VoiceSettings(threshold=0.4, min_speech_duration_ms=0, min_silence_duration_ms=300, speech_pad_ms=0)


def find_spans(
    recording: Recording, listener: SpeechListener, voice: VoiceSettings, check: Callable[[], None] = lambda: None
) -> tuple[Span, ...]:
    """Find the stretches of speech of a recording, in order. check: called now and then; what it raises ends this."""
    likely = []
    for start in range(0, recording.n_samples, _BLOCK_SAMPLES):
        check()
        likely.append(listener.probabilities(recording.read(start, start + _BLOCK_SAMPLES)))
    return speech_spans(np.concatenate(likely).tolist() if likely else [], recording.n_samples, voice)


@dataclass(frozen=True, slots=True)
class Listen:
    """Say where somebody speaks in `n_frames` frames from frame `seek` on. Answer: Heard."""

    seek: int
    n_frames: int


@dataclass(frozen=True, slots=True)
class Heard:
    """Where somebody speaks, in frames of the recording: (first, first behind the end), in order and apart."""

    spans: tuple[tuple[int, int], ...]

    def within(self, first: int, end: int) -> tuple[tuple[int, int], ...]:
        """Give what of it lies between two frames."""
        cut = ((max(first, start), min(end, stop)) for start, stop in self.spans)
        return tuple((start, stop) for start, stop in cut if start < stop)

    def frames_within(self, first: int, end: int) -> int:
        """Count the frames of speech between two frames."""
        return sum(stop - start for start, stop in self.within(first, end))


class Ear:
    """Listens to stretches of one recording.

    What is heard depends on the recording and the stretch alone: the network hears the two seconds before it first.
    """

    def __init__(self, recording: Recording, open_listener: OpenListener) -> None:
        self._recording = recording
        self._open = open_listener

    def hear(self, asked: Listen) -> Heard:
        """Answer a request."""
        start, end = asked.seek * _SAMPLES_PER_FRAME, (asked.seek + asked.n_frames) * _SAMPLES_PER_FRAME
        first = max(0, start - _LEAD_SAMPLES)
        samples = self._recording.read(first, end)
        spans = speech_spans(self._open().probabilities(samples).tolist(), len(samples), _VOICE)
        frames = tuple(
            ((first + one.start) // _SAMPLES_PER_FRAME, -(-(first + one.end) // _SAMPLES_PER_FRAME)) for one in spans
        )
        return Heard(Heard(frames).within(asked.seek, asked.seek + asked.n_frames))
