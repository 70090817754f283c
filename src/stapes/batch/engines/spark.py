"""Chunks on a Spark cluster, or on processes of this machine that Spark starts."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from stapes.batch.rows import Chunk, ChunkResult, Work
from stapes.errors import BackendError, OptionError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_WAVE: Final = 8  # chunks of each worker
_SCHEMA: Final = "position int, data binary"
#: what Spark says where a process or machine was lost, and not where code failed
_LOST: Final = ("Python worker exited unexpectedly", "ExecutorLostFailure", "FetchFailed")
_SETTINGS: Final = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.speculation": "false",
}


def run(
    work: Work,
    chunks: Iterator[Chunk],
    *,
    address: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    insecure_cluster: bool = False,
) -> Iterator[ChunkResult]:
    """Yield the results of chunks, a wave at a time: those of a wave come when its last chunk has ended.

    address: a master, "spark://host:7077" or "yarn"; "active": the session that this program has; None starts `workers`
        processes here (None: one).
    workers: how many chunks the cluster works on at once; None asks it.
    threads: cores of each worker (spark.task.cpus).
    insecure_cluster: allow a master on another machine that anyone who reaches it may give code to.

    A wave is 8 chunks of each worker. Where Spark gives it up because workers died, it is run again: what its chunks
    have done already is not done again. Worker processes keep their engines from wave to wave.
    """
    with ExitStack() as closing:
        session = _session(closing, address, workers, threads or 1, insecure_cluster)

        def worker_count() -> int:  # of each wave anew: machines come late
            return workers or max(1, session.sparkContext.defaultParallelism // (threads or 1))

        while wave := list(islice(chunks, _WAVE * worker_count())):
            yield from _wave(session, work, wave)


def _session(
    closing: ExitStack, address: str | None, workers: int | None, threads: int, insecure_cluster: bool
) -> SparkSession:
    """Return a session; one that was made here is stopped with `closing`."""
    from pyspark import SparkConf, SparkContext  # noqa: PLC0415 (an optional package)
    from pyspark.sql import SparkSession  # noqa: PLC0415 (an optional package)

    active = SparkSession.getActiveSession()
    if (active is not None) != (address == "active"):
        here = "there is no Spark session" if active is None else "there is a Spark session already: it is 'active'"
        raise OptionError(f"address: {address!r} was given, but {here} in this program")
    if active is not None:
        _check(active.conf.get("spark.master", ""), active.conf.get("spark.authenticate", "false"), insecure_cluster)
        return active
    SparkContext._ensure_initialized()  # starts Java, which reads spark-defaults.conf
    master = address or f"local[{workers or 1},4]"  # 4 tries of a task, as on a cluster; otherwise 1
    _check(master, SparkConf().get("spark.authenticate", "false"), insecure_cluster)
    builder = SparkSession.builder.appName("stapes batch").master(master).config(map=_SETTINGS)
    if _is_local(master):
        builder = builder.config(map={"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"})
    if address is not None:
        builder = builder.config("spark.task.cpus", threads)
    session: SparkSession = builder.getOrCreate()
    closing.callback(session.stop)
    if address is None:
        session.sparkContext.pythonExec = sys.executable
    return session


def _check(master: str, authenticated: str | None, insecure_cluster: bool) -> None:
    if master.startswith("spark://") and not (_is_local(master) or authenticated == "true" or insecure_cluster):
        raise OptionError(
            f"address: anyone who reaches the Spark master {master!r} can run code in it. Set spark.authenticate in "
            "spark-defaults.conf, or allow it with insecure_cluster"
        )


def _is_local(master: str) -> bool:
    hosts = master.removeprefix("spark://").split(",")
    return master.startswith("local") or all(urlsplit(f"//{host}").hostname in _LOOPBACK for host in hosts)


def _wave(session: SparkSession, work: Work, wave: list[Chunk]) -> Iterator[ChunkResult]:
    """Yield the results of some chunks, each of which is a task of its own."""
    data = [(number, pickle.dumps(chunk)) for number, chunk in enumerate(wave)]
    frame = session.createDataFrame(data, _SCHEMA).repartitionByRange(len(data), "position")
    while True:
        try:
            rows = frame.mapInArrow(partial(_map, work), _SCHEMA).collect()
            break
        except Exception as error:
            if not any(words in str(error) for words in _LOST):
                raise BackendError(f"Spark could not run stapes (is it installed on all workers?): {error}") from error
    ended = [pickle.loads(row.data) for row in rows]  # noqa: S301 (of our workers)
    yield from (result for result in ended if isinstance(result, ChunkResult))
    for result in ended:
        if isinstance(result, Exception):
            raise result


def _map(work: Work, batches: Iterable[Any]) -> Iterator[Any]:
    """Transcribe chunks, in a worker process; an exception is a result, as Spark would repeat what raises one."""
    import pyarrow  # noqa: PLC0415 (an optional package)

    def packed(result: object) -> Any:
        return pyarrow.RecordBatch.from_pydict(
            {"position": pyarrow.array([0], "int32"), "data": [pickle.dumps(result)]}
        )

    chunks = (pickle.loads(data.as_py()) for batch in batches for data in batch.column("data"))  # noqa: S301 (of the driver)
    try:
        from stapes.batch.worker import transcribe_rows  # noqa: PLC0415 (the driver has no need of it)

        for result in transcribe_rows(work, chunks):
            yield packed(result)
    except Exception as error:
        yield packed(error)
