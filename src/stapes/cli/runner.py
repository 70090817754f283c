"""A command's recordings through one engine: several at once, each ending in its files, its text or one sentence.

One thread (the caller's) writes every file and emits every event but warnings. The loader's, the engine's and the
journal's threads only put messages into its queue, in the order of what happens to a recording; an answer is in the
journal's queue before it is in that one. A recording is done when its files are written, and then the journal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from stapes.cli import events
from stapes.cli.events import Recording
from stapes.cli.interrupts import ctrl_c_calls
from stapes.cli.loading import ActiveRecording, Answered, Ended, Kept, Loaded, Loader, Message, skip
from stapes.cli.output import ReaderGoneError, ResultsLostError, warnings_caught
from stapes.engine.concurrency import reading_threads
from stapes.errors import CancelledError
from stapes.output.writers import write_files
from stapes.recording.events import LanguageDetected

if TYPE_CHECKING:
    from pathlib import Path

    from stapes.cli.command import Command
    from stapes.journal.journal import Journal
    from stapes.output.files import InputFiles
    from stapes.recording.events import JobEvent
    from stapes.results import Transcript

    #: writes a recording's files, and gives their paths
    Keep = Callable[[Any, Recording, Transcript, InputFiles], Sequence[Path]]

#: Windows' waiting is not interruptible by Ctrl-C: it is looked at so often.
_WAKE_S: Final = 0.5
#: how long a reader may take to notice that it is to stop
_PATIENCE_S: Final = 1.0
_FRAMES_PER_SECOND: Final = 100


def skip_existing(
    command: Command, recordings: Sequence[Recording], journal: Journal | None, emit: events.Emit
) -> list[Recording]:
    """Skip recordings whose files are all there, but for those that the journal has more of; return the others."""
    left = []
    for recording in recordings:
        is_held = journal is not None and journal.holds(recording.stem)
        if is_held or not command.targets_are_there(recording.source):
            left.append(recording)
        else:
            skip(command, recording, events.EXISTS, emit)
    return left


class Stop:
    """Ctrl-C was pressed."""


@dataclass(kw_only=True, eq=False)
class Batch:
    """Takes recordings from the command line to their files or lines."""

    command: Command
    engine: Any
    emit: events.Emit
    concurrency: int
    journal: Journal | None
    inputs: InputFiles  # which no file may replace
    keep: Keep | None = None  # writes what is asked for instead of transcripts in their usual formats

    def __post_init__(self) -> None:
        self._queue: SimpleQueue[Message | Stop] = SimpleQueue()
        self._loader = Loader(self.command, self.engine, self._queue.put, self.concurrency, self.journal)
        self._open: dict[int, ActiveRecording] = {}
        self._warned: set[tuple[int, str]] = set()  # number of a recording, message
        self._kept = (
            0  # number of the recording whose files are written: warnings are not repeated when it is read again
        )
        self._presses = 0  # of Ctrl-C
        self._is_drawing = False
        self._draw, self.emit = self.emit, self._emit_whole

    def run(self, recordings: Sequence[Recording]) -> None:
        """Work until every recording has ended.

        Raises KeyboardInterrupt after Ctrl-C; ReaderGoneError or ResultsLostError where results cannot be written.
        """
        self._open = {one.number: ActiveRecording(one) for one in recordings}
        try:
            with warnings_caught(self._warn), ctrl_c_calls(self._interrupt):
                n_threads = reading_threads(self.engine.info, self.concurrency)
                self._loader.start(tuple(self._open.values()), n_threads)
                while self._open:
                    message = self._wait()
                    if self._stopping and not self._is_kept():
                        raise KeyboardInterrupt
                    self._handle(message)
        finally:
            self._loader.stop()
            for active in self._open.values():  # where an error has ended the loop
                if active.job is not None:
                    active.job.cancel()
            self._loader.join(_PATIENCE_S)
        if self._stopping:
            self._flush()  # a journal that fails now keeps nothing
            raise KeyboardInterrupt

    def _is_kept(self) -> bool:
        """Return whether the same command could resume this one."""
        return self.journal is not None and self.journal.keeps_something

    def _flush(self) -> None:
        """Have the journal written, within a bounded time: then no message of its thread is missing."""
        if self.journal is not None:
            self.journal.flush()

    def _wait(self) -> Message | Stop:
        while True:
            try:
                return self._queue.get(timeout=_WAKE_S)
            except Empty:
                continue

    def _interrupt(self) -> None:
        """Let the first Ctrl-C finish the windows in flight if there is a journal, and the second end at once."""
        self._presses += 1
        if self._presses > 2 or (self._presses == 2 and not self._is_drawing):
            raise KeyboardInterrupt
        self._queue.put(Stop())  # not raised here: it could hit the screen between two lines

    @property
    def _stopping(self) -> bool:
        return self._presses > 0

    def _emit_whole(self, event: events.Event) -> None:
        """Emit an event; a second Ctrl-C meanwhile waits until bars and lines are drawn, a third one does not."""
        self._is_drawing = True
        try:
            self._draw(event)
        finally:
            self._is_drawing = False
        if self._presses > 1 and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    def _warn(self, message: str) -> None:
        """Show a warning once per recording, from any thread."""
        self._warn_once(message, self._loader.read_by_this_thread())

    def _warn_once(self, message: str, recording: Recording | None) -> None:
        shown = (self._kept if recording is None else recording.number, message)
        if shown not in self._warned:
            self._warned.add(shown)
            self.emit(events.Warned(message, recording))

    def _handle(self, message: Message | Stop) -> None:
        """Handle a message of another thread."""
        match message:
            case Stop():
                self._stop_gently()
            case Loaded(active) | Answered(active) | Ended(active) | Kept(active) if (
                active.recording.number not in self._open
            ):
                if active.job is not None:  # given up before it was in the engine
                    active.job.cancel()
            case Loaded(active):
                self._start(active)
            case Answered(active, event) if active.began_s is None:
                active.early.append(event)
            case Answered(active, event):
                self._take_answer(active, event)
            case Ended(active, error):
                self._end(active, error)
            case Kept(active, done):
                self._end(active, None, done)
            case events.Closed(recording):
                self.emit(message)
                self._open.pop(recording.number, None)
                self._loader.release()
            case _:
                self.emit(message)

    def _stop_gently(self) -> None:
        """Begin nothing new; what is in the engine ends with its present window (`Loader` sees to that)."""
        self.emit(events.Noted("stopping when the windows in flight are done; press Ctrl-C again to stop at once"))
        self._loader.stop()
        self._open = {number: active for number, active in self._open.items() if active.job is not None}
        for active in self._open.values():
            if active.entry is None or active.job.state.value == "queued":
                active.job.cancel()
        self._flush()

    def _start(self, active: ActiveRecording) -> None:
        active.began_s, active.duration_s = time.monotonic(), active.job.progress.total_s
        self.emit(events.Started(active.recording, active.duration_s, active.n_resumed))
        for event in active.early:
            self._take_answer(active, event)
        active.early.clear()

    def _take_answer(self, active: ActiveRecording, event: JobEvent) -> None:
        recording = active.recording
        if isinstance(event, LanguageDetected):
            if event.language is not None:
                self.emit(events.LanguageKnown(recording, event.language))
            return
        before_s, active.done_s = active.done_s, min(event.window.next_seek / _FRAMES_PER_SECOND, active.duration_s)
        active.n_windows += 1
        self.emit(events.WindowDone(recording, event.window, active.done_s - before_s, event.resumed))
        for segment in event.segments:
            self.emit(events.SegmentDone(recording, segment, event.resumed))
        for flag in event.flags:
            self.emit(events.GuardActed(recording, flag, event.resumed))
        if event.resumed and active.n_windows == active.n_resumed:
            self.emit(events.Resumed(recording, active.done_s, active.duration_s))

    def _end(self, active: ActiveRecording, error: BaseException | None, done: events.Done | None = None) -> None:
        """Keep what a job has found, or say why there is nothing. done: it is kept."""
        if error is None:
            try:
                done = done or self._keep(active, active.job.result())
                if done is None:
                    return
                self.emit(done)
            except (ReaderGoneError, ResultsLostError):
                raise
            except Exception as fault:  # errors of stapes too: they cost one recording, not the batch
                error = fault
        if error is not None and not (self._stopping and isinstance(error, CancelledError)):
            self.emit(events.Failed(active.recording.source, error))
        active.job = None
        self._handle(events.Closed(active.recording))

    def _keep(self, active: ActiveRecording, transcript: Transcript) -> events.Done | None:
        """Finish a recording: write its results, then note them in the journal.

        Returns None where the journal's thread sends the event (`Kept`) when it has written that line.
        """
        recording = active.recording
        for warning in transcript.warnings:
            self._warn_once(warning, recording)
        self.emit(events.Transcribed(recording, transcript))
        paths: tuple[str, ...] = ()
        if self.command.formats:
            self._kept = recording.number
            paths = tuple(map(str, self._write(recording, transcript)))
        elapsed_s = time.monotonic() - (active.began_s or 0.0)
        length_s, n_resumed = active.duration_s, active.n_resumed
        done = events.Done(recording, paths, transcript, length_s, elapsed_s, active.n_windows, n_resumed)
        if active.entry is None or self.journal is None:
            return done
        active.entry.done(self._loader.outputs)
        self.journal.when_written(lambda: self._queue.put(Kept(active, done)))
        if self._stopping:
            self._flush()
        return None

    def _write(self, recording: Recording, transcript: Transcript) -> Sequence[Path]:
        if self.keep is not None:
            return self.keep(self.engine, recording, transcript, self.inputs)
        formats, folder, layout = self.command.formats, self.command.output_dir, self.command.layout
        return write_files(transcript, formats, folder, recording.stem, layout, inputs=self.inputs)
