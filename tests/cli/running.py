"""Runs the command in this process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stapes.cli import main as command

Run = Callable[..., tuple[int, list[str], list[str]]]


def runner(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs the command: exit code, lines of standard output, lines of standard error."""

    def run_words(*words: str) -> tuple[int, list[str], list[str]]:
        code = command.main(words)
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run_words
