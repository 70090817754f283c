"""Chunks on a Spark cluster, or on processes of this machine that Spark starts."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from stapes.batch.rows import Chunk, ChunkResult, Work
from stapes.errors import BackendError, OptionError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_WAVE: Final = 8  # chunks of each worker
_TRIES: Final = 4  # of a task on this machine, as on a cluster; Spark would make one
#: what Spark says where a process or machine was lost, and not where code failed
_LOST: Final = ("Python worker exited unexpectedly", "ExecutorLostFailure", "FetchFailed")
_OFF: Final = ("spark.ui.enabled", "spark.ui.showConsoleProgress", "spark.speculation")
_SETTINGS: Final = {"spark.app.name": "stapes batch", "spark.log.level": "ERROR", **dict.fromkeys(_OFF, "false")}
_LOCAL_SETTINGS: Final = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}


def run(
    work: Work,
    chunks: Iterator[Chunk],
    *,
    address: str | None = None,
    workers: int | None = None,
    insecure_cluster: bool = False,
) -> Generator[ChunkResult]:
    """Yield the results of chunks, a wave of 8 for each worker at a time: when the last one of the wave has ended.

    address: a master, "spark://host:7077" or "yarn"; "active": this program's session; None: `workers` processes here.
    workers: how many chunks the cluster works on at once; None asks it (here: one).
    insecure_cluster: allow a master on another machine that anyone who reaches it may give code to.
    A wave that Spark gives up because workers died is run again. Worker processes keep engines from wave to wave.
    """
    with ExitStack() as closing:
        session = _session(closing, address, workers or 1, work.threads or 1, insecure_cluster)
        while wave := list(islice(chunks, _WAVE * (workers or session.sparkContext.defaultParallelism))):
            yield from _wave(session, work, wave)


def _session(closing: ExitStack, address: str | None, workers: int, threads: int, insecure: bool) -> SparkSession:
    """Return a session; one that was made here is stopped with `closing`."""
    from pyspark import SparkConf, SparkContext  # noqa: PLC0415 (an optional package)
    from pyspark.sql import SparkSession  # noqa: PLC0415 (an optional package)

    active = SparkSession.getActiveSession()
    if (active is not None) != (address == "active"):
        here = "no Spark session" if active is None else "a Spark session already ('active')"
        raise OptionError(f"address: {address!r} was given, but there is {here} in this program")
    SparkContext._ensure_initialized()  # starts Java, which reads spark-defaults.conf
    conf = active.conf if active is not None else SparkConf()
    master = conf.get("spark.master", "") if active is not None else address or f"local[{workers},{_TRIES}]"
    is_open = master.startswith("spark://") and not _is_local(master)
    if is_open and not insecure and conf.get("spark.authenticate", "false") != "true":
        raise OptionError(
            f"address: anyone who reaches the Spark master {master!r} can run code in it. Set spark.authenticate in "
            "spark-defaults.conf, or allow it with insecure_cluster"
        )
    if active is not None:
        return active
    cpus = {} if address is None else {"spark.task.cpus": str(threads)}
    settings = _SETTINGS | cpus | (_LOCAL_SETTINGS if _is_local(master) else {})
    session: SparkSession = SparkSession.builder.master(master).config(map=settings).getOrCreate()
    closing.callback(session.stop)
    if address is None:
        session.sparkContext.pythonExec = sys.executable
    return session


def _is_local(master: str) -> bool:
    hosts = master.removeprefix("spark://").split(",")
    return master.startswith("local") or all(urlsplit(f"//{host}").hostname in _LOOPBACK for host in hosts)


def _wave(session: SparkSession, work: Work, wave: list[Chunk]) -> Generator[ChunkResult]:
    """Yield the results of some chunks, each of which is a task of its own."""
    data = [(number, pickle.dumps(chunk)) for number, chunk in enumerate(wave)]
    frame = session.createDataFrame(data, "position int, data binary").repartitionByRange(len(data), "position")
    for losses in count():
        try:
            rows = frame.mapInArrow(partial(_map, work), "data binary").collect()
            break
        except Exception as error:
            is_lost = any(words in str(error) for words in _LOST)  # workers count tries, but not while they load
            if not is_lost or losses > sum(map(work.most_losses, wave)):
                raise BackendError(f"Spark could not run stapes (is it installed on all workers?): {error}") from error
    results = [pickle.loads(row.data) for row in rows]  # noqa: S301 (of our workers)
    for result in sorted(results, key=lambda result: isinstance(result, Exception)):
        if isinstance(result, Exception):
            raise result
        yield result


def _map(work: Work, batches: Iterable[Any]) -> Iterator[Any]:
    """Transcribe chunks, in a worker process; an exception is a result, as Spark would repeat what raises one."""
    import pyarrow  # noqa: PLC0415 (an optional package)

    def packed(result: object) -> Any:
        return pyarrow.RecordBatch.from_pydict({"data": [pickle.dumps(result)]})

    chunks = (pickle.loads(data.as_py()) for batch in batches for data in batch.column("data"))  # noqa: S301 (of the driver)
    try:
        from stapes.batch.worker import transcribe_rows  # noqa: PLC0415 (the driver has no need of it)

        for result in transcribe_rows(work, chunks):
            yield packed(result)
    except Exception as error:
        yield packed(error)
