"""What every test of the command line needs."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from stapes.cli import main as command
from tests.cli.scripted_engine import ScriptedEngine


@pytest.fixture(autouse=True)
def ctrl_c_interrupts() -> Iterator[None]:
    """Turn Ctrl-C on: a shell starts background jobs with Ctrl-C ignored, and their children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[ScriptedEngine]:
    """Return the engines that the command loads, one for each run."""
    made: list[ScriptedEngine] = []

    def load(_: object) -> ScriptedEngine:
        made.append(ScriptedEngine())
        return made[-1]

    monkeypatch.setattr(command, "load_engine", load)
    return made
