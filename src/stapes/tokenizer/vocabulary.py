"""The two vocabularies that ship as data, and the sizes of the published models, whose ids are known."""

from __future__ import annotations

import binascii
from functools import cache
from importlib import resources
from typing import Final, Literal

from stapes.checkpoint.base import ModelSpec, VocabularyData
from stapes.errors import CheckpointError
from stapes.tokenizer.special import AFTER_LANGUAGES, BEFORE_LANGUAGES, WAY_OUT, StatedIds, by_present_name, layout

VocabularyName = Literal["multilingual", "english"]
#: vocabulary and mel bins of each kind of published model -> languages in its layout (openai/whisper at c0d2f62)
_PUBLISHED: Final[dict[tuple[VocabularyName, int], int]] = {
    ("multilingual", 80): 99,
    ("multilingual", 128): 100,  # from large-v3 on
    ("english", 80): 99,
}


@cache
def shipped_tokens(name: VocabularyName) -> tuple[bytes, ...]:
    """Return the bytes of a shipped vocabulary's ordinary tokens in the order of their ids."""
    text = resources.files("stapes.tokenizer").joinpath("data", f"{name}.txt").read_text("ascii")
    return tuple(binascii.a2b_base64(line) for line in text.split("\n")[:-1])


def n_timestamps(spec: ModelSpec) -> int:
    """One timestamp for each encoder position, and one for the window's end: 1501."""
    return spec.n_audio_ctx + 1


def _published_languages(n_ordinary: int, spec: ModelSpec) -> int | None:
    """How many languages the published model of these sizes knows; None: no published model has them."""
    for (name, n_mels), n_languages in _PUBLISHED.items():
        n_special = len(BEFORE_LANGUAGES) + n_languages + len(AFTER_LANGUAGES) + n_timestamps(spec)
        if (spec.n_mels, spec.n_vocab) == (n_mels, n_ordinary + n_special) and n_ordinary == len(shipped_tokens(name)):
            return n_languages
    return None


def ordinary_tokens(spec: ModelSpec, stated: VocabularyData, source: str) -> tuple[bytes, ...]:
    """Return the ordinary tokens that a checkpoint states, or the shipped ones that its ids or sizes imply.
    Raises CheckpointError where neither does.
    """
    if stated.tokens:
        return stated.tokens
    names: tuple[VocabularyName, ...] = ("multilingual", "english")
    eot = stated.special.get("<|endoftext|>")
    for name in names:
        n_ordinary = len(shipped_tokens(name))
        if n_ordinary == eot or (eot is None and _published_languages(n_ordinary, spec) is not None):
            return shipped_tokens(name)
    raise CheckpointError(
        f"{source}: states no vocabulary, and no published model has {spec.n_vocab} ids and {spec.n_mels} mel bins; "
        f"{WAY_OUT}"
    )


def stated_ids(spec: ModelSpec, stated: VocabularyData, tokens: tuple[bytes, ...], source: str) -> StatedIds:
    """Return what a checkpoint states of special tokens and, for sizes of a published model, its layout.

    tokens: the ordinary ones. English-only models keep GPT-2's vocabulary; others have another.
    A layout that contradicts a stated id is another model's, and nothing of it is taken.
    """
    english = tokens is not shipped_tokens("multilingual") and tokens == shipped_tokens("english")
    multilingual = not english if stated.multilingual is None else stated.multilingual
    n_languages = _published_languages(len(tokens), spec)
    published = {} if n_languages is None else layout(len(tokens), n_languages)
    listed = stated.languages if multilingual else None
    named = by_present_name(stated.special, listed or ())
    moved = next((name for name, one in published.items() if named.get(name, one) != one), None)
    unpublished = f"its {spec.n_vocab} ids with {len(tokens)} tokens of text are not those of a published model"
    if moved:
        unpublished = (
            f"states id {named[moved]} for {moved}, which the published model of its size has at {published[moved]}"
        )
        published = {}
    taken = set(named.values())
    return StatedIds(
        ids=named | {name: one for name, one in published.items() if name not in named and one not in taken},
        languages=listed,
        multilingual=multilingual,
        n_ordinary=len(tokens),
        n_vocab=spec.n_vocab,
        most_timestamps=n_timestamps(spec),
        unpublished=unpublished,
        source=source,
    )
