"""Chunks on a Ray cluster: Ray Data carries them to a pool of actors, one engine in each.

The driver feeds one execution of Ray Data for the whole batch, so that each actor loads its engine once: it puts chunks
into the actor `_Feed`, a generator task reads them there, and the next chunk is put in when a result arrives.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stapes import __version__
from stapes.batch.rows import Chunk, ChunkResult, Work
from stapes.errors import BackendError, OptionError, StapesError

if TYPE_CHECKING:
    from ray.data import DataContext

_IN_FLIGHT: Final = 2  # chunks of each actor: one that it transcribes, one that waits
_MOST_ROUNDS: Final = 3  # without a result: then the cluster itself is out of order
_LOOK_S: Final = 10.0  # how often the cluster's size is asked for
_SILENT: Final = 100  # above every level of logging: what matters reaches the driver as an exception
_THREADS_S: Final = 1.0  # for the threads of Ray Data to end
_ANSWER_S: Final = 10.0  # of a cluster's head: Ray itself waits for minutes
_loads: Final = pickle.loads  # what this batch's own processes wrote


def run(
    work: Work,
    chunks: Iterator[Chunk],
    *,
    address: str | None = None,
    workers: int | None = None,
    insecure_cluster: bool = False,
) -> Iterator[ChunkResult]:
    """Yield the results of chunks in the order in which they end.

    address: of a cluster that this machine is a node of, "auto" or "host:6379"; None starts Ray on this machine.
    workers: most actors; None: as many as the cluster holds, also after it grew.
    work.threads: CPUs of each actor; None: those of the smallest node, or 1 beside a GPU.
    insecure_cluster: allow a cluster that runs code for anyone who reaches it.

    A chunk whose actor or node died is run again. Chunks are taken from the iterator as results arrive.
    """
    if address is not None and address.startswith("ray://"):
        raise OptionError(
            f"address: {address!r} is of a Ray client, over which Ray Data cannot stream. Run the batch on a node of "
            'the cluster with "auto"'
        )
    return _results(work, chunks, address, workers, insecure_cluster)


def _results(
    work: Work, chunks: Iterator[Chunk], address: str | None, workers: int | None, insecure: bool
) -> Iterator[ChunkResult]:
    with ExitStack() as closing:
        _connect(closing, address)
        if not insecure:
            _check_token()
        need = _needs(work)
        if not _size(need):
            raise OptionError(f"threads: no node of the Ray cluster has {need}. Ask for less, or add such a node")
        if work.threads is None and "GPU" not in need:  # an actor on a larger node must leave the others theirs
            work = replace(work, threads=int(need["CPU"]))
        answers = _rounds(_Pool(pickle.dumps(work), need, workers), map(pickle.dumps, chunks))
        closing.callback(_join, set(threading.enumerate()))
        closing.callback(answers.close)  # tells the threads of Ray Data to end
        for answer in answers:
            if isinstance(answer, ChunkResult):
                yield answer
            else:
                raise answer if isinstance(answer, Exception) else StapesError(answer)


def _connect(closing: ExitStack, address: str | None) -> None:
    """Connect to a cluster, or to the one that this process has: that stays open."""
    if address is None:  # the only way to bind Ray to loopback: it makes another address of _node_ip_address
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which would be sent to its makers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # read by code that writes to standard error itself
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # lines not to print: what died goes to standard output
    import ray.data  # noqa: PLC0415 (an optional package)

    if not ray.is_initialized():
        start = {"include_dashboard": False} if address is None else {}
        try:
            if address not in (None, "auto"):
                host, _, port = address.rpartition(":")
                socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
            with _no_stderr():
                ray.init(address or "local", log_to_driver=False, logging_level=_SILENT, **start)
        except (OSError, ValueError, ray.exceptions.RayError) as error:
            raise OptionError(f"address: no Ray cluster answers at {address!r}: {error}") from error
        closing.callback(ray.shutdown)
    here = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(here)  # a node without stapes can run `_Transcriber`, to say so
    closing.callback(ray.cloudpickle.unregister_pickle_by_value, here)
    closing.callback(logging.getLogger("ray.data").setLevel, logging.getLogger("ray.data").level)
    logging.getLogger("ray.data").setLevel(_SILENT)


def _join(before: set[threading.Thread]) -> None:
    """Wait for the threads of Ray Data: one that uses Ray after ray.shutdown ends this process, with status 1."""
    deadline = time.monotonic() + _THREADS_S
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, deadline - time.monotonic()))


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop what is written to file descriptor 2: Ray says there that its log level was set."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _nodes() -> list[dict[str, Any]]:
    import ray  # noqa: PLC0415 (an optional package)

    return [node for node in ray.nodes() if node["Alive"]]


def _check_token() -> None:
    """Refuse a cluster on a network that answers without a token: it runs code for anyone who reaches it.

    A node cannot join a cluster with a token unless it asks for that token itself, so that asking the head is enough.
    """
    import ray  # noqa: PLC0415 (an optional package)

    if all(node["NodeManagerAddress"] in ("127.0.0.1", "::1") for node in _nodes()):
        return
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    without = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    probe = subprocess.run(command, env=without, capture_output=True, text=True, check=False)  # noqa: S603 (Ray's own)
    if not (probe.returncode and "AuthenticationError" in probe.stderr):
        raise OptionError(
            f"address: the Ray cluster at {address} answers without a token, so that anyone who reaches it can run "
            "code in it. Start it with RAY_AUTH_MODE=token (Ray 2.52 or newer), or allow it with insecure_cluster"
        )


def _needs(work: Work) -> dict[str, float]:
    """Return the resources of an actor."""
    if work.device.startswith("cuda"):
        return {"CPU": work.threads or 1, "GPU": 1}
    cpus = [node["Resources"]["CPU"] for node in _nodes() if node["Resources"].get("CPU")]
    return {"CPU": work.threads or min(cpus, default=1)}


def _size(need: dict[str, float]) -> int:
    """Return how many actors the cluster holds now."""
    held = (node["Resources"] for node in _nodes())
    return sum(min(int(node.get(name, 0) // amount) for name, amount in need.items()) for node in held)


class _Feed:
    """Chunks between the driver and the task that reads them, each from when it is put until it is dropped.

    Ray may start the reading task again, and counts what it yields: so number n must always be the same chunk.
    """

    def __init__(self) -> None:
        self._chunks: dict[int, bytes | None] = {}
        self._changed = asyncio.Condition()

    async def put(self, number: int, chunk: bytes | None) -> None:
        """Add a chunk, b"" in its place once its result is there, or None after the last one."""
        async with self._changed:
            self._chunks[number] = chunk
            self._changed.notify_all()

    async def get(self, number: int) -> bytes | None:
        """Return what was put, once it is there."""
        async with self._changed:
            await self._changed.wait_for(lambda: number in self._chunks)
            return self._chunks[number]


def _read(batch: dict[str, Any], feed: Any) -> Iterator[dict[str, Any]]:  # noqa: ARG001 (Ray Data's interface)
    """Yield the chunks of a feed."""
    import ray  # noqa: PLC0415 (an optional package)

    number = 0
    while (chunk := ray.get(feed.get.remote(number))) is not None:
        yield {"number": [number], "pickle": [chunk]}
        number += 1


class _Transcriber:
    """What an actor runs."""

    def __init__(self, work: bytes, version: str) -> None:
        self._work = work
        self._version = version

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return results, each pickled. What is raised is one too: Ray would wrap or retry it."""
        return {"number": batch["number"], "pickle": [pickle.dumps(self._answer(chunk)) for chunk in batch["pickle"]]}

    def _answer(self, chunk: bytes) -> Any:
        """Return a result, an exception, or a sentence in place of an exception that cannot travel."""
        if not chunk:
            return None
        where = f"{os.uname().nodename}, a node of the Ray cluster"
        try:
            import stapes  # noqa: PLC0415 (a node may lack it)
        except ImportError as error:
            return f"stapes cannot be imported on {where}: {error}. Install stapes {self._version} there"
        if stapes.__version__ != self._version:
            return f"stapes is {stapes.__version__} on {where}, {self._version} on the driver. Install the same there"
        try:
            work = _loads(self._work)
            from stapes.batch.worker import transcribe_rows  # noqa: PLC0415 (the driver has no need of it)

            (result,) = transcribe_rows(work, [_loads(chunk)])
        except Exception as error:
            try:
                return _loads(pickle.dumps(error))
            except Exception:
                return f"{type(error).__name__} on {where}: {error}"
        return result


class _Pool:
    """The pool of actors of one batch."""

    def __init__(self, work: bytes, need: dict[str, float], workers: int | None) -> None:
        self._work = work
        self._need = need
        self._workers = workers
        self._size = 1
        self._looked = -_LOOK_S

    def size(self) -> int:
        """Return how many actors there are, or will be."""
        if time.monotonic() - self._looked >= _LOOK_S:
            self._size = max(1, min(_size(self._need), self._workers or sys.maxsize))
            self._looked = time.monotonic()
        return self._size

    def results(self, feed: Any) -> Iterator[tuple[int, bytes]]:
        """Yield the number and the pickled result of each chunk of a feed, as they end. Runs until the feed ends."""
        import ray  # noqa: PLC0415 (an optional package)

        chunks = ray.data.from_items([0])  # what reads the feed: one task, for the one row
        _set_up(chunks.context)
        chunks = chunks.map_batches(
            _read, fn_kwargs={"feed": feed}, num_cpus=0, label_selector=_here(), batch_size=None
        )
        actors = ray.data.ActorPoolStrategy(
            min_size=1, initial_size=self.size(), max_size=self._workers, max_tasks_in_flight_per_actor=1
        )
        results = chunks.map_batches(
            _Transcriber,
            fn_constructor_args=(self._work, __version__),
            batch_size=1,
            compute=actors,
            num_cpus=self._need["CPU"],
            num_gpus=self._need.get("GPU"),
        )
        for batch in results.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            yield from zip(map(int, batch["number"]), batch["pickle"], strict=True)


def _set_up(context: DataContext) -> None:
    context.target_max_block_size = 1  # a block for each chunk, at once: otherwise Ray Data collects 128 MiB
    context.execution_no_progress_timeout_s = -1  # a chunk may take hours
    context.max_consecutive_actor_init_deaths = -1  # a node may die at any time
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0  # all actors busy: the pool may grow
    context.autoscaling_config.actor_pool_util_downscaling_threshold = -1.0  # an engine is not worth unloading
    context.enable_progress_bars = False


def _here() -> dict[str, str]:
    """Return the label of the driver's node: what is placed there lives as long as the driver."""
    import ray  # noqa: PLC0415 (an optional package)

    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}


def _rounds(pool: _Pool, chunks: Iterator[bytes]) -> Generator[Any]:
    """Yield what actors answered. Chunks that Ray lost go into another round."""
    import ray  # noqa: PLC0415 (an optional package)

    idle = 0
    waiting: dict[int, bytes] = {}
    while True:
        lost: Exception | None = None
        chunks = chain(list(waiting.values()), chunks)
        waiting.clear()
        try:
            for answer in _round(pool, chunks, waiting):
                idle = 0
                yield answer
        except (ray.exceptions.RayError, AssertionError) as error:  # Ray Data asserts that no process dies between
            lost = error  # what it yields and what it says of that
        if lost is None and not waiting:
            return
        idle += 1
        if idle == _MOST_ROUNDS:
            raise BackendError(f"The Ray cluster returns no result of {len(waiting)} chunks: {lost}. Look at its logs")


def _round(pool: _Pool, chunks: Iterator[bytes], waiting: dict[int, bytes]) -> Iterator[Any]:
    """Feed chunks into one execution of Ray Data, and yield what actors answered."""
    import ray  # noqa: PLC0415 (an optional package)

    feed = ray.remote(_Feed).options(num_cpus=0, label_selector=_here()).remote()
    numbered = enumerate(chain(chunks, repeat(None)))

    def fill() -> None:
        for number, chunk in islice(numbered, max(0, _IN_FLIGHT * pool.size() - len(waiting))):
            feed.put.remote(number, chunk)
            if chunk is None:
                return
            waiting[number] = chunk

    fill()
    for number, answer in pool.results(feed):
        if waiting.pop(number, None) is not None:  # otherwise Ray ran it twice
            feed.put.remote(number, b"")
            fill()
            yield _loads(answer)
