"""Weights that are NaN or infinite, as a diverged training or an overflow of float16 leaves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stapes
from stapes.backends.native.library import is_built
from stapes.engine.engine import Engine
from stapes.errors import CheckpointError
from stapes.testing import noise
from tests import writers_of_checkpoints as write
from tests.vocabularies import Vocabulary, put, tensors_of, tokenizer_json

SMALL = Vocabulary()
EMBEDDING = "decoder.token_embedding.weight"
BACKENDS = [
    "numpy",
    pytest.param("native", marks=pytest.mark.skipif(not is_built(), reason="the native library was not built")),
]
WAYS: dict[str, Callable[[Engine], Any]] = {
    "greedy": lambda engine: engine.transcribe(noise(3.0), language="en", sample_len=4),
    "beam": lambda engine: engine.transcribe(noise(3.0), language="en", sample_len=4, beam_size=5),
    "sampled": lambda engine: engine.transcribe(noise(3.0), language="en", sample_len=4, temperature=0.5, best_of=2),
    "chunked": lambda engine: engine.transcribe(noise(3.0), language="en", sample_len=4, mode="chunked"),
    "language": lambda engine: engine.detect_language(noise(3.0)),
}


def model(folder: Path, name: str, rows: slice) -> Path:
    """A model in which some numbers of a tensor are none."""
    tensors = tensors_of(SMALL, SMALL.spec(n_mels=80))
    tensors[name] = np.array(tensors[name])
    tensors[name][rows] = np.nan
    write.write_huggingface(folder, tensors, SMALL.spec(n_mels=80))
    put(folder / "tokenizer.json", tokenizer_json(SMALL.tokens, SMALL.in_tokenizer))
    (folder / "generation_config.json").unlink()
    return folder


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_answers_with_no_numbers_is_refused(tmp_path: Path, backend: str, way: str) -> None:
    """The transcript was empty, or of zero bytes, and the exit code 0."""
    folder = model(tmp_path, EMBEDDING, slice(None))
    with (
        stapes.load(folder, backend=backend) as engine,
        pytest.raises(CheckpointError, match="answers with no numbers"),
    ):
        WAYS[way](engine)


@pytest.mark.parametrize("way", ["greedy", "beam"])
def test_one_that_does_so_in_the_middle_of_a_window_ends(tmp_path: Path, way: str) -> None:
    folder = model(tmp_path, "decoder.positional_embedding", slice(5, None))
    with (
        stapes.load(folder, backend="numpy") as engine,
        pytest.raises(CheckpointError, match="answers with no numbers"),
    ):
        WAYS[way](engine)
