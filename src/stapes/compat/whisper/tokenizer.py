"""Whisper's vocabulary as openai-whisper 20250625 gives it: `whisper.tokenizer`.

`Tokenizer` works on any tiktoken.Encoding with Whisper's special tokens; `get_tokenizer` makes those of the published
models from the vocabularies that come with stapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from stapes.languages import ALIASES, WITHOUT_SPACES
from stapes.languages import LANGUAGES as _LANGUAGES
from stapes.tokenizer import WordTokens, join_words, non_speech_ids, published_encoding, split_characters

if TYPE_CHECKING:
    import tiktoken

#: code -> name in English, in the order of the ids
LANGUAGES: dict[str, str] = dict(_LANGUAGES)
#: name or alias -> code, the aliases in the original's order
TO_LANGUAGE_CODE: dict[str, str] = {name: code for code, name in LANGUAGES.items()} | {
    alias: ALIASES[alias]
    for alias in (
        "burmese", "valencian", "flemish", "haitian", "letzeburgesch", "pushto", "panjabi", "moldavian", "moldovan",
        "sinhalese", "castilian", "mandarin",
    )
}  # fmt: skip


def _id_of(name: str) -> Any:
    def look_up(self: Tokenizer) -> int:
        return self.special_tokens[name]

    look_up.__doc__ = f"The id of {name}."
    return cached_property(look_up)


@dataclass
class Tokenizer:
    """Text to ids and back, for one language and task.

    encoding: the tokens, with Whisper's special ones.   num_languages: how many languages the model knows.
    language: a code; None: no language in `sot_sequence`.   task: "transcribe" or "translate"; None: none there.
    sot_sequence: the ids that open a transcript; made here.   special_tokens: name -> id; filled here.
    Raises KeyError where the encoding lacks a special token, ValueError for a language beyond `num_languages`.
    """

    encoding: tiktoken.Encoding
    num_languages: int
    language: str | None = None
    task: str | None = None
    sot_sequence: tuple[int, ...] = ()
    special_tokens: dict[str, int] = field(default_factory=dict)

    eot = _id_of("<|endoftext|>")
    sot = _id_of("<|startoftranscript|>")
    translate = _id_of("<|translate|>")
    transcribe = _id_of("<|transcribe|>")
    sot_lm = _id_of("<|startoflm|>")
    sot_prev = _id_of("<|startofprev|>")
    no_speech = _id_of("<|nospeech|>")
    no_timestamps = _id_of("<|notimestamps|>")
    timestamp_begin = _id_of("<|0.00|>")

    def __post_init__(self) -> None:
        ids = {name: self.encoding.encode_single_token(name) for name in self.encoding.special_tokens_set}
        self.special_tokens.update(sorted(ids.items(), key=lambda item: item[1]))
        sequence: list[int] = [self.sot]
        if self.language is not None:
            sequence.append(self.sot + 1 + list(LANGUAGES)[: self.num_languages].index(self.language))
        if self.task is not None:
            sequence.append(self.transcribe if self.task == "transcribe" else self.translate)
        self.sot_sequence = tuple(sequence)

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        """Return the ids of a text.   kwargs: of `tiktoken.Encoding.encode`.
        Raises ValueError for the name of a special token in it, unless they allow it.
        """
        return self.encoding.encode(text, **kwargs)

    def decode(self, token_ids: Iterable[int], **kwargs: Any) -> str:
        """Return the text of ids, timestamps left out; broken UTF-8 becomes U+FFFD."""
        return self.encoding.decode([one for one in token_ids if one < self.timestamp_begin], **kwargs)

    def decode_with_timestamps(self, token_ids: Sequence[int], **kwargs: Any) -> str:
        """Return the text of ids, timestamps written as <|1.08|>."""
        return self.encoding.decode(token_ids, **kwargs)

    @cached_property
    def language_token(self) -> int:
        """The id of the tokenizer's language. Raises ValueError where it has none."""
        if self.language is None:
            raise ValueError("this tokenizer has no language; give one to get_tokenizer()")
        return self.to_language_token(self.language)

    def to_language_token(self, language: str) -> int:
        """Return the id of a language's code. Raises KeyError where the encoding has none."""
        if (token := self.special_tokens.get(f"<|{language}|>")) is None:
            raise KeyError(f"the encoding has no token <|{language}|>")
        return token

    @cached_property
    def all_language_tokens(self) -> tuple[int, ...]:
        """The ids of the languages that the model knows, in ascending order."""
        ids = (one for name, one in self.special_tokens.items() if name.strip("<|>") in LANGUAGES)
        return tuple(ids)[: self.num_languages]

    @cached_property
    def all_language_codes(self) -> tuple[str, ...]:
        """The codes of `all_language_tokens`."""
        return tuple(self.decode([one]).strip("<|>") for one in self.all_language_tokens)

    @cached_property
    def sot_sequence_including_notimestamps(self) -> tuple[int, ...]:
        """The ids that open a transcript without timestamps."""
        return (*self.sot_sequence, self.no_timestamps)

    @cached_property
    def non_speech_tokens(self) -> tuple[int, ...]:
        """The ids of brackets, music and other signs that are not spoken, in ascending order."""
        return non_speech_ids(lambda texts: [self.encoding.encode(one) for one in texts])

    def split_to_word_tokens(self, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """Return words and the ids of each: cut at spaces, or for languages without spaces at every character."""
        if self.language in WITHOUT_SPACES:
            return self.split_tokens_on_unicode(tokens)
        return self.split_tokens_on_spaces(tokens)

    def split_tokens_on_unicode(self, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """Return texts and the ids of each, cut wherever a character ends.
        Every id is kept, where the original loses those after some broken characters, or raises IndexError.
        """
        return _columns(split_characters(self.decode_with_timestamps, tokens))

    def split_tokens_on_spaces(self, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """Return words and the ids of each, cut at spaces, punctuation and special tokens."""
        pieces = zip(*self.split_tokens_on_unicode(tokens), strict=True)
        return _columns(join_words((WordTokens(text, tuple(ids)) for text, ids in pieces), self.eot))


def _columns(words: Iterable[WordTokens]) -> tuple[list[str], list[list[int]]]:
    kept = list(words)
    return [one.text for one in kept], [list(one.ids) for one in kept]


@cache
def get_encoding(name: str = "gpt2", num_languages: int = 99) -> tiktoken.Encoding:
    """Return the tokens of published models that know the first `num_languages` languages.
    name: "gpt2" (of English-only models) or "multilingual". Raises FileNotFoundError for another name.
    """
    if name not in ("gpt2", "multilingual"):
        raise FileNotFoundError(f"vocabulary {name!r}: there are 'gpt2' and 'multilingual'")
    return published_encoding("english" if name == "gpt2" else "multilingual", num_languages, f"{name}.tiktoken")


@cache
def get_tokenizer(
    multilingual: bool,
    *,
    num_languages: int = 99,
    language: str | None = None,
    task: str | None = None,
) -> Tokenizer:
    """Return the tokenizer of a published model.

    multilingual: False for an English-only model, whose transcripts have neither language nor task.
    num_languages: 99, or 100 from large-v3 on.   language: a code or a name; None: English.
    task: "transcribe" or "translate"; None: "transcribe". Raises ValueError for an unknown language.
    """
    if language is not None:
        language = language.lower()
        language = TO_LANGUAGE_CODE.get(language, language)
        if language not in LANGUAGES:
            raise ValueError(f"Unsupported language: {language}; LANGUAGES has the codes, and the names of each")
    if not multilingual:
        return Tokenizer(encoding=get_encoding("gpt2", num_languages), num_languages=num_languages)
    return Tokenizer(
        encoding=get_encoding("multilingual", num_languages),
        num_languages=num_languages,
        language=language or "en",
        task=task or "transcribe",
    )
