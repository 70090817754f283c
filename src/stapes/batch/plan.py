"""The driver's side of the ledger: the manifest sorted by hash, shard by shard, and chunks of what is to be done.

A shard is open from its first chunk until the result of its last one; then it is written. So the memory of a driver
is bounded by the shards that are open, and by one part of the manifest.
"""

from __future__ import annotations

import json
import marshal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import IO, Final

from stapes.batch.ledger import (
    ATTEMPTS,
    MOST_ROWS,
    PARTS,
    RUNNING,
    Attempt,
    Entry,
    attempts_name,
    chunk_name,
    read_attempts,
    read_entries,
    shard_name,
    write_attempts,
    write_entries,
)
from stapes.batch.manifest import BadLine
from stapes.batch.place import Place
from stapes.batch.rows import DONE, FAILED, WAITING, Chunk, ChunkResult, Row
from stapes.batch.sources import shown_uri
from stapes.errors import OptionError, OutputError
from stapes.output.files import why_not_written

#: parts of a manifest on the disk
_PARTS: Final = 64
_SPOOLED_AT_ONCE: Final = 200
#: key, line, id, uri, options
_Spooled = tuple[str, int, str, str, str]
#: most rows of a shard, if the manifest grows no more; one file of the ledger is some 500 kB then
_SHARD_ROWS: Final = 8192
REFUSED_FILE: Final = "refused.jsonl"
_MOST_REFUSED: Final = 10_000  # lines whose reasons are kept


class Spool:
    """A manifest that was read: its rows in temporary files without names, as addresses in them may be credentials, and
    the lines that are refused.
    """

    def __init__(self) -> None:
        self._files = ExitStack()
        with _disk_errors():
            self._parts: list[IO[bytes]] = [
                self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (closed by `close`)
                for _ in range(_PARTS)
            ]
        self._new: list[list[_Spooled]] = [[] for _ in self._parts]  # not in the files yet
        self.n_rows = self.n_refused = 0
        self.refused: list[BadLine] = []  # the first ones

    def add(self, line: int, row: Row) -> None:
        """Take a row. line: its number in the manifest."""
        part = int(row.key[:2], 16) * _PARTS // 256
        new = self._new[part]
        new.append((row.key, line, row.id, row.uri, row.options))
        if len(new) >= _SPOOLED_AT_ONCE:
            with _disk_errors():
                self._write(part)
        self.n_rows += 1

    def refuse(self, bad: BadLine) -> None:
        """Note a line that is not transcribed."""
        self.n_refused += 1
        if len(self.refused) < _MOST_REFUSED:
            self.refused.append(bad)

    def _write(self, part: int) -> None:
        data = marshal.dumps(self._new[part])
        self._parts[part].write(len(data).to_bytes(8, "big") + data)  # `marshal.load` reads a file byte by byte
        self._new[part].clear()

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yield (line, row), sorted by key, then by line."""
        for part, file in enumerate(self._parts):
            found: list[_Spooled] = []
            with _disk_errors():
                self._write(part)
                file.seek(0)
                while size := int.from_bytes(file.read(8), "big"):
                    found += marshal.loads(file.read(size))  # noqa: S302 (of this process: the file has no name)
            for key, line, id_, uri, options in sorted(found):
                yield line, Row(key, id_, uri, options)

    def close(self) -> None:
        """Remove the files."""
        self._files.close()


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"the temporary copy of the manifest: {why_not_written(error)} (TMPDIR)") from error


def digits_for(n_rows: int) -> int:
    """Return how many digits of a key name its shard."""
    digits = 0
    while n_rows > _SHARD_ROWS * 16**digits:
        digits += 1
    return digits


@dataclass(slots=True)
class _Shard:
    """A shard with chunks in work."""

    entries: dict[str, Entry]
    open: set[str] = field(default_factory=set)  # names of chunks without a result
    finished: list[str] = field(default_factory=list)  # names of chunks whose attempts are taken over
    is_issued: bool = False


class Plan:
    """Makes chunks of a manifest, and takes their results over into the ledger."""

    def __init__(
        self,
        place: Place,
        spool: Spool,
        *,
        digits: int,
        chunk_rows: int,
        retry_failed: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._place, self._spool, self._digits, self._chunk_rows = place, spool, digits, chunk_rows
        self._check = check
        self._retry_failed = retry_failed
        self._shards: dict[str, _Shard] = {}
        self._attempts = {name.removesuffix(".parquet") for name in place.names(ATTEMPTS)}
        shards = set(place.names("ledger"))  # parts of others are left of one that was removed
        self._orphans = [one for one in place.names(PARTS) if f"{one.rpartition('-')[0]}.parquet" not in shards]
        self.n_duplicates = self.n_colliding = 0  # rows
        self.before: Counter[str] = Counter()  # state -> rows that had ended before this run
        self.audio_before_s = 0.0

    def chunks(self) -> Iterator[Chunk]:
        """Yield what is to be done, one shard after the other. Raises OptionError, OutputError."""
        for shard, rows in groupby(self._spool.rows(), lambda one: one[1].key[: self._digits]):
            yield from self._chunks_of(shard, self._distinct(rows))

    def _distinct(self, rows: Iterator[tuple[int, Row]]) -> dict[str, tuple[int, Row]]:
        """Return rows by key; of several with one key the first one, if they are not the same."""
        found: dict[str, tuple[int, Row]] = {}
        for line, row in rows:
            first_line, first = found.setdefault(row.key, (line, row))
            if first_line == line:
                continue
            if (row.uri, row.options, row.id) == (first.uri, first.options, first.id):
                self.n_duplicates += 1
                continue
            self.n_colliding += 1
            if row.id != first.id:
                reason = f"its files would be those of line {first_line}: ids {row.id!r} and {first.id!r}"
            elif (shown_uri(row.uri), row.options) == (shown_uri(first.uri), first.options):
                reason = f"differs from line {first_line} in its address's query alone; give both rows an id"
            else:
                reason = f"its id {row.id!r} is that of line {first_line}, with another recording or options"
            self._spool.refuse(BadLine(line, reason))
        return found

    def _chunks_of(self, shard: str, rows: dict[str, tuple[int, Row]]) -> Iterator[Chunk]:
        name, prefix = shard_name(shard), chunk_name(shard, 0)[:-5]
        data = self._place.read(name)
        entries = {} if data is None else {one.key: one for one in read_entries(data, name)}
        if data is None:  # its rows begin anew, maybe in other chunks
            self._place.delete([f"{PARTS}/{one}" for one in self._orphans if one.startswith(prefix)])
        if self._merge(entries, rows):
            self._place.write(name, write_entries(entries.values()))
        opened = _Shard(entries)
        waiting: dict[int, list[Row]] = {}
        for key, (_, row) in rows.items():
            entry = entries[key]
            if entry.state == WAITING:
                waiting.setdefault(entry.chunk, []).append(replace(row, tries=entry.tries))
            else:
                self.before[entry.state] += 1
                self.audio_before_s += entry.duration_s if entry.state == DONE else 0.0
        chunks = [Chunk(chunk_name(shard, number), tuple(found)) for number, found in sorted(waiting.items())]
        opened.open = {chunk.name for chunk in chunks}
        left = {one for one in self._attempts if one.startswith(prefix)}
        self._attempts -= left
        self._place.delete([attempts_name(one) for one in left - opened.open])  # taken over before
        if self._retry_failed:
            for one in left & opened.open:
                self._amend(one, _try_anew)
        self._shards[shard] = opened
        yield from chunks
        opened.is_issued = True
        self._end_if_done(shard)

    def _merge(self, entries: dict[str, Entry], rows: dict[str, tuple[int, Row]]) -> bool:
        """Add new rows to a shard's entries; return whether anything has changed."""
        number = max((entry.chunk for entry in entries.values()), default=-1) + 1
        n_new, is_changed = 0, False
        for line, row in rows.values():
            entry, uri = entries.get(row.key), shown_uri(row.uri)
            if entry is None:
                chunk = number + n_new // self._chunk_rows
                entries[row.key] = Entry(key=row.key, id=row.id, uri=uri, options=row.options, chunk=chunk)
                n_new += 1
                continue
            differs = (entry.id, entry.uri, entry.options) != (row.id, uri, row.options)
            if differs and entry.state == DONE:
                raise OptionError(
                    f"line {line}: {row.id!r} was transcribed before, from another recording or with other options; "
                    "give the row another id, or the batch another output folder"
                )
            if differs or (entry.state == FAILED and self._retry_failed):
                entry.id, entry.uri, entry.options, entry.state, entry.tries = row.id, uri, row.options, WAITING, 0
                entry.reason = entry.error = None
                is_changed = True
        if len(entries) > MOST_ROWS:
            raise OptionError(
                f"a shard of the ledger would have {len(entries):,} rows: the manifest has grown too much since the "
                "batch was begun; give the new rows another output folder"
            )
        return bool(n_new) or is_changed

    def take(self, result: ChunkResult) -> list[Entry]:
        """Take over what became of a chunk, and return the rows that have ended with it. A second result is ignored."""
        shard = result.name.rpartition("-")[0]
        key = "" if shard == "all" else shard
        opened = self._shards.get(key)
        if opened is None or result.name not in opened.open:
            return []
        ended = []
        for one in result.rows:
            entry = opened.entries[one.key]
            entry.take(one)
            if one.state != WAITING:
                ended.append(entry)
        opened.open.discard(result.name)
        opened.finished.append(result.name)
        self._end_if_done(key)
        return ended

    def _end_if_done(self, shard: str) -> None:
        opened = self._shards[shard]
        if opened.is_issued and not opened.open:
            self._write(shard, self._shards.pop(shard))

    def _write(self, shard: str, opened: _Shard) -> None:
        if opened.finished:
            self._check()
            self._place.write(shard_name(shard), write_entries(opened.entries.values()))
            self._place.delete([attempts_name(one) for one in opened.finished])

    def close(self) -> None:
        """Write shards that are still open. Tries that this command has interrupted do not count.

        Call it when no worker is at work any more.
        """
        self._check()
        left = set(self._place.names(ATTEMPTS))
        for opened in self._shards.values():
            for chunk in opened.open:
                if f"{chunk}.parquet" in left:
                    self._amend(chunk, _interrupted)
        while self._shards:
            self._write(*self._shards.popitem())

    def _amend(self, chunk: str, change: Callable[[Attempt], None]) -> None:
        """Change the attempts of a chunk."""
        name = attempts_name(chunk)
        data = self._place.read(name)
        if data is not None:
            attempts = read_attempts(data, name)
            for attempt in attempts:
                change(attempt)
            self._place.write(name, write_attempts(attempts))


def _try_anew(attempt: Attempt) -> None:
    if attempt.state == FAILED:
        attempt.state, attempt.tries, attempt.reason, attempt.error = WAITING, 0, None, None


def _interrupted(attempt: Attempt) -> None:
    if attempt.state == RUNNING:
        attempt.state, attempt.tries = WAITING, attempt.tries - 1


def refused_lines(refused: Sequence[BadLine]) -> bytes:
    """Return the file of refused lines: one JSON object a line."""
    return "".join(json.dumps({"line": one.line, "reason": one.reason}) + "\n" for one in refused).encode()
