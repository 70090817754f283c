"""Which engines a command measures: their names, their command line flags, and how they are started.

An engine is NAME, NAME@PRECISION or NAME@PRECISION@SET; SET is an instruction set that stapes must use.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.adapters import ADAPTERS
from benchmarks.machine import load_average
from benchmarks.process import Engine, EngineError

# Differences of times (a step of CTranslate2) have come out negative on a busy machine.
BUSY = 0.5


@dataclass(frozen=True, slots=True)
class EngineName:
    """An engine as the command line names it."""

    engine: str
    precision: str  # "": whatever stapes chooses
    instruction_set: str  # "": whatever the machine has

    @property
    def label(self) -> str:
        """The name that results carry."""
        return "@".join((self.engine, self.precision, self.instruction_set)).rstrip("@")

    @classmethod
    def parse(cls, text: str) -> EngineName:
        """Read NAME[@PRECISION[@SET]]; raises ValueError for an unknown engine."""
        name, precision, instruction_set, *more = *text.split("@"), "", ""
        if name not in ADAPTERS or any(more):  # two of `more` are the empty ones
            raise ValueError(f"unknown engine {text!r}; known: {', '.join(ADAPTERS)}, each with @PRECISION[@SET]")
        usual = ADAPTERS[name].precision
        return cls(name, precision or ("" if usual == "auto" else usual), instruction_set)


def add_engine_flags(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the flags that every command has which measures engines."""
    add = parser.add_argument
    add("--engines", type=_engine_names, default=default, help=f"comma-separated; default: {default}")
    add("--model", default="base", help="a name that every engine knows")
    add("--threads", type=int, default=2)
    add("--others", default=sys.executable, metavar="PYTHON", help="the interpreter of all engines but stapes")
    add("--checkpoints", type=Path, metavar="FOLDER", help="holds MODEL.pt, ct2-MODEL/ and ggml-MODEL[-q8_0].bin")
    for name, what in (("--python", "an engine's interpreter"), ("--checkpoint", "an engine's weights")):
        add(name, action="append", default=[], type=_pair, metavar="NAME=PATH", help=what)


def start_engines(
    arguments: argparse.Namespace, *, parts: str | None = None, threads: int | None = None
) -> list[Engine]:
    """Start a process for each engine; one that cannot run is left out, with a sentence.

    parts: what of its work is measured (`adapters.PARTS`); None: whole files, one by one.
    """
    if (load_average() or 0.0) > BUSY and threads is None:
        sys.stderr.write(f"{load_average()} processes were running here in the last minute: figures will be uneven\n")
    running = []
    for name in arguments.engines:
        try:
            engine = _start(name, arguments, parts=parts, threads=threads or arguments.threads)
        except EngineError as error:
            sys.stderr.write(f"{name.label}: left out: {error}\n")
            continue
        sys.stderr.write(f"{name.label}: loaded in {engine.ready['load_s']} s\n")
        running.append(engine)
    if not running:
        raise EngineError("no engine could be loaded")
    return running


def interpreter(name: EngineName, arguments: argparse.Namespace) -> str:
    """Return which Python runs an engine."""
    named = dict(arguments.python)
    usual = sys.executable if name.engine == "stapes" else arguments.others
    return str(named.get(name.label, named.get(name.engine, usual)))


def checkpoint(name: EngineName, arguments: argparse.Namespace) -> str | None:
    """Return which file or folder an engine reads; None: it knows the model by name."""
    named = dict(arguments.checkpoint)
    given = named.get(name.label, named.get(name.engine))
    if given is None and arguments.checkpoints is not None:
        usual = ADAPTERS[name.engine].checkpoint
        # Names of published ggml files state every precision except float16.
        file = usual and usual.format(model=arguments.model, precision=name.precision).replace("-f16", "")
        given = file and str(arguments.checkpoints / file)
    return given


def _start(name: EngineName, arguments: argparse.Namespace, *, parts: str | None, threads: int) -> Engine:
    return Engine(
        name=name.engine,
        precision=name.precision or "auto",
        instruction_set=name.instruction_set,
        label=name.label,
        python=interpreter(name, arguments),
        model=arguments.model,
        checkpoint=checkpoint(name, arguments),
        threads=threads,
        parts=parts,
    )


def _engine_names(text: str) -> list[EngineName]:
    try:
        return [EngineName.parse(name) for name in text.split(",") if name]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not value:
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, got {text!r}")
    return name, value
