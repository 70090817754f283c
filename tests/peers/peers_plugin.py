"""A plugin of pytest for the originals' own tests: maps names of models, and writes down how each test ended.

Loaded with `-p peers_plugin` into the process that runs them, where it imports nothing of stapes.
STAPES_PEERS_MODELS: JSON, name of a model -> what is loaded in its place, for faster-whisper.
STAPES_PEERS_REPORT: the file for the report, JSON: test -> "passed", "failed: MESSAGE", "skipped", "deselected".
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

_found: dict[str, str] = {}


def _name_of(item: str) -> str:
    """Return a test's name without its folder."""
    return item.rpartition("/")[2]


def pytest_collection_modifyitems() -> None:
    """Put other names in the place of models, once the tests have imported the package."""
    names = json.loads(os.environ["STAPES_PEERS_MODELS"])
    package = sys.modules.get("faster_whisper")
    if package is None or not names:
        return
    make = package.WhisperModel.__init__

    def mapped(self: Any, model_size_or_path: str, *arguments: Any, **keywords: Any) -> None:
        make(self, names.get(model_size_or_path, model_size_or_path), *arguments, **keywords)

    package.WhisperModel.__init__ = mapped


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Take tests that were left out by `-k`, `-m` and `--deselect`."""
    _found.update({_name_of(one.nodeid): "deselected" for one in items})


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Take files that could not be imported."""
    if report.failed:
        _found[_name_of(report.nodeid)] = f"failed: {report.longreprtext}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take a phase of a test; the first that does not pass counts."""
    name, crash = _name_of(report.nodeid), getattr(report.longrepr, "reprcrash", None)
    if report.when == "call" or report.outcome != "passed":
        ended = f"failed: {crash.message if crash else report.longreprtext}" if report.failed else report.outcome
        _found.setdefault(name, ended)


def pytest_sessionfinish() -> None:
    """Write the report."""
    Path(os.environ["STAPES_PEERS_REPORT"]).write_text(json.dumps(_found), encoding="utf-8")
