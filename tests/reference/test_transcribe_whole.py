"""From samples to segments: the whole of stapes against the whole of the reference, over tiny random weights.

No word of it makes sense, but every part is the real one. Tokens and times must be equal; scores to 1e-4.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from stapes.backends.base import FloatArray
from stapes.backends.numpy.backend import NumpyBackend
from stapes.checkpoint.base import Checkpoint
from stapes.engine.engine import Engine
from stapes.testing import VocabularyName, noise, random_checkpoint, tiny_spec, tone
from tests.reference.both import (
    ENGLISH,
    LARGE_V3,
    MULTILINGUAL,
    their_network,
    torch,
    whisper_audio,
    whisper_decoding,
    whisper_transcribe,
)

pytest.importorskip("whisper")
pytestmark = [
    pytest.mark.reference,
    # The reference hands a tensor to np.argsort.
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

SCORES = ("avg_logprob", "no_speech_prob")
SCORE_TOLERANCE = 1e-4  # sums of log-probabilities over logits that differ in their sixth digit


@cache
def both_models(n_vocab: int, n_mels: int, seed: int) -> tuple[Engine, Any]:
    checkpoint = talkative(n_vocab, n_mels, seed)
    return Engine(checkpoint, NumpyBackend(checkpoint, threads=2)), their_network(checkpoint)


def talkative(n_vocab: int, n_mels: int, seed: int) -> Checkpoint:
    name: VocabularyName = "english" if n_vocab == ENGLISH else "multilingual"
    spec = tiny_spec(name, n_mels=n_mels, n_vocab=n_vocab)
    return random_checkpoint(name, spec=spec, seed=seed)


@cache
def sound(seconds: float) -> FloatArray:
    """Noise and tones in turn."""
    parts = [tone(0.7, 200.0 + 90 * i) if i % 2 else noise(1.3, seed=i) for i in range(int(seconds) + 1)]
    return np.concatenate(parts)[: round(seconds * 16000)]


def compare(model: tuple[int, int, int], seconds: float, **keywords: Any) -> dict[str, Any]:
    engine, network = both_models(*model)
    keywords = {"temperature": 0.0, **keywords}
    theirs = whisper_transcribe.transcribe(network, sound(seconds).copy(), fp16=False, **keywords)
    ours = engine.transcribe(sound(seconds), mode="reference", **keywords).to_dict()
    assert len(theirs["segments"]) == len(ours["segments"])
    for one, other in zip(ours["segments"], theirs["segments"], strict=True):
        for name in SCORES:
            assert one.pop(name) == pytest.approx(other.pop(name), rel=SCORE_TOLERANCE, abs=SCORE_TOLERANCE)
    assert ours == theirs
    return ours


M, E, V3 = (MULTILINGUAL, 80, 0), (ENGLISH, 80, 1), (LARGE_V3, 128, 2)

OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"sample_len": 60},
    "beam": {"beam_size": 3, "sample_len": 16},
    "patient beam": {"beam_size": 2, "patience": 2.0, "length_penalty": 0.6, "sample_len": 16},
    "prompt": {"initial_prompt": "Glossary: stapes, incus, malleus.", "language": "en", "sample_len": 40},
    "carried prompt": {"initial_prompt": "Ada, Bob.", "carry_initial_prompt": True, "sample_len": 40},
    "long prompt": {"initial_prompt": "one two three " * 100, "language": "en", "sample_len": 40},
    "prefix": {"prefix": "So", "sample_len": 40},
    "clips": {"clip_timestamps": "3.3,17.25,20,21.5,40", "sample_len": 40},
    "without timestamps": {"without_timestamps": True, "sample_len": 40},
    "unconditioned": {"condition_on_previous_text": False, "sample_len": 40},
    "nothing suppressed": {"suppress_tokens": "", "suppress_blank": False, "length_penalty": 1.0, "sample_len": 40},
    "any first timestamp": {"max_initial_timestamp": None, "sample_len": 40},
    "translated": {"task": "translate", "language": "German", "sample_len": 40},
}
# English-only models ignore a language and a task, as the reference does, but we say so.
ignored = pytest.mark.filterwarnings("ignore:.*(knows English only).*:stapes.errors.StapesWarning")


@ignored
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("model", [M, E, V3], ids=["multilingual", "english", "large-v3"])
def test_transcripts_are_equal_with_any_options(model, name):
    assert compare(model, 52.4, **OPTIONS[name])["segments"]


def test_transcripts_are_equal_at_full_length():
    assert compare(M, 24.0)["segments"]


@pytest.mark.parametrize("seconds", [0.0, 0.004, 0.02, 0.5, 29.99, 30.0, 30.01, 70.0])
@pytest.mark.parametrize("model", [M, V3], ids=["multilingual", "large-v3"])
def test_transcripts_are_equal_for_any_length(model, seconds):
    compare(model, seconds, sample_len=24)


@pytest.mark.parametrize("seed", range(3, 15))
def test_transcripts_are_equal_with_other_weights(seed):
    compare((MULTILINGUAL, 80, seed), 33.0 + seed, sample_len=60, max_initial_timestamp=None)


WINDOWS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beam": {"beam_size": 3, "sample_len": 16},
    "prompt and prefix": {"prompt": [50, 60, 70] * 90, "prefix": [11, 12, 13], "language": "en"},
    "short, with a long prefix": {"prefix": list(range(100, 300)), "sample_len": 40, "language": "en"},
    "without timestamps": {"without_timestamps": True, "language": "en"},
    "nothing suppressed": {"suppress_tokens": "", "suppress_blank": False},
    "any first timestamp": {"max_initial_timestamp": None, "length_penalty": 0.5},
}


@ignored
@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("model", [M, E, V3], ids=["multilingual", "english", "large-v3"])
def test_a_window_alone_is_that_of_decode(model, name):
    engine, network = both_models(*model)
    options = {"sample_len": 40, **WINDOWS[name]}
    if model == E:
        options["language"] = "en"  # it would not decode without
    samples = [sound(30.0), sound(7.3), sound(41.0)]
    padded = [whisper_audio.pad_or_trim(one.copy()) for one in samples]
    mels = torch.stack([whisper_audio.log_mel_spectrogram(one, n_mels=model[1]) for one in padded])
    asked = whisper_decoding.DecodingOptions(fp16=False, **options)
    theirs = [whisper_decoding.decode(network, mel, asked) for mel in mels]  # its batches cannot have beams
    for ours in (engine.decode_windows(mels, **options), engine.decode_windows(samples, **options)):
        for one, other in zip(ours, theirs, strict=True):
            assert (one.result.tokens, one.result.text) == (tuple(other.tokens), other.text)
            assert one.language == other.language
            assert one.result.avg_logprob == pytest.approx(other.avg_logprob, rel=SCORE_TOLERANCE)
            assert one.result.no_speech_prob == pytest.approx(other.no_speech_prob, abs=SCORE_TOLERANCE)


@pytest.mark.parametrize("model", [M, V3], ids=["multilingual", "large-v3"])
def test_the_language_of_a_window_alone_is_theirs(model):
    engine, network = both_models(*model)
    mel = whisper_audio.log_mel_spectrogram(whisper_audio.pad_or_trim(sound(7.3).copy()), n_mels=model[1])
    _, shares = whisper_decoding.detect_language(network, mel)
    found = engine.detect_window_language(mel)
    assert found.language == max(shares, key=shares.get)
    assert found.probabilities == pytest.approx(shares, abs=SCORE_TOLERANCE)
