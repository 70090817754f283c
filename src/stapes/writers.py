"""Transcript -> txt, vtt, srt, tsv, json, csv, lrc, ass: pure functions, and one driver that puts them into files.

The text of the first five is that of openai/whisper's writers byte for byte, with two deviations, where a file of the
reference could not be read back:
- A line break inside a segment's text becomes one space (a blank line would end a subtitle early, any line
  break a row of tsv); json keeps it.
- Dashes before `>` become one dash: the reference replaces `-->` once, so that `--->` ends as an arrow.
Lines end in a bare line feed on every system.

Knows nothing of models; how words become subtitles stands in subtitles.py.
Source: openai/whisper utils.py, release 20250625 (the formats, not the code).
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from stapes.breaks import visible
from stapes.errors import OptionError, OutputError
from stapes.karaoke import to_ass
from stapes.lyrics import to_lrc
from stapes.results import Segment, Transcript
from stapes.subtitles import PLAIN_LAYOUT, Layout, Subtitle, has_words, subtitles, without_arrows

#: the name that stands for the reference's formats, in the order in which they are written
ALL_FORMATS: Final = "all"
REFERENCE_FORMATS: Final = ("txt", "vtt", "srt", "tsv", "json")
#: what a spreadsheet takes for the beginning of a formula (https://owasp.org/www-community/attacks/CSV_Injection)
_FORMULA: Final = re.compile("'*[=+\\-@＝＋－＠]")
#: name of the files made from standard input
STDIN_STEM: Final = "stdin"
#: most bytes in a file's name on every usual file system
_LONGEST_NAME: Final = 255

_WHY: Final[Mapping[int, str]] = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "your quota on this disk is used up; free some space or choose another folder",
    errno.EACCES: "no permission to write here; choose another folder",
    errno.EPERM: "no permission to write here; choose another folder",
    errno.EROFS: "this disk is read-only; choose another folder",
    errno.ENOENT: "no such folder; make it first or choose another",
    errno.ENOTDIR: "its folder is not a folder but a file; choose another folder",
    errno.EISDIR: "a folder of this name is in the way; move it or choose another folder",
    errno.ENAMETOOLONG: "the name is too long for this disk; rename the recording",
}


def format_timestamp(seconds: float, *, always_hours: bool = False, decimal_mark: str = ".") -> str:
    """Write a time as [HH:]MM:SS.mmm, rounded to milliseconds; hours from the first one on, or always."""
    assert seconds >= 0, f"a time in a recording is not negative: {seconds}"
    minutes, milliseconds = divmod(round(seconds * 1000.0), 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds_text = f"{milliseconds // 1000:02d}{decimal_mark}{milliseconds % 1000:03d}"
    hours_text = f"{hours:02d}:" if hours or always_hours else ""
    return f"{hours_text}{minutes:02d}:{seconds_text}"


def to_txt(transcript: Transcript) -> str:
    """One line per segment."""
    return "".join(f"{one_line(segment.text)}\n" for segment in transcript.segments)


def to_vtt(transcript: Transcript, layout: Layout = PLAIN_LAYOUT) -> str:
    """WebVTT: one cue per segment, or as `layout` has it (https://www.w3.org/TR/webvtt1/)."""
    cues = (
        f"{format_timestamp(one.start_s)} --> {format_timestamp(one.end_s)}\n{one.text}\n\n"
        for one in _subtitles(transcript, layout, format_timestamp)
    )
    return "WEBVTT\n\n" + "".join(cues)


def to_srt(transcript: Transcript, layout: Layout = PLAIN_LAYOUT) -> str:
    """SubRip: one subtitle per segment, or as `layout` has it; numbered, hours always, a comma in times."""

    def time(seconds: float) -> str:
        return format_timestamp(seconds, always_hours=True, decimal_mark=",")

    return "".join(
        f"{number}\n{time(one.start_s)} --> {time(one.end_s)}\n{one.text}\n\n"
        for number, one in enumerate(_subtitles(transcript, layout, time), start=1)
    )


def to_tsv(transcript: Transcript) -> str:
    """Tab-separated start and end in milliseconds, and text, under a line of names; tabs become spaces."""
    rows = (
        f"{round(1000 * segment.start_s)}\t{round(1000 * segment.end_s)}\t{_tsv_text(segment)}\n"
        for segment in transcript.segments
    )
    return "start\tend\ttext\n" + "".join(rows)


def to_csv(transcript: Transcript) -> str:
    """Comma-separated start and end in milliseconds, and quoted text, under a line of names; as whisper.cpp has it.

    Text that a spreadsheet would take for a formula has an apostrophe before it, and so has one that would be mistaken
    for such a text (docs/subtitles.md). https://www.rfc-editor.org/rfc/rfc4180, but for the bare line feeds.
    """
    rows = (
        f'{round(1000 * segment.start_s)},{round(1000 * segment.end_s)},"{_csv_text(segment)}"\n'
        for segment in transcript.segments
    )
    return "start,end,text\n" + "".join(rows)


def to_json(transcript: Transcript) -> str:
    """`Transcript.to_dict()` as JSON: one line, ASCII, no line end."""
    return json.dumps(transcript.to_dict())


#: name (and file suffix) -> function, those of `all` first; a format of `SUBTITLE_WRITERS` may be laid out
WRITERS: Final[Mapping[str, Callable[[Transcript], str]]] = {
    "txt": to_txt,
    "vtt": to_vtt,
    "srt": to_srt,
    "tsv": to_tsv,
    "json": to_json,
    "csv": to_csv,
    "lrc": to_lrc,
    "ass": to_ass,
}


def one_line(text: str) -> str:
    """Strip the text and put it on one line, whatever character breaks it."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _subtitles(transcript: Transcript, layout: Layout, shown_time: Callable[[float], str]) -> Iterator[Subtitle]:
    """Lay words out where all segments have them; else each segment is a subtitle, its characters kept."""
    if layout.cue_style == "readable" or has_words(transcript):
        yield from subtitles(transcript, layout, shown_time)
        return
    for segment in transcript.segments:
        yield Subtitle(segment.start_s, segment.end_s, without_arrows(one_line(segment.text)))


SUBTITLE_WRITERS: Final[Mapping[str, Callable[[Transcript, Layout], str]]] = {
    "vtt": to_vtt,
    "srt": to_srt,
    "lrc": to_lrc,
    "ass": to_ass,
}


def _tsv_text(segment: Segment) -> str:
    return one_line(segment.text).replace("\t", " ")


def _csv_text(segment: Segment) -> str:
    text = " ".join(visible(segment.text).split())
    return ("'" if _FORMULA.match(text) else "") + text.replace('"', '""')


def format_names(formats: str | Iterable[str]) -> tuple[str, ...]:
    """Give the formats asked for, each once; one text may name several, with commas. "all": the reference's.

    Raises OptionError for an unknown one.
    """
    asked = [name.strip() for name in formats.split(",")] if isinstance(formats, str) else list(formats)
    for name in asked:
        if name not in WRITERS and name != ALL_FORMATS:
            raise OptionError(f"unknown output format {name!r}; give one of {', '.join(WRITERS)} or {ALL_FORMATS}")
    wanted = {*asked, *(REFERENCE_FORMATS if ALL_FORMATS in asked else ())}
    return tuple(name for name in WRITERS if name in wanted)


def output_stem(audio: str) -> str:
    """Name a recording's files, without suffix: "in/a.b.mp3" -> "a.b", "-" -> "stdin"."""
    return STDIN_STEM if audio == "-" else os.path.splitext(os.path.basename(audio))[0]  # noqa: PTH119, PTH122


def write_files(
    transcript: Transcript,
    formats: str | Iterable[str],
    folder: str | os.PathLike[str],
    stem: str,
    layout: Layout = PLAIN_LAYOUT,
) -> list[Path]:
    """Write a transcript as `folder/stem.FORMAT` for each format, and return the paths.

    layout: of subtitles.

    Every file is first written whole under a temporary name beside its place; only when all are on the disk
    are they renamed. If anything fails, what stood there before still stands, and no half is left. When this
    returns, the new names are on the disk too. What a killed process left behind of these files is removed.

    Raises OutputError with the file, the cause and the way out; OptionError for an unknown format.
    """
    if not stem or Path(stem).name != stem or "\0" in stem:
        raise OutputError(f"{stem!r} is not a plain file name; give the folder and the name apart")
    targets = {Path(folder, f"{stem}.{name}"): _written(transcript, name, layout) for name in format_names(formats)}
    staged = {target: _temporary_path(target, os.getpid()) for target in targets}
    _remove_left_behind(targets, folder)
    try:
        for target, text in targets.items():
            with _named(target):
                if target.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                _write_whole(staged[target], text)
        for target, temporary in staged.items():
            with _named(target):
                os.replace(temporary, target)  # noqa: PTH105 (as the design says, and patched by the tests)
    finally:
        for temporary in staged.values():
            with suppress(OSError):  # never there, or already renamed
                temporary.unlink()
    sync_folder(folder)
    return list(targets)


def write_whole(target: Path, parts: Iterable[bytes]) -> None:
    """Write one file whole or not at all, piece by piece, as `write_files` does.

    Raises OutputError with the file, the cause and the way out.
    """
    temporary = _temporary_path(target, os.getpid())
    _remove_left_behind([target], target.parent)
    try:
        with _named(target):
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            with temporary.open("wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)  # noqa: PTH105 (as above)
    finally:
        with suppress(OSError):  # never there, or already renamed
            temporary.unlink()
    sync_folder(target.parent)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Let the names in a folder reach the disk, on systems where that can be asked for."""
    with suppress(OSError):  # Windows opens no folder; some network disks refuse
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _remove_left_behind(targets: Iterable[Path], folder: str | os.PathLike[str]) -> None:
    """Remove temporary files of these targets whose process has ended."""
    begun = {name for target in targets for name in (target.name, _short_name(target))}
    with suppress(OSError):  # no such folder: to be said when the files are written
        for name in os.listdir(folder):  # noqa: PTH208 (names are all that is wanted)
            beginning, _, process = name.rpartition(".tmp-")
            ours = beginning in begun and process.isascii() and process.isdigit()
            if ours and not _is_running(int(process)):
                Path(folder, name).unlink()


def _is_running(process: int) -> bool:
    if sys.platform == "win32":  # to ask would end it there; an open file cannot be removed anyway
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is there, and another user's
        return True
    return True


def _written(transcript: Transcript, name: str, layout: Layout) -> str:
    if name in SUBTITLE_WRITERS:
        return SUBTITLE_WRITERS[name](transcript, layout)
    return WRITERS[name](transcript)


def _temporary_path(target: Path, process: int) -> Path:
    suffix = f".tmp-{process}"
    name = target.name + suffix
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f"{_short_name(target)}{suffix}"
    return target.with_name(name)


def _short_name(target: Path) -> str:
    return f"{zlib.crc32(os.fsencode(target.name)):08x}"


def _write_whole(path: Path, text: str) -> None:
    # A lone surrogate has no UTF-8 form; text from a tokenizer never holds one.
    with path.open("wb") as file:
        file.write(text.encode("utf-8", errors="replace"))
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _named(target: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that names the file that was wanted."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{target}: {why_not_written(error)}") from error


def why_not_written(error: OSError) -> str:
    """Say in words why a file could not be written, and the way out."""
    return _WHY.get(error.errno or 0) or f"cannot be written ({error.strerror or error})"
