"""Jobs under asyncio: submit, iterate and wait without holding an event loop up. Loaded when it is first used."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from stapes.audio.load import AudioSource
from stapes.errors import CancelledError
from stapes.job import Job
from stapes.results import Segment, Transcript


async def submit(call: Callable[..., Job], audio: AudioSource, **keywords: Any) -> Job:
    """Do what `call`, an engine's submit, does, in a thread: reading a long recording takes seconds.

    If the task is cancelled meanwhile, reading ends, and no job is left behind.
    """
    given_up = threading.Event()

    def check() -> None:
        if given_up.is_set():
            raise CancelledError("nobody waits for this recording any more")

    loading = asyncio.get_running_loop().run_in_executor(None, partial(call, audio, check=check, **keywords))
    try:
        return await asyncio.shield(loading)
    except asyncio.CancelledError:
        given_up.set()
        loading.add_done_callback(lambda done: None if done.exception() else done.result().cancel())
        raise


async def segments(job: Job) -> AsyncIterator[Segment]:
    """Give segments as windows end. Raises what made the job fail."""
    changed = asyncio.Event()
    leave = job.listen(partial(_tell, asyncio.get_running_loop(), changed))
    try:
        while True:
            changed.clear()
            for segment in job.take_segments():
                yield segment
            if job.state.ended and not job.has_segments:
                break
            job.start()
            await changed.wait()
    finally:
        leave()
    job.raise_error()


async def stream(job: Job) -> AsyncIterator[Segment]:
    """Give segments as windows end; whoever stops asking cancels the rest."""
    try:
        async for segment in segments(job):
            yield segment
    finally:
        job.cancel()


async def result(job: Job) -> Transcript:
    """Wait until the job has ended, and give its transcript. Raises what made it fail."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    job.when_ended(lambda _: _tell(loop, ended))
    await ended.wait()
    return job.result()


def _tell(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    """Set an event from the engine's thread; a loop that was closed meanwhile waits for nothing."""
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:
        if not loop.is_closed():
            raise
