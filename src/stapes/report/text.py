"""The transcript as HTML: segments with their words, and between them what was skipped or dropped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from stapes.audio.mel import seconds_of
from stapes.report.escape import clock, escaped, language_name, language_tag
from stapes.results import Flag, Segment, Transcript, Window, Word

#: probability from which on -> class of a word, the least probable first; the legend says the same
STEPS: Final = ((0.0, "p0"), (0.25, "p1"), (0.5, "p2"), (0.7, "p3"), (0.85, "p4"), (0.95, "p5"))
_EDGES: Final = re.compile(r"(\s*)(.*?)(\s*)", re.DOTALL)


def step_of(probability: float) -> str:
    """Return the class of a word's probability."""
    return next(name for least, name in reversed(STEPS) if probability >= least or least == 0.0)


def text_parts(transcript: Transcript) -> Iterator[str]:
    """Yield segments, skipped windows and flags in the order of time; a window's first segment leads to it."""
    numbers = {window.seek: number for number, window in enumerate(transcript.windows, 1)}
    entries: list[tuple[float, int, Segment | int | Flag]] = [(one.start_s, 2, one) for one in transcript.segments]
    entries += [(one.start_s, 1, one) for one in transcript.flags]
    entries += [(seconds_of(one.seek), 0, number) for number, one in enumerate(transcript.windows, 1) if one.skipped]
    linked = None
    for _, _, entry in sorted(entries, key=lambda one: one[:2]):
        if isinstance(entry, Segment):
            window = numbers.get(entry.seek)
            yield _segment(entry, transcript.language, window if window != linked else None)
            linked = window
        elif isinstance(entry, Flag):
            yield _flag(entry)
        else:
            yield _skipped(transcript.windows[entry - 1], entry)


def spoken_words(transcript: Transcript) -> Iterator[Word]:
    """Yield the words in the order in which the page shows them."""
    for segment in sorted(transcript.segments, key=lambda one: one.start_s):
        if segment.text.strip():
            yield from (word for word in segment.words or () if word.text.strip())


def _segment(segment: Segment, language: str, window: int | None) -> str:
    own = segment.language or language
    notes = "".join(f'<span class="note flagged">{escaped(name)}</span>' for name in segment.flags)
    if own != language:
        notes = f'<span class="note">{language_name(own)}</span>' + notes
    if window is not None:
        notes += f'<a class="note" href="#w{window}">window {window}</a>'
    return (
        f'<div class="segment" id="s{segment.id}">'
        f'<a class="time" href="#s{segment.id}" data-s="{segment.start_s:.2f}" title="to {clock(segment.end_s)}">'
        f"{clock(segment.start_s)}</a>"
        f'<p dir="auto" lang="{language_tag(own)}">{_words(segment)}</p><div class="notes">{notes}</div></div>\n'
    )


def _words(segment: Segment) -> str:
    if not segment.text.strip():
        return '<span class="none" lang="en">no text</span>'
    if segment.words is None:
        return escaped(segment.text.strip())
    return "".join(map(_word, segment.words)).strip()


def _word(word: Word) -> str:
    match = _EDGES.fullmatch(word.text)
    before, text, after = match.groups() if match else ("", word.text, "")
    marked = f'<span class="w {step_of(word.probability)}">{escaped(text)}</span>' if text else ""
    return escaped(before) + marked + escaped(after)


def _flag(flag: Flag) -> str:
    dropped = f' <q dir="auto">{escaped(flag.text.strip())}</q>' if flag.text.strip() else ""
    what = f"<b>{escaped(flag.guard)}</b> to {clock(flag.end_s)}: <bdi>{escaped(flag.reason)}</bdi>{dropped}"
    return f'<div class="segment aside flagged">{_time(flag.start_s)}<p>{what}</p></div>\n'


def _skipped(window: Window, number: int) -> str:
    text = window.result.text.strip()
    dropped = f' It had read <q dir="auto">{escaped(text)}</q>' if text else ""
    seek_s, end_s = seconds_of(window.seek), seconds_of(window.next_seek)
    what = f", to {clock(end_s)}, was skipped: taken for silence, or its text for invented"
    if window.decoded_again:
        what = f" was decoded again as window {number + 1}"
    return (
        f'<div class="segment aside">{_time(seek_s)}<p><a href="#w{number}">Window {number}</a>'
        f"{what}.{dropped}</p></div>\n"
    )


def _time(seconds: float) -> str:
    return f'<a class="time" href="#text" data-s="{seconds:.2f}">{clock(seconds)}</a>'
