"""Draw the chart of engines as SVG, light and dark, and write the README's block around it.

python -m benchmarks.chart [--check]      (--check: exit 1 if a file is not up to date)

The figures are those of the newest run of the whole benchmark list that has every engine of ENGINES.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.page import kind_of, prose, write_pages
from benchmarks.results import read_results

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
README = ROOT / "README.md"
MARKS = ("<!-- chart: made by `make chart`, do not edit -->", "<!-- /chart -->")
#: what a run must have measured to be drawn
ENGINES = (
    "stapes",
    "stapes@float32",
    "faster-whisper@int8",
    "faster-whisper@float32",
    "whisper.cpp@q8_0",
    "openai-whisper@float32",
)
EXACT, REFERENCE = "stapes@float32", "openai-whisper@float32"


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of one chart: texts have a contrast of 4.5 or more with the background, bars 3 or more."""

    background: str
    text: str
    muted: str
    ours: str  # bars of stapes
    others: str


THEMES: Mapping[str, Theme] = {
    "light": Theme("#ffffff", "#1f2328", "#59636e", "#0969da", "#818b98"),
    "dark": Theme("#0d1117", "#f0f6fc", "#9198a1", "#4493f7", "#6e7681"),
}

# Units of the viewBox. At 360 px, the narrowest screen, the smallest text (13 units) has more than 10 px.
_WIDTH, _MARGIN, _TOP, _ROW, _BAR = 440, 16, 76, 44, 14
_LONGEST_BAR = 290
_SHOWN_WIDTH = 620  # px, where there is room
_FONT = "-apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"


def main() -> int:
    """Write the charts and the README's block, or compare them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chart", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 if a file is not up to date")
    return write_pages(files(read_results()), check=parser.parse_args().check, command="make chart")


def files(results: Sequence[dict[str, Any]]) -> dict[Path, str]:
    """Return what each file has to hold."""
    result = newest(results)
    charts = {IMAGES / f"engines-{name}.svg": svg(result, theme) for name, theme in THEMES.items()}
    return charts | {README: with_block(README.read_text(encoding="utf-8"), result)}


def newest(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the newest run of the whole list that has all of ENGINES. Raises ValueError if there is none."""
    whole = [
        result
        for result in results
        if result["kind"] == "engines"
        and result["settings"].get("list")
        and {engine["name"] for engine in result["engines"] if not engine["failed"]} >= set(ENGINES)
    ]
    if not whole:
        raise ValueError(f"no run of the whole list has all of: {', '.join(ENGINES)}")
    return max(whole, key=lambda result: str(result["machine"]["date"]))


def rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the engines of ENGINES, fastest first."""
    chosen = [engine for engine in result["engines"] if engine["name"] in ENGINES]
    return sorted(chosen, key=lambda engine: -float(engine["times_real_time"]))


def label(engine: dict[str, Any]) -> str:
    """Return an engine's name for readers: "stapes int8 (its default)"."""
    name, _, precision = engine["name"].partition("@")
    if not precision:
        return f"{name} {engine['facts']['precision']} (its default)"
    return f"{name} {precision}" + (" (exact)" if engine["name"] == EXACT else "")


def svg(result: dict[str, Any], theme: Theme) -> str:
    """Return the chart: a bar of times real time for each engine, its word errors beside."""
    engines = rows(result)
    longest = float(engines[0]["times_real_time"])
    end = _TOP + _ROW * len(engines)
    height = end + 62
    right = _WIDTH - _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_SHOWN_WIDTH}" '
        f'height="{_SHOWN_WIDTH * height // _WIDTH}" role="img" aria-labelledby="title" font-family="{_FONT}">',
        f'<title id="title">{escape(alternative_text(result))}</title>',
        f'<rect width="{_WIDTH}" height="{height}" rx="8" fill="{theme.background}"/>',
        _text(_MARGIN, 30, "Whisper base on two cores", theme.text, size=17, bold=True),
        _text(_MARGIN, 54, "times real time, longer is faster", theme.muted),
        _text(right, 54, "word errors", theme.muted, at_end=True),
    ]
    for number, engine in enumerate(engines):
        top = _TOP + _ROW * number
        ours = engine["name"].startswith("stapes")
        length = round(_LONGEST_BAR * float(engine["times_real_time"]) / longest)
        bar, base = theme.ours if ours else theme.others, top + 20 + _BAR - 2
        parts += [
            _text(_MARGIN, top + 13, label(engine), theme.text, size=14, bold=ours),
            f'<rect x="{_MARGIN}" y="{top + 20}" width="{length}" height="{_BAR}" rx="2" fill="{bar}"/>',
            _text(_MARGIN + length + 6, base, f"{engine['times_real_time']:.1f}", theme.text, size=14, bold=ours),
            _text(right, base, f"{engine['word_error_rate']:.1%}", theme.text, size=14, at_end=True),
        ]
    parts += [_text(_MARGIN, end + 22 + 20 * line, text, theme.muted) for line, text in enumerate(_footer(result))]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: int, y: int, text: str, fill: str, *, size: int = 13, bold: bool = False, at_end: bool = False) -> str:
    style = (' font-weight="600"' if bold else "") + (' text-anchor="end"' if at_end else "")
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}"{style}>{escape(text)}</text>'


def _footer(result: dict[str, Any]) -> tuple[str, str]:
    machine, recordings = result["machine"], result["recordings"]
    return (
        f"{recordings['count']} recordings, {recordings['seconds']:.0f} s, {words(result):,} words; greedy",
        f"{machine['processor']} ({kind_of(machine)}), {machine['date']}",
    )


def words(result: dict[str, Any]) -> int:
    """Return how many words the references of a run have."""
    return sum(int(row["words"] or 0) for row in result["engines"][0]["files"])


def alternative_text(result: dict[str, Any]) -> str:
    """Return the chart as a sentence, for those who do not see it."""
    figures = (
        f"{label(engine)} {engine['times_real_time']:.1f} ({engine['word_error_rate']:.1%})" for engine in rows(result)
    )
    return f"Times real time (and word errors) of Whisper base on one processor: {', '.join(figures)}."


def picture(result: dict[str, Any], folder: str) -> str:
    """Return the HTML that shows the light or the dark chart. folder: of the images, as the page's links have it."""
    alternative = prose(f'    alt="{escape(alternative_text(result))}">', indent="    ")
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="{folder}/engines-dark.svg">\n'
        f'  <img src="{folder}/engines-light.svg" width="{_SHOWN_WIDTH}"\n'
        f"{alternative}\n"
        "</picture>\n"
    )


def claim(result: dict[str, Any]) -> str:
    """Return the one claim that the chart shows. Raises ValueError where the run does not show it."""
    found = {engine["name"]: engine for engine in result["engines"]}
    count = result["recordings"]["count"]
    if found[EXACT]["same_text_as_openai_whisper"] != count:
        raise ValueError(f"{EXACT} gave other texts than {REFERENCE}: nothing can be claimed of it")
    faster = found[REFERENCE]["seconds"] / found[EXACT]["seconds"]
    return f"**The transcript of openai-whisper in `float32`, {faster:.1f} times as fast on the same processor.**\n"


def caption(result: dict[str, Any]) -> str:
    """Return what a reader has to know beside the chart."""
    found = {engine["name"]: engine for engine in result["engines"]}
    default, count = found["stapes"], result["recordings"]["count"]
    errors = [int(engine["word_errors"]) for engine in rows(result)]
    faster = found[REFERENCE]["seconds"] / default["seconds"]
    text = (
        f"In `float32` all {count} texts are those of openai-whisper. The default on this processor, "
        f"`{default['facts']['precision']}`, is {faster:.1f} times as fast as openai-whisper; its text is the same for "
        f"{default['same_text_as_openai_whisper']} of {count} recordings. Of {words(result):,} words {min(errors)} to "
        f"{max(errors)} are wrong: the differences are too small to rank the engines by."
    )
    return prose(text) + "\n"


def with_block(text: str, result: dict[str, Any]) -> str:
    """Return the README with a new block. Raises ValueError where its marks are missing."""
    before, first, rest = text.partition(MARKS[0])
    _, second, after = rest.partition(MARKS[1])
    if not (first and second):
        raise ValueError(f"README.md has no block between {MARKS[0]} and {MARKS[1]}")
    block = "\n".join(
        [
            claim(result),
            picture(result, "docs/images"),
            caption(result)
            + "Other processors, memory and how it was measured: [docs/benchmarks.md](docs/benchmarks.md).\n",
        ]
    )
    return f"{before}{MARKS[0]}\n\n{block}\n{MARKS[1]}{after}"


if __name__ == "__main__":
    sys.exit(main())
