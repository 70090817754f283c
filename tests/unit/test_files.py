"""Files of the library's writers: links are followed, inputs stay, temporary files belong to one run."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stapes.audio.load import load_audio
from stapes.errors import OutputError
from stapes.output.files import InputFiles, checked_target, file_identity, write_whole
from stapes.output.writers import write_files
from stapes.report import write_plot, write_report
from tests.audio_files import wav_bytes
from tests.unit.test_writers import TWO


def leave(path: Path, data: bytes = b"precious") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def link_to_a_link(path: Path, link: Path) -> None:
    link.with_name(f"{link.name}-").symlink_to(path)
    link.symlink_to(f"{link.name}-")


LINKS: dict[str, Callable[[Path, Path], None]] = {
    "hard link": os.link,
    "link": os.symlink,
    "relative link": lambda path, link: link.symlink_to(os.path.relpath(path, link.parent)),
    "link to a link": link_to_a_link,
}


@pytest.mark.parametrize("make", LINKS.values(), ids=LINKS)
def test_no_writer_replaces_an_input_whatever_its_name(tmp_path: Path, make: Callable[[Path, Path], None]) -> None:
    recording = leave(tmp_path / "in" / "talk.wav", wav_bytes(np.zeros(16_000, np.int16)))
    (tmp_path / "out").mkdir()
    text, page, picture = (tmp_path / "out" / name for name in ("talk.txt", "page.html", "page.png"))
    for output in (text, page, picture):
        make(recording, output)
    before = recording.read_bytes(), names(tmp_path)
    refused = r": would replace the input .*talk\.wav; choose another"
    with pytest.raises(OutputError, match=r"talk\.txt" + refused):
        write_files(TWO, "all", tmp_path / "out", "talk", inputs=[recording])
    for audio in (recording, str(recording)):
        with pytest.raises(OutputError, match=r"page\.html" + refused):
            write_report(TWO, audio, page)
        with pytest.raises(OutputError, match=r"page\.png" + refused):
            write_plot(TWO, audio, picture)
        with pytest.raises(OutputError, match=r"talk\.wav" + refused):
            write_report(TWO, audio, recording)
    with load_audio(recording) as loaded, pytest.raises(OutputError, match=refused):
        write_plot(TWO, loaded, picture)
    with recording.open("rb") as file, pytest.raises(OutputError, match=refused):
        write_report(TWO, file, page)
    assert (recording.read_bytes(), names(tmp_path)) == before


def test_what_is_no_input_is_replaced(tmp_path: Path) -> None:
    leave(tmp_path / "talk.txt")
    recording = leave(tmp_path / "talk.mp3")
    write_files(TWO, "txt", tmp_path, "talk", inputs=[recording, tmp_path / "gone", "a\0b", tmp_path])
    assert (tmp_path / "talk.txt").read_text(encoding="utf-8").startswith("Grüße")
    assert recording.read_bytes() == b"precious"


def test_an_input_that_was_replaced_meanwhile_is_none_any_more(tmp_path: Path) -> None:
    recording, output = leave(tmp_path / "talk.mp3"), tmp_path / "talk.txt"
    inputs = InputFiles([recording])
    recording.rename(output)  # its number is another file's by now
    leave(recording, b"new")
    assert inputs.name_of(output) is None
    assert inputs.name_of(recording) is None


def test_a_link_stays_and_its_file_is_replaced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    place = leave(tmp_path / "elsewhere" / "text", b"old")
    (tmp_path / "out" / "talk.txt").symlink_to("../elsewhere/text")
    (tmp_path / "out" / "talk.srt").symlink_to("../elsewhere/new")
    plain: Callable[..., Any] = os.replace
    moves = []

    def replace(source: Path, target: Path) -> None:
        moves.append((Path(source).parent.resolve(), Path(target)))
        plain(source, target)

    monkeypatch.setattr(os, "replace", replace)
    assert write_files(TWO, "txt,srt", tmp_path / "out", "talk") == [
        tmp_path / "out/talk.txt",
        tmp_path / "out/talk.srt",
    ]
    assert moves == [(place.parent.resolve(), place.parent.resolve() / name) for name in ("text", "new")]
    assert names(tmp_path) == ["elsewhere/new", "elsewhere/text", "out/talk.srt", "out/talk.txt"]
    assert (tmp_path / "out" / "talk.txt").is_symlink()


def test_who_could_not_read_a_file_cannot_read_what_replaces_it(tmp_path: Path) -> None:
    private, link = leave(tmp_path / "talk.txt"), leave(tmp_path / "elsewhere")
    (tmp_path / "talk.srt").symlink_to(link)
    private.chmod(0o600)
    link.chmod(0o640)
    write_files(TWO, "txt,srt,vtt", tmp_path, "talk")
    usual = leave(tmp_path / "usual").stat().st_mode
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("talk.txt", "elsewhere", "talk.vtt")]
    assert modes == [0o600, 0o640, stat.S_IMODE(usual)]
    assert private.read_text(encoding="utf-8").startswith("Grüße")


def test_files_that_links_make_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "talk.txt").symlink_to("talk.srt")
    with pytest.raises(OutputError, match="links make one file of these"):
        write_files(TWO, "txt,srt", tmp_path, "talk")
    assert names(tmp_path) == ["talk.txt"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.symlink_to("/dev/null"), "is a device or a pipe"),
        (lambda path: path.symlink_to("."), "a folder of this name is in the way"),
        (lambda path: path.symlink_to("gone/there"), "whose folder is missing"),
        (lambda path: path.symlink_to(path.name), "links lead in a circle"),
        (os.mkfifo, "is a device or a pipe"),
        (lambda path: path.mkdir(), "a folder of this name is in the way"),
    ],
)
def test_what_no_file_can_be_put_in_the_place_of(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    make(tmp_path / "talk.txt")
    before = (tmp_path / "talk.txt").lstat()
    for write in (
        lambda: write_files(TWO, "srt,txt", tmp_path, "talk"),
        lambda: write_report(TWO, b"", tmp_path / "talk.txt"),
    ):
        with pytest.raises(OutputError, match=rf"talk\.txt: .*{said}"):
            write()
    after = (tmp_path / "talk.txt").lstat()  # reading a link changes the time of its last access
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert len(list(tmp_path.iterdir())) == 1


def test_names_that_cannot_be(tmp_path: Path) -> None:
    for name in ("a\0b.html", "\ud800.html"):
        with pytest.raises(OutputError, match="is not a file name"):
            checked_target(tmp_path / name, InputFiles())
    with pytest.raises(OutputError, match="the system lets no file be made in /proc"):
        write_files(TWO, "txt", "/proc", "talk")


def test_temporary_files_of_processes_that_ended_are_removed_and_no_others(tmp_path: Path) -> None:
    ended, running, ours = 9_999_999, os.getppid(), os.getpid()
    kept = [
        f"talk.txt.tmp-{running}",
        f"other.txt.tmp-{ended}",
        "talk.txt.tmp-",
        "talk.txt.tmp-x",
        f"talk.txt.tmp-{ended}~",
    ]
    for name in (*kept, f"talk.txt.tmp-{ended}", f"talk.txt.tmp-{ended}-3", f"talk.txt.tmp-{ours}"):
        leave(tmp_path / name)
    write_files(TWO, "txt", tmp_path, "talk")
    assert names(tmp_path) == sorted([*kept, "talk.txt"])


def test_a_temporary_file_takes_no_name_that_is_taken(tmp_path: Path) -> None:
    victim = leave(tmp_path / "victim")
    recording = leave(tmp_path / f"talk.txt.tmp-{os.getpid()}")
    (tmp_path / f"talk.srt.tmp-{os.getpid()}").symlink_to(victim)
    write_files(TWO, "txt,srt", tmp_path, "talk", inputs=[recording])
    assert (victim.read_bytes(), recording.read_bytes()) == (b"precious", b"precious")
    assert {"talk.txt", "talk.srt"} < set(names(tmp_path))


def test_threads_that_write_the_same_files_do_not_disturb_each_other(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def write(text: bytes) -> None:
        try:
            for _ in range(30):
                write_whole({tmp_path / "talk.txt": [text] * 50, tmp_path / "talk.srt": [text] * 50})
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert names(tmp_path) == ["talk.srt", "talk.txt"]
    assert {(tmp_path / name).read_bytes() for name in names(tmp_path)} <= {b"a" * 50, b"b" * 50, b"c" * 50}


def test_a_temporary_name_is_never_what_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Path.open

    def limited(path: Path, *arguments: Any, **keywords: Any) -> Any:
        if len(path.name) > 143:  # as on an encrypted disk
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return plain(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", limited)
    (path,) = write_files(TWO, "txt", tmp_path, "n" * 139)
    monkeypatch.undo()
    assert names(tmp_path) == [path.name]


def test_identities_tell_files_apart(tmp_path: Path) -> None:
    one, other = leave(tmp_path / "one"), leave(tmp_path / "other")
    (tmp_path / "link").symlink_to("one")
    assert file_identity(tmp_path / "link") == file_identity(one) != file_identity(other)
    assert file_identity(tmp_path / "gone") is None
    assert file_identity("a\0b") is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_writes_files_although_a_thread_of_its_parent_does(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, threading, time, warnings\n"
        "from pathlib import Path\n"
        "from stapes.output.files import write_whole\n"
        "warnings.simplefilter('ignore')\n"
        "folder, go_on = Path(sys.argv[1]), True\n"
        "replace = os.replace\n"
        "os.replace = lambda *names: time.sleep(0.05) or replace(*names)\n"
        "def work():\n"
        "    while go_on: write_whole({folder / 'parent': [b'x']})\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "for number in range(5):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        signal.alarm(20)\n"
        "        write_whole({folder / f'child{number}': [b'x']})\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0, number\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60, env=environment)
    assert {f"child{number}" for number in range(5)} <= set(names(tmp_path))
