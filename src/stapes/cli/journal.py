"""The journal of a command: what is known of each recording after every window, so that a broken run can go on.

One SQLite file beside the outputs, in WAL mode: a row per recording, and one per answer that its seek loop was given.
The same answers lead the loop to the same place (`Engine.submit(resume=...)`). A window is in the journal before the
next one begins; with synchronous=NORMAL that survives kill -9 at any moment, and the loss of power costs the last
windows at most (https://www.sqlite.org/wal.html#performance_considerations).

Nothing in a journal is believed: its schema must be ours to the letter, every row carries a checksum over itself and
the recording's key, answers are checked against the model's bounds. What fails is thrown away, with a warning; the
recording begins anew. One process at a time: a second one in the same folder works without a journal, and says so.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from stapes.cli.answers import MAX_ANSWER_BYTES, Answer, AnswerBounds, answer_from_bytes, answer_to_bytes
from stapes.writers import sync_folder

JOURNAL_NAME: Final = ".stapes-journal.sqlite"
#: "stap"; and the version of the schema below
_APPLICATION, _VERSION = 0x73746170, 1
_SCHEMA: Final = {
    "recordings": "CREATE TABLE recordings (stem TEXT PRIMARY KEY NOT NULL, key TEXT NOT NULL, formats TEXT, "
    "checksum BLOB NOT NULL) WITHOUT ROWID",
    "answers": "CREATE TABLE answers (stem TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL, "
    "checksum BLOB NOT NULL, PRIMARY KEY (stem, number)) WITHOUT ROWID",
}
#: a year of audio in windows of 30 s
_MOST_ANSWERS = 1_000_000

#: What SQLite raises for a file that is damaged; ValueError where its own message is (it cites the file).
_FAILURES: Final = (sqlite3.Error, ValueError)

Warn = Callable[[str], None]


def open_journal(folder: str | os.PathLike[str], bounds: AnswerBounds, warn: Warn) -> Journal | None:
    """Open the journal of a folder, or begin one. None, with a warning, where none can be kept."""
    path = Path(folder, JOURNAL_NAME)
    without = "this run keeps no journal: broken off, it would begin anew"
    try:
        _check_place(path)
        return Journal(_connect(path, warn), path, bounds, warn)
    except _LockedError:
        warn(f"{folder}: another stapes is at work in this folder; {without}")
    except OSError as error:
        warn(f"{path}: {error}; {without}")
    return None


class _LockedError(Exception):
    """Another process holds the journal."""


class _ForeignError(Exception):
    """The file is not a journal of ours."""


def _check_place(path: Path) -> None:
    """Raise OSError for what SQLite would follow elsewhere, or wait for."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError("is in the way, and no file; remove it")


def _connect(path: Path, warn: Warn) -> sqlite3.Connection:
    """Open the journal and hold it alone; one that is damaged is replaced."""
    try:
        return _open(path)
    except (_ForeignError, *_FAILURES) as error:
        # Locked is the one failure that says nothing of what is in the file.
        if _is_locked(error):
            raise _LockedError from error
        warn(f"{path}: the journal is damaged or not ours ({error}); what it held is done again")
        _remove(path)
    try:
        return _open(path)
    except (_ForeignError, *_FAILURES) as error:
        raise (_LockedError() if _is_locked(error) else OSError(str(error))) from error


def _is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _open(path: Path) -> sqlite3.Connection:
    """Open, lock and check a journal; one that is empty gets its tables."""
    for _ in range(3):
        before = _identity(path)
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            for setting in ("trusted_schema=OFF", "cell_size_check=ON", "locking_mode=EXCLUSIVE"):
                connection.execute(f"PRAGMA {setting}")
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("BEGIN IMMEDIATE")  # takes the lock, which the locking mode keeps
            _check_or_make_tables(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        # Its last holder may have removed the file between our opening and our locking it: then it has no name.
        if before is None or before == _identity(path):
            return connection
        connection.close()
    raise sqlite3.OperationalError("database is locked")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_or_make_tables(connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    shown = "SELECT name, CASE WHEN length(sql) < 1000 THEN sql END FROM sqlite_master LIMIT 10"
    tables = dict(connection.execute(shown).fetchall())
    if not tables and not application and not version:
        for statement in _SCHEMA.values():
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={_APPLICATION}")
        connection.execute(f"PRAGMA user_version={_VERSION}")
    elif application == _APPLICATION and version != _VERSION:
        raise _ForeignError(f"version {version}, of another stapes")
    elif application != _APPLICATION or tables != _SCHEMA:
        raise _ForeignError("its tables are not a journal's")
    else:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise _ForeignError("pages of it do not fit together")


def _remove(path: Path) -> None:
    for suffix in ("-wal", "-shm", "-journal", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()


def _checksum(*parts: object) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()


class Journal:
    """An open journal, held by this process alone. Any thread may call; nothing here fails a recording."""

    def __init__(self, connection: sqlite3.Connection, path: Path, bounds: AnswerBounds, warn: Warn) -> None:
        self.bounds = bounds
        self.warn = warn
        self._connection: sqlite3.Connection | None = connection
        self._path = path
        self._lock = threading.Lock()
        self._stems: set[str] = set()  # of this run

    def entry(self, stem: str, key: str) -> JournalEntry:
        """Give what is known of a recording whose files are named `stem`; of another key, nothing: it is replaced."""
        self._stems.add(stem)
        entry = JournalEntry(self, stem, key)
        entry.recall()
        return entry

    def holds(self, stem: str) -> bool:
        """Tell whether a recording was begun under this name, by whatever key, and not finished."""
        rows = self.ask("SELECT formats FROM recordings WHERE stem=?", stem)
        return any(formats is None for (formats,) in rows)

    def close(self, *, finished: bool) -> None:
        """Let go of the journal; it is removed if nothing is left in it.

        finished: the run has come to its end. What it has done is forgotten then: run again, it works again.
        """
        for stem in self._stems if finished else ():
            self.change(("DELETE FROM recordings WHERE stem=? AND formats IS NOT NULL", (stem,)))
        self.change(
            ("DELETE FROM recordings WHERE formats IS NULL AND stem NOT IN (SELECT stem FROM answers)", ()),
            ("DELETE FROM answers WHERE stem NOT IN (SELECT stem FROM recordings)", ()),
        )
        empty = self._connection is not None and not self.ask("SELECT 1 FROM recordings LIMIT 1")
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                self._let_go(connection, empty=empty)

    def _let_go(self, connection: sqlite3.Connection, *, empty: bool) -> None:
        removed = False
        try:
            if empty:
                # Out of WAL mode, closing removes no file any more: one of that name may be another's by then.
                connection.execute("PRAGMA journal_mode=DELETE").fetchone()
                with suppress(PermissionError):  # Windows removes no open file
                    self._path.unlink()
                    removed = True
        except (OSError, *_FAILURES) as error:
            self.warn(f"{self._path}: {error}")
        finally:
            connection.close()
        if empty and not removed:
            with suppress(OSError):
                _remove(self._path)
        sync_folder(self._path.parent)

    def ask(self, question: str, *values: object) -> list[tuple[Any, ...]]:
        """Give the rows that answer a question; none once the journal has failed."""
        with self._lock:
            try:
                return self._connection.execute(question, values).fetchall() if self._connection else []
            except _FAILURES as error:
                self._give_up(error)
                return []

    def change(self, *statements: tuple[str, Sequence[object]]) -> None:
        """Make several changes, or none of them."""
        with self._lock:
            if self._connection is None:
                return
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                for statement, values in statements:
                    self._connection.execute(statement, values)
                self._connection.execute("COMMIT")
            except _FAILURES as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Go on without the journal: a full disk or a damaged page must not cost a transcript."""
        connection, self._connection = self._connection, None
        assert connection is not None
        with suppress(sqlite3.Error):
            connection.close()
        self.warn(f"{self._path}: the journal has failed ({error}); broken off, this run would begin anew")
        if not isinstance(error, sqlite3.OperationalError):  # damaged: it must not fail the next run too
            with suppress(OSError):
                _remove(self._path)


class JournalEntry:
    """What a journal knows of one recording."""

    def __init__(self, journal: Journal, stem: str, key: str) -> None:
        self._journal = journal
        self._stem = stem
        self._key = key
        self._writes = True
        self._n_noted = 0
        self.answers: tuple[Answer, ...] = ()  # of an earlier run
        self.outputs_done: frozenset[str] = frozenset()  # keys of what was written, the last thing of a recording

    def recall(self) -> None:
        """Read what is known; throw it away if it is of another key, or damaged; note that the recording has begun."""
        rows = self._journal.ask("SELECT key, formats, checksum FROM recordings WHERE stem=?", self._stem)
        known = next(iter(rows), None)
        if known is not None and known[0] == self._key:
            key, formats, checksum = known
            try:
                _require(checksum == _checksum(self._stem, key, formats))
                self.answers = tuple(self._read_answers())
                self._n_noted = len(self.answers)
                self.outputs_done = frozenset((formats or "").split())
                return
            except ValueError as error:
                self._journal.warn(f"{self._stem}: the journal's lines are damaged ({error}); it is begun anew")
        self.forget()

    def _read_answers(self) -> Iterable[Answer]:
        lines = self._journal.ask(
            "SELECT number, CASE WHEN length(body) <= ? THEN body END, checksum FROM answers "
            "WHERE stem=? ORDER BY number LIMIT ?",
            MAX_ANSWER_BYTES,
            self._stem,
            _MOST_ANSWERS,
        )
        _require(len(lines) < _MOST_ANSWERS)
        for place, (number, body, checksum) in enumerate(lines):
            _require(number == place and isinstance(body, bytes))
            _require(checksum == _checksum(self._stem, self._key, number, body))
            yield answer_from_bytes(body, self._journal.bounds)

    def forget(self) -> None:
        """Begin the recording anew."""
        self.answers, self.outputs_done, self._n_noted = (), frozenset(), 0
        self._journal.change(("DELETE FROM answers WHERE stem=?", (self._stem,)), self._row(None))

    def note(self, answer: Answer) -> None:
        """Add an answer. One that could not be read again ends the notes of this recording."""
        if not self._writes:
            return
        body, number = answer_to_bytes(answer), self._n_noted
        try:
            answer_from_bytes(body, self._journal.bounds)
        except ValueError as error:
            self._writes = False
            self._journal.warn(f"{self._stem}: window {number} cannot be kept in the journal ({error})")
            return
        checksum = _checksum(self._stem, self._key, number, body)
        self._journal.change(("INSERT INTO answers VALUES (?, ?, ?, ?)", (self._stem, number, body, checksum)))
        self._n_noted += 1

    def done(self, outputs: Iterable[str]) -> None:
        """Note that the recording's files are written, by a key each; how they came about is not needed any more."""
        self.answers = ()
        self._journal.change(
            ("DELETE FROM answers WHERE stem=?", (self._stem,)), self._row(" ".join(sorted(outputs)) or None)
        )

    def _row(self, formats: str | None) -> tuple[str, Sequence[object]]:
        checksum = _checksum(self._stem, self._key, formats)
        return "INSERT OR REPLACE INTO recordings VALUES (?, ?, ?, ?)", (self._stem, self._key, formats, checksum)


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError("a line is not what was written")
