"""Many recordings at once, with a scripted engine: order, resume, JSON lines, what is skipped."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stapes.cli import main as command
from stapes.cli.events import Recording, SegmentDone
from stapes.cli.json_lines import write_json_line
from stapes.engine.concurrency import default_concurrency, reading_threads
from stapes.journal.journal import JOURNAL_NAME, JournalEntry
from stapes.options import TranscribeOptions
from stapes.results import Segment
from tests.cli.scripted_engine import ScriptedEngine

Event = dict[str, Any]
LONG = "\n".join(f"line {number}" for number in range(40))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder of recordings."""
    recordings = {
        "long.mp3": LONG,
        "short.mp3": "one\ntwo",
        "third.mp3": "three",
        "empty.mp3": "",
        "stop.mp3": "First\nSecond\n!interrupt once\nThird\nFourth",
        "half.mp3": "First\n!nameless error",
        "bad.mp3": "!not audio",
        "bug.mp3": "!bug",
        "warn.mp3": "!warning\n!noted\nText",
    }
    for name, text in recordings.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def run(engines: list[ScriptedEngine], folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; gives the exit code, standard output, standard error. No thread outlives it."""

    def run_words(*words: str) -> tuple[int, list[str], list[str]]:
        before = threading.active_count()
        code = command.main(words)
        assert threading.active_count() == before
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run_words


@pytest.fixture
def events(run: Run) -> Callable[..., tuple[int, list[Event]]]:
    """Run the command with --progress json; every line on standard error is an object."""

    def run_words(*words: str) -> tuple[int, list[Event]]:
        code, _, lines = run(*words, "--progress", "json")
        return code, [json.loads(line) for line in lines]

    return run_words


Events = Callable[..., tuple[int, list[Event]]]


def named(events: list[Event], *names: str) -> list[Event]:
    return [event for event in events if event["event"] in names]


def windows(events: list[Event], file: str) -> list[tuple[float, bool]]:
    return [(event["seek_s"], event["resumed"]) for event in named(events, "window") if event["file"] == file]


def made_in(folder: Path) -> dict[str, bytes]:
    """Return the files beside the recordings, temporary ones and journals included."""
    others = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return {name: data for name, data in others.items() if not name.endswith((".mp3", ".interrupted"))}


def test_text_comes_in_the_order_of_the_command_line(run: Run) -> None:
    expected = [*LONG.splitlines(), "one", "two", "three"]
    assert run("long.mp3", "empty.mp3", "short.mp3", "third.mp3") == (0, expected, [])
    assert run("long.mp3", "short.mp3", "third.mp3", "--verbose", "False") == (0, expected, [])


def test_blocks_with_times_are_never_interleaved(run: Run) -> None:
    _, out, _ = run("long.mp3", "short.mp3", "third.mp3", "--verbose", "True")
    texts = ["Detected language: English" if "Detected" in line else line.partition("]  ")[2] for line in out]
    language = "Detected language: English"
    assert texts == [language, *LONG.splitlines(), language, "one", "two", language, "three"]


def test_a_recording_that_fails_does_not_hold_up_the_others(run: Run) -> None:
    code, out, err = run("half.mp3", "bad.mp3", "short.mp3", "bug.mp3", "third.mp3")
    assert (code, out) == (2, ["First", "one", "two", "three"])
    assert [line for line in err if line.startswith("stapes: ")].__len__() == 3


@pytest.mark.parametrize("concurrency", [1, 2, 3, 16])
def test_no_more_recordings_at_once_than_asked_for(
    run: Run, engines: list[ScriptedEngine], folder: Path, concurrency: int
) -> None:
    for number in range(12):
        (folder / f"{number:02}.mp3").write_text(f"{number}\n" * 5)
    names = sorted(path.name for path in folder.glob("[0-9]*.mp3"))
    code, out, _ = run(*names, "--concurrency", str(concurrency))
    assert (code, len(out)) == (0, 60)
    assert engines[0].most_at_once <= concurrency
    assert [job.source for job in engines[0].jobs] == names


def test_several_threads_read_for_a_gpu(
    run: Run, engines: list[ScriptedEngine], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stapes.cli.runner.reading_threads", lambda *_: 4)
    for number in range(40):
        (folder / f"{number:02}.mp3").write_text("!not audio" if number % 10 == 3 else f"{number}\n!warning")
    names = sorted(path.name for path in folder.glob("[0-9]*.mp3"))
    code, out, err = run(*names, "--concurrency", "6")
    assert (code, out) == (2, [str(number) for number in range(40) if number % 10 != 3])
    assert sum("not a recording" in line for line in err) == 4
    assert sorted(job.source for job in engines[0].jobs) == [name for name in names if name[1] != "3"]
    assert engines[0].most_at_once <= 6


def test_a_cpu_is_read_for_by_one_thread() -> None:
    def chosen(device: str, threads: int, concurrency: int) -> int:
        info: Any = SimpleNamespace(device=device, threads=threads)
        return reading_threads(info, concurrency)

    assert chosen("cpu", 16, 16) == 1
    assert (chosen("cuda:0", 16, 128), chosen("cuda:0", 4, 128), chosen("cuda:0", 16, 2)) == (8, 4, 2)


def test_recordings_are_worked_on_at_once(run: Run, folder: Path) -> None:
    (folder / "waits.mp3").write_text("begins\n!gather\nends")
    assert run("waits.mp3", "short.mp3", "third.mp3", "long.mp3")[:2] == (
        0, ["begins", "ends", "one", "two", "three", *LONG.splitlines()]
    )  # fmt: skip
    assert run("waits.mp3", "short.mp3", "third.mp3", "--concurrency", "3")[0] == 0


def test_how_many_at_once_follows_from_memory_and_count() -> None:
    def chosen(window_mb: int, row_mb: int, count: int, mode: str = "sequential", device: str = "cpu") -> int:
        info: Any = SimpleNamespace(window_bytes=window_mb << 20, row_bytes=row_mb << 20, device=device)
        return default_concurrency(info, TranscribeOptions.from_keywords({"beam_size": 5, "mode": mode}), count)

    assert chosen(0, 0, 100) == 16
    assert chosen(18, 6, 3) == 3
    assert chosen(18, 6, 1000) == 16
    assert chosen(234, 70, 1000) == 6
    assert chosen(8000, 70, 1000) == 1
    assert chosen(18, 6, 1000, "chunked") == 2
    assert (chosen(234, 70, 1000, device="cuda:0"), chosen(234, 70, 3, device="cuda:0,cuda:1")) == (128, 3)
    assert chosen(18, 6, 1000, "chunked", "cuda:0") == 2


def test_json_lines_report_every_event(events: Events, folder: Path) -> None:
    code, reported = events("short.mp3", "warn.mp3", "bad.mp3", "gone.mp3", "bug.mp3", "-f", "srt")
    assert code == 2
    of_short = [event for event in reported if event.get("file") == "short.mp3"]
    assert [event["event"] for event in of_short] == [
        "file_start", "window", "segment", "window", "segment", "file_done"
    ]  # fmt: skip
    assert of_short[0] == {
        "event": "file_start", "file": "short.mp3", "index": 1, "count": 4, "duration_s": 4.0, "resumed_windows": 0,
    }  # fmt: skip
    assert of_short[1] == {
        "event": "window", "file": "short.mp3", "seek_s": 0.0, "end_s": 2.0, "left_out_s": [], "next_s": 2.0,
        "skipped": False, "temperature": 0.0, "avg_logprob": -0.5, "compression_ratio": 1.0, "no_speech_prob": 0.0,
        "resumed": False,
    }  # fmt: skip
    assert of_short[4] == {
        "event": "segment", "file": "short.mp3", "id": 1, "start_s": 2.0, "end_s": 4.0, "text": " two",
        "language": None, "resumed": False,
    }  # fmt: skip
    assert {**of_short[5], "elapsed_s": 0} == {
        "event": "file_done", "file": "short.mp3", "outputs": ["short.srt"], "language": "en", "duration_s": 4.0,
        "elapsed_s": 0, "windows": 2, "windows_resumed": 0,
    }  # fmt: skip
    failed = {event["file"]: event for event in named(reported, "file_failed")}
    assert {name: event["kind"] for name, event in failed.items()} == {
        "bad.mp3": "AudioError", "gone.mp3": "AudioError", "bug.mp3": "ZeroDivisionError"
    }  # fmt: skip
    assert "Traceback" in failed["bug.mp3"]["traceback"]
    assert [(event["file"], event["message"]) for event in named(reported, "warning")] == [
        ("warn.mp3", "warn.mp3: cut short; transcribed what is there"), ("warn.mp3", "warn.mp3: kept in the result")
    ]  # fmt: skip
    (summary,) = named(reported, "summary")
    assert summary is reported[-1]
    assert {name: summary[name] for name in ("files", "done", "failed", "skipped", "audio_s")} == {
        "files": 5, "done": 2, "failed": 3, "skipped": 0, "audio_s": 6.0
    }  # fmt: skip
    assert summary["times_real_time"] > 0
    page = (Path(__file__).parents[2] / "docs" / "command.md").read_text(encoding="utf-8")
    rows = {row.split("`")[1]: set(row.split("`")[1::2]) for row in page.splitlines() if row.startswith("| `")}
    for event in reported:
        assert event.keys() - {"event"} <= rows[event["event"]]


def test_a_segment_names_its_language_where_several_are_spoken(capsys: pytest.CaptureFixture[str]) -> None:
    said = Segment(id=0, seek=0, start_s=0.0, end_s=1.0, text=" Gut.", tokens=(), temperature=0.0, avg_logprob=0.0,
                   compression_ratio=1.0, no_speech_prob=0.0, language="de")  # fmt: skip
    write_json_line(SegmentDone(Recording(number=1, count=1, source="talk.mp3"), said, resumed=False))
    assert json.loads(capsys.readouterr().err)["language"] == "de"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ([], "OptionError"),
        (["short.mp3", "--beam_size", "x"], "OptionError"),
        (["short.mp3", "-o", "short.mp3"], "OutputError"),
        (["short.mp3", "--skip-existing"], "OptionError"),
        (["short.mp3", "--concurrency", "0"], "OptionError"),
    ],
)
def test_json_lines_report_a_refused_command(events: Events, words: list[str], kind: str) -> None:
    code, reported = events(*words)
    assert (code, [(event["event"], event["kind"]) for event in reported]) == (2, [("error", kind)])


def test_actions_of_guards_are_reported(run: Run, events: Events, folder: Path) -> None:
    Path("silent.mp3").write_text("Hello.\n!invented\n", encoding="utf-8")
    code, text, lines = run("silent.mp3")
    assert (code, text) == (0, ["Hello."])
    assert lines == ["stapes: silent.mp3: 0.5-1.2 s: dropped 'Thank you.': no speech here (--mode reference keeps it)"]
    _, reported = events("silent.mp3")
    assert named(reported, "guard") == [
        {"event": "guard", "file": "silent.mp3", "guard": "silence", "start_s": 0.5, "end_s": 1.25,
         "reason": "no speech here", "text": "Thank you.", "resumed": False}
    ]  # fmt: skip


def test_standard_output_does_not_depend_on_what_is_reported(run: Run) -> None:
    plain = run("short.mp3", "third.mp3")
    assert plain[2] == []
    for progress in ("auto", "bar", "none"):
        assert run("short.mp3", "third.mp3", "--progress", progress) == plain
    assert run("short.mp3", "third.mp3", "--progress=json")[:2] == plain[:2]


@pytest.mark.parametrize("concurrency", ["1", "4"])
def test_the_same_command_goes_on_where_it_was(
    events: Events, engines: list[ScriptedEngine], folder: Path, concurrency: str
) -> None:
    words = ("short.mp3", "stop.mp3", "long.mp3", "-f", "all", "--concurrency", concurrency)
    code, reported = events(*words)
    assert code == 130
    assert [event["kind"] for event in named(reported, "error")] == ["stopped"]
    assert JOURNAL_NAME in made_in(folder)
    known = {name: [at for at, _ in windows(reported, name)] for name in ("stop.mp3", "long.mp3")}
    assert known["stop.mp3"][:2] == [0.0, 2.0]

    code, reported = events(*words)
    assert code == 0
    assert [(event["file"], event["reason"]) for event in named(reported, "file_skipped")] == [
        ("short.mp3", "done_before")
    ]
    for name, at in known.items():
        assert [seek_s for seek_s, resumed in windows(reported, name) if resumed] == at
        seeks = [seek_s for seek_s, _ in windows(reported, name)]
        assert seeks == [2.0 * number for number in range(len(seeks))]
    started = {event["file"]: event["resumed_windows"] for event in named(reported, "file_start")}
    assert started == {name: len(at) for name, at in known.items()}
    broken = made_in(folder)
    assert JOURNAL_NAME not in "".join(broken)

    assert events(*words)[0] == 0  # finished: it transcribes again
    assert len(engines[2].jobs) == 3
    assert not any(job.resume for job in engines[2].jobs)
    assert made_in(folder) == broken


def test_a_line_says_where_a_run_goes_on(run: Run) -> None:
    run("short.mp3", "stop.mp3", "-f", "srt", "--concurrency", "1")
    assert run("short.mp3", "stop.mp3", "-f", "srt", "--concurrency", "1") == (
        0,
        [],
        [
            "stapes: stop.mp3: goes on at 0:06 of 0:08; earlier windows are known from an interrupted run",
            "stapes: done before the run was interrupted: short.mp3",
        ],
    )


def test_other_options_begin_anew(events: Events) -> None:
    words = ("stop.mp3", "-f", "srt")
    assert events(*words)[0] == 130
    code, reported = events(*words, "--beam_size", "2")
    assert code == 0
    assert [resumed for _, resumed in windows(reported, "stop.mp3")] == [False] * 4


def test_a_result_that_is_gone_is_made_again(events: Events, folder: Path) -> None:
    words = ("short.mp3", "stop.mp3", "-f", "srt", "--concurrency", "1")
    assert events(*words)[0] == 130
    (folder / "short.srt").unlink()
    assert events(*words)[0] == 0
    assert (folder / "short.srt").exists()


def test_another_format_is_made_although_the_run_was_interrupted_after_it(events: Events, folder: Path) -> None:
    words = ("short.mp3", "stop.mp3", "--concurrency", "1")
    assert events(*words, "-f", "srt")[0] == 130
    assert events(*words, "-f", "all")[0] == 0
    assert (folder / "short.json").exists()


def test_another_layout_is_made_although_the_run_was_interrupted_after_it(events: Events, folder: Path) -> None:
    words = ("short.mp3", "stop.mp3", "--concurrency", "1", "-f", "srt", "--word_timestamps", "True")
    assert events(*words, "--max_words_per_line", "1")[0] == 130
    code, reported = events(*words, "--max_words_per_line", "2")
    assert code == 0
    assert named(reported, "file_skipped") == []
    assert [resumed for _, resumed in windows(reported, "stop.mp3")] == [
        True,
        True,
        True,
        False,
    ]  # a layout changes no window


def test_existing_files_are_skipped_if_asked_for(run: Run, events: Events, engines: list[ScriptedEngine]) -> None:
    assert run("short.mp3", "third.mp3", "-f", "srt") == (0, [], [])
    words = ("short.mp3", "long.mp3", "third.mp3", "-f", "srt", "--skip-existing")
    assert run(*words) == (0, [], ["stapes: skipped, as the files are there: short.mp3, third.mp3"])
    assert [job.source for job in engines[1].jobs] == ["long.mp3"]
    code, reported = events(*words)
    assert (code, len(engines)) == (0, 2)  # no model is loaded where nothing is left
    assert [event["event"] for event in reported] == [*["file_skipped"] * 3, "summary"]
    assert [(event["file"], event["reason"], event["outputs"]) for event in named(reported, "file_skipped")] == [
        (f"{stem}.mp3", "exists", [f"{stem}.srt"]) for stem in ("short", "long", "third")
    ]
    assert reported[-1]["skipped"] == 3
    assert run("short.mp3", "-f", "all", "--skip-existing") == (0, [], [])  # not all were there


def test_an_existing_file_is_not_skipped_while_the_journal_has_more_of_it(events: Events, folder: Path) -> None:
    (folder / "stop.srt").write_text("old")
    assert events("stop.mp3", "-f", "srt")[0] == 130
    code, reported = events("stop.mp3", "-f", "srt", "--skip_existing")
    assert code == 0
    assert [resumed for _, resumed in windows(reported, "stop.mp3")][:2] == [True, True]
    assert "Fourth" in (folder / "stop.srt").read_text()


def test_what_could_not_be_written_need_not_be_decoded_again(
    events: Events, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    code, reported = events("long.mp3", "-f", "srt")
    assert (code, named(reported, "file_failed")[0]["kind"]) == (2, "OutputError")
    monkeypatch.setattr(os, "fsync", real)
    code, reported = events("long.mp3", "-f", "srt")
    assert (code, {resumed for _, resumed in windows(reported, "long.mp3")}) == (0, {True})
    assert set(made_in(folder)) == {"long.srt"}


def test_a_journal_that_fails_at_the_very_end_is_reported(
    events: Events, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(entry: JournalEntry, _: object) -> None:
        entry._journal.change(("no statement", ()))

    monkeypatch.setattr(JournalEntry, "done", fail)
    code, reported = events("short.mp3", "-f", "srt")
    assert (code, "the journal has failed" in named(reported, "warning")[0]["message"]) == (0, True)
    assert (folder / "short.srt").exists()


def test_no_journal_is_kept_of_text_alone(run: Run, folder: Path) -> None:
    run("stop.mp3", "short.mp3")
    assert made_in(folder) == {}


def test_standard_input_is_not_journaled(events: Events, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        with (folder / "stop.mp3").open() as stream:
            monkeypatch.setattr("sys.stdin", stream)
            code, reported = events("-", "short.mp3", "-f", "srt")
    assert code == 0
    assert [resumed for _, resumed in windows(reported, "-")] == [False] * 4
    assert set(made_in(folder)) == {"stdin.srt", "short.srt"}


def test_no_line_says_go_on_where_nothing_is_kept(
    events: Events, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (folder / "stop.mp3").open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        code, reported = events("-", "-f", "srt")
    assert (code, named(reported, "note")) == (130, [])
    assert named(reported, "error")[0]["error"] == "stopped; finished files stay, none is half-written"

    def fail(entry: JournalEntry) -> None:
        entry._journal.change(("no statement", ()))

    monkeypatch.setattr(JournalEntry, "recall", fail)  # before the recording is interrupted
    code, reported = events("stop.mp3", "-f", "srt")
    assert (code, "the journal has failed" in named(reported, "warning")[0]["message"]) == (130, True)
    assert named(reported, "error")[0]["error"] == "stopped; finished files stay, none is half-written"
    assert {name for name in made_in(folder) if name.endswith(".srt")} == set()


def test_ctrl_c_while_a_run_that_goes_on_loads_its_model_says_that_it_goes_on(
    events: Events, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert events("stop.mp3", "-f", "srt")[0] == 130
    with monkeypatch.context() as patched:

        def interrupt(_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(command, "load_engine", interrupt)
        for name, line in (
            ("stop.mp3", "stopped; the same command goes on where it was"),
            ("short.mp3", "stopped; finished files stay, none is half-written"),
        ):
            code, reported = events(name, "-f", "srt")
            assert (code, [event["error"] for event in named(reported, "error")]) == (130, [line])
    code, reported = events("stop.mp3", "-f", "srt")
    assert (code, windows(reported, "stop.mp3")[0]) == (0, (0.0, True))


def test_a_summary_on_a_terminal_has_the_numbers_of_the_json_line(
    run: Run, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("short.mp3", "third.mp3", "bad.mp3", "gone.mp3", "half.mp3", "-f", "srt")
    (summary,) = named(events(*words)[1], "summary")
    assert (summary["files"], summary["done"], summary["failed"], summary["skipped"]) == (5, 2, 3, 0)
    monkeypatch.setattr("stapes.cli.terminal.is_terminal", lambda _: True)
    code, _, err = run(*words)
    assert (code, err[-2:]) == (
        2, ["stapes: 2 done, 3 failed (0:06 in 0:00)", "stapes: failed: gone.mp3, bad.mp3, half.mp3"]
    )  # fmt: skip
    assert summary["audio_s"] == 6.0
    assert run("short.mp3", "-f", "srt")[2] == ["stapes: wrote short.srt"]
    assert "stapes: 1 done, 1 skipped" in run("short.mp3", "long.mp3", "-f", "srt", "--skip-existing")[2][-1]
    assert run("short.mp3", "third.mp3", "-f", "srt", "--progress", "none")[2] == []


def test_answers_that_do_not_fit_are_dropped(events: Events, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("stop.mp3", "-f", "srt")
    assert events(*words)[0] == 130
    monkeypatch.setattr("tests.cli.scripted_engine.refuses_resume", True)
    code, reported = events(*words)
    assert (code, [resumed for _, resumed in windows(reported, "stop.mp3")]) == (0, [False] * 4)
    assert "the journal does not fit it" in named(reported, "warning")[0]["message"]
    assert set(made_in(folder)) == {"stop.srt"}
