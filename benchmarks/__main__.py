r"""Run engines on files, in turn, and write what was measured as JSON.

    python -m benchmarks --engines stapes,stapes@float32,faster-whisper@int8,whisper.cpp@q8_0,openai-whisper \
        --others other/bin/python --checkpoints folder/of/checkpoints --repeat 5 [FILES...]

Without FILES: the fixed list of list.json. An engine is NAME, NAME@PRECISION or NAME@PRECISION@SET (a forced
instruction set of stapes). Within a repeat every file goes to every engine before the next file does, so that
a machine which slows down slows all of them. An engine that is not installed is reported and left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.corpus import benchmark_list
from benchmarks.engines import add_engine_flags, start_engines
from benchmarks.process import Engine, pause
from benchmarks.recordings import Recording, read_recordings
from benchmarks.results import collect, write
from benchmarks.running import parser_of, run

#: what every engine is asked to do
DECODING = "greedy, temperature 0, no beams, previous text as prompt, timestamps on, no voice activity detection"


def main() -> int:
    """Measure; exit 1 where no engine could run."""
    arguments = _arguments()
    if arguments.files:
        recordings = read_recordings(arguments.files, arguments.manifest, arguments.language)
    else:
        recordings = benchmark_list()[: arguments.first]
    engines = start_engines(arguments)
    _measure(engines, recordings, arguments.repeat)
    settings = {
        "model": arguments.model,
        "threads": arguments.threads,
        "repeat": arguments.repeat,
        "decoding": DECODING,
        "list": not arguments.files and arguments.first is None,
    }
    result = collect(engines, recordings, settings, arguments.others)
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
    sys.stdout.write(f"written to {path}; `make chart` updates the chart and the pages of figures\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = parser_of("benchmarks", __doc__, "engines-MODEL")
    add = parser.add_argument
    add("files", nargs="*", type=Path, metavar="FILES")
    add_engine_flags(parser, "stapes")
    add("--repeat", type=int, default=3, help="the median of so many runs counts")
    add("--first", type=int, metavar="N", help="only the first N of the list: to see that all works")
    add("--language", default="en", help="where the manifest does not say; 'auto': detect")
    add("--manifest", type=Path, help="JSON lines with path, language, reference: for word error rates of FILES")
    add("--without-texts", action="store_true", help="leave the transcripts out of the result")
    return parser.parse_args()


def _measure(engines: list[Engine], recordings: list[Recording], repeat: int) -> None:
    """Run every engine over every file `repeat` times, in turn; the shortest file once before, untimed."""
    shortest = min(recordings, key=lambda recording: recording.duration_s)
    for engine in engines:
        engine.transcribe(shortest)
        pause()
    for turn in range(1, repeat + 1):
        for recording in recordings:
            for engine in engines:
                answer: dict[str, Any] = engine.transcribe(recording)
                pause()
                engine.answers.setdefault(recording.path, []).append(answer)
                outcome = answer.get("error", f"{answer.get('seconds', 0):.2f} s")
                sys.stderr.write(f"{turn}/{repeat} {recording.name} {engine.label}: {outcome}\n")
    for engine in engines:
        engine.finish()


if __name__ == "__main__":
    run("benchmarks", main)
