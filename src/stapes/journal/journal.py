"""The journal of a command: each recording's results after every window, so that a run can be resumed.

One SQLite file beside the outputs, in WAL mode: a row per recording, and one per answer that its seek loop was given.
The same answers lead the loop to the same place (`Engine.submit(resume=...)`). One thread reads and writes the file
(`JournalWriter`), in the order in which it was asked to: no window waits for the disk. It writes an answer at once, so
that kill -9 costs the windows of the last second at most, where the disk keeps up; with synchronous=NORMAL so does the
loss of power (https://www.sqlite.org/wal.html#performance_considerations).

A journal is checked before use: its schema must be exactly ours, every row carries a checksum over itself and
the recording's key, answers are checked against the model's bounds. A recording whose rows fail starts again, with a
warning; the others do not. A file that is damaged or no journal is moved aside, not removed.
One process at a time: a second one in the same folder works without a journal, and says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from stapes.journal.codec import MAX_ANSWER_BYTES, Answer, AnswerBounds, answer_from_bytes, answer_to_bytes
from stapes.journal.writer import MAX_QUEUE_BYTES, JournalWriter, Task, wait_for
from stapes.output.files import InputFiles, file_identity, sync_folder
from stapes.runtime.processes import keep_for_ever, register

JOURNAL_NAME: Final = ".stapes-journal.sqlite"
#: of the files that SQLite keeps beside it, and its own
_SUFFIXES: Final = ("-wal", "-shm", "-journal", "")
_ASIDE: Final = re.compile(re.escape(JOURNAL_NAME) + r"\.aside-([0-9]{1,9})(?:-wal|-shm|-journal)?")
_MOST_ASIDE: Final = 3
#: the beginning of a database (https://www.sqlite.org/fileformat2.html#the_database_header)
_MAGIC: Final = b"SQLite format 3\0"
_MOST_TRIES: Final = 4
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
#: characters of the list of what is written
_MOST_FORMATS_LENGTH = 100_000
#: what an answer that waits for the disk takes beside its body
_TASK_BYTES: Final = 1024
#: how long a stopped command waits for the disk
_PATIENCE_S: Final = 10.0

#: What SQLite raises for a file that is damaged; ValueError where its own message is (it cites the file).
_FAILURES: Final = (sqlite3.Error, ValueError)
#: errors that do not depend on the contents of the file
_OUTSIDE: Final = ("locked", "disk I/O error", "disk is full", "unable to open", "permission denied", "out of memory")
#: errors on the values of one row only
_OF_ONE_ROW: Final = (
    sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError,
    OverflowError, ValueError,
)  # fmt: skip

Warn = Callable[[str], None]
Statement = tuple[str, Sequence[object]]


def open_journal(folder: str | os.PathLike[str], warn: Warn, inputs: InputFiles | None = None) -> Journal | None:
    """Open the journal of a folder, or begin one. None, with a warning, where none can be kept.

    inputs: recordings, which a journal must not be.
    """
    path = Path(folder, JOURNAL_NAME)
    without = "this run keeps no journal and cannot be resumed"
    try:
        _check_place(path, inputs or InputFiles())
        return Journal(_connect(path, warn), path, warn)
    except _LockedError:
        warn(f"{folder}: another stapes is working in this folder; {without}")
    except OSError as error:
        warn(f"{path}: {error.strerror or error}; {without}")
    return None


class _LockedError(Exception):
    """Another process holds the journal."""


class _ForeignError(Exception):
    """The file is not a journal of ours."""


def journal_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the files of a folder that are a journal's, by their names: the journal, those beside it, those aside."""
    beside = [Path(folder, JOURNAL_NAME + suffix) for suffix in _SUFFIXES]
    try:
        return [*beside, *(file for file in Path(folder).iterdir() if _ASIDE.fullmatch(file.name))]
    except OSError:  # to be said when it is opened
        return beside


def _check_place(path: Path, inputs: InputFiles) -> None:
    """Raise OSError for a link, for what SQLite would wait for, and for a recording."""
    for file in journal_files(path.parent):
        if (name := inputs.name_of(file)) is not None:
            raise OSError(f"cannot be kept beside {name}, which has its name")
    for suffix in _SUFFIXES:
        file = path.with_name(path.name + suffix)
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(file.lstat().st_mode):
                raise OSError(f"{file.name} is not a file; remove it")


def _connect(path: Path, warn: Warn) -> sqlite3.Connection:
    """Open the journal with an exclusive lock; a damaged one is moved aside."""
    moved = False
    for _ in range(_MOST_TRIES):
        before = file_identity(path)
        with ExitStack() as stack:
            try:
                connection = _taken(path, stack)
            except (_ForeignError, *_FAILURES) as error:
                if moved or not _is_damage(error, path):
                    is_locked = isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
                    raise (_LockedError() if is_locked else OSError(str(error))) from error
                if file_identity(path) == before:
                    moved = True
                    name = _move_aside(path, stack.close).name
                    warn(
                        f"{path}: the journal is damaged or not ours ({error}); it is kept as {name}, and what it "
                        "held is done again"
                    )
                continue
            # Its last holder may have removed the file between our opening and our locking it: then it has no name.
            if before is None or before == file_identity(path):
                stack.pop_all()
                return connection
    raise _LockedError


def _taken(path: Path, stack: ExitStack) -> sqlite3.Connection:
    """Open, lock and check a journal; one that is empty gets its tables. stack: closes it."""
    _check_beginning(path)
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    stack.callback(connection.close)
    connection.text_factory = _text  # one odd row must not fail the others
    for setting in ("trusted_schema=OFF", "cell_size_check=ON", "locking_mode=EXCLUSIVE"):
        connection.execute(f"PRAGMA {setting}")
    _are_tables_there(connection)  # before a change to a file that may be another program's
    connection.execute("PRAGMA journal_mode=WAL").fetchone()
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("BEGIN IMMEDIATE")  # takes the lock, which the locking mode keeps
    if _are_tables_there(connection):
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise _ForeignError("pages of it do not fit together")
    else:
        _make_tables(connection)
    connection.execute("COMMIT")
    return connection


def _check_beginning(path: Path) -> None:
    """Check whether a file is a database, before SQLite removes files that it takes for leftovers."""
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_MAGIC))
    except FileNotFoundError:
        beginning = b""
    if beginning and beginning != _MAGIC:
        raise _ForeignError("file is not a database")
    with suppress(FileNotFoundError):
        if not beginning and path.with_name(path.name + "-wal").stat().st_size:
            raise _ForeignError("the file is empty, and what was added to it later is not")


def _is_damage(error: Exception, path: Path) -> bool:
    """Return whether the contents of the file are at fault. A damaged header may say that the file is read-only."""
    if not isinstance(error, sqlite3.OperationalError):
        return True
    if "readonly" in str(error):
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return not any(words in str(error) for words in _OUTSIDE)


def _move_aside(path: Path, close: Callable[[], None]) -> Path:
    """Rename a journal and the files beside it, and remove the oldest of more than three.

    close: closes it, afterwards: SQLite removes the -wal if it still finds it under its name.
    """
    if sys.platform == "win32":  # renames no open file
        close()
    numbers = sorted({int(found[1]) for file in path.parent.iterdir() if (found := _ASIDE.fullmatch(file.name))})
    aside = path.with_name(f"{path.name}.aside-{numbers[-1] + 1 if numbers else 1}")
    for suffix in _SUFFIXES:
        with suppress(FileNotFoundError):
            file = path.with_name(path.name + suffix)
            if suffix and not file.stat().st_size:  # SQLite has just made it
                file.unlink()
            else:
                file.rename(aside.with_name(aside.name + suffix))
    for number in numbers[: 1 - _MOST_ASIDE]:
        _remove(path.with_name(f"{path.name}.aside-{number}"))
    return aside


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _are_tables_there(connection: sqlite3.Connection) -> bool:
    """Return whether a file holds a journal, or nothing yet. Raises _ForeignError where it holds something else."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    shown = "SELECT name, CASE WHEN length(sql) < 1000 THEN sql END FROM sqlite_master LIMIT 10"
    tables = dict(connection.execute(shown).fetchall())
    if not tables and not application and not version:
        return False
    if application == _APPLICATION and version != _VERSION:
        raise _ForeignError(f"version {version}, of another stapes")
    if application != _APPLICATION or tables != _SCHEMA:
        raise _ForeignError("its tables are not a journal's")
    return True


def _make_tables(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA.values():
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id={_APPLICATION}")
    connection.execute(f"PRAGMA user_version={_VERSION}")


def _remove(path: Path) -> None:
    for suffix in _SUFFIXES:
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()


def _stored_name(stem: str) -> str:
    """Return the name under which a recording is kept: its stem, escaped where it is no UTF-8, as SQLite's text is.

    What is escaped begins with a slash, as no stem does.
    """
    try:
        stem.encode("utf-8")
    except UnicodeEncodeError:
        return f"/{json.dumps(stem)}"
    return stem


def _checksum(*parts: object) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()


class Journal:
    """An open journal, held by this process alone. Any thread may call; nothing here fails a recording.

    Only reads wait for the disk. In a forked child it keeps nothing: the file stays the parent's.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, warn: Warn) -> None:
        """warn: may be called from the writer's thread."""
        self.warn = warn
        self._connection: sqlite3.Connection | None = connection  # the writer's thread uses it; None: failed, or closed
        self._path = path
        self._identity = file_identity(path)
        self._is_given_up = False  # the disk did not answer: the writer's thread may hang, and is not used any more
        self._stored: set[str] = set()  # names of this run
        self._writer = JournalWriter(self._write, self._let_go)
        register(self)

    def after_fork(self) -> None:
        """Leave the file to the parent. Not even closing is allowed (https://www.sqlite.org/howtocorrupt.html, 2.6)."""
        keep_for_ever(self._connection)
        self._connection = None

    def entry(self, stem: str, key: str, bounds: AnswerBounds) -> JournalEntry:
        """Return what is known of a recording whose files are named `stem`; of another key, nothing: it is replaced.

        bounds: of the model's answers.
        """
        entry = JournalEntry(self, stem, key, bounds)
        self._stored.add(entry.stored)
        entry.recall()
        return entry

    def holds(self, stem: str) -> bool:
        """Return whether a recording was begun under this name, under any key, and not finished."""
        return bool(self.ask("SELECT 1 FROM recordings WHERE stem=? AND formats IS NULL", _stored_name(stem)))

    def remove(self, stem: str) -> None:
        """Forget a recording, without waiting."""
        stored = (_stored_name(stem),)
        self.change(("DELETE FROM answers WHERE stem=?", stored), ("DELETE FROM recordings WHERE stem=?", stored))

    @property
    def keeps_something(self) -> bool:
        """Whether a recording of this run is in it, and it has not failed."""
        return self._connection is not None and not self._is_given_up and bool(self._stored)

    def ask(self, question: str, *values: object) -> tuple[tuple[Any, ...], ...]:
        """Return the rows of a query, after all earlier changes; none once the journal has failed."""
        rows: list[tuple[Any, ...]] = []
        answered = threading.Event()

        def read(connection: sqlite3.Connection) -> None:
            rows[:] = connection.execute(question, values).fetchall()

        self._writer.put(Task(run=read, then=answered.set))
        wait_for(answered)
        return tuple(rows)

    def change(self, *statements: Statement) -> None:
        """Queue several changes, made together or not at all."""
        self.put(Task(run=partial(execute, statements)))

    def put(self, task: Task) -> bool:
        """Add a task to those of the writer's thread; False where it has no room (`Task.n_bytes`)."""
        return self._writer.put(task)

    def when_written(self, call: Callable[[], None]) -> None:
        """Call `call` once, from the writer's thread, when all earlier changes are written, or the journal has failed.

        It must neither raise nor wait.
        """
        self.put(Task(then=call))

    def flush(self) -> None:
        """Wait until all earlier changes are written, at most 10 s; then abandon the journal, with a warning."""
        if not self._writer.wait(_PATIENCE_S):
            self._give_up_disk()

    def close(self, *, finished: bool) -> None:
        """Write the queued changes, and close the journal; it is removed if nothing is left in it. Takes 10 s at most.

        finished: the run has ended. Its finished recordings are then forgotten: run again, it transcribes them again.
        """
        done = tuple(self._stored) if finished else ()
        self.change(
            *(("DELETE FROM recordings WHERE stem=? AND formats IS NOT NULL", (stem,)) for stem in done),
            ("DELETE FROM recordings WHERE formats IS NULL AND stem NOT IN (SELECT stem FROM answers)", ()),
            ("DELETE FROM answers WHERE stem NOT IN (SELECT stem FROM recordings)", ()),
        )
        if not self._is_given_up and not self._writer.close(_PATIENCE_S):
            self._give_up_disk()

    def _give_up_disk(self) -> None:
        """Continue although the writer's thread hangs; what it has written stays for the next run."""
        self._is_given_up = True
        self._writer.drop()
        self.warn(
            f"{self._path}: the disk has not taken the journal's latest results within {_PATIENCE_S:g} s, and is not "
            "waited for any longer; the same command would decode those windows again"
        )

    # In the writer's thread.

    def _write(self, tasks: Sequence[Task]) -> None:
        """Do tasks in one transaction, or, where a row of one cannot be written, each in its own."""
        connection = self._connection
        if connection is None or self._is_given_up:
            return
        try:
            connection.execute("BEGIN IMMEDIATE")
            for task in tasks:
                task.run(connection)
            connection.execute("COMMIT")
        except _OF_ONE_ROW as error:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            if len(tasks) == 1:
                tasks[0].refused(error)
            for task in tasks if len(tasks) > 1 else ():
                self._write([task])
        except Exception as error:  # whatever it is, a thread that ends with it would leave others waiting
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Go on without the journal: a full disk or a damaged page must not cost a transcript."""
        connection, self._connection = self._connection, None
        assert connection is not None
        kept = ""
        is_damage = isinstance(error, _FAILURES) and not isinstance(error, sqlite3.OperationalError)
        if is_damage and file_identity(self._path) == self._identity:
            with suppress(OSError):  # damaged: it must not fail the next run too
                kept = f"; it is kept as {_move_aside(self._path, connection.close).name}"
        with suppress(sqlite3.Error):
            connection.close()
        if not self._is_given_up:
            self.warn(f"{self._path}: the journal has failed ({error}){kept}; this run cannot be resumed")

    def _let_go(self) -> None:
        """Close the file; remove it if nothing is left in it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        empty = removed = False
        try:
            if not self._is_given_up:
                empty = connection.execute("SELECT 1 FROM recordings LIMIT 1").fetchone() is None
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


def execute(statements: Iterable[Statement], connection: sqlite3.Connection) -> None:
    """Execute statements with their values."""
    for statement, values in statements:
        connection.execute(statement, values)


class JournalEntry:
    """A journal's entry of one recording."""

    def __init__(self, journal: Journal, stem: str, key: str, bounds: AnswerBounds) -> None:
        self.stored = _stored_name(stem)
        self._journal = journal
        self._stem = stem
        self._key = key
        self._bounds = bounds
        self._takes_notes = True
        self._is_refused = False  # a row of it: what comes after that would be a gap. Set by the writer's thread
        self._n_noted = 0
        self.answers: tuple[Answer, ...] = ()  # of an earlier run
        self.outputs_done: frozenset[str] = frozenset()  # keys of what was written, the last thing of a recording

    def recall(self) -> None:
        """Read the known answers; drop those of another key or damaged ones; note that the recording has begun."""
        rows = self._journal.ask(
            "SELECT formats, CASE WHEN length(checksum) <= 32 THEN checksum END FROM recordings "
            "WHERE stem=? AND key=? AND ifnull(length(formats), 0) <= ?",
            self.stored, self._key, _MOST_FORMATS_LENGTH,
        )  # fmt: skip
        for formats, checksum in rows:
            try:
                _require(formats is None or isinstance(formats, str))
                _require(checksum == _checksum(self.stored, self._key, formats))
                self.answers = tuple(self._read_answers())
                self._n_noted = len(self.answers)
                self.outputs_done = frozenset((formats or "").split())
                return
            except ValueError as error:
                self._journal.warn(f"{self._stem}: the journal's lines are damaged ({error}); it starts again")
        self.forget()

    def _read_answers(self) -> Iterable[Answer]:
        lines = self._journal.ask(
            "SELECT CASE WHEN typeof(number) = 'integer' THEN number END, CASE WHEN length(body) <= ? THEN body END, "
            "CASE WHEN length(checksum) <= 32 THEN checksum END FROM answers WHERE stem=? ORDER BY number LIMIT ?",
            MAX_ANSWER_BYTES,
            self.stored,
            _MOST_ANSWERS,
        )
        _require(len(lines) < _MOST_ANSWERS)
        for place, (number, body, checksum) in enumerate(lines):
            _require(number == place and isinstance(body, bytes))
            _require(checksum == _checksum(self.stored, self._key, number, body))
            yield answer_from_bytes(body, self._bounds)

    def forget(self) -> None:
        """Start the recording again."""
        self.answers, self.outputs_done, self._n_noted = (), frozenset(), 0
        self._change(("DELETE FROM answers WHERE stem=?", (self.stored,)), self._row(None))

    def note(self, answer: Answer) -> None:
        """Add an answer, without waiting. One that could not be read again ends the notes of this recording.

        So does a disk so slow that the queue is full: what was added before is still written.
        """
        if not self._takes_notes:
            return
        body, number = answer_to_bytes(answer), self._n_noted
        try:
            answer_from_bytes(body, self._bounds)
        except ValueError as error:
            self._end_notes(f"window {number} cannot be kept in the journal ({error})")
            return
        checksum = _checksum(self.stored, self._key, number, body)
        statement = ("INSERT INTO answers VALUES (?, ?, ?, ?)", (self.stored, number, body, checksum))
        if self._change(statement, n_bytes=len(body) + _TASK_BYTES):
            self._n_noted += 1
        else:
            self._end_notes(
                f"the disk is too slow for the journal ({MAX_QUEUE_BYTES >> 20} MB of results wait for it); from "
                f"window {number} on none is kept: a resumed run would start there"
            )

    def done(self, outputs: Iterable[str]) -> None:
        """Note that the recording's files are written, by a key each; its answers are removed."""
        self.answers = ()
        self._change(("DELETE FROM answers WHERE stem=?", (self.stored,)), self._row(" ".join(sorted(outputs)) or None))

    def _change(self, *statements: Statement, n_bytes: int = 0) -> bool:
        """Queue changes of this recording's rows; False where there is no room (`Task.n_bytes`)."""
        run = partial(self._insert if n_bytes else execute, statements)
        return self._journal.put(Task(run=run, refused=self._refuse, n_bytes=n_bytes))

    def _insert(self, statements: Iterable[Statement], connection: sqlite3.Connection) -> None:
        if not self._is_refused:
            execute(statements, connection)

    def _refuse(self, error: Exception) -> None:
        """End the notes of this recording, as its rows cannot hold the values; other recordings go on."""
        self._is_refused = True
        self._end_notes(f"cannot be kept in the journal ({error}); it cannot be resumed")

    def _end_notes(self, reason: str) -> None:
        self._takes_notes = False
        self._journal.warn(f"{self._stem}: {reason}")

    def _row(self, formats: str | None) -> Statement:
        checksum = _checksum(self.stored, self._key, formats)
        return "INSERT OR REPLACE INTO recordings VALUES (?, ?, ?, ?)", (self.stored, self._key, formats, checksum)


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError("a line is not what was written")
