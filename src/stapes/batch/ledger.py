"""The ledger of a batch: one entry for each row, in Parquet files of a hash's beginning, sorted by hash.

A shard (`ledger/3f.parquet`) is written by the driver alone. While a chunk is in work, its worker keeps the attempts
(`ledger/attempts/3f-00012.parquet`): which tries have begun, and what became of them. The driver takes attempts over
into the shard, and then removes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

from stapes.batch.rows import DONE, FAILED, WAITING, RowResult
from stapes.errors import OutputError

if TYPE_CHECKING:
    import pyarrow

#: a state in attempts alone: a try has begun, and no result is known
RUNNING: Final = "running"
_STATES: Final = (WAITING, RUNNING, DONE, FAILED)
ATTEMPTS: Final = "ledger/attempts"
PARTS: Final = "transcripts"
#: A shard has some 8,000 rows at most. What claims to hold many more is not read.
MOST_ROWS: Final = 1_000_000


@dataclass(slots=True)
class Entry(RowResult):
    """A row of the manifest, and what became of it."""

    id: str = ""
    uri: str = ""  # without its query
    options: str = "{}"
    chunk: int = 0  # its number in the shard, for good: a Parquet output has the rows of one chunk

    def take(self, result: RowResult) -> None:
        """Take over what became of the row."""
        for item in fields(RowResult):
            setattr(self, item.name, getattr(result, item.name))


@dataclass(slots=True)
class Attempt(RowResult):
    """The latest try of a row; its state may be RUNNING, too."""

    transcript: str | None = None  # as JSON, where it goes into a Parquet output; None: it has its files
    of: str = ""  # hash of the recording and the options that it is of: a manifest may change

    @property
    def result(self) -> RowResult:
        """What became of it. A try that has begun counts, unless its worker is known to have been stopped."""
        values = {item.name: getattr(self, item.name) for item in fields(RowResult)}
        return RowResult(**{**values, "state": WAITING if self.state == RUNNING else self.state})


_Kind = TypeVar("_Kind", Entry, Attempt)


def shard_name(shard: str) -> str:
    """Return the file of a shard. shard: the beginning of its rows' keys; empty: there is one shard."""
    return f"ledger/{shard or 'all'}.parquet"


def attempts_name(chunk: str) -> str:
    """Return the file of a chunk's attempts."""
    return f"{ATTEMPTS}/{chunk}.parquet"


def chunk_name(shard: str, number: int) -> str:
    """Return the name of a chunk."""
    return f"{shard or 'all'}-{number:05d}"


def part_name(chunk: str) -> str:
    """Return the Parquet file of a chunk's transcripts."""
    return f"{PARTS}/{chunk}.parquet"


def write_entries(entries: Iterable[Entry]) -> bytes:
    """Return a shard's file."""
    return to_parquet(sorted((asdict(one) for one in entries), key=lambda one: str(one["key"])), Entry)


def read_entries(data: bytes, name: str) -> list[Entry]:
    """Return a shard's entries. Raises OutputError where the file is none that `write_entries` made."""
    return _from_parquet(data, name, Entry)


def write_attempts(attempts: Iterable[Attempt]) -> bytes:
    """Return a file of attempts."""
    return to_parquet([asdict(one) for one in attempts], Attempt)


def read_attempts(data: bytes, name: str) -> list[Attempt]:
    """Return attempts. Raises OutputError where the file is none that `write_attempts` made."""
    return _from_parquet(data, name, Attempt)


def _schema(kind: type) -> pyarrow.Schema:
    import pyarrow as pa  # noqa: PLC0415 (of the extra `batch`)

    types = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
    return pa.schema([(item.name, types[str(item.type).removesuffix(" | None")]) for item in fields(kind)])


def to_parquet(rows: Sequence[dict[str, Any]], schema: Any) -> bytes:
    """Return rows as a Parquet file. schema: Arrow's, or a dataclass with the fields."""
    import pyarrow as pa  # noqa: PLC0415 (as above)
    from pyarrow import parquet  # noqa: PLC0415 (as above)

    schema = _schema(schema) if isinstance(schema, type) else schema
    stream = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows, schema), stream, compression="zstd", write_statistics=False)
    return stream.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _from_parquet(data: bytes, name: str, kind: type[_Kind]) -> list[_Kind]:
    """Read rows, and check them: another program may have written the file."""
    import pyarrow as pa  # noqa: PLC0415 (as above)
    from pyarrow import parquet  # noqa: PLC0415 (as above)

    damaged = f"{name}: this part of the ledger is damaged; restore it, or remove it, and its rows begin anew"
    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        if file.metadata.num_rows > MOST_ROWS or not file.schema_arrow.equals(_schema(kind)):
            raise OutputError(damaged)
        columns = [column.to_pylist() for column in file.read(use_threads=False).columns]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise OutputError(damaged) from error
    names = [item.name for item in fields(kind)]
    for column, item in zip(columns, fields(kind), strict=True):
        if None in column and "None" not in str(item.type):
            raise OutputError(damaged)
    states = _STATES if "transcript" in names else (WAITING, DONE, FAILED)  # no attempt is in work in a shard
    if not set(columns[names.index("state")]) <= set(states):
        raise OutputError(damaged)
    return [kind(*values) for values in zip(*columns, strict=True)]
