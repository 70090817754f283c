"""The command `stapes`: one model, many recordings, each ending in its files, its text or one sentence.

Exit codes: 0 all done; 2 something failed, the others finished; 130 Ctrl-C. A reader that closes the pipe has
what it wanted: 0.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from stapes.cli.flags import Command, parse
from stapes.cli.inputs import check_names_differ, find_inputs, prepare_folder
from stapes.cli.models import run_models, use_model_folder
from stapes.cli.output import (
    ReaderGoneError,
    ResultLines,
    ResultsLostError,
    Warnings,
    complain,
    say,
)
from stapes.cli.progress import Bar, NoBar, bar_is_welcome, is_terminal
from stapes.errors import StapesError
from stapes.languages import LANGUAGES
from stapes.writers import format_timestamp, one_line, output_stem, write_files

if TYPE_CHECKING:
    from stapes.results import LanguageGuess, Segment, Transcript

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 2
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line (default: the program's own) and give the exit code."""
    words = sys.argv[1:] if words is None else list(words)
    try:
        return _run(words)
    except ReaderGoneError:
        return EXIT_DONE
    except StapesError as error:
        say(error)
        return error.exit_code
    except KeyboardInterrupt:
        say("stopped; finished files stay, none is half-written")
        return EXIT_INTERRUPTED


def _run(words: Sequence[str]) -> int:
    if words[:1] == ["models"]:
        return run_models(words[1:])
    try:
        command = parse(words)
    except SystemExit:  # --help and --version have printed their page
        return EXIT_DONE
    return transcribe_all(command)


def transcribe_all(command: Command) -> int:
    """Transcribe every recording with one model; whatever can be refused is refused before any work."""
    inputs = find_inputs(command.audio)
    if command.formats:
        check_names_differ(inputs.sources)
    for problem in inputs.problems:
        say(problem)
    if not inputs.sources:
        return EXIT_FAILED
    if command.formats:
        prepare_folder(command.output_dir)
    bar = _bar(command)
    warnings = Warnings(bar.aside)
    try:
        with warnings.caught(), load_engine(command) as engine:
            recorder = Recorder(command, engine, bar, warnings)
            count = len(inputs.sources)
            done = [recorder.record(source, place, count) for place, source in enumerate(inputs.sources, 1)]
    finally:
        bar.end()
    return EXIT_DONE if all(done) and not inputs.problems else EXIT_FAILED


def load_engine(command: Command) -> AbstractContextManager[Any]:
    """Load the model that the command asks for; tests put a scripted engine in this place."""
    use_model_folder(command.model_dir)
    import stapes  # noqa: PLC0415 (NumPy comes with it: not for --help)

    engine: AbstractContextManager[Any] = stapes.load(
        command.model,
        device=command.device,
        precision=command.precision,
        threads=command.threads,
    )
    return engine


def _bar(command: Command) -> NoBar:
    text_goes_to_stdout = not command.formats and command.verbose is None
    if command.verbose or not bar_is_welcome(text_goes_to_stdout=text_goes_to_stdout):
        return NoBar()
    return Bar()


class Recorder:
    """Takes recordings one by one from the engine to their files or lines."""

    def __init__(self, command: Command, engine: Any, bar: NoBar, warnings: Warnings) -> None:
        self._command = command
        self._engine = engine
        self._bar = bar
        self._warnings = warnings
        self._lines = ResultLines(bar.aside, only_copy=not command.formats)
        self._language_is_told = False

    def record(self, source: str, place: int, count: int) -> bool:
        """Transcribe recording number `place` of `count`; tell whether it ended well.

        A recording that fails is complained about, and the next goes on. Where results have nowhere to go
        (ReaderGoneError, ResultsLostError), there is no next.
        """
        self._warnings.forget()
        self._language_is_told = False
        self._bar.begin(source, place, count)
        try:
            self._keep(source, self._transcribe(source))
        except (ReaderGoneError, ResultsLostError):
            raise
        except StapesError as error:
            with self._bar.aside():
                complain(source, error)
            return False
        except Exception as error:  # a mistake of ours: it costs one recording, not the night's batch
            with self._bar.aside():
                traceback.print_exc()
                complain(source, f"{type(error).__name__}: a fault in stapes; please report the lines above")
            return False
        finally:
            self._bar.end()
        return True

    def _transcribe(self, source: str) -> Transcript:
        job = self._engine.submit(
            source,
            max_duration_s=self._command.max_duration_s,
            on_progress=lambda progress: self._bar.advance(progress.done_s, progress.total_s),
            options=self._command.options,
        )
        try:
            for segment in job:
                self._tell_language(job.language_guess)
                self._show(segment)
            transcript: Transcript = job.result()
        except BaseException:
            job.cancel()
            raise
        self._tell_language(transcript.language_guess)
        for warning in transcript.warnings:
            self._warnings.show(warning)
        return transcript

    def _tell_language(self, guess: LanguageGuess | None) -> None:
        """Write which language was detected, once, as the reference does."""
        if self._command.verbose and guess is not None and not self._language_is_told:
            self._language_is_told = True
            self._lines.write(f"Detected language: {LANGUAGES[guess.language].title()}")

    def _show(self, segment: Segment) -> None:
        """Write a segment as soon as it is decoded, if that is asked for."""
        if self._command.verbose:
            times = f"{format_timestamp(segment.start_s)} --> {format_timestamp(segment.end_s)}"
            self._lines.write(f"[{times}] {segment.text}")
        elif self._command.verbose is None and not self._command.formats:
            self._lines.write(one_line(segment.text))

    def _keep(self, source: str, transcript: Transcript) -> None:
        """Do what is left when all segments are there."""
        if self._command.formats:
            command = self._command
            paths = write_files(transcript, command.formats, command.output_dir, output_stem(source), command.layout)
            if is_terminal(sys.stderr):
                self._bar.end()
                say(f"wrote {', '.join(map(str, paths))}")
        elif self._command.verbose is False:
            self._lines.write(*(one_line(segment.text) for segment in transcript.segments))
