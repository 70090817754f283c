"""Reads manifests: lines, CSV, TSV, JSON lines or Parquet -> rows, and bad lines with their reasons.

A relative path counts from the current directory. A row without an id is named after its absolute path or its address.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path, PurePath
from typing import IO, Any, Final, get_type_hints

from stapes.batch.rows import Row
from stapes.batch.sources import is_address, opened, row_key, short_hash, shown_uri
from stapes.errors import AudioError, OptionError
from stapes.options import GROUPS, TranscribeOptions, option_fields, unknown_option
from stapes.options.other_programs import advice
from stapes.options.texts import NotReadError, reader_of
from stapes.runtime.warn import warn

KINDS: Final = ("lines", "csv", "tsv", "jsonl", "parquet")
#: columns that name the recording; the last one is NeMo's
RECORDING_COLUMNS: Final = ("uri", "path", "url", "audio", "file", "audio_filepath")
_SUFFIXES: Final = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".jsonlines": "jsonl",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_OPTIONS: Final = {item.name: get_type_hints(GROUPS[group])[item.name] for group, item in option_fields()}
#: options of other programs that, as columns, describe recordings
_OF_RECORDINGS: Final = frozenset({"duration", "format", "device", "num_speakers"})
_MAX_LINE_BYTES: Final = 1 << 20
_MAX_ID: Final = 512
_MAX_REASON: Final = 300
_LOOK_BYTES: Final = 1 << 16
_FETCH_TIMEOUT_S: Final = 60.0
_PARQUET_ROWS: Final = 4096  # decoded at once
_MAX_KNOWN: Final = 4096  # different options, and columns, that are kept in memory
_MAX_IGNORED: Final = 20  # columns that the warning names
_ENCODE: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_DECODE: Final = json.JSONDecoder().decode
_is_absolute: Final = os.path.isabs
_RECORDING, _ID, _IGNORED = "recording", "id", "ignored"


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """A row that can be transcribed."""

    line: int  # from 1, a header included; of Parquet, the number of the row
    row: Row


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that names no recording, or asks for what cannot be."""

    line: int
    reason: str


_Found = Iterator[ManifestRow | BadLine]


def read_manifest(manifest: str, kind: str | None = None, *, base: Mapping[str, Any] | None = None) -> _Found:
    """Yield the rows and the bad lines of a manifest in their order; no more than some rows are in memory.

    manifest: a path, an address, or "-" for standard input.   kind: one of KINDS; None: by the suffix, before ".gz".
    base: options of the whole batch, which a row's options must go with.
    Raises OptionError at the first row if the manifest cannot be read, names no recording, or has columns that seem to
    be misspelt options. Other unknown columns are ignored, with one warning at the end.
    """
    name = "standard input" if manifest == "-" else shown_uri(manifest)
    suffixes = [one.lower() for one in PurePath(name).suffixes]
    is_packed = suffixes[-1:] == [".gz"]
    kind = kind or _SUFFIXES.get("".join(suffixes[:-1][-1:] if is_packed else suffixes[-1:]), "lines")
    if kind not in KINDS:
        raise OptionError(f"{kind!r} is no kind of manifest; give one of {', '.join(KINDS)}")
    reader = _Reader(name, base or {})
    n_rows = 0
    try:
        with _opened(manifest) as file:
            for n_rows, found in enumerate(reader.rows(file, kind, is_packed=is_packed), 1):  # noqa: B007 (used below)
                yield found
    except (AudioError, OSError, EOFError) as error:  # EOFError: the end of a .gz is missing
        reason = str(error) if isinstance(error, AudioError) else getattr(error, "strerror", None) or error
        raise OptionError(f"the manifest {name} cannot be read: {reason}") from None
    if not n_rows:
        raise OptionError(f"the manifest {name} names no recording: it is empty")
    reader.warn_of_ignored()


@contextmanager
def _opened(manifest: str) -> Iterator[IO[bytes]]:
    if manifest == "-":
        file = io.BufferedReader(sys.stdin.buffer, 2 * _LOOK_BYTES)  # type: ignore[type-var]  # as good as a raw one
        try:
            yield file
        finally:
            file.detach()  # or it would be closed
    elif is_address(manifest):
        folder = Path(tempfile.gettempdir())
        with (
            opened(manifest, timeout_s=_FETCH_TIMEOUT_S, folder=folder) as path,
            path.open("rb", buffering=2 * _LOOK_BYTES) as copy,
        ):
            yield copy
    else:
        with Path(shown_uri(manifest)).open("rb", buffering=2 * _LOOK_BYTES) as local:
            yield local


class _Reader:
    """Reads one manifest."""

    def __init__(self, name: str, base: Mapping[str, Any]) -> None:
        self._name = name
        self._base = base
        self._folder = str(Path.cwd() / "x")[:-1]
        self._ignored: list[str] = []
        self._roles: dict[str, str] = {}  # column -> _RECORDING, _ID, _IGNORED, or the option
        self._json: dict[str, str] = {}  # options as Python shows them -> as JSON
        self._problem: str | None = None  # of a line that was read since this was looked at
        self._refusal = lru_cache(maxsize=_MAX_KNOWN)(self._refusal_of)
        self._of_texts = lru_cache(maxsize=_MAX_KNOWN)(self._options_of_texts)

    def rows(self, file: IO[bytes], kind: str, *, is_packed: bool) -> _Found:
        """Yield what a manifest of this kind holds."""
        if kind == "parquet":
            yield from self._parquet(file)
            return
        text = io.BufferedReader(gzip.GzipFile(fileobj=file), 2 * _LOOK_BYTES) if is_packed else file
        head = text.peek(_LOOK_BYTES)[:_LOOK_BYTES]  # type: ignore[attr-defined]  # of every buffered reader
        if b"\0" in head:
            raise OptionError(f"the manifest {self._name} is binary, not UTF-8 text; say what it is with its suffix")
        if kind == "jsonl" and head.lstrip()[:1] == b"[":
            raise OptionError(f"the manifest {self._name} is one JSON array; write one object on each line")
        lines = self._lines(text)
        if kind in ("csv", "tsv"):
            ended = (f"{line}\n" for line in lines)  # a quoted text may go on
            yield from self._table(csv.reader(ended, delimiter="\t" if kind == "tsv" else ","))
            return
        read = self._json_line if kind == "jsonl" else self._place
        for number, line in enumerate(lines, 1):
            if self._problem is not None:
                yield BadLine(number, self._taken_problem())
            elif line and not line.isspace():
                yield read(number, line)

    def warn_of_ignored(self) -> None:
        """Name the columns that had no meaning here, if there were any."""
        if self._ignored:
            names = ", ".join(map(repr, self._ignored[:_MAX_IGNORED]))
            more = f" and {len(self._ignored) - _MAX_IGNORED} more" if len(self._ignored) > _MAX_IGNORED else ""
            warn(f"the manifest {self._name}: these columns are no options and were ignored: {names}{more}")

    def _lines(self, file: IO[bytes]) -> Iterator[str]:
        """Yield lines without their ends; "" for one that cannot be read, whose problem is kept."""
        line = file.readline(_MAX_LINE_BYTES + 1).removeprefix(b"\xef\xbb\xbf")
        while line:
            if len(line) > _MAX_LINE_BYTES:
                self._problem = f"longer than {_MAX_LINE_BYTES >> 20} MiB"
                while line and not line.endswith(b"\n"):
                    line = file.readline(_MAX_LINE_BYTES)
                line = b""
            try:
                text = line.decode()
            except UnicodeDecodeError:
                self._problem, text = "not UTF-8 text", line.decode(errors="replace")
            yield text.rstrip("\r\n")
            line = file.readline(_MAX_LINE_BYTES + 1)

    def _taken_problem(self) -> str:
        problem, self._problem = self._problem, None
        return problem or ""

    def _table(self, reader: Any) -> _Found:
        header = next(reader, None)
        if header is None:
            return
        roles = self._header(header)
        place, ident = roles.index(_RECORDING), roles.index(_ID) if _ID in roles else None
        columns = [(number, role) for number, role in enumerate(roles) if role in _OPTIONS]
        names = tuple(role for _, role in columns)
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._problem = f"no row of a table: {error}; is a quote not closed?"
                fields = []
            if self._problem is not None:
                yield BadLine(line, self._taken_problem())
            elif fields and len(fields) != len(roles):
                yield BadLine(line, f"{len(fields)} fields, but {len(roles)} in the header")
            elif fields:
                options = self._of_texts(names, tuple(fields[number] for number, _ in columns)) if names else "{}"
                yield self._place(line, fields[place], None if ident is None else fields[ident] or None, options)

    def _json_line(self, line: int, text: str) -> ManifestRow | BadLine:
        try:
            values = _DECODE(text)
        except (ValueError, RecursionError):  # RecursionError: thousands of brackets, one in another
            return BadLine(line, "not JSON")
        return self._values(line, values) if isinstance(values, dict) else BadLine(line, "not a JSON object")

    def _parquet(self, file: IO[bytes]) -> _Found:
        try:
            import pyarrow as pa  # noqa: PLC0415 (not in the base install)
            import pyarrow.parquet as pq  # noqa: PLC0415 (as above)
        except ImportError:
            raise OptionError(f"the manifest {self._name} needs another package: pip install pyarrow") from None
        try:
            if not file.seekable():
                raise OptionError(f"the manifest {self._name}: Parquet is not read from a pipe; give a file")
            table = pq.ParquetFile(file)
            names = table.schema_arrow.names
            roles = self._header(names)
            used = [name for name, role in zip(names, roles, strict=True) if role != _IGNORED]
            batches = table.iter_batches(_PARQUET_ROWS, columns=used)
            for line, values in enumerate((row for batch in batches for row in batch.to_pylist()), 1):
                yield self._values(line, values)
        except pa.ArrowException as error:
            reason = str(error).partition("\n")[0][:_MAX_REASON]
            raise OptionError(f"the manifest {self._name} is no Parquet file, or is damaged: {reason}") from None

    def _header(self, names: Sequence[str]) -> list[str]:
        """Return what each column is. Raises OptionError unless exactly one of them names the recording."""
        roles = [self._role(name) for name in names]
        twice = [role for role in roles if role != _IGNORED and roles.count(role) > 1]
        if _RECORDING not in roles or twice:
            what = f"several columns for {twice[0]}" if twice else "no column for the recording"
            raise OptionError(
                f"the manifest {self._name} has {what} in its header; it needs one of {', '.join(RECORDING_COLUMNS)}, "
                "may have id, and options of docs/options.md"
            )
        return roles

    def _role(self, column: str) -> str:
        role = self._roles.get(column)
        if role is None:
            name = column.strip().lower()
            role = _RECORDING if name in RECORDING_COLUMNS else name if name == _ID or name in _OPTIONS else _IGNORED
            if role == _IGNORED:
                self._refuse_misspelt(name)
            if len(self._roles) < _MAX_KNOWN:  # names of keys may be data
                self._roles[column] = role
                self._ignored += [column] if role == _IGNORED else []
        return role

    def _refuse_misspelt(self, name: str) -> None:
        if name in _OF_RECORDINGS:
            return
        if advice(name, "transcribe", _OPTIONS) is not None or get_close_matches(name, _OPTIONS, n=1, cutoff=0.8):
            raise OptionError(
                f"the manifest {self._name}: {unknown_option(name)}; if the column is no option, give it another name"
            )

    def _values(self, line: int, values: Mapping[str, Any]) -> ManifestRow | BadLine:
        """Make a row of typed values."""
        place, ident, options = None, None, {}
        for column, value in values.items():
            role = self._roles.get(column) or self._role(column)
            if role == _IGNORED or value is None or value == "":
                continue
            if value != value:  # noqa: PLR0124 (NaN: pandas writes it where there is none)
                continue
            if role == _RECORDING:
                if place is not None:
                    return BadLine(line, f"names the recording twice; give one of {', '.join(RECORDING_COLUMNS)}")
                place = value
            elif role == _ID:
                ident = value
            else:  # pandas writes whole numbers as 5.0 where a column has gaps
                is_whole = isinstance(value, float) and value.is_integer() and _OPTIONS[role] in (int, int | None)
                options[role] = int(value) if is_whole else value
        return self._place(line, place, ident, self._canonical(options) if options else "{}")

    def _canonical(self, options: Mapping[str, Any]) -> str:
        """Return options as JSON, from memory where possible: making it takes longer than reading the line."""
        shown = repr(options)
        if (known := self._json.get(shown)) is None:
            if len(self._json) >= _MAX_KNOWN:
                self._json.clear()
            known = self._json[shown] = _canonical(options)
        return known

    def _options_of_texts(self, names: tuple[str, ...], texts: tuple[str, ...]) -> str:
        """Return the options of a table's row as JSON, or why not."""
        options = {}
        for name, text in zip(names, texts, strict=True):
            if text:
                try:
                    options[name] = reader_of(name, _OPTIONS[name])[0](text)
                except NotReadError as error:
                    return f"{name}: {error}"
        return _canonical(options)

    def _refusal_of(self, options: str) -> str | None:
        """Return why options cannot be, or None."""
        if not options.startswith("{"):
            return options
        try:
            TranscribeOptions.from_keywords({**self._base, **json.loads(options)})
        except OptionError as error:
            return str(error)
        return None

    def _place(self, line: int, uri: Any, ident: Any = None, options: str = "{}") -> ManifestRow | BadLine:
        """Make a row."""
        reason = None if options == "{}" else self._refusal(options)
        if reason is None:
            reason = _wrong_recording(uri) or (None if ident is None else _wrong_id(ident))
        if reason is not None:
            return BadLine(line, reason[:_MAX_REASON])
        try:
            name = shown = shown_uri(uri)
        except OptionError as error:
            return BadLine(line, str(error))
        if "://" not in shown or not is_address(uri):
            uri = shown if _is_absolute(shown) else self._folder + shown.removeprefix("./")
            name = uri
        name = short_hash(name) if ident is None else shown_uri(ident)
        return ManifestRow(line, Row(row_key(name), name, uri, options))


def _canonical(options: Mapping[str, Any]) -> str:
    try:
        return _ENCODE(options)
    except (TypeError, ValueError):  # a date of Parquet, or infinity
        return f"options must be numbers, texts, True or False, or lists: {', '.join(sorted(options))}"


def _wrong_recording(uri: Any) -> str | None:
    if uri is None or uri == "":
        return f"names no recording; give one of {', '.join(RECORDING_COLUMNS)}"
    if not isinstance(uri, str):
        return f"the recording must be a path or an address, got {type(uri).__name__}"
    if "\0" in uri or "\n" in uri:
        return "the recording's name has a NUL or a line break in it; is a quote not closed?"
    return _not_utf8(uri)


def _wrong_id(ident: Any) -> str | None:
    if not isinstance(ident, str):
        return f"id must be text, got {type(ident).__name__}"
    if len(ident) > _MAX_ID:
        return f"id has {len(ident)} characters; at most {_MAX_ID}"
    if not ident.isprintable() and any(ord(one) < 32 or 127 <= ord(one) < 160 for one in ident):
        return "id has control characters in it"
    if "::" in ident and "://" in ident:
        return "id is made of several addresses; give it another one"
    return _not_utf8(ident)


def _not_utf8(text: str) -> str | None:
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, from JSON
        return "not UTF-8 text"
    return None
