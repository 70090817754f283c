"""Checkpoints as OpenAI publishes them: a `.pt` of torch.save, without vocabulary and alignment heads.

The file is a zip archive, stored without compression: <folder>/data.pkl says which tensor is which part of
which storage, <folder>/data/<key> are the storages. The pickle is read as data (torch_pickle.py), the rest
mapped.
Source: https://github.com/pytorch/pytorch/blob/v2.6.0/torch/serialization.py (_save),
https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT (zip).
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from stapes.checkpoint.base import Checkpoint, ModelSpec
from stapes.checkpoint.files import Array, FileBytes, positive_int
from stapes.checkpoint.formats.stored import WIDTHS, StoredTensor, kind_of, plain, spec_of, tensors_of
from stapes.checkpoint.formats.torch_pickle import MAX_PICKLE_BYTES, Inert, TorchTensor, read_pickle
from stapes.checkpoint.formats.unsupported import MLX
from stapes.errors import CheckpointError

_LOCAL_HEADER_BYTES = 30
_LOCAL_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED = 0x1
_MAX_ENTRIES = 1 << 16  # large-v3 has 1,270


@dataclass(frozen=True, slots=True)
class _Entry:
    offset: int
    size: int
    checksum: int  # CRC-32


def read_openai(path: Path, name: str) -> Checkpoint:
    """Read a `.pt`; raises CheckpointError where it is damaged, hostile, or no Whisper of OpenAI's form."""
    data = FileBytes(path)
    entries = _read_directory(path, data)
    found = read_pickle(_pickle_of(entries, data), str(path))
    if not isinstance(found, dict) or not {"dims", "model_state_dict"} <= found.keys():
        instead = f" but {', '.join(map(repr, list(found)[:3]))}" if isinstance(found, dict) and found else ""
        raise CheckpointError(
            f"{path}: holds no 'dims' and 'model_state_dict'{instead:.200}, so it is not a checkpoint in OpenAI's form "
            "(a pytorch_model.bin or a training state is not one); save it as one, or as a Hugging Face folder"
        )
    dims, state = found["dims"], found["model_state_dict"]
    if not isinstance(dims, dict) or not isinstance(state, dict):
        raise CheckpointError(f"{path}: 'dims' or 'model_state_dict' is not a dict; fetch the file again")
    spec = spec_of({item.name: positive_int(dims, item.name, str(path)) for item in fields(ModelSpec)}, str(path))
    stored = _stored(state, entries, data)
    return Checkpoint(
        name=name,
        path=path,
        format="openai",
        storage=kind_of(stored),
        spec=spec,
        tensors=tensors_of(spec, stored, "openai", str(path)),
    )


def _read_directory(path: Path, data: FileBytes) -> dict[str, _Entry]:
    """Return the archive's entries by their name inside its one folder.

    zipfile reads the list; where the bytes are is checked here: uncompressed (so nothing unfolds to more than the file
    holds), inside the file, and without overlap.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error, EOFError) as exc:
        raise CheckpointError(f"{path}: not a whole zip archive ({exc}); fetch it again") from exc
    if len(infos) > _MAX_ENTRIES:
        raise CheckpointError(f"{path}: an archive of {len(infos)} entries is none of a Whisper")
    entries: dict[str, _Entry] = {}
    for info in infos:
        folder, _, name = info.filename.partition("/")
        if info.filename.endswith(".npy"):
            raise CheckpointError(f"{path}: an archive of NumPy arrays (.npz), most likely {MLX}")
        if not folder or not name or name in entries:
            raise CheckpointError(
                f"{path}: {info.filename!r:.80} is not an entry of a PyTorch file; fetch it again, or unpack it if it "
                "is an archive of a model's folder"
            )
        entries[name] = _locate(info, data)
    _refuse_overlap(path, entries)
    _refuse_other_archives(path, entries, data)
    return entries


def _locate(info: zipfile.ZipInfo, data: FileBytes) -> _Entry:
    """Find where an entry's bytes begin: after its own header, whose length the directory does not state."""
    what = f"{data.name}: entry {info.filename!r:.80}"
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise CheckpointError(f"{what} is compressed; torch.save never does that: save the model again")
    if info.flag_bits & _ENCRYPTED:
        raise CheckpointError(f"{what} is encrypted; save the model without a password")
    header = data.read(info.header_offset, _LOCAL_HEADER_BYTES, f"the header of {info.filename!r:.80}")
    if not header.startswith(_LOCAL_SIGNATURE):
        raise CheckpointError(f"{what} does not lie where the archive says; fetch the file again")
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    offset = info.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
    data.check(offset, info.file_size, f"entry {info.filename!r:.80}")
    return _Entry(offset, info.file_size, info.CRC)


def _refuse_overlap(path: Path, entries: Mapping[str, _Entry]) -> None:
    """Refuse entries that share bytes: that is how a small archive pretends to be a large one."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].size)):
        if entry.offset < end:
            raise CheckpointError(f"{path}: entry {name!r:.80} overlaps the one before; fetch the file again")
        end = entry.offset + entry.size


def _refuse_other_archives(path: Path, entries: Mapping[str, _Entry], data: FileBytes) -> None:
    if "data.pkl" not in entries:
        raise CheckpointError(
            f"{path}: a zip archive without data.pkl, so not a PyTorch file; unpack it if it holds a model's folder"
        )
    if "constants.pkl" in entries:
        raise CheckpointError(f"{path}: a TorchScript program, not weights; fetch the checkpoint itself")
    order = entries.get("byteorder")
    if order and data.read(order.offset, min(order.size, 16), "byteorder") != b"little":
        raise CheckpointError(f"{path}: written on a big-endian machine; save it again on another")


def _pickle_of(entries: Mapping[str, _Entry], data: FileBytes) -> bytes:
    entry = entries["data.pkl"]
    if entry.size > MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"{data.name}: its pickle has {entry.size} bytes; a Whisper's has less than {MAX_PICKLE_BYTES}"
        )
    program = data.read(entry.offset, entry.size, "data.pkl")
    if zlib.crc32(program) != entry.checksum:
        raise CheckpointError(f"{data.name}: data.pkl differs from its checksum; fetch the file again")
    return program


def _stored(state: dict[str, Any], entries: Mapping[str, _Entry], data: FileBytes) -> dict[str, StoredTensor]:
    found = {}
    for name, value in state.items():
        if isinstance(value, Inert):
            found[name] = StoredTensor((), value.what, None)
        elif isinstance(value, TorchTensor):
            found[name] = _tensor(name, value, entries, data)
    return found


def _tensor(name: str, tensor: TorchTensor, entries: Mapping[str, _Entry], data: FileBytes) -> StoredTensor:
    what, storage = f"{data.name}: tensor {name!r:.80}", tensor.storage
    if storage.kind not in WIDTHS:
        return StoredTensor(tensor.shape, storage.kind, None)
    entry, width = entries.get(f"data/{storage.key}"), WIDTHS[storage.kind]
    if entry is None or entry.size != storage.count * width:
        size = "no bytes" if entry is None else f"{entry.size} bytes"
        raise CheckpointError(
            f"{what} is in a storage of {storage.count} numbers ({storage.kind}), for which the archive "
            f"has {size}; fetch the file again"
        )
    if math.prod(tensor.shape) == 0:
        return StoredTensor(tensor.shape, "an empty tensor", None)
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    if last >= storage.count:
        raise CheckpointError(f"{what} reaches beyond its storage; fetch the file again")
    if tensor.strides == _row_major(tensor.shape):
        return plain(data, entry.offset + tensor.offset * width, storage.kind, tensor.shape, what)
    return _strided(tensor, entry, data, what)


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _strided(tensor: TorchTensor, entry: _Entry, data: FileBytes, what: str) -> StoredTensor:
    """Return how to read a tensor whose rows do not follow one another (a transposed one); its bounds are checked."""
    read_flat = plain(data, entry.offset, tensor.storage.kind, (tensor.storage.count,), what).read
    assert read_flat is not None

    def read(first: int, stop: int) -> Array:
        numbers = read_flat(0, tensor.storage.count)
        steps = tuple(step * numbers.itemsize for step in tensor.strides)
        start = tensor.offset + first * tensor.strides[0]
        view = np.lib.stride_tricks.as_strided(
            numbers[start:], (stop - first, *tensor.shape[1:]), steps, writeable=False
        )
        return np.ascontiguousarray(view)

    return StoredTensor(tensor.shape, tensor.storage.kind, read)
