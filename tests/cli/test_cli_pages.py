"""`stapes report` and `stapes plot`: the files they write, and what is refused before any work."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import threading
import wave
from pathlib import Path

import numpy as np
import pytest

from stapes.cli import main as command
from stapes.engine.engine import Engine
from stapes.journal.journal import Journal
from stapes.output.files import output_stem
from stapes.testing import scripted_engine, tone
from tests.audio_files import muxed
from tests.cli.running import Run, runner


def wav(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(16_000)
        written.writeframes((tone(seconds) * 20_000).astype(np.int16).tobytes())
    return file.getvalue()


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    made: list[Engine] = []

    def load(_: object) -> Engine:
        made.append(scripted_engine(" Hello, dear world."))
        return made[-1]

    monkeypatch.setattr(command, "load_engine", load)
    return made


@pytest.fixture
def run(
    engines: list[Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in ("talk.wav", "report.mp3", "other.wav", "report"):
        (tmp_path / name).write_bytes(wav(3.0))

    return runner(capsys)


def made_in(folder: Path) -> set[str]:
    there = {"talk.wav", "report.mp3", "other.wav", "report"}
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - there


def test_a_report_lies_in_the_current_folder_and_has_words(run: Run, tmp_path: Path) -> None:
    assert run("report", "talk.wav") == (0, [], [])
    assert made_in(tmp_path) == {"talk.report.html"}
    page = (tmp_path / "talk.report.html").read_text(encoding="utf-8")
    assert "<h1><bdi>talk.wav</bdi></h1>" in page
    assert ">Hello,</span>" in page
    assert "scripted (memory)" in page


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("report", "talk.wav", "-o", "pages"), "pages/talk.report.html"),
        (("report", "talk.wav", "--output", "my page.htm"), "my page.htm"),
        (("report", "talk.wav", "--output=new/page.html", "--audio", "none"), "new/page.html"),
        (("report", "report.mp3", "--audio", "link"), "report.report.html"),
        (("report", "./report"), "report.report.html"),
        (("plot", "talk.wav"), "talk.plot.png"),
        (("plot", "talk.wav", "-f", "SVG", "-o", "a/b"), "a/b/talk.plot.svg"),
        (("plot", "talk.wav", "--output", "x.SVG", "--window", "1", "--span", "0,2"), "x.SVG"),
    ],
)
def test_files_lie_where_they_are_asked_for(run: Run, tmp_path: Path, words: tuple[str, ...], name: str) -> None:
    assert run(*words) == (0, [], [])
    assert made_in(tmp_path) == {name}


def test_recordings_named_report_are_transcribed_as_ever(run: Run, tmp_path: Path) -> None:
    for name in ("report.mp3", "./report"):
        code, out, err = run(name, "--language", "en")
        assert (code, " ".join(out), err) == (0, "Hello, dear world.", [])
    assert made_in(tmp_path) == set()
    assert run("report")[2] == [
        "stapes: report: give a recording to 'stapes report'; for the file of that name write ./report"
    ]


def test_several_recordings_have_a_page_each(run: Run, tmp_path: Path, engines: list[Engine]) -> None:
    assert run("report", "talk.wav", "other.wav", "--language", "en") == (0, [], [])
    assert made_in(tmp_path) == {"talk.report.html", "other.report.html"}
    assert len(engines) == 1
    assert run("report", "talk.wav", "other.wav", "--skip_existing")[2] == [
        "stapes: skipped, as the files are there: talk.wav, other.wav"
    ]


def test_a_line_says_that_a_terminal_is_read(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stapes.cli.report.is_terminal", lambda one: one is sys.stdin)
    for words in ((), ("--progress", "json")):
        monkeypatch.setattr(sys, "stdin", (tmp_path / "talk.wav").open())
        err = run("report", "-", *words)[2]
        sys.stdin.close()
        assert sum("waiting for a recording on standard input" in line for line in err) == 1
        assert not words or json.loads(err[0])["event"] == "note"


def test_standard_input_has_a_page_too(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(wav(3.0))))
    assert run("report", "-") == (0, [], [])
    assert made_in(tmp_path) == {"stdin.report.html"}
    monkeypatch.setattr(sys, "stdin", None)
    assert run("report", "-")[2] == ["stapes: standard input: is closed; name a file, or pipe one in"]


@pytest.mark.parametrize("kind", ["report", "plot"])
def test_a_pipe_is_reported_by_its_name(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    for data in (wav(3.0), b"no sound"):
        os.mkfifo("pipe.wav")
        writer = threading.Thread(target=Path("pipe.wav").write_bytes, args=(data,), daemon=True)
        writer.start()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        _, _, err = run(kind, "-", "pipe.wav", "--progress", "json")
        writer.join(5)
        reported = [json.loads(line) for line in err]
        assert {one["file"] for one in reported if "file" in one} == {"-", "pipe.wav"}
        assert tempfile.gettempdir() not in "".join(err).replace(str(tmp_path), "")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        Path("pipe.wav").unlink()
    assert run(kind, "-")[2] == [
        "stapes: standard input: the file is empty (0 bytes); nothing was recorded or copied into it"
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("report",), "give a recording"),
        (("plot",), "give at least one recording"),
        (("report", "talk.wav", "other.wav", "--output", "one.html"), "one file, and there are several recordings"),
        (("report", "talk.wav", "--output", "a.html", "-o", "b"), "either --output FILE or --output_dir FOLDER"),
        (("report", "talk.wav", "--output", "a.html", "--skip_existing"), "leave out --output"),
        (("report", "talk.wav", "-f", "srt"), "in other formats are written without report"),
        (("plot", "talk.wav", "-f", "gif"), "invalid choice"),
        (("report", "talk.wav", "--audio", "loud"), "invalid choice"),
        (("report", "-", "--audio", "link"), "standard input is no file"),
        (("report", "talk.wav", "--tempo", "3"), "unknown flag --tempo"),
        (("plot", "talk.wav", "--output", "a.gif"), "is a .png or an .svg"),
        (("report", "talk.wav", "--output", "-"), "nothing to standard output; for this name write ./-"),
        (("plot", "talk.wav", "--output", "-"), "nothing to standard output; for this name write ./-"),
        (("plot", "talk.wav", "--window", "0"), "counted from 1"),
        (("plot", "talk.wav", "--window", "1", "--vad", "True"), "leave --vad out"),
        (("plot", "talk.wav", "--window", "1,x"), "counted from 1"),
        (("plot", "talk.wav", "--span", "5"), "two times in seconds"),
        (("plot", "talk.wav", "--span", "5,4"), "the earlier time first"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    run: Run, tmp_path: Path, engines: list[Engine], words: tuple[str, ...], said: str
) -> None:
    code, out, err = run(*words)
    assert (code, out, len(err)) == (2, [], 1)
    assert said in err[0]
    assert not engines
    assert made_in(tmp_path) == set()


def test_without_matplotlib_a_plot_is_refused_with_the_way_out(
    run: Run, engines: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run("plot", "talk.wav") == (
        2, [], ["stapes: plots need matplotlib, which is not installed: 'pip install \"stapes[plot]\"'"],
    )  # fmt: skip
    assert not engines
    assert run("report", "talk.wav") == (0, [], [])


def test_a_window_that_is_not_there_costs_one_recording(run: Run, tmp_path: Path) -> None:
    code, _, err = run("plot", "talk.wav", "--window", "9")
    assert (code, err) == (2, ["stapes: talk.wav: there is no window 9: the recording has one window, counted from 1"])
    assert not any(name.endswith(".png") for name in made_in(tmp_path))


def test_a_bad_recording_does_not_stop_the_others(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.mp3").write_bytes(b"no sound at all")
    code, _, err = run("report", "bad.mp3", "talk.wav")
    assert (code, len(err)) == (2, 1)
    assert (tmp_path / "talk.report.html").exists()
    assert not (tmp_path / "bad.report.html").exists()


def test_a_damaged_recording_is_reported_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cut.wav").write_bytes(wav(3.0)[:-20_000])
    code, _, err = run("report", "cut.wav")
    assert (code, len(err)) == (0, 1)
    assert "cut short" in err[0]
    assert "cut short" in (tmp_path / "cut.report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["report", "plot"])
def test_help_names_the_flags_of_the_page_and_of_a_transcription(run: Run, kind: str) -> None:
    code, out, err = run(kind, "--help")
    text = "\n".join(out)
    assert (code, err) == (0, [])
    assert f"usage: stapes {kind} AUDIO... [flags]" in text
    for flag in ("--output FILE", "--model", "--language", "--temperature"):
        assert flag in text
    assert "--word_timestamps" not in text
    assert max(map(len, out)) <= 80


@pytest.mark.parametrize("kind", ["report", "plot"])
def test_a_pipe_has_a_page_too(run: Run, tmp_path: Path, kind: str) -> None:
    os.mkfifo("pipe.wav")
    writer = threading.Thread(target=lambda: Path("pipe.wav").write_bytes(wav(3.0)), daemon=True)
    writer.start()
    assert run(kind, "pipe.wav") == (0, [], [])
    writer.join(5)
    assert made_in(tmp_path) == {f"pipe.{kind}.{'html' if kind == 'report' else 'png'}"}
    assert "the pipe pipe.wav is no file" in run("report", "pipe.wav", "--audio", "link")[2][0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("report", "talk.wav", "--output", "talk.wav"), "talk.wav: would replace the input talk.wav"),
        (("report", "talk.wav", "--output", "./sub/../talk.wav"), "would replace the input talk.wav"),
        (("report", "talk.wav", "--output", "hard.html"), "hard.html: would replace the input talk.wav"),
        (("report", "talk.wav", "--output", "link.html"), "link.html: would replace the input talk.wav"),
        (("plot", "talk.wav", "--output", "hard.png"), "hard.png: would replace the input talk.wav"),
        (("report", "talk.wav", "--output", "/dev/null"), "/dev/null: is a device or a pipe, not a file"),
        (("report", "talk.wav", "--output", "sub"), "sub: a folder of this name is in the way"),
        (("report", "talk.wav", "--output", f"{'n' * 251}.html"), "the name is too long for this disk"),
        (("report", "n" * 250), "the name is too long for this disk"),
        (("report", "talk.wav", "--output", "/proc/page.html"), "the system lets no file be made in /proc"),
        (("report", "talk.wav", "talk2.report.html.wav", "-o", "sub"), "would replace the input sub/talk.report.html"),
    ],
)  # fmt: skip
def test_a_page_never_replaces_an_input(
    run: Run, tmp_path: Path, engines: list[Engine], words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "n".ljust(250, "n")).write_bytes(wav(0.1))
    (tmp_path / "talk.report.html").symlink_to("talk.wav")
    for name in ("hard.html", "hard.png"):
        os.link("talk.wav", name)
    (tmp_path / "link.html").symlink_to("talk.wav")
    if "talk2.report.html.wav" in words:
        (tmp_path / "sub/talk.report.html").write_bytes(wav(0.1))
        words = ("report", "talk.wav", "sub/talk.report.html", "-o", "sub")
    code, out, err = run(*words)
    assert (code, out, len(err)) == (2, [], 1)
    assert said in err[0]
    assert (tmp_path / "talk.wav").read_bytes() == wav(3.0)
    assert not engines or "sub" in words


@pytest.mark.parametrize(
    "name", [os.fsdecode(b"\xff.wav"), "\x1b[2J.wav", "$x^{2.wav", "two\nlines.wav", "n" * 243, "<b>.wav"]
)
@pytest.mark.parametrize("kind", ["report", "plot"])
def test_a_page_of_any_name_is_made(run: Run, tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / name).write_bytes(wav(3.0))
    assert run(kind, "--", name) == (0, [], [])
    assert (tmp_path / f"{output_stem(name)}.{kind}.{'html' if kind == 'report' else 'png'}").exists()


def late_stereo() -> bytes:
    """Sound whose channels cancel each other, on a second track that begins 5 s after the picture."""
    sound = tone(3.0)
    return muxed([(0.0, sound)], [(5.0, np.column_stack([sound, -sound]))], video_s=4.0)


CHOICE = ("--audio-track", "2", "--channel", "left", "--clock", "container")


def test_files_and_pages_have_the_times_and_the_sound_that_were_chosen(run: Run, tmp_path: Path) -> None:
    (tmp_path / "late.mkv").write_bytes(late_stereo())
    assert run("late.mkv", "-f", "srt,json", *CHOICE) == (0, [], [])
    assert (tmp_path / "late.srt").read_text().startswith("1\n00:00:05,000 --> ")
    assert run("report", "late.mkv", *CHOICE) == (0, [], [])
    assert '"duration_s":8.0' in (tmp_path / "late.report.html").read_text(encoding="utf-8").replace(" ", "")
    assert run("plot", "late.mkv", "--window", "1", *CHOICE) == (0, [], [])
    assert (tmp_path / "late.plot.png").is_file()


def test_what_a_file_hides_is_reported_once_though_a_page_reads_it_twice(run: Run, tmp_path: Path) -> None:
    (tmp_path / "late.mkv").write_bytes(late_stereo())
    for words in (("late.mkv", "-f", "srt"), ("report", "late.mkv"), ("plot", "late.mkv")):
        code, _, said = run(*words)
        text = " ".join(said)
        assert code == 0
        for warning in ("has 2 sound tracks", "cancel each other", "begins 5.0 s later"):
            assert text.count(warning) == 1, (words, warning)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--audio_track", "0"), "audio_track must be a whole number of at least 1, got 0"),
        (("--audio_track", "x"), "give a whole number or None"),
        (("--channel", "both"), "invalid choice: 'both'"),
        (("--clock", "wall"), "invalid choice: 'wall'"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(run: Run, engines: list[Engine], words: tuple[str, ...], said: str) -> None:
    code, _, err = run("talk.wav", *words)
    assert (code, len(err)) == (2, 1)
    assert said in err[0]
    assert not engines


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--audio_track", "2"), "talk.wav: has no sound track 2; it holds 1 sound track (1 channel), counted from 1"),
        (("--channel", "right"), "talk.wav: has one channel, so there is no right one; leave --channel out"),
    ],
)
def test_a_choice_that_a_file_does_not_offer_is_said_of_the_file(run: Run, words: tuple[str, ...], said: str) -> None:
    code, _, err = run("talk.wav", *words)
    assert code == 2
    assert said in " ".join(err)


def test_a_clip_after_the_end_is_reported_once_for_each_recording(run: Run, tmp_path: Path) -> None:
    (tmp_path / "long.wav").write_bytes(wav(8.0))
    code, _, err = run("talk.wav", "long.wav", "--clip_timestamps", "0,2,7", "--language", "en", "-f", "txt")
    said = "the clip from 7 s on starts after the end of the recording (3 s) and is left out"
    assert (code, err) == (0, [f"stapes: warning: talk.wav: {said}"])
    assert run("report", "talk.wav", "--clip_timestamps", "0,2,7", "--language", "en")[2] == err
    assert said in (tmp_path / "talk.report.html").read_text(encoding="utf-8")


def test_a_recording_given_twice_has_one_page(run: Run, tmp_path: Path, engines: list[Engine]) -> None:
    assert run("report", "talk.wav", "./talk.wav", "--output", "one.html") == (0, [], [])
    assert run("plot", "talk.wav", str(tmp_path / "talk.wav")) == (0, [], [])
    assert made_in(tmp_path) == {"one.html", "talk.plot.png"}


def test_pages_that_would_share_a_name_are_refused_and_the_others_made(run: Run, tmp_path: Path) -> None:
    (tmp_path / "talk.mp3").write_bytes(wav(3.0))
    code, _, err = run("report", "talk.wav", "talk.mp3", "other.wav", "-o", "pages")
    assert (code, len(err)) == (2, 2)
    assert all("would be written to talk.report.html, and so would talk." in line for line in err)
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["other.report.html"]


def test_a_page_goes_on_where_it_was_with_a_file_that_was_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engines: list[Engine]
) -> None:
    close = Journal.close  # a run that has not finished keeps what is done
    monkeypatch.setattr(Journal, "close", lambda journal, **_: close(journal, finished=False))
    assert run("report", "talk.wav", "--output", "pages/one.html") == (0, [], [])
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "load_engine", lambda _: scripted_engine(" Hello, dear world."))
    assert run("report", "talk.wav", "--output", "pages/one.html")[2] == [
        "stapes: done before the run was interrupted: talk.wav"
    ]
