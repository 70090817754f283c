"""Make docs/benchmarks.md of the JSON files in benchmarks/results.

python -m benchmarks.report [--check]      (--check: exit 1 if the page is not up to date)
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.results import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"

HEAD = """# Benchmarks

<!-- Made by `python -m benchmarks.report` from benchmarks/results/*.json: change those, not this page. -->

How to repeat a measurement (an engine that is not installed is left out):

```
python -m benchmarks --engines stapes,openai-whisper,faster-whisper --model base --repeat 3 \\
    --python openai-whisper=.venv-reference/bin/python FILES...
python -m benchmarks.memory
python -m benchmarks.startup
python -m benchmarks.report
```

Each engine runs in a process of its own, with its own interpreter, and stays loaded. All get the same files
in turn, file by file, so that a machine which slows down slows all of them; of several runs the median
counts. A time covers reading and decoding the file as well. Everything is decoded alike: greedily at
temperature 0, without beams, with the previous text as prompt and with timestamps. Memory is the peak of
the engine's process, loading included; "load" is importing and loading. Absolute times differ between
machines and hours: compare within one table only.
"""


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 if the page is not up to date")
    arguments = parser.parse_args()
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    page = render(results)
    if arguments.check:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page
        sys.stderr.write("" if same else f"{PAGE.name} is not up to date: run python -m benchmarks.report\n")
        return 0 if same else 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


def render(results: list[dict[str, Any]]) -> str:
    """Give the whole page, newest result first."""
    newest_first = sorted(results, key=lambda result: str(result["machine"]["date"]), reverse=True)
    parts = [HEAD]
    for kind, write in (("engines", _engines), ("memory", _memory), ("startup", _startup)):
        parts += [write(result) for result in newest_first if result["kind"] == kind]
    if len(parts) == 1:
        parts.append("Nothing has been measured yet.\n")
    return "\n".join(parts)


def _machine(machine: dict[str, Any]) -> str:
    extensions = ", ".join(machine["extensions"]) or "no vector extensions known"
    return (
        f"{machine['processor']} ({machine['architecture']}; {extensions}), {machine['cores']} cores, "
        f"{machine['memory_gb']:.0f} GB, {machine['system']}, Python {machine['python']}."
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _engines(result: dict[str, Any]) -> str:
    settings, recordings = result["settings"], result["recordings"]
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
    words = f" Normaliser: {settings['normaliser']}." if settings["normaliser"] else ""
    return (
        f"## Engines, model {settings['model']}, {result['machine']['date']}\n\n"
        f"{_machine(result['machine'])} {settings['threads']} threads, {recordings['count']} recordings, "
        f"{recordings['seconds']:.0f} s together, median of {settings['repeat']}.{words}\n\n"
        f"{_table(head.split('|'), rows)}"
    )


def _memory(result: dict[str, Any]) -> str:
    rows = [(f"{minutes} min", f"{peak:.0f} MB") for minutes, peak in result["peaks_mb"].items()]
    peaks = list(result["peaks_mb"].values())
    return (
        f"## Memory and the length of a recording, {result['machine']['date']}\n\n"
        f"{_machine(result['machine'])} A scripted network, so that only the engine's own buffers count. "
        f"Difference {peaks[-1] - peaks[0]:.1f} MB, limit {result['limit_mb']:.0f} MB.\n\n"
        f"{_table(('recording', 'peak memory'), rows)}"
    )


def _startup(result: dict[str, Any]) -> str:
    rows = [(f"`import {name}`", f"{value * 1000:.0f} ms") for name, value in result["medians_s"].items()]
    return (
        f"## Start, {result['machine']['date']}\n\n"
        f"{_machine(result['machine'])} A whole Python process each.\n\n"
        f"{_table(('what', 'median'), rows).replace('`import nothing`', 'nothing')}"
    )


if __name__ == "__main__":
    sys.exit(main())
