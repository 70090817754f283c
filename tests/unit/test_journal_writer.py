"""The journal's thread: notes never wait for the disk, their order stays, and no fault of a disk hangs."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from stapes.journal import journal as journal_module
from stapes.journal.codec import AnswerBounds
from stapes.journal.journal import JOURNAL_NAME, Journal, JournalEntry, open_journal
from stapes.journal.writer import MAX_QUEUE_BYTES, Task
from stapes.results import WindowResult
from tests.random_cases import random_cases
from tests.slow_disk import SlowDisk

ROOT = Path(__file__).parents[2]
BOUNDS = AnswerBounds(n_vocab=500, n_text_ctx=448, languages=frozenset({"en"}))
COMMIT_S = 0.3


def answer(text: object) -> WindowResult:
    return WindowResult(
        tokens=(1,), text=str(text), avg_logprob=-0.1, no_speech_prob=0.3, temperature=0.0, compression_ratio=1.1
    )


def texts(entry: JournalEntry) -> list[str]:
    return [one.text for one in entry.answers if isinstance(one, WindowResult)]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    slow = SlowDisk(monkeypatch)
    yield slow
    slow.works.set()


@pytest.fixture
def warned() -> list[str]:
    return []


def opened(folder: Path, warned: list[str]) -> Journal:
    journal = open_journal(folder, warned.append)
    assert journal is not None
    return journal


def begun(journal: Journal, stem: str = "talk") -> JournalEntry:
    return journal.entry(stem, f"key of {stem}", BOUNDS)


def recalled(folder: Path, stem: str = "talk") -> list[str]:
    warned: list[str] = []
    journal = opened(folder, warned)
    found = texts(begun(journal, stem))
    journal.close(finished=False)
    assert warned == []
    return found


def within(seconds: float, condition: Any) -> bool:
    end_s = time.monotonic() + seconds
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.005)
    return bool(condition())


def test_no_note_waits_for_a_slow_disk(tmp_path: Path, warned: list[str], disk: SlowDisk) -> None:
    journal = opened(tmp_path, warned)
    entry = begun(journal)
    disk.commit_s = COMMIT_S
    before = disk.n_commits
    longest_s = 0.0
    for number in range(100):
        began_s = time.monotonic()
        entry.note(answer(number))
        longest_s = max(longest_s, time.monotonic() - began_s)
        time.sleep(0.005)
    assert longest_s < COMMIT_S
    journal.close(finished=False)
    assert 3 <= disk.n_commits - before <= 20  # it was as slow as that, and many were written at once
    assert (recalled(tmp_path), warned) == (list(map(str, range(100))), [])


def test_a_hanging_disk_delays_only_the_close_of_its_journal(tmp_path: Path, warned: list[str], disk: SlowDisk) -> None:
    journal = opened(tmp_path, warned)
    entry = begun(journal)
    disk.works.clear()
    calls: list[int] = []
    began_s = time.monotonic()
    for number in range(50):
        entry.note(answer(number))
    entry.done(["srt"])
    journal.when_written(lambda: calls.append(1))
    assert time.monotonic() - began_s < 1
    time.sleep(0.1)
    assert (calls, warned) == ([], [])  # nothing is written, and no callback says so
    disk.works.set()
    assert within(5, lambda: calls == [1])
    journal.close(finished=False)
    journal = opened(tmp_path, warned)
    assert begun(journal).outputs_done == {"srt"}
    journal.close(finished=False)


BROKEN_OFF = """
import sys, time
from pathlib import Path
import pytest
from stapes.journal.journal import open_journal
from tests.slow_disk import SlowDisk
from tests.unit.test_journal_writer import answer, begun
disk = SlowDisk(pytest.MonkeyPatch(), commit_s=float(sys.argv[2]))
entry = begun(open_journal(sys.argv[1], print))
number = 0
while True:
    entry.note(answer(number))
    print(number, time.time(), flush=True)
    number += 1
    time.sleep(0.01)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no kill -9")
@pytest.mark.parametrize("commit_s", [0.0, 0.2])
def test_kill_9_costs_the_last_second_at_most(tmp_path: Path, commit_s: float) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    command = [sys.executable, "-c", BROKEN_OFF, str(tmp_path), str(commit_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(1.5)
        killed_s = time.time()
        process.kill()
        noted = [line.split() for line in [first, *process.stdout] if line.endswith("\n")]
    owed = sum(float(noted_s) < killed_s - 1 for _, noted_s in noted)
    found = recalled(tmp_path)
    assert owed >= 10
    assert owed <= len(found) <= len(noted) + 1
    assert found == list(map(str, range(len(found))))


def test_a_full_queue_ends_the_notes_of_its_recording_and_of_no_other(
    tmp_path: Path, warned: list[str], disk: SlowDisk
) -> None:
    journal = opened(tmp_path, warned)
    talk, other = begun(journal), begun(journal, "other")
    journal.flush()
    disk.works.clear()
    big = "x" * 49_000
    for number in range(2 * MAX_QUEUE_BYTES // len(big)):
        talk.note(answer(f"{number} {big}"))
    assert ["talk: the disk is too slow" in message and "(16 MB" in message for message in warned] == [True]
    said = int(warned[0].partition("from window ")[2].split()[0])
    assert 0.9 * MAX_QUEUE_BYTES < said * len(big) < MAX_QUEUE_BYTES
    disk.works.set()
    journal.flush()
    other.note(answer("kept"))
    talk.note(answer("after a gap"))
    journal.close(finished=False)
    assert recalled(tmp_path) == [f"{number} {big}" for number in range(said)]
    assert (recalled(tmp_path, "other"), len(warned)) == (["kept"], 1)


def test_what_is_written_makes_room(tmp_path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stapes.journal.writer.MAX_QUEUE_BYTES", 10_000)
    journal = opened(tmp_path, warned)
    entry = begun(journal)
    for number in range(50):
        entry.note(answer(number))
        journal.flush()
    journal.close(finished=False)
    assert (recalled(tmp_path), warned) == (list(map(str, range(50))), [])


def test_a_recording_whose_notes_have_ended_is_done_as_any_other(
    tmp_path: Path, warned: list[str], disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stapes.journal.writer.MAX_QUEUE_BYTES", 10_000)
    journal = opened(tmp_path, warned)
    talk = begun(journal)
    disk.works.clear()
    for number in range(100):
        talk.note(answer(number))
    talk.done(["srt"])
    disk.works.set()
    journal.close(finished=False)
    assert ["talk: the disk is too slow" in message for message in warned] == [True]
    journal = opened(tmp_path, warned)
    again = begun(journal)
    assert (again.answers, again.outputs_done) == ((), frozenset({"srt"}))
    journal.close(finished=True)
    assert list(tmp_path.iterdir()) == []


def test_after_a_row_that_cannot_be_written_no_gap_is(tmp_path: Path, warned: list[str], disk: SlowDisk) -> None:
    journal = opened(tmp_path, warned)
    talk, other = begun(journal), begun(journal, "other")
    disk.works.clear()  # what follows goes into one transaction
    for number in range(6):
        if number == 3:
            talk._n_noted = 2  # as if another had written meanwhile
        talk.note(answer(number))
        other.note(answer(number))
    disk.works.set()
    journal.close(finished=False)
    assert ["talk: cannot be kept in the journal" in message for message in warned] == [True]
    assert (recalled(tmp_path), recalled(tmp_path, "other")) == (["0", "1", "2"], list("012345"))


Rows = dict[str, tuple[bool, list[str]]]  # of a recording: whether it is done, its answers


def rows_of(connection: sqlite3.Connection) -> Rows:
    plain = partial(sqlite3.Connection.execute, connection)
    done = {stem: formats is not None for stem, formats in plain("SELECT stem, formats FROM recordings")}
    found: Rows = {stem: (is_done, []) for stem, is_done in done.items()}
    for stem, body in plain("SELECT stem, body FROM answers ORDER BY stem, number"):
        found[stem][1].append(body.decode().partition('"text":"')[2].partition('"')[0])
    return found


@random_cases(15, 500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.tuples(st.sampled_from(["note"] * 6 + ["forget", "done", "again", "ask"]), st.sampled_from("abc")),
        max_size=60,
    ),
    seed=st.integers(0, 1000),
)
def test_at_every_moment_the_disk_has_what_was_asked_for_up_to_some_call(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, str]], seed: int
) -> None:
    """A kill at any moment leaves one of these states: each is the one after some call, none is skipped twice."""
    folder, source = tmp_path_factory.mktemp("random"), random.Random(seed)
    warned: list[str] = []
    states: list[Rows] = [{}]
    found: list[Rows] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        disk = SlowDisk(monkeypatch)
        disk.pause = lambda: time.sleep(source.choice([0, 0, 0.0005, 0.002]))
        journal = opened(folder, warned)
        disk.committed = lambda connection, _: found.append(rows_of(connection))
        entries: dict[str, JournalEntry] = {}
        rows: Rows = {}
        for number, (call, stem) in enumerate(calls):
            if call == "again" or stem not in entries:
                entries[stem] = begun(journal, stem)
                assert texts(entries[stem]) == rows.setdefault(stem, (False, []))[1]
                states.append(dict(rows))
                if rows[stem][0]:  # done: as the command does, it is not noted any further
                    entries[stem].forget()
                    rows[stem] = False, []
            elif call == "note":
                if not rows[stem][0]:
                    entries[stem].note(answer(number))
                    rows[stem] = False, [*rows[stem][1], str(number)]
            elif call == "ask":
                assert journal.holds(stem) != rows[stem][0]
            else:
                getattr(entries[stem], call)(*([["srt"]] if call == "done" else []))
                rows[stem] = call == "done", []
            states.append(dict(rows))
            time.sleep(source.choice([0, 0, 0.001]))
        journal.flush()
        assert found[-1:] in ([], [rows]) or not calls
        place = 0
        for state in found:
            place = states.index(state, place)  # raises where the order is another
        journal.close(finished=False)
    assert warned == []


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("database or disk is full"), sqlite3.OperationalError("disk I/O error"),
        sqlite3.OperationalError("attempt to write a readonly database"), OSError(errno.EIO, "Input/output error"),
        MemoryError(), RuntimeError("a fault of ours"), sqlite3.DatabaseError("database disk image is malformed"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_disk_that_fails_is_reported_once_and_no_call_waits(
    tmp_path: Path, warned: list[str], disk: SlowDisk, error: Exception
) -> None:
    journal = opened(tmp_path, warned)
    entry = begun(journal)
    journal.flush()
    assert journal.keeps_something
    disk.error = error
    calls: list[int] = []
    for number in range(20):
        entry.note(answer(number))
        journal.when_written(lambda: calls.append(1))
    assert journal.ask("SELECT 1 FROM recordings") in ((), ((1,),))
    journal.flush()
    assert (len(calls), journal.keeps_something) == (20, False)
    assert (begun(journal, "other").answers, journal.holds("talk")) == ((), False)
    began_s = time.monotonic()
    journal.close(finished=True)
    assert time.monotonic() - began_s < 1
    assert [f"{JOURNAL_NAME}: the journal has failed ({error})" in message for message in warned] == [True]
    moved = [path for path in tmp_path.iterdir() if ".aside-" in path.name]
    assert bool(moved) == (type(error) is sqlite3.DatabaseError)


def test_a_disk_that_hangs_is_given_up(
    tmp_path: Path, warned: list[str], disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_PATIENCE_S", 0.3)
    journal = opened(tmp_path, warned)
    entry = begun(journal)
    entry.note(answer("written"))
    journal.flush()
    disk.works.clear()
    calls: list[int] = []
    entry.note(answer("hangs"))
    assert within(5, lambda: bool(journal._writer._in_work))
    journal.when_written(lambda: calls.append(1))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(journal.ask, "SELECT 1")
        began_s = time.monotonic()
        journal.flush()
        journal.flush()
        entry.note(answer("too late"))
        journal.close(finished=False)
        assert 0.2 < time.monotonic() - began_s < 1
        assert asked.result(5) == ()  # it does not wait for ever
    assert (calls, journal.keeps_something) == ([1], False)
    assert ["is not waited for any longer" in message for message in warned] == [True]
    assert journal._writer._thread.daemon  # the process may end meanwhile
    disk.works.set()
    journal._writer._thread.join(10)
    assert not journal._writer._thread.is_alive()
    assert (recalled(tmp_path), len(warned)) == (["written", "hangs"], 1)


def test_many_recordings_are_noted_at_once(tmp_path: Path, warned: list[str], disk: SlowDisk) -> None:
    journal = opened(tmp_path, warned)
    stems = [f"talk {number}" for number in range(16)]
    disk.commit_s = 0.02
    before = disk.n_commits

    def work(stem: str) -> None:
        entry = begun(journal, stem)
        for number in range(60):
            entry.note(answer(number))
        if stem.endswith("5"):
            entry.done(["srt"])

    with ThreadPoolExecutor(len(stems)) as pool:
        list(pool.map(work, stems))
    journal.close(finished=False)
    assert disk.n_commits - before < 100  # of 1,000 changes
    assert warned == []
    for stem in stems:
        assert recalled(tmp_path, stem) == ([] if stem.endswith("5") else list(map(str, range(60))))


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
calm = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def printed_by(program: str, folder: Path) -> str:
    """Run a program in a separate process; return its output. It ends within 30 s, and without a traceback."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    command = [sys.executable, "-W", "ignore", "-c", program, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=30)
    assert done.stderr == ""
    return done.stdout


FORKS = """
import os, sys
from pathlib import Path
from stapes.journal.journal import open_journal
from tests.unit.test_journal_writer import answer, begun
journal = open_journal(sys.argv[1], print)
entry = begun(journal)
entry.note(answer(0))
child = os.fork()
if child == 0:
    entry.note(answer("of the child"))
    entry.done(["srt"])
    calls = []
    journal.when_written(lambda: calls.append(1))
    print(journal.ask("SELECT 1"), journal.keeps_something, calls)
    journal.flush()
    {end}
    sys.exit()  # closes what Python finds
assert os.waitpid(child, 0)[1] == 0
entry.note(answer(1))
journal.flush()
print(Path(sys.argv[1], ".stapes-journal.sqlite-wal").exists())
os._exit(0)  # as a kill: nothing is closed
"""


@forks
@pytest.mark.parametrize("end", ["journal.close(finished=True)", "del journal, entry", "pass"])
def test_a_forked_child_leaves_the_journal_to_its_parent(tmp_path: Path, end: str) -> None:
    """A child that closes the file would write and remove the -wal, in which its parent goes on."""
    assert printed_by(FORKS.format(end=end), tmp_path).splitlines() == ["() False [1]", "True"]
    assert recalled(tmp_path) == ["0", "1"]


@forks
@calm
def test_a_fork_waits_for_the_transaction_in_the_middle_of_which_it_comes(
    tmp_path: Path, warned: list[str], disk: SlowDisk
) -> None:
    journal = opened(tmp_path, warned)
    entry = begun(journal)
    journal.flush()
    disk.commit_s = 0.5
    before = disk.n_commits
    entry.note(answer(0))
    assert within(5, lambda: bool(journal._writer._in_work))
    time.sleep(0.1)
    if not (child := os.fork()):
        os._exit(0 if disk.n_commits > before else 1)
    assert os.waitpid(child, 0)[1] == 0
    journal.close(finished=False)


def test_an_answer_of_the_usual_size_is_far_below_what_the_queue_holds(
    tmp_path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour is 120 windows: 16 recordings of it fit."""
    usual = replace(answer("x" * 400), tokens=(499,) * 100)
    journal = opened(tmp_path, warned)
    sizes: list[int] = []
    plain = Journal.put

    def put(journal: Journal, task: Task) -> bool:
        sizes.append(task.n_bytes)
        return plain(journal, task)

    monkeypatch.setattr(Journal, "put", put)
    begun(journal).note(usual)
    journal.close(finished=False)
    assert 16 * 120 * max(sizes) < MAX_QUEUE_BYTES


HANGS = """
import sys, pytest
from stapes.journal import journal as module
from tests.slow_disk import SlowDisk
from tests.unit.test_journal_writer import answer, begun
module._PATIENCE_S = 0.3
disk = SlowDisk(pytest.MonkeyPatch())
journal = module.open_journal(sys.argv[1], lambda message: print(message.partition(": ")[2][:8]))
entry = begun(journal)
entry.note(answer("kept"))
journal.flush()
disk.works.clear()
entry.note(answer("lost"))
journal.close(finished=True)
"""


def test_a_process_ends_although_the_disk_hangs(tmp_path: Path) -> None:
    assert printed_by(HANGS, tmp_path) == "the disk\n"
    assert recalled(tmp_path) == ["kept"]
