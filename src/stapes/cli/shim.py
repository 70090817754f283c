"""`stapes shim install|remove NAME`: a stand-in in site-packages, so that installers find a requirement there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from stapes.cli.flags import Parser, join_spellings
from stapes.cli.help import PageFormatter
from stapes.cli.output import say
from stapes.compat import stand_ins
from stapes.compat.stand_ins import STAND_INS
from stapes.errors import OptionError

_USAGE: Final = """\
stapes shim install NAME [flags]
       stapes shim remove NAME"""
_DESCRIPTION: Final = """\
Writes a stand-in for faster-whisper or openai-whisper to the site-packages of
this Python, or removes it. Programs import the interface of stapes under the
original's name then, and pip and uv take requirements of it as satisfied
(docs/programs.md). Nothing is downloaded, nothing of the original is needed.

NAME is faster-whisper or openai-whisper.

Examples:
  stapes shim install faster-whisper           then: pip install PROGRAM
  stapes shim install openai-whisper --version 20240930
  stapes shim remove faster-whisper            or: pip uninstall faster-whisper

Where the original is installed, nothing is written; 'stapes run-as' needs no
installation.
"""


def run_shim(words: Sequence[str]) -> int:
    """Run `stapes shim ...` and return the exit code."""
    arguments = _parser().parse_args(join_spellings(words))
    match arguments.words:
        case ["install" | "remove" as verb, name] if (known := _name(name)) in STAND_INS:
            chosen = STAND_INS[known]
        case other:
            raise OptionError(
                f"{' '.join(['shim', *other])}: write 'stapes shim install NAME' or 'stapes shim remove NAME', with "
                f"{' or '.join(STAND_INS)} for the name"
            )
    site = stand_ins.site_folder()
    if verb == "remove":
        if arguments.version is not None:
            raise OptionError("--version goes with install; remove takes away whatever version stapes wrote")
        versions = stand_ins.remove(chosen, site)
        say(f"removed the stand-in for {chosen.distribution} {', '.join(versions)} from {site}")
        return 0
    version = arguments.version or chosen.version
    stand_ins.install(chosen, version, site, sys.path)
    say(f"wrote {chosen.distribution} {version}+stapes to {site}: 'import {chosen.package}' is stapes there now")
    say(f"to undo: stapes shim remove {chosen.distribution}")
    return 0


def _name(name: str) -> str:
    name = name.lower().replace("_", "-")
    return "openai-whisper" if name == "whisper" else name


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="stapes shim", usage=_USAGE, formatter_class=PageFormatter, description=_DESCRIPTION)
    parser.add_argument("words", nargs="*", metavar="install|remove NAME", help=argparse.SUPPRESS)
    parser.add_argument(
        "--version", metavar="V",
        help="the original's version that requirements ask for; '+stapes' is added (default: "
        + ", ".join(f"{one.version} for {one.distribution}" for one in STAND_INS.values()) + ")",
    )  # fmt: skip
    return parser
