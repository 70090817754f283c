"""The two vocabularies that ship as data, and which one a model without its own uses."""

from __future__ import annotations

import binascii
from functools import cache
from importlib import resources
from typing import Literal

from stapes.checkpoint.base import ModelSpec, VocabularyData
from stapes.tokenizer.special import AFTER_LANGUAGES, BEFORE_LANGUAGES

#: Languages of the first multilingual models; a model with room for fewer is an English-only one.
FIRST_LANGUAGES = 99


@cache
def shipped_tokens(name: Literal["multilingual", "english"]) -> tuple[bytes, ...]:
    """Give the bytes of a shipped vocabulary's ordinary tokens in the order of their ids."""
    text = resources.files("stapes.tokenizer").joinpath("data", f"{name}.txt").read_text("ascii")
    return tuple(binascii.a2b_base64(line) for line in text.split("\n")[:-1])


def n_timestamps(spec: ModelSpec) -> int:
    """One timestamp for each encoder position, and one for the window's end: 1501."""
    return spec.n_audio_ctx + 1


def n_languages(spec: ModelSpec, n_ordinary: int) -> int:
    """How many ids are left for languages, once all other tokens have theirs."""
    return spec.n_vocab - n_ordinary - len(BEFORE_LANGUAGES) - len(AFTER_LANGUAGES) - n_timestamps(spec)


def is_english_only(vocabulary: VocabularyData) -> bool:
    """English-only models keep GPT-2's vocabulary; all others have their own."""
    if vocabulary.tokens is shipped_tokens("multilingual"):  # spares reading the other one
        return False
    return vocabulary.tokens == shipped_tokens("english")


def vocabulary_for(spec: ModelSpec) -> VocabularyData:
    """Give the shipped vocabulary for a model whose checkpoint has none; told by its size, as in the reference."""
    multilingual = shipped_tokens("multilingual")
    if n_languages(spec, len(multilingual)) >= FIRST_LANGUAGES:
        return VocabularyData(tokens=multilingual)
    return VocabularyData(tokens=shipped_tokens("english"))
