"""The flags of `stapes AUDIO...`: made from the option classes, plus those of the command itself.

Names, defaults and meanings are those of the `whisper` command, but the default model is `base`, and that
text goes to standard output unless -f or -o is given. Source: openai/whisper transcribe.py, release 20250625.
Reads words only; command.py checks them. Loads neither NumPy nor rich.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from difflib import get_close_matches
from typing import Any, Final, NoReturn, get_type_hints

from stapes.cli.command import Command, command_of
from stapes.cli.help import DESCRIPTION, SEE_HELP, USAGE, PageFormatter, epilog, version
from stapes.cli.output import send
from stapes.errors import OptionError
from stapes.options import COMMAND_PRESET, GROUPS, texts
from stapes.options.other_programs import SHORT_FLAGS, advice
from stapes.options.texts import NotReadError
from stapes.output.subtitles import Layout
from stapes.output.writers import ALL_FORMATS, REFERENCE_FORMATS, WRITERS

DEFAULT_MODEL: Final = "base"
MODEL_DIR_HELP: Final = (
    "where models are looked for (small.pt, a folder small or faster-whisper-small, the hub's models--*) before "
    "~/.cache/whisper and the cache of the Hugging Face hub, and where they are kept (default: None, that cache)"
)
DEVICE_HELP: Final = (
    "cpu; cuda, a GPU of NVIDIA or AMD; cuda:1, the second one; cuda:0,cuda:1, both; mps, a GPU of Apple, not tested "
    "by us; auto: a GPU if there is one that can be used, else the CPU; GPUs need: pip install 'stapes[torch]'"
)
DEVICE_MEMORY_HELP: Final = "most memory of each GPU to use, weights included; without effect on a CPU"
PROGRESS: Final = ("auto", "bar", "json", "none")


def parse(words: Sequence[str]) -> Command:
    """Read a command line, without the program's name.

    Raises OptionError for anything that cannot be; SystemExit(0) after --help and --version.
    """
    return command_of(read_words(words, build_parser()))


def read_words(words: Sequence[str], parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Read flags, each by itself; what follows -- are recordings, whatever they begin with."""
    words = join_spellings(words)
    end = words.index("--") if "--" in words else len(words)
    for word in words[:end]:
        if word in SHORT_FLAGS:  # argparse would take -osrt for -o srt
            raise OptionError(f"unknown flag {word}; give {SHORT_FLAGS[word]} instead; {SEE_HELP}")
    parser.set_defaults(word_timestamps=None)  # None: as readable subtitles need them
    values = vars(parser.parse_intermixed_args(words[:end]))
    if values["word_timestamps"] is None:
        values["word_timestamps"] = values["cue_style"] == "readable"
    return {**values, "audio": [*values["audio"], *words[end + 1 :]]}


def join_spellings(words: Sequence[str]) -> list[str]:
    """Turn dashes inside the flags' names into underscores, and tie values such as -1,50 to their flag.

    argparse would take a value that begins with a dash for a flag.
    """
    joined: list[str] = []
    for place, word in enumerate(words):
        if word == "--":
            return [*joined, *words[place:]]
        if re.match(r"-\.?\d", word) and joined and re.fullmatch(r"--\w+", joined[-1]):
            joined[-1] += f"={word}"
        elif word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            joined.append(f"--{name.replace('-', '_')}{equals}{value}")
        else:
            joined.append(word)
    return joined


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong word is an OptionError: one sentence, no page of usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        unknown = message.partition("unrecognized arguments: ")[2].split()
        if unknown:
            flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
            given = unknown[0].partition("=")[0]
            close = get_close_matches(given, flags, n=1)
            instead = advice(given.removeprefix("--"), "command", ()) or (f"did you mean {close[0]}?" if close else "")
            message = f"unknown flag {given}" + (f"; {instead}" if instead else "")
        message, needs_value = re.subn(": expected one argument$", "", message)
        if needs_value:
            flag = message.removeprefix("argument ").partition("/")[0]
            message = f"{flag}: a value is missing; write {flag} {self._option_string_actions[flag].metavar}"
        raise OptionError(f"{message.removeprefix('argument ')}; {SEE_HELP.replace('stapes', self.prog)}")

    def _get_option_tuples(self, option_string: str) -> Any:
        """Find flags that begin like this; none for a flag of another program, whose error says what to give."""
        if advice(option_string.partition("=")[0].removeprefix("--"), "command", ()):
            return []
        return super()._get_option_tuples(option_string)

    def _print_message(self, message: str, _file: Any = None) -> None:
        """Print the help page or the version; argparse itself would not notice a full disk."""
        send(message)


def build_parser() -> argparse.ArgumentParser:
    """Make the parser and its help page."""
    parser = Parser(
        prog="stapes",
        usage=USAGE,
        description=DESCRIPTION,
        epilog=epilog(),
        formatter_class=PageFormatter,
        add_help=False,
    )
    parser.add_argument("audio", nargs="*", metavar="AUDIO", help=argparse.SUPPRESS)
    _add_output(parser)
    _add_model(parser)
    for name, group in {**GROUPS, "subtitles": Layout}.items():
        add_group(parser.add_argument_group(name.capitalize(), (group.__doc__ or "").partition("\n")[0]), group)
    others = parser.add_argument_group("Others")
    others.add_argument("--help", "-h", action="help", help="show this page")
    others.add_argument("--version", action=_ShowVersion, nargs=0, default=argparse.SUPPRESS, help="show the version")
    return parser


class _ShowVersion(argparse.Action):
    """Looks the version up only when it is asked for: that takes longer than all other flags together."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        parser._print_message(f"stapes {version()}\n")
        parser.exit()


# fmt: off
def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("Input and output").add_argument
    add("--output_format", "-f", metavar="FORMAT",
        help=f"write files: one or several of {', '.join(WRITERS)}, with commas between them; {ALL_FORMATS}: the first "
             f"{len(REFERENCE_FORMATS)}, as the whisper command (default: none, or {ALL_FORMATS} with -o)")
    add("--output_dir", "-o", metavar="FOLDER",
        help="write files into this folder, made if missing (default: none, or . with -f)")
    add("--verbose", type=boolean, metavar="True|False",
        help="True: each segment with its times, to standard output; False: no text before a recording is "
             "done; left out: the plain text, line by line, or nothing where files are written")
    add("--max_duration", type=number, metavar="SECONDS",
        help="refuse a longer recording (default: None, any length)")
    add("--concurrency", type=whole, metavar="N",
        help="recordings at once, in one batch; each gives what it would give alone "
             "(default: None, as many as there are, 16 at most, fewer with a large model; on a GPU 128 at most)")
    add("--skip_existing", action="store_true",
        help="leave out recordings whose files are all there (default: False)")
    add("--progress", choices=PROGRESS, default=PROGRESS[0], metavar="|".join(PROGRESS),
        help="on standard error: bars, one JSON object a line, or nothing; auto draws bars on a terminal, "
             f"where they spoil no text (default: {PROGRESS[0]})")


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("Model").add_argument
    add("--model", default=DEFAULT_MODEL, metavar="MODEL",
        help="a name (tiny, base, small.en, large-v3, turbo, ...), a Hugging Face id, or the path of a "
             f"folder, a .pt or a ggml .bin (default: {DEFAULT_MODEL})")
    add("--model_dir", metavar="FOLDER", help=MODEL_DIR_HELP)
    add("--device", default="auto", metavar="DEVICE", help=f"{DEVICE_HELP} (default: auto)")
    add("--precision", default="auto", metavar="PRECISION",
        help="float32 is exact: the reference's tokens; float16 (GPUs), bfloat16 and int8 (CPUs) are faster and near; "
             "auto takes float16 on a GPU, on a CPU the fastest whose word errors were measured to be float32's, "
             "for models that were not measured bfloat16 where it is faster; what was not measured the command says "
             "(default: auto)")
    add("--fp16", type=boolean, default=True, metavar="True|False",
        help="without effect: --precision chooses (default: True)")
    add("--threads", type=whole, default=0, metavar="N",
        help="most cores to use; 0 uses all (default: 0)")
    add("--max_memory", type=number, metavar="MB",
        help="most memory for the recordings in work, beside the weights (default: None, 256, or five windows; on a "
             "GPU half of what is free)")
    add("--device_memory", type=number, metavar="MB", help=f"{DEVICE_MEMORY_HELP} (default: None, as needed)")
# fmt: on


def add_group(section: argparse._ArgumentGroup, group: type) -> None:
    """Add a flag for each option of a group."""
    hints = get_type_hints(group)
    for item in fields(group):
        default = command_default(item)
        _add_option(section, item, hints[item.name], default)
        if item.name == "temperature":
            section.add_argument(
                "--temperature_increment_on_fallback",
                type=number,
                default=0.2,
                metavar="X",
                help="step from one temperature to the next, up to 1.0, while a window fails the thresholds; "
                "None tries --temperature only (default: 0.2)",
            )


def _add_option(section: argparse._ArgumentGroup, item: Field[Any], kind: object, default: object) -> None:
    read, metavar = texts.reader_of(item.name, kind)
    metavar = {"s": "SECONDS", "ids": "IDS"}.get(item.metadata["unit"], metavar)
    text = "sampling temperature of the first try" if item.name == "temperature" else item.metadata["help"]
    text = f"{text} (default: {'empty' if default == '' else default})".replace("%", "%%")
    section.add_argument(
        f"--{item.name}",
        type=_flag_reader(read),
        choices=texts.choices_of(kind),
        default=default,
        metavar=metavar,
        help=text,
    )


def command_default(item: Field[Any]) -> object:
    """Return an option's default on the command line, as it is written there."""
    default: Any = COMMAND_PRESET.get(item.name, item.default)
    if item.name == "temperature":
        return default[0]
    if not isinstance(default, tuple):
        return default
    return ",".join(one if isinstance(one, str) else f"{one:g}" for one in default)


def _flag_reader(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make a reader's error one that argparse shows."""

    def called(text: str) -> Any:
        try:
            return read(text)
        except NotReadError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return called


boolean: Final = _flag_reader(texts.boolean)
whole: Final = _flag_reader(texts.whole)
number: Final = _flag_reader(texts.number)
