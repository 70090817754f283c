"""`stapes.testing`: its examples run, and its text is the same every time."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import numpy as np
import pytest

import stapes.testing
from stapes.backends.base import Best, Constraint, FloatArray, IdRanges
from stapes.backends.rowwise import RowStep, step_rows
from stapes.checkpoint.base import parameter_shapes
from stapes.testing import (
    LANGUAGE_CODES,
    ScriptedBackend,
    babbling,
    noise,
    random_checkpoint,
    random_engine,
    scripted_engine,
    silence,
    small_vocabulary,
    tiny_spec,
    tone,
)
from stapes.tokenizer import Tokenizer

TOKENIZER = Tokenizer(tiny_spec(), small_vocabulary())


def test_the_example_in_the_docstring_runs() -> None:
    doc = stapes.testing.__doc__ or ""
    examples = re.findall(r"(?m)((?:^    .+\n)+)", doc)
    assert examples
    for example in examples:
        exec(textwrap.dedent(example), {})


def test_a_scripted_engine_says_its_text_in_every_window() -> None:
    engine = scripted_engine(" Hello.")
    assert engine.transcribe(np.concatenate((tone(30.0), tone(20.0, 300.0)))).text == " Hello. Hello."


def test_a_scripted_engine_says_its_texts_in_turn_and_repeats_the_last() -> None:
    engine = scripted_engine([" One.", " Two."])
    result = engine.transcribe(noise(95.0), language="en")
    assert result.text == " One. Two. Two. Two."
    assert [one.start_s for one in result.segments] == [0.0, 30.0, 60.0, 90.0]


def test_a_scripted_engine_takes_a_function_of_sound_and_tokens() -> None:
    asked: list[tuple[int, ...]] = []

    def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
        asked.append(tokens)
        logits = np.full(TOKENIZER.n_vocab, -9.0, np.float32)
        logits[TOKENIZER.special.eot if len(tokens) > 4 else TOKENIZER.encode("a")[0]] = 0.0
        return logits

    result = scripted_engine(script).transcribe(tone(3.0), language="en", without_timestamps=True, temperature=0.0)
    start = TOKENIZER.start_sequence("en", "transcribe")
    assert {tokens[: len(start)] for tokens in asked if len(tokens) >= len(start)} == {start}
    assert result.text == "a"


@pytest.mark.parametrize("vocabulary", ["small", "multilingual", "english"])
def test_a_random_checkpoint_is_whole_and_of_published_precision(vocabulary: str) -> None:
    checkpoint = random_checkpoint(vocabulary)  # type: ignore[arg-type]
    shapes = {name: array.shape for name, array in checkpoint.tensors.items()}
    assert shapes == parameter_shapes(checkpoint.spec)
    assert all(array.dtype == np.float16 for array in checkpoint.tensors.values())
    assert all(np.isfinite(array).all() for array in checkpoint.tensors.values())


def test_a_random_engine_is_deterministic() -> None:
    audio = noise(33.0)
    keywords: dict[str, Any] = {"sample_len": 6, "temperature": (0.0, 0.7), "best_of": 2}
    results = []
    for seed in (1, 1, 2):
        with random_engine(seed=seed) as engine:
            results.append(engine.transcribe(audio, **keywords))
    assert results[0] == results[1]
    assert results[0].windows != results[2].windows


def test_babble_depends_on_seed_sound_and_tokens_alone() -> None:
    script, same = babbling(3, TOKENIZER), babbling(3, TOKENIZER)
    assert np.array_equal(script(7, (1, 2)), same(7, (1, 2)))
    assert np.array_equal(script(7, (1, 2)), script(7, (1, 2)))
    for other in (babbling(4, TOKENIZER)(7, (1, 2)), script(8, (1, 2)), script(7, (1, 3))):
        assert not np.array_equal(script(7, (1, 2)), other)


def test_a_script_may_give_the_same_array_every_time() -> None:
    logits = np.zeros(TOKENIZER.n_vocab, np.float32)
    before = logits.copy()
    backend = ScriptedBackend(tiny_spec(), lambda _sound, _tokens: logits)
    (window,) = backend.encode(np.zeros((1, 80, 3000), np.float32))
    step = RowStep(
        row=backend.open(window), tokens=(1,), choice=Best(), constraint=Constraint(IdRanges((0, 1)), now=((2, 9),))
    )
    assert step_rows(backend, [step])[0].ids == (9,)
    assert np.array_equal(logits, before)


def test_sounds_are_what_they_are_called() -> None:
    assert silence(0.5).tolist() == [0.0] * 8000
    assert (tone(1.0).size, tone(1.0).dtype) == (16000, np.dtype(np.float32))
    assert np.abs(tone(1.0, level=0.25)).max() == pytest.approx(0.25, abs=1e-3)
    assert np.abs(np.fft.rfft(tone(1.0, 440.0))).argmax() == 440
    assert np.array_equal(noise(1.0, seed=3), noise(1.0, seed=3))
    assert not np.array_equal(noise(1.0, seed=3), noise(1.0, seed=4))
    assert noise(5.0, level=0.2).std() == pytest.approx(0.2, rel=0.02)


def test_tiny_models_know_99_languages() -> None:
    assert tuple(TOKENIZER.special.languages) == LANGUAGE_CODES
    assert len(LANGUAGE_CODES) == 99
