"""What travels between the driver and its workers: rows of a manifest, chunks of them, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WAITING: Final = "waiting"
DONE: Final = "done"
FAILED: Final = "failed"
#: `Work.load`
LOAD_ENGINE: Final = "stapes.batch.worker:load_engine"


@dataclass(frozen=True, slots=True)
class Row:
    """A recording of the manifest."""

    key: str  # 32 hexadecimal digits: a hash of the id, equal for ids whose files could not be told apart
    id: str
    uri: str  # as it is opened: a query in it may be a credential, and is never written or shown
    options: str = "{}"  # keywords of `Engine.submit` beside those of the whole batch, as canonical JSON
    tries: int = 0  # that ended without a result, as far as the driver knows


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that one worker takes at once."""

    name: str  # "3f-00012": its shard, and its number there
    rows: tuple[Row, ...]


@dataclass(slots=True)
class RowResult:
    """What became of a row."""

    key: str
    state: str = WAITING  # DONE, FAILED, or WAITING: its worker was stopped in good order
    tries: int = 0  # this one included
    reason: str | None = None  # of a failure, in a word: the name of an error
    error: str | None = None  # the sentence
    warning: str | None = None  # of a transcript: "the file is truncated"
    duration_s: float = 0.0  # of the recording
    language: str | None = None
    isa: str | None = None  # the instruction set of the worker's kernels


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What became of a chunk's rows."""

    name: str
    rows: tuple[RowResult, ...]
    worker: str = ""  # host and process


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What every worker of a batch is told. Picklable; equal in all of them."""

    out: str  # where outputs and ledger lie: an absolute path, or a URI
    run: str  # the driver's token: a worker of an earlier driver stops where it sees another one
    model: str  # a name, an absolute path, or a URI
    model_sha256: str  # what the weights must be
    precision: str  # resolved by the driver, never "auto"
    device: str
    threads: int | None  # of one worker
    options: str = "{}"  # keywords of `Engine.submit` for every row, as JSON
    formats: tuple[str, ...] = ("json",)  # names of output.writers.WRITERS, or ("parquet",)
    most_tries: int = 3
    fetch_timeout_s: float = 60.0  # of a recording that sends no byte
    max_duration_s: float | None = None
    concurrency: int | None = None  # recordings at once in one worker; None: as many as is sensible
    load: str = LOAD_ENGINE  # "module:function", (Work) -> engine; another one in tests

    def most_losses(self, chunk: Chunk) -> int:
        """Return how many workers a chunk may end: each row all its tries, and some that are taken away."""
        return self.most_tries * len(chunk.rows) + 3
