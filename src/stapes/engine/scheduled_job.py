"""One recording's place in the schedule: its state, its queue of segments, and the threads that wait for it.

Only the thread that steps the engine changes a job; any thread may read it, wait for it or cancel it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from stapes.backends.batch import AnswerShare
from stapes.errors import CancelledError, DeadlineError
from stapes.options.checks import number, require
from stapes.recording.base import BaseTask, WindowStream
from stapes.recording.events import EventSink, JobEvent, WindowDone
from stapes.results import LanguageGuess, Segment
from stapes.runtime.processes import register

_WINDOW_SECONDS = 30
_log = logging.getLogger("stapes")


class JobState(Enum):
    """Where a job stands. It ends exactly once, in one of the last three."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    def __init__(self, value: str) -> None:
        #: whether nothing more will happen
        self.ended = value in ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of a recording is done, in seconds of audio."""

    done_s: float
    total_s: float


ProgressSink = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobParams:
    """Class, priority, deadline, callbacks.

    interactive: goes before all jobs that are not.   priority: in its class, higher goes first; equals take turns.
       deadline: on the scheduler's clock, in seconds; None: any.
    on_progress, on_event: called from the thread that steps, after every window; what they raise fails their job.
    Raises OptionError for what could only fail later, in the midst of other jobs.
    """

    interactive: bool = False
    priority: int = 0
    deadline: float | None = None
    on_progress: ProgressSink | None = None
    on_event: EventSink | None = None

    def __post_init__(self) -> None:
        require(isinstance(self.interactive, bool), f"interactive must be True or False, got {self.interactive!r}")
        require(self.priority is not None, "priority must be a number, got None")
        number("priority", self.priority)
        for name in ("on_progress", "on_event"):
            sink = getattr(self, name)
            require(sink is None or callable(sink), f"{name} must be a function or None, got {sink!r}")


class ScheduledJob:
    """One recording's place in the schedule, and the queue through which its segments leave."""

    def __init__(self, work: BaseTask, params: JobParams | None = None) -> None:
        self._work = work
        self.params = params or JobParams()
        self.state = JobState.QUEUED
        self.cancel_requested = False  # it ends before the next step
        self.woken = False  # its task may be done, though no batch had work of it
        self.has_news = False  # since the last report
        self.due = 0  # on the scheduler's clock of windows
        self.waiting_since: float | None = None  # on its clock in seconds: served last, or with work again; None: idle
        self.segments: deque[Segment] = deque()
        self.progress = Progress(0.0, work.duration_s)
        self.result: Any = None  # once done
        self.error: BaseException | None = None  # once failed or cancelled
        self._events: deque[JobEvent] = deque(work.first_events)
        self._changed = threading.Condition()
        self._when_changed: list[Callable[[], None]] = []
        self._notify: Callable[[], None] = lambda: None
        work.wake = self.wake
        register(self)

    def after_fork(self) -> None:
        """In a forked child: end, and touch nothing of the parent's; the parent's waiting threads are not here."""
        self._changed = threading.Condition()
        self._when_changed = []
        self._notify = lambda: None
        if not self.state.ended:
            self.error = CancelledError(
                "this job stays with the process that submitted it, and this one was forked from that; "
                "submit the recording again here"
            )
            self.state = JobState.CANCELLED

    # For the thread that steps.

    @property
    def language_guess(self) -> LanguageGuess | None:
        """Which language was detected; None if it was given, or is not known yet."""
        return self._work.language_guess

    def streams(self) -> Sequence[WindowStream]:
        """Return what can be worked on side by side; nothing once the job has ended, or if this ends it."""
        if self.state.ended:
            return ()
        try:
            return self._work.streams()
        except Exception as error:  # a recording that cannot be read where it is to be cut
            self.fail(error)
            return ()

    @property
    def n_windows_left(self) -> int:
        """About how many windows are still to be decoded; at least 1."""
        return 1 + int((self._work.duration_s - self._work.done_s) / _WINDOW_SECONDS)

    def scheduled(self, notify: Callable[[], None]) -> None:
        """Note that a scheduler has the job. notify: wakes the threads that wait for work."""
        self._notify = notify

    def begin(self) -> None:
        """Note that its first window was encoded."""
        self.state = JobState.RUNNING

    def detect_speech(self, stream: WindowStream) -> None:
        """Run VAD for a stream."""
        if not self.state.ended:
            self._events.extend(self._work.in_order(stream, stream.detect_speech()))
            self.has_news = True

    def accept(self, stream: WindowStream, share: AnswerShare) -> None:
        """Give a stream the answers to its rows."""
        if self.state.ended:
            return
        events = stream.accept(share)
        if events is not None:
            self._events.extend(self._work.in_order(stream, events))
            self.has_news = True

    def report(self) -> None:
        """Report windows that have ended, and progress; end the job if nothing is left of it."""
        self.has_news, moved = False, bool(self._events)
        while self._events and not self.state.ended and not self.cancel_requested:
            event = self._events.popleft()
            if self.params.on_event is not None:
                self.params.on_event(event)
            if isinstance(event, WindowDone):
                self.segments.extend(event.segments)
        progress = Progress(self._work.done_s, self._work.duration_s)
        if not self.state.ended and progress != self.progress:
            self.progress = progress
            if self.params.on_progress is not None:
                self.params.on_progress(progress)
        if not self.state.ended and self._work.done:
            self.result = self._work.result()
            self._end(JobState.DONE)
        elif moved:
            self._tell()

    def fail(self, error: BaseException) -> None:
        """End the job with an error; release its rows, windows and audio."""
        if not self.state.ended:
            self.error = error
            self._end(JobState.CANCELLED if isinstance(error, CancelledError) else JobState.FAILED)

    def end_if_cancelled(self, now: float) -> None:
        """End the job if it was cancelled or is past its deadline."""
        if self.cancel_requested:
            self.fail(CancelledError("the job was cancelled"))
        elif self.params.deadline is not None and now >= self.params.deadline:
            done, total = self.progress.done_s, self.progress.total_s
            self.fail(DeadlineError(f"the deadline has passed with {done:.1f} of {total:.1f} s of audio transcribed"))

    def _end(self, state: JobState) -> None:
        try:
            self._work.close()
        finally:
            self.state = state
            self._events.clear()
            self._tell()
            self.wake()  # threads that step until no job is left

    # For any thread.

    def wake(self) -> None:
        """Say that the task may have work again: it was fed, or the job is to end. Any thread may call this."""
        self.woken = True
        self._notify()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
            listeners = tuple(self._when_changed)
            if self.state.ended:  # nothing changes any more
                self._when_changed.clear()
        for call in listeners:
            try:
                call()
            except Exception:  # a listener's mistake is not the job's
                _log.exception("a listener of %r failed", self._work)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until there are segments to take or the job has ended; False on timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self.segments) or self.state.ended, timeout_s)

    def wait_for_end(self, timeout_s: float | None = None) -> bool:
        """Wait until the job has ended; False on timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self.state.ended, timeout_s)

    def listen(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call `call` after every change, from the thread that steps; returns what ends that."""

        def leave() -> None:
            with self._changed:
                if call in self._when_changed:
                    self._when_changed.remove(call)

        with self._changed:
            self._when_changed.append(call)
        return leave
