"""One chunk of rows in one worker, from its first try to what became of each row.

Running a chunk again is always safe, and always ends: a try is counted before it begins, in a file that the next
worker reads. Rows that are done are left out. A row whose last try has ended its worker is tried alone, and fails
after `most_tries`. Only one worker at a time runs a chunk; one that a dead driver left behind writes the same text.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from stapes.batch.lease import check_lease
from stapes.batch.ledger import (
    PARTS,
    RUNNING,
    Attempt,
    attempts_name,
    part_name,
    read_attempts,
    to_parquet,
    write_attempts,
)
from stapes.batch.place import Place
from stapes.batch.rows import DONE, FAILED, WAITING, Chunk, ChunkResult, Row, Work
from stapes.batch.sources import file_stem, scrub, short_hash, shown_uri
from stapes.batch.transcription import Transcription
from stapes.errors import AudioError, FetchError, OptionError, OutputError
from stapes.output.writers import formatted
from stapes.results import Transcript

PARQUET: Final = "parquet"
#: reason of a row that fails because its worker ended in every try
LOST_WORKER: Final = "LostWorker"

#: Results are written once a second, or less often where that takes more than a twentieth of the time.
_SAVE_S: Final = 1.0
_SAVE_SHARE: Final = 20
_MOST_TEXT: Final = 500  # characters of an error
#: before a row is tried again, doubled each time
_PAUSE_S: Final = 0.25
_MOST_PAUSE_S: Final = 30.0


def output_name(row: Row, kind: str) -> str:
    """Return the file of a row's transcript. Folders by hash: a million files in one folder are slow to list."""
    return f"{PARTS}/{row.key[:2]}/{file_stem(row.id)}.{kind}"


class ChunkRun:
    """Runs a chunk."""

    def __init__(self, work: Work, place: Place, engine: Any, chunk: Chunk) -> None:
        self._work, self._place, self._engine, self._chunk = work, place, engine, chunk
        self._rows = {row.key: row for row in chunk.rows}
        self._attempts = {
            row.key: Attempt(key=row.key, state=WAITING, tries=row.tries, of=_hash_of(row)) for row in chunk.rows
        }
        self._known: list[Attempt] = []  # of rows that are not in this chunk any more
        self._saved_s, self._cost_s = time.monotonic(), 0.0

    def run(self) -> ChunkResult:
        """Run until every row is done or has failed.

        Raises OutputError where the output folder cannot be written, or another driver has taken the batch over.
        """
        self._read()
        try:
            self._try_all()
        except OutputError:  # no fault of a recording
            for attempt in self._attempts.values():
                if attempt.state == RUNNING:
                    attempt.state, attempt.tries = WAITING, attempt.tries - 1
            with suppress(OutputError):
                self._save()
            raise
        self._save()
        if self._work.formats == (PARQUET,):
            self._write_part()
        results = tuple(attempt.result for attempt in self._attempts.values())
        return ChunkResult(self._chunk.name, results, f"{socket.gethostname()}:{os.getpid()}")

    def _try_all(self) -> None:
        alone = [one.key for one in self._attempts.values() if one.tries and one.state in (WAITING, RUNNING)]
        alone.sort(key=lambda key: self._attempts[key].tries)  # what has ended most workers comes last
        n_passes = 0
        while keys := self._open(set(self._rows) - set(alone)):
            _pause(n_passes)
            self._try(keys)
            n_passes += 1
        for key in alone:
            n_passes = 0
            while self._open({key}):
                _pause(n_passes)
                self._try([key])
                n_passes += 1

    def _read(self) -> None:
        """Take over what earlier workers of this chunk have written."""
        name = attempts_name(self._chunk.name)
        data = self._place.read(name)
        for attempt in () if data is None else read_attempts(data, name):
            if attempt.key in self._attempts:
                if attempt.of == self._attempts[attempt.key].of:
                    self._attempts[attempt.key] = attempt
            else:
                self._known.append(attempt)

    def _open(self, keys: set[str]) -> list[str]:
        """Return which of these rows may be tried; those that have no try left fail."""
        found = []
        for key in self._rows:  # in the chunk's order
            attempt = self._attempts[key]
            if key not in keys or attempt.state in (DONE, FAILED):
                continue
            if attempt.tries < self._work.most_tries:
                found.append(key)
                continue
            attempt.state = FAILED
            if attempt.error is None:
                attempt.reason = LOST_WORKER
                attempt.error = f"the worker ended in each of {attempt.tries} tries; none has left a reason"
        return found

    def _try(self, keys: list[str]) -> None:
        for key in keys:
            attempt = self._attempts[key]
            attempt.state, attempt.tries, attempt.reason, attempt.error = RUNNING, attempt.tries + 1, None, None
            attempt.transcript = None
        self._save()
        with tempfile.TemporaryDirectory(prefix="stapes-", ignore_cleanup_errors=True) as folder:
            transcription = Transcription(self._engine, self._work, Path(folder), self._write)
            with closing(transcription.run([self._rows[key] for key in keys])) as outcomes:
                for row, outcome, duration_s in outcomes:
                    self._note(row, outcome, duration_s)
                    self._save_now_and_then()

    def _write(self, row: Row, transcript: Transcript) -> None:
        """Keep a transcript: in its files, or for the chunk's Parquet file in the attempts."""
        if self._work.formats == (PARQUET,):
            self._attempts[row.key].transcript = json.dumps(transcript.to_dict())
            return
        for kind in self._work.formats:
            # A lone surrogate has no UTF-8 form; text from a tokenizer never holds one.
            self._place.write(output_name(row, kind), formatted(transcript, kind).encode("utf-8", errors="replace"))

    def _note(self, row: Row, outcome: Transcript | Exception, duration_s: float) -> None:
        """Note how a try has ended."""
        attempt = self._attempts[row.key]
        attempt.duration_s = duration_s
        if isinstance(outcome, Transcript):
            attempt.state, attempt.language, attempt.duration_s = DONE, outcome.language, outcome.duration_s
            attempt.isa = self._engine.info.isa or self._engine.info.backend
            attempt.warning = scrub("; ".join(outcome.warnings), row.uri)[:_MOST_TEXT] or None
            return
        if isinstance(outcome, OutputError):  # not this row's fault, and the next would fail too
            raise outcome
        is_final = isinstance(outcome, AudioError | OptionError) and not isinstance(outcome, FetchError)
        attempt.state = FAILED if is_final or attempt.tries >= self._work.most_tries else WAITING
        attempt.reason = type(outcome).__name__
        attempt.error = scrub(" ".join(str(outcome).split()), row.uri)[:_MOST_TEXT]

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved_s > max(_SAVE_S, _SAVE_SHARE * self._cost_s):
            self._save()

    def _save(self) -> None:
        began_s = time.monotonic()
        check_lease(self._place, self._work.run)
        data = write_attempts([*self._attempts.values(), *self._known])
        self._place.write(attempts_name(self._chunk.name), data)
        self._saved_s = time.monotonic()
        self._cost_s = self._saved_s - began_s

    def _write_part(self) -> None:
        """Write the chunk's transcripts, beside those that an earlier run has written."""
        import pyarrow as pa  # noqa: PLC0415 (of the extra `batch`)
        from pyarrow import parquet  # noqa: PLC0415 (as above)

        rows = [self._part_row(one) for one in self._attempts.values() if one.state == DONE and one.transcript]
        if not rows:
            return
        name = part_name(self._chunk.name)
        earlier = self._place.read(name)
        if earlier is not None:
            made = {row["key"] for row in rows}
            try:
                table = parquet.read_table(pa.BufferReader(earlier), schema=_part_schema())
            except (pa.ArrowException, OSError, ValueError) as error:
                raise OutputError(f"{self._place.shown}/{name}: is damaged; restore it, or remove it") from error
            rows += [row for row in table.to_pylist() if row["key"] not in made]
        rows.sort(key=lambda row: str(row["key"]))
        self._place.write(name, to_parquet(rows, _part_schema()))

    def _part_row(self, attempt: Attempt) -> dict[str, Any]:
        row, transcript = self._rows[attempt.key], json.loads(attempt.transcript or "{}")
        return {
            "key": row.key,
            "id": row.id,
            "uri": shown_uri(row.uri),
            "language": attempt.language,
            "duration_s": attempt.duration_s,
            "text": transcript["text"],
            "segments": [
                {"start_s": one["start"], "end_s": one["end"], "text": one["text"]} for one in transcript["segments"]
            ],
            "json": attempt.transcript,
        }


def _hash_of(row: Row) -> str:
    return short_hash(f"{shown_uri(row.uri)} {row.options}")


def _pause(n_passes: int) -> None:
    """Wait before another try: longer each time."""
    if n_passes:
        time.sleep(min(_PAUSE_S * 2**n_passes, _MOST_PAUSE_S))


def _part_schema() -> Any:
    import pyarrow as pa  # noqa: PLC0415 (as above)

    text, seconds = pa.string(), pa.float64()
    segments = pa.list_(pa.struct([("start_s", seconds), ("end_s", seconds), ("text", text)]))
    return pa.schema(
        [
            ("key", text),
            ("id", text),
            ("uri", text),
            ("language", text),
            ("duration_s", seconds),
            ("text", text),
            ("segments", segments),
            ("json", text),
        ]
    )
