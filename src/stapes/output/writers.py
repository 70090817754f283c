"""Transcript -> txt, vtt, srt, tsv, json, csv, lrc, ass: pure functions, and one driver that puts them into files.

The text of the first five is that of openai/whisper's writers byte for byte, with two deviations, where a file of the
reference could not be read back:
- A line break inside a segment's text becomes one space (a blank line would end a subtitle early, any line
  break a row of tsv); json keeps it.
- Dashes before `>` become one dash: the reference replaces `-->` once, so that `--->` ends as an arrow.
Lines end in a bare line feed on every system.

How words become subtitles: subtitles.py; how files are written: files.py.
Source: openai/whisper utils.py, release 20250625 (the formats, not the code).
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from stapes.errors import OptionError, OutputError
from stapes.output.ass import to_ass
from stapes.output.files import InputFiles, write_whole
from stapes.output.line_breaks import visible
from stapes.output.lrc import to_lrc
from stapes.output.subtitles import PLAIN_LAYOUT, Layout, Subtitle, has_words, subtitles, without_arrows, without_markup
from stapes.results import Segment, Transcript, checked

#: the name of the reference's formats, in the order in which they are written
ALL_FORMATS: Final = "all"
REFERENCE_FORMATS: Final = ("txt", "vtt", "srt", "tsv", "json")
#: what a spreadsheet takes for the beginning of a formula (https://owasp.org/www-community/attacks/CSV_Injection)
_FORMULA: Final = re.compile("'*[=+\\-@＝＋－＠]")


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
    return "".join(f"{one_line(segment.text)}\n" for segment in checked(transcript).segments)


def to_vtt(transcript: Transcript, layout: Layout = PLAIN_LAYOUT) -> str:
    """WebVTT: one cue per segment, or as `layout` has it (https://www.w3.org/TR/webvtt1/)."""
    cues = (
        f"{format_timestamp(one.start_s)} --> {format_timestamp(one.end_s)}\n{one.text}\n\n"
        for one in _subtitles(transcript, layout, format_timestamp, partial(html.escape, quote=False))
    )
    return "WEBVTT\n\n" + "".join(cues)


def to_srt(transcript: Transcript, layout: Layout = PLAIN_LAYOUT) -> str:
    """SubRip: one subtitle per segment, or as `layout` has it; numbered, hours always, a comma in times."""

    def time(seconds: float) -> str:
        return format_timestamp(seconds, always_hours=True, decimal_mark=",")

    return "".join(
        f"{number}\n{time(one.start_s)} --> {time(one.end_s)}\n{one.text}\n\n"
        for number, one in enumerate(_subtitles(transcript, layout, time, without_markup), start=1)
    )


def to_tsv(transcript: Transcript) -> str:
    """Tab-separated start and end in milliseconds, and text, under a line of names; tabs become spaces."""
    rows = (
        f"{round(1000 * segment.start_s)}\t{round(1000 * segment.end_s)}\t{_tsv_text(segment)}\n"
        for segment in checked(transcript).segments
    )
    return "start\tend\ttext\n" + "".join(rows)


def to_csv(transcript: Transcript) -> str:
    """Comma-separated start and end in milliseconds, and quoted text, under a line of names; as whisper.cpp has it.

    An apostrophe stands before text that a spreadsheet would take for a formula, or that would be mistaken for such a
    text (docs/subtitles.md). https://www.rfc-editor.org/rfc/rfc4180, but for the bare line feeds.
    """
    rows = (
        f'{round(1000 * segment.start_s)},{round(1000 * segment.end_s)},"{_csv_text(segment)}"\n'
        for segment in checked(transcript).segments
    )
    return "start,end,text\n" + "".join(rows)


def to_json(transcript: Transcript) -> str:
    """`Transcript.to_dict()` as JSON: one line, ASCII, no line end."""
    return json.dumps(checked(transcript).to_dict())


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
    """Return the text stripped and on one line, whatever character breaks it."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _subtitles(
    transcript: Transcript, layout: Layout, shown_time: Callable[[float], str], escaped: Callable[[str], str]
) -> Iterator[Subtitle]:
    """Yield subtitles by words where all segments have them; else each segment is one, its characters kept."""
    if has_words(checked(transcript)) or layout.cue_style == "readable":
        yield from subtitles(transcript, layout, shown_time, escaped)
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
    """Return the formats asked for, in that order, each once; one text may name several, with commas, in any case.
    "all": the reference's. Raises OptionError for an unknown one.
    """
    asked = [str(name).strip().lower() for name in (formats.split(",") if isinstance(formats, str) else formats)]
    for name in asked:
        if name not in WRITERS and name != ALL_FORMATS:
            raise OptionError(f"unknown output format {name!r}; give one of {', '.join(WRITERS)} or {ALL_FORMATS}")
    wanted = (one for name in asked for one in (REFERENCE_FORMATS if name == ALL_FORMATS else (name,)))
    return tuple(dict.fromkeys(wanted))


def write_files(
    transcript: Transcript,
    formats: str | Iterable[str],
    folder: str | os.PathLike[str],
    stem: str,
    layout: Layout = PLAIN_LAYOUT,
    *,
    inputs: Iterable[str | os.PathLike[str]] | InputFiles = (),
) -> list[Path]:
    """Write a transcript as `folder/stem.FORMAT` for each format, and return the paths.

    layout: of subtitles.   inputs: files that must not be replaced, such as the recording.
    All files appear whole or none does (`output.files.write_whole`); existing ones are replaced, links are followed.
    Raises OutputError with the file, the cause and what to do; OptionError for an unknown format or another object.
    """
    checked(transcript)
    if not stem or Path(stem).name != stem or "\0" in stem:
        raise OutputError(f"{stem!r} is not a plain file name; give the folder and the name apart")
    # A lone surrogate has no UTF-8 form; text from a tokenizer never holds one.
    contents = {
        Path(folder, f"{stem}.{name}"): [formatted(transcript, name, layout).encode("utf-8", errors="replace")]
        for name in format_names(formats)
    }
    write_whole(contents, inputs)
    return list(contents)


def formatted(transcript: Transcript, name: str, layout: Layout = PLAIN_LAYOUT) -> str:
    """Return a transcript in the format of this name. layout: of subtitles."""
    if name in SUBTITLE_WRITERS:
        return SUBTITLE_WRITERS[name](transcript, layout)
    return WRITERS[name](transcript)
