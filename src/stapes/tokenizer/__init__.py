"""Text to ids and back: the vocabulary, its special ids, and how tokens fall into words."""

from __future__ import annotations

from stapes.tokenizer.special import SpecialIds
from stapes.tokenizer.split import WordTokens, join_words, split_characters
from stapes.tokenizer.tokenizer import Tokenizer, non_speech_ids, published_encoding

__all__ = [
    "SpecialIds",
    "Tokenizer",
    "WordTokens",
    "join_words",
    "non_speech_ids",
    "published_encoding",
    "split_characters",
]
