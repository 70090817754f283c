"""One engine in its own process: reads requests as JSON lines, answers with JSON lines.

Run by the engine's own interpreter: `python -m benchmarks.worker ENGINE --model base --threads 2 ...`. The
first line out says that the engine is loaded, or why not; then one line per request; the last one, after the
input has ended, holds the peak memory. With --parts a request names a method of `adapters.Steps` or
`adapters.Throughput` in `do`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from benchmarks.adapters import ADAPTERS, PARTS, Transcribe, loader, opener
from benchmarks.machine import peak_memory_mb


def main() -> None:
    """Load, transcribe what is asked for, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=sorted(ADAPTERS))
    parser.add_argument("--model", required=True)
    parser.add_argument("--checkpoint")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", choices=sorted(PARTS), help="measure parts of the work instead of single files")
    arguments = parser.parse_args()
    # Answers go through a copy of standard output: what an engine prints must not come between them.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve = _open(arguments, answers)
    if serve is not None:
        for line in sys.stdin:
            _answer(answers, serve(json.loads(line)))
        _answer(answers, {"peak_memory_mb": peak_memory_mb()})


def _answer(answers: TextIO, values: dict[str, Any]) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def _open(arguments: argparse.Namespace, answers: TextIO) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
    """Load the engine and report it; return what answers a request, None where loading failed."""
    started = time.perf_counter()
    try:
        load: Any = loader(arguments.engine) if arguments.parts is None else opener(arguments.engine, arguments.parts)
    except ImportError as error:
        _answer(answers, {"error": f"not installed here ({error})"})
        return None
    imported = time.perf_counter()
    try:
        opened = load(
            model=arguments.model,
            checkpoint=arguments.checkpoint,
            precision=arguments.precision,
            threads=arguments.threads,
        )
    except Exception as error:
        _answer(answers, {"error": f"{type(error).__name__}: {error}"})
        return None
    ready = {
        "import_s": round(imported - started, 3),
        "load_s": round(time.perf_counter() - imported, 3),
        "python": platform.python_version(),
        "versions": versions(arguments.engine),
        "facts": opened.facts,
    }
    _answer(answers, ready)
    if arguments.parts is not None:
        return lambda request: _measured(opened, request)
    return lambda request: _timed(opened.transcribe, request)


def versions(engine: str) -> dict[str, str]:
    """Return the versions of the engine and of what computes for it."""
    found = {}
    for package in ADAPTERS[engine].packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "from source"
    return found


def _timed(transcribe: Transcribe, request: dict[str, Any]) -> dict[str, Any]:
    """Transcribe one file; the time includes reading and decoding it."""
    started = time.perf_counter()
    try:
        text = transcribe(request["path"], request["language"])
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"seconds": round(time.perf_counter() - started, 4), "text": text}


def _measured(parts: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Take one measurement, by the name of its method."""
    try:
        return {"value": getattr(parts, request.pop("do"))(**request)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main()
