"""A `.pt` is read as data: its pickle runs nothing, and its archive can neither unfold nor overlap."""

from __future__ import annotations

import ast
import contextlib
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stapes.checkpoint
from stapes.checkpoint.sniff import open_checkpoint
from stapes.checkpoint.torch_pickle import read_pickle
from stapes.errors import CheckpointError
from tests import writers_of_checkpoints as write
from tests.refused_checkpoints import refused

TENSORS = write.random_tensors()


# Pickles


def openai_file(folder: Path, value: object, storages: list[bytes] | None = None) -> Path:
    if storages is None:
        storages = [tensor.tobytes() for tensor in TENSORS.values()]
    return write.write_archive(folder / "model.pt", write.pickled(value), storages)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("torch.storage", "_load_from_bytes"),
        ("torch", "load"),
        ("canary", "x"),
    ],
)
def test_a_hostile_global_is_named_and_never_imported(tmp_path: Path, module: str, name: str, monkeypatch) -> None:
    (tmp_path / "canary.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    call = write.Call(write.Global(module, name), ("true",))
    sentence = refused(openai_file(tmp_path, {**write.openai_value(TENSORS), "extra": call}), "global")
    assert f"{module}.{name}" in sentence
    assert "canary" not in sys.modules


def test_nothing_here_can_unpickle() -> None:
    for path in Path(stapes.checkpoint.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module if isinstance(node, ast.ImportFrom) else None
            assert not {"pickle", "_pickle", "marshal", "shelve", "torch"} & {*names, module}, path


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b".",
        b"\x80\x02(.",
        b"\x80\x02K\x01K\x02.",
        b"\x80\x09N.",
        b"\x80\x02h\x05.",
        b"\x80\x02j\xff\xff\xff\xff.",
        b"\x80\x02X\xff\xff\xff\xffabc.",
        b"\x80\x02\x8a\xff\x01.",
        b"\x80\x02c" + b"a" * 5000,
        b"\x80\x02}K\x01K\x02s.",  # a key that is not a string
        b"\x80\x02)}b.",
        b"\x80\x02NNR.",
        b"\x80\x02NQ.",
        b"\x80\x02(NNNNNtQ.",
        b"\x80\x02(q\x00.",
        b"\x80\x02S'text'\n.",
        b"\x80\x02C\x02ab.",
        b"\x80\x02i__main__\nx\n.",
        b"\x80\x02\x82\x01.",  # EXT1: a class from the registry of extensions
        b"\x80\x02]N\x81.",
    ],
)
def test_other_instructions_are_refused(program: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        read_pickle(program, "model.pt")


def test_a_pickle_bomb_is_harmless() -> None:
    doubled = b"\x80\x02)" + b"q\x00h\x00\x86" * 5000 + b"q\x01"
    assert isinstance(read_pickle(doubled + b".", "model.pt"), tuple)  # 2 ** 5000 leaves, shared: small in memory
    for ending in (b"}h\x01Ns.", b"h\x01Q.", b"h\x01)R."):  # as a key it would have to be hashed
        with pytest.raises(CheckpointError):
            read_pickle(doubled + ending, "model.pt")


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_random_pickles_raise_nothing_but_our_error(program: bytes) -> None:
    with contextlib.suppress(CheckpointError):
        read_pickle(b"\x80\x02" + program + b".", "model.pt")


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (write.torch_tensor(0, (32, 4, 3), count=1 << 30), "storage"),
        (write.torch_tensor(99999, (32, 4, 3)), "no bytes"),
        (write.torch_tensor(0, (32, 4, 3), offset=1), "beyond"),
        (write.torch_tensor(0, (32, 4, 3), offset=-1), "offset"),
        (write.torch_tensor(0, (32, 4, 3), strides=(1 << 20, 1, 1)), "beyond"),
        (write.torch_tensor(0, (32, 4, 3), strides=(-1, 1, 1)), "strides"),
        (write.torch_tensor(0, (32, 4, 3), strides=(1,)), "strides"),
        (write.torch_tensor(0, (1 << 30, 4, 3), count=384, strides=(0, 0, 0)), "shape"),
        (write.torch_tensor(0, (0, 4, 3), count=384), "empty"),
        (write.torch_tensor(0, (32, 4, 3), kind="Long", count=384), "missing"),
    ],
)
def test_forged_tensors_are_refused(tmp_path: Path, tensor: object, said: str) -> None:
    value = write.openai_value(TENSORS)
    value["model_state_dict"]["encoder.conv1.weight"] = tensor
    refused(openai_file(tmp_path, value), said)


def test_transposed_and_shared_storages_are_read(tmp_path: Path) -> None:
    value, storages = write.openai_value(TENSORS), [tensor.tobytes() for tensor in TENSORS.values()]
    name = "encoder.blocks.0.mlp.0.weight"
    key = list(TENSORS).index(name)
    storages[key] = bytes(6) + TENSORS[name].T.tobytes()
    value["model_state_dict"][name] = write.torch_tensor(key, (128, 32), count=128 * 32 + 3, offset=3, strides=(1, 128))
    read = open_checkpoint(openai_file(tmp_path, value, storages)).tensors[name]
    np.testing.assert_array_equal(read, TENSORS[name])
    assert read.flags.c_contiguous


def test_a_state_dict_with_metadata_is_read(tmp_path: Path) -> None:
    """module.state_dict() is an OrderedDict with an attribute, which pickle sets by BUILD."""
    value = write.openai_value(TENSORS)
    items = b"".join(write._instructions(k) + write._instructions(v) for k, v in value["model_state_dict"].items())
    metadata = write._instructions({"_metadata": write.EMPTY})
    state = write.Raw(write._instructions(write.EMPTY) + b"(" + items + b"u" + metadata + b"b")
    checkpoint = open_checkpoint(openai_file(tmp_path, {**value, "model_state_dict": state}))
    np.testing.assert_array_equal(checkpoint.tensors["decoder.ln.bias"], TENSORS["decoder.ln.bias"])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "dims"),
        (3, "dims"),
        ({"dims": 3, "model_state_dict": {}}, "not a dict"),
        ({"dims": {}, "model_state_dict": {}}, "n_mels"),
        (
            {**write.openai_value(TENSORS), "dims": {**write.openai_value(TENSORS)["dims"], "n_vocab": -1}},
            "n_vocab",
        ),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, value: object, said: str) -> None:
    refused(openai_file(tmp_path, value), said)


# Zip archives


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    """A zip bomb has to be compressed."""
    path = write.write_archive(tmp_path / "model.pt", write.pickled({}), [bytes(1 << 20)], zipfile.ZIP_DEFLATED)
    refused(path, "compressed")


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    path = write.write_openai(tmp_path / "model.pt", TENSORS)
    content = bytearray(path.read_bytes())
    entries = [at for at in range(len(content)) if content[at : at + 4] == b"PK\x01\x02"]
    content[entries[3] + 42 : entries[3] + 46] = content[entries[2] + 42 : entries[2] + 46]  # where it begins
    path.write_bytes(bytes(content))
    refused(path, "overlaps|lie where")


def test_other_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(path, "readme")
    for extra, said in (("constants.pkl", "TorchScript"), ("other", "without data.pkl")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"model/{'data.pkl' if 'constants' in extra else 'x'}", b"\x80\x02N.")
            archive.writestr(f"model/{extra}", b"")
        refused(path, said)
