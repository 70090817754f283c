"""The two vocabularies that ship as data, and which one a model without its own uses."""

from __future__ import annotations

import base64
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
    return tuple(base64.b64decode(line) for line in text.split("\n")[:-1])


def n_timestamps(spec: ModelSpec) -> int:
    """One timestamp for each encoder position, and one for the window's end: 1501."""
    return spec.n_audio_ctx + 1


def is_multilingual(spec: ModelSpec) -> bool:
    """Tell by the number of ids, as the reference does, whether a model knows languages besides English."""
    n_other = len(BEFORE_LANGUAGES) + len(AFTER_LANGUAGES) + n_timestamps(spec)
    return spec.n_vocab - len(shipped_tokens("multilingual")) - n_other >= FIRST_LANGUAGES


def vocabulary_for(spec: ModelSpec) -> VocabularyData:
    """Give the shipped vocabulary for a model whose checkpoint has none."""
    return VocabularyData(tokens=shipped_tokens("multilingual" if is_multilingual(spec) else "english"))
