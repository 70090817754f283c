"""`/v1/jobs`: the HTTP side of jobs. A job belongs to the key that made it; another's is not there."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from stapes.server import answers, events
from stapes.server.audio import EventStream, unless_disconnected
from stapes.server.errors import ApiError, api_error_of, invalid_value, unknown_parameter
from stapes.server.fields import FORMATS, audio_request
from stapes.server.form import read_form
from stapes.server.jobs.runner import JobRunner, fingerprint
from stapes.server.jobs.store import StoredJob
from stapes.server.schema import ErrorBody, Job, JobList
from stapes.server.service import Service

_MOST_WAIT_S, _MOST_LISTED, _LONGEST_ID = 60.0, 100, 15
_IDEMPOTENCY: Final = re.compile(r"[\x21-\x7e]{1,200}")
Handler = Callable[[Request], Awaitable[Response]]


def job_routes(service: Service, runner: JobRunner | None) -> list[BaseRoute]:
    """Return the routes of jobs; without a folder for them, each says what is missing."""
    handlers = _Handlers(runner)
    return [
        Route("/v1/jobs", handlers.listed),
        Route("/v1/jobs", _Made(service, runner), methods=["POST"]),
        Route("/v1/jobs/{id}", _Watched(service, handlers, _wait), methods=["GET"]),
        Route("/v1/jobs/{id}/events", _Watched(service, handlers, _follow), methods=["GET"]),
        Route("/v1/jobs/{id}/result", handlers.result),
        Route("/v1/jobs/{id}/cancel", handlers.cancelled, methods=["POST"]),
    ]


class _Made:
    """`POST /v1/jobs`, as an ASGI application: the same form as for a transcription."""

    def __init__(self, service: Service, runner: JobRunner | None) -> None:
        self._service = service
        self._jobs = runner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, service, runner = Request(scope, receive), self._service, _there(self._jobs)
        key = scope["state"]["key"]
        idempotency = request.headers.get("idempotency-key")
        if idempotency is not None and not _IDEMPOTENCY.fullmatch(idempotency):
            raise ApiError(400, "Idempotency-Key must have 1 to 200 printable ASCII characters, without spaces.")
        async with (
            service.admission.admit(key),
            read_form(request.stream(), request.headers, service.spool, service.config.bounds) as form,
        ):
            upload, wanted = service.checked(form, "transcriptions", scope["state"])
            if wanted.stream:
                raise invalid_value("stream", "A job has no stream in its answer; read /v1/jobs/{id}/events.")
            job = StoredJob(
                id=f"job_{secrets.token_hex(16)}",
                owner="" if key is None else key.name,
                fields=tuple(form.fields),
                filename=upload.filename,
                sha256=upload.sha256,
                size=upload.size,
                fingerprint=fingerprint(form.fields, upload.sha256),
                idempotency=idempotency,
                priority=wanted.priority,
            )
            kept = await runner.add(job, upload)
        scope["state"]["noted"]["job"] = kept.id
        status = 202 if kept.id == job.id else 200
        await Response(_body(kept), status, media_type="application/json")(scope, receive, send)


class _Handlers:
    def __init__(self, runner: JobRunner | None) -> None:
        self._jobs = runner

    async def listed(self, request: Request) -> Response:
        _check_query(request, "limit", "before")
        limit = _number(request, "limit", 20, _MOST_LISTED)
        before = _number(request, "before", math.inf, math.inf)
        runner = _there(self._jobs)
        found = await runner.on_disk(runner.store.listed, _owner(request), int(limit), before)
        return Response(
            msgspec.json.encode(JobList(data=[_shown(one) for one in found])), media_type="application/json"
        )

    async def cancelled(self, request: Request) -> Response:
        await self.runner.cancel(await self.job(request))
        return Response(_body(await self.job(request)), media_type="application/json")

    async def result(self, request: Request) -> Response:
        _check_query(request, "response_format")
        job = await self.job(request)
        if job.error is not None:
            raise ApiError(409, f"The job failed: {job.error['message']}", code="job_not_done")
        if job.state != "done":
            raise ApiError(409, f"The job is {job.state}; it has no result.", code="job_not_done")
        wanted = audio_request(job.fields, "transcriptions", is_admin=True)
        name = request.query_params.get("response_format", wanted.response_format)
        if name not in FORMATS:
            raise invalid_value("response_format", f"response_format must be one of {', '.join(FORMATS)}.")
        transcript = await self.runner.transcript(job.id)
        body, content_type = answers.answer(transcript, replace(wanted, response_format=name))
        return Response(body, headers={"content-type": content_type})

    @property
    def runner(self) -> JobRunner:
        """The jobs. Raises ApiError 404 where there are none."""
        return _there(self._jobs)

    async def job(self, request: Request) -> StoredJob:
        """Return the job of a path. Raises ApiError 404, also for another owner's."""
        runner, name = self.runner, request.path_params["id"]
        job: StoredJob | None = await runner.on_disk(runner.store.get, name, _owner(request))
        if job is None:
            raise ApiError(404, f"There is no job {name[:100]!r}.", code="job_not_found")
        return job


class _Watched:
    """A path whose answer may wait for a job, as an ASGI application: it ends when its client goes away."""

    def __init__(
        self,
        service: Service,
        handlers: _Handlers,
        work: Callable[[_Handlers, Request, Send], Coroutine[Any, Any, None]],
    ) -> None:
        self._service = service
        self._handlers = handlers
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        with self._service.admission.waiting_for_jobs(scope["state"]["key"]):
            await unless_disconnected(receive, self._work(self._handlers, request, send))


async def _wait(handlers: _Handlers, request: Request, send: Send) -> None:
    """Send a job, when it has ended or `wait` seconds are over."""
    _check_query(request, "wait")
    wait_s = _number(request, "wait", 0.0, _MOST_WAIT_S)
    job = await handlers.job(request)
    if wait_s and not job.has_ended:
        await handlers.runner.wait_for_end(job.id, wait_s)
        job = await handlers.job(request)
    await Response(_body(job), media_type="application/json")(request.scope, request.receive, send)


async def _follow(handlers: _Handlers, request: Request, send: Send) -> None:
    """Send a job's events as they come."""
    job = await handlers.job(request)
    given = request.headers.get("last-event-id", "0")
    if not (given.isascii() and given.isdecimal() and len(given) <= _LONGEST_ID):
        raise ApiError(400, "Last-Event-ID must be the id of an event.", param="last-event-id")
    out = EventStream(send)
    async with out.kept_alive():
        try:
            async for found in handlers.runner.events(job.id, int(given)):
                for number, body in found:
                    await out.send(f"id: {number}\n".encode() + b"data: " + msgspec.json.encode(body) + b"\n\n")
            await out.end(b"")
        except Exception as error:
            if not out.has_begun:
                raise
            await out.end(events.error(api_error_of(error)))
            raise


def _there(runner: JobRunner | None) -> JobRunner:
    if runner is None:
        raise ApiError(404, "This server keeps no jobs; --state_dir FOLDER switches them on.", code="jobs_off")
    return runner


def _owner(request: Request) -> str:
    key = request.scope["state"]["key"]
    return "" if key is None else str(key.name)


def _check_query(request: Request, *known: str) -> None:
    """Refuse parameters that a path does not have. Raises ApiError 400."""
    for name in request.query_params:
        if name not in known:
            raise unknown_parameter(name[:100], f"This path has {' and '.join(known)}.")


def _number(request: Request, name: str, default: float, most: float) -> float:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise invalid_value(name, f"{name} must be a number that is not negative.")
    return min(value, most)


def _body(job: StoredJob) -> bytes:
    return msgspec.json.encode(_shown(job))


def _shown(job: StoredJob) -> Job:
    """Return what clients see of a job."""
    error = None if job.error is None else ErrorBody(**job.error)
    return Job(
        id=job.id, state=job.state, created=job.created, started=job.started, ended=job.ended,
        filename=job.filename, size=job.size, duration_s=job.duration_s, done_s=job.done_s, error=error,
        model=dict(job.fields).get("model", ""), warnings=[one.partition(": ")[2] or one for one in job.warnings],
    )  # fmt: skip
