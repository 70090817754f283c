"""Runs jobs: decodes their uploads, submits them in the background, notes events, writes results.

A job's windows go into a journal, so that a server that was killed goes on inside a recording; the events of windows
that are known keep their numbers. The result is written first, then the job is done, then its upload is removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec

from stapes import Engine
from stapes.errors import OptionError, OutputError, StapesError
from stapes.journal.codec import AnswerBounds
from stapes.journal.journal import Journal, JournalEntry, open_journal
from stapes.journal.keys import settings_key
from stapes.options import Audio
from stapes.output.files import write_whole
from stapes.recording.events import JobEvent, WindowDone
from stapes.results import Segment, Transcript
from stapes.server.errors import ApiError, api_error_of
from stapes.server.fields import AudioRequest, audio_request
from stapes.server.form import Upload
from stapes.server.jobs.room import removed_for
from stapes.server.jobs.store import AFTER_ALL, JobSize, JobStore, StoredJob
from stapes.server.logs import LOGGER
from stapes.server.pipeline import decoded
from stapes.server.service import Service

MAX_ATTEMPTS: Final = 3
_SWEEP_S: Final = 60.0
#: pauses after a fault of the disk or of a media process: doubled from the first to the second
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
#: how often a cancel looks at a job that changes, and when again
_MOST_TRIES, _MOMENT_S = 100, 0.02
#: what ends a job's present attempt, but not the job
_PASSING: Final = ("jobs_unavailable", "media_unavailable")


class JobRunner:
    """The jobs of a server. For one event loop; all of the disk's work is in one thread of its own."""

    def __init__(self, folder: Path, service: Service) -> None:
        """Open the folder's jobs, and have those that a killed server left run again. Raises OutputError."""
        self._service = service
        self._uploads, self._results = folder / "uploads", folder / "results"
        try:
            for one in (folder, self._uploads, self._results):
                one.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.store = JobStore(folder / "jobs.sqlite")
            self._tidy(folder)
        except OSError as error:
            raise OutputError(f"{folder}: jobs cannot be kept here: {error.strerror or error}") from error
        self._journal: Journal | None = open_journal(folder, LOGGER.warning)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="stapes-jobs")
        self._running: dict[str, asyncio.Task[None]] = {}
        self._works: dict[str, asyncio.Task[tuple[str, ...]]] = {}  # what `_running` waits for
        self._cancelled: set[str] = set()
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._may_begin = asyncio.Event()
        self._n_faults = 0  # in a row
        self._is_closing = False

    def _tidy(self, folder: Path) -> None:
        """Remove uploads and results that belong to no job; where the file of jobs is gone, move them aside."""
        known = set(self.store.recover())
        files = {
            path for place in (self._uploads, self._results) for path in place.iterdir()
            if path.is_file() and path.name.removesuffix(".json") not in known
        }  # fmt: skip
        if self.store.is_new and files:
            lost = next(place for number in count(1) if not (place := folder / f"lost-{number}").exists())
            lost.mkdir(mode=0o700)
            LOGGER.warning("the file of jobs is gone: %d uploads and results were moved into %s", len(files), lost)
            for path in files:
                path.replace(lost / path.name)
            return
        for path in files:
            path.unlink(missing_ok=True)

    async def start(self) -> None:
        """Begin with what is queued."""
        self._loops = [asyncio.create_task(self._sweep()), asyncio.create_task(self._begin_jobs())]
        self._may_begin.set()

    async def stop(self) -> None:
        """Begin no job any more, and end the answers that wait for one."""
        self._is_closing = True
        for job in tuple(self._waiters):
            self._tell(job)

    async def close(self) -> None:
        """Stop; jobs in work go on when the server starts again."""
        await self.stop()
        for task in (*self._loops, *self._works.values()):
            task.cancel()
        await asyncio.gather(*self._loops, *self._running.values(), return_exceptions=True)
        if self._journal is not None:
            await self.on_disk(partial(self._journal.close, finished=False))
        await self.on_disk(self.store.close)
        self._disk.shutdown()

    async def on_disk(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call something that waits for the disk, in its thread. Raises ApiError 503 where the disk fails."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._disk, call, *arguments)
        except (sqlite3.Error, OSError, OutputError) as error:
            what = "The disk for jobs is full, or fails; the server's log has the cause."
            raise ApiError(503, what, code="jobs_unavailable", retry_after_s=60) from error

    async def change(self, job: str, events: Sequence[tuple[int, dict[str, Any]]] = (), **values: Any) -> None:
        """Change a job on the disk, and tell those who wait for a change."""
        await self.on_disk(partial(self.store.update, job, events, **values))
        self._tell(job)

    def upload_path(self, job: str) -> Path:
        """Return where a job's upload is until it ends."""
        return self._uploads / job

    def result_path(self, job: str) -> Path:
        """Return where a job's transcript is when it is done."""
        return self._results / f"{job}.json"

    async def add(self, job: StoredJob, upload: Upload) -> StoredJob:
        """Keep an upload and its job on the disk, and have it run. Raises ApiError 409, 429.

        Returns the earlier job where its owner has sent the same under the same idempotency key.
        """
        kept: StoredJob = await self.on_disk(self._keep, job, upload)
        if kept.fingerprint != job.fingerprint:
            raise ApiError(409, "This idempotency key was used for another request.", code="idempotency_key_reused")
        self._may_begin.set()
        return kept

    def _keep(self, job: StoredJob, upload: Upload) -> StoredJob:
        """Do the disk's part of `add`, in one piece, so that no bound is passed by two at once."""
        if (known := self.store.known(job.owner, job.idempotency)) is not None:
            return known
        limits = self._service.config.bounds
        if self.store.count_open(job.owner) >= limits.max_jobs:
            raise ApiError(429, f"At most {limits.max_jobs} jobs may wait.", code="too_many_jobs", retry_after_s=60)
        removed = removed_for(upload.size, job.owner, self._sizes(), limits.max_state_bytes)
        if removed is None:
            raise ApiError(429, "The disk for jobs is full.", code="jobs_full", retry_after_s=60)
        for name in removed:
            self._remove(name)
        place = self.upload_path(job.id)
        self._uploads.mkdir(mode=0o700, exist_ok=True)
        upload.keep_as(place)
        try:
            self.store.add(job)
        except BaseException:
            place.unlink(missing_ok=True)
            raise
        return job

    def _sizes(self) -> list[JobSize]:
        """Return what each job takes, its result included."""
        found = []
        for one in self.store.sizes():
            n_bytes = one.n_bytes
            with suppress(OSError):
                n_bytes += self.result_path(one.id).stat().st_size
            found.append(one._replace(n_bytes=n_bytes))
        return found

    async def cancel(self, job: StoredJob) -> None:
        """End a job, at the latest before the engine's next step; what has ended stays as it is."""
        for _ in range(_MOST_TRIES):  # it may begin, end or be queued again at this moment
            running = self._running.get(job.id)
            if running is not None:
                if job.id not in self._cancelled:
                    self._cancelled.add(job.id)
                    self._works[job.id].cancel()
                await asyncio.wait({running})  # which this one's end does not cancel
            elif await self._finish(job, partial(self.store.cancel_queued, job.id, time.time())):
                return
            now: StoredJob | None = await self.on_disk(self.store.get, job.id)
            if now is None or now.has_ended or self._is_closing:
                return
            await asyncio.sleep(_MOMENT_S)

    @property
    def is_closing(self) -> bool:
        """Whether the server ends."""
        return self._is_closing

    @contextmanager
    def watching(self, job: str) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever a job changes."""
        changed = asyncio.Event()
        self._waiters.setdefault(job, set()).add(changed)
        try:
            yield changed
        finally:
            self._waiters[job].discard(changed)
            if not self._waiters[job]:
                del self._waiters[job]

    def _tell(self, job: str) -> None:
        for changed in self._waiters.get(job, ()):
            changed.set()

    async def wait_for_end(self, job: str, timeout_s: float) -> None:
        """Wait until a job has ended, or the time is over, or the server ends."""
        with suppress(TimeoutError), self.watching(job) as changed:
            async with asyncio.timeout(timeout_s):
                while not self._is_closing:
                    changed.clear()
                    now = await self.on_disk(self.store.get, job)
                    if now is None or now.has_ended:
                        return
                    await changed.wait()

    async def events(self, job: str, after: int) -> AsyncIterator[list[tuple[int, dict[str, Any]]]]:
        """Yield a job's events after a number, as they come, until it has ended."""
        with self.watching(job) as changed:
            while True:
                changed.clear()
                found = await self.on_disk(self.store.events, job, after)
                if found:
                    after = found[-1][0]
                    yield found
                    continue
                now = await self.on_disk(self.store.get, job)
                if now is None or now.has_ended or self._is_closing:
                    return
                await changed.wait()

    async def transcript(self, job: str) -> Transcript:
        """Return the result of a job that is done. Raises ApiError 404 where it is gone."""

        def read() -> Transcript | None:
            try:
                return msgspec.json.decode(self.result_path(job).read_bytes(), type=Transcript)
            except (FileNotFoundError, msgspec.DecodeError):
                return None

        transcript: Transcript | None = await self.on_disk(read)
        if transcript is None:
            raise ApiError(404, "The result of this job is not kept any more.", code="result_gone")
        return transcript

    # From queued to ended.

    async def _begin_jobs(self) -> None:
        """Begin queued jobs while there is room, until the server ends."""
        while True:
            await self._may_begin.wait()
            self._may_begin.clear()
            try:
                await self._begin_waiting()
            except ApiError as error:
                await self._pause("jobs could not be begun", error)
                self._may_begin.set()

    async def _begin_waiting(self) -> None:
        most = self._service.config.bounds.max_running_jobs
        for name in await self.on_disk(self.store.waiting, most):
            if self._is_closing or len(self._running) >= most:
                break
            if name in self._running:  # it has just been queued again, and its end is not over
                continue
            job = await self.on_disk(self.store.begin, name, time.time())
            if job is not None:  # else it was cancelled meanwhile
                self._tell(name)
                self._works[name] = asyncio.create_task(self._work(job))
                self._running[name] = asyncio.create_task(self._run(job))

    async def _pause(self, what: str, error: BaseException, job: str = "") -> None:
        """Wait after a fault that may pass: longer after each one, and say so once. A cancelled job waits no longer."""
        if not self._n_faults:
            LOGGER.error("%s; it is tried again", what, exc_info=error)
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**self._n_faults)
        self._n_faults = min(self._n_faults + 1, 10)
        ends_at = time.monotonic() + pause_s
        while time.monotonic() < ends_at and job not in self._cancelled and not self._is_closing:
            await asyncio.sleep(min(pause_s, 0.1))

    async def _run(self, job: StoredJob) -> None:
        """Wait for a job's work, and keep its end on the disk. Is never cancelled: `_work` is."""
        try:
            await asyncio.wait({self._works[job.id]})
            await self._keep_end(job, self._works[job.id])
        finally:
            del self._running[job.id], self._works[job.id]
            self._cancelled.discard(job.id)
            self._may_begin.set()

    async def _keep_end(self, job: StoredJob, work: asyncio.Task[tuple[str, ...]]) -> None:
        error = None if work.cancelled() else work.exception()
        is_interrupted = work.cancelled()
        if error is not None and api_error_of(error).code in _PASSING:
            is_interrupted = True
            await self._pause(f"job {job.id} was interrupted", error, job.id)
        while True:
            try:
                if is_interrupted and job.id in self._cancelled:
                    await self._end(job, "cancelled")
                elif is_interrupted:  # no failed attempt
                    await self.change(job.id, state="queued", attempts=job.attempts - 1)
                    return
                elif error is not None:
                    if not isinstance(error, StapesError | ApiError):
                        LOGGER.error("job %s failed", job.id, exc_info=error)
                    await self._end(job, "failed", api_error_of(error).to_dict()["error"])
                else:
                    await self._end(job, "done", warnings=work.result())
                self._n_faults = 0
                return
            except ApiError as fault:  # of the disk
                if self._is_closing:
                    return  # it is running still in the file, and is run again by the next server
                await self._pause(f"the end of job {job.id} could not be kept", fault)

    async def _work(self, job: StoredJob) -> tuple[str, ...]:
        """Transcribe a job and keep its result; return the warnings. Raises what its end is to say."""
        if job.attempts > MAX_ATTEMPTS:
            raise ApiError(500, f"The server ended {MAX_ATTEMPTS} times while it worked on this job.", code="crashed")
        wanted = audio_request(job.fields, "transcriptions", is_admin=True)
        service = self._service
        async with service.models.use(wanted.model) as engine:
            upload = Upload(self.upload_path(job.id), job.filename, "", job.size)
            with await decoded(service, upload, wanted, service.config.bounds.max_job_audio_s) as recording:
                if job.duration_s is None:  # else it was counted, by an earlier server perhaps
                    self._count_audio(job, recording.duration_s)
                    await self.change(job.id, duration_s=recording.duration_s)
                transcript = await self._transcribe(job, wanted, engine, recording)
        await self.on_disk(self._keep_result, job, msgspec.json.encode(transcript))
        return transcript.warnings

    def _keep_result(self, job: StoredJob, body: bytes) -> None:
        for name in removed_for(len(body), job.owner, self._sizes(), self._service.config.bounds.max_state_bytes) or ():
            self._remove(name)
        self._results.mkdir(mode=0o700, exist_ok=True)
        write_whole({self.result_path(job.id): [body]})

    async def _transcribe(self, job: StoredJob, wanted: AudioRequest, engine: Engine, recording: Any) -> Transcript:
        """Submit a job, with what the journal knows of it; note its events as they come."""
        entry = await self.on_disk(self._entry, job, wanted, engine)
        events: asyncio.Queue[JobEvent | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def take(event: JobEvent) -> None:
            if entry is not None and not event.resumed:
                entry.note(event.window.result if isinstance(event, WindowDone) else event.guess)
            loop.call_soon_threadsafe(events.put_nowait, event)

        submit: dict[str, Any] = {"options": replace(wanted.options, audio=Audio()), "on_event": take}
        submit |= {"priority": wanted.priority, "deadline_s": wanted.deadline_s}
        try:
            running = await engine.asubmit(recording, resume=() if entry is None else entry.answers, **submit)
        except OptionError:
            if entry is None or not entry.answers:
                raise
            entry.forget()  # of another version: it costs time, no job
            running = await engine.asubmit(recording, **submit)
        noting = asyncio.create_task(self._note(job.id, events))
        try:
            transcript = await running.aresult()
        finally:
            running.cancel()
            events.put_nowait(None)
            await noting
        if entry is not None:
            await self.on_disk(entry.done, ())
        return transcript

    async def _note(self, job: str, events: asyncio.Queue[JobEvent | None]) -> None:
        """Write a window's segments as events, numbered from 1."""
        number = 0
        while (event := await events.get()) is not None:
            if isinstance(event, WindowDone):
                found = [(number + place, _segment_event(one)) for place, one in enumerate(event.segments, 1)]
                number += len(found)
                done_s = round(max((one.end_s for one in event.segments), default=event.window.next_seek / 100), 2)
                # A job that gets on is not given up, however often its server ends.
                progress: dict[str, Any] = {} if event.resumed else {"attempts": 0}
                await self.change(job, found, done_s=done_s, **progress)

    def _entry(self, job: StoredJob, wanted: AudioRequest, engine: Engine) -> JournalEntry | None:
        """Return a job's journal entry: under its id, with a key of the settings and the upload."""
        if self._journal is None:
            return None
        info = engine.info
        settings = settings_key(info, wanted.options)
        key = hashlib.sha256(json.dumps([settings, job.sha256]).encode()).hexdigest()
        return self._journal.entry(job.id, key, AnswerBounds.of(info))

    def _count_audio(self, job: StoredJob, seconds: float) -> None:
        keys = self._service.keys
        key = None if keys is None else keys.named(job.owner)
        if key is not None:
            self._service.admission.hours.count(key, seconds)

    async def _end(
        self, job: StoredJob, state: str, error: dict[str, Any] | None = None, warnings: tuple[str, ...] = ()
    ) -> None:
        """End a job: the state and the last event together; then its upload is not needed any more."""
        last = {"type": f"job.{state}"} | ({} if error is None else {"error": error})
        values: dict[str, Any] = {"state": state, "ended": time.time(), "error": error, "warnings": warnings}

        def change() -> bool:
            self.store.update(job.id, [(AFTER_ALL, last)], **values)
            return True

        await self._finish(job, change)

    async def _finish(self, job: StoredJob, change: Callable[[], bool]) -> bool:
        """End a job with a change of its row, and remove what it does not need any more; log it, and tell its waiters.

        Returns False, and does nothing else, where the change was not made.
        """

        def finish() -> StoredJob | None:
            if not change():
                return None
            self.upload_path(job.id).unlink(missing_ok=True)
            if self._journal is not None:
                self._journal.remove(job.id)
            return self.store.get(job.id)

        ended: StoredJob | None = await self.on_disk(finish)
        if ended is not None:
            LOGGER.info("job", extra=_noted(ended))
            self._tell(job.id)
        return ended is not None

    # What is kept.

    async def _sweep(self) -> None:
        while True:
            try:
                await self.on_disk(self.remove_old, time.time())
            except ApiError as error:  # a disk that is full now may have room later
                LOGGER.error("ended jobs could not be removed", exc_info=error)
            await asyncio.sleep(_SWEEP_S)

    def remove_old(self, now: float) -> None:
        """Remove jobs that ended too long ago, and of each owner those that are too many."""
        limits = self._service.config.bounds
        for name in (*self.store.ended_before(now - limits.job_retention_s), *self.store.beyond(limits.max_kept_jobs)):
            self._remove(name)

    def _remove(self, job: str) -> None:
        self.result_path(job).unlink(missing_ok=True)
        self.store.remove(job)


def _noted(job: StoredJob) -> dict[str, Any]:
    """Return what the log says of a job that has ended."""
    audio_s = None if job.duration_s is None else round(job.duration_s, 2)
    took_s = None if job.ended is None else round(job.ended - (job.started or job.created), 3)
    error = None if job.error is None else job.error.get("code") or job.error.get("type")
    return {
        "job": job.id, "state": job.state, "seconds": took_s, "key": job.owner or None, "audio_s": audio_s,
        "warnings": len(job.warnings) or None, "error": error,
    }  # fmt: skip


def _segment_event(segment: Segment) -> dict[str, Any]:
    return {
        "type": "transcript.segment", "id": segment.id, "start": segment.start_s, "end": segment.end_s,
        "text": segment.text,
    }  # fmt: skip


def fingerprint(fields: Sequence[tuple[str, str]], sha256: str) -> str:
    """Return what two requests that ask for the same have in common."""
    return hashlib.sha256(json.dumps([sorted(map(list, fields)), sha256]).encode()).hexdigest()


@asynccontextmanager
async def jobs_of(service: Service) -> AsyncIterator[JobRunner | None]:
    """Run the jobs of a service; None where it has no folder for them."""
    if service.config.state_dir is None:
        yield None
        return
    runner = JobRunner(service.config.state_dir, service)
    await runner.start()
    try:
        yield runner
    finally:
        await runner.close()
