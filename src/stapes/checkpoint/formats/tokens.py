"""Vocabulary and special ids as the files beside the weights state them.

Reads tokenizer.json, vocab.json with added_tokens.json, tokenizer_config.json, vocabulary.*, generation_config.json
and config.json. Refuses two files that state different ids for one token; the tokenizer checks that ids suit the
model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stapes.checkpoint.base import LIMITS, VocabularyData
from stapes.checkpoint.files import FileBytes, is_file, read_json, read_json_object
from stapes.errors import CheckpointError
from stapes.languages import code_of_token

_SPECIAL = re.compile(r"<\|.*\|>", re.DOTALL)
_TIMESTAMP = re.compile(r"<\|[\d.]+\|>")
#: Key of config.json or generation_config.json -> the token whose id it states.
#: Source: transformers v5.0.0 models/whisper/generation_whisper.py.
_CONFIG_KEYS = {"eos_token_id": "<|endoftext|>", "decoder_start_token_id": "<|startoftranscript|>"}
_GENERATION_KEYS = {"no_timestamps_token_id": "<|notimestamps|>", "prev_sot_token_id": "<|startofprev|>"}
_TASKS = {"transcribe": "<|transcribe|>", "translate": "<|translate|>"}
_STEERING = frozenset((*_CONFIG_KEYS.values(), *_GENERATION_KEYS.values(), *_TASKS.values()))


def _byte_of_character() -> dict[int, str]:
    """Return str.translate's table from GPT-2's printable spelling to Latin-1, where character n is byte n.

    Printable characters of Latin-1 stand for their own byte, the other 68 bytes for the characters from U+0100 on. What
    stands for no byte is mapped out of Latin-1, so that encoding it fails.
    Source: https://github.com/openai/gpt-2/blob/a74da5d/src/encoder.py bytes_to_unicode
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    table = dict.fromkeys(others, "\uffff")
    table.update({0x100 + index: chr(byte) for index, byte in enumerate(others)})
    return table


_BYTE_OF_CHARACTER = _byte_of_character()


def _shown(name: str) -> str:
    return name if len(name) <= 60 and name.isprintable() else f"{name!r:.60}"


class _Statements:
    """Ids of tokens by name, each with the file that states it."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, Path]] = {}

    def add(self, name: str, index: Any, path: Path, key: str | None = None) -> None:
        """Note an id. key: where the file states it, if not under the token's name.
        Raises CheckpointError if it cannot be one, or another file states another one.
        """
        if type(index) is not int or not 0 <= index < LIMITS["n_vocab"]:
            where = f"{key} is {index!r:.40}" if key else f"token {name!r:.60} has id {index!r:.40}"
            raise CheckpointError(f"{path}: {where}, expected a token id; fetch the file again")
        before, other = self._found.setdefault(name, (index, path))
        if before != index:
            said = f"{_shown(name)} ({key})" if key else _shown(name)
            raise CheckpointError(
                f"{path} states id {index} for {said}, and {other.name} states {before}; "
                "the files are not of one model: fetch all of them again, or correct the wrong one"
            )

    @property
    def ids(self) -> dict[str, int]:
        return dict(sorted(((name, index) for name, (index, _) in self._found.items()), key=lambda item: item[1]))


def read_vocabulary(folder: Path) -> VocabularyData | None:
    """Return what the files of a model's folder state of tokens and their ids; None if they state nothing."""
    statements = _Statements()
    tokens = _read_tokens(folder, statements)
    languages, multilingual = _read_configs(folder, statements)
    if not tokens and not statements.ids:
        return None
    return VocabularyData(tokens=tokens, special=statements.ids, languages=languages, multilingual=multilingual)


def _read_tokens(folder: Path, statements: _Statements) -> tuple[bytes, ...]:
    places = [folder / name for name in ("tokenizer.json", "vocab.json", "vocabulary.json", "vocabulary.txt")]
    path = next(filter(is_file, places), None)
    added: dict[str, Any] = {}
    if path is None:
        return ()
    if path.name == "tokenizer.json":
        vocab, added = _from_tokenizer(read_json_object(path), path)
    else:
        vocab = _listed(path) if path.name.startswith("vocabulary") else read_json_object(path)
    tokens = _split(vocab, path, statements)
    config = folder / "tokenizer_config.json"
    for source, named in ((path, added.items()), (config, _from_tokenizer_config(config)), *_beside(folder, path)):
        for token, index in named:
            if type(index) is not int or index >= len(tokens) or _SPECIAL.fullmatch(token):
                statements.add(token, index, source)
    return tokens


def _beside(folder: Path, path: Path) -> Iterator[tuple[Path, Iterable[tuple[str, Any]]]]:
    """Yield what else names tokens beside `path`, which may have been copied from another model.
    Timestamps in vocabulary.* count only where the list is all that there is: see `_listed`.
    """
    if not path.name.startswith("vocabulary") and is_file(added := folder / "added_tokens.json"):
        yield added, read_json_object(added).items()
    if path.name == "tokenizer.json":
        for listed in (folder / "vocabulary.json", folder / "vocabulary.txt"):
            if is_file(listed):
                yield listed, ((token, index) for token, index in _listed(listed).items() if _counts_beside(token))


def _counts_beside(token: str) -> bool:
    return bool(_SPECIAL.fullmatch(token)) and not _TIMESTAMP.fullmatch(token)


def _from_tokenizer(found: dict[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    model, added = found.get("model"), found.get("added_tokens", [])
    if isinstance(model, dict) and model.get("type") not in (None, "BPE"):
        raise CheckpointError(
            f"{path}: the vocabulary is of type {model['type']!r:.40}; stapes reads BPE, as Whisper has"
        )
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict) or not isinstance(added, list):
        raise CheckpointError(f"{path}: no byte-pair vocabulary in it; fetch it again")
    special = {}
    for entry in added:
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise CheckpointError(f"{path}: added token {entry!r:.80} has no content; fetch it again")
        special[entry["content"]] = entry.get("id")
    return model["vocab"], special


def _from_tokenizer_config(path: Path) -> Iterator[tuple[str, int]]:
    decoder = read_json_object(path).get("added_tokens_decoder") if is_file(path) else None
    for index, entry in (decoder or {}).items() if isinstance(decoder, dict) else ():
        content = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(content, str) or not index.isascii() or not index.isdecimal():
            raise CheckpointError(f"{path}: added_tokens_decoder has {index!r:.40}: {entry!r:.80}; fetch it again")
        yield content, int(index)


def _listed(path: Path) -> dict[str, Any]:
    """Return the tokens of a file that lists them by id.

    CTranslate2 fills a list up with timestamps to the size of the embedding, whether or not it has them already
    (v4.8.0, python/ctranslate2/converters/transformers.py, WhisperLoader.get_vocabulary): the first of equals counts.
    """
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
    ids: dict[str, Any] = {}
    for index, token in enumerate(found):
        if ids.setdefault(token, index) != index and not _SPECIAL.fullmatch(token):
            raise CheckpointError(f"{path}: token {token!r:.60} stands twice; fetch it again")
    return ids


def _split(ids: Mapping[str, Any], path: Path, statements: _Statements) -> tuple[bytes, ...]:
    """Return the ordinary tokens, from id 0 up to the first special one, and note the ids of all others.
    ids: GPT-2's spelling -> id. Raises CheckpointError for ids that are none or that repeat.
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
        if 0 in by_id:
            raise CheckpointError(
                f"{path}: special token {by_id[0]!r:.60} has id 0; stapes reads vocabularies whose tokens of text "
                "come first, as in every published Whisper"
            )
        raise CheckpointError(f"{path}: no token has id 0; fetch the file again")
    for index, token in by_id.items():
        if index >= len(ordinary):
            statements.add(token, index, path)
    return tuple(ordinary)


def _bytes_of(token: str, path: Path) -> bytes:
    try:
        return token.translate(_BYTE_OF_CHARACTER).encode("latin-1")
    except UnicodeEncodeError as exc:
        raise CheckpointError(
            f"{path}: token {token!r:.60} is not in GPT-2's spelling of bytes; fetch the file again"
        ) from exc


def _read_configs(folder: Path, statements: _Statements) -> tuple[tuple[str, ...] | None, bool | None]:
    """Note the ids in the configuration files; return the names of the languages, and whether there are several.
    transformers reads ids from generation_config.json, and from config.json only without one.
    """
    languages, multilingual = None, None
    generation: dict[str, Any] = {}
    if is_file(path := folder / "generation_config.json"):
        generation = read_json_object(path)
        for key, token in (_CONFIG_KEYS | _GENERATION_KEYS).items():
            _add_config_id(generation.get(key), token, path, key, statements)
        for task, index in _object(generation, "task_to_id", path).items():
            if task in _TASKS:
                statements.add(_TASKS[task], index, path, f"task_to_id[{task!r}]")
        languages = _language_names(_object(generation, "lang_to_id", path), path, statements)
        stated = generation.get("is_multilingual")
        multilingual = stated if isinstance(stated, bool) else None
    if is_file(path := folder / "config.json"):
        config = read_json_object(path)
        for key, token in _CONFIG_KEYS.items():
            if generation.get(key) is None:
                _add_config_id(config.get(key), token, path, key, statements)
        languages = languages or _names_of(config.get("lang_ids"), path, statements.ids)
    return languages, multilingual


def _add_config_id(stated: Any, token: str, path: Path, key: str, statements: _Statements) -> None:
    """Note an id that a key states; null and a list of several state none."""
    if isinstance(stated, list):
        stated = stated[0] if len(stated) == 1 else None
    if stated is not None:
        statements.add(token, stated, path, key)


def _object(found: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = found.get(key)
    if value is not None and not isinstance(value, dict):
        raise CheckpointError(f"{path}: {key} is {value!r:.60}, expected names with their ids; fetch it again")
    return value or {}


def _language_names(lang_to_id: dict[str, Any], path: Path, statements: _Statements) -> tuple[str, ...] | None:
    """Note the ids of languages and return their tokens' names; None if none is stated."""
    for name, index in lang_to_id.items():
        if code_of_token(name) is None:
            raise CheckpointError(f"{path}: lang_to_id has {name!r:.60}, expected a name such as '<|en|>'")
        statements.add(name, index, path, "lang_to_id")
    return tuple(lang_to_id) or None


def _names_of(lang_ids: Any, path: Path, ids: Mapping[str, int]) -> tuple[str, ...] | None:
    """Return the names of the tokens that CTranslate2's config.json lists as languages; None without list or names.

    Its converter can leave out English, so tokens between the start of transcript and the tasks are languages as well.
    It can also list what is none: added special tokens, and no-speech under its present name (v4.8.0,
    python/ctranslate2/converters/transformers.py, _get_lang_ids_from_tokenizer). A task or a timestamp in the list
    shows that the names are another model's.
    """
    if not isinstance(lang_ids, list) or not lang_ids or not ids:
        return None
    by_id = {index: name for name, index in ids.items()}
    names = {index: name for index, name in by_id.items() if code_of_token(name)}
    for index in lang_ids:
        name = by_id.get(index) if type(index) is int else None
        if name is None or name in _STEERING or _TIMESTAMP.fullmatch(name):
            instead = f", which {name} has" if name else ""
            raise CheckpointError(
                f"{path}: lang_ids has {index!r:.40}, and no language of the vocabulary has this id{instead}; "
                "the files are not of one model: fetch all of them again"
            )
    first = ids.get("<|startoftranscript|>", LIMITS["n_vocab"])
    stop = min(ids.get(name, 0) for name in _TASKS.values())
    return tuple(name for index, name in sorted(names.items()) if index in lang_ids or first < index < stop)
