"""`stapes run-as`: what the command and its children import, and where it is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from stapes.cli import run_as as module
from stapes.compat.stand_ins import STAND_INS
from tests.cli.running import Run, runner

FOLDERS = {name: str(one.folder) for name, one in STAND_INS.items()}
BOTH = os.pathsep.join(FOLDERS.values())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command here; nothing may take the place of this process."""

    def refuse(path: str, *_: object) -> None:
        raise OSError(f"{path} was started")

    monkeypatch.setattr(os, "execve", refuse)
    return runner(capsys)


def called(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, which the command that it runs replaces."""
    return subprocess.run(
        [sys.executable, "-m", "stapes", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def script(path: Path, first: str, text: str = "") -> str:
    path.write_text(f"{first}\n{textwrap.dedent(text)}")
    path.chmod(0o755)
    return str(path)


PROGRAM = """
import faster_whisper, whisper, sys
from importlib.metadata import distribution, version
import stapes.compat.faster_whisper, stapes.compat.whisper
assert faster_whisper is stapes.compat.faster_whisper
assert whisper is stapes.compat.whisper
assert version("faster-whisper") == "1.2.1+stapes"
assert version("openai-whisper") == "20250625+stapes"
for name in ("ctranslate2", "onnxruntime", "av"):
    assert any(one.startswith(name) for one in distribution("faster-whisper").requires)
assert distribution("openai-whisper").read_text("direct_url.json") is None
assert distribution("openai-whisper").metadata["License"] == "MIT"
print("ran", *sys.argv[1:])
"""


@pytest.mark.skipif(os.name != "posix", reason="scripts with an interpreter in their first line")
@pytest.mark.parametrize(
    "first", ["#!{python}", "#!{python} -s", "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''"]
)
def test_a_script_imports_the_faces_and_has_its_words(tmp_path: Path, first: str) -> None:
    path = script(tmp_path / "program", first.format(python=sys.executable), PROGRAM)
    done = called("run-as", "both", "--", path, "-o", "x y", "--", "--help", PYTHONPATH="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran -o x y -- --help\n", "")


def test_children_have_the_faces_too(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("""
import multiprocessing, os, subprocess, sys

def names():
    import faster_whisper
    return faster_whisper.__name__

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(names))
    called = [sys.executable, "-c", "import faster_whisper; print(faster_whisper.__name__)"]
    print(subprocess.run(called, capture_output=True, text=True).stdout.strip())
    print(os.environ["STAPES_RUN_AS"], os.environ["PYTHONPATH"])
""")
    done = called("run-as", "faster_whisper", "--", sys.executable, str(tmp_path / "program.py"), PYTHONPATH="a:b")
    assert done.stdout.splitlines() == [
        "stapes.compat.faster_whisper",
        "stapes.compat.faster_whisper",
        f"faster-whisper {FOLDERS['faster-whisper']}{os.pathsep}a:b",
    ]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("face", "path"),
    [
        ("faster-whisper", FOLDERS["faster-whisper"]),
        ("whisper", FOLDERS["openai-whisper"]),
        ("openai-whisper", FOLDERS["openai-whisper"]),
        ("both", BOTH),
    ],
)
def test_the_folders_come_first(run: Run, monkeypatch: pytest.MonkeyPatch, face: str, path: str) -> None:
    started = []

    def start(*given: Any) -> int:
        started.append(given)
        return 7

    monkeypatch.setattr(module, "_run", start)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert run("run-as", face, "--", sys.executable, "x", "--", "y") == (7, [], [])
    ((program, command, environment),) = started
    assert (program, command) == (sys.executable, [sys.executable, "x", "--", "y"])
    assert environment["PYTHONPATH"] == path
    assert environment["STAPES_RUN_AS"] == face.removeprefix("openai-")


def test_an_exit_code_is_passed_on(run: Run) -> None:
    assert called("run-as", "whisper", "--", sys.executable, "-c", "raise SystemExit(41)").returncode == 41
    assert run("run-as", "whisper", "--", "no-such-program") == (
        127, [], ["stapes: no-such-program: no command of this name was found"],
    )  # fmt: skip
    assert run("run-as", "whisper", "--", "tool.py")[2][0].endswith("for a Python file write 'python tool.py'")


@pytest.mark.skipif(os.name != "posix", reason="permissions and signals of POSIX")
def test_what_cannot_be_run_is_126(run: Run, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    assert run("run-as", "whisper", "--", str(tmp_path / "plain"))[0] == 126
    done = called("run-as", "whisper", "--", script(tmp_path / "odd", "no program"))
    assert (done.returncode, done.stderr) == (126, f"stapes: {tmp_path / 'odd'}: cannot be run: Exec format error\n")


@pytest.mark.skipif(os.name != "posix", reason="permissions and signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_command(tmp_path: Path, number: signal.Signals) -> None:
    program = (
        "import signal, time\n"
        "for one in (signal.SIGINT, signal.SIGTERM):\n"
        "    signal.signal(one, lambda number, _: exit(50 + number))\n"
        "print(signal.getsignal(signal.SIGPIPE), flush=True)\n"
        "time.sleep(30)"
    )
    words = [sys.executable, "-m", "stapes", "run-as", "whisper", "--", sys.executable, "-c", program]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(10) == 50 + number


@pytest.mark.skipif(os.name != "posix", reason="permissions and signals of POSIX")
def test_a_closed_pipe_ends_the_command_as_without_run_as() -> None:
    line = f"'{sys.executable}' -m stapes run-as whisper -- yes | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"y\n{128 + signal.SIGPIPE}\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "run-as: name what the program uses"),
        (("x", "--", "python"), "run-as x: name what the program uses"),
        (("whisper", "python"), "run-as whisper: write -- before the command"),
        (("whisper",), "run-as whisper: the command is missing"),
        (("whisper", "--"), "run-as whisper: the command is missing"),
        (("--", "python"), "run-as: name what the program uses"),
    ],
)
def test_wrong_words_are_refused_with_an_example(run: Run, words: tuple[str, ...], said: str) -> None:
    code, out, err = run("run-as", *words)
    assert (code, out, len(err)) == (2, [], 1)
    assert said in err[0]
    assert "'stapes run-as faster-whisper -- whisper-ctranslate2 talk.mp3'" in err[0]


@pytest.mark.parametrize(
    "words", [("-I", "x.py"), ("-E", "-m", "x"), ("-sE",), ("-W", "error", "-Im", "x"), ("-X", "utf8", "-bE", "x")]
)
def test_a_python_that_ignores_the_environment_is_refused(run: Run, words: tuple[str, ...]) -> None:
    code, _, err = run("run-as", "faster-whisper", "--", sys.executable, *words)
    assert (code, len(err)) == (2, 1)
    assert "ignores PYTHONPATH" in err[0]
    assert "'stapes shim install faster-whisper'" in err[0]


@pytest.mark.parametrize(
    "words", [("x.py", "-I"), ("-c", "pass", "-E"), ("-mx", "-E"), ("-Wignore", "x"), ("-um", "E"), ("-", "-I"), ()]
)
def test_flags_of_the_program_are_its_own(run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.setattr(module, "_run", lambda *_: 0)
    assert run("run-as", "faster-whisper", "--", sys.executable, *words) == (0, [], [])


@pytest.fixture
def other_python(tmp_path: Path) -> str:
    """A Python that has no stapes, at a path with a space."""
    folder = tmp_path / "my venv"
    folder.mkdir()
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix, 'bin')}\n")
    (folder / "bin").mkdir()
    path = folder / "bin" / "python"
    path.symlink_to(Path(sys.executable).resolve())
    return str(path)


@pytest.mark.skipif(os.name != "posix", reason="scripts with an interpreter in their first line")
@pytest.mark.parametrize(
    "first",
    [
        "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''",
        "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python' \"$0\" \"$@\"\n' '''",
        "#!/usr/bin/env python",
        "#!/usr/bin/env -S python -s",
    ],
)
def test_a_script_whose_python_has_no_stapes_is_refused(
    run: Run, other_python: str, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    folder = Path(other_python).parent
    script(folder / "program", first.format(python=other_python))
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    code, out, err = run("run-as", "faster-whisper", "--", "program", "x")
    assert (code, out) == (2, [])
    assert err == [
        f"stapes: program: its Python, {other_python}, has no stapes; install it there: 'pipx inject program stapes', "
        f"'uv tool install --with stapes program' or '{other_python} -m pip install stapes'"
    ]


def test_a_python_without_stapes_is_refused(run: Run, other_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert run("run-as", "whisper", "--", other_python, "x.py") == (
        2, [],
        [f"stapes: {other_python}: this Python has no stapes; {sys.executable} has it, or install it there too"],
    )  # fmt: skip


def test_a_child_without_stapes_gets_a_sentence(other_python: str) -> None:
    done = called("run-as", "whisper", "--", "sh", "-c", f"'{other_python}' -c 'import whisper'", PYTHONPATH="")
    assert done.returncode == 1
    assert "ImportError: this package is a stand-in by stapes, and stapes cannot be imported here" in done.stderr
