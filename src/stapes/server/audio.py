"""`/v1/audio/transcriptions` and `/v1/audio/translations`: a form in, an answer or a stream of events out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from stapes import Job, Transcript
from stapes.server import answers, events
from stapes.server.admission import Ticket
from stapes.server.errors import ApiError, api_error_of
from stapes.server.fields import AudioRequest, Endpoint
from stapes.server.form import Upload, disconnected, read_form
from stapes.server.pipeline import submitted
from stapes.server.service import Service

#: so often something is sent while there is nothing to say; LiveKit's client gives up after 5 s of silence
PING_S = 3.0
_LONGEST_WARNING = 500
_ENDED = ApiError(503, "The request was ended: it took too long, or the server is stopping.", code="request_ended")


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A request whose form has been read and checked."""

    upload: Upload
    wanted: AudioRequest
    ticket: Ticket
    began: float  # of the request, on the monotonic clock
    noted: dict[str, object]  # for the log

    def note(self, transcript: Transcript) -> dict[str, str]:
        """Note what was transcribed, for the log; return the header that tells of damaged audio."""
        self.noted["audio_s"] = round(transcript.duration_s, 2)
        if not transcript.warnings:
            return {}
        shown = "; ".join(one.partition(": ")[2] or one for one in transcript.warnings)
        self.noted["warnings"] = len(transcript.warnings)
        return {"x-stapes-warning": shown.encode("ascii", "replace").decode()[:_LONGEST_WARNING]}


class AudioEndpoint:
    """One of the two endpoints, as an ASGI application."""

    def __init__(self, service: Service, endpoint: Endpoint) -> None:
        self._service = service
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises ApiError, errors about input, and ClientDisconnect."""
        request, service, began = Request(scope, receive), self._service, time.monotonic()
        async with service.admission.admit(scope["state"]["key"]) as ticket:
            try:
                async with read_form(request.stream(), request.headers, service.spool, service.config.bounds) as form:
                    upload, wanted = service.checked(form, self._endpoint, scope["state"])
                    work = Work(upload, wanted, ticket, began, scope["state"]["noted"])
                    answer = self._stream(work, send) if work.wanted.stream else self._answer(work, scope, send)
                    limit_s = service.config.bounds.request_timeout_s - (time.monotonic() - began)
                    await within(limit_s, unless_disconnected(receive, answer))
            except ClientDisconnect:
                service.metrics.cancels.inc()
                raise
            finally:
                service.metrics.total_s.observe(time.monotonic() - began)

    async def _answer(self, work: Work, scope: Scope, send: Send) -> None:
        """Send the whole answer at once."""
        async with submitted(self._service, work.upload, work.wanted, work.ticket) as job:
            transcript = await job.aresult()
        body, content_type = answers.answer(transcript, work.wanted)
        headers = {"content-type": content_type, **work.note(transcript)}
        await Response(body, headers=headers)(scope, _no_more, send)

    async def _stream(self, work: Work, send: Send) -> None:
        """Send events as segments are decoded. An error before the first of them is an answer with its status."""
        out = EventStream(send)
        async with out.kept_alive():
            try:
                async with submitted(self._service, work.upload, work.wanted, work.ticket) as job:
                    await self._send_segments(job, work, out)
            except asyncio.CancelledError:  # the client has gone, or the server ends it
                if out.has_begun:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(1.0):
                            await out.end(events.error(_ENDED))
                raise
            except Exception as error:
                if not out.has_begun:
                    raise
                await out.end(events.error(api_error_of(error)))
                raise

    async def _send_segments(self, job: Job, work: Work, out: EventStream) -> None:
        deltas = events.Deltas(work.wanted)
        is_first = True
        async for segment in job:
            if is_first:
                self._service.metrics.first_s.observe(time.monotonic() - work.began)
                is_first = False
            if data := deltas.of(segment):
                await out.send(data)
        transcript = await job.aresult()
        work.note(transcript)
        await out.end(deltas.end(transcript))


class EventStream:
    """Server-sent events. The answer's head is sent with the first of them, or with the first ping."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lock = asyncio.Lock()
        self._sent_at = time.monotonic()
        self.has_begun = False

    async def send(self, data: bytes, *, more: bool = True) -> None:
        """Send events, or a comment."""
        async with self._lock:
            self._sent_at = time.monotonic()
            if not self.has_begun:
                self.has_begun = True
                headers = [(name.encode(), value.encode()) for name, value in events.HEADERS.items()]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def end(self, data: bytes) -> None:
        """Send the last events."""
        await self.send(data, more=False)

    @asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Send a comment whenever nothing else was sent for a while."""
        task = asyncio.create_task(self._ping())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _ping(self) -> None:
        while True:
            left_s = self._sent_at + PING_S - time.monotonic()
            if left_s > 0:
                await asyncio.sleep(left_s)
            else:
                await self.send(events.PING)


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Await `work`; if the client closes the connection meanwhile, cancel it and raise ClientDisconnect."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        await task
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def within(limit_s: float, work: Coroutine[Any, Any, None]) -> None:
    """Await `work`. Raises ApiError 504 if that takes longer."""
    try:
        async with asyncio.timeout(max(0.0, limit_s)) as limit:
            await work
    except TimeoutError:
        if limit.expired():
            raise ApiError(504, "The request took longer than this server allows.", code="timeout") from None
        raise


async def _no_more() -> Any:
    """Never return: what a response uses as `receive` while another task reads from the client."""
    await asyncio.Event().wait()
