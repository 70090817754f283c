"""A journal's connection to a disk that is slow, hangs or fails, and says what reached it."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest


def _nothing() -> None:
    """Do nothing."""


class SlowDisk:
    """What every COMMIT of the connections to it meets. Use it as a fixture does: `SlowDisk(monkeypatch)`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, commit_s: float = 0.0) -> None:
        self.commit_s = commit_s
        self.n_commits = 0
        self.works = threading.Event()  # cleared: it hangs
        self.works.set()
        self.error: Exception | None = None  # what a COMMIT fails with
        self.pause: Callable[[], None] = _nothing  # called before every statement
        self.committed: Callable[[sqlite3.Connection, list[str]], None] = lambda *_: None  # and what was in it
        plain, disk = sqlite3.connect, self

        class Connection(sqlite3.Connection):
            statements: list[str]

            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                disk.pause()
                if sql != "COMMIT":
                    self.statements = [*getattr(self, "statements", []), sql]
                    return super().execute(sql, *values)
                disk.works.wait(60)
                time.sleep(disk.commit_s)
                if disk.error is not None:
                    raise disk.error
                found = super().execute(sql)
                disk.n_commits += 1
                disk.committed(self, self.statements)
                self.statements = []
                return found

        monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: plain(*given, factory=Connection, **named))
