"""Where somebody speaks in a recording: in all of it, or in a stretch that a seek loop asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from stapes.audio.mel import HOP_LENGTH
from stapes.audio.pcm import Recording, Samples
from stapes.vad.model import VadModel
from stapes.vad.spans import CHUNK_SAMPLES, Span, VoiceSettings, heard_spans, speech_spans

OpenVadModel = Callable[[], VadModel]
#: stretches of a recording, in frames: (first, first behind the end), in order and apart
Frames = tuple[tuple[int, int], ...]
_BLOCK_SAMPLES = 1000 * CHUNK_SAMPLES  # 32 s at a time: memory does not grow with the recording
#: half a second, and the root mean square it is brought to; 70 dB more at most
_LEVEL_SAMPLES, _LEVEL, _MOST_GAIN = 8000, 0.05, 3000.0
#: samples on either side that decide how much louder a stretch is made: blocks begin at whole half seconds
_LEVEL_MARGIN = 2 * _LEVEL_SAMPLES
#: a network that has heard nothing yet is unsure of what comes first; whole chunks, so that one begins with a stretch
_LEAD_SAMPLES = 64 * CHUNK_SAMPLES
#: frames before speech at which to begin: a window that begins with the voice itself is read worse
RUN_UP = 50
#: a stretch is without speech only where not even one chunk resembles it (docs/guards.md)
_VOICE = VoiceSettings(
    threshold=0.5, neg_threshold=0.4, min_speech_duration_ms=0, min_silence_duration_ms=300, speech_pad_ms=0
)


def find_spans(
    recording: Recording, listener: VadModel, voice: VoiceSettings, check: Callable[[], None] = lambda: None
) -> tuple[Span, ...]:
    """Find the stretches of a recording in which speech is heard, in order and not padded.

    check: called now and then; what it raises ends this.
    """
    likely = []
    for start in range(0, recording.n_samples, _BLOCK_SAMPLES):
        check()
        first = max(0, start - _LEVEL_MARGIN)
        samples = normalise_loudness(recording.read(first, start + _BLOCK_SAMPLES + _LEVEL_MARGIN))
        likely.append(listener.probabilities(samples[start - first :][:_BLOCK_SAMPLES]))
    return heard_spans(np.concatenate(likely).tolist() if likely else [], recording.n_samples, voice)


@dataclass(frozen=True, slots=True)
class DetectSpeech:
    """Say where somebody speaks in `n_frames` frames from frame `seek` on. Answer: Heard."""

    seek: int
    n_frames: int
    is_opening: bool = False  # whether only the beginning of a window is asked about


@dataclass(frozen=True, slots=True)
class SpeechMap:
    """Where somebody speaks, in the frames that were asked about."""

    spans: Frames

    def within(self, first: int, end: int) -> Frames:
        """Give what of it lies between two frames."""
        cut = ((max(first, start), min(end, stop)) for start, stop in self.spans)
        return tuple((start, stop) for start, stop in cut if start < stop)

    def counted_from(self, first: int, end: int) -> Frames:
        """Give what of it lies between two frames, counted from the first of them."""
        return tuple((start - first, stop - first) for start, stop in self.within(first, end))

    def without(self, quiet: Iterable[tuple[int, int]]) -> SpeechMap:
        """Take stretches out in which nobody speaks; an empty one cuts what it lies in."""
        spans = self.spans
        for first, end in quiet:
            parts = (part for start, stop in spans for part in ((start, min(stop, first)), (max(start, end), stop)))
            spans = tuple((start, stop) for start, stop in parts if start < stop)
        return SpeechMap(spans)

    def frames_within(self, first: int, end: int) -> int:
        """Count the frames of speech between two frames."""
        return sum(stop - start for start, stop in self.within(first, end))


def normalise_loudness(samples: Samples) -> Samples:
    """Make quiet stretches as loud as loud ones: the network hears no quiet voice for seconds after a loud one.

    Every half second is brought to the same root mean square, or as near to it as its louder neighbour lets it, with
    the gain between them changing evenly. Noise stays noise however loud it is.
    """
    n_blocks = -(-len(samples) // _LEVEL_SAMPLES)
    if not n_blocks:
        return samples
    blocks = np.zeros(n_blocks * _LEVEL_SAMPLES, np.float32)
    blocks[: len(samples)] = samples
    loudness = np.sqrt(np.mean(blocks.reshape(n_blocks, _LEVEL_SAMPLES) ** 2, axis=1))
    beside = np.pad(loudness, 1, mode="edge")
    loudest = np.maximum(np.maximum(beside[:-2], loudness), beside[2:])
    gains = np.minimum(_LEVEL / np.maximum(loudest, 1e-9), _MOST_GAIN)
    centres = (np.arange(n_blocks) + 0.5) * _LEVEL_SAMPLES
    found: Samples = samples * np.interp(np.arange(len(samples)), centres, gains).astype(np.float32)
    return found


class SpeechDetector:
    """Listens to stretches of one recording.

    What is heard depends on the recording and the stretch alone: the network hears the two seconds before it first.
    """

    def __init__(self, recording: Recording, open_listener: OpenVadModel) -> None:
        self._recording = recording
        self._open = open_listener

    def hear(self, asked: DetectSpeech, frames_of: Callable[[int, int], Frames]) -> SpeechMap:
        """Answer a request. frames_of: says which frames of the recording those are that a loop counts.

        Each stretch is heard where it lies in the recording: where two meet, the network would hear the jump.
        """
        found, at = [], asked.seek
        for first, end in frames_of(asked.seek, asked.seek + asked.n_frames):
            found += [(at + start - first, at + stop - first) for start, stop in self._heard(first, end).spans]
            at += end - first
        return SpeechMap(tuple(found))

    def _heard(self, first: int, end: int) -> SpeechMap:
        lead = max(0, first * HOP_LENGTH - _LEAD_SAMPLES)
        samples = normalise_loudness(self._recording.read(lead, end * HOP_LENGTH))
        spans = speech_spans(self._open().probabilities(samples).tolist(), len(samples), _VOICE)
        frames = tuple(((lead + one.start) // HOP_LENGTH, -(-(lead + one.end) // HOP_LENGTH)) for one in spans)
        return SpeechMap(SpeechMap(frames).within(first, end))
