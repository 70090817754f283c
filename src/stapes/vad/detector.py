"""Voice activity detection over a recording: all of it, or parts that a seek loop asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from stapes.audio.intervals import Interval
from stapes.audio.mel import HOP_LENGTH
from stapes.audio.pcm import Recording, Samples
from stapes.vad.model import VadModel
from stapes.vad.spans import CHUNK_SAMPLES, SpeechMap, VoiceSettings, speech_spans, unpadded_spans

OpenVadModel = Callable[[], VadModel]
BLOCK_SAMPLES = 1000 * CHUNK_SAMPLES  # 32 s at a time: memory does not grow with the recording
#: half a second, and the root mean square it is brought to; 70 dB more at most
_LEVEL_SAMPLES, _LEVEL, _MOST_GAIN = 8000, 0.05, 3000.0
#: samples on either side that decide the gain of a stretch: blocks begin at whole half seconds
_LEVEL_MARGIN = 2 * _LEVEL_SAMPLES
#: samples before a part for a network in its first state; whole chunks, so that a chunk begins with the part
_LEAD_SAMPLES = 64 * CHUNK_SAMPLES
#: a stretch is without speech only where not even one chunk resembles it (docs/guards.md)
_SETTINGS = VoiceSettings(
    threshold=0.5, neg_threshold=0.4, min_speech_duration_ms=0, min_silence_duration_ms=300, speech_pad_ms=0
)


def find_spans(
    recording: Recording, model: VadModel, settings: VoiceSettings, check: Callable[[], None] = lambda: None
) -> tuple[Interval, ...]:
    """Find the speech of a recording: spans in samples, in order and not padded.

    check: called between blocks; what it raises ends this.
    """
    likely = []
    for start in range(0, recording.n_samples, BLOCK_SAMPLES):
        check()
        first = max(0, start - _LEVEL_MARGIN)
        samples = normalise_loudness(recording.read(first, start + BLOCK_SAMPLES + _LEVEL_MARGIN))
        likely.append(model.probabilities(samples[start - first :][:BLOCK_SAMPLES]))
    return unpadded_spans(np.concatenate(likely).tolist() if likely else [], recording.n_samples, settings)


def normalise_loudness(samples: Samples) -> Samples:
    """Return samples with normalised loudness: the recurrent VAD misses quiet speech for seconds after loud speech.

    Every half second gets the same root mean square, or as near to it as its louder neighbour allows. Between them the
    gain changes evenly. Loud noise is still not taken for speech.
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
    """Finds speech in parts of one recording.

    The result depends on the recording and the part alone: the network first reads the two seconds before the part.
    """

    def __init__(self, recording: Recording, open_vad: OpenVadModel) -> None:
        self._recording = recording
        self._open = open_vad

    def detect(self, seek: int, frames: Sequence[Interval]) -> SpeechMap:
        """Find speech in parts of the recording; frames of the result count from `seek` on, part after part.

        Each part is read in its place in the recording: where joined parts meet, the network would take the jump for
        speech.
        """
        found, at = [], seek
        for first, end in frames:
            found += [(at + start - first, at + stop - first) for start, stop in self._spans(first, end)]
            at += end - first
        return SpeechMap(tuple(found))

    def _spans(self, first: int, end: int) -> tuple[Interval, ...]:
        lead = max(0, first * HOP_LENGTH - _LEAD_SAMPLES)
        samples = normalise_loudness(self._recording.read(lead, end * HOP_LENGTH))
        spans = speech_spans(self._open().probabilities(samples).tolist(), len(samples), _SETTINGS)
        frames = tuple(((lead + start) // HOP_LENGTH, -(-(lead + end) // HOP_LENGTH)) for start, end in spans)
        return SpeechMap(frames).within(first, end)
