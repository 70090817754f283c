"""Many recordings: which rows run next. Admits, batches, finishes, cancels; one bad job fails alone.

The engine asks for a batch, runs it on the backend, and brings back what came of it. Knows no audio format and no
decoding rule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from stapes.backends.base import Backend, FloatArray, RowResult, RowStep, WindowId
from stapes.errors import CancelledError
from stapes.recording.task import RecordingTask
from stapes.results import LanguageGuess, Segment, Transcript

#: windows encoded in one call, and windows in memory at once
MAX_ENCODE, MAX_WINDOWS = 4, 16


class JobState(Enum):
    """Where a job stands. It ends exactly once, in one of the last three."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of a recording is done, in seconds of audio."""

    done_s: float
    total_s: float


ProgressSink = Callable[[Progress], None]


class ScheduledJob:
    """One recording's place in the schedule, and the queue through which its segments leave."""

    def __init__(self, task: RecordingTask, on_progress: ProgressSink | None = None) -> None:
        self._task = task
        self._on_progress = on_progress
        self.state = JobState.QUEUED
        self.abandoned = False  # nobody waits for it: it is ended before the next step
        self.segments: deque[Segment] = deque()
        self.progress = Progress(0.0, task.duration_s)
        self.transcript: Transcript | None = None  # once done
        self.error: BaseException | None = None  # once failed or cancelled

    @property
    def language_guess(self) -> LanguageGuess | None:
        """Which language was detected; None if it was given, or is not known yet."""
        return self._task.language_guess

    @property
    def needs_window(self) -> bool:
        """Whether it waits for a window to be encoded."""
        return not self.state.ended and self._task.needs_window

    def mel(self) -> FloatArray:
        """Give the window (n_mels, 3000) that it waits for."""
        return self._task.mel()

    def attach(self, window: WindowId) -> None:
        """Take the encoded window."""
        self.state = JobState.RUNNING
        self._task.attach(window)

    def steps(self) -> list[RowStep]:
        """Say which rows it wants stepped."""
        return [] if self.state.ended else self._task.steps()

    def accept(self, results: Sequence[RowResult]) -> None:
        """Take what its rows gave."""
        self.segments.extend(self._task.accept(results))

    def finish_if_done(self) -> None:
        """End the job once nothing is left of its recording."""
        if not self.state.ended and self._task.done:
            self.transcript = self._task.transcript()
            self._end(JobState.DONE)

    def fail(self, error: BaseException) -> None:
        """End the job with an error; its rows, window and audio are given back."""
        if not self.state.ended:
            self.error = error
            self._end(JobState.CANCELLED if isinstance(error, CancelledError) else JobState.FAILED)

    def report(self) -> None:
        """Tell whoever wants to know how far it has come."""
        progress = Progress(self._task.done_s, self._task.duration_s)
        if not self.state.ended and progress != self.progress:
            self.progress = progress
            if self._on_progress is not None:
                self._on_progress(progress)

    def _end(self, state: JobState) -> None:
        self.state = state
        self._task.close()


@dataclass(frozen=True, slots=True)
class EncodeBatch:
    """Windows to encode together, one for each job."""

    jobs: tuple[ScheduledJob, ...]
    mel: FloatArray  # (jobs, n_mels, 3000)

    def run(self, backend: Backend) -> list[WindowId]:
        """Let the backend encode them."""
        return backend.encode(self.mel)


@dataclass(frozen=True, slots=True)
class DecodeBatch:
    """Rows to step together; job i owns the next `counts[i]` of `steps`."""

    jobs: tuple[ScheduledJob, ...]
    counts: tuple[int, ...]
    steps: tuple[RowStep, ...]

    def run(self, backend: Backend) -> list[RowResult]:
        """Let the backend step them."""
        return backend.step(self.steps)


Batch = EncodeBatch | DecodeBatch


class Scheduler:
    """The jobs that are not done yet, in the order in which they came."""

    def __init__(self, backend: Backend, max_windows: int = MAX_WINDOWS) -> None:
        """max_windows: how many windows may lie in memory at once."""
        self._backend = backend
        self._max_windows = max_windows
        self.jobs: list[ScheduledJob] = []

    def admit(self, job: ScheduledJob) -> None:
        """Take a job in; one with nothing to decode is done at once."""
        job.finish_if_done()
        if not job.state.ended:
            self.jobs.append(job)

    def cancel(self, job: ScheduledJob) -> None:
        """End a job now; takes effect at once, between two steps."""
        job.fail(CancelledError("the job was cancelled"))
        self._forget_ended()

    def next_batch(self) -> Batch | None:
        """Give the next unit of model work: windows to encode while there is room, else rows to step."""
        for job in [job for job in self.jobs if job.abandoned]:
            self.cancel(job)
        while waiting := [job for job in self.jobs if job.needs_window]:
            room = self._max_windows - (len(self.jobs) - len(waiting))
            if room <= 0:
                break
            if batch := self._encode_batch(waiting[: min(room, MAX_ENCODE)]):
                return batch
            # None of these could give its window: they have failed, and others may be waiting.
        return self._decode_batch()

    def _encode_batch(self, waiting: list[ScheduledJob]) -> EncodeBatch | None:
        jobs, windows = [], []
        for job in waiting:
            try:
                windows.append(job.mel())
            except Exception as error:  # whatever is wrong with one recording is its own
                job.fail(error)
            else:
                jobs.append(job)
        self._forget_ended()
        return EncodeBatch(tuple(jobs), np.stack(windows)) if jobs else None

    def _decode_batch(self) -> DecodeBatch | None:
        asked = [(job, job.steps()) for job in self.jobs]
        asked = [(job, steps) for job, steps in asked if steps]
        if not asked:
            return None
        jobs, steps = zip(*asked, strict=True)
        return DecodeBatch(jobs, tuple(len(one) for one in steps), tuple(row for one in steps for row in one))

    def account(self, batch: Batch, answer: Sequence[WindowId] | Sequence[RowResult]) -> None:
        """Bring each job what the backend gave for it."""
        shares: list[Callable[[], None]]
        if isinstance(batch, EncodeBatch):
            shares = [_bind(job.attach, window) for job, window in zip(batch.jobs, answer, strict=True)]
        else:
            ends = np.cumsum(batch.counts).tolist()
            starts = [0, *ends[:-1]]
            shares = [
                _bind(job.accept, answer[start:end]) for job, start, end in zip(batch.jobs, starts, ends, strict=True)
            ]
        _for_each(batch.jobs, shares)
        # Sinks come last, when every job has what is its own: they may cancel, or ask the engine for more.
        _for_each(batch.jobs, [_report_and_finish(job) for job in batch.jobs])
        self._forget_ended()

    def fail(self, batch: Batch, error: BaseException) -> None:
        """End the jobs of a batch that the backend could not run."""
        for job in batch.jobs:
            job.fail(error)
        self._forget_ended()

    def _forget_ended(self) -> None:
        self.jobs = [job for job in self.jobs if not job.state.ended]


def _bind(give: Callable[..., None], value: object) -> Callable[[], None]:
    return lambda: give(value)


def _report_and_finish(job: ScheduledJob) -> Callable[[], None]:
    def report_and_finish() -> None:
        job.report()
        job.finish_if_done()

    return report_and_finish


def _for_each(jobs: Sequence[ScheduledJob], calls: Sequence[Callable[[], None]]) -> None:
    """Make every job's call; one that raises ends its job alone. Ctrl-C waits until all have been made."""
    interruption: BaseException | None = None
    for job, call in zip(jobs, calls, strict=True):
        try:
            call()
        except Exception as error:
            job.fail(error)
        except BaseException as error:
            job.fail(CancelledError("interrupted"))
            interruption = error
    if interruption is not None:
        raise interruption
