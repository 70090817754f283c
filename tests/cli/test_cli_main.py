"""The command as a whole, with a scripted engine: its outputs, and the end of every error."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stapes.cli import main as command
from stapes.cli.inputs import find_inputs
from stapes.errors import CheckpointError, ModelNotFoundError
from tests.cli.running import Run, runner
from tests.cli.scripted_engine import ScriptedEngine


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    """Return the one engine; loading a second is a failure."""
    made = ScriptedEngine()
    supply = iter([made])
    monkeypatch.setattr(command, "load_engine", lambda _: next(supply))
    return made


@pytest.fixture
def run(
    engine: ScriptedEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run the command among a few recordings; gives the exit code, standard output, standard error."""
    recordings = {
        "a.mp3": "Hello,\nworld.",
        "b.wav": "Grüße",
        "bad.mp3": "!not audio",
        "half.mp3": "First\n!not audio",
        "nameless.mp3": "!nameless error",
        "bug.mp3": "!bug",
        "warn.mp3": "!warning\n!library warning\n!noted\nText",
        "stop.mp3": "One\n!interrupt\nTwo",
        "notes.txt": "no recording",
    }
    for name, text in recordings.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    return runner(capsys)


def made_in(folder: Path) -> set[str]:
    suffixes = {".txt", ".srt", ".vtt", ".tsv", ".json"}
    return {path.name for path in folder.rglob("*") if path.suffix in suffixes or "tmp" in path.name} - {"notes.txt"}


def test_plain_text_goes_to_standard_output_and_no_file_is_written(run: Run, tmp_path: Path) -> None:
    assert run("a.mp3") == (0, ["Hello,", "world."], [])
    assert made_in(tmp_path) == set()


def test_several_recordings_follow_each_other_with_one_model(run: Run, engine: ScriptedEngine) -> None:
    assert run("b.wav", "a.mp3") == (0, ["Grüße", "Hello,", "world."], [])
    assert [job.source for job in engine.jobs] == ["b.wav", "a.mp3"]
    assert engine.closed


def test_files_are_written_and_standard_output_stays_empty(run: Run, tmp_path: Path) -> None:
    assert run("a.mp3", "b.wav", "-f", "srt") == (0, [], [])
    assert made_in(tmp_path) == {"a.srt", "b.srt"}
    assert (tmp_path / "a.srt").read_text().startswith("1\n00:00:00,000 --> 00:00:02,000\nHello,\n")


def test_a_folder_alone_means_every_format_and_is_made(run: Run, tmp_path: Path) -> None:
    assert run("a.mp3", "-o", "new/texts") == (0, [], [])
    assert made_in(tmp_path / "new" / "texts") == {"a.txt", "a.vtt", "a.srt", "a.tsv", "a.json"}
    assert json.loads((tmp_path / "new/texts/a.json").read_text())["text"] == " Hello, world."


def test_readable_subtitles_and_formats_of_our_own_are_written(
    run: Run, engine: ScriptedEngine, tmp_path: Path
) -> None:
    assert run("a.mp3", "-f", "srt,lrc,ass,csv", "--cue-style", "readable", "-o", "new") == (0, [], [])
    assert engine.options[0].words.word_timestamps
    made = {path.suffix: path.read_text(encoding="utf-8") for path in (tmp_path / "new").iterdir()}
    assert made.keys() == {".srt", ".lrc", ".ass", ".csv"}
    assert made[".srt"] == "1\n00:00:00,000 --> 00:00:04,000\nHello, world.\n\n"
    assert made[".lrc"].splitlines()[2:] == ["[00:00.00]Hello, world.", "[00:04.00]"]
    assert made[".csv"] == 'start,end,text\n0,2000,"Hello,"\n2000,4000,"world."\n'


def test_verbose_true_shows_times_and_language_as_the_reference_does(run: Run, tmp_path: Path) -> None:
    lines = ["[00:00.000 --> 00:02.000]  Hello,", "[00:02.000 --> 00:04.000]  world."]
    code, out, err = run("a.mp3", "-f", "txt", "--verbose", "True")
    assert (code, sorted(out), err) == (0, sorted([*lines, "Detected language: English"]), [])
    assert made_in(tmp_path) == {"a.txt"}


def test_verbose_false_gives_the_text_when_a_recording_is_done(run: Run, tmp_path: Path) -> None:
    assert run("a.mp3", "half.mp3", "--verbose", "False") == (
        2, ["Hello,", "world."], ["stapes: half.mp3: not a recording; convert it to wav or mp3 first"]
    )  # fmt: skip
    assert made_in(tmp_path) == set()


def test_options_reach_the_engine(run: Run, engine: ScriptedEngine) -> None:
    run("a.mp3", "--beam-size", "2", "--language", "de", "--max-duration", "60")
    assert engine.options[0].search.beam_size == 2
    assert engine.options[0].speech.language == "de"
    assert engine.max_durations == [60.0]


def test_folders_and_patterns_are_opened_up(run: Run, engine: ScriptedEngine, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    for name in ("2.MP3", "1.ogg", "notes.txt", "below/3.mp3"):
        (folder / name).write_text("x")
    (tmp_path / "[odd].mp3").write_text("x")
    run("folder", "?.mp3", "[odd].mp3", "notes.txt")
    assert [job.source for job in engine.jobs] == [
        str(Path("folder", "1.ogg")), str(Path("folder", "2.MP3")), "a.mp3", "[odd].mp3", "notes.txt"
    ]  # fmt: skip


def test_what_a_folder_holds_beside_recordings_is_noted_in_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "c.mp3").write_text("x")
    names = ("1.ogg", "2.mp3", "notes.txt", "list.md", "1.srt", "2.json", ".hidden", "._2.mp3", "3.srt")
    for name in names:
        (tmp_path / "folder" / name).write_text("x")
    assert run("folder", "plain", "a.mp3")[2] == ["stapes: folder: 3 other files and 1 folder passed over"]
    for name in ("list.md", "3.srt", "notes.txt"):
        (tmp_path / "folder" / name).unlink()
    assert find_inputs(["folder"]).notes == ("folder: 1 folder passed over",)
    (tmp_path / "folder" / "below").rmdir()
    assert find_inputs(["folder", "plain"]).notes == ()


def test_a_line_says_that_a_terminal_is_read(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a.mp3").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        monkeypatch.setattr("stapes.cli.commands.is_terminal", lambda one: one is stream)
        code, out, err = run("-", "b.wav")
    assert (code, out) == (0, ["Hello,", "world.", "Grüße"])
    assert err == ["stapes: waiting for a recording on standard input: pipe one in, or press Ctrl-C and name a file"]


def test_standard_input_is_a_recording_named_stdin(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", (tmp_path / "a.mp3").open())
    assert run("-", "-f", "txt") == (0, [], [])
    assert (tmp_path / "stdin.txt").read_text() == "Hello,\nworld.\n"
    sys.stdin.close()


def test_a_bad_recording_does_not_stop_the_others(run: Run, tmp_path: Path) -> None:
    code, out, err = run("gone.mp3", "a.mp3", "bad.mp3", "half.mp3", "nameless.mp3", "b.wav", "-o", "out")
    assert (code, out) == (2, [])
    assert err[0] == "stapes: gone.mp3: no such file; check the spelling and the folder"
    assert sorted(err[1:]) == [  # as they happen
        "stapes: bad.mp3: not a recording; convert it to wav or mp3 first",
        "stapes: half.mp3: not a recording; convert it to wav or mp3 first",
        "stapes: nameless.mp3: the recording broke off",
    ]
    assert {name.partition(".")[0] for name in made_in(tmp_path)} == {"a", "b"}


def test_a_fault_of_ours_costs_one_recording(run: Run) -> None:
    code, out, err = run("bug.mp3", "b.wav")
    assert (code, out) == (2, ["Grüße"])
    assert err[0].startswith("Traceback")
    assert err[-1] == "stapes: bug.mp3: ZeroDivisionError: a fault in stapes; please report the lines above"


def test_warnings_are_lines_of_ours_each_once(run: Run) -> None:
    assert run("warn.mp3") == (
        0,
        ["Text"],
        [
            "stapes: warning: warn.mp3: cut short; transcribed what is there",
            "stapes: warning: warn.mp3: kept in the result",
        ],
    )


def test_ctrl_c_ends_with_130_and_nothing_half_written(run: Run, engine: ScriptedEngine, tmp_path: Path) -> None:
    code, out, err = run("a.mp3", "stop.mp3", "b.wav", "-f", "all", "--concurrency", "1")
    assert (code, out) == (130, [])
    assert err == [
        "stapes: stopping when the windows in flight are done; press Ctrl-C again to stop at once",
        "stapes: stopped; the same command goes on where it was",
    ]
    assert {name.partition(".")[0] for name in made_in(tmp_path)} == {"a"}
    assert [job.source for job in engine.jobs] == ["a.mp3", "stop.mp3"]
    assert engine.jobs[-1].cancelled
    assert engine.closed


def test_ctrl_c_stops_at_once_where_nothing_is_kept(run: Run, engine: ScriptedEngine) -> None:
    code, out, err = run("a.mp3", "stop.mp3", "b.wav", "--concurrency", "1")
    assert (code, out[:2]) == (130, ["Hello,", "world."])
    assert err == ["stapes: stopped"]
    assert engine.jobs[-1].cancelled
    assert engine.closed


def folder_in_the_way(tmp_path: Path, _: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").write_text("a file")


def unwritable(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)


def nothing(_: Path, __: pytest.MonkeyPatch) -> None:
    pass


Prepare = Callable[[Path, pytest.MonkeyPatch], None]


@pytest.mark.parametrize(
    ("words", "prepare", "sentence"),
    [
        (["gone.mp3"], nothing, "gone.mp3: no such file; check the spelling and the folder"),
        (["x*.mp3"], nothing, "x*.mp3: no file matches this pattern; check the spelling and the folder"),
        (
            ["https://example.org/a.mp3"],
            nothing,
            "https://example.org/a.mp3: an address, not a file; fetch it first",
        ),
        (
            ["https://me:pw@example.org/a.mp3?token=[1]*"],
            nothing,
            "https://example.org/a.mp3: an address, not a file; fetch it first, or pipe it: "
            "'curl -s ADDRESS | stapes -'",
        ),
        (["-", "-"], nothing, "standard input (-) can be read only once; give - once"),
        (
            ["a.mp3", "-o", "out"],
            folder_in_the_way,
            "out: a file of this name is in the way; choose another folder",
        ),
        (
            ["a.mp3", "-o", "out/in"],
            folder_in_the_way,
            "its folder is not a folder but a file; choose another",
        ),
        (["a.mp3", "-o", "out"], unwritable, "out: no permission to write here; choose another folder"),
        (["a.mp3", "--language", "klingon"], nothing, "unknown language 'klingon'; give a code such as 'en'"),
        (["a.mp3", "--language", "xx"], nothing, "this model does not know xx"),  # known once the model is
        (
            ["a.mp3", "--highlight_words", "True"],
            nothing,
            "--highlight_words requires --word_timestamps True",
        ),
        ([], nothing, "give at least one recording, for example: stapes talk.mp3"),
        (["models", "push"], nothing, "models push: write 'stapes models', or 'stapes models pull NAME'"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    run: Run, engine: ScriptedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str],
    prepare: Prepare, sentence: str,
) -> None:  # fmt: skip
    prepare(tmp_path, monkeypatch)
    code, out, err = run(*words)
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith("stapes: ")
    assert sentence in err[0]
    assert engine.jobs == []
    assert made_in(tmp_path) == set()


def test_an_address_is_shown_without_what_may_be_secret(run: Run, engine: ScriptedEngine) -> None:
    words = [f"https://me:pw@example.org/{name}?token={name}#t=3" for name in "ab"]
    code, out, err = run(*words, "s3://bucket/[a].mp3")
    assert (code, out) == (2, [])
    assert [one.split(": an address")[0] for one in err] == [
        "stapes: https://example.org/a",
        "stapes: https://example.org/b",
        "stapes: s3://bucket/[a].mp3",
    ]


def test_an_empty_folder_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run("empty", "a.mp3")[2] == [
        "stapes: empty: a folder without recordings; name the files, or a folder that holds them"
    ]


@pytest.mark.parametrize("error", [CheckpointError("x.pt: cut short"), ModelNotFoundError("no model 'huge'")])
def test_a_model_that_cannot_be_loaded_ends_in_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: CheckpointError
) -> None:
    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(command, "load_engine", refuse)
    assert run("a.mp3") == (2, [], [f"stapes: {error}"])


def test_a_full_disk_costs_a_sentence_and_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    code, out, err = run("a.mp3", "-f", "srt", "-o", "out")
    assert (code, out) == (2, [])
    assert err == [f"stapes: a.mp3: {Path('out', 'a.srt')}: the disk is full; free some space or choose another folder"]
    assert made_in(tmp_path) == set()
