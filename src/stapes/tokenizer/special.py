"""Which id each special token has: what the checkpoint states, else the layout of the published models.

Source of the layout: openai/whisper tokenizer.py at c0d2f62: after the ordinary tokens come end-of-text,
start-of-transcript, the languages, translate, transcribe, start-of-lm, start-of-prev, no-speech, no-timestamps,
and one timestamp for each encoder position and the end.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from stapes.errors import CheckpointError
from stapes.languages import LANGUAGES, code_of_token, language_token

#: special tokens of the layout that are neither languages nor timestamps
BEFORE_LANGUAGES = ("<|endoftext|>", "<|startoftranscript|>")
AFTER_LANGUAGES = (
    "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip
#: name in older files -> name; tokenizers of English-only models have Hebrew under its old code
_OLD_NAMES = {"<|nocaptions|>": "<|nospeech|>", "<|iw|>": "<|he|>"}
#: tokens without which nothing can be decoded
_NEEDED = ("<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|nospeech|>")
#: timestamps of the published models: every 20 ms of 30 s, both ends included
_PUBLISHED_TIMESTAMPS = 1501
#: where ids can be had that a checkpoint does not state
WAY_OUT = "use the model's Hugging Face folder, with its tokenizer.json and generation_config.json"
_TIMESTAMP = re.compile(r"<\|(\d{1,4}\.\d\d)\|>")
_NAME = re.compile(r"<\|(.+)\|>", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialIds:
    """The ids that decoding rules need. None: the model has no such token.

    The `n_timestamps` ids from `timestamp_begin` on are timestamps, 20 ms apart; a model without timestamps has none.
    """

    eot: int
    sot: int
    translate: int | None
    transcribe: int | None
    sot_lm: int | None
    sot_prev: int
    no_speech: int
    no_timestamps: int | None
    timestamp_begin: int
    n_timestamps: int
    languages: Mapping[str, int]  # code -> id, in the order of the ids

    @property
    def timestamp_end(self) -> int:
        """The id after the last timestamp."""
        return self.timestamp_begin + self.n_timestamps

    @property
    def names(self) -> dict[int, str]:
        """Every special token's name by its id."""
        fields = ("eot", "sot", "translate", "transcribe", "sot_lm", "sot_prev", "no_speech", "no_timestamps")
        named = zip(map(self.__getattribute__, fields), (*BEFORE_LANGUAGES, *AFTER_LANGUAGES), strict=True)
        return {
            **{one: name for one, name in named if one is not None},
            **{one: language_token(code) for code, one in self.languages.items()},
            **{self.timestamp_begin + i: _timestamp_name(i) for i in range(self.n_timestamps)},
        }


def _timestamp_name(position: int) -> str:
    """Return the name of the timestamp at a position of 20 ms: "<|1.08|>"."""
    return f"<|{position * 0.02:.2f}|>"


def by_present_name(ids: Mapping[str, int], kept: Collection[str]) -> dict[str, int]:
    """Return ids by the tokens' present names, where no token has that name.
    kept: names that stay as they are: a file lists them as languages.
    """
    old = {name: new for name, new in _OLD_NAMES.items() if new not in ids and name not in kept}
    return {old.get(name, name): one for name, one in ids.items()}


def layout(n_ordinary: int, n_languages: int) -> dict[str, int]:
    """Return the ids of all special tokens but timestamps, in the layout of the published models."""
    languages = map(language_token, list(LANGUAGES)[:n_languages])
    return {name: n_ordinary + i for i, name in enumerate([*BEFORE_LANGUAGES, *languages, *AFTER_LANGUAGES])}


def layout_with_timestamps(n_ordinary: int, n_languages: int) -> dict[str, int]:
    """Return the ids of all special tokens of the published models."""
    ids = layout(n_ordinary, n_languages)
    begin = n_ordinary + len(ids)
    return ids | {_timestamp_name(i): begin + i for i in range(_PUBLISHED_TIMESTAMPS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedIds:
    """What is known of special ids, and the sizes that they must fit.

    ids: by name, as the checkpoint states them, or in the layout of a published model.
    languages: names of the tokens that are languages; None: found by their names and places.
    """

    ids: Mapping[str, int]
    languages: tuple[str, ...] | None
    multilingual: bool
    n_ordinary: int
    n_vocab: int
    most_timestamps: int
    unpublished: str  # why a published model does not supply what is not stated, for errors
    source: str  # the checkpoint, for errors

    def resolve(self) -> SpecialIds:
        """Find the ids. Raises CheckpointError if one is missing, outside the vocabulary, or stands for two tokens."""
        ids = self._with_neighbours()
        languages = self._languages(ids)
        missing = [name for name in (*_NEEDED, *["<|transcribe|>"] * self.multilingual) if name not in ids]
        if self.multilingual and not languages:
            missing.append("the languages")
        if missing:
            raise CheckpointError(
                f"{self.source}: does not state the ids of {', '.join(missing)}, and {self.unpublished}; {WAY_OUT}"
            )
        roles = {name: ids[name] for name in (*BEFORE_LANGUAGES, *AFTER_LANGUAGES) if name in ids}
        self._check([*roles.items(), *((language_token(code), one) for code, one in languages.items())])
        begin, count = self._timestamps(ids, roles)
        self._check_order(ids, roles, begin)
        return SpecialIds(
            eot=ids["<|endoftext|>"],
            sot=ids["<|startoftranscript|>"],
            translate=ids.get("<|translate|>"),
            transcribe=ids.get("<|transcribe|>"),
            sot_lm=ids.get("<|startoflm|>"),
            sot_prev=ids["<|startofprev|>"],
            no_speech=ids["<|nospeech|>"],
            no_timestamps=ids.get("<|notimestamps|>"),
            timestamp_begin=begin,
            n_timestamps=count,
            languages=dict(sorted(languages.items(), key=lambda item: item[1])),
        )

    def _with_neighbours(self) -> dict[str, int]:
        """Fill in tokens that no file names: in every Whisper they are in one order before no-timestamps.
        transformers finds no-speech so too (v5.0.0, models/whisper/generation_whisper.py).
        """
        ids = dict(self.ids)
        if (last := ids.get("<|notimestamps|>")) is not None:
            taken = set(ids.values())
            for one, name in enumerate(AFTER_LANGUAGES, last - len(AFTER_LANGUAGES) + 1):
                if name not in ids and one >= self.n_ordinary and one not in taken:
                    ids[name] = one
        return ids

    def _languages(self, ids: Mapping[str, int]) -> dict[str, int]:
        """Return the languages by code: the listed ones, else those of known codes and all before the tasks."""
        codes = {code: ids[name] for name in ids if (code := code_of_token(name))}
        if self.languages is not None:
            return {code: one for code, one in codes.items() if language_token(code) in self.languages}
        first = ids.get("<|startoftranscript|>", self.n_vocab)
        stop = min((ids[name] for name in AFTER_LANGUAGES if ids.get(name, -1) > first), default=0)
        return {code: one for code, one in codes.items() if code in LANGUAGES or first < one < stop}

    def _check(self, named: Iterable[tuple[str, int]]) -> None:
        found: dict[int, str] = {}
        for name, one in named:
            if not 0 <= one < self.n_vocab:
                raise CheckpointError(f"{self.source}: {name} has id {one}; the model has ids 0 to {self.n_vocab - 1}")
            if one < self.n_ordinary:
                raise CheckpointError(f"{self.source}: {name} has id {one}, which is a token of text")
            if found.setdefault(one, name) != name:
                raise CheckpointError(f"{self.source}: {found[one]} and {name} share one id, {one}")

    def _timestamps(self, ids: Mapping[str, int], roles: Mapping[str, int]) -> tuple[int, int]:
        """Return the first timestamp's id and how many there are; none where there are other tokens or nothing."""
        named = {round(float(match[1]) / 0.02): ids[name] for name in ids if (match := _TIMESTAMP.fullmatch(name))}
        named = {i: one for i, one in named.items() if i < self.most_timestamps}
        stated = {i: one for i, one in named.items() if one < self.n_vocab}
        if 0 < len(stated) < len(named):
            raise CheckpointError(
                f"{self.source}: timestamps are named up to id {max(named.values())}, and the model has ids 0 to "
                f"{self.n_vocab - 1}; the tokenizer is another model's: fetch all files again"
            )
        no_timestamps = ids.get("<|notimestamps|>")
        begin = stated.get(0, max(roles.values()) + 1 if no_timestamps is None else no_timestamps + 1)
        if no_timestamps is not None and begin != no_timestamps + 1:
            raise CheckpointError(
                f"{self.source}: the first timestamp, <|0.00|>, has id {begin}, and <|notimestamps|> has id "
                f"{no_timestamps}; in every Whisper the one follows the other"
            )
        for i, one in stated.items():
            if one != begin + i:
                raise CheckpointError(
                    f"{self.source}: {_timestamp_name(i)} has id {one}; counted from <|0.00|>, it must be {begin + i}"
                )
        if stated:
            return begin, next(i for i in range(self.most_timestamps + 1) if i not in stated)
        others = any(begin <= one < begin + self.most_timestamps for one in ids.values())
        fits = no_timestamps is not None and begin + self.most_timestamps <= self.n_vocab
        return begin, self.most_timestamps if fits and not others else 0

    def _check_order(self, ids: Mapping[str, int], roles: Mapping[str, int], begin: int) -> None:
        """Raise CheckpointError for an order of ids that does not separate text from other tokens."""
        if ids["<|endoftext|>"] >= begin:
            raise CheckpointError(
                f"{self.source}: <|endoftext|> has id {ids['<|endoftext|>']}, above the first timestamp, {begin}; in "
                "every Whisper it comes before"
            )
        for name, one in ids.items():
            if one < max(roles.values()) and not _NAME.fullmatch(name):
                raise CheckpointError(
                    f"{self.source}: token {name!r:.60}, which is text, has id {one} among the special tokens; stapes "
                    "reads vocabularies whose tokens of text come first, as in every published Whisper"
                )
