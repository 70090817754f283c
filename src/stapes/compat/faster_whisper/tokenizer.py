"""The tokenizers of faster-whisper: `Tokenizer`, and what `WhisperModel.hf_tokenizer` is here, `HfTokenizer`.

Source of the names and of how text falls into words: faster-whisper 1.2.1; of byte-level names of tokens: openai/gpt-2.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from stapes.languages import LANGUAGES, WITHOUT_SPACES, language_token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stapes.tokenizer import Tokenizer as StapesTokenizer

_TASKS = ("transcribe", "translate")
#: sorted, but for the language that came last
_LANGUAGE_CODES = (*sorted(LANGUAGES.keys() - {"yue"}), "yue")
_BROKEN: Final = "\ufffd"  # what a decoder writes for bytes that end in the middle of a character
_TIMESTAMP_S: Final = 0.02
_SIGNS: Final = tuple('"#()*+/:;<=>@[\\]^_`{|}~「」『』')
_SIGN_GROUPS: Final = (
    "<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}",
    "♪♪", "♪♪♪",
)  # fmt: skip
#: their UTF-8 forms share the first two bytes, so where one is several tokens, its first token may be forbidden
_MUSIC_SIGNS: Final = tuple("♩♪♫♬♭♮♯")


class _Encoding(Protocol):
    @property
    def ids(self) -> list[int]:
        """The ids of a text."""


class _HfTokenizer(Protocol):
    """What `Tokenizer` asks of a tokenizer: `HfTokenizer`, or one of the package `tokenizers`."""

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token's name, or None."""

    def encode(self, sequence: str, *, add_special_tokens: bool = True) -> _Encoding:
        """Return what has the ids of a text."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """Return the text of ids."""


class Tokenizer:
    """Text to ids and back for one language and task, with the ids of Whisper's special tokens.

    Raises ValueError for a task or a language code that Whisper does not have, unless the model is English-only.
    """

    def __init__(
        self, tokenizer: _HfTokenizer, multilingual: bool, task: str | None = None, language: str | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.task: int | None = None
        self.language: int | None = None
        self.language_code = "en"
        if not multilingual:
            return
        if task not in _TASKS:
            raise ValueError(f"'{task}' is not a valid task; there are: {', '.join(_TASKS)}")
        if language is None or language not in _LANGUAGE_CODES:
            raise ValueError(f"'{language}' is not a valid language code; there are: {', '.join(_LANGUAGE_CODES)}")
        self.task = self._id(f"<|{task}|>")
        self.language = self._id(language_token(language))
        self.language_code = language

    def _id(self, name: str) -> int:
        """Return a token's id; None where the model has no such token, as in the original, which declares ints too."""
        return self.tokenizer.token_to_id(name)  # type: ignore[return-value]

    @cached_property
    def transcribe(self) -> int:
        """The id of the task of transcription."""
        return self._id("<|transcribe|>")

    @cached_property
    def translate(self) -> int:
        """The id of the task of translation."""
        return self._id("<|translate|>")

    @cached_property
    def sot(self) -> int:
        """The id of start-of-transcript."""
        return self._id("<|startoftranscript|>")

    @cached_property
    def sot_lm(self) -> int:
        """The id of start-of-lm."""
        return self._id("<|startoflm|>")

    @cached_property
    def sot_prev(self) -> int:
        """The id that opens the text of earlier windows."""
        return self._id("<|startofprev|>")

    @cached_property
    def eot(self) -> int:
        """The id of end-of-text; ids below it are text."""
        return self._id("<|endoftext|>")

    @cached_property
    def no_timestamps(self) -> int:
        """The id that asks for text without timestamps."""
        return self._id("<|notimestamps|>")

    @cached_property
    def no_speech(self) -> int:
        """The id of no-speech, by its present or its former name."""
        return self._id("<|nospeech|>") or self._id("<|nocaptions|>")

    @property
    def timestamp_begin(self) -> int:
        """The id of the timestamp 0.00."""
        return self.no_timestamps + 1

    @property
    def sot_sequence(self) -> list[int]:
        """The ids that open a transcript: start, language, task; for an English-only model, start alone."""
        return [one for one in (self.sot, self.language, self.task) if one is not None]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without those that open and end a transcript."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of ids; special tokens and timestamps are left out."""
        return self.tokenizer.decode([one for one in tokens if one < self.eot])

    def decode_with_timestamps(self, tokens: Iterable[int]) -> str:
        """Return the text of ids, timestamps written as <|1.08|>."""
        pieces: list[str] = []
        ids: list[int] = []
        for one in tokens:
            if one < self.timestamp_begin:
                ids.append(one)
                continue
            pieces += (self.tokenizer.decode(ids), f"<|{(one - self.timestamp_begin) * _TIMESTAMP_S:.2f}|>")
            ids = []
        return "".join((*pieces, self.tokenizer.decode(ids)))

    @cached_property
    def non_speech_tokens(self) -> tuple[int, ...]:
        """Ids of symbols that are not spoken; a hyphen or an apostrophe counts at the beginning of a word only."""
        found = {self.encode(text)[0] for text in (" -", " '")}
        for sign in (*_SIGNS, *_SIGN_GROUPS, *_MUSIC_SIGNS):
            for ids in (self.encode(sign), self.encode(f" {sign}")):
                if len(ids) == 1 or sign in _MUSIC_SIGNS:
                    found.add(ids[0])
        return tuple(sorted(found))

    def split_to_word_tokens(self, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """Split ids into words, and return the words and the ids of each: at spaces and punctuation; in languages
        that are written without spaces, wherever a character ends.
        """
        if self.language_code in WITHOUT_SPACES:
            return self.split_tokens_on_unicode(tokens)
        return self.split_tokens_on_spaces(tokens)

    def split_tokens_on_unicode(self, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """Split ids wherever their bytes end with a whole character, or with one that is broken in the whole text too.
        Ids at the end that are a part of a character are left out.
        """
        whole = self.decode_with_timestamps(tokens)
        words: list[str] = []
        groups: list[list[int]] = []
        offset, first = 0, 0
        for end in range(1, len(tokens) + 1):
            text = self.decode_with_timestamps(tokens[first:end])
            broken_at = text.find(_BROKEN)
            if broken_at < 0 or whole[offset + broken_at : offset + broken_at + 1] == _BROKEN:
                words.append(text)
                groups.append(list(tokens[first:end]))
                offset, first = offset + len(text), end
        return words, groups

    def split_tokens_on_spaces(self, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """Split ids at spaces and around punctuation; special tokens stand alone."""
        words: list[str] = []
        groups: list[list[int]] = []
        for text, ids in zip(*self.split_tokens_on_unicode(tokens), strict=True):
            begins = text.startswith(" ") or text.strip() in string.punctuation or ids[0] >= self.eot
            if begins or not words:
                words.append(text)
                groups.append(ids)
            else:
                words[-1] += text
                groups[-1] += ids
        return words, groups


@dataclass
class Encoding:
    """The ids of a text, and the name of each token."""

    ids: list[int]
    tokens: list[str]

    def __len__(self) -> int:
        return len(self.ids)


class HfTokenizer:
    """The interface of `tokenizers.Tokenizer`, as far as programs use it, over a tokenizer of stapes.

    stated: ids of special and added tokens by name, as the checkpoint's tokenizer.json has them. None or empty: those
    of the present Hugging Face files of Whisper, which name all of the model's special tokens and its timestamps.
    """

    def __init__(self, tokenizer: StapesTokenizer, stated: Mapping[str, int] | None = None) -> None:
        self._tokenizer = tokenizer
        names = {name: one for one, name in tokenizer.special.names.items()}
        self._added = {name: one for name, one in (stated or names).items() if name}
        self._name_of_added = {one: name for name, one in self._added.items()}
        # Timestamps and added words are tokens like those of text; other names are left out of decoded text.
        self._skipped = frozenset(one for name, one in self._added.items() if _is_special(name))

    @cached_property
    def _ordinary(self) -> dict[str, int]:
        tokenizer = self._tokenizer
        return {_spelled(tokenizer.token_bytes(one)): one for one in range(len(tokenizer.texts))}

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        """Return ids by the tokens' names, byte-level for text: " the" is "Ġthe"."""
        return {**self._ordinary, **self._added} if with_added_tokens else dict(self._ordinary)

    def get_vocab_size(self, with_added_tokens: bool = True) -> int:
        """Return how many tokens `get_vocab` has."""
        return len(self.get_vocab(with_added_tokens))

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token's name, or None."""
        found = self._added.get(token)
        return self._ordinary.get(token) if found is None else found

    def id_to_token(self, id: int) -> str | None:
        """Return a token's name, or None."""
        if id in self._name_of_added:
            return self._name_of_added[id]
        return _spelled(self._tokenizer.token_bytes(id)) if 0 <= id < len(self._tokenizer.texts) else None

    def encode(self, sequence: str, *, add_special_tokens: bool = True) -> Encoding:
        """Return the ids of a text; names of special tokens in it become those tokens.

        add_special_tokens: put start-of-transcript and no-timestamps before it, and end-of-text after it.
        """
        ids: list[int] = []
        for place, part in enumerate(self._split(sequence)):
            ids += [self._added[part]] if place % 2 else self._tokenizer.encode(part)
        if add_special_tokens:
            special = self._tokenizer.special
            ids = [special.sot, *self._tokenizer.without_timestamps, *ids, special.eot]
        return Encoding(ids, [self.id_to_token(one) or "" for one in ids])

    def _split(self, text: str) -> list[str]:
        """Split a text at the names in it; every second part is a name, the longest where several begin."""
        names = sorted((name for name in self._added if name in text), key=len, reverse=True)
        return re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Return the text of ids; broken UTF-8 becomes U+FFFD, ids of no token are left out.

        skip_special_tokens: leave out special tokens; else they are written by name.
        """
        skipped = self._skipped if skip_special_tokens else frozenset()
        return b"".join(self._bytes_of(int(one)) for one in ids if one not in skipped).decode("utf-8", "replace")

    def decode_batch(self, sequences: Iterable[Iterable[int]], skip_special_tokens: bool = True) -> list[str]:
        """Return the text of each sequence of ids."""
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    def _bytes_of(self, one: int) -> bytes:
        name = self._name_of_added.get(one)
        if name is not None:
            return name.encode()
        return self._tokenizer.token_bytes(one) if 0 <= one < len(self._tokenizer.texts) else b""


def _is_special(name: str) -> bool:
    """Whether a name is that of a special token, and not of a timestamp."""
    inside = name.removeprefix("<|").removesuffix("|>")
    return len(inside) == len(name) - 4 and not re.fullmatch(r"\d+\.\d\d", inside)


def _spelled(token: bytes) -> str:
    """Return a token's byte-level name: printable bytes as they are, others as the characters from U+0100 on."""
    return token.decode("latin-1").translate(_BYTE_LEVEL)


def _byte_level() -> dict[int, int]:
    """Return the character of every byte that has another one than its own (openai/gpt-2 encoder.py)."""
    kept = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = [byte for byte in range(0x100) if byte not in kept]
    return {byte: 0x100 + place for place, byte in enumerate(moved)}


_BYTE_LEVEL: Final = _byte_level()
