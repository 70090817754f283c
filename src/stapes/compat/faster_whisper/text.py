"""Small functions on texts and tokens of faster-whisper 1.2.1, which programs import from its transcribe module."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from stapes.compat import words as words_module
from stapes.compat.faster_whisper.tokenizer import Tokenizer


def get_compression_ratio(text: str) -> float:
    """Return how many times smaller zlib makes a text."""
    whole = text.encode("utf-8")
    return len(whole) / len(zlib.compress(whole))


def get_suppressed_tokens(tokenizer: Tokenizer, suppress_tokens: Iterable[int]) -> tuple[int, ...] | None:
    """Return the ids that are never sampled, ascending: those given, -1 for symbols, and the special ones."""
    given = list(suppress_tokens)
    ids = {one for one in given if one >= 0 or -1 not in given}
    if -1 in given:
        ids.update(tokenizer.non_speech_tokens)
    special = (tokenizer.transcribe, tokenizer.translate, tokenizer.sot, tokenizer.sot_prev, tokenizer.sot_lm)
    return tuple(sorted({*ids, *special, tokenizer.no_speech}))


def merge_punctuations(alignment: list[dict[str, Any]], prepended: str, appended: str) -> None:
    """Join punctuation with the word after it (`prepended`) or before it, in place; what was joined is left empty.

    alignment: words as dicts with "word" and "tokens".
    """
    words = [SimpleNamespace(word=one["word"], tokens=one["tokens"]) for one in alignment]
    words_module.merge_punctuations(words, prepended, appended)
    for one, changed in zip(alignment, words, strict=True):
        one.update(vars(changed))
