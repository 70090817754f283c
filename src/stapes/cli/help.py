"""The help page's words and layout: 80 columns, examples first, one spelling per flag."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import textwrap
from contextlib import suppress
from itertools import groupby
from typing import Final

from stapes.languages import LANGUAGES

#: a space where no line is broken
_TIE: Final = "\0"
#: from this width on, what a flag does is written beside it
_WIDE: Final = 72
SEE_HELP: Final = "'stapes --help' explains every flag"

USAGE: Final = """\
stapes AUDIO... [flags]
       stapes report AUDIO... [flags]
       stapes plot AUDIO... [flags]
       stapes models [pull NAME]
       stapes serve [flags]
       stapes batch MANIFEST -o OUT [flags]
       stapes run-as NAME -- COMMAND...
       stapes shim install|remove NAME"""

DESCRIPTION: Final = """\
Transcribes recordings with Whisper, on this machine.

Examples:
  stapes talk.mp3                       print the text
  stapes talk.mp3 > talk.txt            keep the text
  stapes talk.mp3 -f srt                write subtitles, talk.srt
  stapes *.m4a interviews -o texts      many recordings, all formats, in texts/
  stapes talk.mp3 --language German --task translate
  stapes talk.mp3 --model large-v3 --verbose True
  curl -s https://example.org/talk.mp3 | stapes -
  stapes report talk.mp3                a page that shows and plays it
  stapes plot talk.mp3                  a picture, talk.plot.png
  stapes models                         which models are here
  stapes models pull small              fetch one
  stapes serve                          OpenAI's audio API, on port 8000
  stapes batch talks.csv -o texts       a manifest, here or on a cluster
  stapes run-as whisper -- PROGRAM      a program of openai-whisper, on stapes

AUDIO is a sound or video file of any usual format, a folder (the recordings
in it, not those in folders below it), a pattern such as '*.mp3', or - for
standard input (its files are named stdin). Where a name begins with a dash or
is "models", "report", "plot", "serve", "batch", "run-as" or "shim", write ./
before it.

Without -f or -o the plain text goes to standard output, one line per segment,
one recording after the other, and no file is written. With them, files are
written, named after the recordings. Everything else - progress, warnings,
errors - goes to standard error.

Several recordings are decoded in one batch, each with the result that it has
alone. While files are made, there is a journal beside them
(.stapes-journal.sqlite): after Ctrl-C, kill -9 or loss of power the same command
goes on where it was.
"""

_EPILOG: Final = """\
Languages, as codes or names:
  {languages}

All flags of the whisper command work here, and both spellings: --beam_size is
--beam-size. A wrong recording does not stop the others.

Ends with 0 when all is done, 2 when something failed or was asked for wrongly,
130 when Ctrl-C stopped it: the first one finishes the windows in flight and
keeps them, the second stops at once.
"""


def epilog() -> str:
    """Return what stands below the flags."""
    return _EPILOG.format(languages=", ".join(f"{code} {name}".replace(" ", _TIE) for code, name in LANGUAGES.items()))


def page_width() -> int:
    """Return the columns of a page: those of the terminal, 80 at most.

    A page that goes through a pipe ends in a terminal too (`stapes --help | less`): standard error's is asked then.
    """
    columns = shutil.get_terminal_size((0, 0)).columns
    if not columns:
        with suppress(AttributeError, OSError, ValueError):  # closed, or no terminal
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
    return max(30, min(80, columns or 80))


def wrapped(text: str, width: int | None = None) -> list[str]:
    """Wrap prose, as wide as a page by default; a line that begins with two spaces, an example, stays by itself."""
    width = width or page_width()
    lines: list[str] = []
    for is_prose, group in groupby(text.splitlines(), lambda line: line[:2] not in ("", "  ")):
        if is_prose:
            lines += _wrapped(" ".join(group), width)
        else:
            lines += (part for line in group for part in ([line] if len(line) <= width else _example(line, width)))
    return [line.replace(_TIE, " ") for line in lines]


def _example(line: str, width: int) -> list[str]:
    """Put the explanation of an example that is too wide below it."""
    command, *explanation = re.split(r"(?<=\S)  +", line)
    below = " " * 6
    return [*_wrapped(command, width, "", " " * 4), *_wrapped("".join(explanation), width, below, below)]


def _wrapped(text: str, width: int, first_indent: str = "", indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first_indent, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


class PageFormatter(argparse.HelpFormatter):
    """As wide as the terminal, 80 columns at most; help texts beside the flags where there is room."""

    def __init__(self, prog: str) -> None:
        width = page_width()
        super().__init__(prog, max_help_position=28 if width >= _WIDE else 8, width=width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(f"{indent}{line}".rstrip() for line in wrapped(text, width))

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrapped(" ".join(text.split()), width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Write "-f, --output_format FORMAT": short name first, the value once."""
        names = ", ".join(sorted(action.option_strings, key=len))
        return names if action.nargs == 0 else f"{names} {action.metavar}".lstrip()


def version() -> str:
    """Return the installed version, or that of the source tree."""
    from importlib.metadata import PackageNotFoundError  # noqa: PLC0415 (only for --version)
    from importlib.metadata import version as installed  # noqa: PLC0415

    try:
        return installed("stapes")
    except PackageNotFoundError:
        return "(not installed: running from its source)"
