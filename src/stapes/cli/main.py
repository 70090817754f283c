"""The command `stapes`: one model, many recordings, each ending in its files, its text or one sentence.

Exit codes: 0 all done; 2 something failed, the others finished; 130 Ctrl-C. A reader that closes the pipe has
what it wanted: 0.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Final

from stapes.cli.command import Command
from stapes.cli.flags import parse
from stapes.cli.inputs import find_inputs
from stapes.cli.messages import JsonReport, Report, Tally, report_for
from stapes.cli.models import quieten_hub, refuse_misplaced, run_models
from stapes.cli.output import ReaderGoneError, StoppedError, warnings_caught
from stapes.cli.progress import Bars, bar_is_possible, bar_is_welcome
from stapes.cli.report import PAGES, run_pages
from stapes.cli.targets import Plan, plan_outputs
from stapes.errors import StapesError

if TYPE_CHECKING:
    from stapes.cli.runner import Keep
    from stapes.journal.journal import Journal
    from stapes.output.files import InputFiles

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 2
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count

#: what ends a command before its end
_ENDS: Final = (StapesError, StoppedError, KeyboardInterrupt)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line (default: the program's own) and give the exit code."""
    words = sys.argv[1:] if words is None else list(words)
    try:
        return _run(words)
    except _ENDS as error:
        return _ended_by(error, report_for(words))


def _ended_by(error: BaseException, report: Report) -> int:
    """Tell why a command ends before its end, and give the exit code."""
    if isinstance(error, StoppedError):
        report.error("stopped; the same command goes on where it was", kind="stopped")
        return EXIT_INTERRUPTED
    if isinstance(error, KeyboardInterrupt):
        report.error("stopped; finished files stay, none is half-written", kind="stopped")
        return EXIT_INTERRUPTED
    if not isinstance(error, ReaderGoneError):
        report.error(error, kind=type(error).__name__)
    return error.exit_code if isinstance(error, StapesError) else EXIT_FAILED


def _run(words: Sequence[str]) -> int:
    if words[:1] == ["models"]:
        return run_models(words[1:])
    if words and words[0] in PAGES:
        return run_pages(words[0], words[1:], transcribe_all)
    refuse_misplaced(words)
    try:
        command = parse(words)
    except SystemExit:  # --help and --version have printed their page
        return EXIT_DONE
    return transcribe_all(command)


def transcribe_all(command: Command, keep: Keep | None = None) -> int:
    """Transcribe all recordings with one model; whatever can be refused is refused before any work.

    keep: writes what is asked for instead of transcripts in their usual formats.
    """
    inputs = find_inputs(command.audio)
    plan = plan_outputs(command, inputs.sources)
    report = _report(command, len(plan.sources))
    problems = [*inputs.problems.items(), *plan.refused.items()]
    tally = Tally(files=len(plan.sources) + len(problems), failed=len(problems))
    for word, problem in problems:
        report.file_failed(word, problem)
    code = EXIT_DONE
    if plan.sources:
        code = _work_and_tell(command, plan, report, tally, keep)
    return code or (EXIT_FAILED if tally.failed else EXIT_DONE)


def _work_and_tell(command: Command, plan: Plan, report: Report, tally: Tally, keep: Keep | None) -> int:
    """Work, and tell what became of it, however it ends."""
    began_s = time.monotonic()
    code = EXIT_DONE
    try:
        _work(command, plan, report, tally, keep)
    except ReaderGoneError:
        return EXIT_DONE
    except _ENDS as error:
        report.end()
        code = _ended_by(error, report)
    finally:
        report.end()
    tally.elapsed_s = time.monotonic() - began_s
    report.summary(tally)
    return code


def _work(command: Command, plan: Plan, report: Report, tally: Tally, keep: Keep | None) -> None:
    from stapes.cli.runner import Batch, default_concurrency  # noqa: PLC0415 (not for --help)

    with warnings_caught(report.warning), load_engine(command) as engine:
        engine.check_speech(command.options.speech)
        concurrency = command.concurrency or default_concurrency(engine.info, command.options, len(plan.sources))
        journal = _journal(command, engine, report, plan.inputs)
        finished = False
        try:
            batch = Batch(
                command, engine, report, concurrency=concurrency, journal=journal, inputs=plan.inputs, keep=keep
            )
            batch.run(plan.sources, tally)
            finished = True
        finally:
            if journal is not None:
                journal.close(finished=finished)


def _journal(command: Command, engine: Any, report: Report, inputs: InputFiles) -> Journal | None:
    """Open the journal beside the files that will be written; none where none will."""
    if not command.formats:
        return None
    from stapes.journal.codec import AnswerBounds  # noqa: PLC0415 (SQLite comes with the journal)
    from stapes.journal.journal import open_journal  # noqa: PLC0415

    info = engine.info
    bounds = AnswerBounds(n_vocab=info.n_vocab, n_text_ctx=info.spec.n_text_ctx, languages=frozenset(info.languages))
    return open_journal(command.output_dir, bounds, report.warning, inputs)


def load_engine(command: Command) -> AbstractContextManager[Any]:
    """Load the model that the command asks for; tests put a scripted engine in this place."""
    quieten_hub(quiet=command.progress in ("json", "none"))
    from stapes import load  # noqa: PLC0415 (NumPy comes with it: not for --help)

    threading.Thread(target=_import_decoder, name="stapes-import").start()
    engine: AbstractContextManager[Any] = load(
        command.model,
        device=command.device,
        precision=command.precision,
        threads=command.threads,
        max_memory=command.max_memory,
        model_dir=command.model_dir,
    )
    return engine


def _import_decoder() -> None:
    """Import PyAV, which takes a tenth of a second, while the model is loaded. Whoever needs it tells what fails."""
    with suppress(ImportError):
        importlib.import_module("stapes.audio.decode")


def _report(command: Command, count: int) -> Report:
    if command.progress == "json":
        return JsonReport()
    text_goes_to_stdout = not command.formats and command.verbose is None
    welcome = not command.verbose and bar_is_welcome(text_goes_to_stdout=text_goes_to_stdout)
    if command.progress == "bar":
        welcome = bar_is_possible()
    return Report(Bars(count) if welcome and command.progress != "none" else None)
