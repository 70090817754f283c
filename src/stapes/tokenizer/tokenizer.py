"""One model's tokenizer: byte-pair encoding by tiktoken, ids from the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from stapes.checkpoint.base import ModelSpec, VocabularyData
from stapes.errors import CheckpointError, OptionError
from stapes.languages import LANGUAGES, language_title, language_token
from stapes.options import Task
from stapes.tokenizer.special import SpecialIds, layout_with_timestamps
from stapes.tokenizer.vocabulary import VocabularyName, ordinary_tokens, shipped_tokens, stated_ids

if TYPE_CHECKING:
    import tiktoken

# How GPT-2 cuts text before merging: contractions, words, numbers and signs with one leading space, white space.
_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

# Signs that are not spoken: brackets, speaker marks, music. Source: the set that
# openai/whisper derives in tokenizer.py at c0d2f62 (non_speech_tokens); the ids are found in each vocabulary.
_SIGNS = tuple('"#()*+/:;<=>@[\\]^_`{|}~「」『』')
_SIGN_GROUPS = (
    "<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}",
    "♪♪", "♪♪♪",
)  # fmt: skip
# Their UTF-8 forms share the first two bytes, so where one is several tokens, its first token may be forbidden.
_MUSIC_SIGNS = tuple("♩♪♫♬♭♮♯")


class Tokenizer:
    """Text to ids and back for one model."""

    def __init__(
        self, spec: ModelSpec, vocabulary: VocabularyData | None = None, source: str = "this checkpoint"
    ) -> None:
        """Take the model's sizes and the vocabulary that its checkpoint states; None: none.   source: for errors.
        Raises CheckpointError where ids are missing or contradict each other.
        """
        stated = vocabulary or VocabularyData(tokens=())
        self._tokens = ordinary_tokens(spec, stated, source)
        self._ids = {token: i for i, token in enumerate(self._tokens)}
        if len(self._ids) != len(self._tokens):
            raise CheckpointError(f"{source}: the vocabulary holds a token twice; the tokenizer file is damaged")
        ids = stated_ids(spec, stated, self._tokens, source)
        self.n_vocab = spec.n_vocab
        self.multilingual = ids.multilingual
        self.special: SpecialIds = ids.resolve()
        self._names = {one: name.encode() for one, name in self.special.names.items()}
        self._stated = stated.special

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        return _encoding_of(self._ids)

    def _encode_short(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode short texts with only the tokens that are parts of them.

        To make an encoding of the whole vocabulary takes longer than all else here, and merging looks up no other
        token.
        """
        whole = [text.encode() for text in texts]
        parts = {one[start:stop] for one in whole for stop in range(len(one) + 1) for start in range(stop)}
        encoding = _encoding_of({part: self._ids[part] for part in parts if part in self._ids})
        return [encoding.encode_ordinary(text) for text in texts]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; names of special tokens in it are text like any other."""
        return self._encoding.encode_ordinary(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, timestamps left out; broken UTF-8 becomes U+FFFD."""
        return self.decode_with_timestamps(one for one in ids if one < self.special.timestamp_begin)

    def decode_with_timestamps(self, ids: Iterable[int]) -> str:
        """Return the text of ids, timestamps written as <|1.08|>."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of an id: UTF-8, maybe part of a character; a timestamp's are <|1.08|>."""
        return self._tokens[token] if token < len(self._tokens) else self._names.get(token, b"")

    @cached_property
    def texts(self) -> tuple[str | None, ...]:
        """The text of every ordinary token, by id; None where it is part of a character."""
        return tuple(map(_text_of, self._tokens))

    def start_sequence(self, language: str | None, task: Task) -> tuple[int, ...]:
        """Return the ids that open a transcript: start, language and task; for an English-only model, start alone.
        language: a code, or None for the model's first one.
        Raises OptionError if the model does not know it, or has no token for the task.
        """
        if not self.multilingual:
            if language is not None and language not in LANGUAGES:
                raise OptionError(f"language {language!r}: this model knows English only")
            return (self.special.sot,)
        one = self._language_id(next(iter(self.special.languages)) if language is None else language)
        wanted: int | None = getattr(self.special, task)
        if wanted is None:
            raise OptionError(f"task {task!r}: this model has no token for it; it can only transcribe")
        return (self.special.sot, one, wanted)

    def _language_id(self, code: str) -> int:
        """Find a language's id: of those that the model detects, or of any token of that name."""
        if (one := self.special.languages.get(code)) is not None:
            return one
        one = self._stated.get(language_token(code))
        others = self._names.keys() - self.special.languages.values()
        if one is None or one in others or not len(self._tokens) <= one < self.n_vocab:
            name = language_title(code) if code in LANGUAGES else "the language"
            raise OptionError(
                f"this model does not know {name} ({code}): it has no language token {language_token(code)}; "
                f"engine.info.languages lists the {len(self.special.languages)} that it knows"
            )
        return one

    @property
    def has_timestamps(self) -> bool:
        """Whether the model has timestamps; without, each window is one segment."""
        return self.special.n_timestamps > 0

    @property
    def without_timestamps(self) -> tuple[int, ...]:
        """What follows the start sequence where text alone is wanted."""
        return () if self.special.no_timestamps is None else (self.special.no_timestamps,)

    @cached_property
    def unused(self) -> tuple[int, ...]:
        """Ids that are never chosen, whatever is suppressed: rows that pad the embedding, added tokens, and all else
        after the timestamps.
        """
        end = self.special.timestamp_end
        return tuple(one for one in range(len(self._tokens), self.n_vocab) if one not in self._names or one >= end)

    @property
    def measured_below(self) -> int | None:
        """The id below which probabilities are measured: what follows timestamps does not count. None: all do."""
        return self.special.timestamp_end if self.special.timestamp_end < self.n_vocab else None

    @cached_property
    def blank(self) -> tuple[int, ...]:
        """The ids of a lone space."""
        return (self._ids[b" "],)

    @cached_property
    def non_speech(self) -> tuple[int, ...]:
        """Ids of symbols that are not spoken: see `non_speech_ids`."""
        return non_speech_ids(self._encode_short)

    def never_sampled(self, suppress: Sequence[int]) -> tuple[int, ...]:
        """Return the ids that `suppress_tokens` forbids at every position.

        suppress: ids, -1 for the non-speech set; empty switches everything off, special tokens included, as in the
        reference.
        Raises OptionError for an id outside the vocabulary.
        """
        if not suppress:
            return ()
        if (highest := max(suppress)) >= self.n_vocab:
            raise OptionError(f"suppress_tokens has id {highest}; this model has ids 0 to {self.n_vocab - 1}")
        ids = {one for one in suppress if one >= 0}
        if -1 in suppress:
            ids.update(self.non_speech)
        s = self.special
        steering = (s.transcribe, s.translate, s.sot, s.sot_prev, s.sot_lm, s.no_speech)
        ids.update(one for one in steering if one is not None)
        return tuple(sorted(ids))


def non_speech_ids(encode: Callable[[Sequence[str]], list[list[int]]]) -> tuple[int, ...]:
    """Return the ids of symbols that are not spoken; a hyphen or an apostrophe counts at the beginning of a word only.
    encode: gives the ids of each of several texts.
    """
    signs = (*_SIGNS, *_SIGN_GROUPS, *_MUSIC_SIGNS)
    texts = (" -", " '", *signs, *(" " + sign for sign in signs))
    encoded = dict(zip(texts, encode(texts), strict=True))
    found = {encoded[" -"][0], encoded[" '"][0]}
    for sign in signs:
        for ids in (encoded[sign], encoded[" " + sign]):
            if len(ids) == 1 or sign in _MUSIC_SIGNS:
                found.add(ids[0])
    return tuple(sorted(found))


def _text_of(token: bytes) -> str | None:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return None


def published_encoding(vocabulary: VocabularyName, n_languages: int, name: str) -> tiktoken.Encoding:
    """Return the encoding of published models that know the first `n_languages` languages, special tokens included.
    name: what the encoding is called.
    """
    tokens = shipped_tokens(vocabulary)
    ranks = {token: i for i, token in enumerate(tokens)}
    return _encoding_of(ranks, layout_with_timestamps(len(tokens), n_languages), name)


def _encoding_of(
    ranks: dict[bytes, int], special: Mapping[str, int] | None = None, name: str = "whisper"
) -> tiktoken.Encoding:
    import tiktoken  # noqa: PLC0415 (importing stapes must stay quick)

    return tiktoken.Encoding(name=name, pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens=dict(special or {}))
