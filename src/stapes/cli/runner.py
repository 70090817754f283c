"""A command's recordings through one engine: several at once, each ending in its files, its text or one sentence.

One thread (the caller's) writes everything. The loader's and the engine's threads only put calls into its queue, in
the order in which things happen to a recording; but an answer is in the journal before it is in the queue.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from stapes.cli.loading import Loader, Ticket
from stapes.cli.messages import Report, Tally
from stapes.cli.output import (
    OrderedLines,
    ReaderGoneError,
    ResultLines,
    ResultsLostError,
    StoppedError,
    warnings_caught,
)
from stapes.errors import CancelledError
from stapes.languages import language_title
from stapes.output.writers import format_timestamp, one_line, write_files
from stapes.recording.events import WindowDone

if TYPE_CHECKING:
    from pathlib import Path

    from stapes.cli.command import Command
    from stapes.engine.info import EngineInfo
    from stapes.journal.journal import Journal
    from stapes.options import TranscribeOptions
    from stapes.output.files import InputFiles
    from stapes.recording.events import JobEvent
    from stapes.results import Segment, Transcript

    #: writes a recording's files, and gives their paths
    Keep = Callable[[Any, Ticket, Transcript, InputFiles], Sequence[Path]]

#: recordings at once, however small their windows: more rows hardly share the reading of weights any more
MOST_AT_ONCE: Final = 16
#: in chunked mode one recording fills a batch, and another is read meanwhile
_CHUNKED_AT_ONCE: Final = 2
#: what the windows of recordings at once may take where nobody has said
_MEMORY_BYTES: Final = 4 << 30
#: Windows' waiting is not interruptible by Ctrl-C: it is looked at so often.
_WAKE_S: Final = 0.5
#: how long a recording that is being read may take to notice that nobody wants it
_PATIENCE_S: Final = 1.0


def default_concurrency(info: EngineInfo, options: TranscribeOptions, count: int) -> int:
    """Say how many recordings to work on at once: as many as there are, 16 at most, and windows in 4 GiB."""
    window_bytes = info.window_bytes + (options.search.most_rows + 1) * info.row_bytes
    fitting = _MEMORY_BYTES // window_bytes if window_bytes else MOST_AT_ONCE
    most = _CHUNKED_AT_ONCE if options.method.mode == "chunked" else MOST_AT_ONCE
    return max(1, min(count, most, fitting))


class Batch:
    """Takes recordings from the command line to their files or lines."""

    def __init__(
        self,
        command: Command,
        engine: Any,
        report: Report,
        *,
        concurrency: int,
        journal: Journal | None,
        inputs: InputFiles,
        keep: Keep | None = None,
    ) -> None:
        """inputs: files that must not be replaced.

        keep: writes what is asked for instead of transcripts in their usual formats.
        """
        self._command = command
        self._engine = engine
        self._inputs = inputs
        self._write = keep or self._write_transcript
        self._report = report
        self._journal = journal
        self._lines = OrderedLines(ResultLines(report.aside, only_copy=not command.formats))
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._loader = Loader(command, engine, self, concurrency=concurrency, journal=journal)
        self._open: dict[int, Ticket] = {}
        self._tally = Tally(files=0)
        self._warned: set[str] = set()
        self._stopping = False
        if journal is not None:
            journal.warn = partial(self.warned, None)

    def run(self, sources: Sequence[str], tally: Tally) -> None:
        """Work until every recording has ended; each is counted in the tally.

        Raises StoppedError after a first Ctrl-C, KeyboardInterrupt at a second, or where nothing can be kept;
        ReaderGoneError or ResultsLostError where results have nowhere to go.
        """
        tickets = [Ticket(number=i, count=len(sources), source=one) for i, one in enumerate(sources, 1)]
        self._open = {ticket.number: ticket for ticket in tickets}
        self._tally = tally
        try:
            with warnings_caught(self._warn), self._interruptions():
                self._loader.start(tickets)
                while self._open:
                    call = self._wait()
                    if self._stopping and not self._is_kept():
                        self._calls.put(call)  # a warning is shown all the same
                        raise KeyboardInterrupt
                    call()
        finally:
            self._loader.stop()
            for ticket in self._open.values():  # where an error has ended the loop
                if ticket.job is not None:
                    ticket.job.cancel()
            self._loader.join(_PATIENCE_S)
            self._show_warnings_left()
            if self._journal is not None:
                self._journal.warn = self._report.warning
        if self._stopping:
            raise StoppedError if self._is_kept() else KeyboardInterrupt

    def _show_warnings_left(self) -> None:
        """Show the warnings in the queue at the end: the journal's last one says why nothing is kept."""
        while not self._calls.empty():
            call = self._calls.get()
            if isinstance(call, partial) and call.func == self._show_warning:
                call()

    def _is_kept(self) -> bool:
        """Tell whether the same command would go on where this one is."""
        return self._journal is not None and self._journal.keeps_something

    def _wait(self) -> Callable[[], None]:
        while True:
            try:
                return self._calls.get(timeout=_WAKE_S)
            except Empty:
                continue

    # Ctrl-C.

    @contextmanager
    def _interruptions(self) -> Iterator[None]:
        """Let the first Ctrl-C end gently what the journal can keep, and the second end everything at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)
        if before is not signal.default_int_handler:  # ignored, or somebody else's
            yield
            return

        def interrupt(_: int, __: FrameType | None) -> None:
            if self._stopping:
                raise KeyboardInterrupt
            self._stopping = True  # not raised here: it could hit the screen between two lines
            self._calls.put(self._stop_gently)

        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _stop_gently(self) -> None:
        """Begin nothing new; what is in the engine ends with its present window (`Loader` sees to that)."""
        self._report.note("stopping when the windows in flight are done; press Ctrl-C again to stop at once")
        self._loader.stop()
        for ticket in tuple(self._open.values()):
            if ticket.job is None:
                self._close(ticket)
            elif ticket.entry is None or ticket.job.state.value == "queued":
                ticket.job.cancel()

    # What the loader and the engine tell, from their threads.

    def opened(self, ticket: Ticket) -> None:
        """See `Listener`, here and below."""
        self._calls.put(partial(self._report.file_open, ticket))

    def loaded(self, ticket: Ticket, job: Any) -> None:  # noqa: D102
        ticket.job = job
        self._calls.put(partial(self._load, ticket, job))

    def happened(self, ticket: Ticket, event: JobEvent) -> None:  # noqa: D102
        self._calls.put(partial(self._take, ticket, event))

    def ended(self, ticket: Ticket, job: Any) -> None:  # noqa: D102
        self._calls.put(partial(self._end, ticket, job))

    def failed(self, ticket: Ticket, error: Exception) -> None:  # noqa: D102
        self._calls.put(partial(self._fail, ticket, error))

    def skipped(self, ticket: Ticket, reason: str) -> None:  # noqa: D102
        self._calls.put(partial(self._skip, ticket, reason))

    def warned(self, ticket: Ticket | None, message: str) -> None:  # noqa: D102
        self._calls.put(partial(self._show_warning, ticket, message))

    def _warn(self, message: str) -> None:
        ticket = self._loader.reading if self._loader.is_this_thread() else None
        self.warned(ticket, message)

    # What becomes of that, in the caller's thread.

    def _load(self, ticket: Ticket, job: Any) -> None:
        if ticket.number not in self._open:  # stopped meanwhile
            job.cancel()
            return
        ticket.duration_s, ticket.began_s = job.progress.total_s, time.monotonic()
        self._begin_if_known(ticket)

    def _take(self, ticket: Ticket, event: JobEvent) -> None:
        ticket.events.append(event)
        if ticket.begun:
            self._tell_events(ticket)
        else:
            self._begin_if_known(ticket)

    def _begin_if_known(self, ticket: Ticket, *, at_once: bool = False) -> None:
        """Begin a recording when it is loaded, and all that an earlier run knew of it is told."""
        windows = [event.window for event in ticket.events if isinstance(event, WindowDone) and event.resumed]
        is_loaded = ticket.began_s > 0
        if not is_loaded or ticket.begun or (len(windows) < ticket.n_resumed and not at_once):
            return
        ticket.begun = True
        ticket.resumed_s = min(windows[-1].next_seek / 100, ticket.duration_s) if windows else 0.0
        self._report.file_start(ticket)
        self._tell_events(ticket)

    def _tell_events(self, ticket: Ticket) -> None:
        while ticket.events:
            event = ticket.events.popleft()
            if isinstance(event, WindowDone):
                self._take_window(ticket, event)
            elif event.language is not None:
                self._tell_language(ticket, event.language)

    def _take_window(self, ticket: Ticket, event: WindowDone) -> None:
        ticket.n_windows += 1
        done_s = min(event.window.next_seek / 100, ticket.duration_s)
        if not event.resumed:
            self._tally.worked_s += done_s - ticket.done_s
        ticket.done_s = done_s
        self._report.window(ticket, event.window, resumed=event.resumed)
        for segment in event.segments:
            self._report.segment(ticket, segment, resumed=event.resumed)
            self._show(ticket, segment)
        for flag in event.flags:
            self._report.flag(ticket, flag, resumed=event.resumed)

    def _tell_language(self, ticket: Ticket, language: str) -> None:
        """Write which language was detected, once, as the reference does."""
        if self._command.verbose and not ticket.language_is_told:
            ticket.language_is_told = True
            self._lines.write(ticket.number, f"Detected language: {language_title(language)}")

    def _show(self, ticket: Ticket, segment: Segment) -> None:
        """Write a segment as soon as it is decoded, if that is asked for."""
        if self._command.verbose:
            times = f"{format_timestamp(segment.start_s)} --> {format_timestamp(segment.end_s)}"
            self._lines.write(ticket.number, f"[{times}] {segment.text}")
        elif self._command.verbose is None and not self._command.formats:
            self._lines.write(ticket.number, one_line(segment.text))

    def _show_warning(self, ticket: Ticket | None, message: str) -> None:
        """Tell of a warning once per recording."""
        shown = ticket.warned if ticket is not None else self._warned
        if message not in shown:
            shown.add(message)
            self._report.warning(message, ticket)

    def _end(self, ticket: Ticket, job: Any) -> None:
        self._begin_if_known(ticket, at_once=True)
        if job.error is not None:
            self._fail(ticket, job.error)
            return
        try:
            self._keep(ticket, job.result())
        except (ReaderGoneError, ResultsLostError):
            raise
        except Exception as error:  # a mistake of ours too: it costs one recording, not the night's batch
            self._fail(ticket, error)
        else:
            self._tally.done += 1
            self._tally.audio_s += ticket.duration_s
            self._close(ticket)

    def _keep(self, ticket: Ticket, transcript: Transcript) -> None:
        """Do what is left when all segments are there: results first, then the journal's line that they are there."""
        for warning in transcript.warnings:
            self._show_warning(ticket, warning)
        paths: list[str] = []
        if self._command.formats:
            self._warned |= ticket.warned  # a recording that is read once more has nothing new to tell
            paths = [str(path) for path in self._write(self._engine, ticket, transcript, self._inputs)]
            if ticket.entry is not None:
                from stapes.journal.keys import output_keys  # noqa: PLC0415 (only with a journal)

                ticket.entry.done(output_keys(self._command.formats, self._command.layout, self._command.page))
        elif self._command.verbose is False:
            self._lines.write(ticket.number, *(one_line(segment.text) for segment in transcript.segments))
        self._report.file_done(ticket, transcript, paths)

    def _write_transcript(self, _: Any, ticket: Ticket, transcript: Transcript, inputs: InputFiles) -> Sequence[Path]:
        command = self._command
        return write_files(transcript, command.formats, command.output_dir, ticket.stem, command.layout, inputs=inputs)

    def _fail(self, ticket: Ticket, error: BaseException) -> None:
        if ticket.number not in self._open:
            return
        if not (self._stopping and isinstance(error, CancelledError)):
            self._tally.failed += 1
            self._report.file_failed(ticket.source, error)
        self._report.file_stopped(ticket)
        self._close(ticket)

    def _skip(self, ticket: Ticket, reason: str) -> None:
        if ticket.number not in self._open:
            return
        self._tally.skipped += 1
        names = [target.name for target in self._command.targets(ticket.source)]
        self._report.file_skipped(ticket, reason, names)
        self._close(ticket)

    def _close(self, ticket: Ticket) -> None:
        """Let go of a recording that has ended, or has not begun and never will."""
        del self._open[ticket.number]
        ticket.job = None
        self._lines.finish(ticket.number)
        self._loader.release()
