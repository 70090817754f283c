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
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from stapes import Engine
from stapes.errors import OptionError, StapesError
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
from stapes.server.jobs.store import AFTER_ALL, JobStore, StoredJob
from stapes.server.logs import LOGGER
from stapes.server.pipeline import decoded
from stapes.server.service import Service

MAX_ATTEMPTS: Final = 3
_SWEEP_S: Final = 60.0


class JobRunner:
    """The jobs of a server. For one event loop; all of the disk's work is in one thread of its own."""

    def __init__(self, folder: Path, service: Service) -> None:
        """Open the folder's jobs, and have those that a killed server left run again. Raises OutputError."""
        self._service = service
        self._uploads, self._results = folder / "uploads", folder / "results"
        for one in (folder, self._uploads, self._results):
            one.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.store = JobStore(folder / "jobs.sqlite")
        self._journal: Journal | None = open_journal(folder, LOGGER.warning)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="stapes-jobs")
        self._running: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[str] = set()
        self._changed = asyncio.Condition()
        self._is_closing = False
        kept = {one.id for one in self.store.recover()}
        for path in self._uploads.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)

    async def start(self) -> None:
        """Begin with what is queued."""
        self._sweeper = asyncio.create_task(self._sweep())
        await self._fill()

    async def stop(self) -> None:
        """Begin no job any more, and end the answers that wait for one."""
        self._is_closing = True
        await self._tell()

    async def close(self) -> None:
        """Stop; jobs in work go on when the server starts again."""
        await self.stop()
        self._sweeper.cancel()
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(self._sweeper, *self._running.values(), return_exceptions=True)
        if self._journal is not None:
            await self.on_disk(partial(self._journal.close, finished=False))
        await self.on_disk(self.store.close)
        self._disk.shutdown()

    async def on_disk(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call something that waits for the disk, in its thread. Raises ApiError 503 where the disk fails."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._disk, call, *arguments)
        except (sqlite3.Error, OSError) as error:
            what = "The disk for jobs is full, or fails; the server's log has the cause."
            raise ApiError(503, what, code="jobs_unavailable", retry_after_s=60) from error

    async def change(self, job: str, events: Sequence[tuple[int, dict[str, Any]]] = (), **values: Any) -> None:
        """Change a job on the disk, and tell those who wait for a change."""
        await self.on_disk(partial(self.store.update, job, events, **values))
        await self._tell()

    def upload_path(self, job: str) -> Path:
        """Return where a job's upload is until it ends."""
        return self._uploads / job

    def result_path(self, job: str) -> Path:
        """Return where a job's transcript is when it is done."""
        return self._results / f"{job}.json"

    async def add(self, job: StoredJob, upload: Upload) -> StoredJob:
        """Keep an upload and its job on the disk, and have it run. Raises ApiError 409, 429."""
        limits = self._service.config.bounds
        if await self.on_disk(self.store.count_open, job.owner) >= limits.max_jobs:
            raise ApiError(429, f"At most {limits.max_jobs} jobs may wait.", code="too_many_jobs", retry_after_s=60)
        if not await self.on_disk(self._make_room, upload.size):
            raise ApiError(429, "The disk for jobs is full.", code="jobs_full", retry_after_s=60)
        place = self.upload_path(job.id)
        await self.on_disk(upload.keep_as, place)
        try:
            kept: StoredJob = await self.on_disk(self.store.add, job)
        except BaseException:
            place.unlink(missing_ok=True)
            raise
        if kept.id != job.id:
            place.unlink(missing_ok=True)
            if kept.fingerprint != job.fingerprint:
                raise ApiError(409, "This idempotency key was used for another request.", code="idempotency_key_reused")
        await self._fill()
        return kept

    async def cancel(self, job: StoredJob) -> None:
        """End a job, at the latest before the engine's next step."""
        task = self._running.get(job.id)
        if task is not None:
            self._cancelled.add(job.id)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        elif not job.has_ended:
            await self._end(job, "cancelled")

    @property
    def is_closing(self) -> bool:
        """Whether the server ends."""
        return self._is_closing

    async def changes(self, timeout_s: float) -> None:
        """Wait until something has changed for any job, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait()

    async def events(self, job: str, after: int) -> AsyncIterator[list[tuple[int, dict[str, Any]]]]:
        """Yield a job's events after a number, as they come; an empty list where nothing came for a while."""
        while True:
            found = await self.on_disk(self.store.events, job, after)
            if found:
                after = found[-1][0]
                yield found
                continue
            now = await self.on_disk(self.store.get, job)
            if now is None or now.has_ended or self._is_closing:
                return
            yield []
            await self.changes(3.0)

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

    async def _fill(self) -> None:
        """Start queued jobs while there is room."""
        if self._is_closing or len(self._running) >= self._service.config.bounds.max_running_jobs:
            return
        for job in await self.on_disk(self.store.waiting):
            if len(self._running) >= self._service.config.bounds.max_running_jobs:
                break
            if job.id not in self._running and not self._is_closing:
                self._running[job.id] = asyncio.create_task(self._run(job))

    async def _run(self, job: StoredJob) -> None:
        try:
            await self._outcome(job)
        except Exception as error:  # the disk: the job is run again later
            LOGGER.error("job %s could not be kept", job.id, exc_info=error)
        finally:
            self._running.pop(job.id, None)
            self._cancelled.discard(job.id)
        await self._fill()

    async def _outcome(self, job: StoredJob) -> None:
        try:
            warnings = await self._work(job)
        except asyncio.CancelledError:
            if job.id in self._cancelled:
                await self._end(job, "cancelled")
            else:  # the server ends: this was no failed attempt
                await self.change(job.id, state="queued", attempts=job.attempts)
        except Exception as error:
            if not isinstance(error, StapesError | ApiError):
                LOGGER.error("job %s failed", job.id, exc_info=error)
            await self._end(job, "failed", api_error_of(error).to_dict()["error"])
        else:
            await self._end(job, "done", warnings=warnings)

    async def _work(self, job: StoredJob) -> tuple[str, ...]:
        """Transcribe a job and keep its result; return the warnings. Raises what its end is to say."""
        if job.attempts >= MAX_ATTEMPTS:
            raise ApiError(500, f"The server ended {MAX_ATTEMPTS} times while it worked on this job.", code="crashed")
        began = job.started or time.time()
        await self.change(job.id, state="running", attempts=job.attempts + 1, started=began)
        wanted = audio_request(job.fields, "transcriptions", is_admin=True)
        service = self._service
        async with service.models.use(wanted.model) as engine:
            upload = Upload(self.upload_path(job.id), job.filename, "", job.size)
            with await decoded(service, upload, wanted, service.config.bounds.max_job_audio_s) as recording:
                self._count_audio(job, recording.duration_s)
                await self.change(job.id, duration_s=recording.duration_s)
                transcript = await self._transcribe(job, wanted, engine, recording)
        body = msgspec.json.encode(transcript)
        await self.on_disk(self._make_room, len(body))
        await self.on_disk(write_whole, {self.result_path(job.id): [body]})
        return transcript.warnings

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
        submit["priority"] = wanted.priority
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
        if key is not None and not job.attempts:
            self._service.admission.hours.count(key, seconds)

    async def _end(
        self, job: StoredJob, state: str, error: dict[str, Any] | None = None, warnings: tuple[str, ...] = ()
    ) -> None:
        """End a job: the state and the last event together; then its upload is not needed any more."""
        last = {"type": f"job.{state}"} | ({} if error is None else {"error": error})
        values: dict[str, Any] = {"state": state, "ended": time.time(), "error": error, "warnings": warnings}

        def end() -> StoredJob | None:
            self.store.update(job.id, [(AFTER_ALL, last)], **values)
            self.upload_path(job.id).unlink(missing_ok=True)
            return self.store.get(job.id)

        now = await self.on_disk(end)
        LOGGER.info("job", extra=_noted(now or job))
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # What is kept.

    async def _sweep(self) -> None:
        while True:
            try:
                await self.on_disk(self.remove_old, time.time())
                await self.on_disk(self.store.queue_again, self._running.keys())
                await self._fill()
            except ApiError as error:  # a disk that is full now may have room later
                LOGGER.error("jobs could not be tidied up", exc_info=error)
            await asyncio.sleep(_SWEEP_S)

    def remove_old(self, now: float) -> None:
        """Remove jobs that ended too long ago."""
        for job in self.store.ended():
            if job.ended is None or now - job.ended < self._service.config.bounds.job_retention_s:
                break
            self._remove(job)

    def _make_room(self, n_bytes: int) -> bool:
        """Remove the results that are oldest until an upload fits; False if it does not fit even then."""
        most = self._service.config.bounds.max_state_bytes
        used = sum(path.stat().st_size for folder in (self._uploads, self._results) for path in folder.iterdir())
        for job in self.store.ended() if used + n_bytes > most else ():
            with suppress(OSError):
                used -= self.result_path(job.id).stat().st_size
            self._remove(job)
            if used + n_bytes <= most:
                break
        return used + n_bytes <= most

    def _remove(self, job: StoredJob) -> None:
        self.result_path(job.id).unlink(missing_ok=True)
        self.store.remove(job.id)


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
