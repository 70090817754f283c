"""The caller's handle of a submitted recording: wait for it, iterate over it, cancel it.

Blocking or with asyncio: `for segment in job`, `async for segment in job`. Waiting starts the engine.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from stapes.audio.load import AudioSource
from stapes.audio.pcm import Recording
from stapes.engine.preparation import preparation
from stapes.engine.scheduled_job import JobState, Progress, ScheduledJob
from stapes.errors import CancelledError
from stapes.results import LanguageGuess, Segment, Transcript
from stapes.runtime.hints import Hints, unpacks_two
from stapes.runtime.processes import BoundToProcess

if TYPE_CHECKING:
    import asyncio


class Worker(Protocol):
    """The part of an engine that a job uses."""

    def start(self) -> None:
        """Have the engine's thread work until no job is left."""

    def works_here(self) -> bool:
        """Whether the calling thread is inside a step, so that it cannot wait for another."""

    def work(self) -> None:
        """Do one unit of work, or wait until there may be one."""

    def cancel(self, job: ScheduledJob) -> None:
        """End a job, at the latest before the next step; never waits."""


class Job(Hints, BoundToProcess):
    """A recording in the schedule. Iterate over it for segments; `result` gives the whole."""

    _cannot_be_pickled = (
        "a job cannot be pickled or copied: it belongs to an engine of this process. "
        "Send its result() instead: transcripts can be pickled"
    )

    _others: ClassVar[Mapping[str, str]] = {
        name: f"result().{name}" for name in ("text", "segments", "language", "duration_s", "to_dict")
    }

    def __init__(self, engine: Worker, job: ScheduledJob) -> None:
        self._engine = engine
        self._job = job

    @property
    def state(self) -> JobState:
        """Queued, running, done, failed or cancelled."""
        return self._job.state

    @property
    def error(self) -> BaseException | None:
        """Why it failed or was cancelled; None while it runs, and when it is done."""
        return self._job.error

    @property
    def progress(self) -> Progress:
        """How much of the recording is done."""
        return self._job.progress

    @property
    def language_guess(self) -> LanguageGuess | None:
        """Which language was detected; None if it was given, or is not known yet."""
        return self._job.language_guess

    def __iter__(self) -> Iterator[Segment]:
        """Yield segments as windows end. Raises the job's error."""
        while True:
            yield from self.take_segments()
            if self._job.state.ended and not self.has_segments:
                break
            if self._engine.works_here():
                self._engine.work()
            else:
                self.start()
                self._job.wait()
        self.raise_error()

    def result(self, timeout_s: float | None = None) -> Transcript:
        """Wait until the job has ended, and return its transcript.

        Raises the job's error, or TimeoutError if it has not ended after `timeout_s` seconds; it goes on then.
        """
        found: Transcript = self.wait_for_result(timeout_s)
        return found

    def wait_for_result(self, timeout_s: float | None = None) -> Any:
        """Do what `result` does, whatever the task gives."""
        while self._engine.works_here() and not self._job.state.ended:
            self._engine.work()
        self.start()
        if not self._job.wait_for_end(timeout_s):
            raise TimeoutError(f"the job has not ended after {timeout_s:g} s; it is {self._job.state.value}")
        self.raise_error()
        return self._job.result

    def when_ended(self, call: Callable[[Job], None]) -> None:
        """Call `call` once, when the job has ended: from the engine's thread, or now if it has ended already."""
        calls = iter((call,))  # once, whether this thread comes first or the engine's

        def tell() -> None:
            if self._job.state.ended:
                for one in calls:
                    one(self)

        self.listen(tell)
        if self._job.state.ended:
            tell()
        self.start()

    def cancel(self) -> None:
        """End the job, at the latest before the engine's next step; never waits. What has ended stays as it is.

        `result` and iteration raise CancelledError then.
        """
        self._engine.cancel(self._job)

    # The same for asyncio.

    def __aiter__(self) -> AsyncIterator[Segment]:
        """Yield segments as windows end, without blocking the event loop. Raises the job's error."""
        return _segments(self)

    async def aresult(self) -> Transcript:
        """Wait until the job has ended, and return its transcript. Raises the job's error."""
        import asyncio  # noqa: PLC0415 (takes 50 ms to import)

        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.when_ended(lambda _: _set_from_thread(loop, ended))
        await ended.wait()
        return self.result()

    # For other ways to wait.

    @property
    def has_segments(self) -> bool:
        """Whether there are segments to take."""
        return bool(self._job.segments)

    def take_segments(self) -> Iterator[Segment]:
        """Yield the segments that are there, each once."""
        while self._job.segments:
            yield self._job.segments.popleft()

    def listen(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call `call` after every change, from the engine's thread; returns what ends that."""
        return self._job.listen(call)

    def start(self) -> None:
        """Have the engine work until no job is left."""
        if not self._job.state.ended:
            self._engine.start()

    def raise_error(self) -> None:
        """Raise the job's error, if it has one."""
        if self._job.error is not None:
            raise self._job.error


#: where those find the language who look for faster-whisper's info
_LANGUAGE: Final = (
    "the language: stream.job.language_guess after the first segment, stream.job.result().language at the end"
)


class SegmentStream(Hints, BoundToProcess, Iterator["Segment"]):
    """A job's segments as they are decoded. Closing it, or dropping it, cancels what is left of the job."""

    _others: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("info", "language", "language_guess", "language_probability", "all_language_probs"), _LANGUAGE
        ),
        **dict.fromkeys(("text", "segments", "transcript", "to_dict", "result"), "job.result()"),
        "duration": "job.progress.total_s",
        "cancel": "close()",
    }
    _cannot_be_pickled = (
        "a stream of segments cannot be pickled or copied: it belongs to an engine of this process. "
        "Send its segments instead, list(stream), or the transcript that transcribe() returns"
    )

    def __init__(self, job: Job) -> None:
        self.job = job
        self._segments = iter(job)

    def __iter__(self) -> SegmentStream:
        """Return itself. Raises TypeError for `segments, info = stream`, as faster-whisper has it."""
        if unpacks_two(sys._getframe(1)):
            raise TypeError(
                "a stream gives segments, and no info: write stream = engine.stream(...), then for segment in stream; "
                f"{_LANGUAGE}; the duration: stream.job.progress.total_s"
            )
        return self

    def __next__(self) -> Segment:
        try:
            return next(self._segments)
        except BaseException:  # the end, a failure, or Ctrl-C
            self.close()
            raise

    def close(self) -> None:
        """Cancel the job, if it has not ended."""
        self.job.cancel()

    def __del__(self) -> None:
        """Cancel the job: no reference is left."""
        self.job.cancel()


# asyncio: submit, iterate and wait without blocking an event loop. It is imported when it is first used: 50 ms.


async def submit_async(call: Callable[..., Job], audio: AudioSource | Recording, **keywords: Any) -> Job:
    """Do what `call`, an engine's submit, does, in a thread: reading a long recording takes seconds.

    The thread is one of `preparation`: asyncio's own executor neither holds it up nor is held up.
    If the task is cancelled meanwhile, reading ends, and no job is left behind.
    """
    import asyncio  # noqa: PLC0415 (as above)

    given_up = threading.Event()

    def check() -> None:
        if given_up.is_set():
            raise CancelledError("the task that waited for this recording was cancelled")

    work = partial(call, audio, check=check, **keywords)
    loading = asyncio.get_running_loop().run_in_executor(preparation.executor(audio), work)
    try:
        return await asyncio.shield(loading)
    except asyncio.CancelledError:
        given_up.set()
        loading.add_done_callback(lambda done: None if done.exception() else done.result().cancel())
        raise


async def stream_async(job: Job) -> AsyncIterator[Segment]:
    """Yield segments as windows end; closing the iterator cancels the rest."""
    try:
        async for segment in _segments(job):
            yield segment
    finally:
        job.cancel()


async def _segments(job: Job) -> AsyncIterator[Segment]:
    import asyncio  # noqa: PLC0415 (as above)

    changed = asyncio.Event()
    leave = job.listen(partial(_set_from_thread, asyncio.get_running_loop(), changed))
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


def _set_from_thread(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    """Set an event from the engine's thread; a loop that was closed meanwhile waits for nothing."""
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:
        if not loop.is_closed():
            raise
