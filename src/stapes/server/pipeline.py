"""From an upload to a job of an engine: decoding in a media process, counting of audio, the schedule."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import PurePath

from stapes import Engine, Job
from stapes.audio import Recording
from stapes.errors import OptionError
from stapes.options import Audio
from stapes.server.admission import Ticket
from stapes.server.errors import ApiError, invalid_value
from stapes.server.fields import AudioRequest
from stapes.server.form import Upload
from stapes.server.service import Service

#: the longest part of a file's name that is taken for its kind
_LONGEST_SUFFIX = 10


@asynccontextmanager
async def submitted(service: Service, upload: Upload, wanted: AudioRequest, ticket: Ticket) -> AsyncIterator[Job]:
    """Give the job of an upload, in the schedule; what is left of it in the end is cancelled.

    Waits for the ticket's slot first. Raises ApiError, AudioError, OptionError.
    """
    metrics, bounds = service.metrics, service.config.bounds
    began = time.monotonic()
    await ticket.active()
    metrics.queue_s.observe(time.monotonic() - began)
    async with service.models.use(wanted.model) as engine:
        _check_model(engine, wanted)
        with await decoded(service, upload, wanted, bounds.max_audio_s) as recording:
            ticket.count_audio(recording.duration_s)
            began = time.monotonic()
            job = await engine.asubmit(
                recording,
                options=replace(wanted.options, audio=Audio()),
                interactive=recording.duration_s <= bounds.interactive_s,
                priority=wanted.priority,
                deadline_s=wanted.deadline_s,
            )
            try:
                yield job
            finally:
                job.cancel()
            took_s = time.monotonic() - began
            metrics.model_s.observe(took_s)
            metrics.audio_s.inc(recording.duration_s)
            metrics.real_time.set(recording.duration_s / took_s)


async def decoded(service: Service, upload: Upload, wanted: AudioRequest, max_audio_s: float) -> Recording:
    """Decode an upload to samples. Raises AudioError."""
    began = time.monotonic()
    suffix = PurePath(upload.filename).suffix.lower()
    file = upload.open()
    try:
        return await service.media.decode(
            file,
            label="The file",
            suffix=suffix if len(suffix) <= _LONGEST_SUFFIX and suffix.isascii() else "",
            audio=wanted.options.audio,
            max_duration_s=max_audio_s,
        )
    finally:
        os.close(file)
        service.metrics.media_s.observe(time.monotonic() - began)


def _check_model(engine: Engine, wanted: AudioRequest) -> None:
    """Raise ApiError for a language that the model does not know, and for a translation that it cannot make."""
    try:
        engine.check_speech(wanted.options.speech)
    except OptionError as error:
        raise invalid_value("language", str(error)) from None
    if wanted.options.speech.task == "translate" and "translate" not in engine.capabilities.tasks:
        raise ApiError(
            400,
            f"The model '{engine.info.model}' cannot translate: it would write the spoken language.",
            param="model",
            code="unsupported_value",
        )
