"""The language of a recording, without a transcription."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from stapes.options import Speech
from stapes.recording.base import TaskInputs
from stapes.recording.language.per_window import LanguagePerWindow
from stapes.recording.language.question import LanguageQuestion, candidates_of
from stapes.recording.passes import run_pass
from stapes.results import LanguageGuess


def detect_language(
    inputs: TaskInputs, speech: Speech, turn: Callable[[], AbstractContextManager[None]]
) -> LanguageGuess:
    """Detect the language of a recording's beginning, 30 s after 30 s, until one is probable enough.

    turn: is entered for each use of the model.
    Raises OptionError for languages that the model does not know.
    """
    backend, tokenizer, mel = inputs.backend, inputs.tokenizer, inputs.mel
    candidates = candidates_of(tokenizer, speech)
    spoken = LanguagePerWindow(speech, content_frames=mel.content_frames)
    questions = spoken.detect_once()
    asked = next(questions, None)
    while asked is not None:
        asked_mel = mel.joined(asked.frames) if asked.frames else mel.opening()
        with turn():
            guess, _ = run_pass(backend, asked_mel, lambda one: LanguageQuestion(backend, one, tokenizer, candidates))
        try:
            asked = questions.send(guess)
        except StopIteration:
            break
    assert spoken.guess is not None
    return spoken.guess
