"""Files and folders that are no checkpoint: named for what they are, with what to do."""

from __future__ import annotations

import gzip
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stapes.checkpoint.formats.unsupported import describe_names
from stapes.checkpoint.open import open_checkpoint
from stapes.checkpoint.sources.find import find_checkpoint
from stapes.errors import CheckpointError
from tests import writers_of_checkpoints as write
from tests.refused_checkpoints import refused

TENSORS = write.random_tensors()
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 290403936\n"
WEB_PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"


def same_weights(path: Path) -> bool:
    tensors = open_checkpoint(path).tensors
    return all(np.array_equal(tensors[name], tensor) for name, tensor in TENSORS.items())


# Files


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (POINTER, "Git LFS pointer.*git lfs pull"),
        (b"/annex/objects/SHA256E-s290403936--1f\n", "git annex get"),
        (WEB_PAGE, "web page"),
        (gzip.compress(b"x" * 1000, mtime=0), "gzip; unpack"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "zstd; unpack"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(600), "7-Zip"),
        (bytes(257) + b"ustar\x0000" + bytes(600), "NeMo"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "TensorFlow"),
        (b"\x1c\0\0\0TFL3" + bytes(600), "TensorFlow Lite"),
        (b"\x93NUMPY\x01\0" + bytes(600), "NumPy"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.6.0" + bytes(600), "ONNX"),
        (b'<?xml version="1.0"?>\n<net name="whisper" version="11">', "OpenVINO"),
        (b"GGUF\3\0\0\0", "GGUF"),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(600), "recording"),
        (b"ID3\x04" + bytes(600), "recording"),
        (b"\0\0\0\x20ftypM4A " + bytes(600), "recording"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X" + bytes(600), "without ._"),
    ],
)
def test_files_of_others_are_named(tmp_path: Path, content: bytes, said: str) -> None:
    for name in ("model.pt", "model.bin", "model.safetensors"):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, f"(?s){said}")


def test_an_archive_of_arrays_is_named(tmp_path: Path) -> None:
    for name in ("weights.npz", "model.pt"):
        with (tmp_path / name).open("wb") as file:
            np.savez(file, weight=np.zeros(3, np.float16))
        assert "MLX" in refused(tmp_path / name, "NumPy")


def test_other_archives_and_dicts_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "folder.zip", "w") as archive:
        archive.writestr("config.json", "{}")
    refused(tmp_path / "folder.zip", "config.json.*unpack it")
    state = write.openai_value(TENSORS)["model_state_dict"]
    path = write.write_archive(tmp_path / "pytorch_model.bin", write.pickled(state), [])
    refused(path, "encoder.conv1.weight.*pytorch_model.bin")
    path = write.write_archive(tmp_path / "last.ckpt", write.pickled({"epoch": 3, "state_dict": state}), [])
    refused(path, "'epoch', 'state_dict'.*training state")


def test_a_configuration_is_not_its_model(tmp_path: Path) -> None:
    folder = write.write_huggingface(tmp_path, TENSORS, shards=2)
    for name in ("config.json", "model.safetensors.index.json"):
        refused(folder / name, "give the folder")


# Folders: pointers


@pytest.mark.parametrize("content", [POINTER, WEB_PAGE], ids=["pointer", "web page"])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "generation_config.json", "tokenizer.json"],
)  # fmt: skip
def test_pointers_and_pages_inside_a_folder_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    folder = write.write_huggingface(tmp_path, TENSORS)
    (folder / name).write_bytes(content)
    said = "Git LFS pointer" if content is POINTER else "web page"
    assert name in refused(folder, said)


def test_pointers_among_shards_and_in_other_formats_are_named(tmp_path: Path) -> None:
    folder = write.write_huggingface(tmp_path / "shards", TENSORS, shards=3)
    (folder / "model-00002-of-00003.safetensors").write_bytes(POINTER)
    assert "00002" in refused(folder, "Git LFS pointer")
    (folder / "model.safetensors.index.json").write_bytes(POINTER)
    refused(folder, "index.json: is a Git LFS pointer")
    folder = write.write_ctranslate2(tmp_path / "ct2", TENSORS)
    (folder / "config.json").write_bytes(POINTER)
    refused(folder, "config.json: is a Git LFS pointer")
    (folder / "model.bin").write_bytes(POINTER)
    refused(folder, "holds model.bin, which is a Git LFS pointer")


@pytest.mark.parametrize("config", [None, {}, {"model_type": "whisper"}, {"model_type": "whisper", "d_model": 512}])
def test_a_pointer_is_what_is_wrong_whatever_the_configuration(tmp_path: Path, config: object) -> None:
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    refused(tmp_path, "Git LFS pointer")


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    folder = write.write_huggingface(tmp_path, TENSORS)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/0123abcd")
    refused(folder, "blobs/0123abcd.*cp -rL")


# Folders: other programs' formats


def test_mlx_is_named_in_all_its_layouts(tmp_path: Path) -> None:
    sizes = {"n_mels": 80, "n_audio_state": 512, "n_vocab": 51865, "model_type": "whisper"}
    weights = write.safetensors_bytes({"encoder.conv1.weight": np.zeros((8, 3, 4), np.float16)})
    for name in ("weights.npz", "weights.safetensors", "model.safetensors"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(sizes))
        (folder / name).write_bytes(weights)
        refused(folder, "MLX.*openai/whisper")
    with pytest.raises(CheckpointError, match=r"config\.json: belongs to weights of MLX"):
        open_checkpoint(tmp_path / "weights.safetensors" / "weights.safetensors")
    (tmp_path / "model.safetensors" / "model.safetensors").write_bytes(b"not even weights")
    with pytest.raises(CheckpointError, match="weights of MLX"):
        open_checkpoint(tmp_path / "model.safetensors")
    folder = write.write_huggingface(tmp_path / "metadata", TENSORS)
    text = json.dumps({"__metadata__": {"format": "mlx"}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    refused(folder, "MLX")


@pytest.mark.parametrize("names", ["transformers", "OpenAI"])
def test_mlx_is_named_beside_a_configuration_of_transformers(tmp_path: Path, names: str) -> None:
    folder = write.write_huggingface(tmp_path, TENSORS)
    turned = {name: tensor.swapaxes(1, 2) if tensor.ndim == 3 else tensor for name, tensor in TENSORS.items()}
    named = {write.huggingface_name(name) if names == "transformers" else name: turned[name] for name in turned}
    (folder / "model.safetensors").write_bytes(write.safetensors_bytes(named))
    refused(folder, "MLX, which orders a convolution")


def test_tensors_under_openais_names_are_named(tmp_path: Path) -> None:
    folder = write.write_huggingface(tmp_path, TENSORS)
    (folder / "model.safetensors").write_bytes(write.safetensors_bytes(TENSORS))
    refused(folder, "names of OpenAI's .pt; save the model as a .pt")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["encoder_model.onnx", "decoder_model_merged.onnx", "config.json"], "ONNX"),
        (["onnx/encoder_model.onnx", "config.json"], "ONNX"),
        (["openvino_encoder_model.xml", "openvino_encoder_model.bin"], "OpenVINO"),
        (["ggml-base-encoder.mlmodelc/weights.bin"], "Core ML"),
        (["AudioEncoder.mlmodelc/x", "TextDecoder.mlmodelc/x"], "Core ML"),
        (["whisper-base.gguf"], "GGUF"),
        (["whisper.tflite"], "TensorFlow Lite"),
        (["tf_model.h5", "config.json"], "TensorFlow"),
        (["flax_model.msgpack", "config.json"], "Flax"),
        (["parakeet.nemo"], "NeMo"),
        (["encoder.engine"], "TensorRT"),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json", "config.json"], "safe_serialization"),
        (["pytorch_model.bin", "optimizer.pt", "config.json"], "safe_serialization"),
        (["adapter_model.safetensors", "adapter_config.json"], "merge_and_unload"),
        (["last.ckpt"], "training program"),
        (["base.pt", "small.pt"], "base.pt and 1 more.*give its path"),
        (["ggml-base.bin"], "ggml-base.bin.*give its path"),
        (["models--openai--whisper-base/x", "version.txt"], "hub's cache.*openai/whisper-base"),
        (["model.fp32-00001-of-00002.safetensors", "model.safetensors.index.fp32.json"], "rename the index"),
        (["notes.txt"], "it holds notes.txt"),
        ([".DS_Store", "._base.pt"], "it holds .DS_Store"),
    ],
)
def test_folders_of_others_are_named(tmp_path: Path, names: list[str], said: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    refused(tmp_path, said)


def test_a_variant_is_named_and_read_by_its_path(tmp_path: Path) -> None:
    folder = write.write_huggingface(tmp_path, TENSORS)
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    refused(folder, "holds model.fp16.safetensors: .*give the path of that file")
    assert same_weights(folder / "model.fp16.safetensors")


def test_a_ggml_file_called_model_bin_is_read_by_its_path(tmp_path: Path) -> None:
    path = write.write_ggml(tmp_path / "model.bin", TENSORS)
    refused(tmp_path, "give its path")
    assert same_weights(path)


def test_names_that_tell_nothing_are_not_described() -> None:
    assert describe_names(["README.md", "config.json", ".gitattributes"]) is None


# The hub's cache


def cached(folder: Path, *commits: str) -> Path:
    """A model's folder in the hub's cache, with these snapshots."""
    for commit in commits:
        write.write_huggingface(folder / "snapshots" / commit, TENSORS)
    for name in ("refs", "blobs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


def test_a_folder_of_the_hubs_cache_is_read_through_its_snapshot(tmp_path: Path) -> None:
    folder = cached(tmp_path / "models--openai--whisper-base", "a" * 40)
    assert same_weights(folder)
    cached(folder, "b" * 40)
    refused(folder, "2 snapshots")
    (folder / "refs" / "main").write_text("b" * 40 + "\n")
    assert open_checkpoint(folder).path == folder / "snapshots" / ("b" * 40)
    (folder / "refs" / "main").write_text("../../../etc")
    refused(folder, "2 snapshots")


def test_a_folder_of_the_hubs_cache_without_a_snapshot_says_how_to_fetch_it(tmp_path: Path) -> None:
    folder = cached(tmp_path / "models--openai--whisper-base")
    for _ in range(3):
        refused(folder, "without a downloaded model.*stapes models pull openai/whisper-base")
        (folder / "snapshots" / ("a" * 40)).mkdir(parents=True, exist_ok=True)
        (folder / "snapshots" / ("a" * 40) / "config.json").write_text("{}")
        (folder / "refs" / "main").write_text("a" * 40)


def test_a_folder_of_the_hubs_cache_is_a_path_before_it_is_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = cached(tmp_path / "models--openai--whisper-base", "a" * 40)
    path = find_checkpoint(folder.name, download=False).path
    assert path is not None
    assert path.name == "a" * 40


def test_a_model_copied_under_a_cache_folders_name_is_read(tmp_path: Path) -> None:
    assert same_weights(write.write_huggingface(tmp_path / "models--me--mine", TENSORS))


def test_names_that_are_no_text_are_read_and_refused(tmp_path: Path) -> None:
    folder = cached(tmp_path / "models--me--mine", "a" * 40)
    (folder / "refs" / "main").write_bytes(b"\xff\xfe")
    (folder / "snapshots" / os.fsdecode(b"\xff\xfe")).mkdir()
    refused(folder, "without a downloaded model")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / os.fsdecode(b"\xff.onnx")).write_bytes(b"")
    refused(tmp_path / "other", "ONNX")


def test_snapshots_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    folder = tmp_path / "models--me--mine"
    (folder / "snapshots").mkdir(parents=True)
    (folder / "snapshots" / "again").symlink_to(folder)
    refused(folder, "without a downloaded model")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model.", "whisper."])
def test_weights_of_a_wrapped_model_are_named(tmp_path: Path, prefix: str) -> None:
    """torch.compile, DataParallel and PEFT put something before every name."""
    write.write_huggingface(tmp_path / "hf", TENSORS)
    named = {prefix + write.huggingface_name(name): tensor for name, tensor in TENSORS.items()}
    (tmp_path / "hf" / "model.safetensors").write_bytes(write.safetensors_bytes(named))
    said = refused(tmp_path / "hf")
    assert f"is missing, and the file has '{prefix}model." in said
    assert "without what stands before its names" in said
    path = write.write_openai(tmp_path / "m.pt", {prefix + name: tensor for name, tensor in TENSORS.items()})
    assert f"is missing, and the file has '{prefix}" in refused(path)


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json", "added_tokens.json"])
def test_what_is_no_file_beside_the_weights_is_not_passed_over(tmp_path: Path, kind: str, name: str) -> None:
    """What it would have stated would be guessed."""
    write.write_huggingface(tmp_path, TENSORS)
    path = tmp_path / name
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to("gone")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    said = refused(tmp_path)
    assert said.startswith(f"{path}: ")
    assert ("a link leads to 'gone', which is not there" if kind == "link" else "a folder, a pipe or a device") in said


def test_a_vocabulary_of_another_kind_is_named(tmp_path: Path) -> None:
    write.write_huggingface(tmp_path, TENSORS)
    found = json.loads((tmp_path / "tokenizer.json").read_text())
    found["model"]["type"] = "WordPiece"
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    assert "type 'WordPiece'; stapes reads BPE" in refused(tmp_path)
