"""Tokens that are forbidden by their text: texts, a regular expression, numerals."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final

from stapes.errors import OptionError
from stapes.options import Rules
from stapes.tokenizer.tokenizer import Tokenizer

#: signs beside digits and money that stand for words of a number
_NUMBER_SIGNS = frozenset("%‰")
#: An expression looks through a vocabulary in 0.3 s; one like (=|==)+a would take years on "====...".
_LONGEST_SEARCH_S: Final = 10.0


def suppressed_by_text(tokenizer: Tokenizer, options: Rules) -> frozenset[int]:
    """Return the ids of ordinary tokens that the options forbid by their text; special tokens are never among them.
    Raises OptionError for a text or an expression that no token has, or where no text would be left.
    """
    texts = tokenizer.texts if options.suppress_text or options.suppress_regex or options.suppress_numerals else ()
    found: set[int] = set()
    for name, value, is_in in _tests(options):
        ids = [i for i, text in enumerate(texts) if text is not None and is_in(text)]
        if not ids:
            raise OptionError(
                f"{name}: no token of this model has {value!r} in it; tokens are words or pieces of words, "
                "most with a space before them"
            )
        found.update(ids)
    if found and not any(text is not None and i not in found for i, text in enumerate(texts)):
        raise OptionError("suppress_text, suppress_regex and suppress_numerals leave no text to be written")
    return frozenset(found)


def _tests(options: Rules) -> Iterator[tuple[str, str, Callable[[str], object]]]:
    for wanted in options.suppress_text:
        yield "suppress_text", wanted, _contains(wanted)
    if options.suppress_regex:
        yield "suppress_regex", options.suppress_regex, _searching(options.suppress_regex)
    if options.suppress_numerals:
        yield "suppress_numerals", "a digit", has_numeral


def _searching(pattern: str) -> Callable[[str], object]:
    """Return a search for an expression, with a limit of time, which Python's `re` lacks.
    Raises OptionError for an expression that cannot be used, or has taken too long for all texts together.
    """
    import regex  # noqa: PLC0415 (10 ms, for this alone)

    try:
        compiled = regex.compile(pattern)
    except (regex.error, RecursionError) as error:
        raise OptionError(f"suppress_regex {pattern!r} cannot be used: {error}") from None
    end_s = time.monotonic() + _LONGEST_SEARCH_S

    def is_in(text: str) -> object:
        try:
            # Processor time, of all threads together; a text that does not matter takes a few millionths of it.
            return compiled.search(text, timeout=max(end_s - time.monotonic(), 0.0), concurrent=True)
        except TimeoutError:
            raise OptionError(
                f"suppress_regex {pattern!r} takes too long; repetitions inside repetitions, as in (a+)+, do that"
            ) from None

    return is_in


def _contains(wanted: str) -> Callable[[str], bool]:
    return lambda text: wanted in text


def has_numeral(text: str) -> bool:
    """Whether a text has a digit, a sign of money or one of per cent in it."""
    return any(sign in _NUMBER_SIGNS or unicodedata.category(sign) in ("Nd", "Nl", "No", "Sc") for sign in text)
