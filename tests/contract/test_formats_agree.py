"""One model in four formats gives identical tensors: real weights, from the installed packages."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

import stapes
from stapes.checkpoint.base import Checkpoint
from stapes.checkpoint.formats.tokens import read_vocabulary
from stapes.checkpoint.open import open_checkpoint
from stapes.checkpoint.sources.find import find_checkpoint, installed_models
from stapes.errors import CheckpointError
from stapes.tokenizer import Tokenizer
from stapes.tokenizer.vocabulary import shipped_tokens
from tests import writers_of_checkpoints as write
from tests.random_cases import slowly
from tests.sample import SAMPLE
from tests.vocabularies import Vocabulary, put, write_tokenizer

pytestmark = pytest.mark.weights
MODELS = {"base": ((3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6)), "tiny.en": None}


@pytest.fixture(scope="module", params=MODELS)
def packaged(request: pytest.FixtureRequest) -> Checkpoint:
    found = find_checkpoint(request.param, download=False)
    found.verify()
    return found


@pytest.mark.parametrize("format", write.WRITERS)
def test_one_model_in_every_format_gives_identical_tensors(packaged: Checkpoint, format: str, tmp_path: Path) -> None:
    written = write.WRITERS[format](tmp_path / "model", packaged.tensors, packaged.spec)
    try:
        read = open_checkpoint(written)
        assert (read.format, read.spec, read.storage) == (format, packaged.spec, "float16")
        assert read.fingerprint == packaged.fingerprint
        for name, tensor in packaged.tensors.items():
            assert np.array_equal(read.tensors[name], tensor), name
        if format in ("openai", "ggml"):  # these state no heads: the weights are known
            assert read.stated_alignment_heads is None
            assert read.alignment_heads == packaged.stated_alignment_heads
    finally:
        for path in [written] if written.is_file() else written.iterdir():
            path.unlink()  # pytest would keep gigabytes


def test_the_packages_state_heads_and_the_shipped_vocabulary(packaged: Checkpoint) -> None:
    multilingual = packaged.name == "base"
    assert packaged.path is not None
    stated = read_vocabulary(packaged.path)
    assert stated is not None
    assert len(stated.tokens) == 50257 - (not multilingual)
    assert stated.special["<|startoftranscript|>"] == 50258 - (not multilingual)
    assert packaged.vocabulary is None
    own, shipped = Tokenizer(packaged.spec, stated), Tokenizer(packaged.spec, packaged.vocabulary)
    assert (own.special, own.multilingual) == (shipped.special, shipped.multilingual)
    n_vocab = packaged.spec.n_vocab
    assert all(own.decode_with_timestamps([one]) == shipped.decode_with_timestamps([one]) for one in range(n_vocab))
    assert stated.tokens == shipped_tokens("multilingual" if multilingual else "english")
    if heads := MODELS[packaged.name]:
        assert packaged.alignment_heads == heads


def test_q8_0_of_real_weights_lies_within_half_a_step(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    code = gguf.GGMLQuantizationType.Q8_0
    packaged = find_checkpoint("tiny.en", download=False)
    path = tmp_path / "model.bin"
    path.write_bytes(
        write.ggml_bytes(packaged.tensors, packaged.spec, "q8_0", lambda rows: gguf.quants.quantize(rows, code))
    )
    read = open_checkpoint(path)
    assert read.alignment_heads == packaged.alignment_heads
    name = "decoder.blocks.3.mlp.2.weight"
    blocks = packaged.tensors[name].astype(np.float32).reshape(-1, 32)
    # Half a step of max/127, and what rounding the step to float16 (11 bits) adds over 127 steps.
    bound = np.abs(blocks).max(axis=1, keepdims=True) * (0.5 / 127 + 2.0**-11)
    assert (np.abs(read.tensors[name].reshape(-1, 32) - blocks) <= bound).all()
    path.unlink()


def test_installed_packages_are_listed() -> None:
    found = {model.name: model for model in installed_models() if model.source == "package"}
    assert found.keys() >= MODELS.keys()
    assert found["base"].size_bytes == 145_217_532


def test_a_package_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def update(self, _: object) -> None: ...
        def hexdigest(self) -> str:
            return "0" * 64

    monkeypatch.setattr(hashlib, "sha256", Other)
    with pytest.raises(CheckpointError, match="--force-reinstall"):
        stapes.load("tiny.en", download=False)


@pytest.mark.parametrize("tokenizer", ["tokenizer.json", *slowly(None)])
def test_a_fine_tuned_base_with_a_token_added_says_what_base_says(tmp_path: Path, tokenizer: str | None) -> None:
    """It has the size of large-v3: counted back from that, every id would be off by one."""
    packaged, vocabulary = find_checkpoint("base", download=False), Vocabulary(tokens=shipped_tokens("multilingual"))
    added = dataclasses.replace(vocabulary, added=("concord",))
    tensors, embedding = dict(packaged.tensors), "decoder.token_embedding.weight"
    tensors[embedding] = np.concatenate([tensors[embedding], 3 * tensors[embedding][464:465]])
    spec = dataclasses.replace(packaged.spec, n_vocab=added.n_vocab)
    assert spec.n_vocab == 51866
    folder = write.write_huggingface(tmp_path / "model", tensors, spec)
    (folder / "tokenizer.json").unlink()
    put(folder / "generation_config.json", added.generation_config())
    write_tokenizer(folder, added, tokenizer)
    try:
        with stapes.load("base", precision="float32") as engine:
            expected = engine.transcribe(SAMPLE, beam_size=5)
        with stapes.load(folder, precision="float32") as engine:
            found = engine.transcribe(SAMPLE, beam_size=5)
    finally:
        (folder / "model.safetensors").unlink()
    assert found.language == expected.language == "en"
    assert [one.result.tokens for one in found.windows] == [one.result.tokens for one in expected.windows]
    assert [(one.start_s, one.end_s, one.text) for one in found.segments] == [
        (one.start_s, one.end_s, one.text) for one in expected.segments
    ]
