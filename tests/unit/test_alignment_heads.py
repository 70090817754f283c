"""Alignment heads that a model does not have: word times come from the later half of the layers, with a warning."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stapes.backends.numpy.backend import NumpyBackend
from stapes.checkpoint import heads
from stapes.checkpoint.open import open_checkpoint
from stapes.engine.engine import Engine
from stapes.errors import CheckpointError, StapesWarning
from stapes.results import Transcript
from stapes.testing import random_checkpoint
from tests import writers_of_checkpoints as write

LATER_HALF = ((1, 0), (1, 1))  # of two layers with two heads, in both tiny models used here
TEACHERS = [[3, 1], [4, 2], [5, 6]]
STATING = {"huggingface": "generation_config.json", "ctranslate2": "config.json"}


def stating(folder: Path, format: str, stated: object) -> Path:
    """Write a model of two decoder layers whose configuration states these heads."""
    path = write.WRITERS[format](folder / "student", write.random_tensors())
    (path / STATING[format]).write_text(json.dumps({"alignment_heads": stated}))
    return path


@pytest.mark.parametrize("format", STATING)
@pytest.mark.parametrize("stated", [TEACHERS, [[0, 1], [2, 0]], [[0, 2]], [[-1, 0]], [[1, -1]], [[10**30, 0]]])
def test_stated_heads_of_another_model_give_the_later_half(tmp_path: Path, format: str, stated: object) -> None:
    path = stating(tmp_path, format, stated)
    checkpoint = open_checkpoint(path)
    with pytest.warns(StapesWarning, match="alignment heads are another model's") as caught:
        assert checkpoint.alignment_heads == LATER_HALF
    assert str(path) in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoint.alignment_heads == LATER_HALF  # said once


@pytest.mark.parametrize("format", ["openai", "ggml"])
def test_a_known_fingerprint_over_fewer_layers_gives_the_later_half(
    tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = open_checkpoint(write.WRITERS[format](tmp_path / "student", write.random_tensors()))
    monkeypatch.setattr(heads, "FINGERPRINTS", {checkpoint.fingerprint: "base"})
    with pytest.warns(StapesWarning, match="decoder with 2 layers of 2 heads"):
        assert checkpoint.alignment_heads == LATER_HALF


@pytest.mark.parametrize("format", STATING)
def test_heads_that_the_model_has_are_taken_once_each_without_a_warning(tmp_path: Path, format: str) -> None:
    path = stating(tmp_path, format, [[0, 1], [1, 0]] * 50_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_checkpoint(path).alignment_heads == ((0, 1), (1, 0))


@pytest.mark.parametrize("stated", [[[1]], [["1", "0"]], [[0.5, 1]], {"a": 1}, "heads", [[True, False]]])
def test_heads_that_are_no_pairs_are_refused(tmp_path: Path, stated: object) -> None:
    with pytest.raises(CheckpointError, match="expected pairs of layer and head"):
        open_checkpoint(stating(tmp_path, "huggingface", stated))


def test_a_model_of_one_layer_has_a_later_half() -> None:
    spec = replace(write.TINY, n_text_layer=1)
    model = replace(random_checkpoint(), spec=spec, stated_alignment_heads=((1, 0),))
    with pytest.warns(StapesWarning, match="1 layer"):
        assert model.alignment_heads == ((0, 0), (0, 1))


@pytest.mark.parametrize(
    "times",
    [
        lambda engine, sound: engine.transcribe(sound, word_timestamps=True, language="en", temperature=0.0),
        lambda engine, sound: engine.align(sound, "some words that are known", language="en"),
    ],
    ids=["transcribe", "align"],
)
def test_word_times_work_and_a_warning_says_so(times: Callable[[Engine, np.ndarray], Transcript]) -> None:
    student = replace(random_checkpoint(), stated_alignment_heads=tuple((layer, head) for layer, head in TEACHERS))
    plain = replace(student, stated_alignment_heads=LATER_HALF)
    sound = np.random.default_rng(0).normal(scale=0.1, size=32_000).astype(np.float32)
    warned = pytest.warns(StapesWarning, match="alignment heads are another model's")
    with warned, Engine(student, NumpyBackend(student, threads=1)) as engine:
        found = times(engine, sound)
    with Engine(plain, NumpyBackend(plain, threads=1)) as engine:
        expected = times(engine, sound)
    assert found == expected
    assert any(segment.words for segment in found.segments)
