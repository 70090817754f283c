"""The language of a recording, without a transcription."""

from __future__ import annotations

from collections.abc import Sequence

from stapes.backends.base import FloatArray
from stapes.options import Speech
from stapes.recording.base import TaskInputs, WindowCost, WindowStream
from stapes.recording.events import JobEvent
from stapes.recording.language.per_window import LanguagePerWindow
from stapes.recording.language.question import LanguageQuestion, candidates_of
from stapes.results import LanguageGuess


class LanguageTask(WindowStream):
    """Detects the language of a recording's beginning, 30 s after 30 s, until one is probable enough."""

    def __init__(self, inputs: TaskInputs, speech: Speech) -> None:
        """Raises OptionError for languages that the model does not know."""
        super().__init__(inputs, WindowCost(rows=1))
        self._candidates = candidates_of(self._tokenizer, speech)
        self._spoken = LanguagePerWindow(speech, content_frames=inputs.mel.content_frames, is_exact=inputs.is_exact)
        self._questions = self._spoken.detect_once()
        self._asked = next(self._questions, None)

    @property
    def _frames_done(self) -> int:
        content_frames = self._inputs.mel.content_frames
        return content_frames if self._asked is None else min(self._asked.seek, content_frames)

    @property
    def done(self) -> bool:
        """Whether the language is known."""
        return self._asked is None

    def mel(self) -> FloatArray:
        """Return the log-mel (n_mels, 3000) of the next 30 s."""
        assert self._asked is not None
        return self._inputs.mel.joined(self._asked.frames) if self._asked.frames else self._inputs.mel.opening()

    def _begin(self) -> None:
        self._slot.begin(LanguageQuestion(self._backend, self._slot.window, self._tokenizer, self._candidates))

    def _accept(self, answer: LanguageGuess) -> Sequence[JobEvent]:
        self._slot.release()
        try:
            self._asked = self._questions.send(answer)
        except StopIteration:
            self._asked = None
        return ()

    def result(self) -> LanguageGuess:
        """Return the guess."""
        assert self._spoken.guess is not None
        return self._spoken.guess
