"""The safetensors container: a JSON header, then numbers. Knows nothing of Whisper.

Layout: header length (8 bytes, little-endian), header (JSON: name -> dtype, shape, data_offsets), data.
Source: https://github.com/huggingface/safetensors/blob/v0.5.3/README.md#format
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from stapes.checkpoint.files import MAX_DIMENSIONS, FileBytes, parse_json
from stapes.checkpoint.formats.stored import WIDTHS, StoredTensor, plain
from stapes.checkpoint.formats.unsupported import MLX, describe_file
from stapes.errors import CheckpointError

_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_MAX_OFFSET = 1 << 62  # far beyond any file; larger numbers are forged
_KINDS = {"F16": "float16", "F32": "float32", "BF16": "bfloat16", "F64": "float64"}


def is_safetensors(data: FileBytes) -> bool:
    """Whether a file can be one, by its first bytes and its size."""
    head = data.head
    return len(head) > 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= data.size - 8


def refuse_unsupported(data: FileBytes) -> None:
    """Raise CheckpointError where a file is known to be something else: a Git LFS pointer, a web page."""
    if not is_safetensors(data) and (what := describe_file(data.head)):
        raise CheckpointError(f"{data.name}: is {what}")


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Return every tensor of one file by its name.
    Raises CheckpointError where lengths, offsets or types are invalid: data must be inside the file, without overlap
    and without gap.
    """
    data = FileBytes(path)
    refuse_unsupported(data)
    length = int.from_bytes(data.read(0, 8, "the header's length"), "little")
    if length > _MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path}: a header of {length} bytes exceeds the format's limit of {_MAX_HEADER_BYTES}; "
            "this is not a safetensors file, or it is damaged: fetch it again"
        )
    header = parse_json(data.read(8, length, "the header"), f"{path}: header")
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is not a JSON object; fetch the file again")
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict) and metadata.get("format") == "mlx":
        raise CheckpointError(f"{path}: holds {MLX}")
    start = 8 + length
    found = {}
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = _span(entry, f"{path}: tensor {name!r:.80}")
        spans.append((begin, end, name))
        found[name] = _tensor(data, start, entry, f"tensor {name!r:.80}")
    _check_cover(path, spans, data.size - start)
    return found


def _span(entry: object, what: str) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(offset) is int for offset in offsets)):
        raise CheckpointError(f"{what} has no two data_offsets in the header; fetch the file again")
    begin, end = offsets
    if not 0 <= begin <= end < _MAX_OFFSET:
        raise CheckpointError(f"{what} has impossible data_offsets; the file is damaged: fetch it again")
    return begin, end


def _tensor(data: FileBytes, start: int, entry: dict[str, Any], what: str) -> StoredTensor:
    shape, dtype = entry.get("shape"), str(entry.get("dtype"))
    kind = _KINDS.get(dtype, dtype)
    if not (
        isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and all(type(size) is int and 0 <= size < _MAX_OFFSET for size in shape)
    ):
        raise CheckpointError(f"{data.name}: {what} has shape {shape!r:.80}; fetch the file again")
    begin, end = entry["data_offsets"]
    if kind not in WIDTHS:
        return StoredTensor(tuple(shape), kind, None)
    if end - begin != math.prod(shape) * WIDTHS[kind]:
        raise CheckpointError(
            f"{data.name}: {what} of shape {tuple(shape)} has {end - begin} bytes; fetch the file again"
        )
    return plain(data, start + begin, kind, tuple(shape), what)


def _check_cover(path: Path, spans: list[tuple[int, int, str]], size: int) -> None:
    """Refuse data that overlaps or is named by nothing: the format forbids both."""
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            fault = "overlaps the one before" if begin < at else "leaves a gap before it"
            raise CheckpointError(f"{path}: tensor {name!r:.80} {fault}; fetch the file again")
        at = end
    if at != size:
        raise CheckpointError(
            f"{path}: the header names {at} bytes of numbers and the file holds {size}; fetch it again"
        )
