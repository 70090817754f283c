"""Writes tiny models whose vocabularies differ as those of real checkpoints do.

A vocabulary is described once (`Vocabulary`); its files are written from that as each program writes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from stapes.checkpoint.base import ModelSpec
from stapes.checkpoint.files import Array
from stapes.languages import LANGUAGES
from stapes.testing import random_checkpoint, small_vocabulary, tiny_spec
from stapes.tokenizer.vocabulary import shipped_tokens
from tests import writers_of_checkpoints as write

AFTER = ("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")


@dataclass(frozen=True)
class Vocabulary:
    """Ordinary tokens, then end, start, languages, tasks and so on, timestamps, and added tokens after them."""

    tokens: tuple[bytes, ...] = small_vocabulary().tokens
    codes: tuple[str, ...] = tuple(LANGUAGES)[:99]
    n_timestamps: int = 1501
    timestamps_named: bool = True  # by the tokenizer
    added: tuple[str, ...] = ()  # names, as the tokenizer adds them
    appended_codes: tuple[str, ...] = ()  # of languages, after the added tokens
    padding: int = 0  # rows of the embedding that no file names
    multilingual: bool = True

    @property
    def named(self) -> dict[str, int]:
        """Ids by name, without timestamps and without what was added."""
        names = ("<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in self.codes), *AFTER)
        return {name: len(self.tokens) + i for i, name in enumerate(names)}

    @property
    def begin(self) -> int:
        return len(self.tokens) + len(self.codes) + 8

    @property
    def end(self) -> int:
        """The id after the last timestamp."""
        return self.begin + self.n_timestamps

    @property
    def appended(self) -> dict[str, int]:
        names = (*self.added, *(f"<|{code}|>" for code in self.appended_codes))
        return {name: self.end + i for i, name in enumerate(names)}

    @property
    def lang_to_id(self) -> dict[str, int]:
        ids = self.named | self.appended
        return {f"<|{code}|>": ids[f"<|{code}|>"] for code in (*self.codes, *self.appended_codes)}

    @property
    def in_tokenizer(self) -> dict[str, int]:
        times = {f"<|{i * 0.02:.2f}|>": self.begin + i for i in range(self.n_timestamps)}
        return self.named | (times if self.timestamps_named else {}) | self.appended

    @property
    def n_vocab(self) -> int:
        return self.end + len(self.appended) + self.padding

    def spec(self, **sizes: Any) -> ModelSpec:
        return replace(tiny_spec(n_vocab=self.n_vocab), **sizes)

    def generation_config(self) -> dict[str, Any]:
        """What transformers writes for a model of this vocabulary."""
        found: dict[str, Any] = {
            "eos_token_id": self.named["<|endoftext|>"],
            "decoder_start_token_id": self.named["<|startoftranscript|>"],
            "no_timestamps_token_id": self.named["<|notimestamps|>"],
            "is_multilingual": self.multilingual,
        }
        if self.multilingual:
            found["lang_to_id"] = self.lang_to_id
            found["task_to_id"] = {task: self.named[f"<|{task}|>"] for task in ("transcribe", "translate")}
        return found


def tokenizer_json(tokens: tuple[bytes, ...], special: dict[str, int]) -> dict[str, Any]:
    """As the library `tokenizers` writes it."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": level,
        "post_processor": None, "decoder": level,
        "added_tokens": [
            {"id": one, "content": name, "special": name.startswith("<|"), **flags} for name, one in special.items()
        ],
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "merges": [],
            "vocab": {write.spelled(token): i for i, token in enumerate(tokens)},
        },
    }  # fmt: skip


def tensors_of(vocabulary: Vocabulary, spec: ModelSpec | None = None, seed: int = 0) -> dict[str, Array]:
    """Random weights that do not depend on the ids after the timestamps; there, rows are far larger."""
    spec = spec or vocabulary.spec()
    bare = replace(spec, n_vocab=vocabulary.end)
    tensors = {name: np.array(one) for name, one in random_checkpoint(spec=bare, seed=seed).tensors.items()}
    random, rows = np.random.default_rng(seed + 1), spec.n_vocab - vocabulary.end
    large = random.standard_normal((rows, spec.n_text_state)).astype(np.float16) * np.float16(40)
    embedding = "decoder.token_embedding.weight"
    tensors[embedding] = np.concatenate([tensors[embedding], large])
    return tensors


def write_folder(
    folder: Path,
    vocabulary: Vocabulary,
    *,
    tokenizer: str | None = "tokenizer.json",
    generation: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    spec: ModelSpec | None = None,
) -> Path:
    """Write a Hugging Face folder.

    tokenizer: which files name the tokens; None: none.   generation: of generation_config.json; None: no such file.
    config: beside the sizes.
    """
    spec = spec or vocabulary.spec()
    write.write_huggingface(folder, tensors_of(vocabulary, spec), spec)
    (folder / "tokenizer.json").unlink()
    (folder / "generation_config.json").unlink()
    put(folder / "config.json", write.huggingface_config(spec) | (config or {}))
    if generation is not None:
        put(folder / "generation_config.json", generation)
    write_tokenizer(folder, vocabulary, tokenizer)
    return folder


def write_tokenizer(folder: Path, vocabulary: Vocabulary, kind: str | None) -> None:
    special = vocabulary.in_tokenizer
    plain = {} if kind is None else {write.spelled(token): i for i, token in enumerate(vocabulary.tokens)}
    if kind == "tokenizer.json":
        put(folder / "tokenizer.json", tokenizer_json(vocabulary.tokens, special))
    elif kind == "added_tokens.json":
        put(folder / "vocab.json", plain | {"<|endoftext|>": special["<|endoftext|>"]})
        put(folder / "added_tokens.json", special)
    elif kind == "tokenizer_config.json":
        put(folder / "vocab.json", plain)
        decoder = {str(one): {"content": name, "special": True} for name, one in special.items()}
        put(folder / "tokenizer_config.json", {"tokenizer_class": "WhisperTokenizer", "added_tokens_decoder": decoder})


def put(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


# At random.

EACH_TOKENIZER = ("tokenizer.json", "added_tokens.json", "tokenizer_config.json")
#: codes that no published model has a token for
OTHER_CODES = ("gsw", "tlh", "nan", "xx", "zh-TW", "ga")
#: what a fine-tune may have been given beside languages
ADDED = ("<|foo|>", "concord", " returned", "<|pad|>", "<|speaker|>")


@dataclass(frozen=True)
class Files:
    """A vocabulary, and which files state it."""

    vocabulary: Vocabulary
    tokenizer: str | None
    generation: dict[str, Any] | None

    def write(self, folder: Path) -> Path:
        """Write the folder; config.json states the ids that transformers needs to make the network."""
        named, sizes = self.vocabulary.named, {"n_mels": 80}
        if len(self.vocabulary.tokens) > len(small_vocabulary().tokens):  # keep a large embedding narrow
            sizes |= dict.fromkeys(("n_audio_state", "n_text_state"), 4)
            sizes |= dict.fromkeys(("n_audio_head", "n_text_head", "n_audio_layer", "n_text_layer"), 1)
        return write_folder(
            folder,
            self.vocabulary,
            tokenizer=self.tokenizer,
            generation=self.generation,
            spec=self.vocabulary.spec(**sizes),
            config={
                **dict.fromkeys(("eos_token_id", "pad_token_id", "bos_token_id"), named["<|endoftext|>"]),
                "decoder_start_token_id": named["<|startoftranscript|>"],
            },
        )

    @property
    def languages(self) -> dict[str, int]:
        """The languages that the files state, by code."""
        ids = {name[2:-2]: one for name, one in self.vocabulary.lang_to_id.items()}
        if self.generation and "lang_to_id" in self.generation:
            return ids
        return {code: one for code, one in ids.items() if code in LANGUAGES or code in self.vocabulary.codes}


@st.composite
def vocabularies(draw: st.DrawFn, *, tokens: tuple[bytes, ...] | None = None) -> Vocabulary:
    """Vocabularies of multilingual models; of 256 to 364 ordinary tokens, if not given."""
    codes = st.sampled_from((*LANGUAGES, *OTHER_CODES))
    own = tuple(draw(st.lists(codes, min_size=1, max_size=12, unique=True)))
    others = [code for code in (*OTHER_CODES, "yue", "mt") if code not in own]
    return Vocabulary(
        tokens=tokens or small_vocabulary().tokens[: draw(st.integers(256, 364))],
        codes=own,
        n_timestamps=draw(st.sampled_from([1501, 1501, 0])),
        timestamps_named=draw(st.booleans()),
        added=tuple(draw(st.lists(st.sampled_from(ADDED), max_size=3, unique=True))),
        appended_codes=tuple(draw(st.lists(st.sampled_from(others), max_size=2, unique=True))) if others else (),
        padding=draw(st.integers(0, 70)),
    )


@st.composite
def stated_files(draw: st.DrawFn, *, with_generation: bool | None = None) -> Files:
    """Files that state every id, one way or another; without a tokenizer's, of a vocabulary that ships."""
    kind = draw(st.sampled_from([*EACH_TOKENIZER, None]))
    vocabulary = draw(vocabularies(tokens=None if kind else shipped_tokens("multilingual")))
    has_generation = kind is None or (draw(st.booleans()) if with_generation is None else with_generation)
    generation = vocabulary.generation_config() if has_generation else None
    if generation and kind and with_generation is None:
        for key in draw(st.sets(st.sampled_from(sorted(generation)))):  # older ones state less
            del generation[key]
    return Files(vocabulary, kind, generation)
