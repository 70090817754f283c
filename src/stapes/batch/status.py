"""The state of a batch, read from its output folder; while it is in work, too."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from stapes.batch.lease import RUN_FILE, seems_alive
from stapes.batch.ledger import ATTEMPTS, RUNNING, read_attempts, read_entries
from stapes.batch.place import Place
from stapes.batch.plan import REFUSED_FILE
from stapes.batch.rows import DONE, FAILED, WAITING
from stapes.batch.settings import Settings, read_settings
from stapes.errors import OutputError

#: files that are read at once: stores answer slowly
_READING: Final = 16
_MOST_EXAMPLES: Final = 20


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that has failed."""

    id: str
    reason: str
    error: str


@dataclass(slots=True, kw_only=True)
class Status:
    """The state of a batch. Rows that no run has come to yet are not in the ledger."""

    settings: Settings
    rows: Counter[str] = field(default_factory=Counter)  # by state; RUNNING: a try has begun
    audio_s: float = 0.0  # of rows that are done
    reasons: Counter[str] = field(default_factory=Counter)  # of failed rows
    failures: list[Failure] = field(default_factory=list)  # the first ones
    refused: int = 0  # lines of the manifest, at the end of the last run
    driver: str | None = None  # host and process of the command that works on it
    seen_s: float | None = None  # how long ago it was there


def read_status(place: Place, most_failures: int = _MOST_EXAMPLES) -> Status:
    """Return the state of a batch. Raises OutputError where there is none."""
    settings = read_settings(place)
    if settings is None:
        raise OutputError(f"{place.shown}: no batch was begun here; 'stapes batch MANIFEST -o FOLDER' begins one")
    status = Status(settings=settings)
    ended: set[str] = set()
    with ThreadPoolExecutor(_READING) as pool:
        shards = [f"ledger/{name}" for name in place.names("ledger")]
        for name, data in zip(shards, pool.map(place.read, shards), strict=True):
            for entry in () if data is None else read_entries(data, name):
                _count(status, entry, most_failures)
                if entry.state != WAITING:
                    ended.add(entry.key)
        attempts = [f"{ATTEMPTS}/{name}" for name in place.names(ATTEMPTS)]
        for name, data in zip(attempts, pool.map(place.read, attempts), strict=True):
            for attempt in () if data is None else read_attempts(data, name):
                if attempt.key not in ended and attempt.state != WAITING:
                    status.rows[WAITING] -= 1
                    _count(status, attempt, most_failures)
    refused = place.read(REFUSED_FILE)
    status.refused = 0 if refused is None else refused.count(b"\n")
    _read_driver(place, status)
    return status


def _count(status: Status, row: Any, most_failures: int) -> None:
    status.rows[row.state] += 1
    if row.state == DONE:
        status.audio_s += row.duration_s
    if row.state == FAILED:
        status.reasons[row.reason or ""] += 1
        if len(status.failures) < most_failures:
            status.failures.append(Failure(getattr(row, "id", row.key), row.reason or "", row.error or ""))


def _read_driver(place: Place, status: Status) -> None:
    values = place.read_object(RUN_FILE)
    if values and not values.get("ended"):
        status.seen_s = max(0.0, time.time() - float(values.get("at", 0.0)))
        if seems_alive(values):
            status.driver = f"{values.get('host')}, process {values.get('pid')}"
        else:
            status.rows[WAITING] += status.rows.pop(RUNNING, 0)
