"""What a batch was begun with, and which command works on it: `batch.json` and `run.json` in its output folder."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Final

from stapes.batch.chunk import RUN_FILE
from stapes.batch.place import Place
from stapes.errors import OptionError, OutputError
from stapes.runtime.warn import warn

SETTINGS_FILE: Final = "batch.json"
_VERSION: Final = 1
_BEAT_S: Final = 10.0
#: A driver on another machine that was not seen for so long is taken for dead.
_DEAD_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every run of a batch has in common."""

    stapes: str  # the version that it was begun with
    model: str  # without a query
    model_sha256: str
    precision: str  # resolved
    options: str  # as canonical JSON
    formats: tuple[str, ...]
    digits: int  # of a key that name its shard
    version: int = _VERSION  # of the files in the folder


def read_settings(place: Place) -> Settings | None:
    """Return the settings of a batch; None where none was begun. Raises OutputError for a damaged file."""
    data = place.read(SETTINGS_FILE)
    if data is None:
        return None
    values = _object(place, SETTINGS_FILE, data)
    known = {item.name for item in fields(Settings)}
    if values.get("version") != _VERSION or set(values) != known:
        raise OutputError(
            f"{place.shown}/{SETTINGS_FILE}: was written by another version of stapes, or is damaged; use that "
            "version, or another output folder"
        )
    kinds = {"digits": int, "version": int, "formats": list}
    is_right = all(isinstance(value, kinds.get(name, str)) for name, value in values.items())
    if not is_right or not all(isinstance(name, str) for name in values["formats"]):
        raise OutputError(f"{place.shown}/{SETTINGS_FILE}: is damaged; restore it, or use another output folder")
    return Settings(**{**values, "formats": tuple(values["formats"])})


def write_settings(place: Place, settings: Settings) -> None:
    """Begin a batch."""
    place.write(SETTINGS_FILE, json.dumps(asdict(settings), indent=1).encode())


def _object(place: Place, name: str, data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise OutputError(f"{place.shown}/{name}: is damaged; restore it, or use another output folder")
    return values


def check_agreement(place: Place, old: Settings, asked: dict[str, object]) -> None:
    """Raise OptionError where a batch was begun with other settings. asked: those that the command names."""
    for name, value in asked.items():
        begun = getattr(old, name)
        if begun != value:
            raise OptionError(
                f"{place.shown}: this batch was begun with {name} {_text(begun)}, not {_text(value)}; give the same "
                "again, or another output folder"
            )


def _text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


class Lease:
    """The right of one command to work on a batch: a token in the folder, renewed by a thread."""

    _held: ClassVar[set[str]] = set()  # tokens of this process

    def __init__(self, place: Place) -> None:
        self._place, self.token = place, uuid.uuid4().hex
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="stapes lease", daemon=True)
        self.is_lost = False

    def take(self) -> None:
        """Take the lease. Raises OutputError where another command works on this batch."""
        data = self._place.read(RUN_FILE)
        holder = {} if data is None else _object(self._place, RUN_FILE, data)
        if holder.get("run") in self._held or seems_alive(holder):
            raise OutputError(
                f"{self._place.shown}: a command on {holder.get('host')} (process {holder.get('pid')}) works on this "
                f"batch; if it was killed, wait {_DEAD_S:g} s"
            )
        self._beat()
        self._held.add(self.token)
        self._thread.start()

    def check(self) -> None:
        """Raise OutputError where another command has taken the batch over."""
        data = self._place.read(RUN_FILE)
        self.is_lost |= data is not None and _object(self._place, RUN_FILE, data).get("run") != self.token
        if self.is_lost:
            raise OutputError(f"{self._place.shown}: another command has taken this batch over; this one stops")

    def release(self) -> None:
        """Give the lease back."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._held.discard(self.token)
        data = self._place.read(RUN_FILE)
        if data is None or _object(self._place, RUN_FILE, data).get("run") == self.token:
            self._beat(ended=True)

    def _beat(self, *, ended: bool = False) -> None:
        values = {"run": self.token, "host": socket.gethostname(), "pid": os.getpid(), "at": time.time()}
        self._place.write(RUN_FILE, json.dumps({**values, "ended": ended}).encode())

    def _renew(self) -> None:
        while not self._ended.wait(_BEAT_S):
            try:
                data = self._place.read(RUN_FILE)
                if data is not None and json.loads(data).get("run") != self.token:
                    self.is_lost = True
                    return
                self._beat()
            except (OutputError, ValueError) as error:  # for a moment, or the next write of the ledger says it
                warn(f"the lease of this batch could not be renewed: {error}")


def seems_alive(holder: dict[str, Any]) -> bool:
    """Return whether the command of another process that holds a lease is at work."""
    at, pid = holder.get("at"), holder.get("pid")
    if holder.get("ended") or not isinstance(at, (int, float)) or not isinstance(pid, int):
        return False
    if holder.get("host") == socket.gethostname() and os.name == "posix":
        if pid == os.getpid():  # an earlier process: containers number theirs alike
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
    return abs(time.time() - at) <= _DEAD_S
