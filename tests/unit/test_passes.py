"""Forced passes over one window: one answer each, and rows and window are released at any moment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stapes
from stapes.audio.pcm import recording_of_array
from stapes.backends.batch import StepBuilder, StepLoad, step_one
from stapes.engine.engine import Engine
from stapes.options import TranscribeOptions
from stapes.recording.language.question import LanguageQuestion
from stapes.recording.passes import WindowSlot
from stapes.results import LanguageGuess
from stapes.testing import ScriptedBackend, noise, random_checkpoint, reciting, small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer

TOKENIZER = Tokenizer(tiny_spec(), small_vocabulary())
CODES = ("en", "de", "fr")
WORDS: dict[str, Any] = {"language": "en", "word_timestamps": True, "temperature": 0.0}


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


# Questions of the engine's own: jobs like any other.


def engine_and_backend() -> tuple[Engine, ScriptedBackend]:
    checkpoint = random_checkpoint()
    backend = ScriptedBackend(tiny_spec(), reciting(TOKENIZER, [" Hello."]))
    return Engine(checkpoint, backend), backend


def test_a_language_and_an_attention_are_jobs_and_hold_nothing_afterwards() -> None:
    engine, backend = engine_and_backend()
    recording = recording_of_array("noise", noise(5.0))
    found = engine.submit_recording(recording.shared(), TranscribeOptions.from_keywords(WORDS)).result()
    batches = []
    run = engine._run
    engine._run = lambda batch: (batches.append(batch), run(batch))  # type: ignore[assignment, method-assign, func-returns-value]
    assert engine.detect_language(noise(5.0)).language == "en"
    scores = engine.read_attention(recording, found.windows[0], language="en")
    assert scores.words == found.windows[0].result.timings
    assert len(batches) == 4  # a window and a step for each
    assert recording.read(0, 10).size == 10  # it stays the caller's
    assert backend.n_open == 0
    assert engine.status().running == engine.status().queued == 0


@pytest.mark.parametrize("fails", ["encode", "open", "step"])
def test_a_question_that_fails_holds_nothing_and_leaves_the_recording(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, backend = engine_and_backend()
    recording = recording_of_array("noise", noise(5.0))
    found = engine.submit_recording(recording.shared(), TranscribeOptions.from_keywords(WORDS)).result()

    def fail(*_: object) -> None:
        raise RuntimeError("the backend failed")

    monkeypatch.setattr(backend, fails, fail)
    for call in (
        lambda: engine.detect_language(noise(5.0)),
        lambda: engine.read_attention(recording, found.windows[0], language="en"),
    ):
        with pytest.raises(RuntimeError, match="the backend failed"):
            call()
    assert recording.read(0, 10).size == 10
    assert backend.n_open == 0


def test_a_question_in_a_callback_is_answered() -> None:
    engine, _ = engine_and_backend()
    found: list[str] = []
    engine.transcribe(
        noise(40.0), language="en", on_progress=lambda _: found.append(engine.detect_language(noise(5.0)).language)
    )
    assert found == ["en", "en"]


def test_nothing_calls_a_backend_past_the_scheduler() -> None:
    calls = re.compile(r"backend\.(encode|step)\(")
    source = Path(stapes.__file__).parent
    places = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if "backends" not in path.parts and calls.search(path.read_text("utf-8"))
    }
    assert places == {"engine/scheduler.py"}
