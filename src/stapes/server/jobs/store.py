"""The jobs of a server in one SQLite file: what was asked for, how far it is, and every event with its number.

All calls block for the disk (synchronous=FULL): what is told to a client is on the disk. One thread at a time.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from stapes.errors import OutputError

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
#: the number of a job's last event, while those of its segments are not known
AFTER_ALL: Final = -1
ENDED: Final = ("done", "failed", "cancelled")
#: "stpj", and the version of the schema
_APPLICATION, _VERSION = 0x7374706A, 2
_SCHEMA: Final = (
    "CREATE TABLE jobs (id TEXT PRIMARY KEY NOT NULL, owner TEXT NOT NULL, state TEXT NOT NULL, priority INTEGER NOT "
    "NULL, created REAL NOT NULL, started REAL, ended REAL, fields TEXT NOT NULL, filename TEXT NOT NULL, sha256 TEXT "
    "NOT NULL, size INTEGER NOT NULL, duration_s REAL, done_s REAL NOT NULL, error TEXT, warnings TEXT NOT NULL, "
    "attempts INTEGER NOT NULL, idempotency TEXT, fingerprint TEXT NOT NULL, UNIQUE (owner, idempotency)) "
    "WITHOUT ROWID",
    "CREATE TABLE events (job TEXT NOT NULL, number INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (job, number)) "
    "WITHOUT ROWID",
)
_COLUMNS: Final = (
    "id, owner, state, priority, created, started, ended, fields, filename, sha256, size, duration_s, done_s, error, "
    "warnings, attempts, idempotency, fingerprint"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJob:
    """A job. Times in seconds since 1970; `done_s`: how much of the audio is done."""

    id: str
    owner: str  # name of the key; "" where none is needed
    fields: tuple[tuple[str, str], ...]  # of the form, as they were sent
    filename: str
    sha256: str  # of the upload
    size: int
    fingerprint: str  # of all that was sent
    idempotency: str | None = None
    state: JobState = "queued"
    priority: int = 0
    created: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    duration_s: float | None = None
    done_s: float = 0.0
    error: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    attempts: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ENDED


class JobStore:
    """The file of jobs."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it. Raises OutputError for a file that is damaged or not ours."""
        self._lock = threading.Lock()
        try:
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            ((application,),) = self._connection.execute("PRAGMA application_id")
            ((version,),) = self._connection.execute("PRAGMA user_version")
            ((tables,),) = self._connection.execute("SELECT count(*) FROM sqlite_master")
            ((damage,),) = self._connection.execute("PRAGMA quick_check(1)")
            if damage != "ok":
                raise OutputError(f"{path}: damaged ({damage}); move it away, or restore it")
            if not tables:
                self._make_tables()
            elif (application, version) != (_APPLICATION, _VERSION):
                raise OutputError(f"{path}: not a file of jobs of this version of stapes; move it away")
        except (sqlite3.Error, OSError) as error:
            why = "another server uses it" if "locked" in str(error) else str(error)
            raise OutputError(f"{path}: jobs cannot be kept here: {why}") from error

    def _make_tables(self) -> None:
        with self._transaction() as connection:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={_APPLICATION}")
            connection.execute(f"PRAGMA user_version={_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite has ended it itself where the disk is full
                    self._connection.execute("ROLLBACK")
                raise

    def add(self, job: StoredJob) -> StoredJob:
        """Add a job; of an idempotency key that its owner has used, return the earlier one instead."""
        with self._transaction() as connection:
            if job.idempotency is not None:
                found = self._jobs("WHERE owner=? AND idempotency=?", (job.owner, job.idempotency))
                if found:
                    return found[0]
            values = (
                job.id, job.owner, job.state, job.priority, job.created, job.started, job.ended,
                json.dumps(job.fields), job.filename, job.sha256, job.size, job.duration_s, job.done_s,
                None if job.error is None else json.dumps(job.error), json.dumps(job.warnings),
                job.attempts, job.idempotency, job.fingerprint,
            )  # fmt: skip
            connection.execute(f"INSERT INTO jobs ({_COLUMNS}) VALUES ({','.join('?' * len(values))})", values)  # noqa: S608
            return job

    def update(self, job: str, events: Sequence[tuple[int, dict[str, Any]]] = (), **values: Any) -> None:
        """Change a job and add events, together; an event whose number is there already is not added again.

        The number AFTER_ALL stands for the next one.
        """
        changed = {
            name: json.dumps(one) if name in ("error", "warnings") and one is not None else one
            for name, one in values.items()
        }
        with self._transaction() as connection:
            if changed:
                names = ", ".join(f"{name}=?" for name in changed)
                connection.execute(f"UPDATE jobs SET {names} WHERE id=?", (*changed.values(), job))  # noqa: S608
            for number, body in events:
                if number == AFTER_ALL:
                    last = connection.execute("SELECT coalesce(max(number), 0) FROM events WHERE job=?", (job,))
                    place = int(last.fetchone()[0]) + 1
                else:
                    place = number
                connection.execute("INSERT OR IGNORE INTO events VALUES (?, ?, ?)", (job, place, json.dumps(body)))

    def get(self, job: str, owner: str | None = None) -> StoredJob | None:
        """Return a job, of this owner alone if one is given."""
        with self._lock:
            found = self._jobs("WHERE id=?", (job,))
        return found[0] if found and owner in (None, found[0].owner) else None

    def listed(self, owner: str, limit: int, before: float) -> list[StoredJob]:
        """Return an owner's jobs that were created before a time, the newest first."""
        with self._lock:
            return self._jobs("WHERE owner=? AND created<? ORDER BY created DESC LIMIT ?", (owner, before, limit))

    def waiting(self) -> list[StoredJob]:
        """Return the queued jobs in the order in which they begin."""
        with self._lock:
            return self._jobs("WHERE state='queued' ORDER BY priority DESC, created LIMIT 1000", ())

    def count_open(self, owner: str) -> int:
        """Return how many of an owner's jobs have not ended."""
        with self._lock:
            question = "SELECT count(*) FROM jobs WHERE owner=? AND state IN ('queued', 'running')"
            ((count,),) = self._connection.execute(question, (owner,))
        return int(count)

    def events(self, job: str, after: int) -> list[tuple[int, dict[str, Any]]]:
        """Return a job's events with higher numbers, at most 1,000."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT number, body FROM events WHERE job=? AND number>? ORDER BY number LIMIT 1000", (job, after)
            ).fetchall()
        return [(number, json.loads(body)) for number, body in rows]

    def recover(self) -> list[StoredJob]:
        """Queue the jobs again that were running when the last server ended; return all that have not ended."""
        with self._transaction() as connection:
            connection.execute("UPDATE jobs SET state='queued' WHERE state='running'")
            return self._jobs("WHERE state='queued'", ())

    def queue_again(self, running: Collection[str]) -> None:
        """Queue the jobs again whose end could not be kept; running: those that are at work."""
        with self._transaction() as connection:
            for job in self._jobs("WHERE state='running'", ()):
                if job.id not in running:
                    values = max(0, job.attempts - 1), job.id
                    connection.execute("UPDATE jobs SET state='queued', attempts=? WHERE id=?", values)

    def ended(self) -> list[StoredJob]:
        """Return the jobs that have ended, those that ended first first."""
        with self._lock:
            return self._jobs("WHERE ended IS NOT NULL ORDER BY ended LIMIT 10000", ())

    def remove(self, job: str) -> None:
        """Forget a job and its events."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM events WHERE job=?", (job,))
            connection.execute("DELETE FROM jobs WHERE id=?", (job,))

    def _jobs(self, rest: str, values: Sequence[object]) -> list[StoredJob]:
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM jobs {rest}", values).fetchall()  # noqa: S608
        names = _COLUMNS.split(", ")
        return [_job(dict(zip(names, row, strict=True))) for row in rows]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def _job(values: dict[str, Any]) -> StoredJob:
    fields = tuple((str(name), str(value)) for name, value in json.loads(values.pop("fields")))
    error, warnings = values.pop("error"), tuple(map(str, json.loads(values.pop("warnings"))))
    return StoredJob(**values, fields=fields, error=None if error is None else json.loads(error), warnings=warnings)
