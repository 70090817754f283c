"""Read English words as numbers: the state of one text on its way. Knows no spelling and no punctuation.

Source: openai-whisper 20250625, normalizers/english.py (which words make up a number; the code is ours).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, NamedTuple

_ZEROS: Final = frozenset({"o", "oh", "zero"})
_UNIT_WORDS: Final = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TEN_WORDS: Final = "twenty thirty forty fifty sixty seventy eighty ninety"
_POWERS_OF_1000: Final = (
    "thousand million billion trillion quadrillion quintillion sextillion septillion octillion nonillion decillion"
)
_UNITS: Final = {word: value for value, word in enumerate(_UNIT_WORDS.split(), start=1)}
_TENS: Final = {word: 10 * value for value, word in enumerate(_TEN_WORDS.split(), start=2)}
MULTIPLIERS: Final = {
    "hundred": 100,
    **{word: 1000**power for power, word in enumerate(_POWERS_OF_1000.split(), start=1)},
}
#: words that may stand after a decimal point
DECIMALS: Final = frozenset({*_ZEROS, *_UNITS, *_TENS})

_SIGNS: Final = {"minus": "-", "negative": "-", "plus": "+", "positive": "+"}
_CURRENCIES: Final = {
    name + ending: symbol
    for name, symbol in (("pound", "£"), ("euro", "€"), ("dollar", "$"), ("cent", "¢"))
    for ending in ("", "s")
}
_SYMBOLS: Final = frozenset({*_SIGNS.values(), *_CURRENCIES.values()})
_PERCENT: Final = frozenset({"per", "percent"})
_TIMES: Final = {"double": 2, "triple": 3}
_JOINERS: Final = frozenset({"and", "point", *_TIMES})

_IRREGULAR_ORDINALS: Final = {"one": "first", "two": "second", "three": "third", "five": "fifth", "twelve": "twelfth"}
_ORDINAL_SUFFIXES: Final = {"first": "st", "second": "nd", "third": "rd"}

_DIGITS: Final = re.compile(r"\d+(\.\d+)?")


class _Number(NamedTuple):
    """What a word says: a value and, in ordinals and plurals, the suffix that ends the number."""

    value: int
    suffix: str = ""


def _plural(word: str) -> str:
    if word.endswith("y"):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith("x") else "s")


def _ordinal(word: str) -> str:
    """Return the ordinal as the original spells it: of nine "nineth", so that it reads no "ninth"."""
    if word.endswith("y"):
        return word[:-1] + "ieth"
    return _IRREGULAR_ORDINALS.get(word) or word + ("h" if word.endswith("t") else "th")


def _with_suffixes(cardinals: dict[str, int]) -> dict[str, _Number]:
    numbers = {word: _Number(value) for word, value in cardinals.items()}
    for word, value in cardinals.items():
        numbers[_plural(word)] = _Number(value, "s")
        numbers[_ordinal(word)] = _Number(value, _ORDINAL_SUFFIXES.get(_ordinal(word), "th"))
    return numbers


_ADDED: Final = {**_with_suffixes(_UNITS), **_with_suffixes(_TENS), "zeroth": _Number(0, "th")}
_MULTIPLIED: Final = _with_suffixes(MULTIPLIERS)
_WORDS: Final = frozenset({*_ZEROS, *_ADDED, *_MULTIPLIED, *_SIGNS, *_CURRENCIES, *_PERCENT, *_JOINERS})


def _is_digits(word: str | None) -> bool:
    return word is not None and _DIGITS.fullmatch(word) is not None


def _may_go_on(word: str | None) -> bool:
    """Whether a number may begin or go on with a word."""
    return word in _WORDS or _is_digits(word)


class NumberReader:
    """Turns words into texts, those of a number into one. Reads one list of words."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        # The number so far: int while its words add up, str once digits are joined (zeros in front, decimals).
        self._value: int | str | None = None
        self._prefix = ""  # sign or currency of the number to come

    def read(self, words: Sequence[str]) -> list[str]:
        """Return the texts. words: lower case, none empty."""
        is_read = False  # together with the word before it
        for before, word, after in zip([None, *words], words, [*words[1:], None], strict=False):
            is_read = not is_read and self._read(word, before, after)
        self._end_number()
        return self._texts

    def _read(self, word: str, before: str | None, after: str | None) -> bool:
        """Read one word; return whether the one after it has been read too."""
        symbol, digits = (word[0], word[1:]) if word[0] in _SYMBOLS else ("", word)
        if _is_digits(digits):
            self._read_digits(symbol, digits)
        elif word in _ZEROS:
            self._join("0")
        elif word in _ADDED:
            self._add(_ADDED[word], before)
        elif word in _MULTIPLIED:
            self._multiply(_MULTIPLIED[word])
        elif word in _SIGNS and _may_go_on(after):
            self._end_number()
            self._prefix = _SIGNS[word]
        elif word in _CURRENCIES and self._value is not None:
            self._prefix = _CURRENCIES[word]
            self._end_number()
        elif word == "percent" or (word == "per" and after == "cent"):
            return self._read_percent(word)
        elif word in _JOINERS and _may_go_on(after):
            return self._read_joiner(word, before, after)
        else:
            self._say_word(word)
        return False

    def _say(self, text: int | str) -> None:
        self._texts.append(f"{self._prefix}{text}")
        self._value, self._prefix = None, ""

    def _end_number(self) -> None:
        if self._value is not None:
            self._say(self._value)

    def _say_word(self, word: str) -> None:
        self._end_number()
        self._say(word)

    def _join(self, digits: str) -> None:
        self._value = f"{self._value or ''}{digits}"  # a zero in digits is lost here, as in the original

    def _read_digits(self, symbol: str, digits: str) -> None:
        if isinstance(self._value, str) and self._value.endswith("."):
            self._value += symbol + digits
            return
        self._end_number()
        self._prefix = symbol or self._prefix
        number = Fraction(digits)
        self._value = number.numerator if number.denominator == 1 else digits

    def _add(self, number: _Number, before: str | None) -> None:
        """Read a number below 100: "forty two" is added up, "four two" and "four twenty" are joined."""
        value, added = self._value, number.value
        if value is None:
            self._value = added
        elif isinstance(value, str) and before in _TENS and added < 10:
            self._value = f"{value[:-1]}{added}"  # joined tens end in the zero that this digit replaces
        elif isinstance(value, int) and before not in _UNITS and value % (10 if added < 10 else 100) == 0:
            self._value = value + added
        else:
            self._value = f"{value}{added}"
        self._end_with(number.suffix)

    def _multiply(self, number: _Number) -> None:
        """Read hundred, thousand and so on: they multiply what is below 1000, or all of a decimal number."""
        if isinstance(self._value, int):
            thousands, rest = divmod(self._value, 1000)
            self._value = 1000 * thousands + rest * number.value
        elif (product := _product(self._value, number.value)) is not None:
            self._value = product
        else:
            self._end_number()
            self._value = number.value
        self._end_with(number.suffix)

    def _end_with(self, suffix: str) -> None:
        if suffix:
            self._say(f"{self._value}{suffix}")

    def _read_percent(self, word: str) -> bool:
        if self._value is None:
            self._say(word)
            return False
        self._say(f"{self._value}%")
        return word == "per"

    def _read_joiner(self, word: str, before: str | None, after: str | None) -> bool:
        if word == "point":
            if after in DECIMALS or _is_digits(after):
                self._join(".")
        elif word in _TIMES and after is not None and (after in _UNITS or after in _ZEROS):
            self._join(str(_UNITS.get(after, 0)) * _TIMES[word])
            return True
        elif word != "and" or before not in MULTIPLIERS:
            self._say_word(word)
        return False


def _product(text: str | None, factor: int) -> int | None:
    """Multiply what joined digits say ("2.5"); None for what is no number ("192.168.0") or no whole product."""
    try:
        product = Fraction(text or "") * factor
    except ValueError:
        return None
    return product.numerator if product.denominator == 1 else None
