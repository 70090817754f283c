"""From the words of a command line to recordings: expands folders and patterns, finds duplicates.

Looks at names, and opens standard input and copies of pipes; their reader finds out whether they hold sound.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final

from stapes.audio.source import shown_address
from stapes.errors import AudioError
from stapes.output.writers import WRITERS

if TYPE_CHECKING:
    from stapes.cli.command import Command

STDIN: Final = "-"
#: where a person seems to have expected something else
WAITING: Final = "waiting for a recording on standard input: pipe one in, or press Ctrl-C and name a file"

#: what is taken for a recording in a folder; a file named on the command line may have any name
AUDIO_SUFFIXES: Final = frozenset(
    """
    .3gp .aac .ac3 .aif .aifc .aiff .amr .ape .asf .au .avi .caf .flac .flv .m4a .m4b .m4v .mka .mkv .mov .mp2
    .mp3 .mp4 .mpeg .mpg .mpga .mts .oga .ogg .ogv .opus .spx .ts .w64 .wav .wave .webm .wma .wmv .wv
    """.split()  # noqa: SIM905 (a list of 40 strings reads worse)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The recordings to transcribe, in the order given, and the problems with other words."""

    sources: tuple[str, ...]
    problems: Mapping[str, AudioError]  # word of the command line -> why it leads to nothing
    notes: tuple[str, ...] = ()  # what folders hold beside recordings


def find_inputs(words: Sequence[str]) -> Inputs:
    """Expand folders and patterns. A word that leads to nothing becomes a problem; the others go on."""
    sources: list[str] = []
    problems: dict[str, AudioError] = {}
    notes: list[str] = []
    for word in words:
        try:
            found = _recordings_of(word, notes)
        except AudioError as error:
            problems[word] = error
        else:  # a file that is named - and was found by a pattern is not standard input
            sources += [os.path.join(os.curdir, one) if one == STDIN != word else one for one in found]  # noqa: PTH118
    if sources.count(STDIN) > 1:
        raise AudioError("standard input (-) can be read only once; give - once")
    return Inputs(sources=tuple(sources), problems=problems, notes=tuple(notes))


def _recordings_of(word: str, notes: list[str]) -> list[str]:
    """Return the recordings that a word of the command line leads to; add a note on what is passed over."""
    if word == STDIN:
        return [word]
    if os.path.isdir(word):  # noqa: PTH112 (pathlib raises where a folder above may not be read)
        return _recordings_in(Path(word), notes)
    if os.path.lexists(word):
        return [word]
    if "://" in word:  # before patterns: the query of an address has a question mark
        address = shown_address(word)
        raise AudioError(f"{address}: an address, not a file; fetch it first, or pipe it: 'curl -s ADDRESS | stapes -'")
    if glob.has_magic(word):
        # The shell expands patterns before us, but not on Windows, and not in quotes.
        matches = sorted(path for path in glob.glob(word) if not Path(path).is_dir())  # noqa: PTH207
        if matches:
            return matches
        raise AudioError(f"{word}: no file matches this pattern; check the spelling and the folder")
    if _is_kept_from_us(word):
        raise AudioError(f"{word}: no permission to look into its folder; ask its owner")
    raise AudioError(f"{word or repr(word)}: no such file; check the spelling and the folder")


def _is_kept_from_us(word: str) -> bool:
    """Return whether a folder above may not be looked into."""
    try:
        os.lstat(word)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return False


def _recordings_in(folder: Path, notes: list[str]) -> list[str]:
    try:
        entries = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise AudioError(f"{folder}: cannot be read ({error.strerror}); name its files one by one") from error
    # macOS keeps metadata of talk.mp3 in ._talk.mp3.
    names = [one for one in entries if PurePath(one).suffix.lower() in AUDIO_SUFFIXES and not one.startswith("._")]
    paths = [str(folder / name) for name in names]
    files = [path for path in paths if os.path.isfile(path)]  # noqa: PTH113 (pathlib raises where it may not be read)
    if not files:
        raise AudioError(f"{folder}: a folder without recordings; name the files, or a folder that holds them")
    if passed_over := _passed_over(folder, entries, files):
        notes.append(f"{folder}: {passed_over} passed over")
    return files


def _passed_over(folder: Path, entries: Sequence[str], recordings: Sequence[str]) -> str:
    """Count what a folder holds beside recordings, their transcripts and hidden files."""
    known = {PurePath(one).name for one in recordings}
    known |= {f"{PurePath(name).stem}.{suffix}" for name in known for suffix in WRITERS}
    others = [folder / name for name in entries if name not in known and not name.startswith(".")]
    n_folders = sum(map(os.path.isdir, others))
    n_files = len(others) - n_folders
    counts = ((n_files, "other file"), (n_folders, "folder"))
    return " and ".join(f"{count} {what}{'s' * (count > 1)}" for count, what in counts if count)


@contextmanager
def opened_source(command: Command, source: str) -> Iterator[Any]:
    """Yield what is read for a recording: its path, standard input, or the copy of a pipe, under the name of that."""
    copy = command.copies.get(source)
    if copy is None:
        yield StandardInput() if source == STDIN else source
        return
    with open(copy, "rb", buffering=0) as file:  # noqa: PTH123 (pathlib's is of another type)
        file.name = StandardInput.name if source == STDIN else source
        yield file


class StandardInput:
    """Standard input as a file object without Python's lock, which a thread that still reads must not hold at exit.

    Python ends with a fatal error where a thread holds it then.
    """

    name = "standard input"

    def read(self, size: int) -> bytes:
        """Return some of the next bytes; none at the end. Raises AudioError where it is closed."""
        if sys.stdin is None:
            raise AudioError("standard input: is closed; name a file, or pipe one in")
        return os.read(sys.stdin.fileno(), size)
