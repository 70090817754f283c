"""A worker without an engine: the process that unpickles a `StubWork` uses `transcribe_rows` of this file."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from stapes.batch.rows import DONE, Chunk, ChunkResult, Row, RowResult, Work
from stapes.errors import OutputError


class StubWork(Work):
    """Work whose `out` is a local folder, for notes of what happened."""

    def __reduce__(self):
        return unpickled, (self.out,)


def stub_work(folder: Path) -> StubWork:
    return StubWork(
        out=str(folder), run="1", model="stub", model_sha256="0" * 64, precision="float32", device="cpu", threads=1
    )


def unpickled(out: str) -> StubWork:
    module = ModuleType("stapes.batch.worker")
    module.transcribe_rows = transcribe_rows  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    return stub_work(Path(out))


def transcribe_rows(work: Work, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
    """Do what the URI of a chunk's first row says: "die 3" (in the first 3 tries), "sleep 0.5", "raise"; or nothing."""
    note(work.out, "loads", str(os.getpid()), once=True)
    for chunk in chunks:
        note(work.out, "tries", f"{chunk.name} {os.getpid()}")
        verb, _, number = chunk.rows[0].uri.partition(" ")
        if verb == "die" and tries(Path(work.out))[chunk.name] <= int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        if verb == "sleep":
            time.sleep(float(number))
        if verb == "raise":
            raise OutputError(f"no space for {chunk.name}")
        yield ChunkResult(
            chunk.name, tuple(RowResult(key=row.key, state=DONE, tries=1) for row in chunk.rows), str(os.getpid())
        )


_noted: set[tuple[str, str]] = set()  # of this process


def note(folder: str, name: str, line: str, *, once: bool = False) -> None:
    if not (once and (folder, name) in _noted):
        _noted.add((folder, name))
        with (Path(folder) / name).open("a") as file:
            file.write(line + "\n")


def lines(folder: Path, name: str) -> list[str]:
    return (folder / name).read_text().splitlines()


def tries(folder: Path) -> Counter[str]:
    return Counter(line.split()[0] for line in lines(folder, "tries"))


def chunks_of(uris: Iterable[str]) -> Iterator[Chunk]:
    for number, uri in enumerate(uris):
        yield Chunk(f"00-{number:05}", (Row(f"{number:032x}", str(number), uri),))
