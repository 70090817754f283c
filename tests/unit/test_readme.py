"""The README's examples work as they stand, and its first commands exist."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from stapes.backends.native.library import is_built
from stapes.cli.flags import parse
from stapes.errors import StapesWarning
from stapes.testing import scripted_engine
from tests.native_library import ON_NUMPY

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAID = "smallest bone in the human body"


def blocks(language: str, text: str = README) -> Iterator[str]:
    """Give the fenced blocks of one language ("": those that name none)."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if match.group(1) == language:
            yield match.group(2)


def command_lines() -> list[str]:
    lines = [line.partition("#")[0].strip() for block in blocks("") for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_two_commands_stand_at_the_top_and_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert [line.split() for line in command_lines()[:2]] == [["make", "run"], ["make", "test"]]
    assert {"run", "test"} <= set(targets)


def test_every_make_target_that_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets


def test_the_command_takes_every_line_that_the_readme_shows() -> None:
    lines = [line.split()[1:] for line in command_lines() if line.startswith("stapes ")]
    assert len(lines) >= 3
    for words in lines:
        if words[0] != "models":
            parse(words)


def test_every_page_that_the_readme_links_to_is_there() -> None:
    pages = re.findall(r"\]\(([^)#:]+)\)", README)
    assert not [page for page in pages if not (ROOT / page).is_file()]


@pytest.mark.weights
def test_the_python_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("talk.mp3", "meeting.m4a"):
        shutil.copy(ROOT / "samples" / "stapes.flac", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    one_by_one, heading, at_once = README.partition("### Many at once")
    assert heading
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        warnings.filterwarnings("always", message=ON_NUMPY, category=StapesWarning)
        for block in blocks("python", one_by_one):
            exec(compile(block, "README.md", "exec"), names)
        names["engine"] = scripted_engine(f" The stapes is the {SAID}.")  # company needs no weights to be proved
        for block in blocks("python", at_once):
            exec(compile(block, "README.md", "exec"), names)
    assert bool(caught) == (not is_built())
    printed = capsys.readouterr().out
    assert printed.count(SAID) == 5  # transcribed, streamed, two jobs, and streamed once more
    assert re.search(r"^en 0\.9\d$|^en 1\.0$", printed, re.MULTILINE)
