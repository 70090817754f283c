"""Damaged and hostile files end in one CheckpointError that names the file, before memory is taken for them."""

from __future__ import annotations

import contextlib
import functools
import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.checkpoint.base import parameter_shapes
from stapes.checkpoint.open import looks_like_whisper, open_checkpoint
from stapes.errors import CheckpointError
from tests import writers_of_checkpoints as write
from tests.random_cases import random_cases
from tests.refused_checkpoints import refused

TENSORS = write.random_tensors()
FILES = {
    "huggingface": "model.safetensors",
    "openai": "",
    "ctranslate2": "model.bin",
    "ggml": "",
}  # what to damage: a file of the folder, or the checkpoint itself


@functools.cache
def whole(format: str) -> dict[str, bytes]:
    """An undamaged checkpoint: path below its folder -> content."""
    with tempfile.TemporaryDirectory() as folder:
        write.WRITERS[format](Path(folder) / "model", TENSORS)
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def damaged(folder: Path, format: str, change: Callable[[bytes], bytes]) -> Path:
    """Write a checkpoint whose file of weights was changed; give what to open."""
    for name, content in whole(format).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(change(content) if name == str(Path("model", FILES[format])) else content)
    return folder / "model"


def opens_or_is_refused(path: Path) -> None:
    """Read a checkpoint to the end, or see it refused by name. Any other error fails the test."""
    with ours_names(path):
        checkpoint = open_checkpoint(path)
        assert checkpoint.alignment_heads
        for name, shape in parameter_shapes(checkpoint.spec).items():
            assert checkpoint.tensors[name].shape == shape


@contextlib.contextmanager
def ours_names(path: Path) -> Iterator[None]:
    """Pass over a CheckpointError that names `path`."""
    sentence = str(path)
    with contextlib.suppress(CheckpointError):
        try:
            yield
        except CheckpointError as error:
            sentence = str(error)
            raise
    assert str(path) in sentence


# What is not a checkpoint at all


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\0" * 4096, "not a checkpoint"),
        (b"<!DOCTYPE html><html>Log in</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"GGUF\3\0\0\0", "GGUF"),
        (b"\x80\x04\x95\x0b\0\0\0\0\0\0\0", "pickle"),
        (b"cos\nsystem\n(S'true'\ntR.", "not a checkpoint"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "1.6"),
        (b"PK\x03\x04 and no more", "zip"),
        (b"lmgg", "cut short"),
        (struct.pack("<IH", 6, 12) + b"WhisperSpec\0", "cut short"),
        (struct.pack("<Q", 10) + b'{"a":1}   ', "config.json"),
    ],
)
def test_strangers_are_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_checkpoint(path)
    assert str(tmp_path) in str(caught.value)


def test_folders_without_a_checkpoint_say_what_they_hold(tmp_path: Path) -> None:
    assert "is empty" in refused(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    assert "notes.txt" in refused(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    assert "safe_serialization" in refused(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert "adapter" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "absent")
    assert not looks_like_whisper(tmp_path)


def test_a_device_is_not_opened() -> None:
    refused(Path("/dev/zero"), "no such file")


# Any damage: never another error than ours


@pytest.mark.parametrize("format", FILES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_truncated_files_are_refused(
    tmp_path_factory: pytest.TempPathFactory, format: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")

    def cut(whole: bytes) -> bytes:
        size = data.draw(st.one_of(st.integers(0, len(whole) - 1), st.integers(0, 400)))
        return whole[:size]

    with pytest.raises(CheckpointError):
        open_checkpoint(damaged(folder, format, cut))


@pytest.mark.parametrize("format", FILES)
@random_cases(50, 1000, derandomize=True)
@given(data=st.data())
def test_flipped_bytes_raise_nothing_but_our_error(
    tmp_path_factory: pytest.TempPathFactory, format: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("flip")

    def flip(whole: bytes) -> bytes:
        found = bytearray(whole)
        places = st.one_of(st.integers(0, 600), st.integers(0, len(whole) - 1), st.integers(-3000, -1))
        for place in data.draw(st.lists(places, min_size=1, max_size=4)):
            found[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, found[place] ^ 1, found[place] ^ 0x20]))
        return bytes(found)

    opens_or_is_refused(damaged(folder, format, flip))


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer.json"])
@random_cases(20, 400, derandomize=True)
@given(data=st.data())
def test_flipped_configurations_raise_nothing_but_our_error(
    tmp_path_factory: pytest.TempPathFactory, file: str, data: st.DataObject
) -> None:
    folder = write.write_huggingface(tmp_path_factory.mktemp("flip"), TENSORS)
    found = bytearray((folder / file).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(found) - 1), min_size=1, max_size=3)):
        found[place] = data.draw(st.sampled_from(b'0-9.e"[]{}n:,\xff\x00'))
    (folder / file).write_bytes(bytes(found))
    opens_or_is_refused(folder)


# Forged sizes


def test_forged_counts_take_no_memory(tmp_path: Path) -> None:
    huge = struct.pack("<I", 0xFFFFFFFF)
    count = 4 + 14 + 4  # after version, name and revision of a CTranslate2 file: the number of tensors
    refused(damaged(tmp_path / "f", "ctranslate2", lambda b: b[:count] + huge + b[count + 4 :]), "claims")
    start = 4 + 10 * 4 + 4  # of the mel filters' shape
    refused(damaged(tmp_path / "a", "ggml", lambda b: b[:start] + huge * 2 + b[start + 8 :]), "mel filters")
    refused(damaged(tmp_path / "b", "ggml", lambda b: b[:4] + huge + b[8:]), "n_vocab")
    after = start + 8 + 4 * 3 * 4
    refused(damaged(tmp_path / "c", "ggml", lambda b: b[:after] + huge + b[after + 4 :]), "tokens")
    refused(damaged(tmp_path / "d", "ggml", lambda b: b[: after + 4] + huge + b[after + 8 :]), "token 0")
    long = struct.pack("<Q", 1 << 40)
    with pytest.raises(CheckpointError, match="limit"):
        open_checkpoint(damaged(tmp_path / "e", "huggingface", lambda b: long + b[8:]))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"dtype": "F16", "shape": [2], "data_offsets": [0, 1 << 50]}, "bytes"),
        ({"dtype": "F16", "shape": [1 << 50], "data_offsets": [0, 1 << 51]}, "cut short"),
        ({"dtype": "F16", "shape": [2], "data_offsets": [4, 0]}, "offsets"),
        ({"dtype": "F16", "shape": [-2], "data_offsets": [0, 4]}, "shape"),
        ({"dtype": "F16", "shape": [2.0], "data_offsets": [0, 4]}, "shape"),
        ({"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}, "I64"),
        ({"dtype": "F16", "shape": [2]}, "data_offsets"),
        ({"dtype": "F16", "shape": [2], "data_offsets": [4, 8]}, "gap"),
        ({"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}, "names 4 bytes"),
        ([], "data_offsets"),
    ],
)
def test_forged_safetensors_headers_are_refused(tmp_path: Path, entry: object, said: str) -> None:
    text = json.dumps({"a": entry}).encode()
    content = struct.pack("<Q", len(text)) + text + bytes(16)
    path = damaged(tmp_path, "huggingface", lambda _: content)
    refused(path, said)


def test_overlapping_and_repeated_tensors_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}
    text = json.dumps({"a": entry, "b": {**entry, "data_offsets": [2, 6]}}).encode()
    refused(damaged(tmp_path, "huggingface", lambda _: struct.pack("<Q", len(text)) + text + bytes(6)), "overlaps")
    text = b'{"a": 1, "a": 2}'
    refused(damaged(tmp_path, "huggingface", lambda _: struct.pack("<Q", len(text)) + text), "twice")


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "x.bin", 3])
def test_an_index_cannot_name_files_elsewhere(tmp_path: Path, name: object) -> None:
    folder = write.write_huggingface(tmp_path, TENSORS, shards=2)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    refused(folder, "shard")


def test_deep_json_is_refused(tmp_path: Path) -> None:
    folder = write.write_huggingface(tmp_path, TENSORS)
    (folder / "config.json").write_text("[" * 100_000)
    refused(folder, "JSON")
