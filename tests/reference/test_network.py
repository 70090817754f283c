"""The NumPy network against the reference's, float32 on both sides, with the same tiny random weights.

Equal but for the order of float32 sums. Each sum of n products is off by at most about n * 6e-8 of its terms' size; a
few layers carry that on, so 1e-4 of the largest value leaves room and is far below what any mistake would make.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from stapes.audio.mel import N_FRAMES
from stapes.backends.base import FloatArray, WindowId
from stapes.backends.numpy.backend import NumpyBackend
from stapes.backends.numpy.kernels import gelu, layer_norm
from stapes.backends.rowwise import RowStep, step_rows
from stapes.engine.engine import Engine
from stapes.testing import VocabularyName, noise, random_checkpoint, tiny_spec, tone
from tests.reference.both import (
    ENGLISH,
    LARGE_V3,
    MULTILINGUAL,
    our_tokenizer,
    spec_of,
    their_network,
    torch,
    whisper_audio,
    whisper_decoding,
    whisper_model,
)

pytest.importorskip("whisper")
pytestmark = pytest.mark.reference

TOLERANCE = 1e-4  # of the largest value
MODELS = [(ENGLISH, 80, 0), (MULTILINGUAL, 80, 1), (LARGE_V3, 128, 2)]  # n_vocab, n_mels, seed
each_model = pytest.mark.parametrize("model", MODELS, ids=["english", "multilingual", "large-v3"])
ALL_HEADS = tuple((layer, head) for layer in range(2) for head in range(2))


@cache
def both_networks(n_vocab: int, n_mels: int, seed: int) -> tuple[NumpyBackend, Any]:
    name: VocabularyName = "english" if n_vocab == ENGLISH else "multilingual"
    spec = tiny_spec(name, n_mels=n_mels, n_vocab=n_vocab)
    checkpoint = random_checkpoint(name, spec=spec, seed=seed)
    return NumpyBackend(checkpoint, threads=2), their_network(checkpoint)


def random_mel(n_mels: int, seed: int) -> FloatArray:
    """Numbers as a log-mel has them: most between -1 and 1.5."""
    return np.random.default_rng(seed).uniform(-1, 1.5, size=(n_mels, N_FRAMES)).astype(np.float32)


def random_tokens(n_vocab: int, n: int) -> tuple[int, ...]:
    sot = our_tokenizer(n_vocab).special.sot
    return (sot, *np.random.default_rng(n).integers(0, n_vocab, size=n - 1).tolist())


def near(ours: Any, theirs: Any) -> bool:
    theirs = np.asarray(theirs)
    return ours.shape == theirs.shape and float(np.abs(ours - theirs).max()) <= TOLERANCE * float(np.abs(theirs).max())


def their_logits(network: Any, mel: FloatArray, tokens: tuple[int, ...]) -> FloatArray:
    with torch.no_grad():
        logits: FloatArray = network(torch.from_numpy(mel)[None], torch.tensor([tokens]))[0].numpy()
    return logits


def our_logits(backend: NumpyBackend, window: WindowId, parts: list[tuple[int, ...]]) -> FloatArray:
    """Feed a row part by part, and give the logits of all its positions."""
    row = backend.open(window)
    steps = [RowStep(row=row, tokens=part, logits_at=tuple(range(len(part)))) for part in parts]
    logits = [step_rows(backend, [one])[0].logits for one in steps]
    backend.close(row)
    return np.concatenate(logits)  # type: ignore[arg-type]


@each_model
@pytest.mark.parametrize("n_tokens", [1, 2, 40, 448])
def test_logits_are_equal_at_every_position(model, n_tokens):
    backend, network = both_networks(*model)
    mel, tokens = random_mel(model[1], n_tokens), random_tokens(model[0], n_tokens)
    (window,) = backend.encode(mel[None])
    ours = our_logits(backend, window, [tokens])
    backend.release(window)
    assert near(ours, their_logits(network, mel, tokens))


@each_model
@pytest.mark.parametrize("sizes", [[1] * 20, [5, 1, 1, 1, 12], [19, 1]], ids=str)
def test_logits_are_equal_however_a_row_is_fed(model, sizes):
    backend, network = both_networks(*model)
    mel, tokens = random_mel(model[1], 9), random_tokens(model[0], sum(sizes))
    (window,) = backend.encode(mel[None])
    stops = np.cumsum(sizes)
    parts = [tokens[stop - size : stop] for size, stop in zip(sizes, stops, strict=True)]
    ours = our_logits(backend, window, parts)
    backend.release(window)
    assert near(ours, their_logits(network, mel, tokens))


@each_model
def test_their_own_cache_agrees_too(model):
    """The reference decodes step by step over cached keys and values: the same logits again."""
    backend, network = both_networks(*model)
    mel, tokens = random_mel(model[1], 3), random_tokens(model[0], 12)
    (window,) = backend.encode(mel[None])
    inference = whisper_decoding.PyTorchInference(network, 4)
    with torch.no_grad():
        encoded = network.encoder(torch.from_numpy(mel)[None])
        theirs = [inference.logits(torch.tensor([tokens[:stop]]), encoded)[0, -1].numpy() for stop in range(4, 13)]
    inference.cleanup_caching()
    ours = our_logits(backend, window, [tokens[:4], *((one,) for one in tokens[4:])])
    backend.release(window)
    assert near(ours[3:], np.stack(theirs))


@each_model
def test_cross_attention_scores_are_equal_for_every_head(model):
    backend, network = both_networks(*model)
    mel, tokens = random_mel(model[1], 5), random_tokens(model[0], 30)
    kept: dict[int, Any] = {}

    def keeper(layer: int) -> Any:
        return lambda module, inputs, outputs: kept.__setitem__(layer, outputs[-1][0].numpy())

    hooks = [
        block.cross_attn.register_forward_hook(keeper(layer)) for layer, block in enumerate(network.decoder.blocks)
    ]
    with whisper_model.disable_sdpa():
        their_logits(network, mel, tokens)
    for hook in hooks:
        hook.remove()
    theirs = np.stack([kept[layer][head] for layer, head in ALL_HEADS])

    (window,) = backend.encode(mel[None])
    whole = backend.open(window)
    ours = step_rows(backend, [RowStep(row=whole, tokens=tokens, attention=ALL_HEADS)])[0].attention
    backend.close(whole)
    backend.release(window)
    assert ours is not None
    assert near(ours, theirs)


@pytest.mark.parametrize("model", MODELS[1:], ids=["multilingual", "large-v3"])
@pytest.mark.parametrize("seconds", [0.0, 0.5, 12.0, 30.0, 47.0])
def test_languages_are_equally_probable(model, seconds):
    n_vocab, n_mels, seed = model
    spec = tiny_spec("multilingual", n_mels=n_mels, n_vocab=n_vocab)
    checkpoint = random_checkpoint("multilingual", spec=spec, seed=seed)
    audio = tone(seconds, 300.0) + noise(seconds, seed=3)
    mel = whisper_audio.log_mel_spectrogram(audio, n_mels, padding=whisper_audio.N_SAMPLES)
    _, theirs = both_networks(*model)[1].detect_language(whisper_audio.pad_or_trim(mel, N_FRAMES))
    with Engine(checkpoint, NumpyBackend(checkpoint, threads=1)) as engine:
        ours = engine.detect_language(audio)
    assert ours.language == max(theirs, key=theirs.get)
    assert set(ours.probabilities) == set(theirs)
    # Log-probabilities carry the logits' tolerance; relative, it is that of the probabilities.
    for code, probability in ours.probabilities.items():
        assert probability == pytest.approx(theirs[code], rel=20 * TOLERANCE, abs=1e-12)


def test_the_kind_of_the_tiny_specs_is_the_references():
    for n_vocab in (ENGLISH, MULTILINGUAL, LARGE_V3):
        network = whisper_model.Whisper(whisper_model.ModelDimensions(80, 4, 4, 1, 1, n_vocab, 4, 4, 1, 1))
        tokenizer = our_tokenizer(n_vocab)
        assert network.is_multilingual == tokenizer.multilingual
        if tokenizer.multilingual:
            assert network.num_languages == len(tokenizer.special.languages)
        assert spec_of(n_vocab).n_vocab == n_vocab


# Kernels.


def test_gelu_is_the_exact_one():
    """PyTorch's own float32 is up to 3.5e-7 from the exact function and ours up to 2e-7 (of x, where that is above 1):
    together at most 5.5e-7. The tanh form would be off by 5e-4.
    """
    x = np.concatenate([np.linspace(-12, 12, 1_200_001), np.logspace(-8, 3, 20001), -np.logspace(-8, 3, 20001)])
    x = x.astype(np.float32)
    size = np.maximum(1, np.abs(x))
    ours = gelu(x.copy())
    assert np.all(np.abs(ours - torch.nn.functional.gelu(torch.from_numpy(x)).numpy()) <= 5.5e-7 * size)
    exact = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    assert np.all(np.abs(ours - exact) <= 3e-7 * size)


@pytest.mark.parametrize("width", [16, 384, 512, 1280])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-3, 0.0), (50.0, 20.0)])
def test_layer_norm_is_the_same(width, scale, shift):
    random = np.random.default_rng(width)
    x = (random.standard_normal((64, width)) * scale + shift).astype(np.float32)
    weight, bias = random.standard_normal((2, width)).astype(np.float32)
    theirs = torch.nn.functional.layer_norm(
        *map(torch.from_numpy, (x,)), (width,), *map(torch.from_numpy, (weight, bias))
    )
    assert np.abs(layer_norm(x, weight, bias) - theirs.numpy()).max() <= 1e-5
