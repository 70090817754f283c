"""The attention that a window's word times were read from, computed again for that window alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stapes.audio.mel import N_FRAMES
from stapes.backends.base import ExtraAnswers, FloatArray
from stapes.options import Task
from stapes.recording.base import TaskInputs, WindowCost, WindowStream
from stapes.recording.events import JobEvent
from stapes.recording.words.alignment import WindowAligner, alignment_bytes
from stapes.results import Alignment, Window, WordTiming


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionScores:
    """The alignment heads' attention in a forced pass over a window's text."""

    scores: FloatArray  # (heads, start + tokens + end of text, positions)
    n_start: int  # tokens before the text, except the last one
    n_columns: int  # positions with content
    columns_per_second: float
    words: tuple[WordTiming, ...]


class _AttentionReader(WindowAligner):
    """Aligns a window, and keeps the scores."""

    scores: FloatArray | None = None

    def _answer(self, answers: ExtraAnswers) -> Alignment:
        self.scores = answers.attention
        return super()._answer(answers)


class AttentionTask(WindowStream):
    """Computes the attention of a window that has word times."""

    def __init__(self, inputs: TaskInputs, window: Window, language: str, task: Task) -> None:
        """language, task: as it was decoded. Raises OptionError for a language that the model does not know."""
        assert window.result.timings is not None
        self._tokens = [token for word in window.result.timings for token in word.tokens]
        spec = inputs.backend.spec
        super().__init__(inputs, WindowCost(1, alignment_bytes(spec, inputs.heads, len(self._tokens))))
        self._window = window if inputs.time_map is None else inputs.time_map.window_back(window)
        self._setting = inputs.alignment_setting(language, task)
        self._reader: _AttentionReader | None = None
        self._found: AttentionScores | None = None

    @property
    def _frames_done(self) -> int:
        return self._inputs.mel.content_frames if self.done else 0

    @property
    def done(self) -> bool:
        """Whether the scores are there."""
        return self._found is not None

    @property
    def window_frames(self) -> int:
        """How many frames of the window were encoded."""
        return self._window.encoded_frames or N_FRAMES

    def mel(self) -> FloatArray:
        """Return the log-mel (n_mels, window_frames) of the window."""
        return self._inputs.window_mel(self._window.frames, self._window.voices, self.window_frames)

    def _begin(self) -> None:
        window, n_frames = self._slot.window, self._window.n_frames
        self._reader = _AttentionReader(self._backend, window, self._setting, self._tokens, n_frames)
        self._slot.begin(self._reader)

    def _accept(self, answer: Alignment) -> Sequence[JobEvent]:
        self._slot.release()
        assert self._reader is not None
        assert self._reader.scores is not None
        self._found = AttentionScores(
            scores=self._reader.scores,
            n_start=len(self._setting.start) - 1,
            n_columns=self._window.n_frames // self._setting.frames_per_column,
            columns_per_second=self._setting.columns_per_second,
            words=answer.words,
        )
        return ()

    def result(self) -> AttentionScores:
        """Return the scores."""
        assert self._found is not None
        return self._found
