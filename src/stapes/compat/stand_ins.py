"""Stand-ins for the originals' distributions: the folders for PYTHONPATH, and copies in site-packages.

The files lie in `programs/`, one folder for each distribution: a package that calls `alias.use_face`, and metadata as
one file (`.egg-info`, which `importlib.metadata` reads: scikit-build-core leaves `.dist-info` out of a wheel, and pip
does not uninstall what has one file; it would remove files of stapes). `stapes run-as` puts that folder on PYTHONPATH.
`stapes shim` makes files for site-packages of it, with the usual `.dist-info`.
"""

from __future__ import annotations

import csv
import re
import sys
import sysconfig
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.machinery import all_suffixes
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Final

from stapes.errors import OptionError, OutputError
from stapes.output.files import why_not_written

_INSTALLER: Final = "stapes"
#: uv takes a distribution without this file for broken
_WHEEL: Final = "Wheel-Version: 1.0\nGenerator: stapes\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_RELEASE: Final = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """What stands in for one distribution."""

    distribution: str  # as package indexes name it
    package: str  # as programs import it
    version: str  # of the original's interface

    @property
    def folder(self) -> Path:
        """The folder for PYTHONPATH."""
        return Path(__file__).parent / "programs" / self.distribution

    def metadata_folder(self, version: str) -> str:
        """Return the name of the folder with the metadata; "*" for a version makes a pattern of any."""
        return f"{self._stem(version)}.dist-info"

    def files(self, version: str) -> dict[str, bytes]:
        """Return the files for site-packages by their paths, RECORD last. Raises OptionError for a version like v1."""
        if not _RELEASE.fullmatch(version):
            raise OptionError(
                f"version {version!r}: give a release of {self.distribution} as in its requirement, such as "
                f"{self.version}; '+stapes' is added"
            )
        info, module = self.metadata_folder(version), f"{self.package}/__init__.py"
        metadata = (self.folder / f"{self._stem(self.version)}.egg-info").read_text("utf-8")
        found = {
            module: (self.folder / module).read_bytes(),
            f"{info}/INSTALLER": f"{_INSTALLER}\n".encode(),
            f"{info}/METADATA": metadata.replace(
                f"Version: {self.version}+stapes\n", f"Version: {version}+stapes\n"
            ).encode(),
            f"{info}/WHEEL": _WHEEL.encode(),
            f"{info}/top_level.txt": f"{self.package}\n".encode(),
        }
        lines = [f"{name},{_digest(data)},{len(data)}\n" for name, data in found.items()]
        return {**found, f"{info}/RECORD": "".join([*lines, f"{info}/RECORD,,\n"]).encode()}

    def _stem(self, version: str) -> str:
        return f"{self.distribution.replace('-', '_')}-{version}+stapes"


STAND_INS: Final = {
    one.distribution: one
    for one in (
        StandIn(distribution="faster-whisper", package="faster_whisper", version="1.2.1"),
        StandIn(distribution="openai-whisper", package="whisper", version="20250625"),
    )
}


def _digest(data: bytes) -> str:
    """Return a hash as RECORD has it (packaging.python.org/specifications/recording-installed-packages)."""
    return "sha256=" + urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()


def site_folder() -> Path:
    """Return this Python's site-packages. Raises OutputError where the system keeps it for itself (PEP 668)."""
    is_venv = sys.prefix != sys.base_prefix
    if not is_venv and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists():
        raise OutputError(
            f"{sys.executable}: the system manages the packages of this Python (EXTERNALLY-MANAGED); install stapes "
            "and the stand-in in a virtual environment ('python -m venv FOLDER'), or use 'stapes run-as'"
        )
    return Path(sysconfig.get_path("purelib"))


def install(stand_in: StandIn, version: str, site: Path, search: Sequence[str]) -> None:
    """Write a stand-in to site-packages, in place of an earlier one of ours: whole, or not at all.

    search: the folders where the original would be found. Raises OutputError where it is there, or where something
    of its name is that stapes did not write.
    """
    files = stand_in.files(version)
    for one in distributions(name=stand_in.distribution, path=[str(site), *search]):
        is_of_run_as = Path(str(one.locate_file(""))) == stand_in.folder
        if not is_of_run_as and (one.read_text("INSTALLER") or "").strip() != _INSTALLER:
            raise OutputError(
                f"{stand_in.distribution} {one.version} is installed in {one.locate_file('')}, and a stand-in only "
                f"goes where it is not: 'pip uninstall {stand_in.distribution}' first, or use 'stapes run-as'"
            )
    earlier = _ours(stand_in, site)
    if not earlier:
        for suffix in ("", *all_suffixes()):
            if (path := site / f"{stand_in.package}{suffix}").exists() or path.is_symlink():
                raise OutputError(f"{path}: is there and was not written by stapes; it stays, and nothing is written")
    _replace(site, earlier, files)


def remove(stand_in: StandIn, site: Path) -> list[str]:
    """Remove a stand-in that stapes wrote, and return its versions.

    Raises OutputError where there is none, or where anything in it was changed or added.
    """
    if not (ours := _ours(stand_in, site)):
        raise OutputError(f"{site}: has no stand-in for {stand_in.distribution} that stapes wrote; nothing is removed")
    _replace(site, ours, {})
    pattern = re.escape(stand_in.metadata_folder("*")).replace(re.escape("*"), "(.*)")
    return [found[1] for path in ours if (found := re.fullmatch(pattern, path.name))]


def _ours(stand_in: StandIn, site: Path) -> list[Path]:
    """Return the folders of a stand-in, its package first. Raises OutputError where they are not as written."""
    metadata = [
        path
        for path in sorted(site.glob(stand_in.metadata_folder("*")))
        if (path / "INSTALLER").is_file() and (path / "INSTALLER").read_bytes().strip() == _INSTALLER.encode()
    ]
    package = site / stand_in.package
    if not metadata:
        return []
    folders = [*([package] if package.exists() or package.is_symlink() else []), *metadata]
    try:
        recorded = {name: digest for path in metadata for name, digest in _record(path)}
        for folder in folders:
            if folder.is_symlink():
                raise _changed(folder, "is a link")
            for path in folder.rglob("*"):
                _check_file(path, path.relative_to(site).as_posix(), recorded)
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"{site}: the stand-in for {stand_in.distribution} cannot be read: {error}") from error
    return folders


def _record(metadata: Path) -> Iterator[tuple[str, str]]:
    """Yield path and hash of each line of RECORD; no hash for RECORD itself."""
    path = metadata / "RECORD"
    if not path.is_file():
        raise _changed(path, "is missing")
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            if len(row) != 3:
                raise _changed(path, "was changed")
            yield row[0], row[1]


def _check_file(path: Path, name: str, recorded: Mapping[str, str]) -> None:
    """Raise OutputError for a file that RECORD does not have, or not so. Python's own caches may be there."""
    if path.is_dir() and not path.is_symlink():
        return
    pure = PurePosixPath(name)
    source = pure.parent.parent / f"{pure.name.partition('.')[0]}.py"
    if pure.parent.name == "__pycache__" and pure.suffix == ".pyc" and str(source) in recorded:
        return
    if name not in recorded:
        raise _changed(path, "was not written by stapes")
    if not pure.match("*.dist-info/RECORD") and (path.is_symlink() or _digest(path.read_bytes()) != recorded[name]):
        raise _changed(path, "was changed")


def _changed(path: Path, what: str) -> OutputError:
    return OutputError(f"{path}: {what} since the stand-in was written; nothing is removed or replaced")


def _replace(site: Path, old: Sequence[Path], new: Mapping[str, bytes]) -> None:
    """Move old folders out of site-packages and new ones into it, all or none.

    Metadata comes first and goes last: if the process is killed in between, the next call can repair or remove it.
    """
    tops = sorted({PurePosixPath(name).parts[0] for name in new}, key=lambda top: not top.endswith(".dist-info"))
    try:
        with TemporaryDirectory(prefix=".stapes-", dir=site) as folder:
            kept, made = Path(folder, "old"), Path(folder, "new")
            kept.mkdir()
            for name, data in new.items():
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                (made / name).write_bytes(data)
            moves = [(path, kept / path.name) for path in old] + [(made / top, site / top) for top in tops]
            done: list[tuple[Path, Path]] = []
            try:
                for source, target in moves:
                    source.rename(target)
                    done.append((source, target))
            except OSError:
                for source, target in reversed(done):
                    target.rename(source)
                raise
    except OSError as error:
        raise OutputError(f"{site}: {why_not_written(error)}; nothing was changed") from error
