"""Files as runs of bytes: mapped, never loaded whole, and never read beyond their end.
Every refusal is a CheckpointError that names the file and what to do.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stapes.checkpoint.formats.unsupported import HEAD_BYTES, describe_file
from stapes.errors import CheckpointError

Array = npt.NDArray[Any]

#: A configuration is a few kilobytes; tokenizer.json of large-v3 is 2.5 MB. A larger file is neither.
_MAX_JSON_BYTES = 64 << 20
MAX_DIMENSIONS = 8  # convolutions have three
_HASH_BYTES = 16 << 20  # a piece's pages are released before the next one is read


class FileBytes:
    """One file, or several read as if joined, mapped into memory and read-only."""

    def __init__(self, *paths: Path) -> None:
        """Map `paths`; raises CheckpointError where one is not a readable, non-empty file."""
        self.path = paths[0]
        self.name = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        self._parts = [_map(path) for path in paths]
        self.size = sum(len(part) for part in self._parts)

    def read(self, offset: int, size: int, what: str) -> bytes:
        """Copy `size` bytes; `what` names them in the error if the file ends before."""
        self.check(offset, size, what)
        return b"".join(part[start:stop] for part, start, stop in self._pieces(offset, size))

    @property
    def head(self) -> bytes:
        """The first HEAD_BYTES, or fewer."""
        return self.read(0, min(HEAD_BYTES, self.size), "its head")

    def array(self, offset: int, dtype: str, shape: tuple[int, ...], what: str) -> Array:
        """Return numbers as a read-only array in C order: a view of the file where that is possible.
        Arrays that span two files or start at an odd address are copied, as native code may read them by pointer; but
        not float16, which most of a model is.
        """
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        self.check(offset, size, what)
        pieces = [
            np.frombuffer(part, np.uint8, stop - start, start) for part, start, stop in self._pieces(offset, size)
        ]
        if not pieces:
            return np.empty(shape, kind)
        raw = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        found = raw.view(kind).reshape(shape)
        if not found.flags.aligned and kind != np.float16:
            found = found.copy()
        found.flags.writeable = False
        return found

    def check(self, offset: int, size: int, what: str) -> None:
        """Raise CheckpointError unless bytes offset to offset + size lie inside the file."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise CheckpointError(
                f"{self.name}: {what} would lie at bytes {offset} to {offset + size}, and the file has "
                f"{self.size}; it is cut short or damaged: fetch it again"
            )

    def sha256(self) -> str:
        """Hash every byte, in order, while other threads run."""
        digest = hashlib.sha256()
        for part in self._parts:
            for start in range(0, len(part), _HASH_BYTES):
                stop = min(start + _HASH_BYTES, len(part))
                with memoryview(part) as whole, whole[start:stop] as piece:
                    digest.update(piece)
                _let_go(part, start, stop)
        return digest.hexdigest()

    def _pieces(self, offset: int, size: int) -> Iterator[tuple[mmap.mmap, int, int]]:
        for part in self._parts:
            start, stop = max(offset, 0), min(offset + size, len(part))
            if start < stop:
                yield part, start, stop
            offset -= len(part)


def release_pages(array: Array) -> None:
    """Release the memory of a mapped file's pages; a later access reads them again. Other arrays do not change."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    owner = owner.obj if isinstance(owner, memoryview) else owner
    if isinstance(owner, mmap.mmap):
        _let_go(owner, 0, len(owner))


def _let_go(part: mmap.mmap, start: int, stop: int) -> None:
    if hasattr(mmap, "MADV_DONTNEED"):
        part.madvise(mmap.MADV_DONTNEED, start, stop - start)


def is_file(path: Path) -> bool:
    """Return whether a file is there. Raises CheckpointError for what would fail late or hang: a link to a file that is
    not there, a folder, a device or a pipe.
    """
    if path.is_file() or not os.path.lexists(path):
        return path.is_file()
    if path.is_symlink() and not path.exists():
        raise CheckpointError(
            f"{path}: no such file; a link leads to {str(path.readlink())!r:.120}, which is not there: fetch or copy "
            "that, too"
        )
    raise CheckpointError(f"{path}: no such file; a folder, a pipe or a device is there: fetch the file again")


def _map(path: Path) -> mmap.mmap:
    try:
        if not is_file(path):
            raise CheckpointError(f"{path}: no such file; give the path of a checkpoint that exists")
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise CheckpointError(f"{path}: the file is empty; fetch it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as exc:  # ValueError: a path with a zero byte
        raise CheckpointError(f"{path}: cannot be read ({exc}); check the path and its permissions") from exc


class Cursor:
    """Reads a binary file from front to back."""

    def __init__(self, data: FileBytes, offset: int = 0) -> None:
        self.data = data
        self.offset = offset

    def number(self, code: str, what: str) -> int:
        """Read one little-endian integer; `code` as in the struct module."""
        return self.numbers(code, 1, what)[0]

    def numbers(self, code: str, count: int, what: str) -> tuple[int, ...]:
        """Read `count` little-endian integers."""
        raw = self.take(struct.calcsize("<" + code) * count, what)
        return struct.unpack(f"<{count}{code}", raw)

    def take(self, size: int, what: str) -> bytes:
        """Read `size` bytes."""
        raw = self.data.read(self.offset, size, what)
        self.offset += size
        return raw

    def skip(self, size: int, what: str) -> int:
        """Step over `size` bytes and return where they begin."""
        self.data.check(self.offset, size, what)
        start = self.offset
        self.offset += size
        return start


def read_json(path: Path) -> object:
    """Read a JSON file; raises CheckpointError where it is missing, too large, or not JSON."""
    data = FileBytes(path)
    if data.size > _MAX_JSON_BYTES:
        raise CheckpointError(f"{path}: {data.size} bytes are too many for a configuration; fetch it again")
    return parse_json(data.read(0, data.size, "the text"), str(path))


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds {type(found).__name__}, expected a JSON object; fetch it again")
    return found


def parse_json(text: bytes, source: str) -> object:
    """Parse JSON whose objects have no key twice (two readers could then disagree on its meaning)."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice")
        return found

    try:
        found: object = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
        return found
    except (ValueError, RecursionError) as exc:
        if what := describe_file(text[:HEAD_BYTES]):
            raise CheckpointError(f"{source}: is {what}") from exc
        raise CheckpointError(f"{source}: not valid JSON ({exc}); fetch it again") from exc


def positive_int(values: Mapping[str, Any], key: str, source: str) -> int:
    """Return a size that a configuration states; raises CheckpointError where it is missing or not a count."""
    value = values.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        # To print a nested value of a pickle may take without end.
        shown = f"{value!r:.60}" if value is None or isinstance(value, int | float | str) else type(value).__name__
        raise CheckpointError(f"{source}: {key} is {shown}, expected a positive whole number")
    return value
