"""What the scheduler is to work on for a job: made here from a recording and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stapes.audio.mel import FRAMES_PER_SECOND, HOP_LENGTH, N_FRAMES
from stapes.audio.pcm import Recording
from stapes.backends.base import Backend
from stapes.checkpoint.base import Checkpoint
from stapes.errors import CheckpointError, OptionError
from stapes.options import Clips, Speech, Task, TranscribeOptions
from stapes.recording.chunked import ChunkedTask
from stapes.recording.forced_alignment import ForcedAlignmentTask
from stapes.recording.language.detect import LanguageDetection
from stapes.recording.requests import Answer
from stapes.recording.speech_only import whole_frames, within
from stapes.recording.task import RecordingTask
from stapes.recording.time_map import Seam, TimeMap, clips_in_frames
from stapes.recording.words.alignment import AlignmentSetting
from stapes.recording.words.attention import AttentionPass
from stapes.results import Window
from stapes.tokenizer import Tokenizer
from stapes.vad.detector import OpenVadModel, find_spans
from stapes.vad.open import open_vad_model
from stapes.vad.silero_weights import speech_weights
from stapes.vad.spans import VoiceSettings, padded

Work = RecordingTask | ChunkedTask | ForcedAlignmentTask
_FRAMES_PER_POSITION = 2  # of the encoder, whose second convolution has a stride of 2
_OF_DETECTION = ("languages", "language_detection_segments", "language_detection_threshold")


@dataclass(frozen=True, slots=True)
class TaskFactory:
    """One model's parts, of which works are made."""

    checkpoint: Checkpoint
    backend: Backend
    tokenizer: Tokenizer
    listener: OpenVadModel | None  # None: nothing here can hear speech

    def transcription(
        self,
        recording: Recording,
        options: TranscribeOptions,
        resume: Sequence[Answer] = (),
        check: Callable[[], None] = lambda: None,
    ) -> RecordingTask | ChunkedTask:
        """Make the transcription of a recording, which the work closes.

        Raises OptionError, or CheckpointError where speech is to be found and nothing here can hear it.
        """
        kind = ChunkedTask if options.method.mode == "chunked" else RecordingTask
        # A file whose heads are not stated may have to be hashed for them: only where they are needed.
        heads = self.checkpoint.alignment_heads if options.words.word_timestamps else ()
        time_map = TimeMap.of_container(recording.spans)
        seams: tuple[Seam, ...] = ()
        if time_map is not None:
            times = tuple(map(time_map.back, options.clips.clip_timestamps))
            options = replace(options, clips=Clips(clip_timestamps=times))
        if options.voice.vad:
            recording, speech = self._speech_alone(recording, options, check)
            options = replace(options, clips=Clips())
            time_map, seams = speech if time_map is None else speech.then(time_map), speech.seams
        return kind(
            recording,
            self.backend,
            self.tokenizer,
            options,
            resume,
            heads=heads,
            listener=self.listener,
            time_map=time_map,
            spliced_at=seams,
        )

    def _speech_alone(
        self, recording: Recording, options: TranscribeOptions, check: Callable[[], None]
    ) -> tuple[Recording, TimeMap]:
        """Cut out of a recording's clips what is speech."""
        voice = VoiceSettings.of(options.voice)
        listener = open_vad_model(speech_weights()) if self.listener is None else self.listener()
        clips = clips_in_frames(options.clips.clip_timestamps, -(-recording.n_samples // HOP_LENGTH))
        n_samples, found = recording.n_samples, find_spans(recording, listener, voice, check)
        heard = whole_frames(within(found, clips), n_samples)
        spans = whole_frames(within(padded(found, n_samples, voice), clips), n_samples)
        return recording.spliced([(span.start, span.end) for span in spans]), TimeMap(spans, n_samples, heard)

    def detection(self, recording: Recording, speech: Speech) -> LanguageDetection:
        """Make the detection of a recording's language."""
        return LanguageDetection(recording, self.backend, self.tokenizer, speech)

    def alignment(self, recording: Recording, text: str, speech: Speech) -> ForcedAlignmentTask:
        """Make the alignment of a text that is known."""
        return ForcedAlignmentTask(
            recording,
            self.backend,
            self.tokenizer,
            text,
            speech,
            heads=self.checkpoint.alignment_heads,
            listener=self.listener,
            time_map=TimeMap.of_container(recording.spans),
        )

    def attention(self, recording: Recording, window: Window, language: str, task: Task) -> AttentionPass:
        """Make what reads the attention of a window that was transcribed with times of words."""
        heads = self.checkpoint.alignment_heads
        time_map = TimeMap.of_container(recording.spans)
        window = window if time_map is None else time_map.window_back(window)
        setting = AlignmentSetting.make(self.backend.spec, self.tokenizer, heads, language, task, N_FRAMES)
        return AttentionPass(recording, self.backend, setting, window)


def tokenizer_of(checkpoint: Checkpoint) -> Tokenizer:
    """Make a model's tokenizer.

    Raises CheckpointError where its ids are not known, or its windows are not of 30 s: before anything is computed.
    """
    source = str(checkpoint.path or checkpoint.name)
    positions = N_FRAMES // _FRAMES_PER_POSITION
    if checkpoint.spec.n_audio_ctx != positions:
        seconds = checkpoint.spec.n_audio_ctx * _FRAMES_PER_POSITION / FRAMES_PER_SECOND
        raise CheckpointError(
            f"{source}: max_source_positions (n_audio_ctx) is {checkpoint.spec.n_audio_ctx}, for windows of "
            f"{seconds:g} s; stapes decodes windows of 30 s, {positions} positions: use a model with those"
        )
    return Tokenizer(checkpoint.spec, checkpoint.vocabulary, source)


def detection_options(keywords: Mapping[str, Any]) -> Speech:
    """Read the options of a language detection. Raises OptionError for any other."""
    if wrong := [name for name in keywords if name not in _OF_DETECTION]:
        raise OptionError(f"detect_language does not take {wrong[0]}; it takes {', '.join(_OF_DETECTION)}")
    return Speech(**keywords)
