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

    def mel(self) -> FloatArray | None:
        """Give the log-mel of the window that is to be asked; None once the language is known."""
        if self._spoken.guess is not None:
            return None
        question = self._spoken.question_of_all()
        if question is None or question.n_frames is None:
            return self._mel.opening()
        return self._mel.window(question.seek, question.n_frames)

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
        self._spoken.accept(guess)

    @property
    def guess(self) -> LanguageGuess:
        """The language, once it is known."""
        assert self._spoken.guess is not None
        return self._spoken.guess
