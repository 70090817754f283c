"""Normalise English text for word error rates: numbers as digits, contractions in full, American spelling.

The table of spellings is not part of stapes: it is read from an installed openai-whisper, or from a file.
Source: openai-whisper 20250625, normalizers/english.py (which words are read, and how; the code is ours).
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from stapes.compat.whisper.normalizers.basic import (
    remove_symbols_and_diacritics,
    with_single_spaces,
    without_remarks,
)
from stapes.compat.whisper.normalizers.numbers import DECIMALS, MULTIPLIERS, NumberReader
from stapes.runtime.warn import warn

_SPELLINGS_VARIABLE: Final = "STAPES_WHISPER_SPELLINGS"

_AND_A_HALF: Final = re.compile(r"\band\s+a\s+half\b")
_LETTER_BESIDE_DIGIT: Final = re.compile("(?<=[a-z])(?=[0-9])|(?<=[0-9])(?=[a-z])")
_SPACE_BEFORE_SUFFIX: Final = re.compile(r"(?<=[0-9])\s+(?=(?:st|nd|rd|th|s)\b)")
_WHOLE_AND_CENTS: Final = re.compile(r"([€£$][0-9]+) (?:and )?¢([0-9]{1,2})\b")
_ONLY_CENTS: Final = re.compile(r"[€£$]0.([0-9]{1,2})\b")  # any character for the point, as the original
_DIGIT_ONE: Final = re.compile(r"\b1(?=s?\b)")

_FILLERS: Final = r"\b(hmm|mm|mhm|mmm|uh|um)\b"
_CONTRACTIONS: Final = {
    "won't": "will not",
    "can't": "can not",
    "let's": "let us",
    "ain't": "aint",
    "y'all": "you all",
    "wanna": "want to",
    "gotta": "got to",
    "gonna": "going to",
    "i'ma": "i am going to",
    "imma": "i am going to",
    "woulda": "would have",
    "coulda": "could have",
    "shoulda": "should have",
    "ma'am": "madam",
}
_TITLES: Final = {
    "mr": "mister",
    "mrs": "missus",
    "st": "saint",
    "dr": "doctor",
    "prof": "professor",
    "capt": "captain",
    "gov": "governor",
    "ald": "alderman",
    "gen": "general",
    "sen": "senator",
    "rep": "representative",
    "pres": "president",
    "rev": "reverend",
    "hon": "honorable",
    "asst": "assistant",
    "assoc": "associate",
    "lt": "lieutenant",
    "col": "colonel",
    "jr": "junior",
    "sr": "senior",
    "esq": "esquire",
}
#: ends of words; "'s" is "has" before these participles, else "is"
_ENDINGS: Final = {
    "'d been": "had been",
    "'s been": "has been",
    "'d gone": "had gone",
    "'s gone": "has gone",
    "'d done": "had done",
    "'s got": "has got",
    "n't": "not",
    "'re": "are",
    "'s": "is",
    "'d": "would",
    "'ll": "will",
    "'t": "not",
    "'ve": "have",
    "'m": "am",
}


class EnglishNumberNormalizer:
    """Writes spelled numbers, in lower case, as digits: "two point five million dollars" becomes "$2500000".

    Suffixes of ordinals and decades stay ("31st", "1950s"), single digits in a row are joined ("nine one one" is 911),
    and a one that stands alone is written "one".
    """

    def process_words(self, words: Sequence[str]) -> Iterator[str]:
        """Yield the words, those that make up a number as one."""
        yield from NumberReader().read(words)

    def preprocess(self, s: str) -> str:
        """Return the text with "point five" for "and a half" after a number, and digits apart from letters."""
        *parts, rest = _AND_A_HALF.split(s)
        pieces = []
        for part in parts:
            if words := part.split():
                is_number = words[-1] in DECIMALS or words[-1] in MULTIPLIERS
                pieces += [part, "point five" if is_number else "and a half"]
        if rest.strip():
            pieces.append(rest)
        return _SPACE_BEFORE_SUFFIX.sub("", _LETTER_BESIDE_DIGIT.sub(" ", " ".join(pieces)))

    def postprocess(self, s: str) -> str:
        """Return the text with amounts in one piece ("$2 and ¢7" is "$2.07", "$0.36" is "¢36"), and "one" for 1."""
        s = _WHOLE_AND_CENTS.sub(lambda found: f"{found[1]}.{int(found[2]):02d}", s)
        s = _ONLY_CENTS.sub(lambda found: f"¢{int(found[1])}", s)
        return _DIGIT_ONE.sub("one", s)

    def __call__(self, s: str) -> str:
        return self.postprocess(" ".join(self.process_words(self.preprocess(s).split())))


class EnglishSpellingNormalizer:
    """Writes British words, in lower case, in their American spelling. `mapping`: word -> word.

    The table is english.json of openai-whisper: that of the installed package, or the file that the environment
    variable STAPES_WHISPER_SPELLINGS names. Raises NotImplementedError where neither is there, OSError or ValueError
    for a file that cannot be read.
    """

    def __init__(self) -> None:
        self.mapping: dict[str, str] = json.loads(_spellings_path().read_text(encoding="utf-8"))

    def __call__(self, s: str) -> str:
        return " ".join(self.mapping.get(word, word) for word in s.split())


def _spellings_path() -> Path:
    """Find the table without importing openai-whisper, which would load PyTorch."""
    if named := os.environ.get(_SPELLINGS_VARIABLE):
        return Path(named)
    # Every folder for modules: a stand-in without the table may come before the real package.
    packages = [*(Path(folder, "whisper") for folder in sys.path), *_whisper_folders()]
    for package in packages:
        if (path := package / "normalizers" / "english.json").is_file():
            return path
    raise NotImplementedError(
        "the table of British and American spellings belongs to openai-whisper and is not part of stapes: "
        "pip install openai-whisper (or, without its requirements, pip install --no-deps openai-whisper), or let "
        f"{_SPELLINGS_VARIABLE} name a copy of its whisper/normalizers/english.json; "
        "the other normalisers need no table"
    )


def _spellings_or_none() -> EnglishSpellingNormalizer:
    """Return the normaliser of spellings; without its table warn, and return one whose table is empty."""
    try:
        return EnglishSpellingNormalizer()
    except NotImplementedError as error:
        warn(f"spellings stay as they are, so that 'colour' and 'color' are two words: {error}")
        empty = object.__new__(EnglishSpellingNormalizer)
        empty.mapping = {}
        return empty


def _whisper_folders() -> list[Path]:
    """Return the folders of what `import whisper` would find, such as an editable installation."""
    try:
        spec = find_spec("whisper")
    except ValueError:  # a module without a specification was put in its place
        return []
    return [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or ()]


class EnglishTextNormalizer:
    """Normalises English text. Without a table of spellings (EnglishSpellingNormalizer) it warns when it is made, and
    leaves spellings as they are.

    `replacers`: regular expression -> text, in the order in which they are applied to text in lower case.
    `ignore_patterns`: what is dropped before.
    """

    def __init__(self) -> None:
        self.ignore_patterns = _FILLERS
        self.replacers = {
            **{rf"\b{word}\b": text for word, text in _CONTRACTIONS.items()},
            **{rf"\b{title}\b": f"{text} " for title, text in _TITLES.items()},
            **{rf"{ending}\b": f" {text}" for ending, text in _ENDINGS.items()},
        }
        self.standardize_numbers = EnglishNumberNormalizer()
        self.standardize_spellings = _spellings_or_none()

    def __call__(self, s: str) -> str:
        s = re.sub(self.ignore_patterns, "", without_remarks(s.lower()))
        s = re.sub(r"\s+'", "'", s)
        for pattern, text in self.replacers.items():
            s = re.sub(pattern, text, s)
        # These take the character after the sign too, so that of "1,2,3" a comma stays, and of "..." a point.
        s = re.sub(r"(\d),(\d)", r"\1\2", s)
        s = re.sub(r"\.([^0-9]|$)", r" \1", s)
        s = remove_symbols_and_diacritics(s, keep=".%$¢€£")
        s = self.standardize_spellings(self.standardize_numbers(s))
        s = re.sub(r"[.$¢€£]([^0-9])", r" \1", s)  # signs that belong to no number
        s = re.sub(r"([^0-9])%", r"\1 ", s)
        return with_single_spaces(s)
