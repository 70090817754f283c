"""Cuts a recording to its speech, which alone is decoded with `vad=True`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stapes.audio.mel import HOP_LENGTH
from stapes.audio.pcm import Recording
from stapes.options import TranscribeOptions
from stapes.recording.time_map import TimeMap, clips_in_frames
from stapes.vad.detector import OpenVadModel, find_spans
from stapes.vad.open import open_vad_model
from stapes.vad.silero_weights import speech_weights
from stapes.vad.spans import Span, VoiceSettings, padded


def speech_only(
    recording: Recording, options: TranscribeOptions, open_vad: OpenVadModel | None, check: Callable[[], None]
) -> tuple[Recording, TimeMap]:
    """Return the speech in a recording's clips, and the map from its time to the recording's.

    open_vad: None opens Silero.   check: called now and then; what it raises ends this.
    Raises OptionError for settings that do not go together, CheckpointError where Silero's weights are not installed.
    """
    voice = VoiceSettings.of(options.voice)
    model = open_vad_model(speech_weights()) if open_vad is None else open_vad()
    n_samples = recording.n_samples
    clips = clips_in_frames(options.clips.clip_timestamps, -(-n_samples // HOP_LENGTH))
    found = find_spans(recording, model, voice, check)
    heard = whole_frames(within(found, clips), n_samples)
    spans = whole_frames(within(padded(found, n_samples, voice), clips), n_samples)
    return recording.spliced([(span.start, span.end) for span in spans]), TimeMap(spans, n_samples, heard)


def whole_frames(spans: Sequence[Span], n_samples: int) -> tuple[Span, ...]:
    """Widen spans to whole frames of 10 ms, so that times move by whole frames; those that then touch are joined."""
    found: list[Span] = []
    for span in spans:
        start = span.start // HOP_LENGTH * HOP_LENGTH
        end = min(-(-span.end // HOP_LENGTH) * HOP_LENGTH, n_samples)
        if found and start <= found[-1].end:
            found[-1] = Span(found[-1].start, end)
        else:
            found.append(Span(start, end))
    return tuple(found)


def within(spans: Sequence[Span], clips: Sequence[tuple[int, int]]) -> tuple[Span, ...]:
    """Return the parts of spans inside clips (first frame, end frame), in the recording's order."""
    cut = (
        Span(max(span.start, first * HOP_LENGTH), min(span.end, last * HOP_LENGTH))
        for first, last in clips for span in spans
    )  # fmt: skip
    return tuple(sorted((span for span in cut if span.start < span.end), key=lambda span: span.start))
