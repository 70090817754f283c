"""READ FIRST. The driver of a batch: from a manifest and an output folder to transcripts and a ledger.

`run_batch` reads the manifest into a spool, makes a `Plan` of it and of the ledger that is there, hands its chunks to
an engine (engines/), and takes their results over. The same command again goes on where an earlier one has ended,
whichever engine ran before.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import stapes
from stapes.batch.chunk import PARQUET
from stapes.batch.lease import RUN_FILE, Lease
from stapes.batch.manifest import ManifestRow, read_manifest
from stapes.batch.place import Place
from stapes.batch.plan import REFUSED_FILE, Plan, Spool, digits_for, refused_lines
from stapes.batch.progress import Began, Counts, Noted, Refused, RowFailed, Tell
from stapes.batch.rows import DONE, FAILED, LOAD_ENGINE, Chunk, ChunkResult, Work
from stapes.batch.settings import Settings, check_agreement, read_settings, write_settings
from stapes.batch.sources import shown_uri
from stapes.batch.worker import open_engine
from stapes.errors import OptionError, OutputError

#: engine -> packages that it needs
ENGINES: Final = {"local": (), "ray": ("ray",), "dask": ("distributed",), "spark": ("pyspark",)}
_CHUNK_ROWS: Final = 32
_CHUNK_ROWS_ON_GPUS: Final = 256
#: With few rows chunks are smaller, so that each worker gets several.
_CHUNKS_PER_WORKER: Final = 8
_TELL_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """What a batch is to do. Options and formats are those of `Engine.submit` and of `stapes.output`."""

    manifest: str
    out: str
    kind: str | None = None  # of the manifest; None: by its suffix
    engine: str = "local"
    address: str | None = None  # of a cluster; None: processes on this machine
    insecure_cluster: bool = False
    workers: int | None = None
    threads: int | None = None  # of one worker
    model: str = "base"
    precision: str = "auto"
    device: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    formats: tuple[str, ...] = ("json",)  # or ("parquet",)
    chunk_rows: int | None = None
    most_tries: int = 3
    retry_failed: bool = False
    fetch_timeout_s: float = 60.0
    max_duration_s: float | None = None
    concurrency: int | None = None
    price_per_hour: float | None = None
    load: str = LOAD_ENGINE


def run_batch(request: BatchRequest, tell: Tell = lambda _: None) -> Counts:
    """Transcribe a manifest, and return the counts at its end.

    Raises OptionError, OutputError, or what stops every worker (a model that cannot be loaded). Then, and after
    KeyboardInterrupt, the same call goes on where this one has ended.
    """
    check_packages(request.engine)
    place = Place(request.out)
    place.prepare()
    old = read_settings(place)
    if old is None and not _holds_nothing(place):
        raise OutputError(f"{place.shown}: is not empty, and no batch was begun there; give a new or an empty folder")
    lease = Lease(place)
    lease.take()
    try:
        _abort_uploads(place, tell)
        with closing(Spool()) as spool:
            counts = _Run(request, place, lease, spool, tell).run(old)
        _abort_uploads(place, tell)
        return counts
    finally:
        with suppress(OutputError):  # it runs out by itself
            lease.release()


def _holds_nothing(place: Place) -> bool:
    """Return whether a new batch may be begun here; a lease that was taken before settings were written is no batch."""
    if place.names("") != [RUN_FILE]:
        return place.is_free()
    return b'"run": "' in (place.read(RUN_FILE) or b"")


def check_packages(engine: str) -> None:
    """Raise OptionError where a package that an engine needs is not installed."""
    if engine not in ENGINES:
        raise OptionError(f"engine {engine!r} is not known; give one of {', '.join(ENGINES)}")
    for package, extra in (("pyarrow", "batch"), *((one, engine) for one in ENGINES[engine])):
        if find_spec(package) is None:
            raise OptionError(f"stapes batch needs the package {package}: pip install 'stapes[{extra}]'")


def _abort_uploads(place: Place, tell: Tell) -> None:
    """Remove what killed workers have begun; a store may not allow it."""
    try:
        if aborted := place.abort_uploads():
            tell(Noted(message=f"{place.shown}: removed {aborted} files that killed processes had begun"))
    except OutputError as error:
        tell(Noted(message=f"files that killed processes had begun may be left: {error}", is_warning=True))


class _Run:
    """One run of a batch, with its lease taken."""

    def __init__(self, request: BatchRequest, place: Place, lease: Lease, spool: Spool, tell: Tell) -> None:
        self._request, self._place, self._lease, self._spool, self._tell = request, place, lease, spool, tell
        self._counts = Counts(price_per_hour=request.price_per_hour)
        self._began_s = self._told_s = time.monotonic()
        self._n_told = 0  # refused lines

    def run(self, old: Settings | None) -> Counts:
        request = self._request
        self._read_manifest()
        settings, work = self._resolve(old)
        chunk_rows = 1 if request.most_tries == 1 else request.chunk_rows or self._default_chunk_rows(work)
        plan = Plan(
            self._place,
            self._spool,
            digits=settings.digits,
            chunk_rows=chunk_rows,
            retry_failed=request.retry_failed,
            check=self._lease.check,
        )
        model, precision = settings.model, settings.precision
        self._tell(Began(rows=self._spool.n_rows, model=model, precision=precision, engine=request.engine))
        try:
            try:
                with closing(self._results(work, self._issued(plan))) as results:
                    for result in results:
                        self._take(plan, result)
            finally:
                plan.close()
        finally:
            self._show(plan, is_last=True)
        if self._spool.refused:
            self._place.write(REFUSED_FILE, refused_lines(self._spool.refused))
        else:
            self._place.delete([REFUSED_FILE])
        self._warn_of_sets(settings)
        return self._counts

    def _read_manifest(self) -> None:
        for found in read_manifest(self._request.manifest, self._request.kind, base=self._request.options):
            if isinstance(found, ManifestRow):
                self._spool.add(found.line, found.row)
            else:
                self._spool.refuse(found)

    def _resolve(self, old: Settings | None) -> tuple[Settings, Work]:
        """Return what every worker is told: of a batch that was begun its settings, else those of a loaded model."""
        request = self._request
        model = request.model if "://" in request.model else _absolute(request.model)
        options = json.dumps(request.options, sort_keys=True, separators=(",", ":"))
        work = Work(
            out=self._place.uri, run=self._lease.token, model=model, model_sha256="", precision=request.precision,
            device=request.device, threads=self._threads(), options=options, formats=request.formats,
            most_tries=request.most_tries, fetch_timeout_s=request.fetch_timeout_s,
            max_duration_s=request.max_duration_s, concurrency=request.concurrency, load=request.load,
        )  # fmt: skip
        asked: dict[str, object] = {"options": options, "formats": request.formats}
        if old is not None:
            if request.precision != "auto":
                asked["precision"] = request.precision
            check_agreement(self._place, old, asked)
            if old.stapes != stapes.__version__:
                message = f"this batch was begun with stapes {old.stapes}, and goes on with {stapes.__version__}"
                self._tell(Noted(message=message, is_warning=True))
            return old, replace(work, model_sha256=old.model_sha256, precision=old.precision)
        # A GPU may be on other machines alone: only the weights are looked at here.
        on_gpu = request.device.startswith(("cuda", "mps"))
        engine = open_engine(replace(work, device="cpu", precision="auto") if on_gpu else work)
        try:
            sha256, precision = engine.model_sha256(), engine.info.precision
        finally:
            engine.close()
        if on_gpu:
            precision = {"auto": "float32" if request.device == "mps" else "float16"}.get(
                request.precision, request.precision
            )
        settings = Settings(
            stapes=stapes.__version__, model=shown_uri(model), model_sha256=sha256, precision=precision,
            digits=digits_for(self._spool.n_rows), **asked,  # type: ignore[arg-type]
        )  # fmt: skip
        write_settings(self._place, settings)
        return settings, replace(work, model_sha256=sha256, precision=precision)

    def _threads(self) -> int | None:
        """Return the threads of one worker: several on this machine share its cores; on a cluster the engine says."""
        request = self._request
        if request.threads is None and request.address is None and (request.workers or 1) > 1:
            return max(1, (os.cpu_count() or 1) // (request.workers or 1))
        return request.threads

    def _default_chunk_rows(self, work: Work) -> int:
        most = _CHUNK_ROWS_ON_GPUS if work.device.startswith("cuda") else _CHUNK_ROWS
        workers = self._request.workers or 1
        return max(1, min(most, self._spool.n_rows // (_CHUNKS_PER_WORKER * workers)))

    def _results(self, work: Work, chunks: Iterator[Chunk]) -> Generator[ChunkResult]:
        request = self._request
        engine = import_module(f"stapes.batch.engines.{request.engine}")
        found: Generator[ChunkResult] = engine.run(
            work, chunks, address=request.address, workers=request.workers,
            insecure_cluster=request.insecure_cluster,
        )  # fmt: skip
        return found

    def _issued(self, plan: Plan) -> Iterator[Chunk]:
        for chunk in plan.chunks():
            self._show(plan)
            yield chunk

    def _take(self, plan: Plan, result: ChunkResult) -> None:
        counts = self._counts
        for entry in plan.take(result):
            counts.workers[result.worker] += 1
            if entry.state == DONE:
                counts.done_now += 1
                counts.audio_now_s += entry.duration_s
                counts.sets[entry.isa or ""] += 1
                continue
            counts.reasons[entry.reason or ""] += 1
            self._tell(
                RowFailed(
                    id=entry.id, uri=entry.uri, reason=entry.reason or "", error=entry.error or "", tries=entry.tries
                )
            )
        self._show(plan)

    def _show(self, plan: Plan, *, is_last: bool = False) -> None:
        """Tell the counts, once a second."""
        spool = self._spool
        for one in spool.refused[self._n_told :]:
            self._tell(Refused(line=one.line, reason=one.reason))
        self._n_told = len(spool.refused)
        now = time.monotonic()
        if now - self._told_s < _TELL_S and not is_last:
            return
        self._told_s = now
        counts, before = self._counts, plan.before
        counts.rows = spool.n_rows - plan.n_duplicates - plan.n_colliding
        counts.done, counts.failed = before[DONE] + counts.done_now, before[FAILED] + counts.reasons.total()
        counts.refused, counts.duplicates = spool.n_refused, plan.n_duplicates
        counts.audio_s = plan.audio_before_s + counts.audio_now_s
        counts.elapsed_s, counts.is_last = now - self._began_s, is_last
        self._tell(replace(counts))

    def _warn_of_sets(self, settings: Settings) -> None:
        """Say where machines of different kinds have computed, whose texts are the same in float32 alone."""
        sets = sorted(self._counts.sets)
        if len(sets) > 1 and settings.precision != "float32":
            message = (
                f"computed on {' and '.join(sets)} in {settings.precision}: texts may differ between these machines; "
                "float32 is the same on all"
            )
            self._tell(Noted(message=message, is_warning=True))


def _absolute(model: str) -> str:
    """Return a model's path without the current folder, which other machines do not have; a name stays as it is."""
    return os.path.abspath(model) if os.path.exists(model) else model  # noqa: PTH100, PTH110 (a name may hold anything)


def output_formats(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the formats of a batch: those of `stapes.output`, or Parquet alone. Raises OptionError."""
    if PARQUET in names and names != (PARQUET,):
        raise OptionError(f"{PARQUET} holds all of a transcript: give it alone, or other formats")
    return names
