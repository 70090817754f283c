"""Uploads on the disk: a folder of ours alone, files with random names, a bound on all of them together."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from stapes.errors import OutputError
from stapes.server.errors import ApiError

_FOLDER: Final = "stapes-uploads"
#: the process that writes it, and a random number
_NAME: Final = re.compile(r"upload-([1-9][0-9]{0,9})-[0-9a-f]{32}")


class Spool:
    """A folder of uploads."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self.n_bytes = 0  # of the uploads that are there

    @classmethod
    def open(cls, parent: Path | None, *, max_bytes: int) -> Spool:
        """Make the folder, and remove what processes that have ended left in it.

        parent: None is the system's folder for temporary files. Raises OutputError.
        """
        user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
        folder = (parent or Path(tempfile.gettempdir())) / f"{_FOLDER}{user if parent is None else ''}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
            if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o077):
                raise OutputError(f"{folder}: belongs to another user, or is open to others; remove it")
            for path in folder.iterdir():
                match = _NAME.fullmatch(path.name)
                # In a container each server has the number of the one before it.
                if match and (int(match[1]) == os.getpid() or not _lives(int(match[1]))):
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: uploads cannot be kept here: {error.strerror or error}") from error
        return cls(folder, max_bytes=max_bytes)

    def create(self) -> tuple[Path, int]:
        """Make a file; return its path and its descriptor. Raises ApiError 503."""
        path = self._folder / f"upload-{os.getpid()}-{secrets.token_hex(16)}"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)  # it may have been removed
            return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        except OSError as error:
            raise ApiError(503, f"The upload could not be kept: {error.strerror}.", retry_after_s=60) from error

    def take(self, n_bytes: int) -> None:
        """Count bytes that are about to be written. Raises ApiError 429 where there is no room."""
        if self.n_bytes + n_bytes > self._max_bytes:
            raise ApiError(
                429, "The server has no room for more uploads at present.", code="spool_full", retry_after_s=10
            )
        self.n_bytes += n_bytes

    def give_back(self, n_bytes: int) -> None:
        """Uncount bytes that are not there any more."""
        self.n_bytes -= n_bytes

    def close(self) -> None:
        """Remove what this process left."""
        with suppress(OSError):
            for path in self._folder.glob(f"upload-{os.getpid()}-*"):
                path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
