"""Normalise text of any language for word error rates: case, bracketed remarks, symbols, diacritics, spaces.

Source: openai-whisper 20250625, normalizers/basic.py (what becomes of each character; the code is ours).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_IN_BRACKETS: Final = re.compile(r"[<\[][^>\]]*[>\]]")
_IN_PARENTHESES: Final = re.compile(r"\([^)]+\)")
_SPACES: Final = re.compile(r"\s+")

#: letters whose stroke or ligature is no combining mark in Unicode, so that NFKD leaves them whole
ADDITIONAL_DIACRITICS = {
    "Æ": "AE",
    "æ": "ae",
    "Œ": "OE",
    "œ": "oe",
    "Ø": "O",
    "ø": "o",
    "Đ": "D",
    "đ": "d",
    "Ð": "D",
    "ð": "d",
    "Þ": "th",  # in lower case, as the original has it
    "þ": "th",
    "Ł": "L",
    "ł": "l",
    "ẞ": "SS",
    "ß": "ss",
}


def remove_symbols_and_diacritics(s: str, keep: str = "") -> str:
    """Return the text in NFKD without combining marks, a space for every symbol, punctuation or other mark.

    keep: characters that stay as they are.
    """

    def shown(character: str) -> str:
        if character in keep:
            return character
        if character in ADDITIONAL_DIACRITICS:
            return ADDITIONAL_DIACRITICS[character]
        return "" if unicodedata.category(character) == "Mn" else _letter_or_space(character)

    return "".join(map(shown, unicodedata.normalize("NFKD", s)))


def remove_symbols(s: str) -> str:
    """Return the text in NFKC, a space for every symbol, punctuation or separate mark; diacritics stay."""
    return "".join(map(_letter_or_space, unicodedata.normalize("NFKC", s)))


def without_remarks(text: str) -> str:
    """Return a text without what stands in brackets or parentheses, such as [MUSIC] and (laughs)."""
    return _IN_PARENTHESES.sub("", _IN_BRACKETS.sub("", text))


def with_single_spaces(text: str) -> str:
    """Return a text with one space for each run of whitespace, at its ends too."""
    return _SPACES.sub(" ", text)


def _letter_or_space(character: str) -> str:
    return " " if unicodedata.category(character)[0] in "MPS" else character


class BasicTextNormalizer:
    """Normalises text of any language.

    remove_diacritics: drop them, not symbols alone.   split_letters: put a space between characters as a reader sees
    them (grapheme clusters), for languages without spaces between words.
    """

    def __init__(self, remove_diacritics: bool = False, split_letters: bool = False) -> None:
        self.clean = remove_symbols_and_diacritics if remove_diacritics else remove_symbols
        self.split_letters = split_letters

    def __call__(self, s: str) -> str:
        cleaned = self.clean(without_remarks(s.lower())).lower()
        if self.split_letters:
            import regex  # noqa: PLC0415  # 10 ms, for this alone

            cleaned = " ".join(regex.findall(r"\X", cleaned))
        return with_single_spaces(cleaned)
