"""Transcript -> LRC: a line for each subtitle, with the start of each of its words where that is known.

    [re:stapes]
    [length:00:12.34]
    [00:01.00]<00:01.00>Hello <00:01.52>world.<00:02.00>
    [00:02.00]

Words' times are in angle brackets as in the A2 extension ("enhanced LRC"); the last one is the last word's end. An
empty line clears the screen after a subtitle, unless the next one follows within a second. A subtitle's lines are
joined by spaces. Text that looks like a tag gets round brackets: the format has no escape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from stapes.output.line_breaks import visible
from stapes.output.readable import Cue
from stapes.output.subtitles import PLAIN_LAYOUT, Layout, cues, hundredths
from stapes.results import Transcript, checked

#: a shorter silence leaves the line where it is
_CLEARING_SILENCE_S: Final = 1.0
_TAG: Final = re.compile(r"\[([\w# ]*:[^\[\]]*)\]|<(\s*[\d:][\d:.\s]*)>")


def to_lrc(transcript: Transcript, layout: Layout = PLAIN_LAYOUT) -> str:
    """Return LRC: one line per segment, or per subtitle as `layout` has it; times never run backwards."""
    lines = ["[re:stapes]", f"[length:{_clock(hundredths(checked(transcript).duration_s))}]"]
    return "".join(f"{line}\n" for line in (*lines, *_lines(list(cues(transcript, layout)))))


def _lines(found: list[Cue]) -> Iterator[str]:
    last = 0
    for number, cue in enumerate(found):
        start = max(last, hundredths(cue.start_s))
        text, last = _text(cue, start)
        yield f"[{_clock(start)}]{text}"
        last = max(last, hundredths(cue.end_s))
        following = found[number + 1] if number + 1 < len(found) else None
        if following is None or following.start_s - cue.end_s >= _CLEARING_SILENCE_S:
            yield f"[{_clock(last)}]"


def _text(cue: Cue, start: int) -> tuple[str, int]:
    """Return a line's text, and the last time in it."""
    words = [(word, " ".join(visible(word.text).split())) for word in cue.words]
    words = [(word, bare) for word, bare in words if bare]
    if not words:
        return _without_tags(" ".join(visible(cue.text).split())), start
    text, last = "", start
    for i, (word, bare) in enumerate(words):
        apart = i > 0 and visible(word.text).startswith(" ")
        last = max(last, hundredths(word.start_s))
        text += f"{' ' if apart else ''}<{_clock(last)}>{_without_tags(bare)}"
    last = max(last, hundredths(words[-1][0].end_s))
    return f"{text}<{_clock(last)}>", last


def _without_tags(text: str) -> str:
    return _TAG.sub(lambda found: f"({found[1] or found[2]})", text)


def _clock(time: int) -> str:
    return f"{time // 6000:02d}:{time // 100 % 60:02d}.{time % 100:02d}"
