"""Words with their punctuation, which both originals join by one rule."""

from __future__ import annotations

from typing import Any


def merge_punctuations(alignment: list[Any], prepended: str, appended: str) -> None:
    """Join punctuation to the words beside it, in place: what was joined stays as a word without text and tokens.

    alignment: words with attributes `word` and `tokens`.
    prepended: characters that join the word after them, where they follow a space.   appended: the word before.
    """
    following = None
    for timing in reversed(alignment):
        if following is not None and timing.word.startswith(" ") and timing.word.strip() in prepended:
            following.word, following.tokens = timing.word + following.word, timing.tokens + following.tokens
            timing.word, timing.tokens = "", []
        else:
            following = timing
    previous = None
    for timing in alignment:
        if previous is not None and not previous.word.endswith(" ") and timing.word in appended:
            previous.word, previous.tokens = previous.word + timing.word, previous.tokens + timing.tokens
            timing.word, timing.tokens = "", []
        else:
            previous = timing
