"""`stapes run-as FACE -- COMMAND`: runs a program on stapes that was written for faster-whisper or openai-whisper.

The folders of `stapes.compat.stand_ins` come first on PYTHONPATH, which child processes inherit. A Python that cannot
use them is refused before the command starts.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from stapes.cli.flags import Parser
from stapes.cli.help import PageFormatter
from stapes.cli.interrupts import ctrl_c_calls
from stapes.cli.output import say
from stapes.compat.loading import RUN_AS_VARIABLE
from stapes.compat.stand_ins import STAND_INS, StandIn
from stapes.errors import OptionError

EXIT_NOT_STARTED: Final = 126  # as shells count: found, but cannot be run
EXIT_NOT_FOUND: Final = 127
FACES: Final = {
    "faster-whisper": (STAND_INS["faster-whisper"],),
    "whisper": (STAND_INS["openai-whisper"],),
    "both": tuple(STAND_INS.values()),
}
_USAGE: Final = "stapes run-as NAME -- COMMAND..."
_EXAMPLE: Final = "stapes run-as faster-whisper -- whisper-ctranslate2 talk.mp3"
_DESCRIPTION: Final = f"""\
Runs a program that was written for faster-whisper or openai-whisper on stapes,
without a change: it, and every process that it starts, imports the interface
of stapes under the original's name (docs/programs.md).

NAME is what the program uses: faster-whisper, whisper, or both.

Examples:
  {_EXAMPLE}
  stapes run-as whisper -- python -m whisper talk.mp3
  stapes run-as both -- python my_program.py

The program's Python must have stapes:
  pipx inject PROGRAM stapes
  uv tool install --with stapes PROGRAM

Without a GPU, device="cuda" and float16 give a warning, and the CPU and
float32 are used.
COMMAND gets all signals; its exit code is that of this command. 127: COMMAND
was not found.
"""
_PYTHON: Final = re.compile(r"(python|pypy)[\d.]*[dtw]*(\.exe)?", re.IGNORECASE)
#: printed by a Python that has stapes and would import each stand-in; 1: stapes, 2: a stand-in is missing
_PROBE: Final = """\
import sys
sys.path[:] = [one for one in sys.path if one]
from importlib.util import find_spec
try:
    found = find_spec("stapes.compat.alias")
except ImportError:
    found = None
print("stapes" if found is None else "\\n".join(str(find_spec(one).origin) for one in sys.argv[1:]))
"""


def run_as(words: Sequence[str]) -> int:
    """Run `stapes run-as ...`: on POSIX the command takes this process's place. Return the exit code."""
    face, command = _parsed(words)
    stand_ins = FACES[face]
    path = shutil.which(command[0])
    if path is None:
        return _not_found(command[0])
    environment = _environment(face, stand_ins)
    _check_python(path, command, stand_ins, environment)
    try:
        return _run(path, command, environment)
    except OSError as error:
        say(f"{path}: cannot be run: {error.strerror or error}")
        return EXIT_NOT_STARTED


def _parsed(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the name of the face, and the command."""
    end = words.index("--") if "--" in words else len(words)
    parser = Parser(prog="stapes run-as", usage=_USAGE, description=_DESCRIPTION, formatter_class=PageFormatter)
    parser.add_argument("names", nargs="*", help=argparse.SUPPRESS)
    names, command = parser.parse_args(words[: min(end, 1)]).names, list(words[end + 1 :])
    given = " ".join(["run-as", *names])
    face = names[0].lower().replace("_", "-").removeprefix("openai-") if names else ""
    if face not in FACES:
        raise OptionError(f"{given}: name what the program uses, faster-whisper, whisper or both: '{_EXAMPLE}'")
    if end != 1:
        raise OptionError(f"{given}: write -- before the command: '{_EXAMPLE}'")
    if not command:
        raise OptionError(f"{given}: the command is missing: '{_EXAMPLE}'")
    return face, command


def _not_found(name: str) -> int:
    """Report why a command cannot be found, and return the exit code."""
    if os.path.dirname(name) and os.path.exists(name):  # noqa: PTH110, PTH120 (as it is written)
        say(f"{name}: is not a program that can be run; for a Python file write 'python {name}'")
        return EXIT_NOT_STARTED
    hint = ""
    if name.endswith(".py"):
        hint = f"; for a Python file write 'python {name}'"
    elif name == "whisper":
        hint = "; 'python -m whisper' is the same"
    say(f"{name}: no command of this name was found{hint}")
    return EXIT_NOT_FOUND


def _environment(face: str, stand_ins: Sequence[StandIn]) -> dict[str, str]:
    folders = [str(one.folder) for one in stand_ins]
    if wrong := next((one for one in folders if os.pathsep in one), None):
        raise OptionError(f"{wrong}: PYTHONPATH cannot hold a folder with '{os.pathsep}' in its name; move stapes")
    if earlier := os.environ.get("PYTHONPATH"):
        folders.append(earlier)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), RUN_AS_VARIABLE: face}


def _run(path: str, command: list[str], environment: Mapping[str, str]) -> int:
    """Run the command, and return its exit code where it has not replaced this process."""
    if os.name == "posix":
        for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores these, and the command would inherit that
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        os.execve(path, command, environment)  # noqa: S606 (the user's own command)
    with ctrl_c_calls(lambda: None):  # the console sends Ctrl-C to both: the command decides
        return subprocess.run([path, *command[1:]], env=environment, check=False).returncode  # noqa: S603 (as above)


def _check_python(
    path: str, command: Sequence[str], stand_ins: Sequence[StandIn], environment: Mapping[str, str]
) -> None:
    """Raise OptionError if the command is Python, or a script for it, and cannot use the stand-ins.

    Other programs are not looked into: what Python they start tells by an ImportError of the stand-in.
    """
    if _PYTHON.fullmatch(Path(path).name):
        python, letters = path, _isolation(command[1:])
    else:
        python, *flags = _interpreter(Path(path))
        letters = _isolation(flags)
        if not _PYTHON.fullmatch(Path(python).name):
            return
    name = Path(command[0]).name
    if {"I", "E"} & set(letters):
        raise OptionError(
            f"{name}: Python is started with -{letters}, and ignores PYTHONPATH, on which run-as rests; leave that "
            f"out, or install a stand-in: 'stapes shim install {stand_ins[0].distribution}'"
        )
    if python == sys.executable and not letters:
        return
    packages = [one.package for one in stand_ins]
    called = [python, *([f"-{letters}"] if letters else []), "-c", _PROBE, *packages]
    done = subprocess.run(called, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 (as above)
    if done.returncode or done.stdout.strip() == "stapes":
        if python == path:
            raise OptionError(f"{path}: this Python has no stapes; {sys.executable} has it, or install it there too")
        raise OptionError(
            f"{name}: its Python, {python}, has no stapes; install it there: 'pipx inject {name} stapes', "
            f"'uv tool install --with stapes {name}' or '{python} -m pip install stapes'"
        )
    for origin, one in zip(done.stdout.splitlines(), stand_ins, strict=True):
        if not Path(origin).is_relative_to(one.folder):
            raise OptionError(f"{name}: its Python, {python}, imports {one.package} from {origin}, before PYTHONPATH")


def _isolation(words: Sequence[str]) -> str:
    """Return the letters of Python's flags that bear on what can be imported: "Es" of `-E -W error -sm program`."""
    letters = ""
    values = iter(words)
    for word in values:
        found = re.fullmatch(r"-(?=\w)([^\WcmWX]*)(?:([cmWX])(.*))?", word, re.DOTALL)
        if found is None:
            break  # the script, "--" or a long flag
        flags, last, value = found.groups()
        letters += "".join(one for one in flags if one in "IEsSP")
        if last in ("c", "m"):
            break
        if last and not value:
            next(values, None)
    return letters


def _interpreter(path: Path) -> list[str]:
    """Return the interpreter of a script and its flags, from its first lines; [""] for what is no script."""
    try:
        with path.open("rb") as file:
            first, second = (os.fsdecode(file.readline(4096)) for _ in range(2))
    except OSError:
        return [""]
    if not first.startswith("#!"):
        return [""]
    words = first[2:].split()
    if "'exec'" in second:  # sh starts Python, whose path is too long for #! or has spaces
        if "$(" in second:
            return [str(path.resolve().parent / "python")]
        words = shlex.split(second)[1:-2]
    if words and Path(words[0]).name == "env":
        words = [one for one in words[1:] if one != "-S"]
        words[:1] = [shutil.which(words[0]) or ""] if words else []
    return words or [""]
