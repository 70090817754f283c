"""Subtitles of a transcript: which words stand together, on which line, and how long they are shown. Pure.

Knows no file format: srt and vtt write down what comes from here.
Source: openai/whisper utils.py, release 20250625 (SubtitlesWriter: the rules, not the code).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

from stapes.errors import OptionError
from stapes.options import option
from stapes.results import Segment, Word

#: longer than any line, and more words than any subtitle
_UNLIMITED: Final = 1000
#: after such a silence a subtitle ends, where segments do not end it
_LONG_PAUSE_S: Final = 3.0
_ARROW: Final = re.compile("-{2,}>")
_LINE_BREAK: Final = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How subtitles are laid out; every option needs word times."""

    highlight_words: bool = option(False, "underline each word in srt and vtt as it is spoken")
    max_line_width: int | None = option(None, "most characters in a line of a subtitle", "characters")
    max_line_count: int | None = option(
        None, "most lines in a subtitle, which then may go on from segment to segment; needs max_line_width", "lines"
    )
    max_words_per_line: int | None = option(None, "most words in a subtitle; no effect with max_line_width", "words")

    def __post_init__(self) -> None:
        for name in ("max_line_width", "max_line_count", "max_words_per_line"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                raise OptionError(f"{name} must be a whole number of at least 0 (no limit), or None; got {value!r}")

    @property
    def asked_for(self) -> tuple[str, ...]:
        """The names of the options that are not at their defaults."""
        return tuple(item.name for item in fields(self) if getattr(self, item.name))

    @property
    def keeps_segments(self) -> bool:
        """Whether every segment begins a subtitle."""
        return not self.max_line_count or not self.max_line_width


#: one subtitle for each segment
PLAIN_LAYOUT: Final = Layout()


@dataclass(frozen=True, slots=True)
class Subtitle:
    """What is shown, and from when to when in seconds."""

    start_s: float
    end_s: float
    text: str


def subtitles(segments: Sequence[Segment], layout: Layout, shown_time: Callable[[float], str]) -> Iterator[Subtitle]:
    """Give the subtitles of segments whose words have times.

    shown_time: a time as the format writes it: what looks equal there is equal.
    """
    for words in _grouped(segments, layout):
        text = "".join(word.text for word in words)
        if layout.highlight_words:
            yield from _highlighted(words, text, shown_time)
        else:
            yield Subtitle(words[0].start_s, words[-1].end_s, without_arrows(text))


class _Lines:
    """Subtitles as they fill with words."""

    def __init__(self, layout: Layout, first_start_s: float) -> None:
        self._layout = layout
        self._width = layout.max_line_width or _UNLIMITED
        self._words: list[Word] = []
        self._line_length = 0
        self._line_count = 1
        self._last_s = first_start_s

    def add(self, word: Word, *, first_of_chunk: bool) -> list[Word] | None:
        """Take a word; give the subtitle before it, if that has ended."""
        ended = None
        long_pause = not self._layout.keeps_segments and word.start_s - self._last_s > _LONG_PAUSE_S
        breaks = first_of_chunk and bool(self._words) and self._layout.keeps_segments
        has_room = self._line_length + len(word.text) <= self._width
        if self._line_length > 0 and has_room and not long_pause and not breaks:
            self._line_length += len(word.text)
        else:
            word = replace(word, text=word.text.strip())
            limit = self._layout.max_line_count
            if breaks or (self._words and limit and (long_pause or self._line_count >= limit)):
                ended, self._words = self._words, []
                self._line_count = 1
            elif self._line_length > 0:
                self._line_count += 1
                word = replace(word, text="\n" + word.text)
            self._line_length = len(word.text.strip())
        self._words.append(word)
        self._last_s = word.start_s
        return ended

    @property
    def rest(self) -> list[Word]:
        """The last subtitle."""
        return self._words


def _grouped(segments: Sequence[Segment], layout: Layout) -> Iterator[list[Word]]:
    """Give the words of each subtitle; text that begins a line has no space before it, and other lines a line feed."""
    size = layout.max_words_per_line or _UNLIMITED
    lines = _Lines(layout, _first_start(segments))
    for segment in segments:
        for i, word in enumerate(segment.words or ()):
            word = replace(word, text=_LINE_BREAK.sub(" ", word.text))  # noqa: PLW2901
            ended = lines.add(word, first_of_chunk=i % size == 0)
            if ended:
                yield ended
    if lines.rest:
        yield lines.rest


def _first_start(segments: Sequence[Segment]) -> float:
    return next((segment.words[0].start_s for segment in segments if segment.words), 0.0)


def _highlighted(words: Sequence[Word], text: str, shown_time: Callable[[float], str]) -> Iterator[Subtitle]:
    """Show the same text once for each word, underlined, and as it is in between."""
    last_s = words[0].start_s
    for i, word in enumerate(words):
        if shown_time(last_s) != shown_time(word.start_s):
            yield Subtitle(last_s, word.start_s, without_arrows(text))
        shown = "".join(_underlined(one.text) if i == j else one.text for j, one in enumerate(words))
        yield Subtitle(word.start_s, word.end_s, without_arrows(shown))
        last_s = word.end_s


def _underlined(text: str) -> str:
    """Underline a word, but not the space or line feed before it."""
    bare = text.lstrip()
    return f"{text[: len(text) - len(bare)]}<u>{bare}</u>"


def without_arrows(text: str) -> str:
    """Write no arrow into a text: it would stand for the times of a subtitle."""
    return _ARROW.sub("->", text)
