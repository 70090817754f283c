"""The faster-whisper face's parts against faster-whisper 1.2.1, which runs in a process of its own.

STAPES_FASTER_WHISPER_PYTHON names an interpreter that has it; its VAD weights are another version than ours, so that
its rule is compared on given probabilities.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stapes.compat.faster_whisper.tokenizer import HfTokenizer
from stapes.testing import tiny_spec
from stapes.tokenizer import Tokenizer
from stapes.tokenizer.vocabulary import shipped_tokens
from tests.audio_files import EVERYDAY, encoded, tone, wav_bytes
from tests.reference import faster_parts
from tests.sample import SAMPLE, spoken
from tests.vocabularies import tokenizer_json

PYTHON = os.environ.get("STAPES_FASTER_WHISPER_PYTHON")
PACKAGE = "stapes.compat.faster_whisper"
pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(not PYTHON, reason="STAPES_FASTER_WHISPER_PYTHON names no interpreter with faster-whisper"),
]
N_CASES = 3000
#: units of int16: without FFmpeg 5.1's rounding inside the resampler, which `stapes.audio` keeps
ROUNDING = 4
Both = tuple[Any, Any]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, Both]:
    """Return what the face and the original give, by name: pairs of plain values and of arrays."""
    folder = tmp_path_factory.mktemp("faster")
    tokenizer = Tokenizer(tiny_spec(n_vocab=51865))
    # As its older files: without timestamps.
    named = sorted(tokenizer.special.names.items())
    stated = {name: one for one, name in named if one < tokenizer.special.timestamp_begin}
    (folder / "tokenizer.json").write_text(json.dumps(hf_json(stated)), encoding="utf-8")
    wanted = {"paths": recordings(folder), "n_cases": N_CASES, "tokenizer": str(folder / "tokenizer.json")}
    files = [str(folder / name) for name in ("in.npz", "in.json", "out.npz", "out.json")]
    np.savez(files[0], samples=spoken())
    Path(files[1]).write_text(json.dumps(wanted), encoding="utf-8")
    subprocess.run([str(PYTHON), faster_parts.__file__, *files], check=True)
    values, arrays = faster_parts.everything(PACKAGE, HfTokenizer(tokenizer, stated), spoken(), wanted)
    theirs = json.loads(Path(files[3]).read_text(encoding="utf-8"))
    with np.load(files[2]) as loaded:
        return {name: (values[name], theirs[name]) for name in theirs} | {"arrays": (arrays, dict(loaded))}


def recordings(folder: Path) -> list[str]:
    """Write recordings of many kinds, and what is none; return their paths."""
    contents = {f"one.{kind}": encoded(kind) for kind in EVERYDAY if kind != "webm"}  # Opus: 69 samples less
    for rate in (8000, 11025, 22050):
        contents[f"{rate}.wav"] = wav_bytes(tone(rate, rate=rate) * 32768, rate=rate)
    contents["two.wav"] = wav_bytes(np.stack([tone(9000), tone(9000, hertz=700)], axis=1) * 32768, n_channels=2)
    contents |= {"text.wav": b"no audio" * 1000, "empty.wav": b""}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [*(str(folder / name) for name in (*contents, "missing.wav", ".")), str(SAMPLE)]


def hf_json(special: dict[str, int]) -> dict[str, Any]:
    """Write the multilingual vocabulary as tokenizer.json, with its merges and the tokens around a text."""
    tokens = shipped_tokens("multilingual")
    ranks = {token: rank for rank, token in enumerate(tokens)}
    content = tokenizer_json(tokens, special)
    spelled = {one: name for name, one in content["model"]["vocab"].items()}
    content["model"]["merges"] = [
        [spelled[ranks[part]] for part in halves(token, ranks)] for token in tokens if len(token) > 1
    ]
    around = ("<|startoftranscript|>", "<|notimestamps|>", "<|endoftext|>")
    named: list[Any] = [{"SpecialToken": {"id": name, "type_id": 0}} for name in around]
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [*named[:2], {"Sequence": {"id": "A", "type_id": 0}}, named[2]],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [special[name]], "tokens": [name]} for name in around},
    }
    return content


def halves(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """Merge a token's bytes, lowest rank first, until two parts are left."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        ranked = [(ranks.get(a + b, len(ranks)), i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
        _, place = min(ranked)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def test_signatures_are_equal(found):
    ours, theirs = found["signatures"]
    for name in ("tokenizer.Encoding", "tokenizer.HfTokenizer"):  # ours alone
        ours = {one: value for one, value in ours.items() if one != name and not one.startswith(f"{name}.")}
    assert theirs.pop("utils.disabled_tqdm")  # made when it is first used
    assert {name: value for name, value in ours.items() if name != "utils.disabled_tqdm"} == theirs


def test_samples_are_equal_but_for_rounding(found):
    ours, theirs = found["arrays"]
    names = [name for name in theirs if not name.startswith("features ")]
    assert len(names) > 30
    for name in names:
        assert ours[name].shape == theirs[name].shape, name
        assert ours[name].dtype == theirs[name].dtype == np.float32
        difference = np.abs(ours[name] - theirs[name]).max() * 32768
        assert difference <= (0 if name == f"{SAMPLE} 16000" else ROUNDING), name


def test_errors_are_of_the_same_type(found):
    ours, theirs = found["errors"]
    assert len(theirs) == 12
    assert ours == theirs


def test_features_are_equal(found):
    ours, theirs = found["arrays"]
    names = [name for name in theirs if name.startswith("features ")]
    assert set(names) <= ours.keys()
    for name in names:
        assert ours[name].shape == theirs[name].shape, name
        assert np.abs(ours[name] - theirs[name]).max() < 1e-4, name


def test_tokens_are_equal(found):
    ours, theirs = found["tokens"]
    assert len(theirs["vocabulary"]) > 50000
    for name, value in theirs.items():
        assert ours[name] == value, name


def test_spans_of_speech_are_equal(found):
    ours, theirs = found["speech"]
    assert len(theirs) > N_CASES
    wrong = [place for place, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]]
    assert not wrong


def test_helpers_are_equal(found):
    ours, theirs = found["helpers"]
    assert ours == theirs
