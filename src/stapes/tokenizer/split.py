"""How a window's tokens fall into words.

Source of the rules: openai/whisper tokenizer.py at c0d2f62 (split_to_word_tokens).
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stapes.languages import WITHOUT_SPACES
from stapes.tokenizer.tokenizer import Tokenizer

_BROKEN = "\ufffd"  # what a decoder writes for bytes that end in the middle of a character


@dataclass(frozen=True, slots=True)
class WordTokens:
    """One word, with its leading space, and the ids that spell it."""

    text: str
    ids: tuple[int, ...]


def split_words(tokenizer: Tokenizer, ids: Sequence[int], language: str | None) -> list[WordTokens]:
    """Split ids into words: at spaces and punctuation; in languages without spaces, wherever a character ends.
    Bytes of one character stay together, and the words' ids joined are `ids`.
    """
    pieces = split_characters(tokenizer.decode_with_timestamps, ids)
    return pieces if language in WITHOUT_SPACES else join_words(pieces, tokenizer.special.eot)


def join_words(pieces: Iterable[WordTokens], eot: int) -> list[WordTokens]:
    """Join pieces of text up to the next space, punctuation or special token.   eot: the lowest special id."""
    words: list[WordTokens] = []
    for piece in pieces:
        special = piece.ids[0] >= eot
        punctuation = piece.text.strip() in string.punctuation
        if special or piece.text.startswith(" ") or punctuation or not words:
            words.append(piece)
        else:
            words[-1] = WordTokens(words[-1].text + piece.text, words[-1].ids + piece.ids)
    return words


def split_characters(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> list[WordTokens]:
    """Split ids wherever their bytes end with a whole character, or with one that is broken in the whole text too.
    decode: gives the text of ids, with U+FFFD for broken UTF-8.
    """
    whole = decode(ids)
    pieces: list[WordTokens] = []
    current: list[int] = []
    offset = 0
    for one in ids:
        current.append(one)
        text = decode(current)
        broken_at = text.find(_BROKEN)
        if broken_at < 0 or whole[offset + broken_at : offset + broken_at + 1] == _BROKEN:
            pieces.append(WordTokens(text, tuple(current)))
            current = []
            offset += len(text)
    if current:  # a character that the end cuts off
        pieces.append(WordTokens(decode(current), tuple(current)))
    return pieces
