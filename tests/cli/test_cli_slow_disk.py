"""The command on a disk that is slow, hangs or fails under its journal: no step waits, and all events come in order."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stapes.cli import json_lines
from stapes.cli import main as command
from stapes.journal import journal as journal_module
from stapes.journal.codec import AnswerBounds
from stapes.journal.journal import JOURNAL_NAME, Journal, JournalEntry
from tests.cli.scripted_engine import ScriptedEngine
from tests.slow_disk import SlowDisk

COMMIT_S = 0.3
Reported = list[dict[str, Any]]
Run = Callable[..., tuple[int, Reported]]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    slow = SlowDisk(monkeypatch)
    yield slow
    slow.works.set()
    for thread in threading.enumerate():
        if thread.name == "stapes journal":
            thread.join(10)


@pytest.fixture
def run(
    engines: list[ScriptedEngine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run the command; returns the exit code and its events, all of which are JSON: no traceback is among them."""
    monkeypatch.chdir(tmp_path)

    def run_words(*words: str) -> tuple[int, Reported]:
        code = command.main([*words, "--progress", "json"])
        return code, [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    return run_words


def named(reported: Reported, name: str) -> Reported:
    return [one for one in reported if one["event"] == name]


def record(name: str, n_lines: int, *, then: str = "") -> str:
    Path(name).write_text("\n".join(f"line {number}" for number in range(n_lines)) + then)
    return name


def test_no_step_waits_for_a_slow_disk(run: Run, engines: list[ScriptedEngine], disk: SlowDisk) -> None:
    disk.commit_s = COMMIT_S
    names = [record(f"talk{number}.mp3", 20) for number in range(4)]
    ends_s: list[float] = []
    plain = ScriptedEngine.submit

    def submit(engine: ScriptedEngine, *given: Any, **named: Any) -> Any:
        job = plain(engine, *given, **named)
        began_s = time.monotonic()
        job.when_ended(lambda _: ends_s.append(time.monotonic() - began_s))
        return job

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(ScriptedEngine, "submit", submit)
        began_s = time.monotonic()
        code, reported = run(*names, "-f", "srt", "--concurrency", "4")
        took_s = time.monotonic() - began_s
    assert (code, len(named(reported, "file_done")), named(reported, "warning")) == (0, 4, [])
    assert len(ends_s) == 4
    assert max(ends_s) < 4 * COMMIT_S  # each has 21 results
    # Recordings begin one after the other, each after its rows were looked up; they end together.
    assert took_s < (2 * len(names) + 6) * COMMIT_S
    assert not Path(JOURNAL_NAME).exists()


def test_a_recording_is_reported_done_after_its_files_and_its_journal(
    run: Run, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def committed(connection: sqlite3.Connection, statements: list[str]) -> None:
        asked = "SELECT stem FROM recordings WHERE formats IS NOT NULL"
        done = sqlite3.Connection.execute(connection, asked)
        for (stem,) in done.fetchall():
            assert Path(f"{stem}.srt").exists()
            if f"{stem} noted" not in order:
                order.append(f"{stem} noted")

    def write(text: str) -> None:
        reported = json.loads(text)
        if reported["event"] == "file_done":
            order.append(f"{Path(reported['file']).stem} reported")

    disk.commit_s, disk.committed = 0.02, committed
    monkeypatch.setattr(json_lines, "write_error_line", write)
    names = [record(f"talk{number}.mp3", 1 + number) for number in range(6)]
    assert run(*names, "-f", "srt", "--concurrency", "3")[0] == 0
    assert len(order) == 12
    for number in range(6):
        assert order.index(f"talk{number} noted") < order.index(f"talk{number} reported")


def windows(reported: Reported, *, resumed: bool) -> list[float]:
    return [one["seek_s"] for one in named(reported, "window") if one["resumed"] == resumed]


def test_windows_reported_before_ctrl_c_are_kept_although_the_disk_is_slow(run: Run, disk: SlowDisk) -> None:
    disk.commit_s = COMMIT_S
    words = (record("talk.mp3", 30, then="\n!interrupt once\nlast"), "-f", "srt")
    code, reported = run(*words)
    assert (code, named(reported, "error")[0]["error"]) == (130, "stopped; the same command goes on where it was")
    known = windows(reported, resumed=False)
    assert len(known) >= 30
    disk.commit_s = 0.0
    code, reported = run(*words)
    assert (code, windows(reported, resumed=True)) == (0, known)


@pytest.mark.parametrize("then", ["\n!interrupt\nlast", "\n!interrupt\n!interrupt\nlast"])
def test_ctrl_c_ends_although_the_disk_hangs(
    run: Run, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setattr(journal_module, "_PATIENCE_S", 0.5)
    record("talk.mp3", 10, then=then)
    begun = disk.committed
    disk.committed = lambda connection, statements: (
        disk.works.clear() if any("INSERT INTO answers" in one for one in statements) else begun(connection, statements)
    )
    began_s = time.monotonic()
    code, reported = run("talk.mp3", "-f", "srt")
    assert time.monotonic() - began_s < 8  # !interrupt takes a second
    assert (code, len(named(reported, "error"))) == (130, 1)
    assert ["is not waited for any longer" in one["message"] for one in named(reported, "warning")] == [True]
    assert named(reported, "summary")
    assert not Path("talk.srt").exists()


@pytest.mark.parametrize("then", ["", "\n!interrupt"])
def test_ctrl_c_ends_although_a_recording_waits_for_a_disk_that_hangs(
    run: Run, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """Its files are written, the journal's line that they are is not."""
    monkeypatch.setattr(journal_module, "_PATIENCE_S", 0.5)
    hangs, begun, entry = threading.Event(), list[str](), Journal.entry

    def begin(journal: Journal, stem: str, key: str, bounds: AnswerBounds) -> JournalEntry:
        found = entry(journal, stem, key, bounds)
        begun.append(stem)
        return found

    def pause() -> None:
        if Path("short.srt").exists() and len(begun) >= len(names) and not hangs.is_set():
            hangs.set()
            disk.works.clear()

    monkeypatch.setattr(Journal, "entry", begin)
    disk.pause = pause
    names = [record("short.mp3", 2, then=then or "\n!sleep")]  # the other one begins meanwhile
    if not then:  # the other one is interrupted, once it has begun
        names.append(record("talk.mp3", 2, then="\n!sleep\n!interrupt\nlast"))
    began_s = time.monotonic()
    code, reported = run(*names, "-f", "srt", "--concurrency", "2")
    assert time.monotonic() - began_s < 10
    assert (code, hangs.is_set(), Path("short.srt").read_text().count("line")) == (130, True, 2)
    assert named(reported, "error")[0]["error"] == "stopped; finished files stay, none is half-written"
    assert ["is not waited for any longer" in one["message"] for one in named(reported, "warning")] == [True]


@pytest.mark.parametrize(
    "message", ["database or disk is full", "disk I/O error", "attempt to write a readonly database"]
)
def test_a_disk_that_fails_costs_no_transcript(run: Run, disk: SlowDisk, message: str) -> None:
    names = [record(f"talk{number}.mp3", 20) for number in range(3)]
    disk.committed = lambda _, statements: setattr(
        disk, "error", sqlite3.OperationalError(message) if any("INTO answers" in one for one in statements) else None
    )
    code, reported = run(*names, "-f", "srt")
    assert (code, len(named(reported, "file_done"))) == (0, 3)
    assert [f"the journal has failed ({message})" in one["message"] for one in named(reported, "warning")] == [True]
    assert all(Path(name).with_suffix(".srt").exists() for name in names)


def test_a_journal_that_fails_at_the_end_of_a_stopped_run_is_not_said_to_resume(run: Run, disk: SlowDisk) -> None:
    def fail() -> None:
        disk.commit_s, disk.error = COMMIT_S, sqlite3.OperationalError("database or disk is full")

    def committed(_: sqlite3.Connection, statements: list[str]) -> None:
        if any("INTO answers" in one for one in statements):
            disk.committed = lambda *_: None
            threading.Timer(0.6, fail).start()  # after Ctrl-C, before the last window's result, a second later

    disk.committed = committed
    record("talk.mp3", 10, then="\n!interrupt\nlast")
    code, reported = run("talk.mp3", "-f", "srt")
    assert (code, named(reported, "error")[0]["error"]) == (130, "stopped; finished files stay, none is half-written")
    assert ["the journal has failed" in one["message"] for one in named(reported, "warning")] == [True]


def test_a_full_queue_ends_one_recordings_notes_and_no_transcript(
    run: Run, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stapes.journal.writer.MAX_QUEUE_BYTES", 20_000)
    record("talk.mp3", 300)
    disk.commit_s = COMMIT_S
    code, reported = run("talk.mp3", "-f", "srt")
    assert (code, len(windows(reported, resumed=False)), len(named(reported, "file_done"))) == (0, 300, 1)
    (warning,) = named(reported, "warning")
    assert warning["message"].startswith("talk: the disk is too slow for the journal")
    assert not Path(JOURNAL_NAME).exists()
