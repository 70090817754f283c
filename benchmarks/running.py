"""What all measurements share as programs: parser, exit, and the result file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, NoReturn

from benchmarks.machine import facts
from benchmarks.process import EngineError
from benchmarks.results import FORMAT, write


def parser_of(module: str, description: str | None, output: str | None = None) -> argparse.ArgumentParser:
    """Make the parser of a measurement.

    module: its name.   description: its docstring.   output: what its result is named, for those that write one always.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "write the result as JSON too" if output is None else f"default: benchmarks/results/{output}-DATE.json"
    parser.add_argument("--output", type=Path, metavar="PATH", help=default)
    return parser


def result_of(kind: str, settings: dict[str, Any], **found: Any) -> dict[str, Any]:
    """Put a result together: what was found, how, and on which machine."""
    return {"format": FORMAT, "kind": kind, "machine": facts(), "settings": settings, **found}


def keep(result: dict[str, Any], path: Path | None, name: str) -> None:
    """Write a result, and say where it is."""
    sys.stdout.write(f"written to {write(result, path, name)}\n")


def run(module: str, main: Callable[[], int]) -> NoReturn:
    """Run a measurement as a program; an error is one sentence."""
    try:
        sys.exit(main())
    except (EngineError, OSError, ValueError, CalledProcessError) as error:
        sys.exit(f"{module}: {error}")
