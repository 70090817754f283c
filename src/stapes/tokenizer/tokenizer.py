"""One model's tokenizer: byte-pair encoding by tiktoken, ids from the vocabulary.

Knows text and ids; what the ids are for is the business of decoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from stapes.checkpoint.base import ModelSpec, VocabularyData
from stapes.errors import CheckpointError, OptionError
from stapes.languages import LANGUAGES
from stapes.options import Task
from stapes.tokenizer.special import SpecialIds, named_ids, special_ids
from stapes.tokenizer.vocabulary import is_english_only, n_languages, n_timestamps, vocabulary_for

if TYPE_CHECKING:
    import tiktoken

# How GPT-2 cuts text before merging: contractions, words, numbers and signs with one leading space, white space.
_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

# Signs that stand for sounds nobody speaks as text: brackets, speaker marks, music. Source: the set that
# openai/whisper derives in tokenizer.py at c0d2f62 (non_speech_tokens); the ids are found anew in each vocabulary.
_SIGNS = tuple('"#()*+/:;<=>@[\\]^_`{|}~「」『』')
_SIGN_GROUPS = (
    "<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}",
    "♪♪", "♪♪♪",
)  # fmt: skip
# Their UTF-8 forms share the first two bytes, so where one is several tokens, its first token may be forbidden.
_MUSIC_SIGNS = tuple("♩♪♫♬♭♮♯")


class Tokenizer:
    """Text to ids and back for one model."""

    def __init__(self, spec: ModelSpec, vocabulary: VocabularyData | None = None) -> None:
        """Take the model's sizes and what its checkpoint says of the vocabulary; None: the shipped one."""
        data = vocabulary or vocabulary_for(spec)
        self.n_vocab = spec.n_vocab
        self.multilingual = n_languages(spec, len(data.tokens)) > 0 and not is_english_only(data)
        self._tokens = data.tokens
        self._ids = {token: i for i, token in enumerate(data.tokens)}
        self._named = named_ids(len(data.tokens), spec.n_vocab, n_timestamps(spec), data.special)
        self.special: SpecialIds = special_ids(self._named)
        self._names = {one: name.encode() for name, one in self._named.items()}
        if len(self._ids) != len(data.tokens):
            raise CheckpointError("the vocabulary holds a token twice; the tokenizer file is damaged")

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        return _encoding_of(self._ids)

    def _encode_short(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode short texts without making an encoding of the whole vocabulary, which takes longer than all else here.

        Merging looks up parts of the text and nothing else: tokens that are no part of it make no difference.
        """
        whole = [text.encode() for text in texts]
        parts = {one[start:stop] for one in whole for stop in range(len(one) + 1) for start in range(stop)}
        encoding = _encoding_of({part: self._ids[part] for part in parts if part in self._ids})
        return [encoding.encode_ordinary(text) for text in texts]

    def encode(self, text: str) -> list[int]:
        """Give the ids of a text; names of special tokens in it are text like any other."""
        return self._encoding.encode_ordinary(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Give the text of ids, timestamps left out; broken UTF-8 becomes U+FFFD."""
        return self.decode_with_timestamps(one for one in ids if one < self.special.timestamp_begin)

    def decode_with_timestamps(self, ids: Iterable[int]) -> str:
        """Give the text of ids, timestamps written as <|1.08|>."""
        n_ordinary = len(self._tokens)
        spelt = [self._tokens[one] if one < n_ordinary else self._names[one] for one in ids]
        return b"".join(spelt).decode("utf-8", errors="replace")

    @cached_property
    def texts(self) -> tuple[str | None, ...]:
        """The text of every ordinary token, by id; None where it is part of a character."""
        return tuple(map(_text_of, self._tokens))

    def start_sequence(self, language: str | None, task: Task) -> tuple[int, ...]:
        """Give the ids that open a transcript: start, language and task; for an English-only model, start alone.

        Raises OptionError if the model does not know the language.
        """
        if not self.multilingual:
            return (self.special.sot,)
        code = language or next(iter(LANGUAGES))
        if code not in self.special.languages:
            raise OptionError(
                f"this model does not know {LANGUAGES[code]} ({code}); it knows {len(self.special.languages)} languages"
            )
        return (self.special.sot, self.special.languages[code], getattr(self.special, task))

    @cached_property
    def blank(self) -> tuple[int, ...]:
        """The ids of a lone space."""
        return (self._ids[b" "],)

    @cached_property
    def non_speech(self) -> tuple[int, ...]:
        """Ids of symbols that nobody speaks; a hyphen or an apostrophe counts at the beginning of a word only."""
        signs = (*_SIGNS, *_SIGN_GROUPS, *_MUSIC_SIGNS)
        texts = (" -", " '", *signs, *(" " + sign for sign in signs))
        encoded = dict(zip(texts, self._encode_short(texts), strict=True))
        found = {encoded[" -"][0], encoded[" '"][0]}
        for sign in signs:
            for ids in (encoded[sign], encoded[" " + sign]):
                if len(ids) == 1 or sign in _MUSIC_SIGNS:
                    found.add(ids[0])
        return tuple(sorted(found))

    def never_sampled(self, suppress: Sequence[int]) -> tuple[int, ...]:
        """Give the ids that `suppress_tokens` forbids at every position.

        suppress: ids, -1 for the non-speech set; empty switches everything off, special tokens included, as in the
        reference. Raises OptionError for an id outside the vocabulary.
        """
        if not suppress:
            return ()
        if (highest := max(suppress)) >= self.n_vocab:
            raise OptionError(f"suppress_tokens has id {highest}; this model has ids 0 to {self.n_vocab - 1}")
        ids = {one for one in suppress if one >= 0}
        if -1 in suppress:
            ids.update(self.non_speech)
        s = self.special
        ids.update((s.transcribe, s.translate, s.sot, s.sot_prev, s.sot_lm, s.no_speech))
        return tuple(sorted(ids))


def _text_of(token: bytes) -> str | None:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return None


def _encoding_of(ranks: dict[bytes, int]) -> tiktoken.Encoding:
    import tiktoken  # noqa: PLC0415 (importing stapes must stay quick)

    return tiktoken.Encoding(name="whisper", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})
