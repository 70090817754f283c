"""Checkpoints as CTranslate2 writes them: model.bin, config.json, tokenizer.json or vocabulary.

Layout of model.bin, version 6 (little-endian; a string is its length with the final zero byte in 16 bits,
then its bytes): version (32 bits), name of the network, its revision (32), number of tensors (32), per
tensor its name, number of dimensions (8), dimensions (32 each), type (8), bytes (32), numbers; number of
aliases (32), per alias two names.
Source: https://github.com/OpenNMT/CTranslate2/blob/v4.8.0/python/ctranslate2/specs/model_spec.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from stapes.checkpoint.base import Checkpoint, ModelSpec
from stapes.checkpoint.files import MAX_DIMENSIONS, Array, Cursor, FileBytes
from stapes.checkpoint.formats.huggingface import stated_heads
from stapes.checkpoint.formats.stored import StoredTensor, kind_of, plain, spec_of, tensors_of
from stapes.checkpoint.formats.tokens import read_vocabulary
from stapes.errors import CheckpointError

CT2_WEIGHTS = "model.bin"

_VERSION = 6  # since CTranslate2 3.0
_NETWORK = b"WhisperSpec\0"
#: How model.bin begins, whatever the version.
NAME_IN_HEAD = len(_NETWORK).to_bytes(2, "little") + _NETWORK

#: Our names in the order of the type numbers, and the bytes per number.
_WIDTHS = {"float32": 4, "int8": 1, "int16": 2, "int32": 4, "float16": 2, "bfloat16": 2}
_MAX_TENSORS = 1 << 16  # large-v3 has 1,100
_GELU = 3  # of python/ctranslate2/specs/common_spec.py, Activation: the exact one

_HEAD_WIDTH = 64  # of every published Whisper; for files that do not state the number of heads

_Raw = tuple[str, tuple[int, ...], int]  # kind, shape, offset in the file


def read_ctranslate2(folder: Path, name: str, weights: Path | None = None) -> Checkpoint:
    """Read a folder; raises CheckpointError where it is not a whole Whisper of version 6. weights: instead of
    model.bin.
    """
    read = read_weights(FileBytes(weights or folder / "model.bin"), folder, name)
    return replace(read, vocabulary=read_vocabulary(folder))


def read_weights(data: FileBytes, folder: Path, name: str) -> Checkpoint:
    """Read a folder without its vocabulary. data: model.bin, wherever it is. Raises as read_ctranslate2."""
    raw, aliases = _read_structure(data)
    _check_aliases(data, raw, aliases)
    stored = _stored(data, raw)
    spec = _spec(data, raw)
    return Checkpoint(
        name=name,
        path=folder,
        format="ctranslate2",
        storage=kind_of(stored),
        spec=spec,
        tensors=tensors_of(spec, stored, "ctranslate2", data.name),
        stated_alignment_heads=stated_heads(folder / "config.json"),
    )


def _read_structure(data: FileBytes) -> tuple[dict[str, _Raw], dict[str, str]]:
    cursor = Cursor(data)
    version = cursor.number("I", "the version")
    if version != _VERSION:
        raise CheckpointError(
            f"{data.name}: model.bin of version {version}; stapes reads version {_VERSION}: convert the model "
            "again with CTranslate2 3.0 or later"
        )
    network = _string(cursor, "the network's name")
    if network + "\0" != _NETWORK.decode():
        raise CheckpointError(f"{data.name}: holds a {network!r:.40}; stapes runs WhisperSpec only")
    cursor.number("I", "the revision")
    raw: dict[str, _Raw] = {}
    for _ in range(_count(cursor, "tensors")):
        name, found = _read_tensor(cursor)
        if name in raw:
            raise CheckpointError(f"{data.name}: tensor {name!r:.80} stands twice; fetch the file again")
        raw[name] = found
    aliases = range(_count(cursor, "aliases"))
    return raw, {_string(cursor, "an alias"): _string(cursor, "an alias's tensor") for _ in aliases}


def _count(cursor: Cursor, what: str) -> int:
    count = cursor.number("I", f"the number of {what}")
    if count > _MAX_TENSORS:
        raise CheckpointError(f"{cursor.data.name}: claims {count} {what}; the file is damaged: fetch it again")
    return count


def _read_tensor(cursor: Cursor) -> tuple[str, _Raw]:
    name = _string(cursor, "a tensor's name")
    where = f"{cursor.data.name}: tensor {name!r:.80}"
    dimensions = cursor.number("B", f"the dimensions of {name!r:.80}")
    if dimensions > MAX_DIMENSIONS:
        raise CheckpointError(f"{where} has {dimensions} dimensions; the file is damaged: fetch it again")
    shape = cursor.numbers("I", dimensions, f"the shape of {name!r:.80}")
    code = cursor.number("B", f"the type of {name!r:.80}")
    if code >= len(_WIDTHS):
        raise CheckpointError(f"{where} has type {code}; stapes reads {', '.join(_WIDTHS)}")
    kind = tuple(_WIDTHS)[code]
    size = cursor.number("I", f"the size of {name!r:.80}")
    if size != math.prod(shape) * _WIDTHS[kind]:
        raise CheckpointError(f"{where} of shape {shape} ({kind}) has {size} bytes; fetch the file again")
    return name, (kind, shape, cursor.skip(size, f"tensor {name!r:.80}"))


def _string(cursor: Cursor, what: str) -> str:
    raw = cursor.take(cursor.number("H", what), what)
    try:
        return raw.removesuffix(b"\0").decode("utf-8")
    except UnicodeDecodeError as exc:
        raise CheckpointError(f"{cursor.data.name}: {what} is not text ({raw[:40]!r}); fetch the file again") from exc


def _check_aliases(data: FileBytes, raw: dict[str, _Raw], aliases: dict[str, str]) -> None:
    """Add aliases as tensors (the converter writes every tensor that equals an earlier one as an alias of it), and
    check that the output projection is the token embedding.
    """
    for alias, name in aliases.items():
        if name not in raw or alias in raw:
            raise CheckpointError(f"{data.name}: {alias!r:.80} is an alias of nothing; fetch the file again")
    raw.update({alias: raw[name] for alias, name in aliases.items()})
    embedding, projection = raw.get("decoder/embeddings/weight"), raw.get("decoder/projection/weight")
    if embedding and projection and embedding != projection:
        raise CheckpointError(
            f"{data.name}: the output projection is not the token embedding; no published Whisper is so, "
            "and this engine cannot run one"
        )


def _stored(data: FileBytes, raw: dict[str, _Raw]) -> dict[str, StoredTensor]:
    """Return how to read each tensor of numbers; integers without a scale are settings, not weights."""
    found = {}
    for name, (kind, shape, offset) in raw.items():
        if kind in ("float32", "float16", "bfloat16"):
            found[name] = plain(data, offset, kind, shape, f"tensor {name!r:.80}")
        elif (scale := raw.get(f"{name}_scale")) and kind in ("int8", "int16"):
            found[name] = _scaled(data, name, raw[name], scale)
    return found


def _scaled(data: FileBytes, name: str, weight: _Raw, scale: _Raw) -> StoredTensor:
    """Return how to read a weight stored as integers: its numbers are integer / scale, one per row or one for all."""
    kind, shape, offset = weight
    scale_kind, scale_shape, scale_offset = scale
    if scale_kind != "float32" or scale_shape not in ((), shape[:1]) or not shape:
        raise CheckpointError(
            f"{data.name}: the scale of {name!r:.80} is {scale_kind} of shape {scale_shape}; fetch the file again"
        )
    dtype, row = f"<i{_WIDTHS[kind]}", math.prod(shape[1:]) * _WIDTHS[kind]

    def read(first: int, stop: int) -> Array:
        part = (stop - first, *shape[1:])
        integers = data.array(offset + first * row, dtype, part, name)
        divisors = data.array(scale_offset, "<f4", scale_shape, f"{name}_scale")
        if scale_shape:
            divisors = divisors[first:stop].reshape(-1, *[1] * (len(shape) - 1))
        with np.errstate(all="ignore"):  # a scale of 0 gives infinity: damaged, but not ours to warn of
            divided: Array = integers.astype(np.float32) / divisors
        return divided

    return StoredTensor(shape, kind, read)


def _spec(data: FileBytes, raw: Mapping[str, _Raw]) -> ModelSpec:
    def size(name: str, axis: int, dimensions: int) -> int:
        shape = raw[name][1] if name in raw else ()
        if len(shape) != dimensions:
            raise CheckpointError(
                f"{data.name}: tensor {name} is missing or has shape {shape}; the file is not a whole Whisper"
            )
        return shape[axis]

    def layers(side: str) -> int:
        count = 0
        while f"{side}/layer_{count}/ffn/linear_0/weight" in raw:
            count += 1
        return count

    width = size("decoder/embeddings/weight", 1, 2)
    for side in ("encoder", "decoder"):
        if _setting(data, raw, f"{side}/activation", _GELU) != _GELU:
            raise CheckpointError(f"{data.name}: the {side}'s activation is not the exact GELU of Whisper")
    sizes = {
        "n_mels": size("encoder/conv1/weight", 1, 3),
        "n_audio_ctx": size("encoder/position_encodings/encodings", 0, 2),
        "n_audio_state": size("encoder/position_encodings/encodings", 1, 2),
        "n_audio_head": _setting(data, raw, "encoder/num_heads", max(1, width // _HEAD_WIDTH)),
        "n_audio_layer": layers("encoder"),
        "n_vocab": size("decoder/embeddings/weight", 0, 2),
        "n_text_ctx": size("decoder/position_encodings/encodings", 0, 2),
        "n_text_state": width,
        "n_text_head": _setting(data, raw, "decoder/num_heads", max(1, width // _HEAD_WIDTH)),
        "n_text_layer": layers("decoder"),
    }
    return spec_of(sizes, data.name)


def _setting(data: FileBytes, raw: Mapping[str, _Raw], name: str, default: int) -> int:
    if name not in raw:
        return default
    kind, shape, offset = raw[name]
    if kind not in ("int8", "int16", "int32") or math.prod(shape) != 1:
        raise CheckpointError(f"{data.name}: {name} is {kind} of shape {shape}, expected one whole number")
    return int.from_bytes(data.read(offset, _WIDTHS[kind], name), "little", signed=True)
