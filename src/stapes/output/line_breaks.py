"""Line breaks of a text: pieces that stay together, their width and times, and the cost of each break. Pure.

A character counts as one column, wide East Asian ones and emoji as two, combining and invisible ones as none. What a
break costs is a number from 0 (after a sentence) up; the costs were tuned by reading subtitles of real speech. The
rules use punctuation, pauses, words that belong to the next word (line_break_words.py), and the scripts of East Asia,
but no grammar.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from stapes.output.line_break_words import ABBREVIATIONS, LEANERS, OPENERS
from stapes.results import Segment, Word

#: costs of a break, best first
SENTENCE: Final = 0.0
_CLAUSE: Final = 0.3
_BRACKET: Final = 0.6
_OPENER: Final = 0.7  # before a word that begins a phrase
_PLAIN: Final = 1.0
_TOGETHER: Final = 1.6  # a number and its unit, two parts of a name
_LEANING: Final = 2.2  # after an article, a preposition, a title
#: from here on two pieces are one, unless it would be too wide
_JOINED: Final = 3.0
_NEVER: Final = 8.0
#: times the cost, where the network began a segment: mostly at a pause, but sometimes in the middle of a phrase
_NEW_SEGMENT: Final = 0.6
#: what every word lasts at least: two steps of the coarsest format, so that rounding leaves one of them
SHORTEST_S: Final = 0.02
#: what it takes to read a column, at 17 a second
_READING_S: Final = 1 / 17
#: a pause this long makes a break half as costly
_HALVING_PAUSE_S: Final = 0.6

_SENTENCE_MARKS: Final = frozenset(".?!…。？！．؟۔।")
_CLAUSE_MARKS: Final = frozenset(",;:，、；：،؛·—–―")
_DASHES: Final = frozenset("-—–―")
_OPENING: Final = frozenset("([{¿¡“‘«‹„「『（［｛〈《【〔")
_CLOSING: Final = frozenset(")]}”’»›」』）］｝〉》】〕\"'")
#: these open in one language and close in another
_EITHER: Final = frozenset("“”‘’«»‹›")
#: no line begins with one of these (JIS X 4051, the marks and small signs of its first classes)
_NEVER_FIRST: Final = (
    _SENTENCE_MARKS
    | _CLAUSE_MARKS
    | (_CLOSING - set("\"'"))
    | frozenset("%％‰°・ー々ゝゞヽヾぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ〜～")
    | frozenset("ะาำๅๆฯະາຳ")  # vowels and signs of Thai and Lao that belong to the letter before
)
#: no line ends with one of these: Thai and Lao vowels belong to the letter after
_NEVER_LAST: Final = _OPENING | frozenset("เแโใไເແໂໃໄ")
_QUOTES: Final = "\"'“”‘’"
_AROUND_WORDS: Final = _QUOTES + ".,;:!?…"
#: Japanese particles after which a phrase has ended
_PARTICLES: Final = frozenset("はがをにでとへもやねよ")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text that is kept on one line."""

    words: tuple[Word, ...]  # text, with the space before it if there is one
    width: int  # columns, without that first space
    space: int  # columns of that space: 0 or 1
    break_cost: float  # of a break before it; 0 before the first one
    pause_s: float  # silence before it

    @property
    def start_s(self) -> float:
        """When it begins."""
        return self.words[0].start_s

    @property
    def end_s(self) -> float:
        """When it ends."""
        return self.words[-1].end_s


def pieces(segments: Sequence[Segment], widest: int, longest_s: float) -> list[Piece]:
    """Split segments into pieces, each at most `widest` (2 or more) columns wide.

    Words have their own times, each from the end of the one before on; text without words shares its segment's time by
    columns. What cannot be seen is left out. A piece of several words takes at most `longest_s` seconds.
    """
    cut = list(_cut(segments, widest))
    words = in_order([word for word, _ in cut], max((segment.end_s for segment in segments), default=0.0))
    found: list[Piece] = []
    for i, (word, (_, begins_segment)) in enumerate(zip(words, cut, strict=True)):
        before = words[i - 1] if i else None
        pause_s = word.start_s - before.end_s if before else 0.0
        cost = break_cost(before.text, word.text, pause_s) if before else 0.0
        if begins_segment:
            cost *= _NEW_SEGMENT
        space = int(word.text[0] == " ")
        piece = Piece((word,), columns(word.text) - space, space, cost, pause_s)
        if found and cost >= _JOINED and (joined := _join(found[-1], piece, widest, longest_s)):
            found[-1] = joined
        else:
            found.append(piece)
    return found


def _join(one: Piece, other: Piece, widest: int, longest_s: float) -> Piece | None:
    width = one.width + other.space + other.width
    if width > widest or other.end_s - one.start_s > longest_s:
        return None
    return replace(one, words=one.words + other.words, width=width)


def visible(text: str) -> str:
    """Return a text on one line, ends included: white space becomes a space, control characters go, and the last two
    numbers of each plane, which are no characters (Chromium ends a subtitle of WebVTT at U+FFFF).
    """
    spaced = "".join(" " if char.isspace() else char for char in text)
    return "".join(char for char in spaced if unicodedata.category(char) != "Cc" and ord(char) & 0xFFFE != 0xFFFE)


def columns(text: str) -> int:
    """Return how many columns a text is wide."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


@lru_cache(maxsize=4096)
def _columns_of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf", "Cc"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def characters(text: str) -> list[str]:
    """Split a text into characters as readers see them: marks, joiners and skin tones stay with what they change."""
    found: list[str] = []
    for char in text:
        goes_on = unicodedata.category(char) in ("Mn", "Me", "Mc", "Cf") or "\U0001f3fb" <= char <= "\U0001f3ff"
        if found and (goes_on or found[-1].endswith("\u200d")):
            found[-1] += char
        else:
            found.append(char)
    return found


# Words in order.


def _cut(segments: Iterable[Segment], widest: int) -> Iterator[tuple[Word, bool]]:
    """Yield words without white space inside, none too wide, and whether a segment begins there."""
    gap, last = False, ""  # white space since the last character, and that character
    for segment in segments:
        begins = True
        for word in segment.words or _one_word(segment):
            text = visible(word.text)
            parts = [part for part in text.split() if shows(part)]
            gap = gap or text[:1] == " "
            shares: list[str] = []
            for part in parts:
                apart = gap or bool(shares) or (begins and not (_unspaced(last) and _unspaced(part[0])))
                bare = list(_narrow(part, widest, finely=not segment.words))
                shares += [f" {bare[0]}" if apart else bare[0], *bare[1:]]
            for one in _share(word, shares):
                yield one, begins
                begins = False
            gap, last = (text[-1] == " ", parts[-1][-1]) if parts else (gap or bool(text), last)


def _unspaced(char: str) -> bool:
    """Whether text goes on after or before this character without a space."""
    return bool(_script(char)) or char in _WIDE_MARKS


def _one_word(segment: Segment) -> tuple[Word, ...]:
    return (Word(text=segment.text, start_s=segment.start_s, end_s=segment.end_s, probability=1.0),)


def shows(part: str) -> bool:
    """Whether a text without white space has anything that can be seen."""
    return any(unicodedata.category(char) != "Cf" for char in part)


def _narrow(part: str, widest: int, *, finely: bool) -> Iterator[str]:
    """Split what is too wide, and where `finely` scripts without spaces, into characters or runs of them."""
    if not finely and columns(part) <= widest:
        yield part
        return
    run = ""
    for character in characters(part):
        for char in character if columns(character) > widest else (character,):
            alone = finely and (_script(char[0]) or _script(run[-1:]))
            if run and (alone or columns(run + char) > widest):
                yield run
                run = ""
            run += char
    yield run


def _share(word: Word, texts: Sequence[str]) -> Iterator[Word]:
    widths = [max(1, columns(text.strip())) for text in texts]
    step_s = (word.end_s - word.start_s) / max(1, sum(widths))
    done = 0
    for text, width in zip(texts, widths, strict=True):
        start_s, end_s = word.start_s + done * step_s, word.start_s + (done + width) * step_s
        done += width
        yield replace(word, text=text, start_s=start_s, end_s=word.end_s if done == sum(widths) else end_s)


def in_order(words: Sequence[Word], end_s: float) -> list[Word]:
    """Return words with times at which they can be shown: each begins when the previous has ended, and lasts.

    Words at one instant share the free time after them, up to `end_s` for the last ones, and then that before them, as
    far as it takes to read them. Where none is free, they take the shortest time that a format can show from the word
    before, or delay the next one.
    """
    starts, ends, last_s = [], [], 0.0
    for word in words:
        starts.append(max(last_s, word.start_s))
        last_s = max(starts[-1], word.end_s)
        ends.append(last_s)
    widths = [columns(word.text.strip()) for word in words]
    first = 0
    while first < len(words):
        end = first
        while end < len(words) and ends[end] - starts[first] < 0.99 * SHORTEST_S:
            end += 1
        if end > first:
            _share_free_time(starts, ends, (first, end), widths, end_s)
        first = max(end, first + 1)
    return [replace(word, start_s=starts[i], end_s=ends[i]) for i, word in enumerate(words)]


def _share_free_time(
    starts: list[float], ends: list[float], run: tuple[int, int], widths: Sequence[int], end_s: float
) -> None:
    """Spread a run of words at one instant over the time around it."""
    first, end = run
    wanted = [max(SHORTEST_S, width * _READING_S) for width in widths[first:end]]
    total_s, least_s, at_s = sum(wanted), SHORTEST_S * len(wanted), starts[first]
    after_s = starts[end] if end < len(starts) else max(ends[end - 1], end_s)
    to_s = max(ends[end - 1], min(after_s, at_s + total_s))
    from_s = min(at_s, max(ends[first - 1] if first else 0.0, to_s - total_s))
    if to_s - from_s < least_s and first:
        from_s = min(from_s, max(starts[first - 1] + SHORTEST_S, to_s - least_s))
        ends[first - 1] = min(ends[first - 1], from_s)
    to_s = max(to_s, from_s + least_s)
    for place, one in enumerate(wanted, first):
        starts[place] = from_s
        from_s += SHORTEST_S + (to_s - starts[first] - least_s) * one / total_s
        ends[place] = from_s
    # Not a sum's last digit off, so that what follows is not moved; times that are huge add up to more than `to_s`.
    ends[end - 1] = from_s = max(starts[end - 1], to_s)
    for later in range(end, len(starts)):
        if starts[later] >= from_s:
            break
        starts[later] = from_s
        ends[later] = from_s = max(ends[later], from_s)


# The cost of a break.


def break_cost(left: str, right: str, pause_s: float) -> float:
    """Return the cost of a break between two words; they are separate if a space is before the right one."""
    bare = right.lstrip()
    cost = _spaced_cost(left.strip(), bare) if right[0] == " " else _unspaced_cost(left.strip(), bare)
    return cost if cost >= _JOINED else cost / (1.0 + max(0.0, pause_s) / _HALVING_PAUSE_S)


def _leans_back(text: str) -> bool:
    begins_a_word = text[0] in _EITHER | _DASHES | {".", "…"} and any(map(str.isalnum, text))
    return text[0] in _NEVER_FIRST and not begins_a_word


def _leans_on(text: str) -> bool:
    return text[-1] in _NEVER_LAST and not (text[-1] in _EITHER and any(map(str.isalnum, text)))


def _spaced_cost(left: str, right: str) -> float:
    if _leans_back(right) or _leans_on(left) or not right.strip("".join(_DASHES)):
        return _JOINED
    marked = _marked_cost(left, right)
    if marked is not None:
        return marked
    if _script(left[-1]) and _script(right[0]):  # a space in Japanese is like a mark
        return _CLAUSE
    return _words_cost(left, right)


def _words_cost(left: str, right: str) -> float:
    before, after = left.lower().strip(_QUOTES), right.lower().strip(_AROUND_WORDS)
    if before in LEANERS or left[-1] in _DASHES:  # "up- and downwards"
        return _LEANING
    if after in OPENERS:
        return _OPENER
    if before[-1:].isdigit() or (left[0].isupper() and right[0].isupper()):
        return _TOGETHER
    return _PLAIN


def _marked_cost(left: str, right: str) -> float | None:
    """Return the cost of a break after punctuation; None: there is none."""
    bare = left.rstrip("".join(_CLOSING | _EITHER))
    if bare and bare[-1] in _SENTENCE_MARKS:
        return _stopped_cost(bare, right)
    if bare and (bare[-1] in _CLAUSE_MARKS or not bare.strip("-")):  # a hyphen may stand for a dash
        return _CLAUSE
    if (bare != left and left[-1] not in "\"'") or right[0] in _OPENING | _EITHER:
        return _BRACKET
    return None


def _stopped_cost(left: str, right: str) -> float:
    """Return the cost of a break after a possible end of a sentence."""
    word = left.rstrip("".join(_SENTENCE_MARKS))
    if left.endswith("."):
        if word.lower() in ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word != "I"):
            return _LEANING
        if word.isdigit() and len(word) <= _LONGEST_ORDINAL:  # "am 3. Oktober"
            return _TOGETHER
    return _CLAUSE if right[0].islower() else SENTENCE


def _unspaced_cost(left: str, right: str) -> float:
    if _leans_back(right) or _leans_on(left) or unicodedata.category(right[0])[0] == "M":
        return _NEVER
    scripts = _script(left[-1]), _script(right[0])
    if left[-1] in _WIDE_BRACKETS and scripts[1] == "hiragana":  # a particle
        return _LEANING
    if any(scripts) or left[-1] in _WIDE_MARKS:
        marked = _marked_cost(left, right)
        if marked is not None:
            return marked
        return _EAST_ASIAN_COSTS.get(scripts, _TOGETHER) - _PARTICLE_BONUS * (left[-1] in _PARTICLES)
    if len(left) > 1 and left[-1] in _DASHES and right[0].isalnum():
        return _LEANING
    return _NEVER


#: marks of scripts without spaces: text goes on after them at once
_WIDE_BRACKETS: Final = frozenset("」』）］｝〉》】〕")
_WIDE_MARKS: Final = _WIDE_BRACKETS | frozenset("、。，．：；？！…「『（［｛〈《【〔")
_PARTICLE_BONUS: Final = 0.3
#: a longer number with a full stop is a year at the end of a sentence
_LONGEST_ORDINAL: Final = 2
#: scripts before and after -> cost: a phrase of Japanese begins with Chinese characters or katakana, ends in hiragana
_EAST_ASIAN_COSTS: Final[dict[tuple[str, str], float]] = {
    ("hiragana", "han"): _OPENER, ("hiragana", "katakana"): _OPENER, ("hiragana", ""): _PLAIN,
    ("hiragana", "hiragana"): 1.9, ("han", "hiragana"): _JOINED, ("katakana", "hiragana"): _JOINED,
    ("han", "han"): 2.6, ("katakana", "katakana"): _JOINED, ("katakana", "han"): 1.9, ("han", "katakana"): 1.9,
    ("", "han"): _LEANING, ("", "katakana"): _LEANING, ("", "hiragana"): _LEANING,
}  # fmt: skip
#: scripts that put no spaces between words: name -> first and last code points
_SCRIPTS: Final = {
    "hiragana": ((0x3041, 0x309F),),
    "katakana": ((0x30A0, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)),
    "han": ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
    "southeast": ((0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF)),
}


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    """Return the script of a character, if it puts no spaces between words; else ""."""
    for name, ranges in _SCRIPTS.items():
        if char and any(first <= ord(char) <= last for first, last in ranges):
            return name
    return ""
