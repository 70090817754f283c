"""Vocabularies as the files beside a model state them: tokenizer.json, vocab.json, vocabulary.*.

Knows how GPT-2 spells bytes as printable characters. Whether the ids suit a model is for the tokenizer to
say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stapes.checkpoint.base import LIMITS, VocabularyData
from stapes.checkpoint.files import FileBytes, read_json, read_json_object
from stapes.errors import CheckpointError

_SPECIAL = re.compile(r"<\|.*\|>", re.DOTALL)


def _byte_of_character() -> dict[int, str]:
    """Give str.translate's table from GPT-2's printable spelling to Latin-1, where character n is byte n.

    Printable characters of Latin-1 stand for their own byte, the other 68 bytes for the characters from
    U+0100 on. What stands for no byte is mapped out of Latin-1, so that encoding it fails.
    Source: https://github.com/openai/gpt-2/blob/a74da5d/src/encoder.py bytes_to_unicode
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    table = dict.fromkeys(others, "\uffff")
    table.update({0x100 + index: chr(byte) for index, byte in enumerate(others)})
    return table


_BYTE_OF_CHARACTER = _byte_of_character()


def read_vocabulary(folder: Path) -> VocabularyData | None:
    """Read the vocabulary in a model's folder; None if the folder holds none."""
    if (path := folder / "tokenizer.json").is_file():
        return _from_tokenizer(read_json_object(path), path)
    if (path := folder / "vocab.json").is_file():
        added = folder / "added_tokens.json"
        return vocabulary_of(read_json_object(path), read_json_object(added) if added.is_file() else {}, path)
    for path in (folder / "vocabulary.json", folder / "vocabulary.txt"):
        if path.is_file():
            return vocabulary_of({token: index for index, token in enumerate(_listed(path))}, {}, path)
    return None


def _from_tokenizer(found: dict[str, Any], path: Path) -> VocabularyData:
    """Take the vocabulary out of a `tokenizers` file."""
    model, added = found.get("model"), found.get("added_tokens", [])
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict) or not isinstance(added, list):
        raise CheckpointError(f"{path}: no byte-pair vocabulary in it; fetch it again")
    special = {}
    for entry in added:
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise CheckpointError(f"{path}: added token {entry!r:.80} has no content; fetch it again")
        special[entry["content"]] = entry.get("id")
    return vocabulary_of(model["vocab"], special, path)


def _listed(path: Path) -> list[str]:
    """Give the tokens of a file that lists them by id."""
    if path.suffix == ".json":
        found = read_json(path)
    else:
        data = FileBytes(path)
        try:
            text = data.read(0, data.size, "the tokens").decode("utf-8")
        except UnicodeDecodeError as exc:
            raise CheckpointError(f"{path}: not UTF-8 text ({exc}); fetch it again") from exc
        found = text.removesuffix("\n").split("\n")  # not splitlines: a token may hold U+0085
    if not isinstance(found, list) or not all(isinstance(token, str) for token in found):
        raise CheckpointError(f"{path}: expected a list of tokens; fetch it again")
    if len(set(found)) != len(found):
        raise CheckpointError(f"{path}: a token stands twice; fetch it again")
    return found


def vocabulary_of(ids: Mapping[str, Any], added: Mapping[str, Any], path: Path) -> VocabularyData:
    """Split tokens into ordinary ones (from id 0 up to the first special one) and special ones by name.

    ids, added: GPT-2's spelling -> id. Raises CheckpointError for ids that are none or that repeat.
    """
    by_id: dict[int, str] = {}
    for token, index in ids.items():
        if type(index) is not int or not 0 <= index < LIMITS["n_vocab"] or index in by_id:
            raise CheckpointError(f"{path}: token {token!r:.60} has id {index!r:.40}; fetch the file again")
        by_id[index] = token
    ordinary: list[bytes] = []
    while (known := by_id.get(len(ordinary))) is not None and not _SPECIAL.fullmatch(known):
        ordinary.append(_bytes_of(known, path))
    if not ordinary:
        raise CheckpointError(f"{path}: no token has id 0; fetch the file again")
    special = {token: index for index, token in sorted(by_id.items()) if index >= len(ordinary)}
    for token, index in added.items():
        if type(index) is not int or not 0 <= index < LIMITS["n_vocab"]:
            raise CheckpointError(f"{path}: token {token!r:.60} has id {index!r:.40}; fetch the file again")
        if index >= len(ordinary):
            special[token] = index
    return VocabularyData(tokens=tuple(ordinary), special=special)


def _bytes_of(token: str, path: Path) -> bytes:
    try:
        return token.translate(_BYTE_OF_CHARACTER).encode("latin-1")
    except UnicodeEncodeError as exc:
        raise CheckpointError(
            f"{path}: token {token!r:.60} is not in GPT-2's spelling of bytes; fetch the file again"
        ) from exc
