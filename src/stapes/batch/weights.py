"""The weights of a batch on this machine: fetched once from a store into the user's cache folder."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from stapes.batch.place import open_filesystem, why_refused
from stapes.batch.sources import short_hash, shown_uri
from stapes.errors import ModelNotFoundError, OutputError, StapesError
from stapes.output.files import named

_MOST_FILES: Final = 100
_SPARE_BYTES: Final = 64 << 20  # that the disk must have beside the weights
#: Weights of other frameworks, of which no format is read.
_UNREAD: Final = (".h5", ".msgpack", ".onnx", ".ot")


def local_model(model: str) -> str:
    """Return a name or a path as it is, and the folder or file on this machine that a URI's weights are fetched into.

    Processes of one machine fetch once; the others wait. Files that are there are not compared with the store's.
    Raises ModelNotFoundError where the weights cannot be fetched, and OutputError where they cannot be kept.
    """
    scheme, separator, rest = model.partition("://")
    if not separator:
        return model
    if scheme in ("file", "local"):
        return rest
    shown = shown_uri(model).rstrip("/")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "stapes" / "weights"
    folder = cache / short_hash(shown)
    if not folder.is_dir():
        with named(folder):
            _fetch_alone(model, shown, folder)
    file = folder / _name(shown)
    return str(file if file.is_file() else folder)


def _fetch_alone(uri: str, shown: str, folder: Path) -> None:
    """Fetch a model into a folder that is there only when it is whole, unless another process does."""
    from filelock import FileLock  # noqa: PLC0415 (only where weights are fetched)

    begun = folder.with_suffix(".part")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return
        if begun.exists():  # by a process that was stopped
            shutil.rmtree(begun)
        begun.mkdir()
        try:
            _fetch(uri, shown, begun)
            begun.replace(folder)
        except BaseException:
            shutil.rmtree(begun, ignore_errors=True)
            raise


def _fetch(uri: str, shown: str, folder: Path) -> None:
    with _explained(shown):
        files, path = open_filesystem(uri, shown)
        found = files.info(path.rstrip("/"))
        parts = [found] if found["type"] == "file" else files.ls(path.rstrip("/"), detail=True)
    sizes = {one["name"]: one.get("size") for one in parts if one["type"] == "file" and _is_wanted(one["name"])}
    if any(name.endswith(".safetensors") for name in sizes):  # the same weights again
        sizes = {name: size for name, size in sizes.items() if not name.endswith(".bin")}
    if not 0 < len(sizes) <= _MOST_FILES:
        raise ModelNotFoundError(
            f"{shown}: holds {len(sizes)} files; the folder of a model has 1 to {_MOST_FILES}: give the folder itself"
        )
    needed, free = sum(size or 0 for size in sizes.values()), shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise OutputError(
            f"{folder.parent}: {free >> 20} MB are free, and the model {shown} needs {(needed + _SPARE_BYTES) >> 20}; "
            "free some space, or set XDG_CACHE_HOME to a larger disk"
        )
    for name, size in sizes.items():
        # The name of a single file is its URI's: a store may add a query or redirect.
        target = folder / _name(shown if found["type"] == "file" else name)
        with _explained(shown):
            files.get_file(name, str(target))
        with target.open("r+b") as file:
            os.fsync(file.fileno())
        if size is not None and target.stat().st_size != size:
            raise ModelNotFoundError(
                f"{shown}: {target.name} has {target.stat().st_size} bytes of {size}; it was cut off: try again"
            )


def _name(path: str) -> str:
    """Return the last part of a path or URI, where it is the name of a file."""
    name = unquote(path.rstrip("/").rpartition("/")[2])
    if name in ("", ".", "..") or any(one in "/\\:\0" for one in name):
        raise ModelNotFoundError(f"{shown_uri(path)}: {name!r} is not the name of a file; rename it in the store")
    return name


def _is_wanted(path: str) -> bool:
    name = path.rpartition("/")[2]
    return bool(name) and not name.startswith(".") and not name.endswith(_UNREAD)  # S3: "folder/" marks a folder


@contextmanager
def _explained(shown: str) -> Iterator[None]:
    """Turn what stores raise into a ModelNotFoundError without secrets; what the disk raises stays as it is."""
    try:
        yield
    except StapesError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise ModelNotFoundError(f"{shown}: the model cannot be fetched: {why_refused(error)}") from None
