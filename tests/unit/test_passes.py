"""Forced passes over one window: one answer each, and rows and window are released at any moment."""

from __future__ import annotations

import numpy as np
import pytest

from stapes.backends.batch import StepBuilder, StepLoad, step_one
from stapes.recording.language.question import LanguageQuestion
from stapes.recording.passes import WindowSlot, run_pass
from stapes.results import LanguageGuess
from stapes.testing import ScriptedBackend, reciting, small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer

TOKENIZER = Tokenizer(tiny_spec(), small_vocabulary())
CODES = ("en", "de", "fr")


def hand_and_backend() -> tuple[WindowSlot[LanguageGuess], ScriptedBackend]:
    """Hold a window over which nothing is asked yet."""
    backend = ScriptedBackend(tiny_spec(), reciting(TOKENIZER, ["Hello."]))
    hand = WindowSlot[LanguageGuess](backend)
    assert not hand.is_there
    hand.take(*backend.encode(np.zeros((1, 80, 3000), np.float32)))
    return hand, backend


def test_a_question_is_answered_once_and_the_window_stays() -> None:
    hand, backend = hand_and_backend()
    for _ in range(2):  # another one over the same window
        hand.begin(LanguageQuestion(backend, hand.window, TOKENIZER, CODES))
        guess = hand.accept(step_one(backend, hand))
        assert guess is not None
        assert (guess.language, set(guess.probabilities)) == ("en", set(CODES))
        assert hand.load() == StepLoad()
        assert (hand.is_there, backend.n_open) == (True, 1)
    hand.release()
    assert (hand.is_there, backend.n_open) == (False, 0)


@pytest.mark.parametrize("n_releases", [1, 2])
def test_rows_and_window_are_given_back_in_the_middle(n_releases: int) -> None:
    hand, backend = hand_and_backend()
    hand.begin(LanguageQuestion(backend, hand.window, TOKENIZER, CODES))
    assert backend.n_open == 2
    for _ in range(n_releases):
        hand.release()
    assert (hand.is_there, hand.load().rows, backend.n_open) == (False, 0, 0)


def test_a_question_about_a_part_is_asked_of_that_part() -> None:
    hand, backend = hand_and_backend()
    hand.begin(LanguageQuestion(backend, hand.window, TOKENIZER, CODES, (640, 1000)))
    step = StepBuilder()
    hand.add_to(step)
    extras = step.build().extras[0]
    assert extras.within == (320, 500)
    hand.release()


def test_a_pass_alone_gives_its_result_and_the_backend_s_and_holds_nothing() -> None:
    _, backend = hand_and_backend()
    n_open = backend.n_open
    mel = np.zeros((80, 3000), np.float32)
    guess, read = run_pass(backend, mel, lambda window: LanguageQuestion(backend, window, TOKENIZER, CODES))
    assert guess.language == "en"
    assert len(read.probes) == 1
    assert backend.n_open == n_open


@pytest.mark.parametrize("fails", ["open", "step"])
def test_a_pass_alone_that_fails_holds_nothing(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, backend = hand_and_backend()
    n_open = backend.n_open

    def fail(*_: object) -> None:
        raise RuntimeError("the backend failed")

    monkeypatch.setattr(backend, fails, fail)
    mel = np.zeros((80, 3000), np.float32)
    with pytest.raises(RuntimeError, match="the backend failed"):
        run_pass(backend, mel, lambda window: LanguageQuestion(backend, window, TOKENIZER, CODES))
    assert backend.n_open == n_open
