"""Tells a checkpoint's format from its content, and opens it. A file's suffix is never believed."""

from __future__ import annotations

from pathlib import Path

from stapes.checkpoint.base import Checkpoint
from stapes.checkpoint.ctranslate2 import NAME_IN_HEAD, read_ctranslate2
from stapes.checkpoint.files import FileBytes, read_json_object
from stapes.checkpoint.huggingface import INDEX, WEIGHTS, read_huggingface, shard_names
from stapes.checkpoint.safetensors import is_safetensors
from stapes.errors import CheckpointError

HEAD_BYTES = 512
ZIP = b"PK\x03\x04"
GGML = b"lmgg"  # the number 0x67676d6c, little-endian
_EXPECTED = (
    "stapes reads Hugging Face folders (config.json with model.safetensors), OpenAI .pt files, CTranslate2 "
    "folders (model.bin) and ggml .bin files of whisper.cpp"
)
#: What else people hand over: first bytes -> what it is and what to do.
_STRANGERS: tuple[tuple[bytes, str], ...] = (
    (b"GGUF", "a GGUF file of llama.cpp; get the model as whisper.cpp's ggml-*.bin"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"\x89HDF", "an HDF5 file of TensorFlow; get the model as safetensors"),
    (
        b"\x80\x02\x8a\x0al\xfc\x9cF",  # the magic number that torch wrote before 1.6
        "in PyTorch's format from before version 1.6; if you trust it, load it in PyTorch and save it anew",
    ),
)


def open_checkpoint(path: Path, name: str | None = None) -> Checkpoint:
    """Open whatever lies at `path`; raises CheckpointError where it is not a whole Whisper.

    name: what the user asked for; the file's name if not given.
    """
    name = name or path.name
    try:
        return _open_folder(path, name) if path.is_dir() else _open_file(path, name)
    except OSError as exc:
        raise CheckpointError(f"{path}: cannot be read ({exc}); check its permissions") from exc


def _open_folder(folder: Path, name: str) -> Checkpoint:
    if (folder / WEIGHTS).is_file() or (folder / INDEX).is_file():
        return read_huggingface(folder, name)
    if _is_ctranslate2(folder / "model.bin"):
        return read_ctranslate2(folder, name)
    present = sorted(entry.name for entry in folder.iterdir())
    if any(entry.startswith("adapter_model") for entry in present):
        raise CheckpointError(
            f"{folder}: holds an adapter (LoRA) without its model; merge them first (PEFT: merge_and_unload)"
        )
    if "pytorch_model.bin" in present:
        raise CheckpointError(
            f"{folder}: holds pytorch_model.bin only, which stapes does not read; load it with transformers "
            "once and save it with save_pretrained(folder, safe_serialization=True)"
        )
    content = f"holds {', '.join(present[:5])}" if present else "is empty"
    raise CheckpointError(f"{folder}: no checkpoint in this folder, it {content}; {_EXPECTED}")


def _open_file(path: Path, name: str) -> Checkpoint:
    data = FileBytes(path)
    head = data.read(0, min(HEAD_BYTES, data.size), "its head")
    # Readers are imported when needed: each file of Python takes milliseconds of every start.
    if head.startswith(ZIP):
        from stapes.checkpoint.openai import read_openai  # noqa: PLC0415

        return read_openai(path, name)
    if head.startswith(GGML):
        from stapes.checkpoint.ggml import read_ggml  # noqa: PLC0415

        return read_ggml(path, name)
    if head[4:].startswith(NAME_IN_HEAD):
        return read_ctranslate2(path.parent, name, path)
    if is_safetensors(head, data.size):
        return read_huggingface(path.parent, name, None if _is_part_of_folder(path) else path)
    raise CheckpointError(f"{path}: is {_describe(head)}; {_EXPECTED}")


def _is_part_of_folder(path: Path) -> bool:
    """Tell whether a file of weights is what its folder is read from: model.safetensors, or a shard."""
    index = path.parent / INDEX
    if path.name == WEIGHTS or not index.is_file():
        return path.name == WEIGHTS
    return path.name in shard_names(read_json_object(index), index)


def _describe(head: bytes) -> str:
    """Say what a file is that stapes does not read, as far as its first bytes tell."""
    for start, description in _STRANGERS:
        if head.startswith(start):
            return description
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return "a bare Python pickle, which can run code when it is opened, so stapes does not"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not a model; the download went to the wrong address or needed a login"
    return f"not a checkpoint (it begins with {head[:8]!r})"


def _is_ctranslate2(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    data = FileBytes(path)
    head = data.read(0, min(HEAD_BYTES, data.size), "its head")
    return head[4:].startswith(NAME_IN_HEAD)


def looks_like_whisper(path: Path) -> bool:
    """Tell from a glance whether a path is worth opening; it may still be damaged."""
    if path.is_dir():
        if _is_ctranslate2(path / "model.bin"):
            return True
        config = path / "config.json"
        try:
            return config.is_file() and read_json_object(config).get("model_type") == "whisper"
        except CheckpointError:
            return False
    try:
        data = FileBytes(path)
    except CheckpointError:
        return False
    head = data.read(0, min(HEAD_BYTES, data.size), "its head")
    return head.startswith((ZIP, GGML)) or head[4:].startswith(NAME_IN_HEAD) or is_safetensors(head, data.size)
