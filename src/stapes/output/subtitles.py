"""Subtitles of a transcript: which words are together, on which line, and how long they are shown. Pure.

Two styles: plain, the reference's, is here; readable is in readable.py. Knows no file format.
Source: openai/whisper utils.py, release 20250625 (SubtitlesWriter: the rules, not the code).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, get_args

from stapes.errors import OptionError
from stapes.options import option
from stapes.options.checks import flag, make_plain, whole
from stapes.output.line_breaks import SHORTEST_S, in_order, shows, visible
from stapes.output.readable import Cue, Limits, readable_cues
from stapes.results import Segment, Transcript, Word

CueStyle = Literal["plain", "readable"]

#: a usual size for films and television
_READABLE_WIDTH: Final = 42
_READABLE_LINES: Final = 2
#: longer than any line, and more words than any subtitle
_UNLIMITED: Final = 1000
#: after such a silence a subtitle ends, where segments do not end it
_LONG_PAUSE_S: Final = 3.0
_ARROW: Final = re.compile("-{2,}>")
_LINE_BREAK: Final = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How subtitles are laid out (docs/subtitles.md)."""

    cue_style: CueStyle = option(
        "plain", "plain: as the whisper command; readable: lines that break at sentences, clauses and pauses and stay "
        "until they can be read; turns word_timestamps on"
    )  # fmt: skip
    highlight_words: bool = option(False, "underline each word in srt and vtt as it is spoken")
    max_line_width: int | None = option(
        None, "most characters in a line of a subtitle; readable: 42, of which East Asian ones take two", "characters"
    )
    max_line_count: int | None = option(
        None, "most lines in a subtitle, which then may go on from segment to segment; needs max_line_width; "
        "readable: 2", "lines"
    )  # fmt: skip
    max_words_per_line: int | None = option(None, "most words in a subtitle; no effect with max_line_width", "words")
    max_chars_per_second: float = option(
        17.0, "readable: the reading speed for which a subtitle is shown", "characters"
    )
    min_cue_duration: float = option(1.0, "readable: shortest time that a subtitle is shown, where speech allows", "s")
    max_cue_duration: float = option(7.0, "readable: longest time that a subtitle is shown", "s")

    def __post_init__(self) -> None:
        make_plain(self)
        if self.cue_style not in get_args(CueStyle):
            raise OptionError(f"cue_style must be plain or readable, got {self.cue_style!r}")
        flag("highlight_words", self.highlight_words)
        for name in ("max_line_width", "max_line_count", "max_words_per_line"):
            whole(name, getattr(self, name), low=0)  # 0: no limit
        if self.cue_style == "readable":
            self._check_readable()
        else:
            self._check_plain()

    def _check_plain(self) -> None:
        for name in _READABLE_ONLY:
            if getattr(self, name) != _DEFAULTS[name]:
                raise OptionError(f"{name} requires cue_style readable")

    def _check_readable(self) -> None:
        if self.max_words_per_line:
            raise OptionError("max_words_per_line does not go with cue_style readable; give max_line_width")
        for name, least in (("max_line_width", 2), ("max_line_count", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionError(f"{name} must be at least {least} with cue_style readable, got {value}")
        for name in _READABLE_ONLY:
            value = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not 0 < value < math.inf:
                raise OptionError(f"{name} must be a number above 0, got {value!r}")
        if self.max_cue_duration < SHORTEST_S:
            raise OptionError(f"max_cue_duration must be at least {SHORTEST_S:g} s, got {self.max_cue_duration:g}")
        if self.min_cue_duration > self.max_cue_duration:
            raise OptionError(
                f"min_cue_duration {self.min_cue_duration:g} is more than max_cue_duration {self.max_cue_duration:g}"
            )

    @property
    def needing_words(self) -> tuple[str, ...]:
        """The names of given options that have no effect without word times."""
        names = ("highlight_words", "max_line_width", "max_line_count", "max_words_per_line")
        return tuple(name for name in names[: 1 if self.cue_style == "readable" else None] if getattr(self, name))

    @property
    def keeps_segments(self) -> bool:
        """Whether every segment begins a subtitle."""
        return not self.max_line_count or not self.max_line_width

    @property
    def limits(self) -> Limits:
        """The limits of a readable subtitle."""
        return Limits(
            line_width=self.max_line_width or _READABLE_WIDTH,
            line_count=self.max_line_count or _READABLE_LINES,
            chars_per_second=self.max_chars_per_second,
            min_duration_s=self.min_cue_duration,
            max_duration_s=self.max_cue_duration,
        )


_READABLE_ONLY: Final = ("max_chars_per_second", "min_cue_duration", "max_cue_duration")
_DEFAULTS: Final[dict[str, Any]] = {item.name: item.default for item in fields(Layout)}
#: one subtitle for each segment
PLAIN_LAYOUT: Final = Layout()


@dataclass(frozen=True, slots=True)
class Subtitle:
    """The text of a subtitle, and from when to when it is shown, in seconds."""

    start_s: float
    end_s: float
    text: str


def cues(transcript: Transcript, layout: Layout) -> Iterator[Cue]:
    """Yield the subtitles of a transcript, laid out by words where all segments have them.

    None is empty, and each lasts longer than any format's rounding. Words without duration, which openai/whisper
    sometimes gives, share the free time around them (`line_breaks.in_order`).
    """
    if layout.cue_style == "readable":
        yield from readable_cues(transcript.segments, layout.limits, transcript.duration_s)
        return
    segments, worded = transcript.segments, has_words(transcript)
    if not worded:
        segments = tuple(replace(one, words=(_as_word(one),)) for one in segments)
    spoken = [word for segment in segments for word in segment.words or () if _is_seen(word)]
    timed = iter(in_order(spoken, max((segment.end_s for segment in segments), default=0.0)))
    shown = [replace(one, words=tuple(next(timed) for word in one.words or () if _is_seen(word))) for one in segments]
    if worded:
        yield from _plain_cues(shown, layout)
    else:
        for word in (word for segment in shown for word in segment.words or ()):
            yield Cue(start_s=word.start_s, end_s=word.end_s, text=word.text)


def _as_word(segment: Segment) -> Word:
    text = " ".join(visible(segment.text).split())
    return Word(text=text, start_s=segment.start_s, end_s=segment.end_s, probability=1.0)


def _is_seen(word: Word) -> bool:
    return any(map(shows, visible(word.text).split()))


def _plain_cues(segments: Sequence[Segment], layout: Layout) -> Iterator[Cue]:
    """Yield the subtitles of the reference, with the words' times as they are."""
    for words in _grouped(segments, layout):
        text = "".join(word.text for word in words)
        yield Cue(start_s=words[0].start_s, end_s=words[-1].end_s, text=text, words=tuple(words))


def has_words(transcript: Transcript) -> bool:
    """Whether words have times: all segments were asked for them."""
    return all(segment.words is not None for segment in transcript.segments)


def subtitles(
    transcript: Transcript, layout: Layout, shown_time: Callable[[float], str], escaped: Callable[[str], str]
) -> Iterator[Subtitle]:
    """Yield the subtitles of a transcript as srt and vtt show them: plain ones by words, as the reference's bytes.

    shown_time: a time as the format writes it: what looks equal there is equal.
    escaped: a text as the format writes it, so that nothing of it is markup; the reference escapes nothing.
    """
    if layout.cue_style == "plain":
        found, escaped = _plain_cues(transcript.segments, layout), str
    else:
        found = cues(transcript, layout)
    for cue in found:
        if layout.highlight_words and cue.words:
            yield from _highlighted(cue, shown_time, escaped)
        else:
            yield Subtitle(cue.start_s, cue.end_s, without_arrows(escaped(without_arrows(cue.text))))


class _Lines:
    """Subtitles while they fill with words."""

    def __init__(self, layout: Layout, first_start_s: float) -> None:
        self._layout = layout
        self._width = layout.max_line_width or _UNLIMITED
        self._words: list[Word] = []
        self._line_length = 0
        self._line_count = 1
        self._last_s = first_start_s

    def add(self, word: Word, *, first_of_chunk: bool) -> list[Word] | None:
        """Take a word; return the subtitle before it, if that has ended."""
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
        return self._words


def _grouped(segments: Sequence[Segment], layout: Layout) -> Iterator[list[Word]]:
    """Yield the words of each subtitle; text that begins a line has no space before it, and other lines a line feed."""
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


def _highlighted(cue: Cue, shown_time: Callable[[float], str], escaped: Callable[[str], str]) -> Iterator[Subtitle]:
    """Yield the same text once for each word, underlined, and as it is in between, and after the last one."""
    last_s, text = cue.start_s, without_arrows(escaped(without_arrows(cue.text)))
    words = [escaped(without_arrows(word.text)) for word in cue.words]
    for i, word in enumerate(cue.words):
        if shown_time(last_s) != shown_time(word.start_s):
            yield Subtitle(last_s, word.start_s, text)
        shown = "".join(_underlined(one) if i == j else one for j, one in enumerate(words))
        yield Subtitle(word.start_s, word.end_s, without_arrows(shown))
        last_s = word.end_s
    if shown_time(last_s) != shown_time(cue.end_s):
        yield Subtitle(last_s, cue.end_s, text)


def _underlined(text: str) -> str:
    """Underline a word, but not the space or line feed before it."""
    bare = text.lstrip()
    return f"{text[: len(text) - len(bare)]}<u>{bare}</u>"


def hundredths(seconds: float) -> int:
    """Return a time as LRC and ASS write it."""
    return round(100 * seconds)


def without_arrows(text: str) -> str:
    """Return a text without arrows, which would stand for the times of a subtitle."""
    return _ARROW.sub("->", text)


def without_commands(text: str) -> str:
    r"""Return a text that is no command of ASS, nor one that players accept in SRT (`{\an8}`).

    Braces become full-width ones, which every player shows: not all of them have an escape. A word joiner (U+2060)
    follows a backslash: it is invisible, and after it `\N` is no line break.
    """
    return text.replace("\\", "\\\u2060").replace("{", "\uff5b").replace("}", "\uff5d")


def without_markup(text: str) -> str:
    """Return a text that is no tag or command of SRT, which has no escape: a word joiner follows each `<` too."""
    return without_commands(text).replace("<", "<\u2060")
