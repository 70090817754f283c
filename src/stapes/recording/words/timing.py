"""Words of one window: their times from attention, and the reference's rules for these times. Pure.

Source: openai/whisper timing.py at c0d2f62 (find_alignment, merge_punctuations, add_word_timestamps).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stapes.backends.base import IntArray
from stapes.options import Words
from stapes.recording.segments import Piece
from stapes.results import Segment, Word, WordTiming
from stapes.tokenizer import Tokenizer
from stapes.tokenizer.split import split_words

_SENTENCE_ENDS = ".。!！?？"
#: seconds: a word is never taken to last longer than twice this, and a usual word lasts no longer
_LONGEST_MEDIAN_S = 0.7
#: seconds by which words may begin before a segment's start, or end after its end; beyond, the segment's times count
_TRUSTED_S = 0.5


def time_words(
    tokenizer: Tokenizer,
    language: str | None,
    tokens: Sequence[int],
    columns: IntArray,
    probabilities: Sequence[float],
    columns_per_second: float,
) -> tuple[WordTiming, ...]:
    """Return a window's words with their times.

    language: None for a model that knows English only.   tokens: ids of text.
    columns: (tokens + 1,) where speech comes to each token, and to the end.   probabilities: of the tokens.
    A last word that ends in the middle of a character has no time, as in the reference.
    """
    words = split_words(tokenizer, [*tokens, tokenizer.special.eot], language)[:-1]
    times = (columns / columns_per_second).tolist()
    found, start = [], 0
    for word in words:
        end = start + len(word.ids)
        probability = float(np.mean(probabilities[start:end]))
        found.append(WordTiming(text=word.text, tokens=word.ids, start_s=times[start], end_s=times[end],
                                probability=probability))  # fmt: skip
        start = end
    return tuple(found)


@dataclass(slots=True)
class _Word:
    """A word while the rules change it."""

    text: str
    n_tokens: int
    start_s: float
    end_s: float
    probability: float

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class _WordDurations:
    """The usual and the longest duration of a word of the window."""

    median_s: float

    @property
    def longest_s(self) -> float:
        return self.median_s * 2

    @classmethod
    def of(cls, words: Sequence[_Word]) -> _WordDurations:
        durations = [word.duration_s for word in words if word.duration_s]
        return cls(min(_LONGEST_MEDIAN_S, float(np.median(durations))) if durations else 0.0)


def place_words(
    pieces: Sequence[Piece],
    timings: Sequence[WordTiming],
    options: Words,
    *,
    offset_s: float,
    last_speech_s: float,
    eot: int,
) -> tuple[Piece, ...]:
    """Return the pieces of a window with their words, and with the times that these suggest.

    offset_s: where the window begins.   last_speech_s: where speech ended before the window.   eot: text has lower ids.
    """
    words = [_Word(one.text, len(one.tokens), one.start_s, one.end_s, one.probability) for one in timings]
    durations = _WordDurations.of(words)
    _shorten_at_sentence_ends(words, durations)
    merge_punctuation(words, options.prepend_punctuations, options.append_punctuations)
    left = iter(words)
    placed = []
    for piece in pieces:
        n_tokens = sum(token < eot for token in piece.tokens)
        own = _take(left, n_tokens, offset_s)
        placed.append(_settle(piece, own, durations, last_speech_s))
        if own:
            last_speech_s = placed[-1].end_s
    return tuple(placed)


def _shorten_at_sentence_ends(words: Sequence[_Word], durations: _WordDurations) -> None:
    """Cut a pause between sentences off the punctuation and the next word."""
    if not durations.median_s:
        return
    for before, word in itertools.pairwise(words):
        if word.duration_s > durations.longest_s:
            if word.text in _SENTENCE_ENDS:
                word.end_s = word.start_s + durations.longest_s
            elif before.text in _SENTENCE_ENDS:
                word.start_s = word.end_s - durations.longest_s


def merge_punctuation(words: Sequence[_Word], prepended: str, appended: str) -> None:
    """Join punctuation with the word after it (`prepended`) or before it; joined punctuation is left empty."""
    following = len(words) - 1
    for i in range(len(words) - 2, -1, -1):
        text = words[i].text
        if text.startswith(" ") and text.strip() in prepended:
            words[following].text = text + words[following].text
            words[following].n_tokens += words[i].n_tokens
            words[i].text, words[i].n_tokens = "", 0
        else:
            following = i
    previous = 0
    for i in range(1, len(words)):
        if not words[previous].text.endswith(" ") and words[i].text in appended:
            words[previous].text += words[i].text
            words[previous].n_tokens += words[i].n_tokens
            words[i].text, words[i].n_tokens = "", 0
        else:
            previous = i


def _take(words: Iterator[_Word], n_tokens: int, offset_s: float) -> list[_Word]:
    """Take the words of so many tokens; their times become the recording's."""
    taken = []
    while n_tokens > 0 and (word := next(words, None)) is not None:
        n_tokens -= word.n_tokens
        if word.text:
            start_s, end_s = round(offset_s + word.start_s, 2), round(offset_s + word.end_s, 2)
            taken.append(_Word(word.text, word.n_tokens, start_s, end_s, word.probability))
    return taken


def _settle(piece: Piece, words: list[_Word], durations: _WordDurations, last_speech_s: float) -> Piece:
    """Reconcile a piece with its words: cut what was stretched over a pause, and trust the closer of two times."""
    if not words:
        return piece
    _shorten_after_pause(words, durations, last_speech_s)
    first, last = words[0], words[-1]
    start_s, end_s = piece.start_s, piece.end_s
    if start_s < first.end_s and start_s - _TRUSTED_S > first.start_s:
        first.start_s = max(0.0, min(first.end_s - durations.median_s, start_s))
    else:
        start_s = first.start_s
    if end_s > last.start_s and end_s + _TRUSTED_S < last.end_s:
        last.end_s = max(last.start_s + durations.median_s, end_s)
    else:
        end_s = last.end_s
    found = tuple(
        Word(text=one.text, start_s=one.start_s, end_s=one.end_s, probability=one.probability) for one in words
    )
    return replace(piece, start_s=start_s, end_s=end_s, words=found)


def _shorten_after_pause(words: Sequence[_Word], durations: _WordDurations, last_speech_s: float) -> None:
    """Limit the first and second word after a pause to the longest duration."""
    first, longest_s = words[0], durations.longest_s
    second = words[1] if len(words) > 1 else None
    if not first.end_s - last_speech_s > durations.median_s * 4:
        return
    if not (first.duration_s > longest_s or (second and second.end_s - first.start_s > longest_s * 2)):
        return
    if second and second.duration_s > longest_s:
        first.end_s = second.start_s = max(second.end_s / 2, second.end_s - longest_s)
    first.start_s = max(0.0, first.end_s - longest_s)


def last_word_end(pieces: Sequence[Piece]) -> float | None:
    """Return when the last word ends; without words, when the last piece does; None without pieces."""
    for piece in reversed(pieces):
        if piece.words:
            return piece.words[-1].end_s
    return pieces[-1].end_s if pieces else None


def in_order(segments: Sequence[Segment], spoken_until_s: float) -> list[Segment]:
    """Let no word begin before the one before it has ended, and no segment before the one before it.

    spoken_until_s: when the last word or segment before these has ended.
    The rules above may push a word over its neighbour by up to 0.2 s (its least duration is the window's median), and
    the reference leaves it there. Everything else stays as it is, segments without words too.
    """
    ordered: list[Segment] = []
    word_end_s = segment_end_s = spoken_until_s
    for segment in segments:
        if not segment.words:
            ordered.append(segment)
            continue
        words = []
        for word in segment.words:
            start_s = max(word.start_s, word_end_s)
            word_end_s = max(word.end_s, start_s)
            words.append(replace(word, start_s=start_s, end_s=word_end_s))
        start_s = max(segment.start_s, segment_end_s)
        segment_end_s = max(segment.end_s, start_s)
        ordered.append(replace(segment, start_s=start_s, end_s=segment_end_s, words=tuple(words)))
    return ordered
