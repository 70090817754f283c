"""The pages that lead through the code name files and places that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "stapes"
PAGES = ("architecture.md", "guards.md")
#: `decoding/window.py: WindowDecoder.accept`, or the file alone
_PLACE = re.compile(r"`([\w/.-]+\.py)(?:: ([\w.]+))?`")
_DOTTED = re.compile(r"`(stapes(?:\.\w+)+)`")
_FOLDER = re.compile(r"`([\w/.-]+/)`")
_LINK = re.compile(r"""\]\(([^)\s]+)\)|(?:src|srcset|href)="([^"]+)\"""")
_TEXTS = (".py", ".cpp", ".h", ".md", ".json", ".txt", ".toml")
ALL_PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(one for folder in ("docs", "benchmarks", "samples") for one in (ROOT / folder).rglob("*.md")),
    ]
)


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def file_of(name: str) -> Path | None:
    """Find a file or a folder as the pages name it: in the package, or in the repository."""
    return next((path for path in (SOURCE / name, ROOT / name) if path.exists()), None)


@cache
def names_in(path: Path) -> frozenset[str]:
    """Give what a file defines: functions, classes and values, and "Class.name" for methods and attributes."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        found.update(_defined(node))
        if isinstance(node, ast.ClassDef):
            found.update(f"{node.name}.{name}" for inner in node.body for name in _defined(inner))
    return frozenset(found)


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [one.id for one in targets if isinstance(one, ast.Name)]


def anchors(path: Path) -> set[str]:
    """Give the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(text: str, path: Path) -> list[str]:
    """Give the links of a page, outside of code, that lead to no file or no heading of the repository."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in ("".join(groups) for groups in _LINK.findall(text)):
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        if "://" not in link and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(link)
    return broken


def is_place(name: str, inside: str | None) -> bool:
    path = file_of(name)
    return path is not None and (inside is None or inside in names_in(path))


@pytest.mark.parametrize("name", PAGES)
def test_every_place_that_a_page_names_is_there(name: str) -> None:
    places = _PLACE.findall(page(name))
    assert len(places) >= 5
    missing = [f"{file}: {inside}" for file, inside in places if not is_place(file, inside or None)]
    assert not missing, missing


@pytest.mark.parametrize("name", PAGES)
def test_every_folder_and_every_dotted_name_that_a_page_names_is_there(name: str) -> None:
    text = page(name)
    assert not [one for one in _FOLDER.findall(text) if file_of(one) is None]
    for one in _DOTTED.findall(text):
        module, _, last = one.rpartition(".")
        try:
            import_module(one)
        except ModuleNotFoundError:
            assert hasattr(import_module(module), last), one


def test_every_file_on_the_map_is_in_its_folder() -> None:
    (plan,) = re.findall(r"^src/stapes/\n(.*?)^```", page("architecture.md"), re.MULTILINE | re.DOTALL)
    folder, found = SOURCE, set()
    for line in plan.splitlines():
        for one in re.findall(r"(?<![\w/])([\w/]+\.(?:py|md)|\w+/)", line):
            if one.endswith("/") and line.startswith(f"  {one}"):
                folder = SOURCE / one
            assert (folder / one).exists() or file_of(one) is not None, f"{folder.name}: {one}"
            found.add(one)
    assert {"engine/", "loop.py", "docs/guards.md"} <= found
    shown = {path.name + "/" for path in SOURCE.iterdir() if path.is_dir() and path.name[0] not in "_."}
    assert shown <= found, f"not on the map: {sorted(shown - found)}"


def test_no_page_names_a_file_that_has_moved() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    folders = "|".join(path.name for path in SOURCE.iterdir() if path.is_dir() and path.name[0] not in "_.")
    pattern = re.compile(rf"(?<![\w/.-])(?:src/stapes/)?((?:{folders})/[\w/]+\.py)")
    found = [(path.name, name) for path in pages for name in pattern.findall(path.read_text(encoding="utf-8"))]
    assert len(found) >= 50
    assert not [one for one in found if not is_place(one[1], None)]


@pytest.mark.parametrize("path", ALL_PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_between_pages_leads_somewhere(path: Path) -> None:
    assert not broken_links(path.read_text(encoding="utf-8"), path)


def test_a_broken_link_is_found() -> None:
    here = ROOT / "docs" / "native.md"
    broken = ("[a](experiments.md)", "[a](../README.md#no-such-heading)", "[a](#nowhere)", '<img src="no.svg">')
    assert [broken_links(one, here) for one in broken] == [
        ["experiments.md"],
        ["../README.md#no-such-heading"],
        ["#nowhere"],
        ["no.svg"],
    ]
    good = (
        "[a](../README.md#limits), [b](guards.md), [c](https://example.org/no.md), `[d](no.md)`\n```\n[e](no.md)\n```\n"
    )
    assert not broken_links(good, here)


def test_every_page_that_code_and_results_name_is_there() -> None:
    folders = ("src", "native", "benchmarks", "tools", "docs", "tests", ".ci")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in _TEXTS]
    named = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in [*files, ROOT / "Makefile", *ROOT.glob("*.md"), ROOT / "pyproject.toml"]
        for name in re.findall(r"(?<![\w/])docs/[\w/.-]*\w\.(?:md|svg)\b", path.read_text(encoding="utf-8"))
    }
    assert len(named) >= 50
    assert not sorted(one for one in named if not (ROOT / one[1]).is_file())


def test_the_index_of_experiments_has_every_entry_newest_first_with_its_question_and_an_answer() -> None:
    rows = re.findall(r"^\| ([\d-]+) \| \[(.+)\]\((\S+\.md)\) \| (.+) \|$", page("experiments/README.md"), re.MULTILINE)
    entries = {path.name for path in (ROOT / "docs" / "experiments").glob("*.md")} - {"README.md"}
    assert len(rows) == len(entries) >= 36
    assert {name for _, _, name, _ in rows} == entries
    assert [date for date, *_ in rows] == sorted((date for date, *_ in rows), reverse=True)
    for date, question, name, answer in rows:
        assert name.startswith(f"{date}-")
        text = page(f"experiments/{name}")
        assert text.startswith(f"# {date}: {question}\n\n**Asked.**"), name
        assert "**Found.**" in text
        assert answer[0].isupper() or not answer[0].isalpha()
        assert answer.endswith(".")
        assert len(answer) <= 130, answer


def test_a_name_that_is_not_there_is_found_out() -> None:
    assert is_place("decoding/window.py", "WindowDecoder.accept")
    assert is_place("tests/unit/test_docs.py", None)
    assert not is_place("decoding/window.py", "WindowDecoder.hear")
    assert not is_place("decoding/windows.py", None)
