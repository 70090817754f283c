"""Hands a command's recordings to the engine, a few at a time, from a thread of its own.

Reading a recording takes seconds: meanwhile the engine works for those that are there. Tells a `Listener`, from
whichever thread it happens in; writes nothing but the journal.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from stapes.cli.inputs import STDIN, opened_source
from stapes.errors import CancelledError, OptionError
from stapes.recording.events import WindowDone
from stapes.results import WindowResult

if TYPE_CHECKING:
    from stapes.cli.command import Command
    from stapes.journal.journal import Journal
    from stapes.recording.events import JobEvent
    from stapes.results import LanguageGuess

from dataclasses import dataclass, field

from stapes.cli.output import shown_name
from stapes.journal.journal import JournalEntry
from stapes.output.files import output_stem
from stapes.recording.events import JobEvent


class Listener(Protocol):
    """Whom the loader tells what becomes of each recording. `ended`, `failed` or `skipped` is the last of it."""

    def opened(self, ticket: Ticket) -> None:
        """It is being read."""

    def loaded(self, ticket: Ticket, job: Any) -> None:
        """It is in the engine."""

    def happened(self, ticket: Ticket, event: JobEvent) -> None:
        """A window has ended, or its language is known; may come before `loaded`."""

    def ended(self, ticket: Ticket, job: Any) -> None:
        """Its job has ended."""

    def failed(self, ticket: Ticket, error: Exception) -> None:
        """It could not be read."""

    def skipped(self, ticket: Ticket, reason: str) -> None:
        """Its files are there already."""

    def warned(self, ticket: Ticket | None, message: str) -> None:
        """Something is odd."""


class Loader:
    """Lends the engine at most `concurrency` recordings at once, in the order of the command line."""

    def __init__(
        self,
        command: Command,
        engine: Any,
        listener: Listener,
        *,
        concurrency: int,
        journal: Journal | None,
    ) -> None:
        self._command = command
        self._engine = engine
        self._listener = listener
        self._concurrency = concurrency
        self._journal = journal
        self._settings = ""  # what the journal's keys have in common
        self._outputs: frozenset[str] = frozenset()  # what makes a recording done, to the journal
        self._todo: deque[Ticket] = deque()
        self._n_open = 0
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="stapes loader", daemon=True)
        #: the recording that is being read: warnings raised meanwhile are of it
        self.reading: Ticket | None = None

    def start(self, tickets: Iterable[Ticket]) -> None:
        """Begin to read."""
        self._todo.extend(tickets)
        self._thread.start()

    def release(self) -> None:
        """Make room for another recording: one has ended."""
        with self._changed:
            self._n_open -= 1
            self._changed.notify()

    def stop(self) -> None:
        """Begin no other recording, and give up the one that is being read."""
        with self._changed:
            self._stopping = True
            self._todo.clear()
            self._changed.notify()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end. One that waits for a pipe cannot be ended, and is left to the process's end."""
        self._thread.join(timeout_s)

    def is_this_thread(self) -> bool:
        """Whether the caller is the loader's thread."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        while (ticket := self._next()) is not None:
            self.reading = ticket
            try:
                self._load(ticket)
            except Exception as error:  # one recording's failure is its own
                self._listener.failed(ticket, error)
            self.reading = None

    def _next(self) -> Ticket | None:
        """Wait for room; None: nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: not self._todo or self._n_open < self._concurrency)
            if not self._todo:
                return None
            self._n_open += 1
            return self._todo.popleft()

    def _load(self, ticket: Ticket) -> None:
        is_held = self._journal is not None and self._journal.holds(ticket.stem)
        if self._command.skip_existing and not is_held and self._is_there(ticket):
            self._listener.skipped(ticket, "exists")
            return
        self._look_up(ticket)
        done = ticket.entry.outputs_done if ticket.entry else frozenset()
        if done and done.issuperset(self._outputs) and self._is_there(ticket):
            self._listener.skipped(ticket, "done_before")
            return
        self._listener.opened(ticket)
        job = self._submit_or_begin_anew(ticket)
        self._listener.loaded(ticket, job)
        job.when_ended(lambda ended: self._listener.ended(ticket, ended))

    def _is_there(self, ticket: Ticket) -> bool:
        return all(target.is_file() for target in self._command.targets(ticket.source))

    def _look_up(self, ticket: Ticket) -> None:
        """Find out what the journal knows. Standard input and pipes are not journaled: they come only once."""
        if self._journal is None or ticket.source == STDIN:
            return
        from stapes.journal.keys import output_keys, recording_key, settings_key  # noqa: PLC0415 (only with a journal)

        self._settings = self._settings or settings_key(self._engine.info, self._command.options)
        self._outputs = self._outputs or output_keys(self._command.formats, self._command.layout, self._command.page)
        key = recording_key(ticket.source, self._settings)
        if key is not None:
            ticket.entry = self._journal.entry(ticket.stem, key)

    def _submit_or_begin_anew(self, ticket: Ticket) -> Any:
        answers = ticket.entry.answers if ticket.entry else ()
        try:
            return self._submit(ticket, answers)
        except OptionError as error:
            if not answers or ticket.entry is None:
                raise
            self._listener.warned(ticket, f"{ticket.name}: the journal does not suit it ({error}); it is begun anew")
            ticket.entry.forget()
            return self._submit(ticket, ())

    def _submit(self, ticket: Ticket, answers: Sequence[LanguageGuess | WindowResult]) -> Any:
        ticket.n_resumed = sum(isinstance(answer, WindowResult) for answer in answers)
        with opened_source(self._command, ticket.source) as audio:
            return self._engine.submit(
                audio,
                max_duration_s=self._command.max_duration_s,
                options=self._command.options,
                on_event=self._sink(ticket),
                resume=answers,
                check=self._check,
            )

    def _check(self) -> None:
        """Leave the reading of a long recording in the middle."""
        if self._stopping:
            raise CancelledError("stopped while it was read")

    def _sink(self, ticket: Ticket) -> Callable[[JobEvent], None]:
        def take(event: JobEvent) -> None:
            if ticket.entry is not None and not event.resumed:
                ticket.entry.note(event.window.result if isinstance(event, WindowDone) else event.guess)
            self._listener.happened(ticket, event)
            if isinstance(event, WindowDone) and self._stopping and ticket.job is not None:
                ticket.job.cancel()

        return take


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """A recording's place in a command."""

    number: int  # 1, 2, ... in the order of the command line
    count: int
    source: str
    entry: JournalEntry | None = None  # None: not journaled
    job: Any = None  # once it is in the engine
    duration_s: float = 0.0
    resumed_s: float = 0.0  # of audio known from an earlier run
    n_resumed: int = 0  # windows known from an earlier run
    n_windows: int = 0
    done_s: float = 0.0
    began_s: float = 0.0  # on the clock of time.monotonic
    begun: bool = False  # those who watch were told of it
    events: deque[JobEvent] = field(default_factory=deque)  # of which they were not told yet
    language_is_told: bool = False
    warned: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """What people call it."""
        return shown_name(self.source)

    @property
    def stem(self) -> str:
        """The name of its files, without suffix."""
        return output_stem(self.source)
