"""Which files a command will write, checked before any work: where one cannot be, its recording is refused.

Files that are there are replaced, as the `whisper` command does; never an input of the command, by whatever name.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO, cast

from stapes.cli.inputs import STDIN
from stapes.cli.output import shown_name
from stapes.errors import OutputError
from stapes.output.files import InputFiles, checked_target, file_identity, output_stem, try_name, why_not_written

if TYPE_CHECKING:
    from stapes.cli.command import Command


#: characters that some disks take in no name (FAT, NTFS, SMB), and bytes that are no UTF-8
_ODD_NAME: Final = re.compile('[<>:"\\\\|?*\0-\x1f\x7f\ud800-\udfff]')


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The recordings to transcribe, and those whose files cannot be written."""

    sources: tuple[str, ...]
    refused: Mapping[str, OutputError]  # source -> why
    inputs: InputFiles  # what no file may replace


def plan_outputs(command: Command, sources: Sequence[str]) -> Plan:
    """Return which recordings' files can be written; a file that was given twice is transcribed once.

    Raises OutputError where nothing can be written at all.
    """
    files = [one for one in sources if one != STDIN]
    inputs = InputFiles([*files, *_model_files(command.model), *_descriptor(sys.stdin)])
    _check_standard_output(inputs)
    if not command.formats or not sources:
        return Plan(sources=tuple(sources), refused={}, inputs=inputs)
    prepare_folder(command.output_dir)
    names = _names_on_disk(map(output_stem, sources), command.output_dir)
    sources = _each_once(sources, names)
    journal = _journal_places(command.output_dir)
    refused = {one: _named_as_journal(command.output_dir) for one in sources if file_identity(one) in journal}
    folder = os.path.realpath(command.output_dir)
    places: dict[str, list[str]] = {}  # file to be written -> recordings
    for source in sources:
        try:
            found = _places(command, source, os.path.join(folder, names[output_stem(source)]), inputs)  # noqa: PTH118
            _check_no_journal(found, journal)
        except OutputError as error:
            refused.setdefault(source, error)
        else:
            for place in found if source not in refused else ():
                places.setdefault(place, []).append(source)
    for place, several in places.items():
        for source in several if len(several) > 1 else ():
            refused.setdefault(source, _shared(place, [one for one in several if one != source]))
    return Plan(
        sources=tuple(one for one in sources if one not in refused),
        refused={one: refused[one] for one in sources if one in refused},
        inputs=inputs,
    )


def _model_files(model: str) -> list[str]:
    """Return the files of a checkpoint that is named by its path."""
    with suppress(OSError):
        if os.path.isdir(model):  # noqa: PTH112 (pathlib raises where a folder above may not be read)
            return [entry.path for entry in os.scandir(model)]
    return [model]


def _descriptor(stream: TextIO | None) -> list[int]:
    """Return the number of an open file; none for one that is closed, or a stand-in that is no file."""
    with suppress(AttributeError, OSError, ValueError):
        return [cast("TextIO", stream).fileno()]
    return []


def _check_standard_output(inputs: InputFiles) -> None:
    """Raise OutputError where the text would be added to a recording (`stapes a.wav >> a.wav`)."""
    for name in filter(None, map(inputs.name_of, _descriptor(sys.stdout))):
        raise OutputError(f"standard output: is the input {name}; send it elsewhere")


def _names_on_disk(stems: Iterable[str], folder: str) -> dict[str, str]:
    """Return for each name the first of those that the folder's disk takes for the same one.

    Some take Talk for talk, some two spellings of é; which ones, is tried where it matters.
    """
    names = {stem: stem for stem in stems}
    alike: dict[str, list[str]] = {}
    for stem in names:
        folded = unicodedata.normalize("NFD", stem).casefold()
        alike.setdefault(unicodedata.normalize("NFD", folded), []).append(stem)
    for several in alike.values():
        if len(several) > 1:
            with suppress(OSError), tempfile.TemporaryDirectory(dir=folder, prefix=".stapes-") as probe:
                first: dict[tuple[int, int] | None, str] = {}
                for stem in several:
                    Path(probe, stem).touch()
                    names[stem] = first.setdefault(file_identity(Path(probe, stem)), stem)
    return names


def _each_once(sources: Iterable[str], names: Mapping[str, str]) -> list[str]:
    """Leave out what is the same file under a name that leads to the same outputs."""
    once: dict[object, str] = {}
    for source in sources:
        once.setdefault((names[output_stem(source)], file_identity(source) or source), source)
    return list(once.values())


def _journal_places(folder: str) -> set[str | tuple[int, int] | None]:
    """Return the paths and identities of the journal's files, present or future."""
    from stapes.journal.journal import journal_files  # noqa: PLC0415 (SQLite comes with it)

    files = journal_files(folder)
    return {*map(os.path.realpath, files), *map(file_identity, files)} - {None}


def _named_as_journal(folder: str) -> OutputError:
    from stapes.journal.journal import JOURNAL_NAME  # noqa: PLC0415 (as above)

    return OutputError(
        f"has the name of the journal that stapes keeps in {folder} ({JOURNAL_NAME}); rename it, or choose another "
        "folder (-o)"
    )


def _check_no_journal(places: Iterable[str], journal: Container[object]) -> None:
    """Raise OutputError where an output would be the journal, which is removed in the end."""
    for place in places:
        if place in journal or file_identity(place) in journal:
            raise OutputError(f"{place}: is the journal that stapes keeps while it works; choose another file")


def _places(command: Command, source: str, path: str, inputs: InputFiles) -> list[str]:
    """Return the files that a recording's outputs will be, all links followed. Raises OutputError where one cannot be.

    path: of its outputs on the disk, without suffix.
    """
    stem, places = output_stem(source), []
    targets = command.targets(source)
    # What is skipped stays as it is, even if it is write-protected.
    replaced = not (command.skip_existing and all(map(os.path.isfile, targets)))
    for target in targets:
        place = checked_target(target, inputs, replaced=replaced)
        if replaced and place != target:
            try_folder(str(place.parent))
        if replaced and _ODD_NAME.search(place.name):
            try_name(place)
        if place != target:
            places.append(str(place))
        elif command.output_file is not None:
            places.append(os.path.realpath(target))
        else:
            places.append(path + target.name.removeprefix(stem))
    return places


def _shared(place: str, others: Sequence[str]) -> OutputError:
    if not others:
        return OutputError(f"its links make one file of two outputs, {place}; remove the links")
    first = shown_name(others[0])
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return OutputError(
        f"would be written to {os.path.basename(place)}, and so would {first}{more}; "  # noqa: PTH119 (as it is written)
        f"rename one, or transcribe it into another folder: 'stapes {first} -o FOLDER'"
    )


def prepare_folder(folder: str) -> None:
    """Make the folder for the results if it is missing, and try that files can be written there.

    Raises OutputError with the cause and what to do.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        if not os.path.exists(folder):  # noqa: PTH110 (pathlib raises where a folder above may not be read)
            place = os.path.realpath(folder)
            raise OutputError(
                f"{folder}: is a link to {place}, which is missing; choose another folder (-o)"
            ) from error
        raise OutputError(f"{folder}: a file of this name is in the way; choose another folder (-o)") from error
    except FileNotFoundError as error:
        above = next((one for one in Path(folder).parents if os.path.isdir(one)), folder)  # noqa: PTH112 (as above)
        raise OutputError(f"{folder}: the system lets no folder be made in {above}; choose another (-o)") from error
    except OSError as error:
        raise OutputError(f"{folder}: {why_not_written(error)}") from error
    except ValueError as error:
        raise OutputError(f"{folder!r}: is no name of a folder; choose another (-o)") from error
    try_folder(folder)


def try_folder(folder: str) -> None:
    """Raise OutputError, with the cause and what to do, where no file can be written in a folder."""
    try:
        # Without a name where the system can: kill -9 leaves nothing. A byte shows whether the disk is full.
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"\0")
    except OSError as error:
        raise OutputError(f"{folder}: {why_not_written(error, Path(folder))}") from error
