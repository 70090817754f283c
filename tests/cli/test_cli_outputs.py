"""What a command writes, and what it never replaces: hostile names, links, inputs that would be outputs."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from stapes.cli import main as command
from stapes.cli import targets
from stapes.cli.output import printable
from stapes.journal.journal import JOURNAL_NAME
from stapes.output.files import file_identity, output_stem
from tests.cli.running import Run, runner
from tests.cli.scripted_engine import ScriptedEngine


@pytest.fixture
def run(
    engines: list[ScriptedEngine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


def record(*names: str) -> None:
    """Make recordings in the current folder; each says its own name."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"said in {name!a}", encoding="utf-8")


def is_whole(name: str) -> bool:
    return Path(name).read_text(encoding="utf-8") == f"said in {name!a}"


def sources(engine: ScriptedEngine) -> list[str]:
    return [job.source for job in engine.jobs]


NO_UTF8 = os.fsdecode(b"no\xffutf8.mp3")
LONGEST = "n" * 251 + ".mp3"
HOSTILE = (
    NO_UTF8, os.fsdecode(b"\x80.mp3"), "-f.mp3", "--help.mp3", "two\nlines.mp3", "\x1b[2J\x1b]0;x\x07.mp3",
    "\u202e3pm.mp3", " .mp3", "a b .mp3", "'\"$(x)`.mp3", "*.mp3", "[a].mp3", ".hidden", "...", "dot..mp3", "tab\t.mp3",
    "%s%n{}.mp3", "\u00e9.mp3", "e\u0301.mp3", "Talk.mp3", "talk.mp3", LONGEST, "CON.mp3", "back\\slash.mp3",
    "\U0001f600.mp3",
)  # fmt: skip


def test_recordings_of_any_name_are_done_and_reported_harmlessly(run: Run, engines: list[ScriptedEngine]) -> None:
    record(*HOSTILE)
    code, out, err = run("-o", "out", "-f", "txt", "--", *HOSTILE)
    assert (code, out, err) == (0, [], [])
    made = {path.name: path.read_text() for path in Path("out").iterdir()}
    assert made == {f"{output_stem(name)}.txt": f"said in {name!a}\n" for name in HOSTILE}
    assert all(map(is_whole, HOSTILE))


@pytest.mark.parametrize("progress", ["auto", "json"])
def test_reports_on_any_name_are_harmless_and_one_line_each(run: Run, progress: str) -> None:
    for name in HOSTILE:
        Path(name).write_text("!not audio")
    code, out, err = run("-o", "out", "--progress", progress, "--", *HOSTILE)
    assert (code, out) == (2, [])
    if progress == "json":
        failed = [one for one in map(json.loads, err) if one["event"] == "file_failed"]
        assert sorted(one["file"] for one in failed) == sorted(HOSTILE)
    else:
        assert len(err) == len(HOSTILE)
        # any letters, but no control characters and no direction marks
        assert printable("".join(err)) == "".join(err)
        assert "stapes: no\\xffutf8.mp3: not a recording; convert it to wav or mp3 first" in err
        assert "stapes: two\\nlines.mp3: not a recording; convert it to wav or mp3 first" in err
    assert list(Path("out").iterdir()) == []


@pytest.mark.parametrize("kind", ["!warning\nText", "!bug", "!nameless error", "!noted", "!invented\nText"])
def test_warnings_notes_and_tracebacks_are_harmless_too(run: Run, kind: str) -> None:
    names = ("\x1b[2J.mp3", NO_UTF8, "two\nlines.mp3")
    for name in names:
        Path(name).write_text(kind)
    _, _, err = run("-o", "out", "--", *names)
    assert len(err) >= len(names) * ("Text" not in kind or "warning" in kind)
    assert printable("".join(err)) == "".join(err)


def test_standard_error_may_be_as_strict_as_it_likes(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path(NO_UTF8).write_text("!not audio")
    Path("é.mp3").write_text("!not audio")
    with (tmp_path / "err").open("w", encoding="ascii", errors="strict") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert command.main([NO_UTF8, "é.mp3"]) == 2
    lines = (tmp_path / "err").read_bytes().splitlines()
    assert sorted(lines) == [
        b"stapes: \\xe9.mp3: not a recording; convert it to wav or mp3 first",
        b"stapes: no\\xffutf8.mp3: not a recording; convert it to wav or mp3 first",
    ]


def test_in_a_folder_of_hostile_names_nothing_is_lost_and_the_rest_is_done(
    run: Run, engines: list[ScriptedEngine], tmp_path: Path
) -> None:
    """The recordings of a folder, into that folder: those that cannot be are refused in one line each."""
    alone = [*HOSTILE, "folder/._talk.mp3"]
    record(*alone, "talk.wav", "talk.srt", "own.txt", "b.mp3", "copy.mp3", "long.mp3", "sub/b.wav", JOURNAL_NAME)
    Path("copy.txt").symlink_to("b.mp3")  # an output that leads to another recording
    os.link("long.mp3", "hard.vtt")
    record("hard.mp3")
    Path("b-again.mp3").symlink_to("b.mp3")  # a second name: another recording, to another file
    too_long = "m" * 252 + ".mp3"[:3]
    record(too_long)
    Path("kept.txt").symlink_to("elsewhere/kept.txt")  # an output that leads elsewhere: written there
    Path("elsewhere").mkdir()
    record("kept.mp3")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()}
    words = [*HOSTILE, "talk.wav", "talk.srt", "own.txt", "b.mp3", "./b.mp3", "sub/b.wav", "copy.mp3", "long.mp3",
             "hard.mp3", "b-again.mp3", too_long, "kept.mp3", JOURNAL_NAME, "folder"]  # fmt: skip

    code, out, err = run("-f", "txt,vtt,srt", "--", *words)

    refused = {"talk.mp3", "talk.wav", "talk.srt", "own.txt", "b.mp3", "sub/b.wav", "copy.mp3", "hard.mp3", too_long,
               JOURNAL_NAME, "folder"}  # fmt: skip
    assert (code, out) == (2, [])
    reported = [line for line in err if "warning" not in line]
    assert sorted(name for name in refused for line in reported if line.startswith(f"stapes: {name}: ")) == sorted(
        refused
    )
    assert len(reported) == len(refused)
    assert all(path.read_bytes() == data for path, data in before.items())
    done = {*HOSTILE, "long.mp3", "b-again.mp3", "kept.mp3"} - refused
    assert set(sources(engines[0])) == done
    for name in done:
        for suffix in ("txt", "vtt", "srt"):
            assert "said in" in Path(f"{output_stem(name)}.{suffix}").read_text()
    assert Path("elsewhere/kept.txt").read_text() == "said in 'kept.mp3'\n"
    assert not list(tmp_path.rglob("*.tmp-*"))


@pytest.mark.parametrize("make", [lambda a, b: None, os.link, os.symlink], ids=["same", "hard link", "link"])
@pytest.mark.parametrize(
    "words",
    [("-f", "txt"), ("-o", "."), ("-f", "srt,txt"), ("-f", "txt", "--skip_existing"), ("-f", "txt", "-o", "../folder")],
)
def test_a_recording_is_never_replaced_by_its_transcript(
    run: Run, engines: list[ScriptedEngine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    make: Callable[[str, str], None], words: tuple[str, ...],
) -> None:  # fmt: skip
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    name = "talk.txt" if "<lambda>" in make.__qualname__ else "talk.mp3"
    record(name, "other.mp3")
    make(name, "talk.txt")
    code, out, err = run(name, "other.mp3", *words)
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith(f"stapes: {name}: ")
    assert f"would replace the input {name}; choose another format or another folder" in err[0]
    assert is_whole(name)
    assert sources(engines[0]) == ["other.mp3"]
    assert Path("other.txt").exists()


def test_another_case_is_the_same_recording_where_the_disk_says_so(
    run: Run, engines: list[ScriptedEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    record("Talk.mp3", "talk.wav", "one.mp3")
    assert run("Talk.mp3", "talk.wav", "-f", "txt")[0] == 0  # this disk tells them apart
    monkeypatch.setattr(
        targets, "file_identity", lambda path: (0, 0) if ".stapes-" in str(path) else file_identity(path)
    )
    code, _, err = run("Talk.mp3", "talk.wav", "one.mp3", "-f", "txt")
    assert (code, len(err)) == (2, 2)
    assert sources(engines[1]) == ["one.mp3"]
    assert not list(Path().glob(".stapes-*"))


def test_recordings_that_share_an_output_are_all_refused_and_the_others_done(
    run: Run, engines: list[ScriptedEngine]
) -> None:
    record("a.mp3", "x/a.wav", "y/a.ogg", "b.mp3")
    code, out, err = run("a.mp3", "x/a.wav", "b.mp3", "y/a.ogg", "-f", "srt")
    assert (code, out) == (2, [])
    assert err == [
        f"stapes: {one}: would be written to a.srt, and so would {other} and 1 more; rename one, or transcribe it into "
        f"another folder: 'stapes {other} -o FOLDER'"
        for one, other in (("a.mp3", "x/a.wav"), ("x/a.wav", "a.mp3"), ("y/a.ogg", "a.mp3"))
    ]
    assert sources(engines[0]) == ["b.mp3"]
    assert run("a.mp3", "x/a.wav")[0] == 0  # to standard output nothing is shared


def test_the_same_recording_twice_is_done_once(run: Run, engines: list[ScriptedEngine], tmp_path: Path) -> None:
    record("x/a.mp3", "b.mp3")
    Path("y").mkdir()
    Path("y/a.mp3").symlink_to("../x/a.mp3")
    os.link("x/a.mp3", "a.wav")
    words = ("x/a.mp3", "./x/a.mp3", str(tmp_path / "x" / "a.mp3"), "y/a.mp3", "a.wav", "x", "b.mp3")
    assert run(*words, "-f", "txt") == (0, [], [])
    assert sources(engines[0]) == ["x/a.mp3", "b.mp3"]


def test_outputs_that_are_links_to_one_file_are_refused(run: Run, engines: list[ScriptedEngine]) -> None:
    record("a.mp3", "b.mp3", "c.mp3")
    Path("a.txt").symlink_to("b.txt")
    Path("c.txt").symlink_to("c.srt")
    code, _, err = run("a.mp3", "b.mp3", "c.mp3", "-f", "txt,srt")
    assert (code, len(err)) == (2, 3)
    assert "would be written to b.txt, and so would b.mp3" in err[0]
    assert "its links make one file of two outputs" in err[2]
    assert engines == []


def test_links_of_outputs_stay_and_lead_to_the_new_text(run: Run, tmp_path: Path) -> None:
    record("talk.mp3", "new.mp3")
    Path("texts").mkdir()
    Path("texts/talk.txt").write_text("old")
    Path("talk.txt").symlink_to("texts/talk.txt")
    Path("new.txt").symlink_to("middle")
    Path("middle").symlink_to("texts/new")
    before = Path("texts/talk.txt").stat().st_ino
    assert run("talk.mp3", "new.mp3", "-f", "txt") == (0, [], [])
    assert Path("talk.txt").is_symlink()
    assert Path("new.txt").is_symlink()
    assert {path.name: path.read_text() for path in Path("texts").iterdir()} == {
        "talk.txt": "said in 'talk.mp3'\n", "new": "said in 'new.mp3'\n"
    }  # fmt: skip
    assert Path("texts/talk.txt").stat().st_ino != before  # written beside it, and put in its place


def test_links_to_what_no_text_can_be_written_to_are_refused_before_work(
    run: Run, engines: list[ScriptedEngine]
) -> None:
    names = ("device", "folder", "fifo", "circle", "nowhere", "closed", "proc")
    record(*(f"{name}.mp3" for name in (*names, "other")))
    Path("sub").mkdir()
    os.mkfifo("pipe")
    for name, leads_to in zip(names, ("/dev/null", "sub", "pipe", "circle.txt", "gone/x.txt", "other.mp3/x", "/proc/x"),
                              strict=True):  # fmt: skip
        Path(f"{name}.txt").symlink_to(leads_to)
    code, _, err = run(*(f"{name}.mp3" for name in (*names, "other")), "-f", "txt")
    assert (code, len(err)) == (2, len(names))
    for line, (name, why) in zip(err, {
        "device": "is a device or a pipe, not a file", "folder": "a folder of this name is in the way",
        "fifo": "is a device or a pipe, not a file", "circle": "its links lead in a circle",
        "nowhere": "whose folder is missing", "closed": "its folder is not a folder but a file",
        "proc": "the system lets no file be made in /proc",
    }.items(), strict=True):  # fmt: skip
        assert line.startswith(f"stapes: {name}.mp3: ")
        assert why in line
    assert sources(engines[0]) == ["other.mp3"]
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert Path("device.txt").is_symlink()


def test_names_up_to_the_limit_are_done_and_longer_ones_refused(run: Run, engines: list[ScriptedEngine]) -> None:
    names = ["a" * 251, "b" * 251 + ".mp3", "c" * 250 + ".mp3", "é" * 125 + "x.mp3", "d" * 252, "f" * 250 + ".mp31"]
    record(*names)
    code, _, err = run(*names, "-f", "txt")
    assert (code, len(err)) == (2, 1)
    assert err[0].startswith(f"stapes: {'d' * 252}: ")
    assert err[0].endswith("the name is too long for this disk; give the recording or the folder a shorter one")
    assert sources(engines[0]) == [name for name in names if name != "d" * 252]
    assert not list(Path().glob("*.tmp-*"))
    assert run("b" * 251 + ".mp3", "-f", "txt,json", "--progress", "none")[0] == 2  # the longest suffix decides


def test_files_of_the_model_are_inputs_too(run: Run, engines: list[ScriptedEngine]) -> None:
    record("config.wav", "talk.wav")
    Path("model").mkdir()
    Path("model/config.json").write_text("{}")
    code, _, err = run("config.wav", "talk.wav", "--model", "model", "-o", "model", "-f", "json")
    assert (code, len(err)) == (2, 1)
    assert "would replace the input model/config.json" in err[0]
    assert Path("model/config.json").read_text() == "{}"
    assert Path("model/talk.json").exists()


@pytest.mark.parametrize("process", [os.getpid, lambda: 9_999_999])
def test_a_recording_named_as_a_temporary_file_is_left_alone(run: Run, process: Callable[[], int]) -> None:
    names = ["talk.mp3", f"talk.txt.tmp-{process()}"]
    record(*names)
    Path("talk.txt.tmp-9999998").write_text("left over")
    assert run(*names, "-f", "txt") == (0, [], [])
    assert all(map(is_whole, names))
    assert Path("talk.txt").read_text() == "said in 'talk.mp3'\n"
    assert not Path("talk.txt.tmp-9999998").exists()


def test_no_link_is_followed_where_a_temporary_file_will_be(run: Run) -> None:
    record("talk.mp3", "victim.mp3")
    Path(f"talk.txt.tmp-{os.getpid()}").symlink_to("victim.mp3")
    assert run("talk.mp3", "-f", "txt") == (0, [], [])
    assert is_whole("victim.mp3")
    assert Path("talk.txt").read_text() == "said in 'talk.mp3'\n"


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_recording_named_as_the_journal_is_refused_and_left_alone(
    run: Run, engines: list[ScriptedEngine], suffix: str
) -> None:
    record(f"{JOURNAL_NAME}{suffix}", "talk.mp3")
    code, _, err = run(f"{JOURNAL_NAME}{suffix}", "talk.mp3", "-f", "txt")
    assert code == 2
    assert [line for line in err if "has the name of the journal" in line] == err[:1]
    assert all("warning" in line and "keeps no journal" in line for line in err[1:])
    assert is_whole(f"{JOURNAL_NAME}{suffix}")
    assert sources(engines[0]) == ["talk.mp3"]
    assert Path("talk.txt").exists()
    assert run(f"{JOURNAL_NAME}{suffix}", "-o", "out")[0] == 0


@pytest.mark.parametrize("name", [JOURNAL_NAME, f"{JOURNAL_NAME}-wal", f"{JOURNAL_NAME}.aside-1"])
def test_no_output_leads_to_the_journal(run: Run, engines: list[ScriptedEngine], name: str) -> None:
    record("talk.mp3", "b.mp3")
    Path(f"{JOURNAL_NAME}.aside-1").write_text("kept")
    Path("talk.txt").symlink_to(name)
    code, _, err = run("talk.mp3", "b.mp3", "-f", "txt")
    assert (code, len(err)) == (2, 1)
    assert err[0].startswith("stapes: talk.mp3: ")
    assert f"{name}: is the journal that stapes keeps while it works; choose another file" in err[0]
    assert sources(engines[0]) == ["b.mp3"]
    assert run("report", "talk.mp3", "--output", name)[0] == 2
    assert run("report", "talk.mp3", "--output", f"./{name}")[2][0].endswith("choose another file")
    assert len(engines) == 1
    assert Path(f"{JOURNAL_NAME}.aside-1").read_text() == "kept"


def test_a_name_that_is_no_utf8_costs_no_other_its_journal(run: Run, engines: list[ScriptedEngine]) -> None:
    Path("stop.mp3").write_text("one\ntwo\n!interrupt once\nthree")
    record(NO_UTF8)
    words = ("-f", "txt", "--concurrency", "1", "--progress", "json", "--", NO_UTF8, "stop.mp3")
    assert run(*words)[0] == 130
    assert Path(JOURNAL_NAME).exists()
    code, _, err = run(*words)
    reported = [json.loads(line) for line in err]
    assert code == 0
    assert [(one["file"], one["reason"]) for one in reported if one["event"] == "file_skipped"] == [
        (NO_UTF8, "done_before")
    ]
    assert [one["resumed_windows"] for one in reported if one["event"] == "file_start"] == [3]
    assert not list(Path().glob(f"{JOURNAL_NAME}*"))


def test_what_macos_keeps_beside_recordings_is_no_recording(run: Run, engines: list[ScriptedEngine]) -> None:
    record("in/talk.mp3", "in/._talk.mp3", "in/.DS_Store", "in/.hidden.mp3", "only/._a.mp3", "._named.mp3")
    code, _, err = run("in", "only", "._named.mp3", "-f", "txt")
    assert code == 2
    assert err == ["stapes: only: a folder without recordings; name the files, or a folder that holds them"]
    assert sources(engines[0]) == ["in/.hidden.mp3", "in/talk.mp3", "._named.mp3"]


def test_a_file_named_dash_is_not_standard_input(run: Run, engines: list[ScriptedEngine]) -> None:
    record("-", "a")
    assert run("?")[:2] == (0, ["said in '-'", "said in 'a'"])
    assert sources(engines[0]) == ["./-", "a"]


def test_a_folder_that_may_not_be_looked_into_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", refuse)
        code, _, err = run("closed/talk.mp3")
    assert (code, err) == (2, ["stapes: closed/talk.mp3: no permission to look into its folder; ask its owner"])
    assert "no such file" in run("n" * 300)[2][0]
    assert run("")[2] == ["stapes: '': no such file; check the spelling and the folder"]


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("/proc/new", "/proc/new: the system lets no folder be made in /proc; choose another (-o)"),
        (
            "/proc/self/new/below",
            "/proc/self/new/below: the system lets no folder be made in /proc/self; choose another",
        ),
        ("/proc", "/proc: the system lets no file be made in /proc; choose another folder"),
        ("dangling", "dangling: is a link to {here}/gone, which is missing; choose another folder (-o)"),
        ("to-file", "to-file: a file of this name is in the way; choose another folder (-o)"),
        ("talk.mp3/below", "talk.mp3/below: its folder is not a folder but a file; choose another folder"),
        ("circle", "circle: is a link to {here}/circle, which is missing"),
        ("/dev/stdout", "a file of this name is in the way"),
        ("f" * 256, "the name is too long"),
        ("a\0b", "'a\\x00b': is no name of a folder"),
    ],
)
def test_a_folder_that_cannot_be_is_named_with_the_true_reason(
    run: Run, engines: list[ScriptedEngine], tmp_path: Path, folder: str, why: str
) -> None:
    if folder.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("this system has no /proc")
    record("talk.mp3")
    Path("dangling").symlink_to("gone")
    Path("to-file").symlink_to("talk.mp3")
    Path("circle").symlink_to("circle")
    code, out, err = run("talk.mp3", "-o", folder)
    assert (code, out, len(err)) == (2, [], 1)
    assert why.format(here=tmp_path.resolve()) in err[0]
    assert engines == []


def test_text_is_not_added_to_a_recording(
    run: Run, engines: list[ScriptedEngine], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record("talk.mp3")
    with Path("talk.mp3").open("a") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert command.main(["talk.mp3"]) == 2
    monkeypatch.undo()
    assert capsys.readouterr().err == "stapes: standard output: is the input talk.mp3; send it elsewhere\n"
    assert engines == []


def test_existing_outputs_are_replaced_and_skipped_through_links(run: Run, engines: list[ScriptedEngine]) -> None:
    record("talk.mp3", "new.mp3")
    Path("kept").mkdir()
    Path("kept/talk").write_text("there")
    Path("talk.txt").symlink_to("kept/talk")
    Path("new.txt").symlink_to("kept/new")
    assert run("talk.mp3", "new.mp3", "-f", "txt", "--skip_existing")[2] == [
        "stapes: skipped, as the files are there: talk.mp3"
    ]
    assert sources(engines[0]) == ["new.mp3"]
    assert run("talk.mp3", "-f", "txt") == (0, [], [])
    assert Path("kept/talk").read_text() == "said in 'talk.mp3'\n"


def test_a_write_protected_output_is_not_replaced(
    run: Run, engines: list[ScriptedEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    record("talk.mp3")
    Path("talk.txt").write_text("mine")
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "talk.txt")
    code, _, err = run("talk.mp3", "-f", "txt")
    assert (code, len(err)) == (2, 1)
    assert "this file is write-protected" in err[0]
    assert (Path("talk.txt").read_text(), engines) == ("mine", [])


def test_a_write_protected_output_is_skipped_if_it_would_be(
    run: Run, engines: list[ScriptedEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    record("talk.mp3", "own.txt", "b.mp3")
    for name in ("talk.txt", "b.txt"):
        Path(name).write_text("mine")
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name not in ("talk.txt", "b.txt"))
    code, _, err = run("talk.mp3", "-f", "txt", "--skip-existing")
    assert (code, err) == (0, ["stapes: skipped, as the files are there: talk.mp3"])
    code, _, err = run("talk.mp3", "own.txt", "b.mp3", "-f", "txt,srt", "--skip-existing")
    assert (code, len(err)) == (2, 3)  # the .srt is not there
    assert (Path("talk.txt").read_text(), is_whole("own.txt")) == ("mine", True)


def test_a_full_disk_is_known_before_work(
    run: Run, engines: list[ScriptedEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    record("talk.mp3")
    plain = tempfile.TemporaryFile

    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def write(self, _: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **words: Full() if "dir" in words else plain(**words))
    code, _, err = run("talk.mp3", "-f", "txt", "-o", "out")
    assert (code, err) == (2, ["stapes: out: the disk is full; free some space or choose another folder"])
    assert engines == []


def test_names_that_the_disk_takes_not_are_refused_before_work(
    run: Run, engines: list[ScriptedEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a USB stick does with a colon."""
    record("part 1: who?.mp3", "part 2.mp3", NO_UTF8)
    plain = Path.open

    def refuse(path: Path, mode: str = "r", *rest: object, **words: object) -> object:
        if "x" in mode and (":" in path.name or "\udcff" in path.name):
            raise OSError(errno.EINVAL if ":" in path.name else errno.EILSEQ, "Invalid argument")
        return plain(path, mode, *rest, **words)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    code, _, err = run("part 1: who?.mp3", "part 2.mp3", NO_UTF8, "-f", "txt", "-o", "stick")
    assert (code, err) == (
        2,
        [
            f"stapes: {stem}.mp3: stick/{stem}.txt: this disk takes no such name; rename the recording or choose "
            "another folder"
            for stem in ("part 1: who?", "no\\xffutf8")
        ],
    )
    assert sources(engines[0]) == ["part 2.mp3"]
    assert [path.name for path in Path("stick").iterdir()] == ["part 2.txt"]


def test_a_file_of_the_user_s_that_looks_like_a_temporary_one_stays(run: Run) -> None:
    record("talk.mp3")
    names = ("talk.txt.tmp-20251129", "talk.txt.tmp-0", "talk.txt.tmp-007", "talk.txt.tmp-1-2025")
    for name in names:
        Path(name).write_text("mine")
    assert run("talk.mp3", "-f", "txt") == (0, [], [])
    assert [Path(name).read_text() for name in names] == ["mine"] * len(names)


def test_a_pipe_is_read_once(run: Run, engines: list[ScriptedEngine]) -> None:
    os.mkfifo("pipe.mp3")
    writer = threading.Thread(target=lambda: Path("pipe.mp3").write_text("through a pipe"), daemon=True)
    writer.start()
    assert run("pipe.mp3", "-f", "txt") == (0, [], [])
    writer.join(5)
    assert Path("pipe.txt").read_text() == "through a pipe\n"


@pytest.mark.parametrize("kind", [(), ("report",)])
def test_what_comes_through_standard_input_is_an_input_too(
    run: Run, engines: list[ScriptedEngine], monkeypatch: pytest.MonkeyPatch, kind: tuple[str, ...]
) -> None:
    name = "stdin.report.html" if kind else "stdin.txt"
    record(name)
    with Path(name).open(encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        code, _, err = run(*kind, "-", *([] if kind else ["-f", "txt"]))
    assert (code, len(err)) == (2, 1)
    assert f"{name}: would replace the input standard input" in err[0]
    assert is_whole(name)
    assert engines == []
