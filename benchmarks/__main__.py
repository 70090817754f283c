r"""Run engines on files, in turn, and write what was measured as JSON.

    python -m benchmarks --engines stapes,openai-whisper,faster-whisper,faster-whisper@int8 --model base \
        --python openai-whisper=other/bin/python --checkpoint openai-whisper=base.pt FILES...

An engine is NAME or NAME@PRECISION. Within a repeat every file goes to every engine before the next file
does, so that a machine which slows down slows all of them. An engine that is not installed is reported and
left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.adapters import ADAPTERS
from benchmarks.process import Engine, EngineError
from benchmarks.recordings import Recording, read_recordings
from benchmarks.results import collect, write

#: what every engine is asked to do
DECODING = "greedy, temperature 0, no beams, previous text as prompt, timestamps on, no voice activity detection"


def main() -> int:
    """Measure; exit 1 where no engine could run."""
    arguments = _arguments()
    recordings = read_recordings(arguments.files, arguments.manifest, arguments.language)
    engines = [_start(name, arguments) for name in arguments.engines]
    running = [engine for engine in engines if engine is not None]
    if not running:
        sys.stderr.write("no engine could be loaded\n")
        return 1
    _measure(running, recordings, arguments.repeat)
    settings = {
        "model": arguments.model,
        "threads": arguments.threads,
        "repeat": arguments.repeat,
        "decoding": DECODING,
    }
    lender = next((engine.python for engine in running if engine.name == "openai-whisper"), sys.executable)
    result = collect(running, recordings, settings, lender)
    if arguments.without_texts:
        for engine in result["engines"]:
            for row in engine["files"]:
                del row["text"]
    path = write(result, arguments.output, f"engines-{arguments.model}")
    for engine in result["engines"]:
        errors = engine["word_error_rate"]
        sys.stdout.write(
            f"{engine['name']:28} {engine['seconds']:9.2f} s  {engine['times_real_time']:6.2f} x real time  "
            f"{engine['peak_memory_mb']:7.0f} MB"
            + (f"  {errors:6.2%} word errors" if errors is not None else "")
            + "\n"
        )
    sys.stdout.write(f"written to {path}; python -m benchmarks.report makes docs/benchmarks.md of it\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILES")
    add("--engines", type=_engines, default=["stapes"], help=f"of {', '.join(ADAPTERS)}")
    add("--model", default="base", help="a name that every engine knows")
    add("--threads", type=int, default=2)
    add("--repeat", type=int, default=3, help="the median of so many runs counts")
    add("--language", default="en", help="where the manifest does not say; 'auto': detect")
    add("--manifest", type=Path, help="JSON lines with path, language, reference: for word error rates")
    add("--output", type=Path, help="default: benchmarks/results/engines-MODEL-DATE.json")
    add("--without-texts", action="store_true", help="leave the transcripts out of the result")
    for name, what in (("--python", "an engine's interpreter"), ("--checkpoint", "an engine's weights")):
        add(name, action="append", default=[], type=_pair, metavar="NAME=PATH", help=what)
    arguments = parser.parse_args()
    arguments.python, arguments.checkpoint = dict(arguments.python), dict(arguments.checkpoint)
    return arguments


def _engines(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name.partition("@")[0] not in ADAPTERS:
            raise argparse.ArgumentTypeError(f"unknown engine {name!r}; known: {', '.join(ADAPTERS)}")
    return names


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not value:
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, got {text!r}")
    return name, value


def _start(label: str, arguments: argparse.Namespace) -> Engine | None:
    """Start one engine's process; None, with a sentence, where it cannot run."""
    name, _, precision = label.partition("@")
    try:
        engine = Engine(
            name=name,
            precision=precision or "float32",
            python=arguments.python.get(label, arguments.python.get(name, sys.executable)),
            model=arguments.model,
            checkpoint=arguments.checkpoint.get(label, arguments.checkpoint.get(name)),
            threads=arguments.threads,
        )
    except EngineError as error:
        sys.stderr.write(f"{label}: left out: {error}\n")
        return None
    sys.stderr.write(f"{label}: loaded in {engine.ready['load_s']} s\n")
    return engine


def _measure(engines: list[Engine], recordings: list[Recording], repeat: int) -> None:
    """Run every engine over every file `repeat` times, in turn; the shortest file once before, untimed."""
    shortest = min(recordings, key=lambda recording: recording.duration_s)
    for engine in engines:
        engine.transcribe(shortest)
    for turn in range(1, repeat + 1):
        for recording in recordings:
            for engine in engines:
                answer: dict[str, Any] = engine.transcribe(recording)
                engine.answers.setdefault(recording.path, []).append(answer)
                outcome = answer.get("error", f"{answer.get('seconds', 0):.2f} s")
                sys.stderr.write(f"{turn}/{repeat} {recording.path.name} {engine.label}: {outcome}\n")
    for engine in engines:
        engine.finish()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (EngineError, OSError, ValueError) as error:
        sys.exit(f"benchmarks: {error}")
