"""The help page's words and layout: 80 columns, examples first, one spelling per flag."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from typing import Final

from stapes.languages import LANGUAGES

SEE_HELP: Final = "stapes --help explains every flag"

USAGE: Final = """\
stapes AUDIO... [flags]
       stapes report AUDIO... [flags]
       stapes plot AUDIO... [flags]
       stapes models [pull NAME]"""

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
  stapes report talk.mp3                a page to look at and to hear
  stapes plot talk.mp3                  a picture, talk.plot.png
  stapes models                         which models are here
  stapes models pull small              fetch one

AUDIO is a sound or video file of any usual format, a folder (the recordings
in it, not those in folders below it), a pattern such as '*.mp3', or - for
standard input (its files are named stdin). Where a name begins with a dash or
is "models", "report" or "plot", write ./ before it.

Without -f or -o the plain text goes to standard output, one line per segment,
one recording after the other, and no file is written. With them, files are
written, named after the recordings. Everything else - progress, warnings,
errors - goes to standard error.

Recordings are worked on several at once, each as if alone. While files are
made, a journal lies beside them (.stapes-journal.sqlite): broken off by Ctrl-C,
kill -9 or loss of power, the same command goes on where it was.
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
    languages = ", ".join(f"{code} {name}".replace(" ", "\0") for code, name in LANGUAGES.items())
    lines = textwrap.wrap(languages, 78, initial_indent="  ", subsequent_indent="  ")
    return _EPILOG.format(languages="\n".join(lines).replace("\0", " "))


class PageFormatter(argparse.RawDescriptionHelpFormatter):
    """At most 80 columns, help texts beside the flags where there is room."""

    def __init__(self, prog: str) -> None:
        width = max(50, min(80, shutil.get_terminal_size().columns))
        super().__init__(prog, max_help_position=28, width=width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Write "-f, --output_format FORMAT": short name first, the value once."""
        names = ", ".join(sorted(action.option_strings, key=len))
        return names if action.nargs == 0 else f"{names} {action.metavar}"


def version() -> str:
    """Give the installed version, or that of the source tree."""
    from importlib.metadata import PackageNotFoundError  # noqa: PLC0415 (only for --version)
    from importlib.metadata import version as installed  # noqa: PLC0415

    try:
        return installed("stapes")
    except PackageNotFoundError:
        return "(not installed: running from its source)"
