"""Which command works on a batch: `run.json` in its output folder, renewed every 10 s."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any, ClassVar, Final

from stapes.batch.place import Place
from stapes.errors import OutputError
from stapes.runtime.warn import warn

RUN_FILE: Final = "run.json"
_BEAT_S: Final = 10.0
#: A driver on another machine that was not seen for so long is taken for dead.
_DEAD_S: Final = 60.0
_AGAIN_S: Final = 0.25


class Lease:
    """The right of one command to work on a batch: a token in the folder, renewed by a thread."""

    _held: ClassVar[set[str]] = set()  # tokens of this process

    def __init__(self, place: Place) -> None:
        self._place, self.token = place, uuid.uuid4().hex
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="stapes lease", daemon=True)

    def take(self) -> None:
        """Take the lease. Raises OutputError where another command works on this batch."""
        holder = self._place.read_object(RUN_FILE) or {}
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
        check_lease(self._place, self.token)

    def release(self) -> None:
        """Give the lease back."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._held.discard(self.token)
        if self._is_free_or_ours():
            self._beat(ended=True)

    def _is_free_or_ours(self) -> bool:
        holder = self._place.read_object(RUN_FILE)
        return holder is None or holder.get("run") == self.token

    def _beat(self, *, ended: bool = False) -> None:
        values = {"run": self.token, "host": socket.gethostname(), "pid": os.getpid(), "processes": _processes()}
        self._place.write(RUN_FILE, json.dumps({**values, "at": time.time(), "ended": ended}).encode())

    def _renew(self) -> None:
        while not self._ended.wait(_BEAT_S):
            try:
                if not self._is_free_or_ours():
                    return
                self._beat()
            except OutputError as error:  # for a moment, or the next write of the ledger says it
                warn(f"the lease of this batch could not be renewed: {error}")


def check_lease(place: Place, token: str) -> None:
    """Raise OutputError unless the command with this token holds a batch."""
    holder = place.read_object(RUN_FILE)
    if holder is None:  # a disk that cannot replace files has none for a moment
        time.sleep(_AGAIN_S)
        holder = place.read_object(RUN_FILE) or {}
    if holder.get("run") != token:
        raise OutputError(f"{place.shown}: another command has taken this batch over; this one stops")


def seems_alive(holder: dict[str, Any]) -> bool:
    """Return whether the command of another process that holds a lease is at work."""
    at, pid = holder.get("at"), holder.get("pid")
    if holder.get("ended") or not isinstance(at, (int, float)) or not isinstance(pid, int):
        return False
    if (holder.get("host"), holder.get("processes")) == (socket.gethostname(), _processes()) and os.name == "posix":
        if pid == os.getpid():  # an earlier process with the same number
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
    return abs(time.time() - at) <= _DEAD_S


def _processes() -> str:
    """Return what tells this machine's processes from those of a container, or of before a restart; "" if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
