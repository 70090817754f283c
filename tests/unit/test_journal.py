"""The journal: what goes in comes back bit for bit, damage is found, no file is left over."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from stapes.cli.command import Command
from stapes.cli.flags import parse
from stapes.journal.codec import Answer, AnswerBounds, answer_from_bytes, answer_to_bytes
from stapes.journal.journal import JOURNAL_NAME, Journal, open_journal
from stapes.journal.keys import output_keys as keys_of_outputs
from stapes.journal.keys import recording_key, settings_key
from stapes.options import TranscribeOptions
from stapes.output.files import InputFiles
from stapes.output.subtitles import Layout
from stapes.results import LanguageGuess, Try, WindowResult, WordTiming
from stapes.testing import random_engine
from tests.random_cases import random_cases

ROOT = Path(__file__).parents[2]
BOUNDS = AnswerBounds(n_vocab=500, n_text_ctx=448, languages=frozenset({"en", "de", "yue"}))

shares = st.floats(0, 1)
logprobs = st.floats(max_value=0, allow_nan=False, allow_infinity=True)
texts = st.text(max_size=40)
tries = st.builds(
    Try,
    temperature=st.floats(0, 2),
    avg_logprob=logprobs,
    compression_ratio=st.floats(0, 100),
    refused=st.none() | texts,
)
timings = st.builds(
    WordTiming,
    text=texts,
    tokens=st.lists(st.integers(0, 499), max_size=5).map(tuple),
    start_s=st.floats(0, 30),
    end_s=st.floats(0, 30),
    probability=shares,
)
results = st.builds(
    WindowResult,
    tokens=st.lists(st.integers(0, 499), max_size=30).map(tuple),
    text=texts,
    avg_logprob=logprobs,
    no_speech_prob=shares,
    temperature=st.floats(0, 2),
    compression_ratio=st.floats(0, 100),
    tries=st.lists(tries, max_size=3).map(tuple),
    timings=st.none() | st.lists(timings, max_size=4).map(tuple),
)
guesses = st.builds(
    lambda language, found: LanguageGuess(language=language, probabilities={**found, language: 0.5}),
    st.sampled_from(sorted(BOUNDS.languages)),
    st.dictionaries(st.sampled_from(sorted(BOUNDS.languages)), shares),
)
RESULT = WindowResult(
    tokens=(1, 2, 499), text="ab", avg_logprob=-0.1, no_speech_prob=0.3, temperature=0.0, compression_ratio=1.1
)
ANSWERS: tuple[Answer, ...] = (
    LanguageGuess(language="en", probabilities={"en": 0.7, "de": 0.3}),
    RESULT,
    replace(RESULT, tokens=(3,), text="Grüße, 你好", tries=(Try(temperature=0.2, avg_logprob=-0.3,
            compression_ratio=2.5, refused="repeats"),)),
    replace(RESULT, tokens=(), text="", timings=()),
    replace(RESULT, timings=(WordTiming(text=" ab", tokens=(1, 2), start_s=0.02, end_s=0.5, probability=0.9),)),
)  # fmt: skip


def output_keys(command: Command) -> frozenset[str]:
    return keys_of_outputs(command.formats, command.layout, command.page)


def bits(value: object) -> object:
    """Turn every float into its bytes: 0.0 equals -0.0, its bytes do not."""
    if isinstance(value, float):
        return struct.pack(">d", value)
    if isinstance(value, dict):
        return [(key, bits(one)) for key, one in value.items()]
    if isinstance(value, list | tuple):
        return [bits(one) for one in value]
    if isinstance(value, LanguageGuess | WindowResult | Try | WordTiming):
        return [(name, bits(getattr(value, name))) for name in value.__dataclass_fields__]
    return value


class Warned(list[str]):
    """Collects warnings."""

    def __call__(self, message: str) -> None:
        self.append(message)


@pytest.fixture
def warned() -> Warned:
    return Warned()


def opened(folder: Path, warn: Warned) -> Journal:
    journal = open_journal(folder, warn)
    assert journal is not None
    return journal


def key_of(stem: str) -> str:
    return f"key of {stem}" if stem.isprintable() else f"key of {stem!a}"


def write(folder: Path, answers: Sequence[Answer] = ANSWERS, stems: Sequence[str] = ("talk",)) -> None:
    """Leave a journal as a broken run does."""
    journal = opened(folder, Warned())
    for stem in stems:
        entry = journal.entry(stem, key_of(stem), BOUNDS)
        for answer in answers:
            entry.note(answer)
    journal.close(finished=False)


def recalled(folder: Path, warn: Warned, stem: str = "talk") -> tuple[Answer, ...]:
    journal = opened(folder, warn)
    answers = journal.entry(stem, key_of(stem), BOUNDS).answers
    journal.close(finished=False)
    return answers


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@given(results | guesses)
def test_an_answer_comes_back_bit_for_bit(answer: Answer) -> None:
    assert bits(answer_from_bytes(answer_to_bytes(answer), BOUNDS)) == bits(answer)


@random_cases(10, 200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=st.lists(results, max_size=5), guess=guesses)
def test_answers_come_back_in_order(tmp_path: Path, answers: list[WindowResult], guess: LanguageGuess) -> None:
    write(tmp_path, (guess, *answers))
    warn = Warned()
    assert bits(recalled(tmp_path, warn)) == bits((guess, *answers))
    assert warn == []
    journal = opened(tmp_path, warn)
    journal.entry("talk", "key of talk", BOUNDS).done(["srt"])
    journal.close(finished=True)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b"\xff", b'{"language": "en"}', b'{"language": "xx", "probabilities": {"xx": 1.0}}',
        b'{"language": "en", "probabilities": {"de": 1.0}}', b'{"language": "en", "probabilities": {"en": 2.0}}',
        b'{"language": "en", "probabilities": {"en": NaN}}', b'{"language": ["en"], "probabilities": {"en": 1.0}}',
        b'{"language": "en", "probabilities": {"en": "1.0"}}', b"[" * 100_000, b"9" * 300_000,
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any of many)
        answer_from_bytes(body, BOUNDS)


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": (500,)}, {"tokens": (-1,)}, {"tokens": (1,) * 449}, {"text": "x" * 50_001}, {"avg_logprob": 0.5},
        {"avg_logprob": float("nan")}, {"no_speech_prob": 1.5}, {"temperature": -0.1}, {"compression_ratio": 1e9},
        {"temperature": float("inf")},
        {"tries": (Try(temperature=float("nan"), avg_logprob=0.0, compression_ratio=1.0, refused=None),)},
        {"tries": (Try(temperature=0.0, avg_logprob=0.0, compression_ratio=1.0, refused=None),) * 1001},
    ],
)  # fmt: skip
def test_an_answer_out_of_bounds_is_refused_and_never_written(
    tmp_path: Path, warned: Warned, change: dict[str, object]
) -> None:
    wrong = replace(RESULT, **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError):  # noqa: PT011 (any of many)
        answer_from_bytes(answer_to_bytes(wrong), BOUNDS)
    journal = opened(tmp_path, warned)
    entry = journal.entry("talk", "key of talk", BOUNDS)
    for answer in (RESULT, wrong, RESULT):
        entry.note(answer)
    journal.close(finished=False)
    assert ["cannot be kept in the journal" in message for message in warned] == [True]
    assert recalled(tmp_path, warned) == (RESULT,)


def test_a_journal_outlives_its_process_and_ends_with_success(tmp_path: Path, warned: Warned) -> None:
    write(tmp_path)
    assert left_in(tmp_path) == [JOURNAL_NAME]
    assert recalled(tmp_path, warned) == ANSWERS
    journal = opened(tmp_path, warned)
    entry = journal.entry("talk", "key of talk", BOUNDS)
    entry.done(["srt", "txt"])
    journal.close(finished=False)
    journal = opened(tmp_path, warned)
    entry = journal.entry("talk", "key of talk", BOUNDS)
    assert (entry.answers, entry.outputs_done) == ((), frozenset({"srt", "txt"}))
    assert not journal.holds("talk")
    journal.close(finished=True)
    assert (left_in(tmp_path), warned) == ([], [])


def test_another_key_or_another_name_knows_nothing(tmp_path: Path, warned: Warned) -> None:
    write(tmp_path, stems=("talk", "other"))
    journal = opened(tmp_path, warned)
    assert journal.entry("new", "key of talk", BOUNDS).answers == ()
    assert journal.entry("talk", "another key", BOUNDS).answers == ()  # and takes the old one's place
    assert journal.holds("other")
    journal.close(finished=False)
    assert recalled(tmp_path, warned) == ()
    assert recalled(tmp_path, warned, "other") == ANSWERS
    assert warned == []


def test_a_finished_run_leaves_what_others_have_begun(tmp_path: Path, warned: Warned) -> None:
    write(tmp_path, stems=("talk", "other"))
    journal = opened(tmp_path, warned)
    journal.entry("talk", "key of talk", BOUNDS).done(["srt"])
    journal.close(finished=True)
    assert recalled(tmp_path, warned, "other") == ANSWERS
    assert recalled(tmp_path, warned) == ()


@pytest.mark.parametrize("finished", [True, False])
def test_a_journal_without_an_answer_is_removed(tmp_path: Path, warned: Warned, *, finished: bool) -> None:
    journal = opened(tmp_path, warned)
    journal.entry("talk", "key of talk", BOUNDS)
    assert JOURNAL_NAME in left_in(tmp_path)
    journal.close(finished=finished)
    assert (left_in(tmp_path), warned) == ([], [])


def test_a_second_process_works_without_the_journal(tmp_path: Path, warned: Warned) -> None:
    write(tmp_path)
    program = (
        "import sys; from stapes.journal.journal import open_journal; "
        "said = []; print(open_journal(sys.argv[1], said.append), said)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    journal = opened(tmp_path, warned)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.startswith("None")
    assert "another stapes is working in this folder" in done.stdout
    assert journal.entry("talk", "key of talk", BOUNDS).answers == ANSWERS
    journal.close(finished=False)
    assert warned == []


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make two journals: one that was closed, and one as kill -9 leaves it, with its lines in the -wal."""
    folder = tmp_path_factory.mktemp("journals")
    (folder / "closed").mkdir()
    write(folder / "closed", stems=("talk", "other"))
    (folder / "killed").mkdir()
    journal = opened(folder / "killed", Warned())
    entry = journal.entry("talk", "key of talk", BOUNDS)
    for answer in ANSWERS:
        entry.note(answer)
    journal.flush()
    for path in (folder / "killed").iterdir():
        shutil.copy(path, folder)
    journal.close(finished=False)
    for path in folder.glob(f"{JOURNAL_NAME}*"):
        shutil.copy(path, folder / "killed")
        path.unlink()
    return folder


def test_the_lines_of_a_killed_process_are_there(journals: Path, tmp_path: Path, warned: Warned) -> None:
    shutil.copytree(journals / "killed", tmp_path, dirs_exist_ok=True)
    assert left_in(tmp_path) == [JOURNAL_NAME, f"{JOURNAL_NAME}-wal"]
    assert recalled(tmp_path, warned) == ANSWERS
    assert warned == []


def copied(journals: Path, folder: Path, name: str, file: str) -> tuple[Path, bytes]:
    for path in folder.iterdir():
        path.unlink()
    shutil.copytree(journals / name, folder, dirs_exist_ok=True)
    return folder / file, (folder / file).read_bytes()


@random_cases(40, 2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize(("name", "file"), [("closed", JOURNAL_NAME), ("killed", f"{JOURNAL_NAME}-wal")])
def test_one_damaged_byte_costs_lines_and_never_changes_one(
    journals: Path, tmp_path: Path, name: str, file: str, data: st.DataObject
) -> None:
    target, whole = copied(journals, tmp_path, name, file)
    full = [place for place, byte in enumerate(whole) if byte]  # most of a page is empty
    place = data.draw(st.sampled_from(full) | st.integers(0, len(whole) - 1))
    value = whole[place] ^ data.draw(st.integers(1, 255))
    target.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
    found = recalled(tmp_path, Warned())
    assert bits(found) == bits(ANSWERS[: len(found)])


@random_cases(15, 500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize(("name", "file"), [("closed", JOURNAL_NAME), ("killed", f"{JOURNAL_NAME}-wal")])
def test_a_journal_cut_short_costs_lines_and_never_changes_one(
    journals: Path, tmp_path: Path, name: str, file: str, data: st.DataObject
) -> None:
    target, whole = copied(journals, tmp_path, name, file)
    target.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    found = recalled(tmp_path, Warned())
    assert bits(found) == bits(ANSWERS[: len(found)])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE answers SET body = replace(body, 'ab', 'xy')",
        "UPDATE answers SET body = CAST(body AS TEXT) WHERE number = 1",
        "UPDATE answers SET checksum = 0 WHERE number = 2",
        "UPDATE answers SET number = 7 WHERE number = 1",
        "DELETE FROM answers WHERE number = 1",
        "UPDATE answers SET body = zeroblob(1000000) WHERE number = 1",
        "UPDATE recordings SET formats = 'srt txt'",
        "UPDATE recordings SET checksum = x'00'",
    ],
)
def test_a_line_that_was_changed_discards_its_recording_and_no_other(
    tmp_path: Path, warned: Warned, statement: str
) -> None:
    write(tmp_path, stems=("other", "talk"))
    connection = sqlite3.connect(tmp_path / JOURNAL_NAME)
    connection.execute(statement + (" AND" if "WHERE" in statement else " WHERE") + " stem = 'talk'")
    connection.commit()
    connection.close()
    journal = opened(tmp_path, warned)
    entry = journal.entry("talk", "key of talk", BOUNDS)
    assert (entry.answers, entry.outputs_done) == ((), frozenset())
    assert ["it starts again" in message for message in warned] == [True]
    assert journal.entry("other", "key of other", BOUNDS).answers == ANSWERS
    entry.note(RESULT)
    journal.close(finished=False)
    assert recalled(tmp_path, warned) == (RESULT,)


def foreign_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recordings (stem, key, formats, checksum)")
    connection.commit()
    connection.close()


def other_version(path: Path) -> None:
    write(path.parent)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()


def with_a_trigger(path: Path) -> None:
    write(path.parent)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TRIGGER t AFTER INSERT ON answers BEGIN DELETE FROM answers; END")
    connection.commit()
    connection.close()


def rubbish(path: Path) -> None:
    path.write_bytes(b"no journal" * 1000)


@pytest.mark.parametrize("make", [foreign_database, other_version, with_a_trigger, rubbish])
def test_what_is_no_journal_of_ours_is_replaced(tmp_path: Path, warned: Warned, make: object) -> None:
    assert callable(make)
    make(tmp_path / JOURNAL_NAME)
    assert recalled(tmp_path, warned) == ()
    assert ["damaged or not ours" in message for message in warned] == [True]
    write(tmp_path)
    assert recalled(tmp_path, warned) == ANSWERS


def aside_in(folder: Path) -> list[str]:
    return [name for name in left_in(folder) if ".aside-" in name]


@pytest.mark.parametrize("make", [foreign_database, other_version, with_a_trigger, rubbish])
def test_what_is_no_journal_of_ours_is_kept_aside(tmp_path: Path, warned: Warned, make: object) -> None:
    assert callable(make)
    make(tmp_path / JOURNAL_NAME)
    before = (tmp_path / JOURNAL_NAME).read_bytes()
    journal = opened(tmp_path, warned)
    assert aside_in(tmp_path) == [f"{JOURNAL_NAME}.aside-1"]
    assert (tmp_path / f"{JOURNAL_NAME}.aside-1").read_bytes() == before
    assert f"it is kept as {JOURNAL_NAME}.aside-1" in warned[0]
    journal.close(finished=True)
    assert left_in(tmp_path) == [f"{JOURNAL_NAME}.aside-1"]


def test_what_lies_beside_a_damaged_journal_is_kept_with_it(tmp_path: Path, warned: Warned) -> None:
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"{JOURNAL_NAME}{suffix}").write_bytes(b"rubbish" * 1000 + suffix.encode())
    opened(tmp_path, warned).close(finished=True)
    assert aside_in(tmp_path) == [f"{JOURNAL_NAME}.aside-1{suffix}" for suffix in ("", "-shm", "-wal")]
    for suffix in ("", "-wal"):  # SQLite has looked into the -shm
        found = (tmp_path / f"{JOURNAL_NAME}.aside-1{suffix}").read_bytes()
        assert found == b"rubbish" * 1000 + suffix.encode()


def test_three_damaged_journals_are_kept(tmp_path: Path, warned: Warned) -> None:
    for number in range(5):
        (tmp_path / JOURNAL_NAME).write_bytes(b"%d" % number * 1000)
        (tmp_path / f"{JOURNAL_NAME}-wal").write_bytes(b"%d" % number)
        opened(tmp_path, warned).close(finished=True)
    kept = {path.name: path.read_bytes()[:1] for path in tmp_path.iterdir()}
    assert kept == {
        f"{JOURNAL_NAME}.aside-{number}{suffix}": b"%d" % (number - 1)
        for number in (3, 4, 5)
        for suffix in ("", "-wal")
    }


class Failing:
    """A connection to a file of which a page can no longer be read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.close = connection.close

    def execute(self, *_: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")


def test_a_journal_that_is_damaged_while_it_is_open_is_kept_aside(tmp_path: Path, warned: Warned) -> None:
    write(tmp_path)
    journal = opened(tmp_path, warned)
    journal.entry("other", "key of other", BOUNDS).note(RESULT)
    journal.flush()
    assert journal._connection is not None
    journal._connection = Failing(journal._connection)  # type: ignore[assignment]
    journal.entry("talk", "key of talk", BOUNDS).note(RESULT)
    journal.close(finished=False)
    assert ["the journal has failed" in message and ".aside-1;" in message for message in warned] == [True]
    assert aside_in(tmp_path) == [f"{JOURNAL_NAME}.aside-1", f"{JOURNAL_NAME}.aside-1-wal"]
    assert JOURNAL_NAME not in left_in(tmp_path)
    for suffix in ("", "-wal"):  # nothing of it is lost
        (tmp_path / f"{JOURNAL_NAME}.aside-1{suffix}").rename(tmp_path / f"{JOURNAL_NAME}{suffix}")
    assert recalled(tmp_path, warned) == ANSWERS
    assert recalled(tmp_path, warned, "other") == (RESULT,)


@pytest.mark.parametrize("message", ["disk I/O error", "database or disk is full", "unable to open database file"])
def test_a_journal_that_cannot_be_opened_for_now_stays(
    tmp_path: Path, warned: Warned, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    write(tmp_path)
    plain = sqlite3.connect

    def fail(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError(message)

    monkeypatch.setattr(sqlite3, "connect", fail)
    assert open_journal(tmp_path, warned) is None
    assert [message in one and "keeps no journal" in one for one in warned] == [True]
    monkeypatch.setattr(sqlite3, "connect", plain)
    assert recalled(tmp_path, warned) == ANSWERS


ODD_STEMS = ("\udcff", "a\udc80b", "\ud800", "/", "\\udcff", '"\\udcff"', "a\nb", "\x1b[2J", "é", "e\u0301", "x" * 255)


def test_names_that_are_no_utf8_are_kept_beside_the_others(tmp_path: Path, warned: Warned) -> None:
    write(tmp_path, stems=("talk", *ODD_STEMS, "last"))
    for stem in ("last", *ODD_STEMS, "talk"):
        assert recalled(tmp_path, warned, stem) == ANSWERS
    journal = opened(tmp_path, warned)
    assert all(map(journal.holds, ODD_STEMS))
    for stem in ODD_STEMS:
        journal.entry(stem, key_of(stem), BOUNDS).done(["srt"])
    journal.close(finished=True)
    assert recalled(tmp_path, warned, "\udcff") == ()
    assert recalled(tmp_path, warned) == ANSWERS
    assert warned == []


def test_rows_are_kept_under_the_names_of_earlier_versions(tmp_path: Path) -> None:
    write(tmp_path, stems=("Grüße \\ 你好", "a\udcffb"))
    connection = sqlite3.connect(tmp_path / JOURNAL_NAME)
    names = [name for (name,) in connection.execute("SELECT stem FROM recordings ORDER BY stem")]
    connection.close()
    assert names == ['/"a\\udcffb"', "Grüße \\ 你好"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE recordings SET key = CAST(x'ff' AS TEXT) WHERE stem = 'talk'",
        "UPDATE recordings SET formats = CAST(x'ff' AS TEXT) WHERE stem = 'talk'",
        "UPDATE recordings SET formats = 7 WHERE stem = 'talk'",
        "UPDATE recordings SET formats = zeroblob(20000000) WHERE stem = 'talk'",
        "UPDATE recordings SET checksum = zeroblob(20000000) WHERE stem = 'talk'",
        "UPDATE answers SET checksum = zeroblob(20000000) WHERE stem = 'talk'",
        "UPDATE answers SET body = CAST(x'ff' AS TEXT) WHERE stem = 'talk'",
        "UPDATE answers SET number = CAST(x'ff' AS TEXT) WHERE stem = 'talk' AND number = 1",
        "INSERT INTO answers VALUES ('talk', 99, x'00', x'00')",
        "DELETE FROM recordings WHERE stem = 'talk'",
    ],
)
def test_an_odd_row_costs_its_recording_and_no_other(tmp_path: Path, warned: Warned, statement: str) -> None:
    write(tmp_path, stems=("other", "talk", "zebra"))
    connection = sqlite3.connect(tmp_path / JOURNAL_NAME)
    connection.execute(statement)
    connection.commit()
    connection.close()
    journal = opened(tmp_path, warned)
    entry = journal.entry("talk", "key of talk", BOUNDS)
    assert (entry.answers, entry.outputs_done) == ((), frozenset())
    entry.note(RESULT)
    for stem in ("other", "zebra"):
        assert journal.entry(stem, f"key of {stem}", BOUNDS).answers == ANSWERS
    journal.close(finished=False)
    assert recalled(tmp_path, warned) == (RESULT,)
    assert all("starts again" in message for message in warned)


def test_a_row_that_cannot_be_written_ends_the_notes_of_its_recording_only(tmp_path: Path, warned: Warned) -> None:
    journal = opened(tmp_path, warned)
    first, second = journal.entry("talk", "key of talk", BOUNDS), journal.entry("other", "key of other", BOUNDS)
    first.note(RESULT)
    first._n_noted = 0  # as if another process had written in between
    for entry in (first, second, first, second):
        entry.note(RESULT)
    journal.close(finished=False)
    assert ["talk: cannot be kept in the journal" in message for message in warned] == [True]
    assert recalled(tmp_path, warned) == (RESULT,)
    assert recalled(tmp_path, warned, "other") == (RESULT, RESULT)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal", ".aside-1", ".aside-7-wal"])
def test_a_recording_named_as_a_journal_is_left_alone(tmp_path: Path, warned: Warned, suffix: str) -> None:
    recording = tmp_path / f"{JOURNAL_NAME}{suffix}"
    recording.write_bytes(b"sound")
    assert open_journal(tmp_path, warned, InputFiles([recording])) is None
    assert ["keeps no journal" in message for message in warned] == [True]
    assert left_in(tmp_path) == [recording.name]
    assert recording.read_bytes() == b"sound"


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_no_link_beside_a_journal_is_followed(tmp_path: Path, warned: Warned, suffix: str) -> None:
    (tmp_path / "victim").write_bytes(b"precious" * 1000)
    (tmp_path / f"{JOURNAL_NAME}{suffix}").symlink_to(tmp_path / "victim")
    assert open_journal(tmp_path, warned) is None
    assert [f"{JOURNAL_NAME}{suffix} is not a file; remove it" in message for message in warned] == [True]
    assert (tmp_path / "victim").read_bytes() == b"precious" * 1000


def test_what_is_no_file_is_left_alone(tmp_path: Path, warned: Warned) -> None:
    (tmp_path / "victim").write_bytes(b"")
    (tmp_path / JOURNAL_NAME).symlink_to(tmp_path / "victim")
    assert open_journal(tmp_path, warned) is None
    assert ["is not a file; remove it" in message for message in warned] == [True]
    assert (tmp_path / "victim").read_bytes() == b""


def test_a_journal_that_fails_in_the_middle_costs_no_recording(tmp_path: Path, warned: Warned) -> None:
    journal = opened(tmp_path, warned)
    entry = journal.entry("talk", "key of talk", BOUNDS)
    assert journal._connection is not None
    journal.flush()
    journal._connection.execute("PRAGMA max_page_count=1")
    for number in range(2000):
        entry.note(replace(RESULT, text=f"{number}" * 100))
    assert ["the journal has failed" in message for message in warned] == [True]
    entry.done(["srt"])
    journal.close(finished=True)


def test_a_key_depends_on_whatever_may_change_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = tmp_path / "talk.wav"
    talk.write_bytes(b"x" * (3 << 20))
    keys = set()

    def add(settings: str) -> None:
        key = recording_key(str(talk), settings)
        assert key is not None
        assert key == recording_key(os.path.relpath(talk), settings)
        keys.add(key)

    with random_engine(seed=0) as engine:
        options = TranscribeOptions()
        same = settings_key(engine.info, options)
        assert same == settings_key(engine.info, TranscribeOptions())
        add(same)
        add(settings_key(engine.info, TranscribeOptions.from_keywords({"beam_size": 2})))
        add(settings_key(engine.info, TranscribeOptions.from_keywords({"temperature": 0.1 + 0.2})))
        add(settings_key(engine.info, TranscribeOptions.from_keywords({"temperature": 0.3})))
        for name in ("precision", "backend", "isa", "model", "storage", "device"):
            other = replace(engine.info, **{name: "other"})  # type: ignore[arg-type]
            add(settings_key(other, options))
        on_torch = replace(engine.info, backend="torch")
        for version in ("2.11.0+cu130", "2.13.0+cu130"):
            monkeypatch.setattr("stapes.journal.keys._version", {"torch": version}.get)
            add(settings_key(on_torch, options))
        monkeypatch.undo()
    times = (talk.stat().st_atime_ns, talk.stat().st_mtime_ns)
    for at in (0, -1):
        changed = bytearray(b"x" * (3 << 20))
        changed[at] = 0
        talk.write_bytes(changed)
        os.utime(talk, ns=times)
        add(same)
    os.utime(talk, ns=(times[0], times[1] + 1))
    add(same)
    shutil.copy2(talk, talk := tmp_path / "copy.wav")
    add(same)
    assert len(keys) == 16


def test_what_is_done_depends_on_formats_layout_and_page() -> None:
    plain = parse(["a", "-f", "srt,txt", "--word_timestamps", "True"])
    others = [
        replace(plain, formats=("srt",)),
        replace(plain, layout=Layout(max_line_width=30)),
        replace(plain, page=("inside",)),
    ]
    assert output_keys(plain) == output_keys(replace(plain, audio=("b",), output_dir="c"))
    assert output_keys(plain) > output_keys(others[0])
    assert all(output_keys(plain).isdisjoint(output_keys(other)) for other in others[1:])
    assert not any(" " in key for key in output_keys(plain))  # the journal keeps them as words


def test_what_is_no_file_has_no_key(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert [recording_key(str(tmp_path / name), "") for name in ("gone", "pipe", ".", "a\0b")] == [None] * 4
