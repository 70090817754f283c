"""The jobs of a server in one SQLite file: what was asked for, how far it is, and every event with its number.

All calls block for the disk (synchronous=FULL): what is told to a client is on the disk. One thread at a time.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

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


class JobSize(NamedTuple):
    """What a job takes on the disk beside its result, in bytes."""

    id: str
    owner: str
    has_ended: bool
    n_bytes: int


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
            found = {sql for (sql,) in self._connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
            #: whether the file was not there, or empty
            self.is_new = not found
            if self.is_new:
                self._make_tables()
                return
            ((application,),) = self._connection.execute("PRAGMA application_id")
            ((version,),) = self._connection.execute("PRAGMA user_version")
            if (application, version) != (_APPLICATION, _VERSION):
                raise OutputError(f"{path}: not a file of jobs of this version of stapes; move it away")
            ((damage,),) = self._connection.execute("PRAGMA integrity_check(1)")
            if damage != "ok" or found != set(_SCHEMA):
                raise sqlite3.DatabaseError(damage if damage != "ok" else "a table is not ours")
        except (sqlite3.Error, OSError) as error:
            if "locked" in str(error):
                raise OutputError(f"{path}: another server uses it") from error
            why = getattr(error, "strerror", None) or str(error)
            raise OutputError(
                f"{path}: damaged, or no file of jobs ({why}); restore it, or move it away: uploads and results "
                "beside it are kept"
            ) from error

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

    def known(self, owner: str, idempotency: str | None) -> StoredJob | None:
        """Return the job for which its owner has used an idempotency key."""
        if idempotency is None:
            return None
        with self._lock:
            found = self._jobs("WHERE owner=? AND idempotency=?", (owner, idempotency))
        return found[0] if found else None

    def add(self, job: StoredJob) -> None:
        """Add a job."""
        values = (
            job.id, job.owner, job.state, job.priority, job.created, job.started, job.ended,
            json.dumps(job.fields), job.filename, job.sha256, job.size, job.duration_s, job.done_s,
            None if job.error is None else json.dumps(job.error), json.dumps(job.warnings),
            job.attempts, job.idempotency, job.fingerprint,
        )  # fmt: skip
        with self._transaction() as connection:
            connection.execute(f"INSERT INTO jobs ({_COLUMNS}) VALUES ({','.join('?' * len(values))})", values)  # noqa: S608

    def begin(self, job: str, now: float) -> StoredJob | None:
        """Have a queued job run, and return it; None if it is not queued any more."""
        with self._transaction() as connection:
            statement = (
                "UPDATE jobs SET state='running', attempts=attempts+1, started=coalesce(started, ?) "
                "WHERE id=? AND state='queued'"
            )
            if not connection.execute(statement, (now, job)).rowcount:
                return None
            return self._jobs("WHERE id=?", (job,))[0]

    def cancel_queued(self, job: str, now: float) -> bool:
        """End a queued job; False if it is not queued any more."""
        with self._transaction() as connection:
            statement = "UPDATE jobs SET state='cancelled', ended=? WHERE id=? AND state='queued'"
            if not connection.execute(statement, (now, job)).rowcount:
                return False
            self._add_event(job, AFTER_ALL, {"type": "job.cancelled"})
            return True

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
                self._add_event(job, number, body)

    def _add_event(self, job: str, number: int, body: dict[str, Any]) -> None:
        if number == AFTER_ALL:
            last = self._connection.execute("SELECT coalesce(max(number), 0) FROM events WHERE job=?", (job,))
            number = int(last.fetchone()[0]) + 1
        self._connection.execute("INSERT OR IGNORE INTO events VALUES (?, ?, ?)", (job, number, json.dumps(body)))

    def get(self, job: str, owner: str | None = None) -> StoredJob | None:
        """Return a job, of this owner alone if one is given."""
        with self._lock:
            found = self._jobs("WHERE id=?", (job,))
        return found[0] if found and owner in (None, found[0].owner) else None

    def listed(self, owner: str, limit: int, before: float) -> list[StoredJob]:
        """Return an owner's jobs that were created before a time, the newest first."""
        with self._lock:
            return self._jobs("WHERE owner=? AND created<? ORDER BY created DESC LIMIT ?", (owner, before, limit))

    def waiting(self, most: int) -> list[str]:
        """Return queued jobs in the order in which they begin."""
        return self._ids("WHERE state='queued' ORDER BY priority DESC, created LIMIT ?", most)

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

    def recover(self) -> list[str]:
        """Queue the jobs again that were running when the last server ended; return all jobs."""
        with self._transaction() as connection:
            connection.execute("UPDATE jobs SET state='queued' WHERE state='running'")
        return self._ids("")

    def ended_before(self, when: float) -> list[str]:
        """Return the jobs that ended before a time."""
        return self._ids("WHERE ended<?", when)

    def beyond(self, n_kept: int) -> list[str]:
        """Return the ended jobs of each owner but so many that ended last."""
        place = "row_number() OVER (PARTITION BY owner ORDER BY ended DESC) AS place"
        question = f"SELECT id FROM (SELECT id, {place} FROM jobs WHERE ended IS NOT NULL) WHERE place>?"  # noqa: S608
        with self._lock:
            return [str(name) for (name,) in self._connection.execute(question, (n_kept,))]

    def sizes(self) -> list[JobSize]:
        """Return what each job takes in the file, and with its upload, those that ended first first."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT id, owner, ended IS NOT NULL, length(fields) + coalesce((SELECT sum(length(body)) FROM events "
                "WHERE job=id), 0) + CASE WHEN ended IS NULL THEN size ELSE 0 END FROM jobs ORDER BY ended"
            ).fetchall()
        return [JobSize(str(name), str(owner), bool(has_ended), int(size)) for name, owner, has_ended, size in rows]

    def remove(self, job: str) -> None:
        """Forget a job and its events."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM events WHERE job=?", (job,))
            connection.execute("DELETE FROM jobs WHERE id=?", (job,))

    def _ids(self, rest: str, *values: object) -> list[str]:
        with self._lock:
            return [str(name) for (name,) in self._connection.execute(f"SELECT id FROM jobs {rest}", values)]  # noqa: S608

    def _jobs(self, rest: str, values: Sequence[object]) -> list[StoredJob]:
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM jobs {rest}", values).fetchall()  # noqa: S608
        names = _COLUMNS.split(", ")
        return [_job(dict(zip(names, row, strict=True))) for row in rows]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def _job(values: dict[str, Any]) -> StoredJob:
    """Return a row as a job; one that another program has damaged has failed."""
    fields, error, warnings = (values.pop(name) for name in ("fields", "error", "warnings"))
    try:
        return StoredJob(
            **values,
            fields=tuple((str(name), str(value)) for name, value in json.loads(fields)),
            error=None if error is None else dict(json.loads(error)),
            warnings=tuple(map(str, json.loads(warnings))),
        )
    except (ValueError, TypeError, RecursionError):
        damaged = {"message": "The job's entry is damaged.", "type": "server_error", "param": None, "code": None}
        return StoredJob(**values | {"state": "failed"}, fields=(), error=damaged)
