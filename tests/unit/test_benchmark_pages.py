"""The chart and the pages of figures: up to date, readable, and in line with the measurements."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import chart, report
from benchmarks.page import WIDTH, kind_of, prose, write_pages
from benchmarks.results import RESULTS, read_results
from benchmarks.targets import TARGETS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ALL_RESULTS = read_results()
CHARTED = chart.newest(ALL_RESULTS)
SVG = "{http://www.w3.org/2000/svg}"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in report.pages(ALL_RESULTS)}

each_theme = pytest.mark.parametrize("theme", chart.THEMES.values(), ids=chart.THEMES)


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Return the charted run with a change."""
    result = copy.deepcopy(CHARTED)
    change(result)
    return result


def luminance(colour: str) -> float:
    """Relative luminance. Source: https://www.w3.org/TR/WCAG21/#dfn-relative-luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("path", [*chart.files(ALL_RESULTS), *report.pages(ALL_RESULTS)], ids=lambda path: path.name)
def test_committed_files_are_what_the_commands_make(path: Path) -> None:
    made = {**chart.files(ALL_RESULTS), **report.pages(ALL_RESULTS)}
    assert path.read_text(encoding="utf-8") == made[path], "run `make chart`"


def test_files_do_not_depend_on_the_order_of_results() -> None:
    backwards = list(reversed(ALL_RESULTS))
    assert chart.files(backwards) == chart.files(ALL_RESULTS)


def test_the_chart_shows_every_engine_with_its_speed_and_word_errors() -> None:
    stored = json.loads((RESULTS / "engines-base-2026-11-26.json").read_text(encoding="utf-8"))
    assert stored["machine"]["date"] <= CHARTED["machine"]["date"]
    for theme in chart.THEMES.values():
        texts = [text.text or "" for text in ElementTree.fromstring(chart.svg(CHARTED, theme)).iter(f"{SVG}text")]
        for engine in CHARTED["engines"]:
            place = texts.index(chart.label(engine))
            assert texts[place + 1] == f"{engine['times_real_time']:.1f}"
            assert texts[place + 2] == f"{engine['word_error_rate']:.1%}"
        assert any(CHARTED["machine"]["processor"] in text and CHARTED["machine"]["date"] in text for text in texts)


def test_bars_are_as_long_as_engines_are_fast() -> None:
    root = ElementTree.fromstring(chart.svg(CHARTED, chart.THEMES["light"]))
    lengths = [int(bar.attrib["width"]) for bar in root.iter(f"{SVG}rect")][1:]
    speeds = [engine["times_real_time"] for engine in chart.rows(CHARTED)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths == pytest.approx([speed / speeds[0] * lengths[0] for speed in speeds], abs=0.51)


@each_theme
def test_the_chart_is_readable_on_a_narrow_screen_and_in_its_colours(theme: chart.Theme) -> None:
    root = ElementTree.fromstring(chart.svg(CHARTED, theme))
    width, height = (float(value) for value in root.attrib["viewBox"].split()[2:])
    for text in root.iter(f"{SVG}text"):
        size, x = float(text.attrib["font-size"]), float(text.attrib["x"])
        room = x if text.get("text-anchor") == "end" else width - x
        assert size * 360 / width >= 10
        assert len(text.text or "") * size * 0.56 <= room, text.text  # 0.56 em: a wide letter of a usual font
        assert 0 < float(text.attrib["y"]) < height
        assert contrast(text.attrib["fill"], theme.background) >= 4.5
    for bar in (theme.ours, theme.others):
        assert contrast(bar, theme.background) >= 3
    assert {text.attrib["fill"] for text in root.iter(f"{SVG}text")} == {theme.text, theme.muted}


def test_the_longest_bar_and_its_figure_leave_room_for_the_word_errors() -> None:
    def much_faster(result: dict[str, Any]) -> None:
        result["engines"][0].update(times_real_time=1234.5, word_error_rate=0.9999)

    root = ElementTree.fromstring(chart.svg(changed(much_faster), chart.THEMES["light"]))
    (figure,) = (text for text in root.iter(f"{SVG}text") if text.text == "1234.5")
    (errors,) = (text for text in root.iter(f"{SVG}text") if text.text == "100.0%")
    assert float(figure.attrib["x"]) + 6 * 14 * 0.6 < float(errors.attrib["x"]) - 6 * 14 * 0.6


def test_names_from_a_result_cannot_break_the_chart_or_the_pages() -> None:
    def odd(result: dict[str, Any]) -> None:
        result["machine"]["processor"] = '<Chip & "Co">'
        result["engines"][0]["facts"]["precision"] = "<b>"

    result = changed(odd)
    root = ElementTree.fromstring(chart.svg(result, chart.THEMES["dark"]))
    assert any('<Chip & "Co">' in (text.text or "") for text in root.iter(f"{SVG}text"))
    assert "<b>" not in chart.picture(result, "images")


def test_the_newest_whole_run_with_every_engine_is_drawn() -> None:
    newer = changed(lambda result: result["machine"].update(date="2099-01-01"))
    partial = changed(lambda result: (result["machine"].update(date="2099-01-02"), result["engines"].pop()))
    failed = changed(
        lambda result: (result["machine"].update(date="2099-01-03"), result["engines"][1].update(failed=1))
    )
    other = changed(lambda result: (result["machine"].update(date="2099-01-04"), result["settings"].update(list=False)))
    assert chart.newest([newer, *ALL_RESULTS, partial, failed, other]) is newer
    with pytest.raises(ValueError, match="no run of the whole list"):
        chart.newest([partial, failed, other])


def test_the_claim_is_what_the_run_shows() -> None:
    found = {engine["name"]: engine for engine in CHARTED["engines"]}
    faster = found["openai-whisper@float32"]["seconds"] / found["stapes@float32"]["seconds"]
    assert f"{faster:.1f} times as fast" in chart.claim(CHARTED)
    assert found["stapes@float32"]["same_text_as_openai_whisper"] == CHARTED["recordings"]["count"]
    assert chart.claim(CHARTED) in README
    assert README.count("times as fast") == 2  # the claim, and the chart's caption


def test_no_claim_is_made_of_a_run_with_other_texts() -> None:
    def one_differs(result: dict[str, Any]) -> None:
        result["engines"][1]["same_text_as_openai_whisper"] -= 1

    assert CHARTED["engines"][1]["name"] == "stapes@float32"
    with pytest.raises(ValueError, match="other texts"):
        chart.claim(changed(one_differs))


def test_the_readme_outside_of_the_block_stays_and_a_missing_block_is_named() -> None:
    first, second = chart.MARKS
    made = chart.with_block(f"before\n{first}\nold\n{second}\nafter\n", CHARTED)
    assert made.startswith(f"before\n{first}\n")
    assert made.endswith(f"{second}\nafter\n")
    assert "old" not in made
    assert chart.with_block(made, CHARTED) == made
    for text in ("no marks", f"{second}\n{first}", first):
        with pytest.raises(ValueError, match="no block"):
            chart.with_block(text, CHARTED)


def test_the_benchmark_page_opens_with_the_chart_and_one_table_of_engines() -> None:
    page = PAGES["benchmarks.md"]
    picture, engines, precisions = (page.index(text) for text in ("<picture>", "| engine |", "## Precisions"))
    assert picture < engines < precisions
    assert len(re.findall(r"^\| --- \|", page[:precisions], re.MULTILINE)) == 1
    for engine in CHARTED["engines"]:
        assert f"| {chart.label(engine)} | {engine['times_real_time']:.1f} |" in page[:precisions]
    for name in ("TARGETS.md", "RUNS.md"):
        assert f"](../benchmarks/{name})" in page


def test_every_target_and_every_run_has_its_page() -> None:
    for target in TARGETS:
        assert f"| {target.what} |" in PAGES["TARGETS.md"]
        assert target.what not in PAGES["benchmarks.md"]
    runs = PAGES["RUNS.md"]
    shown = [result for result in ALL_RESULTS if result["kind"] in report._WRITERS]
    assert len(re.findall(r"^## ", runs, re.MULTILINE)) == len(shown) >= 20


@pytest.mark.parametrize("name", ["README.md", *PAGES])
def test_prose_has_120_columns_at_most(name: str) -> None:
    text = README if name == "README.md" else PAGES[name]
    prose_lines = [line for line in text.splitlines() if not line.startswith("|")]
    assert len(prose_lines) >= 10
    assert not [line for line in prose_lines if len(line) > WIDTH]


def test_prose_wraps_between_words_only() -> None:
    text = "word-with-hyphens " * 20 + "x" * 200
    lines = prose(text, indent="  ").splitlines()
    assert " ".join(" ".join(lines).split()) == text
    assert all(len(line) <= WIDTH for line in lines[:-1])


def test_checking_names_a_file_that_is_not_up_to_date_and_leaves_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale, missing = tmp_path / "stale.svg", tmp_path / "folder" / "missing.svg"
    stale.write_text("old", encoding="utf-8")
    pages = {stale: "new", missing: "new"}
    assert write_pages(pages, check=True, command="make chart") == 1
    assert capsys.readouterr().err.splitlines() == [
        "stale.svg is not up to date: run make chart",
        "missing.svg is not up to date: run make chart",
    ]
    assert (stale.read_text(encoding="utf-8"), missing.exists()) == ("old", False)
    assert write_pages(pages, check=False, command="make chart") == 0
    assert write_pages(pages, check=True, command="make chart") == 0
    assert missing.read_text(encoding="utf-8") == "new"


def test_a_machine_is_named_by_its_widest_instructions() -> None:
    assert kind_of({"extensions": ["avx2", "avx512_vnni", "amx_int8"]}) == "AMX"
    assert kind_of({"extensions": ["avx2", "avx512_vnni"]}) == "AVX-512"
    assert kind_of({"extensions": ["avx2", "fma"]}) == "AVX2"
    assert kind_of({"extensions": []}) == "other"
