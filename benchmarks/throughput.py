r"""Sixteen recordings at once against one after another, and against faster-whisper's two ways.

    python -m benchmarks.throughput --engines stapes,stapes@int8,faster-whisper@int8 \\
        --others other/bin/python --checkpoints folder/of/checkpoints [--rounds 5]

The recordings are the four long ones of list.json and the first twelve short ones, in the list's order, short ones
first. All is decoded greedily at temperature 0, in English. Each way of an engine has its own process, loaded
once; within a round all ways take their turn. Memory is the peak of the process, loading included. stapes must give
the same texts in all its ways: if it does not, the command exits with 1. `stapes@int8` is needed only where the
default precision is another one.
"""

from __future__ import annotations

import argparse
import sys
from copy import copy
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.corpus import benchmark_list
from benchmarks.engines import add_engine_flags, start_engines
from benchmarks.process import Engine, EngineError, pause
from benchmarks.recordings import Recording
from benchmarks.results import count_word_errors, write
from benchmarks.running import parser_of, result_of, run

N_SHORT, LONG_S = 12, 60.0


@dataclass(frozen=True, slots=True)
class Way:
    """A way in which some engines take many recordings."""

    name: str
    method: str  # of their adapters' `Throughput`
    engines: tuple[str, ...]
    most_windows: int | None = None  # in memory at once; None: the engine's default


ALONE, TOGETHER, BATCHED = "one after another", "together", "batched"
FEW_WINDOWS = 4
FEW = f"together, {FEW_WINDOWS} windows"
WAYS = (
    Way(ALONE, "one_after_another", ("stapes", "faster-whisper")),
    Way(TOGETHER, "together", ("stapes",)),
    Way(FEW, "together", ("stapes",), FEW_WINDOWS),
    Way(BATCHED, "batched", ("faster-whisper",)),
)
FIGURES = ("seconds", "encode_s", "step_s")


@dataclass(slots=True)
class Runner:
    """One engine in one of its ways, and its answers."""

    engine: Engine
    way: Way
    max_memory: int | None
    answers: list[dict[str, Any]]  # adapters' `Timed`, one for each round

    @property
    def label(self) -> str:
        """The name that results carry."""
        return f"{self.engine.label}, {self.way.name}"


def main() -> int:
    """Measure in turn, write, and print the medians; exit 1 where stapes' ways differ."""
    arguments = _arguments()
    recordings = chosen(benchmark_list())[: arguments.first]
    runners = _start(arguments)
    _measure(runners, recordings, arguments.rounds)
    rows = [_row(runner, len(recordings)) for runner in runners]
    normaliser = _judge(rows, recordings, arguments.others)
    settings = {"model": arguments.model, "threads": arguments.threads, "rounds": arguments.rounds}
    settings |= {"list": arguments.first is None, "normaliser": normaliser}
    result = result_of("throughput", settings)
    audio = {"count": len(recordings), "seconds": round(sum(one.duration_s for one in recordings), 1)}
    path = write(result | {"recordings": audio, "engines": rows}, arguments.output, f"throughput-{arguments.model}")
    for row in rows:
        parts = f"encoder {row['encode_s']:6.2f} s  decoder {row['step_s']:6.2f} s" if row["step_s"] else ""
        sys.stdout.write(
            f"{row['name']:40} {row['seconds']:7.2f} s  {row['peak_memory_mb']:5.0f} MB  "
            f"{row['word_error_rate'] or 0:6.2%} word errors  {parts}\n"
        )
    sys.stdout.write(f"written to {path}; `make chart` updates the chart and the pages of figures\n")
    changed = [row["name"] for row in rows if row["same_texts"] not in (None, len(recordings))]
    if changed:
        sys.stderr.write(f"other texts than one after another: {'; '.join(changed)}\n")
    return 1 if changed else 0


def _arguments() -> argparse.Namespace:
    parser = parser_of("benchmarks.throughput", __doc__, "throughput-MODEL")
    add_engine_flags(parser, "stapes")
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many counts")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N recordings: to see that all works")
    return parser.parse_args()


def chosen(recordings: list[Recording]) -> list[Recording]:
    """Return the sixteen: the first short ones of the list, and all long ones."""
    short = [one for one in recordings if one.duration_s < LONG_S][:N_SHORT]
    return short + [one for one in recordings if one.duration_s >= LONG_S]


def _start(arguments: argparse.Namespace) -> list[Runner]:
    """Start a process for each way of each engine."""
    runners = []
    for way in WAYS:
        wanted = copy(arguments)
        wanted.engines = [name for name in arguments.engines if name.engine in way.engines]
        for engine in start_engines(wanted, parts="throughput") if wanted.engines else []:
            held = None if way.most_windows is None else engine.measure(do="hold", most_windows=way.most_windows)
            runners.append(Runner(engine, way, held, []))
    if not runners:
        raise EngineError("none of these engines has an adapter for many recordings: stapes and faster-whisper have")
    return runners


def _measure(runners: list[Runner], recordings: list[Recording], rounds: int) -> None:
    """Let every way take its turn in every round; the first two recordings once before, untimed."""
    paths = [str(recording.path.absolute()) for recording in recordings]
    for runner in runners:
        runner.engine.measure(do=runner.way.method, paths=paths[:2])
    for turn in range(1, rounds + 1):
        for runner in runners:
            pause()
            answer = runner.engine.measure(do=runner.way.method, paths=paths)
            runner.answers.append(answer)
            sys.stderr.write(f"{turn}/{rounds} {runner.label}: {answer['seconds']:.2f} s\n")
    for runner in runners:
        runner.engine.finish()


def _row(runner: Runner, n_recordings: int) -> dict[str, Any]:
    """Put the rounds of one way together."""
    runs = {name: [answer[name] for answer in runner.answers] for name in FIGURES}
    every = {name: [round(value, 4) for value in values] for name, values in runs.items() if None not in values}
    texts = [answer["texts"] for answer in runner.answers]
    return {
        "name": runner.label,
        "engine": runner.engine.label,
        "way": runner.way.name,
        "facts": runner.engine.ready["facts"],
        "versions": runner.engine.ready["versions"],
        "max_memory": runner.max_memory,
        **{name: round(median(every[name]), 4) if name in every else None for name in FIGURES},
        "rounds": every,
        "peak_memory_mb": runner.engine.peak_memory_mb,
        "same_texts_every_round": sum(len(set(one)) == 1 for one in zip(*texts, strict=True)) == n_recordings,
        "texts": [text.strip() for text in texts[-1]],
    }


def _judge(rows: list[dict[str, Any]], recordings: list[Recording], python: str) -> str | None:
    """Count word errors, and compare with the texts of the same engine one after another; texts are dropped then.

    Returns the normaliser's name.
    """
    files: list[list[dict[str, Any]]] = [[{"text": text} for text in row["texts"]] for row in rows]
    normaliser = count_word_errors(files, recordings, python)
    alone = {row["engine"]: row["texts"] for row in rows if row["way"] == ALONE}
    for row, judged in zip(rows, files, strict=True):
        errors, words = (sum(one.get(key) or 0 for one in judged) for key in ("word_errors", "words"))
        row |= {"word_errors": errors, "words": words, "word_error_rate": round(errors / words, 6) if words else None}
        others = alone.get(row["engine"]) if row["engine"].startswith("stapes") else None
        row["same_texts"] = others and sum(map(str.__eq__, row["texts"], others))
    for row in rows:
        del row["texts"]
    return normaliser


if __name__ == "__main__":
    run("benchmarks.throughput", main)
