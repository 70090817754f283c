"""Submits a command's recordings to the engine, a few at a time, from a separate thread.

Reading a recording takes seconds; the engine works on read ones in the meantime. What happens to each becomes a
message, from the thread in which it happens. Writes only the journal.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stapes.cli import events
from stapes.cli.events import Recording
from stapes.cli.inputs import STDIN, opened_source
from stapes.errors import CancelledError, OptionError
from stapes.journal.codec import AnswerBounds
from stapes.journal.keys import output_keys, recording_key, settings_key
from stapes.recording.events import WindowDone
from stapes.results import WindowResult

if TYPE_CHECKING:
    from stapes.cli.command import Command
    from stapes.journal.journal import Journal, JournalEntry
    from stapes.recording.events import JobEvent
    from stapes.results import LanguageGuess


@dataclass(slots=True, eq=False)
class ActiveRecording:
    """A recording in work."""

    recording: Recording
    entry: JournalEntry | None = None  # None: not journaled
    job: Any = None  # once it is in the engine
    n_resumed: int = 0  # windows known from an earlier run
    n_windows: int = 0
    duration_s: float = 0.0
    done_s: float = 0.0
    began_s: float | None = None  # on the clock of time.monotonic; None: it has not started
    early: list[JobEvent] = field(default_factory=list)  # that came before it has started


@dataclass(frozen=True, slots=True)
class Loaded:
    """A recording has its job."""

    active: ActiveRecording


@dataclass(frozen=True, slots=True)
class Answered:
    """A window has its result, or the language is known; may come before `Loaded`."""

    active: ActiveRecording
    event: JobEvent


@dataclass(frozen=True, slots=True)
class Ended:
    """The job has ended, or there is none because the recording could not be read."""

    active: ActiveRecording
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class Kept:
    """The recording's files are written, and the journal has that too."""

    active: ActiveRecording
    done: events.Done


#: what the threads of the loader, the engine and the journal put into the runner's queue
Message = Loaded | Answered | Ended | Kept | events.Event


def skip(command: Command, recording: Recording, reason: str, emit: events.Emit) -> None:
    """Emit that there is nothing to do for a recording, as its files are there."""
    emit(events.Skipped(recording, reason, tuple(target.name for target in command.targets(recording.source))))
    emit(events.Closed(recording))


@dataclass(eq=False)
class Loader:
    """Submits at most `concurrency` recordings at once, in the order of the command line."""

    command: Command
    engine: Any
    put: Callable[[Message], None]
    concurrency: int
    journal: Journal | None

    def __post_init__(self) -> None:
        self._todo: deque[ActiveRecording] = deque()
        self._n_open = 0
        self._stopping = False
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._here = threading.local()  # `reading`: what the thread reads

    def start(self, recordings: Iterable[ActiveRecording], n_threads: int = 1) -> None:
        """Start reading."""
        self._todo.extend(recordings)
        for _ in range(n_threads):
            self._threads.append(threading.Thread(target=self._run, name="stapes loader", daemon=True))
            self._threads[-1].start()

    def release(self) -> None:
        """Let another recording begin, as one has ended."""
        with self._changed:
            self._n_open -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Begin no other recording, and stop reading the present one."""
        with self._changed:
            self._stopping = True
            self._todo.clear()
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """Wait for the threads' end. A thread that waits for a pipe lasts until the process ends."""
        deadline = time.monotonic() + timeout_s
        for one in self._threads:
            one.join(max(0.0, deadline - time.monotonic()))

    def read_by_this_thread(self) -> Recording | None:
        """Return the recording that the calling thread is reading, if it is the loader's."""
        reading: Recording | None = getattr(self._here, "reading", None)
        return reading

    def _run(self) -> None:
        while (active := self._next()) is not None:
            self._here.reading = active.recording
            try:
                self._load(active)
            except Exception as error:  # one recording's failure is its own
                self.put(Ended(active, error))
            self._here.reading = None

    def _next(self) -> ActiveRecording | None:
        """Wait for room; None: nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: not self._todo or self._n_open < self.concurrency)
            if not self._todo:
                return None
            self._n_open += 1
            return self._todo.popleft()

    def _load(self, active: ActiveRecording) -> None:
        active.entry = self._entry(active.recording)
        done = active.entry.outputs_done if active.entry else frozenset()
        if done and done.issuperset(self.outputs) and self.command.targets_are_there(active.recording.source):
            skip(self.command, active.recording, events.DONE_BEFORE, self.put)
            return
        self.put(events.Opened(active.recording))
        active.job = self._submit_or_restart(active)
        self.put(Loaded(active))
        active.job.when_ended(lambda job: self.put(Ended(active, job.error)))

    @cached_property
    def _settings(self) -> str:
        """What the journal's keys have in common."""
        return settings_key(self.engine.info, self.command.options)

    @cached_property
    def outputs(self) -> frozenset[str]:
        """The journal's keys of a finished recording's files."""
        return output_keys(self.command.formats, self.command.layout, self.command.page)

    @cached_property
    def _bounds(self) -> AnswerBounds:
        return AnswerBounds.of(self.engine.info)

    def _entry(self, recording: Recording) -> JournalEntry | None:
        """Return the journal's entry. Standard input and pipes are not journaled, as they can be read only once."""
        if self.journal is None or recording.source == STDIN:
            return None
        key = recording_key(recording.source, self._settings)
        return None if key is None else self.journal.entry(recording.stem, key, self._bounds)

    def _submit_or_restart(self, active: ActiveRecording) -> Any:
        answers = active.entry.answers if active.entry else ()
        try:
            return self._submit(active, answers)
        except OptionError as error:
            if not answers or active.entry is None:
                raise
            message = f"{active.recording.name}: the journal does not fit it ({error}); it starts again"
            self.put(events.Warned(message, active.recording))
            active.entry.forget()
            return self._submit(active, ())

    def _submit(self, active: ActiveRecording, answers: Sequence[LanguageGuess | WindowResult]) -> Any:
        active.n_resumed = sum(isinstance(answer, WindowResult) for answer in answers)
        with opened_source(self.command, active.recording.source) as audio:
            return self.engine.submit(
                audio,
                max_duration_s=self.command.max_duration_s,
                options=self.command.options,
                on_event=self._sink(active),
                resume=answers,
                check=self._check,
            )

    def _check(self) -> None:
        """Raise an error where reading is to stop."""
        if self._stopping:
            raise CancelledError("stopped while it was read")

    def _sink(self, active: ActiveRecording) -> Callable[[JobEvent], None]:
        def take(event: JobEvent) -> None:
            if active.entry is not None and not event.resumed:
                active.entry.note(event.window.result if isinstance(event, WindowDone) else event.guess)
            self.put(Answered(active, event))
            if isinstance(event, WindowDone) and self._stopping and active.job is not None:
                active.job.cancel()

        return take
