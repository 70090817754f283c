"""Output files: written whole or not at all, and never in the place of an input. Links are followed."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from stapes.errors import OutputError

#: name of the files made from standard input
_STDIN_STEM: Final = "stdin"

#: most bytes in a file's name on every usual file system
_LONGEST_NAME: Final = 255
#: a temporary file: the name it is for, its process, and a number where that name was taken. A date has more digits
#: than the number of a process: talk.txt.tmp-20251129 is a user's file.
_TEMPORARY: Final = re.compile(r"(.*)\.tmp-([1-9][0-9]{0,6})(?:-[1-9][0-9]{0,2})?", re.DOTALL)
_MOST_TEMPORARY: Final = 1000
#: temporary files of this process; one that is not here was left by an earlier process of the same number
_in_use: set[Path] = set()
_naming: Final = threading.Lock()  # held while one is made, renamed, or found to be left over

if hasattr(os, "register_at_fork"):  # a child must not wait for a thread that only its parent has
    os.register_at_fork(before=_naming.acquire, after_in_parent=_naming.release, after_in_child=_naming.release)

_WHY: Final[Mapping[int, str]] = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "your quota on this disk is used up; free some space or choose another folder",
    errno.EACCES: "no permission to write here; choose another folder",
    errno.EPERM: "no permission to write here; choose another folder",
    errno.EROFS: "this disk is read-only; choose another folder",
    errno.ENOENT: "no such folder; make it first or choose another",
    errno.ENOTDIR: "its folder is not a folder but a file; choose another folder",
    errno.EISDIR: "a folder of this name is in the way; move it or choose another folder",
    errno.ENAMETOOLONG: "the name is too long for this disk; give the recording or the folder a shorter one",
    errno.EFBIG: "the file would be larger than this disk or your limit (ulimit -f) allows; choose another folder",
    errno.ELOOP: "its links lead in a circle; remove them or choose another folder",
}


def file_identity(path: str | os.PathLike[str] | int) -> tuple[int, int] | None:
    """Return a file's device and inode, which identify it under any name; None where there is none.
    path: a number is an open file.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 (a name that cannot be raises ValueError here)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


class InputFiles:
    """Files that are read, and must not be replaced."""

    def __init__(self, paths: Iterable[str | os.PathLike[str] | int] = ()) -> None:
        """paths: a number is an open file, such as standard input."""
        self._paths: dict[tuple[int, int], str | int] = {}
        for path in paths:
            found = file_identity(path)
            if found is not None and os.path.isfile(path):  # noqa: PTH113 (as above)
                self._paths.setdefault(found, path if isinstance(path, int) else os.fsdecode(path))

    @classmethod
    def of(cls, paths: Iterable[str | os.PathLike[str]] | InputFiles) -> InputFiles:
        """Return the files of these paths, or an `InputFiles` unchanged."""
        return paths if isinstance(paths, InputFiles) else cls(paths)

    def name_of(self, path: str | os.PathLike[str] | int) -> str | None:
        """Return the name of the input that a path leads to, by another name, case or link too; None if it is none."""
        found = file_identity(path)
        known = None if found is None else self._paths.get(found)
        if known is None or file_identity(known) != found:  # a number of a file that was removed may be another's
            return None
        return "standard input" if isinstance(known, int) else known


def checked_target(target: Path, inputs: InputFiles, *, replaced: bool = True) -> Path:
    """Return the file that a name to be written leads to: the name itself, or what its links lead to.

    replaced: whether a file that is there would be; one that stays as it is may be write-protected.
    Raises OutputError with the cause where nothing can be written there, or an input would be replaced.
    """
    with named(target):
        try:
            is_link = stat.S_ISLNK(target.lstat().st_mode)
        except FileNotFoundError:
            return target
        except ValueError as error:  # a NUL in it, or a letter that no name can have
            raise OutputError(f"{str(target)!r}: is not a file name; choose another") from error
        place = Path(os.path.realpath(target)) if is_link else target
        try:
            mode = target.stat().st_mode
        except FileNotFoundError:  # a link to a file that is not there yet
            if not place.parent.is_dir():
                raise OutputError(f"{target}: is a link to {place}, whose folder is missing; remove it") from None
            return place
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OutputError(f"{target}: is a device or a pipe, not a file; choose another name or folder")
        if (name := inputs.name_of(target)) is not None:
            raise OutputError(f"{target}: would replace the input {name}; choose another format or another folder")
        if replaced and not os.access(place, os.W_OK):
            raise OutputError(f"{target}: this file is write-protected; make it writable, or choose another folder")
        return place


def try_name(place: Path) -> None:
    """Raise OutputError where the disk takes no file of this name; many take no colon or question mark."""
    with named(place):
        try:
            temporary, file = _open_temporary(place)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EILSEQ):
                raise OutputError(
                    f"{place}: this disk takes no such name; rename the recording or choose another folder"
                ) from error
            raise
        file.close()
        _remove_temporary(temporary)


def write_whole(
    contents: Mapping[Path, Iterable[bytes]], inputs: Iterable[str | os.PathLike[str]] | InputFiles = ()
) -> None:
    """Write files, each piece by piece: all of them whole, or none.

    Every file is written under a temporary name beside its place; when all are on the disk they are renamed, and the
    names synced. If anything fails, the old files stay, and no partial file is left. Temporary files that a killed
    process left are removed.
    inputs: files that must not be replaced.   Raises OutputError with the file, the cause and what to do.
    """
    inputs = InputFiles.of(inputs)
    places = {target: checked_target(target, inputs) for target in contents}
    if len({os.path.realpath(place) for place in places.values()}) < len(places):
        raise OutputError(f"{', '.join(map(str, places))}: links make one file of these; remove the links")
    _remove_left_over(places.values(), inputs)
    staged: dict[Path, Path] = {}
    try:
        for target, parts in contents.items():
            with named(target):
                staged[target], file = _open_temporary(places[target])
                with file:
                    with suppress(OSError):  # as readable as what it replaces
                        staged[target].chmod(stat.S_IMODE(places[target].stat().st_mode) & 0o777)
                    file.writelines(parts)
                    file.flush()
                    os.fsync(file.fileno())
        for target in contents:
            with named(target), _naming:
                os.replace(staged[target], places[target])  # noqa: PTH105 (patched by the tests)
                _in_use.discard(staged.pop(target))
    finally:
        for temporary in staged.values():
            _remove_temporary(temporary)
    for folder in {place.parent for place in places.values()}:
        sync_folder(folder)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Synchronise a folder's names with the disk, on systems that can."""
    with suppress(OSError):  # Windows opens no folder; some network disks refuse
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _open_temporary(place: Path) -> tuple[Path, IO[bytes]]:
    """Make a file beside a place under a free name; never open a file or follow a link that is there."""
    names = [f"{zlib.crc32(os.fsencode(place.name)):08x}"]
    if len(os.fsencode(place.name)) + len(_temporary_name("", 0)) <= _LONGEST_NAME:
        names.insert(0, place.name)
    for number in range(_MOST_TEMPORARY):
        for name in names:
            path = place.with_name(_temporary_name(name, number))
            try:
                with _naming:
                    file = path.open("xb")
                    _in_use.add(path)
                return path, file
            except FileExistsError:
                continue
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG or name == names[-1]:
                    raise
    raise OutputError(f"{place}: there are too many temporary files (.tmp-) beside it; remove them")


def _remove_temporary(path: Path) -> None:
    with _naming, suppress(OSError):
        _in_use.discard(path)
        path.unlink()


def _temporary_name(name: str, number: int) -> str:
    return f"{name}.tmp-{os.getpid()}" + (f"-{number}" if number else "")


def _remove_left_over(places: Iterable[Path], inputs: InputFiles) -> None:
    begun: dict[Path, set[str]] = {}
    for place in places:
        begun.setdefault(place.parent, set()).update((place.name, f"{zlib.crc32(os.fsencode(place.name)):08x}"))
    for folder, beginnings in begun.items():
        with suppress(OSError), _naming:  # no such folder: to be said when the files are written
            for name in os.listdir(folder):  # noqa: PTH208 (names are all that is wanted)
                found = _TEMPORARY.fullmatch(name)
                path = folder / name
                is_ours = found is not None and found[1] in beginnings and not _is_in_use(path, int(found[2]))
                if is_ours and inputs.name_of(path) is None:
                    path.unlink()


def _is_in_use(path: Path, process: int) -> bool:
    if process == os.getpid():
        return path in _in_use
    if sys.platform == "win32":  # to ask would end it there; an open file cannot be removed anyway
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is there, and another user's
        return True
    return True


@contextmanager
def named(target: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that names the file that was wanted."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{target}: {why_not_written(error, target.parent)}") from error


def why_not_written(error: OSError, folder: Path | None = None) -> str:
    """Return in words why a file could not be written, and what to do. folder: where it was to be."""
    if error.errno == errno.ENOENT and folder is not None and os.path.isdir(folder):  # noqa: PTH112 (never raises)
        return f"the system lets no file be made in {folder}; choose another folder"
    return _WHY.get(error.errno or 0) or f"cannot be written ({error.strerror or error})"


def output_stem(audio: str) -> str:
    """Name a recording's files, without suffix: "in/a.b.mp3" -> "a.b", "-" -> "stdin"."""
    return _STDIN_STEM if audio == "-" else os.path.splitext(os.path.basename(audio))[0]  # noqa: PTH119, PTH122
