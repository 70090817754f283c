r"""Single steps of the engines' networks, in turn: encode a window, one greedy step, eight rows in one step, log-mel.

    python -m benchmarks.steps --engines stapes@int8,stapes@float32,faster-whisper@int8,faster-whisper@float32 \\
        --others other/bin/python --checkpoints folder/of/checkpoints [--rounds 7]

The eight windows are the first two of 30 s of each long recording of list.json; rows begin with the tokens that
openai-whisper found in the first. The share of the roofline is the time that the machine's measured peaks allow
over the time taken; the peaks are printed too, and --peak int8=820 gives one (10^9 operations a second) that cannot be
measured here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.adapters import FIRST_STEP, LAST_STEP
from benchmarks.corpus import benchmark_list, golden_transcripts
from benchmarks.engines import add_engine_flags, start_engines
from benchmarks.machine import facts
from benchmarks.process import Engine, EngineError, pause
from benchmarks.recordings import Recording
from benchmarks.results import FORMAT, write
from benchmarks.roofline import Roofline, roofline

ROWS = 8
# So many tokens must follow as in the reference's transcript, but for some that another precision may turn: an engine
# that computes something else, or less, has no figures.
PROOF, LEAST_EQUAL = 16, 8
#: name in the results -> the request
MEASUREMENTS: dict[str, dict[str, Any]] = {
    "encode_s": {"do": "encode"},
    "step_s": {"do": "step", "rows": 1},
    f"step_{ROWS}_rows_s": {"do": "step", "rows": ROWS},
    "short_transcript_s": {"do": "short_transcript", "rows": 1},
    f"short_transcript_{ROWS}_rows_s": {"do": "short_transcript", "rows": ROWS},
}
ON_ONE_CORE: dict[str, dict[str, Any]] = {"log_mel_s": {"do": "log_mel"}}


def main() -> int:
    """Measure, write, and print the medians."""
    arguments = _arguments()
    windows, text = _windows(benchmark_list())
    # Before the engines and after them: a peak is the best that the machine shows.
    peaks = roofline(threads=arguments.threads, given=dict(arguments.peak))
    engines = _prepare(start_engines(arguments, parts="steps"), windows, text)
    figures = _measure(engines, MEASUREMENTS, arguments.rounds)
    engines = _prepare(start_engines(arguments, parts="steps", threads=1), windows, text)
    on_one_core = _measure(engines, ON_ONE_CORE, arguments.rounds)
    peaks = peaks.best(roofline(threads=arguments.threads, given=dict(arguments.peak)))
    for label, row in on_one_core.items():
        if label in figures:
            figures[label]["seconds"] |= row["seconds"]
    rows = [row | {"name": label, "medians_s": _medians(row["seconds"])} for label, row in figures.items()]
    for row in rows:
        # Another engine may do part of the encoder's work elsewhere.
        row["roofline_shares"] = _shares(row, peaks) if row["name"].startswith("stapes") else {}
    settings = {"model": arguments.model, "threads": arguments.threads, "rounds": arguments.rounds, "rows": ROWS}
    settings |= {"depth": [3 + FIRST_STEP, 3 + LAST_STEP]}
    result = {"format": FORMAT, "kind": "steps", "machine": facts(), "settings": settings}
    result |= {"roofline": peaks.as_json(), "engines": rows}
    path = write(result, arguments.output, f"steps-{arguments.model}")
    for name, peak in peaks.operations.items():
        sys.stdout.write(f"peak, {name:8} {peak:8.1f} * 10^9 operations a second ({peaks.source[name]})\n")
    for size, rate in peaks.read_rates.items():
        sys.stdout.write(f"reading {size:4} MB {rate:8.1f} * 10^9 bytes a second ({peaks.source['reading']})\n")
    for row in rows:
        medians = "  ".join(f"{name} {value * 1000:8.2f} ms" for name, value in row["medians_s"].items())
        shares = "  ".join(f"{name} {share:.0%}" for name, share in row["roofline_shares"].items())
        sys.stdout.write(f"{row['name']:28} {medians}{shares and '  of the roofline: '}{shares}\n")
    sys.stdout.write(f"written to {path}; `make chart` updates the chart and the pages of figures\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.steps", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_engine_flags(parser, "stapes")
    parser.add_argument("--rounds", type=int, default=7, help="the median of so many counts")
    parser.add_argument("--peak", action="append", default=[], type=_peak, metavar="TYPE=GOPS", help="a known peak")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/steps-MODEL-DATE.json")
    return parser.parse_args()


def _peak(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, float(value)


def _windows(recordings: list[Recording]) -> tuple[dict[str, Any], list[int]]:
    """Return what every engine prepares, two windows of each long recording and the first tokens of the first, and
    the tokens that the reference goes on with.
    """
    long = [recording for recording in recordings if recording.duration_s > 60]
    paths = [str(recording.path.absolute()) for recording in long]
    segments = golden_transcripts()[long[0].name]["segments"]
    tokens = [token for segment in segments if segment["seek"] == 0 for token in segment["tokens"]]
    windows = [(path, start_s) for path in paths for start_s in (0.0, 30.0)][:ROWS]
    text = tokens[FIRST_STEP : FIRST_STEP + PROOF]
    return {"do": "prepare", "windows": windows, "tokens": tokens[:FIRST_STEP]}, text


def _prepare(engines: list[Engine], windows: dict[str, Any], text: list[int]) -> list[Engine]:
    """Let every engine read the windows; one that gives another text is left out, with a sentence."""
    proven = []
    for engine in engines:
        engine.measure(**windows)
        found = engine.measure(do="continuation", n_tokens=PROOF)
        equal = sum(own == other for own, other in zip(found, text, strict=False))
        if equal >= LEAST_EQUAL:
            proven.append(engine)
            continue
        engine.finish()
        sys.stderr.write(f"{engine.label}: left out: {equal} of {PROOF} tokens are the reference's: {found}\n")
    if not proven:
        raise EngineError("no engine gives the reference's tokens")
    return proven


def _measure(engines: list[Engine], measurements: dict[str, dict[str, Any]], rounds: int) -> dict[str, dict[str, Any]]:
    """Take every measurement of every engine in turn, `rounds` times, after one round that does not count."""
    figures: dict[str, dict[str, Any]] = {}
    for engine in engines:
        figures[engine.label] = {
            "facts": engine.ready["facts"],
            "versions": engine.ready["versions"],
            "seconds": {name: [] for name in measurements},
        }
    for turn in range(rounds + 1):
        for name, request in measurements.items():
            for engine in engines:
                pause()
                seconds = engine.measure(**request)
                if turn:
                    figures[engine.label]["seconds"][name].append(round(seconds, 6))
                    sys.stderr.write(f"{turn}/{rounds} {engine.label} {name}: {seconds * 1000:.2f} ms\n")
    for engine in engines:
        engine.finish()
    return figures


def _medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(median(values), 6) for name, values in seconds.items()}


def _shares(row: dict[str, Any], peaks: Roofline) -> dict[str, float]:
    """Return which part of each time the machine's peaks would need, where the precision's peak is known."""
    bounds = peaks.bounds_s(row["facts"]["precision"], depth=3 + (FIRST_STEP + LAST_STEP) // 2, rows=ROWS)
    return {name: round(bound / row["medians_s"][name], 4) for name, bound in bounds.items()}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (EngineError, OSError, ValueError) as error:
        sys.exit(f"benchmarks.steps: {error}")
