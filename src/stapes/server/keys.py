"""Keys of clients: a file of names, hashes and limits, readable by its owner alone. No key is kept, and none is logged.

A line is `name:sha256 of the key:limits`, with limits such as `requests=4,audio_s_per_hour=36000,admin`, or none.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stapes.errors import OptionError, OutputError
from stapes.output.files import write_whole

_PREFIX: Final = "sk-stapes-"
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
MAX_FILE_BYTES, MAX_KEYS = 1 << 20, 10_000
#: a longer one is no key of ours
_LONGEST_TOKEN: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A client: its name, and what it may use. None: no limit of its own."""

    name: str
    max_requests: int | None = None  # at once
    audio_s_per_hour: float | None = None
    is_admin: bool = False


class KeyFile:
    """The keys of one file."""

    def __init__(self, path: Path, entries: list[tuple[bytes, Key]]) -> None:
        self._path = path
        self._entries = entries

    @classmethod
    def load(cls, path: Path) -> KeyFile:
        """Read a file of keys. Raises OptionError for a bad line, by its number, and for a file open to others."""
        return cls(path, _read(path))

    def reload(self) -> None:
        """Read the file again. Raises OptionError; the present keys stay then."""
        self._entries = _read(self._path)

    def __len__(self) -> int:
        return len(self._entries)

    def match(self, token: str) -> Key | None:
        """Return the key of a token, comparing it with all, so that the time tells nothing."""
        digest = hashlib.sha256(token[:_LONGEST_TOKEN].encode("utf-8", "surrogatepass")).hexdigest().encode()
        found = None
        for expected, key in self._entries:
            if hmac.compare_digest(digest, expected):
                found = key
        return found if len(token) <= _LONGEST_TOKEN else None

    def named(self, name: str) -> Key | None:
        """Return the key of this name, if it is still there."""
        return next((key for _, key in self._entries if key.name == name), None)


def new_key(path: Path, name: str, limits: str) -> str:
    """Make a key, add its hash to a file, and return the key. Raises OptionError, OutputError."""
    key = key_of(name, limits, "--key_limits")
    token = _PREFIX + secrets.token_urlsafe(32)
    line = f"{name}:{hashlib.sha256(token.encode()).hexdigest()}:{limits}\n"
    with _only_writer(path):
        text = ""
        if path.exists():
            if any(entry.name == key.name for _, entry in _read(path)):
                raise OptionError(f"{path}: there is a key of the name {name}; remove its line, or choose another name")
            text = path.read_text("utf-8")
            text += "\n" if text and not text.endswith("\n") else ""
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # written with this mode below
        write_whole({path: [(text + line).encode()]})
    return token


@contextmanager
def _only_writer(path: Path) -> Iterator[None]:
    """Keep other processes from adding a key at the same time: all wait for a lock on the folder."""
    import fcntl  # noqa: PLC0415 (not on Windows)

    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def key_of(name: str, limits: str, where: str) -> Key:
    """Return a key of this name with limits as they are written. Raises OptionError, which names `where`."""
    if not _NAME.fullmatch(name):
        place = "--new_key" if where.startswith("-") else where
        raise OptionError(f"{place}: a key's name has 1 to 64 letters, digits, dots, dashes and underscores")
    if not limits.isprintable():
        raise OptionError(f"{where}: limits are one line of text")
    max_requests, audio_s, is_admin = None, None, False
    for limit in filter(None, (one.strip() for one in limits.split(","))):
        what, _, value = limit.partition("=")
        try:
            if what == "requests" and int(value) > 0:
                max_requests = int(value)
            elif what == "audio_s_per_hour" and 0 <= float(value) < float("inf"):
                audio_s = float(value)
            elif limit == "admin":
                is_admin = True
            else:
                raise ValueError
        except ValueError:
            raise OptionError(
                f"{where}: limits are requests=N, audio_s_per_hour=SECONDS and admin, with commas between them"
            ) from None
    return Key(name=name, max_requests=max_requests, audio_s_per_hour=audio_s, is_admin=is_admin)


def _is_private(found: os.stat_result) -> bool:
    """Whether others cannot read a file of keys. An administrator may give it to a service's group, to read."""
    given = found.st_uid == 0 and os.geteuid() != 0
    return not found.st_mode & (0o037 if given else 0o077)


def _read(path: Path) -> list[tuple[bytes, Key]]:
    try:
        found = path.stat()
        if os.name == "posix" and not _is_private(found):
            raise OptionError(f"{path}: keys must be readable by their owner alone; run: chmod 600 {path}")
        if found.st_size > MAX_FILE_BYTES:
            raise OptionError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; is this a file of keys?")
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise OptionError(f"{path}: no such file; 'stapes serve --new_key NAME --key_file {path}' makes it") from None
    except OptionError:
        raise
    except (OSError, ValueError) as error:
        why = "is not UTF-8" if isinstance(error, ValueError) else f"cannot be read: {error.strerror or error}"
        raise OptionError(f"{path}: {why}") from error
    entries: dict[str, tuple[bytes, Key]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{path}, line {number}"
        name, _, rest = line.strip().partition(":")
        digest, _, limits = rest.partition(":")
        if not _HASH.fullmatch(digest):
            raise OptionError(f"{where}: expected name:sha256:limits")
        if name in entries:
            raise OptionError(f"{where}: a second key of the same name")
        entries[name] = digest.encode(), key_of(name, limits, where)
    if len(entries) > MAX_KEYS:
        raise OptionError(f"{path}: more than {MAX_KEYS} keys")
    return list(entries.values())
