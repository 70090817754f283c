"""VAD alone: the stretches of speech in a recording, without a model or a transcription."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from stapes.audio.load import AudioSource, load_audio
from stapes.errors import OptionError
from stapes.options import Audio, Channel, Clock
from stapes.recording.time_map import TimeMap
from stapes.vad.detector import BLOCK_SAMPLES, find_spans
from stapes.vad.open import open_vad_model
from stapes.vad.silero_weights import speech_weights
from stapes.vad.spans import SAMPLE_RATE, VoiceSettings, padded


@dataclass(frozen=True, slots=True)
class SpeechSpan:
    """A stretch of speech."""

    start_s: float
    end_s: float


def speech_probabilities(audio: AudioSource, *, sample_rate: int | None = None) -> npt.NDArray[np.float32]:
    """Return the probability of speech in every 32 ms of a recording, as Silero gives it: float32 (chunks,).

    Sound is taken as it is; `find_speech` brings quiet parts to the loudness of the others first.
    audio, sample_rate: as for `Engine.transcribe`.   Raises what `find_speech` raises.
    """
    model = open_vad_model(speech_weights())
    with load_audio(audio, sample_rate=sample_rate) as recording:
        blocks = range(0, recording.n_samples, BLOCK_SAMPLES)
        found = [model.probabilities(recording.read(at, at + BLOCK_SAMPLES)) for at in blocks]
    return np.concatenate(found) if found else np.empty(0, np.float32)


def find_speech(
    audio: AudioSource,
    *,
    sample_rate: int | None = None,
    max_duration_s: float | None = None,
    audio_track: int | None = None,
    channel: Channel = "mix",
    clock: Clock = "samples",
    **settings: Any,
) -> tuple[SpeechSpan, ...]:
    """Find the stretches of speech of a recording, in order.

    audio, sample_rate, max_duration_s, audio_track, channel, clock: as for `Engine.transcribe`.
    settings: those of Silero, by name: threshold, neg_threshold, min_speech_duration_ms, max_speech_duration_s,
    min_silence_duration_ms, speech_pad_ms.
    Raises AudioError, OptionError, or CheckpointError where the package with the network's weights is not here.
    """
    known = [item.name for item in fields(VoiceSettings)]
    for name in settings:
        if name not in known:
            raise OptionError(f"unknown setting {name!r}; there are: {', '.join(known)}")
    voice = VoiceSettings(**settings)
    model = open_vad_model(speech_weights())
    wanted = Audio(audio_track=audio_track, channel=channel, clock=clock)
    with load_audio(audio, sample_rate=sample_rate, max_duration_s=max_duration_s, **asdict(wanted)) as recording:
        spans = padded(find_spans(recording, model, voice), recording.n_samples, voice)
    found = [(start / SAMPLE_RATE, end / SAMPLE_RATE) for start, end in spans]
    time_map = TimeMap.of_container(recording.spans)
    if time_map is not None:
        found = [(time_map.start(start_s), time_map.end(end_s)) for start_s, end_s in found]
    return tuple(SpeechSpan(start_s, end_s) for start_s, end_s in found)
