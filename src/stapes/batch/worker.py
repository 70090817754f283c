"""The work of one process of a cluster, or of this machine: an engine that stays loaded, and chunks through it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

from stapes.batch.chunk import ChunkRun
from stapes.batch.place import Place
from stapes.batch.rows import Chunk, ChunkResult, Work
from stapes.batch.sources import shown_uri
from stapes.batch.weights import local_model
from stapes.errors import CheckpointError

_turn = threading.RLock()  # one chunk at a time in a process: an engine uses all cores that it was given
_loaded: dict[Work, tuple[int, Any, Place]] = {}  # for work -> process, engine, output folder


def transcribe_rows(work: Work, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
    """Run chunks of rows, and yield what became of each chunk. The engine is loaded once in a process.

    Raises CheckpointError where this machine's weights are others, and what `stapes.load` raises; OutputError where
    the output folder cannot be used.
    """
    for chunk in chunks:
        with _turn:
            engine, place = _engine(work)
            result = ChunkRun(work, place, engine, chunk).run()
        yield result


def prepare(work: Work) -> None:
    """Load the engine, where that is to be known to succeed before a chunk is run."""
    with _turn:
        _engine(work)


def _engine(work: Work) -> tuple[Any, Place]:
    same = replace(work, run="")  # two commands in one process share an engine
    found = _loaded.get(same)
    if found is None or found[0] != os.getpid():  # connections to a store do not survive a fork
        for _, engine, _ in _loaded.values():
            engine.close()
        _loaded.clear()
        found = _loaded[same] = os.getpid(), open_engine(work), Place(work.out)
    return found[1], found[2]


def open_engine(work: Work) -> Any:
    """Load the engine of a batch, and check that its weights are the batch's.

    work.model_sha256: empty: any.   Raises CheckpointError.
    """
    module, _, name = work.load.partition(":")
    engine = getattr(import_module(module), name)(work)
    if work.model_sha256 not in ("", engine.model_sha256()):
        engine.close()
        raise CheckpointError(
            f"{shown_uri(work.model)}: the weights on this machine are not those that the batch was begun with "
            f"(SHA-256 {engine.model_sha256()[:12]}..., not {work.model_sha256[:12]}...); give the same --model, and "
            "remove an old copy from ~/.cache/stapes/weights"
        )
    return engine


def load_engine(work: Work) -> Any:
    """Load a model with `stapes.load`."""
    from stapes import load  # noqa: PLC0415 (NumPy comes with it)

    model = local_model(work.model)
    return load(model, device=work.device, precision=work.precision, threads=work.threads)
