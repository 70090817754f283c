"""Makes the tasks that the scheduler works on, from a recording and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stapes.audio.mel import FRAMES_PER_SECOND, N_FRAMES, LogMel
from stapes.audio.pcm import Recording
from stapes.backends.base import FRAMES_PER_POSITION, Backend, FloatArray
from stapes.checkpoint.base import Checkpoint
from stapes.errors import CheckpointError, OptionError
from stapes.options import Clips, Speech, Task, TranscribeOptions
from stapes.recording.base import TaskInputs
from stapes.recording.chunked import ChunkedTask
from stapes.recording.forced_alignment import ForcedAlignmentTask
from stapes.recording.language.detect import LanguageTask
from stapes.recording.requests import Answer
from stapes.recording.single_window import WindowLanguageTask, WindowTask
from stapes.recording.speech_only import speech_only
from stapes.recording.task import RecordingTask
from stapes.recording.time_map import TimeMap
from stapes.recording.words.attention import AttentionTask
from stapes.results import Window
from stapes.runtime.warn import warn
from stapes.tokenizer import Tokenizer
from stapes.vad.detector import OpenVadModel

_OF_DETECTION = ("languages", "language_detection_segments", "language_detection_threshold")


@dataclass(frozen=True, slots=True)
class TaskFactory:
    """Makes tasks for one model."""

    checkpoint: Checkpoint
    backend: Backend
    tokenizer: Tokenizer
    open_vad: OpenVadModel | None  # None: there is no VAD network

    def transcription(
        self, recording: Recording, options: TranscribeOptions, resume: Sequence[Answer], check: Callable[[], None]
    ) -> RecordingTask | ChunkedTask:
        """Make the transcription of a recording, which the task closes.

        Raises OptionError; with `vad`, CheckpointError where no VAD network is installed.
        """
        _warn_of_clips(recording, options)
        word_times = options.words.word_timestamps
        inputs = self.inputs(recording, word_times=word_times)
        container = inputs.time_map
        if container is not None:
            times = tuple(map(container.back, options.clips.clip_timestamps))
            options = replace(options, clips=Clips(clip_timestamps=times))
        if options.voice.vad:
            speech, time_map = speech_only(recording, options, self.open_vad, check)
            options = replace(options, clips=Clips())
            seams = time_map.seams
            time_map = time_map if container is None else time_map.then(container)
            inputs = replace(self.inputs(speech, word_times=word_times), time_map=time_map, seams=seams)
        kind = ChunkedTask if options.method.mode == "chunked" else RecordingTask
        return kind(inputs, options, resume)

    def alignment(self, recording: Recording, text: str, speech: Speech) -> ForcedAlignmentTask:
        """Make the forced alignment of a text; the task closes the recording. Raises OptionError."""
        return ForcedAlignmentTask(self.inputs(recording, word_times=True), text, speech)

    def language(self, recording: Recording, speech: Speech) -> LanguageTask:
        """Make the detection of a recording's language; the task closes the recording. Raises OptionError."""
        return LanguageTask(self.inputs(recording, word_times=False), speech)

    def attention(self, recording: Recording, window: Window, language: str, task: Task) -> AttentionTask:
        """Make what computes a window's attention anew; the task closes the recording. Raises OptionError."""
        return AttentionTask(self.inputs(recording, word_times=True), window, language, task)

    def window(
        self,
        recording: Recording,
        mel: FloatArray,
        options: TranscribeOptions,
        prompt: Sequence[int],
        prefix: Sequence[int],
        n_frames: int,
    ) -> WindowTask:
        """Make the decoding of one window; the task closes the recording. Raises OptionError."""
        inputs = self.inputs(recording, word_times=options.words.word_timestamps)
        return WindowTask(inputs, mel, options, prompt, prefix, n_frames)

    def window_language(self, recording: Recording, mel: FloatArray, speech: Speech) -> WindowLanguageTask:
        """Make the detection of one window's language; the task closes the recording. Raises OptionError."""
        return WindowLanguageTask(self.inputs(recording, word_times=False), mel, speech)

    def inputs(self, recording: Recording, *, word_times: bool) -> TaskInputs:
        """Put a recording and the model's parts together.

        word_times: whether alignment heads are needed; a file that does not state them may have to be hashed for them.
        """
        return TaskInputs(
            recording=recording,
            mel=LogMel(recording, self.backend.spec.n_mels, kernel=self.backend.log10_mel),
            backend=self.backend,
            tokenizer=self.tokenizer,
            heads=self.checkpoint.alignment_heads if word_times else (),
            open_vad=self.open_vad,
            time_map=TimeMap.of_container(recording.spans),
        )


def _warn_of_clips(recording: Recording, options: TranscribeOptions) -> None:
    """Warn, here and in the transcript, where clips start after the recording's end."""
    late = options.clips.starting_after(recording.end_s)
    if late:
        clips, those = (f"clip {late[0]} starts", "is") if len(late) == 1 else (f"clips {', '.join(late)} start", "are")
        message = (
            f"{recording.name}: the {clips} after the end of the recording ({recording.end_s:g} s) and {those} left out"
        )
        recording.warnings = (*recording.warnings, message)
        warn(message)


def tokenizer_of(checkpoint: Checkpoint) -> Tokenizer:
    """Return a model's tokenizer.

    Raises CheckpointError where its ids are not known, or its windows are not of 30 s.
    """
    source = str(checkpoint.path or checkpoint.name)
    positions = N_FRAMES // FRAMES_PER_POSITION
    if checkpoint.spec.n_audio_ctx != positions:
        seconds = checkpoint.spec.n_audio_ctx * FRAMES_PER_POSITION / FRAMES_PER_SECOND
        raise CheckpointError(
            f"{source}: max_source_positions (n_audio_ctx) is {checkpoint.spec.n_audio_ctx}, for windows of "
            f"{seconds:g} s; stapes decodes windows of 30 s, {positions} positions: use a model with those"
        )
    return Tokenizer(checkpoint.spec, checkpoint.vocabulary, source)


def detection_options(keywords: Mapping[str, Any]) -> Speech:
    """Return the options of a language detection. Raises OptionError for any other keyword."""
    if wrong := [name for name in keywords if name not in _OF_DETECTION]:
        raise OptionError(f"detect_language does not take {wrong[0]}; it takes {', '.join(_OF_DETECTION)}")
    return Speech(**keywords)
