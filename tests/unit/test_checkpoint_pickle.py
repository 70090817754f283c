"""A `.pt` is read as data: its pickle runs nothing, and its archive can neither expand nor overlap."""

from __future__ import annotations

import ast
import contextlib
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stapes.checkpoint
from stapes.checkpoint.formats.torch_pickle import read_pickle
from stapes.checkpoint.open import open_checkpoint
from stapes.errors import CheckpointError
from tests import writers_of_checkpoints as write
from tests.random_cases import random_cases
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
        b"\x80\x02}]K\x02s.",  # a list as a key
        b"\x80\x02}(K\x01u.",
        b"\x80\x02)K\x01a.",
        b"\x80\x02G\x00\x00.",
        b"\x80\x02K\x05)R.",
        b"\x80\x02ctorch\nSize\n]R.",
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


FRAGMENTS = st.sampled_from(
    [b"(", b")", b"]", b"}", b"N", b"\x88", b"K\x01", b"q\x00", b"h\x00", b"\x8a\x01\x05", b"G" + bytes(8), b"\x8f",
     b"t", b"\x85", b"\x86", b"a", b"e", b"s", b"u", b"R", b"b", b"Q", b"\x81", b"X\x01\x00\x00\x00a", b"U\x01a",
     b"X\x07\x00\x00\x00storage", b"ctorch\nHalfStorage\n", b"ctorch\nSize\n", b"ccollections\nOrderedDict\n",
     b"ctorch._utils\n_rebuild_tensor\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
     b"ctorch._tensor\n_rebuild_from_type_v2\n", b"ctorch.nn.parameter\nParameter\n"]
)  # fmt: skip


@random_cases(400, 20_000, derandomize=True)
@given(st.lists(FRAGMENTS, max_size=40))
def test_random_instructions_raise_nothing_but_our_error(fragments: list[bytes]) -> None:
    with contextlib.suppress(CheckpointError):
        read_pickle(b"\x80\x02" + b"".join(fragments) + b".", "model.pt")


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
        (write.torch_tensor(0, (32, 4, 3), kind="Long", count=384), "stored as int64"),
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


def built(function: write.Global, *arguments: object, instruction: bytes = b"R") -> write.Raw:
    """What a pickle says of an object: a call, or NEWOBJ."""
    return write.Raw(write._instructions(function) + write._instructions(arguments) + instruction)


def in_torch(path: str) -> write.Global:
    module, _, name = path.rpartition(".")
    return write.Global(module, name)


STORAGE = write.Reference(("storage", in_torch("torch.storage.UntypedStorage"), "9999", "cpu", 8))
LIKE_ADAM = {
    "state": {0: {"step": 1.5, "exp_avg": write.torch_tensor(0, (3,), kind="Double", count=12), "seen": None}},
    "param_groups": [{"lr": 1e-5, "betas": (0.9, 0.999), "params": [0, 1, 2], "foreach": None, "fused": False}],
}
#: What training programs put beside the weights, and torch.load(weights_only=True) of torch 2.13 takes.
BESIDE = {
    "a float": 0.125,
    "a list": [1, [2.5, []], "x", None],
    "an optimiser": LIKE_ADAM,
    "keys of all kinds": {0: 1, -1.5: 2, True: 3, None: 4, ("a", (1, 2)): 5},
    "a large integer": write.Raw(b"\x8a\xff" + b"\x01" * 255),
    "a name of a file": write.Raw(b"X\x03\x00\x00\x00\xed\xb2\x80"),  # a lone surrogate
    "text of Python 2": write.Raw(b"U\x02ab"),
    "a dtype": in_torch("torch.bfloat16"),
    "a new dtype": in_torch("torch.float8_e4m3fn"),
    "a size": built(in_torch("torch.Size"), (3, 4)),
    "a device": built(in_torch("torch.device"), "cuda", 0),
    "a layout": built(in_torch("torch.serialization._get_layout"), "torch.strided"),
    "bytes": built(in_torch("_codecs.encode"), "\xff", "latin1"),
    "a bytearray": built(in_torch("__builtin__.bytearray"), "\xff", "latin-1"),
    "a set": built(in_torch("__builtin__.set"), [1, 2]),
    "an empty set": write.Raw(b"\x8f"),
    "a complex number": built(in_torch("__builtin__.complex"), 1.0, 2.0),
    "a counter": built(in_torch("collections.Counter"), {"a": 2}),
    "a storage": STORAGE,
    "a quantised tensor": built(in_torch("torch._utils._rebuild_qtensor"), STORAGE, 0, (8,), (1,)),
    "a sparse tensor": built(in_torch("torch._utils._rebuild_sparse_tensor"), 1, (2, 3)),
    "a tensor of a new dtype": built(in_torch("torch._utils._rebuild_tensor_v3"), STORAGE, 0, (8,), (1,)),
    "a parameter by class": built(in_torch("torch.nn.parameter.Parameter"), None, instruction=b"\x81"),
}


@pytest.mark.parametrize("value", BESIDE.values(), ids=BESIDE.keys())
def test_whatever_torch_takes_may_stand_beside_the_weights(tmp_path: Path, value: object) -> None:
    whole = write.openai_value(TENSORS)
    beside = {"first": value, **whole, "last": [value, {"in": (value,)}]}
    for place, put in enumerate((beside, {**whole, "model_state_dict": {**whole["model_state_dict"], "more": value}})):
        path = tmp_path / str(place)
        path.mkdir()
        read = open_checkpoint(openai_file(path, put)).tensors
        assert all(np.array_equal(read[name], tensor) for name, tensor in TENSORS.items())


PARAMETERS = {
    "a parameter": lambda tensor: built(in_torch("torch._utils._rebuild_parameter"), tensor, True, write.EMPTY),
    "with state": lambda tensor: built(
        in_torch("torch._utils._rebuild_parameter_with_state"), tensor, True, write.EMPTY, {"tag": 1}
    ),
    "by class": lambda tensor: built(in_torch("torch.nn.parameter.Parameter"), tensor, True, instruction=b"\x81"),
    "with attributes": lambda tensor: built(
        in_torch("torch._tensor._rebuild_from_type_v2"), write.REBUILD, in_torch("torch.Tensor"), tensor.arguments, {}
    ),
    "in an old file": lambda tensor: built(in_torch("torch._utils._rebuild_tensor"), *tensor.arguments[:4]),
    "of a graphics card": lambda tensor: write.torch_tensor(
        int(tensor.arguments[0].content[2]), tensor.arguments[2], storage="torch.cuda.HalfStorage"
    ),
}


@pytest.mark.parametrize("wrap", PARAMETERS.values(), ids=PARAMETERS.keys())
def test_weights_are_read_however_torch_writes_them(tmp_path: Path, wrap: Callable[[write.Call], object]) -> None:
    value = write.openai_value(TENSORS)
    value["model_state_dict"] = {name: wrap(tensor) for name, tensor in value["model_state_dict"].items()}
    read = open_checkpoint(openai_file(tmp_path, value)).tensors
    assert all(np.array_equal(read[name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize("value", [BESIDE["a quantised tensor"], BESIDE["a sparse tensor"]])
def test_weights_that_are_no_plain_tensor_are_refused_by_name(tmp_path: Path, value: object) -> None:
    whole = write.openai_value(TENSORS)
    whole["model_state_dict"]["decoder.ln.bias"] = value
    assert "_rebuild_" in refused(openai_file(tmp_path, whole), r"decoder\.ln\.bias is stored as torch\._utils")


def test_a_size_that_nests_tuples_is_refused_at_once(tmp_path: Path) -> None:
    doubled = write.Raw(b")" + b"q\x00h\x00\x86" * 5000)  # its spelling has 2 ** 5000 parts
    whole = write.openai_value(TENSORS)
    refused(openai_file(tmp_path, {**whole, "dims": {**whole["dims"], "n_mels": doubled}}), "n_mels is tuple")


def test_a_long_key_that_repeats_takes_no_time() -> None:
    wide = b"\x80\x02(" + b"N" * 200_000 + b"tq\x00}" + b"h\x00Ns" * 200_000 + b"."
    with pytest.raises(CheckpointError, match="key"):
        read_pickle(wide, "model.pt")


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
