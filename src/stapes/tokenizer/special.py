"""Ids of special tokens by name: what the vocabulary states, else where the models' own layout puts them.

Source: openai/whisper tokenizer.py at c0d2f62 (the layout): after the ordinary tokens come end-of-text,
start-of-transcript, the languages, translate, transcribe, start-of-lm, start-of-prev, no-speech, no-timestamps,
and one timestamp for each encoder position and the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stapes.errors import CheckpointError
from stapes.languages import LANGUAGES

#: special tokens of the layout that are neither languages nor timestamps
BEFORE_LANGUAGES = ("<|endoftext|>", "<|startoftranscript|>")
AFTER_LANGUAGES = (
    "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip
#: other names under which files state a token
OTHER_NAMES = {"<|nospeech|>": ("<|nocaptions|>",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialIds:
    """The ids that decoding rules speak of. Ids from `timestamp_begin` on are timestamps, 20 ms apart."""

    eot: int
    sot: int
    translate: int
    transcribe: int
    sot_lm: int
    sot_prev: int
    no_speech: int
    no_timestamps: int
    timestamp_begin: int
    languages: Mapping[str, int]  # code -> id, in the order of the ids


def special_names(n_languages: int, n_timestamps: int) -> list[str]:
    """Give the names of all special tokens in the layout's order."""
    if not 0 <= n_languages <= len(LANGUAGES):
        raise CheckpointError(
            f"the vocabulary leaves room for {n_languages} languages; Whisper models have at most {len(LANGUAGES)}"
        )
    languages = [f"<|{code}|>" for code in list(LANGUAGES)[:n_languages]]
    timestamps = [f"<|{i * 0.02:.2f}|>" for i in range(n_timestamps)]
    return [*BEFORE_LANGUAGES, *languages, *AFTER_LANGUAGES, *timestamps]


def named_ids(n_ordinary: int, n_vocab: int, n_timestamps: int, stated: Mapping[str, int]) -> dict[str, int]:
    """Give every special token's id by name.

    n_ordinary: ordinary tokens, whose ids are 0 to n_ordinary - 1.   n_vocab: ids that the model gives.
    stated: ids as far as the checkpoint names them; they go before the layout.
    Raises CheckpointError if ids do not fit into the vocabulary or two names share one.
    """
    n_languages = n_vocab - n_ordinary - n_timestamps - len(BEFORE_LANGUAGES) - len(AFTER_LANGUAGES)
    ids: dict[str, int] = {}
    for offset, name in enumerate(special_names(n_languages, n_timestamps)):
        candidates = (name, *OTHER_NAMES.get(name, ()))
        ids[name] = next((stated[one] for one in candidates if one in stated), n_ordinary + offset)
    if bad := [name for name, one in ids.items() if not 0 <= one < n_vocab]:
        raise CheckpointError(f"special token {bad[0]} has id {ids[bad[0]]}; the model has ids 0 to {n_vocab - 1}")
    if len(set(ids.values())) != len(ids):
        raise CheckpointError("two special tokens share one id; the tokenizer file is damaged")
    return ids


def special_ids(named: Mapping[str, int]) -> SpecialIds:
    """Pick from all named ids those that the rules speak of."""
    return SpecialIds(
        eot=named["<|endoftext|>"],
        sot=named["<|startoftranscript|>"],
        translate=named["<|translate|>"],
        transcribe=named["<|transcribe|>"],
        sot_lm=named["<|startoflm|>"],
        sot_prev=named["<|startofprev|>"],
        no_speech=named["<|nospeech|>"],
        no_timestamps=named["<|notimestamps|>"],
        timestamp_begin=named["<|0.00|>"],
        languages={code: named[f"<|{code}|>"] for code in LANGUAGES if f"<|{code}|>" in named},
    )
