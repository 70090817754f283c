"""One window alone: `Engine.decode_windows`, `decode_window` and `detect_window_language`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stapes.audio.mel import LogMel, window_mel
from stapes.audio.pcm import recording_of_array
from stapes.backends.numerics import log10_mel
from stapes.engine.engine import Engine
from stapes.errors import AudioError, BackendError, OptionError, StapesWarning
from stapes.testing import (
    ScriptedBackend,
    babbling,
    noise,
    random_engine,
    scripted_engine,
    small_vocabulary,
    tiny_spec,
    tone,
)
from stapes.tokenizer import Tokenizer

SPEC = tiny_spec()
TOKENIZER = Tokenizer(SPEC, small_vocabulary())
SEARCHES: list[dict[str, Any]] = [{}, {"beam_size": 3}, {"temperature": 0.6, "best_of": 2, "seed": 5}]


def mel_of(duration_s: float, hertz: float = 440.0) -> Any:
    recording = recording_of_array("tone", tone(duration_s, hertz))
    return LogMel(recording, SPEC.n_mels, kernel=log10_mel).window(0, int(duration_s * 100))


@pytest.mark.parametrize("search", SEARCHES, ids=["greedy", "beams", "samples"])
def test_a_window_alone_is_the_window_of_a_recording(search: dict[str, Any]) -> None:
    with scripted_engine(babbling(3, TOKENIZER)) as engine:
        whole = engine.transcribe(
            tone(25.0), language="en", mode="reference", **{"temperature": 0.0, **search}, no_speech_threshold=None,
            compression_ratio_threshold=None, logprob_threshold=None,
        )  # fmt: skip
        alone = engine.decode_window(mel_of(25.0), language="en", **search)
    expected = whole.windows[0].result
    assert (alone.result.tokens, alone.result.avg_logprob) == (expected.tokens, expected.avg_logprob)
    assert (alone.result.text, alone.result.no_speech_prob) == (expected.text, expected.no_speech_prob)
    assert (alone.language, alone.language_guess) == ("en", None)


@pytest.mark.parametrize("search", SEARCHES, ids=["greedy", "beams", "samples"])
def test_a_batch_is_each_window_alone(search: dict[str, Any]) -> None:
    mels = [mel_of(20.0, 300 + 50 * i) for i in range(5)]
    with scripted_engine(babbling(4, TOKENIZER)) as engine:
        together = engine.decode_windows(mels, **search)
        assert engine.decode_windows(np.stack(mels), **search) == together
        assert [engine.decode_window(mel, **search) for mel in mels] == together
        assert len({one.result.tokens for one in together}) > 1
        assert engine._backend.handles.n_windows == 0  # type: ignore[attr-defined]


def test_the_language_is_detected_where_it_is_not_given() -> None:
    with random_engine() as engine:
        mel = mel_of(8.0)
        found = engine.decode_window(mel, sample_len=5)
        assert found.language_guess is not None
        assert found.language == found.language_guess.language
        assert engine.detect_window_language(mel) == found.language_guess
        few = engine.detect_window_language(mel, languages="de,fr")
        assert set(few.probabilities) == {"de", "fr"}
        assert found == engine.decode_window(mel, sample_len=5, temperature=(0.0))


class Watching(ScriptedBackend):
    """Keeps the first tokens of the rows."""

    def step(self, batch: Any) -> Any:
        self.first = getattr(self, "first", batch.tokens.tolist())
        return super().step(batch)


@pytest.mark.parametrize("n_prompt", [0, 3, 300])
def test_prompt_and_prefix_are_ids(n_prompt: int) -> None:
    with scripted_engine() as engine:
        backend = Watching(SPEC, babbling(1, TOKENIZER))
        other = Engine(engine._checkpoint, backend)
        prompt = list(range(n_prompt))
        found = other.decode_window(mel_of(5.0), language="en", prompt=prompt, prefix=[7, 8], without_timestamps=True)
    special = TOKENIZER.special
    before = [special.sot_prev, *prompt[-223:]] if prompt else []
    start = [*TOKENIZER.start_sequence("en", "transcribe"), *TOKENIZER.without_timestamps]
    assert backend.first == [*before, *start, 7, 8]
    assert found.result.tries[0].refused is None


def test_token_logprobs_and_rules_are_taken() -> None:
    with scripted_engine(babbling(1, TOKENIZER)) as engine:
        found = engine.decode_window(mel_of(5.0), language="en", token_logprobs=True, sample_len=9)
    assert found.result.token_logprobs is not None
    assert len(found.result.token_logprobs) == len(found.result.tokens) <= 9


def test_sound_is_taken_as_well() -> None:
    with scripted_engine(babbling(2, TOKENIZER)) as engine:
        samples = noise(30.0)
        mel = window_mel(samples, SPEC.n_mels, log10_mel)
        assert engine.decode_window(samples, language="en") == engine.decode_window(mel, language="en")
        long = engine.decode_window(np.concatenate((samples, tone(5.0))), language="en")
        assert long == engine.decode_window(mel, language="en")
        with pytest.raises(AudioError):
            engine.decode_window(b"not a sound")


def test_a_short_window_has_the_log_mel_of_a_recording() -> None:
    samples = noise(4.0)
    recording = LogMel(recording_of_array("noise", samples), 80, kernel=log10_mel)
    np.testing.assert_array_equal(window_mel(samples, 80, log10_mel), recording.opening())


@pytest.mark.parametrize(
    ("window", "keywords", "message"),
    [
        (np.zeros((80, 2999), np.float32), {}, r"\(80, 3000\)"),
        (np.zeros((128, 3000), np.float32), {}, r"\(80, 3000\)"),
        (np.full((80, 3000), np.nan, np.float32), {}, "NaN"),
        (None, {"temperature": (0.0, 0.2)}, "temperature"),
        (None, {"clip_timestamps": "1,2"}, "clip_timestamps"),
        (None, {"prompt": "text"}, "prompt must be ids"),
        (None, {"prefix": [1.5]}, "prefix must be ids"),
        (None, {"prompt": [10**6]}, "prompt must be ids"),
        (None, {"prefix": [1] * 500, "prompt": [1] * 300}, "fit"),
        (None, {"language": "xx"}, "xx"),
    ],
)
def test_what_cannot_be_is_refused(window: Any, keywords: dict[str, Any], message: str) -> None:
    with scripted_engine() as engine:
        mel = np.zeros((80, 3000), np.float32) if window is None else window
        with pytest.raises(OptionError, match=message):
            engine.decode_window(mel, **{"language": "en", **keywords})
        assert engine.status().running == engine.status().queued == 0


def test_a_batch_is_a_list_or_one_array() -> None:
    with scripted_engine() as engine:
        assert engine.decode_windows([]) == []
        for wrong in (np.zeros((80, 3000), np.float32), "talk.mp3", None):
            with pytest.raises(OptionError, match="windows must be a list"):
                engine.decode_windows(wrong)  # type: ignore[arg-type]


class OnTheGpu:
    """A tensor that NumPy cannot read."""

    shape, ndim = (80, 3000), 2

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize(
    "window", [OnTheGpu(), np.full((80, 3000), "a"), np.zeros((80, 3000), np.complex64)], ids=["gpu", "text", "complex"]
)
def test_what_is_no_array_of_numbers_is_an_option_error(window: Any) -> None:
    with scripted_engine() as engine, pytest.raises(OptionError, match="cannot become an array"):
        engine.decode_window(window)


def test_a_language_that_has_no_effect_is_warned_of_and_a_closed_engine_refuses() -> None:
    with random_engine("english") as engine, pytest.warns(StapesWarning, match="English only"):
        engine.decode_window(mel_of(3.0), language="de", sample_len=3)
    with pytest.raises(BackendError, match="closed"):
        engine.decode_windows([])


@pytest.mark.parametrize("value", [1e30, -1e30, np.nan, np.inf], ids=str)
def test_a_log_mel_that_would_overflow_is_an_option_error(value: float) -> None:
    mel = np.zeros((80, 3000), np.float32)
    mel[7, 5] = value
    with scripted_engine() as engine, pytest.raises(OptionError, match="NaN, infinity, or numbers beyond"):
        engine.decode_window(mel)


@pytest.mark.parametrize("prompt", [{1, 2}, {1: 2}, "12", b"12"])
def test_a_prompt_that_has_no_order_or_is_no_list_is_an_option_error(prompt: Any) -> None:
    with scripted_engine() as engine, pytest.raises(OptionError, match="prompt must be ids of tokens"):
        engine.decode_window(mel_of(1.0), prompt=prompt)
