"""Text to ids and back: the vocabulary, its special ids, and how tokens fall into words."""

from __future__ import annotations

from stapes.tokenizer.special import SpecialIds
from stapes.tokenizer.tokenizer import Tokenizer

__all__ = ["SpecialIds", "Tokenizer"]
