"""Warnings name the line of the program that called stapes, whichever way it did."""

from __future__ import annotations

import ast
import asyncio
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stapes
from stapes.backends import select
from stapes.report import write_report
from stapes.runtime.warn import warn
from stapes.testing import scripted_engine
from stapes.vad import open as vad_open
from tests.audio_files import wav_bytes

SOURCE = Path(stapes.__file__).parent


def cut_short() -> bytes:
    """Make a wav with half of the samples that its header counts."""
    return wav_bytes(np.zeros(16_000, np.int16))[: 44 + 16_000]


@contextmanager
def recorded() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def own_line(text: str) -> int:
    """Return the number of the line of this file that ends with a text."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    (number,) = (number for number, line in enumerate(lines, 1) if line.endswith(text))
    return number


CALLS: dict[str, Callable[[stapes.Engine, Path], Any]] = {
    "transcribe": lambda engine, _: engine.transcribe(cut_short()),
    "stream": lambda engine, _: list(engine.stream(cut_short())),
    "submit": lambda engine, _: engine.submit(cut_short()).result(),
    "align": lambda engine, _: engine.align(cut_short(), "Hello.", language="en"),
    "detect_language": lambda engine, _: engine.detect_language(cut_short()),
    "find_speech": lambda _, __: stapes.find_speech(cut_short()),
    "write_report": lambda engine, folder: write_report(
        scripted_engine().transcribe(stapes.testing.tone(1.0)), cut_short(), folder / "page.html"
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_damaged_file_is_warned_of_at_the_caller(name: str, tmp_path: Path) -> None:
    engine = scripted_engine()
    with recorded() as caught:
        CALLS[name](engine, tmp_path)
    assert caught
    assert {(one.filename, one.category) for one in caught} == {(__file__, stapes.StapesWarning)}


def test_asyncio_has_the_line_that_awaits() -> None:
    engine = scripted_engine()

    async def main() -> None:
        await engine.atranscribe(cut_short())  # line that awaits
        async for _ in engine.astream(cut_short()):  # line that iterates
            pass
        await asyncio.gather(engine.atranscribe(cut_short()))  # a task has no caller

    with recorded() as caught:
        asyncio.run(main())  # line that runs the loop
    assert [one.filename for one in caught] == [__file__] * 3
    texts = ("# line that awaits", "# line that iterates", "# line that runs the loop")
    assert [one.lineno for one in caught] == [own_line(text) for text in texts]


def test_loading_warns_at_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "is_built", lambda: False)
    monkeypatch.setattr(select, "library_problem", lambda: "not built")
    monkeypatch.setattr(vad_open, "has_speech_weights", lambda: False)
    checkpoint = stapes.testing.random_checkpoint()
    with recorded() as caught:
        select.open_backend(checkpoint, name="auto", precision="auto", threads=1)
        vad_open.vad_models("auto")
    assert [one.filename for one in caught] == [__file__] * 2


def test_a_warning_is_shown_once_for_a_line_and_can_be_an_error() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            warn("odd")
        warn("odd")
    assert len(caught) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(stapes.StapesWarning, match="odd"):
            warn("odd")


def test_every_warning_of_the_package_goes_through_one_function() -> None:
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("warnings.warn", "warnings.warn_explicit")
    }
    assert found == {"runtime/warn.py"}
