"""Make docs/benchmarks.md, docs/trust.md and benchmarks/{TARGETS,RUNS}.md of the JSON files in benchmarks/results.

python -m benchmarks.report [--check]      (--check: exit 1 if a page is not up to date)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import chart, throughput_page
from benchmarks.page import MACHINES, kind_of, machine_of, prose, remark_of, section, table, write_pages
from benchmarks.precision_table import EVIDENCE_HEAD, evidence_rows, precision_rows
from benchmarks.precision_table import HEAD as PRECISION_HEAD
from benchmarks.results import read_results
from benchmarks.targets import TARGETS
from benchmarks.trust_page import trust

ROOT = Path(__file__).parents[1]
_MADE = "<!-- Made by `python -m benchmarks.report` from benchmarks/results/*.json: change those, not this page. -->\n"

_EVIDENCE = """\
## What `auto` may take

Word errors against human references, greedily at temperature 0, on recordings on which `float32` does not loop. A
precision may be taken if it makes at most 0.3 points more errors than `float32`: the 97.5th percentile of 10,000 draws
of source utterances, in each group of at least 10,000 words. "More loops": recordings on which it loops and `float32`
does not. An arithmetic is a precision as some instruction sets compute it: precision / rows in the encoder's layers /
rows where nothing is quantised ([native.md](native.md#what-auto-takes)).
"""

_HOW = """\
## How it was measured

Each engine runs in its own process, with its own interpreter, and stays loaded. All engines get the same files in turn,
file by file, so that a machine that slows down slows all of them. The median of several runs counts. A time includes
reading and decoding the file. All engines decode alike: greedily at temperature 0, without beams, with the previous
text as prompt and with timestamps. Memory is the peak of the engine's process, loading included. "Load" is importing
and loading. Absolute times differ between machines and hours: compare within one table only.

The recordings are those of `benchmarks/list.json`: 18 short English clips and 4 of 66 to 83 s, chosen once by the rule
that the file states. Error rates of precisions are taken over the whole corpus.

## Measure it yourself

An engine that is not installed is left out. `PYTHON` is an interpreter that has the other engines; `FOLDER` holds their
checkpoints: `base.pt`, `ct2-base/`, `ggml-base-q8_0.bin`.

```
OTHERS="--others PYTHON --checkpoints FOLDER"
python -m benchmarks $OTHERS --repeat 5 --without-texts --engines \\
    stapes,stapes@float32,faster-whisper@int8,faster-whisper@float32,whisper.cpp@q8_0,openai-whisper@float32
python -m benchmarks.steps $OTHERS --engines \\
    stapes@int8,stapes@bfloat16,stapes@float32,faster-whisper@int8,faster-whisper@float32
python -m benchmarks.command $OTHERS --engines stapes,stapes@int8,faster-whisper@int8
python -m benchmarks.error_rates $OTHERS --precision float32,bfloat16,int8 --engines faster-whisper@int8
python -m benchmarks.more_speech FOLDER_OF_SPEECH
python -m benchmarks.precision_evidence transcribe --speech FOLDER_OF_SPEECH --transcripts FOLDER --precision int8
python -m benchmarks.precision_evidence decide --speech FOLDER_OF_SPEECH --transcripts FOLDER --others PYTHON --write
python -m benchmarks.throughput $OTHERS --engines stapes,stapes@int8,faster-whisper@int8
python -m benchmarks.fairness
python -m benchmarks.lookahead
python -m benchmarks.memory --output benchmarks/results/memory-DATE.json
python -m benchmarks.startup
make chart
```

In each of these commands `stapes@int8@avx2` limits stapes to an instruction set, as `STAPES_ISA` does.
"""

_ON_STEPS = """\
**Steps.** A step is one greedy step of each row, in the middle of a text: nothing is forced, so that the whole
vocabulary counts. stapes is measured step by step. CTranslate2 offers no single step, so its step is the difference
between a long and a short transcript, divided by the tokens between. stapes computes the cross-attention's keys and
values while it encodes, CTranslate2 before its first step. "A token of 28" is a whole short transcript divided by its
tokens: with CTranslate2 those keys and values are included. Log-mel: 30 s, one thread, scaling included. An engine
whose tokens differ from the reference's in more than a few places is left out.
"""


def main() -> int:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 if a page is not up to date")
    return write_pages(pages(read_results()), check=parser.parse_args().check, command="make chart")


def pages(results: Sequence[dict[str, Any]]) -> dict[Path, str]:
    """Return what each page has to hold."""
    newest_first = sorted(results, key=lambda result: str(result["machine"]["date"]), reverse=True)
    return {
        ROOT / "docs" / "benchmarks.md": _overview(newest_first),
        ROOT / "docs" / "trust.md": trust(newest_first),
        ROOT / "benchmarks" / "TARGETS.md": _targets(newest_first),
        ROOT / "benchmarks" / "RUNS.md": _runs(newest_first),
    }


def _overview(newest_first: Sequence[dict[str, Any]]) -> str:
    """Return the first page: the chart and one table of engines, stapes' precisions, how it was measured."""
    result = chart.newest(newest_first)
    head = ("engine", "times real time", "word errors", "texts as openai-whisper's", "peak memory", "load")
    rows = [
        (
            chart.label(engine),
            f"{engine['times_real_time']:.1f}",
            f"{engine['word_error_rate']:.2%}",
            f"{engine['same_text_as_openai_whisper']} of {result['recordings']['count']}",
            f"{engine['peak_memory_mb']:.0f} MB",
            f"{engine['import_s'] + engine['load_s']:.1f} s",
        )
        for engine in chart.rows(result)
    ]
    conditions = f"{machine_of(result['machine'])} {_conditions(result)}"
    return "\n".join(
        [
            "# Benchmarks\n",
            _MADE,
            chart.picture(result, "images"),
            chart.caption(result),
            table(head, rows),
            f"{prose(conditions)}\n",
            "Every run, with the engines' versions: [RUNS.md](../benchmarks/RUNS.md).\n"
            "Targets, with the figures of each kind of processor: [TARGETS.md](../benchmarks/TARGETS.md).\n",
            "## Precisions and instruction sets\n",
            "Each figure is from the newest run that has it; model base. An empty cell was not measured.\n",
            table(PRECISION_HEAD, precision_rows(newest_first)),
            _EVIDENCE,
            table(EVIDENCE_HEAD, evidence_rows()),
            _HOW,
        ]
    )


def _runs(newest_first: Sequence[dict[str, Any]]) -> str:
    """Return the page of all runs: by kind, newest first."""
    parts = [
        "# Every benchmark run\n",
        _MADE,
        "How it was measured: [docs/benchmarks.md](../docs/benchmarks.md). Compare within one table only.\n",
        _ON_STEPS,
    ]
    for kind, write in _WRITERS.items():
        parts += [write(result) for result in newest_first if result["kind"] == kind]
    return "\n".join(parts)


def _is_whole(result: dict[str, Any]) -> bool:
    """Whether a run may be compared with the targets: the fixed recordings, all of them, and the default options."""
    settings = result.get("settings", {})
    whole = {
        "engines": settings.get("list", False),
        "steps": True,
        "command": not settings.get("greedy", True),
        "error_rates": settings.get("whole_corpus", False),
        "throughput": settings.get("list", False),
        "fairness": settings.get("whole", False),
        "memory": settings.get("whole", False),
    }
    return bool(whole.get(result["kind"], False))


def _targets(newest_first: Sequence[dict[str, Any]]) -> str:
    """Return the page of targets: each one, on every kind of processor that it was measured on."""
    by_machine: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for result in newest_first:
        if _is_whole(result):
            by_machine.setdefault(kind_of(result["machine"]), {}).setdefault(result["kind"], []).append(result)
    machines = [name for name in MACHINES if name in by_machine]
    rows = []
    for target in TARGETS:
        cells = []
        for machine in machines:
            value = target.measured(by_machine[machine])
            cells.append("" if value is None else target.outcome(value, machine))
        rows.append((target.what, target.write_limit(), *cells))
    remarks = [
        prose(f"* {name}, {kind.replace('_', ' ')}: {remark}", indent="  ")
        for name, kind, remark in _remarks(by_machine)
    ]
    return "\n".join(
        [
            "# Targets\n",
            _MADE,
            "The newest figure of each kind of processor, two cores each, and whether it reaches the target. AMX is a\n"
            "matrix unit beside AVX-512. An empty cell was not measured.\n"
            "How it was measured: [docs/benchmarks.md](../docs/benchmarks.md).\n",
            table(("what", "target", *machines), rows),
            "\n".join(remarks) + "\n",
        ]
    )


def _remarks(by_machine: Mapping[str, Mapping[str, Sequence[dict[str, Any]]]]) -> Iterator[tuple[str, str, str]]:
    """Yield remarks on the newest results of each kind of processor: its name, their kind, a remark."""
    for name in MACHINES:
        for kind, results in by_machine.get(name, {}).items():
            if remark := remark_of(results[0]):
                yield name, kind, remark


def _engines(result: dict[str, Any]) -> str:
    recordings = result["recordings"]
    rows = []
    for engine in result["engines"]:
        errors, same = engine["word_error_rate"], engine["same_text_as_openai_whisper"]
        rows.append(
            [
                engine["name"],
                ", ".join(f"{name} {version}" for name, version in engine["versions"].items()),
                f"{engine['import_s'] + engine['load_s']:.1f} s",
                f"{engine['seconds']:.1f} s",
                f"{engine['times_real_time']:.1f}",
                "" if errors is None else f"{errors:.2%}",
                f"{engine['peak_memory_mb']:.0f} MB",
                "" if same is None else f"{same} of {recordings['count']}",
                str(engine["failed"] or ""),
            ]
        )
    head = "engine|versions|load|time|times real time|word errors|peak memory|the reference's text|failed"
    title = f"Engines, model {result['settings']['model']}"
    return section(title, result, _conditions(result), head.split("|"), rows)


def _conditions(result: dict[str, Any]) -> str:
    """Return how engines were run, in one or two sentences."""
    settings, recordings = result["settings"], result["recordings"]
    words = f" Normaliser: {settings['normaliser']}." if settings["normaliser"] else ""
    return (
        f"{settings['threads']} threads, {recordings['count']} recordings, "
        f"{recordings['seconds']:.0f} s together, median of {settings['repeat']}.{words}"
    )


def _steps(result: dict[str, Any]) -> str:
    settings, peaks = result["settings"], result["roofline"]
    columns = {
        "encode a window": "encode_s",
        "a step": "step_s",
        "8 rows in a step": "step_8_rows_s",
        "a token of 28": "short_transcript_s",
        "8 rows, a token of 28": "short_transcript_8_rows_s",
        "log-mel": "log_mel_s",
    }
    rows = []
    for engine in result["engines"]:
        times = [f"{engine['medians_s'][name] * 1000:.1f} ms" for name in columns.values()]
        shares = [engine["roofline_shares"].get(name) for name in ("encode_s", "step_s")]
        rows.append([engine["name"], *times, *("" if share is None else f"{share:.0%}" for share in shares)])
    first, last = settings["depth"]
    operations = ", ".join(
        f"{name} {peak:.0f} ({peaks['source'][name]})" for name, peak in sorted(peaks["gigaoperations_per_s"].items())
    )
    rates = ", ".join(f"{rate:.0f} over {size} MB" for size, rate in peaks["read_gb_per_s_by_mb"].items())
    note = (
        f"{settings['threads']} threads, median of {settings['rounds']}, in turn; rows {first} to {last} tokens deep. "
        f"The roofline: 10^9 operations a second: {operations}; "
        f"10^9 bytes read a second ({peaks['source'].get('reading', 'NumPy')}): {rates}."
    )
    head = ("engine", *columns, "roofline, encoder", "roofline, step")
    return section(f"Steps, model {settings['model']}", result, note, head, rows)


def _command(result: dict[str, Any]) -> str:
    settings = result["settings"]
    how = "greedy, English" if settings["greedy"] else "beams of five, the language detected, temperature fallback"
    rows = [
        (row["name"], f"{row['median_s'] * 1000:.0f} ms", f"{row['peak_memory_mb']:.0f} MB")
        for row in result["engines"]
    ]
    note = f"`stapes {settings['recording']}` ({how}), {settings['threads']} threads, median of {settings['rounds']}."
    return section("The command as a whole process", result, note, ("engine", "time", "peak memory"), rows)


def _error_rates(result: dict[str, Any]) -> str:
    rows = []
    for row in result["engines"]:
        counts = [
            f"{counted['errors']} of {counted['words']} ({counted['errors'] / max(1, counted['words']):.2%})"
            for counted in row["word_errors"].values()
        ]
        unchanged = row["unchanged"]
        votes = f"{unchanged['share']:.1%} of {unchanged['distinct_references']}"
        by_recording = f"{unchanged['recordings_unchanged']} of {unchanged['recordings']}"
        rows.append([row["name"], *counts, votes, by_recording])
    groups = [f"word errors, {name}" for name in result["engines"][0]["word_errors"]]
    head = ("engine", *groups, "the reference's text, by distinct reference", "by recording")
    note = f"Normaliser: {result['settings']['normaliser']}." + (
        "" if result["settings"]["whole_corpus"] else " Only a part of the corpus."
    )
    return section("Errors over the corpus", result, note, head, rows)


def _startup(result: dict[str, Any]) -> str:
    names = {"nothing": "nothing", "all of stapes": "`from stapes import *`"}
    rows = [
        (names.get(name, f"`import {name}`"), f"{value * 1000:.0f} ms") for name, value in result["medians_s"].items()
    ]
    return section("Start", result, "A whole Python process each.", ("what", "median"), rows)


#: kind of result -> what writes it, in the order of RUNS.md
_WRITERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "engines": _engines,
    "steps": _steps,
    "command": _command,
    "error_rates": _error_rates,
    "throughput": throughput_page.throughput,
    "fairness": throughput_page.fairness,
    "lookahead": throughput_page.lookahead,
    "memory": throughput_page.memory,
    "startup": _startup,
}


if __name__ == "__main__":
    sys.exit(main())
