"""Runs one command line: from its words to its exit code."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from stapes.cli import events
from stapes.cli.command import Command
from stapes.cli.events import Recording
from stapes.cli.flags import parse
from stapes.cli.inputs import STDIN, WAITING, Inputs, find_inputs
from stapes.cli.json_lines import write_json_line
from stapes.cli.models import refuse_misplaced
from stapes.cli.output import Around, ReaderGoneError, StoppedError, warnings_caught
from stapes.cli.progress import bar_is_possible, bar_is_welcome, is_terminal
from stapes.cli.report import PAGES, page_command
from stapes.cli.targets import Plan, plan_outputs
from stapes.cli.terminal import Terminal
from stapes.cli.text import TranscriptText
from stapes.errors import StapesError

if TYPE_CHECKING:
    from stapes.cli.runner import Keep
    from stapes.engine.info import EngineInfo

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 2
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count

#: commands that do not transcribe recordings that are named on the command line -> what runs them
_OTHERS: Final = {
    "batch": "stapes.cli.batch:run_batch_command",
    "models": "stapes.cli.models:run_models",
    "run-as": "stapes.cli.run_as:run_as",
    "serve": "stapes.cli.serve:run_serve",
    "shim": "stapes.cli.shim:run_shim",
}
#: what ends a command early
_ENDS: Final = (StapesError, StoppedError, KeyboardInterrupt)

LoadEngine = Callable[[Command], AbstractContextManager[Any]]


def run(words: Sequence[str], load_engine: LoadEngine, *, interrupted: bool = False) -> int:
    """Run a command line and return the exit code. interrupted: Ctrl-C was pressed before it could begin."""
    try:
        if interrupted:
            raise KeyboardInterrupt
        return _run(words, load_engine)
    except SystemExit:  # --help and --version have printed their page
        return EXIT_DONE
    except _ENDS as error:
        text = " ".join(words)
        is_json = "--progress json" in text or "--progress=json" in text
        return _ended_by(error, write_json_line if is_json else Terminal())


def _ended_by(error: BaseException, emit: events.Emit, *, to_files: bool = False) -> int:
    """Report why a command ends early, and return the exit code. to_files: whether it was writing files."""
    if isinstance(error, StoppedError):
        emit(events.CommandFailed("stopped; the same command goes on where it was", kind="stopped"))
    elif isinstance(error, KeyboardInterrupt):
        files = "; finished files stay, none is half-written" if to_files else ""
        emit(events.CommandFailed(f"stopped{files}", kind="stopped"))
    elif not isinstance(error, ReaderGoneError):
        emit(events.CommandFailed(str(error), kind=type(error).__name__))
    return error.exit_code if isinstance(error, StapesError | StoppedError) else EXIT_INTERRUPTED


def _run(words: Sequence[str], load_engine: LoadEngine) -> int:
    if words and words[0] in _OTHERS:
        module, _, name = _OTHERS[words[0]].partition(":")
        other: Callable[[Sequence[str]], int] = getattr(import_module(module), name)
        return other(words[1:])
    if words and words[0] in PAGES:
        with page_command(words[0], words[1:]) as (command, inputs, keep):
            return _transcribe(command, inputs, load_engine, keep)
    refuse_misplaced(words)
    command = parse(words)
    return _transcribe(command, find_inputs(command.audio), load_engine)


def _transcribe(command: Command, inputs: Inputs, load_engine: LoadEngine, keep: Keep | None = None) -> int:
    """Transcribe all recordings with one model; all checks come before any work.

    keep: writes what is asked for instead of transcripts in their usual formats.
    """
    plan = plan_outputs(command, inputs.sources)
    problems = [*inputs.problems.items(), *plan.refused.items()]
    files = len(plan.sources) + len(problems)
    tally = Tally(files)
    code = EXIT_DONE
    with _renderers(command, tally, files, len(problems)) as emit:
        for word, problem in problems:
            emit(events.Failed(word, problem))
        for note in inputs.notes:
            emit(events.Noted(note))
        if STDIN in plan.sources and STDIN not in command.copies and is_terminal(sys.stdin):
            emit(events.Noted(WAITING))
        if plan.sources:
            try:
                _work(command, plan, load_engine, emit, keep)
            except ReaderGoneError:
                return EXIT_DONE
            except _ENDS as error:
                code = _ended_by(error, emit, to_files=bool(command.formats))
            emit(tally.summary())
    return code or (EXIT_FAILED if tally.counts[events.Failed] else EXIT_DONE)


class Tally:
    """Counts events for the summary."""

    def __init__(self, files: int) -> None:
        self.counts: Counter[type[events.Event]] = Counter()
        self._files = files
        self._audio_s = self._worked_s = 0.0
        self._began_s = time.monotonic()

    def __call__(self, event: events.Event) -> None:
        """Count an event."""
        self.counts[type(event)] += 1
        match event:
            case events.Done():
                self._audio_s += event.audio_s
            case events.WindowDone(resumed=False):
                self._worked_s += event.step_s

    def summary(self) -> events.Summary:
        """Return the counts of the recordings' results."""
        return events.Summary(
            files=self._files,
            done=self.counts[events.Done],
            failed=self.counts[events.Failed],
            skipped=self.counts[events.Skipped],
            audio_s=self._audio_s,
            worked_s=self._worked_s,
            elapsed_s=time.monotonic() - self._began_s,
        )


@contextmanager
def _renderers(command: Command, tally: Tally, files: int, n_refused: int) -> Iterator[events.Emit]:
    """Yield what passes an event to every renderer, from any thread. No bar is left in the end."""
    bars, lock = None, threading.RLock()
    around: Around = nullcontext
    if _wants_bars(command):
        from stapes.cli.bars import Bars  # noqa: PLC0415 (rich takes 50 ms: only where a bar is drawn)

        bars = Bars(files, n_refused)
        around = bars.aside
    is_json, quiet = command.progress == "json", command.progress == "none"
    words: events.Emit = write_json_line if is_json else Terminal(around, quiet=quiet)
    renderers: list[events.Emit] = [tally, *([bars] if bars else []), words, TranscriptText(command, around)]

    def emit(event: events.Event) -> None:
        with lock:
            for render in renderers:
                render(event)

    try:
        yield emit
    finally:
        if bars:
            bars.end()


def _precision_note(info: EngineInfo) -> str:
    """Say which precision `auto` took, why, and how to have another."""
    kind, other = ("exact", "int8 is faster") if info.precision == "float32" else ("near", "float32 is exact")
    return f"{info.model} in {info.precision} ({kind}): {info.precision_reason}; --precision {other}"


def _wants_bars(command: Command) -> bool:
    if command.progress == "bar":
        return bar_is_possible()
    text_goes_to_stdout = not command.formats and command.verbose is None
    is_auto = command.progress == "auto" and not command.verbose
    return is_auto and bar_is_welcome(text_goes_to_stdout=text_goes_to_stdout)


def _work(command: Command, plan: Plan, load_engine: LoadEngine, emit: events.Emit, keep: Keep | None) -> None:
    from stapes.cli.runner import Batch, skip_existing  # noqa: PLC0415 (not for --help)
    from stapes.engine.concurrency import default_concurrency  # noqa: PLC0415 (as above)

    def warn(message: str) -> None:
        emit(events.Warned(message))

    journal, finished = None, False
    if command.formats:
        from stapes.journal.journal import open_journal  # noqa: PLC0415 (SQLite comes with it)

        journal = open_journal(command.output_dir, warn, plan.inputs)
    recordings = [Recording(number, len(plan.sources), one) for number, one in enumerate(plan.sources, 1)]
    try:
        if command.skip_existing:
            recordings = skip_existing(command, recordings, journal, emit)
        if recordings:
            with warnings_caught(warn), load_engine(command) as engine:
                if not engine.info.precision_measured:
                    emit(events.Noted(_precision_note(engine.info)))
                engine.check_speech(command.options.speech)
                most = command.concurrency or default_concurrency(engine.info, command.options, len(recordings))
                Batch(
                    command=command, engine=engine, emit=emit, concurrency=most, journal=journal, inputs=plan.inputs,
                    keep=keep,
                ).run(recordings)  # fmt: skip
        finished = True
    except KeyboardInterrupt:
        if journal is not None and (journal.keeps_something or any(journal.holds(one.stem) for one in recordings)):
            raise StoppedError from None
        raise
    finally:
        if journal is not None:
            journal.close(finished=finished)
