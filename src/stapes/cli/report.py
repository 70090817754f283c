"""`stapes report` and `stapes plot`: a transcript as a page or a picture, with all flags of a transcription.

Both transcribe as the command without them does, with the same progress, journal and errors, and with word times
always; only the written files differ.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stapes.cli.command import Command, command_of
from stapes.cli.events import Emit, Noted
from stapes.cli.flags import build_parser, read_words
from stapes.cli.help import version
from stapes.cli.inputs import STDIN, WAITING, Inputs, find_inputs, opened_source
from stapes.cli.json_lines import write_json_line
from stapes.cli.output import shown_name
from stapes.cli.progress import is_terminal
from stapes.cli.terminal import Terminal
from stapes.errors import AudioError, OptionError, OutputError
from stapes.output.files import InputFiles, file_identity, why_not_written
from stapes.runtime.warn import warn

if TYPE_CHECKING:
    from stapes.cli.events import Recording
    from stapes.cli.runner import Keep
    from stapes.engine.info import EngineInfo
    from stapes.results import Transcript

PAGES: Final = ("report", "plot")
_IMAGES: Final = ("png", "svg")
_SOUNDS: Final = ("inside", "link", "none")
_DESCRIPTIONS: Final = {
    "report": """\
Transcribes a recording and writes one HTML page that needs nothing else, no
network least of all: waveform, segments, words by probability that play
with a click, and what was decided in every window (docs/report.md).

  stapes report talk.mp3                      write talk.report.html
  stapes report talk.mp3 --output page.html
  stapes report talk.mp3 --audio link         refer to talk.mp3, beside the page
""",
    "plot": """\
Transcribes a recording and draws it: waveform, words by probability, and the
values of every window (docs/report.md). Needs matplotlib, the extra "plot".

  stapes plot talk.mp3                        draw talk.plot.png
  stapes plot talk.mp3 --output talk.svg
  stapes plot talk.mp3 --span 600,660         a minute of it, larger
  stapes plot talk.mp3 --window 3             and where window 3 has its words
""",
}
_EPILOG: Final = "All other flags are those of a transcription; word times are always on.\n"


@contextmanager
def page_command(kind: str, words: Sequence[str]) -> Iterator[tuple[Command, Inputs, Keep]]:
    """Read `stapes report ...` or `stapes plot ...`; yield the command, its inputs, and what writes the files.

    What comes through pipes is copied into files, to be read twice; these are removed at the end.
    """
    values = read_words(words, _parser(kind))
    if not values["audio"] and Path(kind).is_file():
        raise OptionError(f"{kind}: give a recording to 'stapes {kind}'; for the file of that name write ./{kind}")
    command = _command(kind, values)
    inputs = find_inputs(command.audio)
    _check_target(kind, values, command, inputs)
    if kind == "plot":
        from stapes.report.figure import require_matplotlib  # noqa: PLC0415 (NumPy comes with it)

        require_matplotlib()
    pipes = {source for source in inputs.sources if _is_pipe(source)}
    with tempfile.TemporaryDirectory(prefix="stapes-") if pipes else nullcontext("") as folder:
        emit: Emit = write_json_line if command.progress == "json" else Terminal()
        copies = {pipe: _copied(pipe, Path(folder, str(place)), emit) for place, pipe in enumerate(pipes)}
        page = _Page(replace(command, copies=copies), values)
        yield page.command, inputs, page.plot if kind == "plot" else page.report


def _parser(kind: str) -> argparse.ArgumentParser:
    """Make the parser: that of a transcription, and the flags of this page."""
    parser = build_parser()
    parser.prog, parser.usage = f"stapes {kind}", f"stapes {kind} AUDIO... [flags]"
    parser.description, parser.epilog = _DESCRIPTIONS[kind], _EPILOG
    add = parser.add_argument_group(kind.capitalize()).add_argument
    add("--output", metavar="FILE",
        help=f"the file to write (default: the recording's name and .{kind}.{_suffix(kind)}, in -o)")  # fmt: skip
    if kind == "report":
        add("--audio", dest="sound", choices=_SOUNDS, default="inside", metavar="|".join(_SOUNDS),
            help="inside: in the page, if it is not longer than two hours; link: the page refers to the "
                 "recording's file; none: without sound (default: inside)")  # fmt: skip
    else:
        add("--span", type=_span, metavar="FROM,TO", help="seconds to draw (default: all)")
        add("--window", type=_numbers, default=(), metavar="N,...",
            help="draw where the words of these windows are too: the attention of their tokens, and the path through "
                 "it; windows are counted from 1, as in the report")  # fmt: skip
    for action in parser._actions:
        if action.dest == "output_format":
            action.choices, action.type = (_IMAGES, str.lower) if kind == "plot" else (action.choices, action.type)
            action.help = f"{' or '.join(_IMAGES)} (default: png)" if kind == "plot" else argparse.SUPPRESS
        elif action.dest == "output_dir":
            action.help = "write into this folder, made if missing (default: .)"
        elif action.dest == "word_timestamps":
            action.help = argparse.SUPPRESS
    return parser


def _span(text: str) -> tuple[float, float]:
    """Read two times in seconds."""
    try:
        first_s, end_s = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"give two times in seconds, as in 600,660; got {text!r}") from None
    if not 0 <= first_s < end_s < math.inf:
        raise argparse.ArgumentTypeError(f"give the earlier time first, from 0 on; got {text!r}")
    return first_s, end_s


def _numbers(text: str) -> tuple[int, ...]:
    """Read numbers of windows."""
    if not re.fullmatch(r"0*[1-9]\d{0,8}(,0*[1-9]\d{0,8})*", text):
        raise argparse.ArgumentTypeError(f"give numbers of windows, counted from 1, as in 1,3; got {text!r}")
    return tuple(map(int, text.split(",")))


def _suffix(kind: str) -> str:
    return "html" if kind == "report" else _IMAGES[0]


def _command(kind: str, values: dict[str, Any]) -> Command:
    """Make the command of a transcription, which writes one file per recording."""
    output, folder = values["output"], values["output_dir"]
    if kind == "report" and values["output_format"] is not None:
        raise OptionError("'stapes report' writes a page; transcripts in other formats are written without report")
    if output is not None and values["skip_existing"]:
        raise OptionError("--skip_existing looks for files of the usual names; leave out --output or --skip_existing")
    if output is not None and folder is not None:
        raise OptionError("give either --output FILE or --output_dir FOLDER")
    suffix = values["output_format"] or _suffix(kind)
    folder = folder if output is None else os.path.dirname(output)  # noqa: PTH120 (as it is written)
    if values.get("window") and values["vad"]:
        raise OptionError("--window draws a window of the recording as it is; leave --vad out")
    changed = {"output_format": None, "output_dir": folder or ".", "word_timestamps": True}
    page = (output, *(values.get(name) for name in ("sound", "span", "window")))
    return replace(command_of({**values, **changed}), formats=(f"{kind}.{suffix}",), page=page, output_file=output)


def _check_target(kind: str, values: dict[str, Any], command: Command, inputs: Inputs) -> None:
    """Raise OptionError where the file that was named cannot be what is asked for."""
    output = command.output_file
    if output == "-":
        raise OptionError("--output -: a file is written, and nothing to standard output; for this name write ./-")
    if output is not None and len({file_identity(one) or one for one in inputs.sources}) > 1:
        raise OptionError(f"--output {output} is one file, and there are several recordings; give -o FOLDER instead")
    if kind == "plot":
        suffix = os.path.splitext(output)[1].lower() if output is not None else ""  # noqa: PTH122 (as above)
        if output is not None and suffix.removeprefix(".") not in _IMAGES:
            raise OptionError(f"--output {output}: a plot is a .png or an .svg; name it so")
    elif values["sound"] == "link" and (pipe := next(filter(_is_pipe, command.audio), None)) is not None:
        name = "standard input" if pipe == STDIN else f"the pipe {pipe}"
        raise OptionError(f"--audio link: {name} is no file that a page could refer to; leave it out")


def _is_pipe(word: str) -> bool:
    try:
        return word == STDIN or stat.S_ISFIFO(os.stat(word).st_mode)  # noqa: PTH116 (as it is written)
    except (OSError, ValueError):  # to be said when it is opened
        return False


def _copied(pipe: str, path: Path, emit: Emit) -> str:
    if pipe == STDIN and sys.stdin is None:
        raise AudioError("standard input: is closed; name a file, or pipe one in")
    if pipe == STDIN and is_terminal(sys.stdin):
        emit(Noted(WAITING))
    try:
        with path.open("wb") as file, nullcontext(sys.stdin.buffer) if pipe == STDIN else open(pipe, "rb") as read:  # noqa: PTH123
            shutil.copyfileobj(read, file)
    except OSError as error:
        raise OutputError(f"{shown_name(pipe)}: cannot be copied to {path}: {why_not_written(error)}") from error
    return str(path)


@dataclass(frozen=True, slots=True)
class _Page:
    """The data for a recording's files."""

    command: Command
    values: Mapping[str, Any]  # of the flags

    def report(self, engine: Any, recording: Recording, transcript: Transcript, inputs: InputFiles) -> list[Path]:
        """Write the page."""
        from stapes.report import write_report  # noqa: PLC0415 (as above)

        (path,), sound = self.command.targets(recording.source), self.values["sound"]
        choice, model = asdict(self.command.options.audio), _model_line(engine.info)
        with opened_source(self.command, recording.source) as source:
            return [write_report(transcript, source, path, model=model, sound=sound, inputs=inputs, **choice)]

    def plot(self, engine: Any, recording: Recording, transcript: Transcript, inputs: InputFiles) -> list[Path]:
        """Draw the picture."""
        from stapes.audio.load import load_audio  # noqa: PLC0415 (as above)
        from stapes.report import window_attention, write_plot  # noqa: PLC0415

        (path,), span_s, attentions = self.command.targets(recording.source), self.values["span"], []
        options = self.command.options
        with (
            opened_source(self.command, recording.source) as source,
            load_audio(source, **asdict(options.audio)) as audio,
        ):
            for number in self.values["window"]:
                found = window_attention(engine, audio, transcript, number, task=options.speech.task)
                if found is None:
                    message = f"{recording.name}: window {number} has no words, and nothing to draw"
                    warn(message)
                else:
                    attentions.append(found)
            return [write_plot(transcript, audio, path, span_s=span_s, attentions=attentions, inputs=inputs)]


def _model_line(info: EngineInfo) -> str:
    """Return the line that names model, backend and precision."""
    return f"{info.model} ({info.format}), {info.precision} on {info.backend}, {info.device}; stapes {version()}"
