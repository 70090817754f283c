"""The tools that compare two trees: equal where nothing changed, different where a decision did."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from stapes.recording.loop import SeekLoop

TOOLS = Path(__file__).parents[2] / "tools"


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


replay, count_lines, same_code = tool("replay"), tool("count_lines"), tool("same_code")


def test_scripts_repeat_and_resume_at_any_step_alike() -> None:
    lines = [replay.run_script(number) for number in range(40)]
    assert not [line for line in lines if "OTHERWISE" in line]
    assert lines == [replay.run_script(number) for number in range(40)]
    assert len({line.split()[1] for line in lines}) > 30


def test_a_changed_decision_changes_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [replay.run_script(number) for number in range(20)]
    move_on = SeekLoop._move_on

    def one_frame_further(self, asked, result, next_seek, *, segments):
        return move_on(self, asked, result, next_seek + 1, segments=segments)

    monkeypatch.setattr(SeekLoop, "_move_on", one_frame_further)
    assert sum(one != other for one, other in zip(before, map(replay.run_script, range(20)), strict=True)) > 10


def test_outputs_are_compared_case_by_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("0 aa\n1 bb\n")
    for text, status in (("0 aa\n1 bb\n", 0), ("0 aa\n1 cc\n", 1), ("0 aa\n", 1), ("", 1)):
        new.write_text(text)
        assert replay.compare(old, new) == status
    capsys.readouterr()


def test_lines_are_counted_by_kind() -> None:
    parts = ['"""A file.\n\nTwo."""\n\n', "import os\nfrom a import (\n    b,\n)\n\n", "# why\nx = 1  # here\n\n\n"]
    text = "".join([*parts, 'def f():\n    """One."""\n    return """a\nb"""\n'])
    assert count_lines.count(text) == {"docstrings": 4, "blank": 4, "imports": 4, "comments": 1, "code": 4}


def trees(old: str, new: str, names: dict[str, str]) -> bool:
    def codes(text: str, table: dict[str, str]) -> set[str]:
        return {code for code, _ in same_code.statements(text, "f.py", same_code._Plain(table, keep_strings=False))}

    return bool(codes(old, names) == codes(new, {}))


OLD = """
import a

class Old:
    'Old.'
    def note(self, x):
        return self.source + f"no {x}"

def g(): pass
"""
NEW = """
from b import c

def g(): pass

class Guards:
    'New.'
    def take(self, x):
        return self.vad + f"an {x}"
"""


def test_words_moves_and_listed_names_change_no_code() -> None:
    assert trees(OLD, NEW, {"Old": "Guards", "note": "take", "source": "vad"})
    assert not trees(OLD, NEW, {"Old": "Guards", "note": "take"})
    assert not trees(OLD, NEW.replace("{x}", "{x + 1}"), {"Old": "Guards", "note": "take", "source": "vad"})
