"""Cuts a recording to its speech, which alone is decoded with `vad=True`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from stapes.audio.intervals import Interval, Intervals
from stapes.audio.mel import HOP_LENGTH
from stapes.audio.pcm import Recording
from stapes.options import TranscribeOptions
from stapes.recording.time_map import TimeMap, clips_in_frames
from stapes.vad.detector import OpenVadModel, find_spans
from stapes.vad.open import open_vad_model
from stapes.vad.silero_weights import speech_weights
from stapes.vad.spans import VoiceSettings, padded


def speech_only(
    recording: Recording, options: TranscribeOptions, open_vad: OpenVadModel | None, check: Callable[[], None]
) -> tuple[Recording, TimeMap]:
    """Return the speech in a recording's clips, and the map from its time to the recording's.

    open_vad: None opens Silero.   check: called between blocks; what it raises ends this.
    Raises OptionError for settings that do not go together, CheckpointError where Silero's weights are not installed.
    """
    settings = VoiceSettings.of(options.voice)
    model = open_vad_model(speech_weights()) if open_vad is None else open_vad()
    n_samples = recording.n_samples
    clips = clips_in_frames(options.clips.clip_timestamps, -(-n_samples // HOP_LENGTH))
    found = find_spans(recording, model, settings, check)
    speech = whole_frames(within(found, clips), n_samples)
    spans = whole_frames(within(padded(found, n_samples, settings), clips), n_samples)
    return recording.spliced(spans), TimeMap(spans, n_samples, speech)


def whole_frames(spans: Sequence[Interval], n_samples: int) -> tuple[Interval, ...]:
    """Widen spans to whole frames of 10 ms, so that times move by whole frames; those that then touch are joined."""
    widened = ((start // HOP_LENGTH, min(-(-end // HOP_LENGTH) * HOP_LENGTH, n_samples)) for start, end in spans)
    return Intervals.union((first * HOP_LENGTH, end) for first, end in widened).spans


def within(spans: Sequence[Interval], clips: Sequence[Interval]) -> tuple[Interval, ...]:
    """Return the parts of spans, in samples, inside clips, in frames, in the recording's order."""
    parts = (Intervals(tuple(spans)).within(first * HOP_LENGTH, end * HOP_LENGTH) for first, end in clips)
    return tuple(sorted(itertools.chain.from_iterable(parts)))
