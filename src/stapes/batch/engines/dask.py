"""Chunks on a Dask cluster, or on processes of this machine that Dask starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from stapes.batch.rows import Chunk, ChunkResult, Work
from stapes.errors import BackendError, OptionError

if TYPE_CHECKING:
    from dask.distributed import Client, Future

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_IN_FLIGHT: Final = 2  # chunks of each worker: one that it transcribes, one that waits there
_SILENT: Final = 100  # above every level of logging: what matters reaches the driver as an exception


def run(
    work: Work,
    chunks: Iterator[Chunk],
    *,
    address: str | None = None,
    workers: int | None = None,
    insecure_cluster: bool = False,
) -> Generator[ChunkResult]:
    """Yield the results of chunks in the order in which they end. A chunk whose worker died is sent again.

    address: of a scheduler, "tls://host:8786"; None starts `workers` processes here (None: one).
    insecure_cluster: allow a scheduler on another machine that anyone who reaches it may give code to.
    """
    if address is not None and not insecure_cluster and not _is_safe(address):
        raise OptionError(
            f"address: {address!r} is not a tls:// address: anyone who reaches this Dask scheduler can run code in it. "
            "Give it certificates (distributed.comm.tls), or allow it with insecure_cluster"
        )
    return _results(work, chunks, address, workers)


def _is_safe(address: str) -> bool:
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    return parts.scheme == "tls" or parts.hostname in _LOOPBACK


def _results(work: Work, chunks: Iterator[Chunk], address: str | None, workers: int | None) -> Generator[ChunkResult]:
    """Keep every worker of a cluster busy, and yield results."""
    from concurrent.futures import CancelledError  # noqa: PLC0415 (of Dask's futures, not stapes.errors')

    from dask.distributed import KilledWorker, as_completed  # noqa: PLC0415 (an optional package)

    with ExitStack() as closing:
        client = _connect(closing, address, workers)
        ended = as_completed(loop=client.loop)
        in_flight: dict[Future, Chunk] = {}
        losses: Counter[str] = Counter()
        closing.callback(lambda: client.cancel(list(in_flight)))

        def send(chunk: Chunk) -> None:
            future = client.submit(_transcribe, work, chunk, pure=False)
            in_flight[future] = chunk
            ended.add(future)

        while True:
            for chunk in islice(chunks, max(0, _IN_FLIGHT * _worker_count(client) - len(in_flight))):
                send(chunk)
            if not in_flight:
                return
            future = next(ended)
            chunk = in_flight.pop(future)
            try:
                results = future.result()
            except (KilledWorker, CancelledError) as error:  # workers count tries, but not while they load the model
                losses[chunk.name] += 1
                if losses[chunk.name] > work.most_losses(chunk):
                    raise BackendError(f"The Dask workers end before they transcribe anything: {error}") from error
                send(chunk)
            else:
                yield from results


def _connect(closing: ExitStack, address: str | None, workers: int | None) -> Client:
    """Return a client of a cluster; both are closed with `closing` as far as they were made here."""
    from dask.distributed import Client, LocalCluster  # noqa: PLC0415 (an optional package)

    if address is None:
        cluster = LocalCluster(
            n_workers=workers or 1,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # of the metrics, which have no switch
            memory_limit=0,  # otherwise Dask pauses a worker with a large model
            silence_logs=_SILENT,
        )
        return closing.enter_context(Client(closing.enter_context(cluster), set_as_default=False))
    try:
        return closing.enter_context(Client(address, set_as_default=False))
    except OSError as error:
        raise OptionError(f"address: no Dask scheduler answers at {address!r}: {error}") from error


def _worker_count(client: Client) -> int:
    """Return how many workers a cluster has now, and 1 where there is none yet: work makes clusters grow."""
    try:
        return max(1, len(client.nthreads()))
    except OSError as error:
        raise BackendError(f"The Dask scheduler of the batch is gone: {error}. Run the batch again") from error


def _transcribe(work: Work, chunk: Chunk) -> list[ChunkResult]:
    """Transcribe a chunk, in a worker process."""
    from stapes.batch.worker import transcribe_rows  # noqa: PLC0415 (the driver has no need of it)

    return list(transcribe_rows(work, [chunk]))
