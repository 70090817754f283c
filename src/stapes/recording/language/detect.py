"""The language of a recording, and nothing else of it."""

from __future__ import annotations

from stapes.audio.mel import LogMel
from stapes.audio.pcm import Recording
from stapes.backends.base import Backend, FloatArray
from stapes.options import Speech
from stapes.recording.language.per_window import LanguagePerWindow
from stapes.recording.language.question import LanguageQuestion, candidates_of
from stapes.recording.passes import WindowSlot
from stapes.results import LanguageGuess
from stapes.tokenizer import Tokenizer


class LanguageDetection:
    """Asks for the language of a recording's beginning, 30 s after 30 s, until it is known.

    while (mel := detection.mel()) is not None: detection.ask(mel)
    """

    def __init__(self, recording: Recording, backend: Backend, tokenizer: Tokenizer, speech: Speech) -> None:
        """Take a recording, which stays the caller's. Raises OptionError for languages that the model does not know."""
        self._backend = backend
        self._tokenizer = tokenizer
        self._candidates = candidates_of(tokenizer, speech)
        self._mel = LogMel(recording, backend.spec.n_mels, kernel=backend.log10_mel)
        self._spoken = LanguagePerWindow(speech, content_frames=self._mel.content_frames)
        self._questions = self._spoken.detect_once()
        self._question = next(self._questions, None)

    def mel(self) -> FloatArray | None:
        """Give the log-mel of the window that is to be asked; None once the language is known."""
        if self._question is None:
            return None
        return self._mel.joined(self._question.frames) if self._question.frames else self._mel.opening()

    def ask(self, mel: FloatArray) -> None:
        """Ask the model, whose turn this has to be."""
        hand = WindowSlot[LanguageGuess](self._backend)
        hand.take(*self._backend.encode(mel[None]))
        try:
            hand.begin(LanguageQuestion(self._backend, hand.window, self._tokenizer, self._candidates))
            guess = hand.accept(self._backend.step(hand.steps()))
        finally:
            hand.release()
        assert guess is not None
        try:
            self._question = self._questions.send(guess)
        except StopIteration:
            self._question = None

    @property
    def guess(self) -> LanguageGuess:
        """The language, once it is known."""
        assert self._spoken.guess is not None
        return self._spoken.guess
