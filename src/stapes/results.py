"""Results: words, segments, transcripts, and the decisions. Frozen; times in seconds."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from stapes.errors import OptionError
from stapes.runtime.hints import Hints

#: characters of a text in a sentence or a representation of it
_MOST_SHOWN: Final = 60


class _Result(Hints):
    """Base class: errors for dict access and other programs' names say the names here."""

    __slots__ = ()
    #: what to take instead of unpacking it, or of asking for its first part
    _parts: ClassVar[str] = ".text"

    if not TYPE_CHECKING:  # to a type checker they stay errors

        def __getitem__(self, name: object) -> NoReturn:
            kind = type(self).__name__
            if isinstance(name, (int, slice)):  # Python asks for 0 to unpack it, or to go through it
                raise TypeError(f"a {kind} is one object and has no parts by number: take {self._parts} of it")
            names = [item.name for item in fields(self)]
            if name in self._others:
                instead = self._hint(name)
            else:
                instead = f"take .{name} instead" if name in names else f"it has .{', .'.join(names)}"
            as_dict = "; .to_dict() is openai/whisper's dict" if hasattr(self, "to_dict") else ""
            raise TypeError(f"a {kind} is no dict: {instead}{as_dict}")


class _Brief(_Result):
    """Represented in one short line: texts cut, collections as their lengths, without what has its default."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = []
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if isinstance(value, (tuple, dict)) and value:
                shown.append(f"{item.name}: {len(value)}")
            elif value not in (item.default, ()):
                shown.append(f"{item.name}={_shown(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


def _shown(value: object) -> str:
    """Represent a value, a text by its beginning, a number by three decimals."""
    if isinstance(value, str) and len(value) > _MOST_SHOWN:
        return repr(value[:_MOST_SHOWN].rstrip() + "...")
    return repr(round(value, 3) + 0.0 if isinstance(value, float) else value)  # -0.0 is 0.0


#: methods of dicts and named tuples, of those who read results as such
_AS_DICT = dict.fromkeys(("get", "keys", "values", "items", "_asdict", "model_dump", "dict"), "to_dict()")


@dataclass(frozen=True, slots=True, kw_only=True)
class Word(_Result):
    """One word with its time."""

    _others: ClassVar[Mapping[str, str]] = {
        "word": "text",
        "start": "start_s",
        "end": "end_s",
        "score": "probability",
        **_AS_DICT,
    }

    text: str  # with its leading space and punctuation
    start_s: float
    end_s: float
    probability: float  # mean over its tokens, 0 to 1

    def to_dict(self) -> dict[str, Any]:
        """Return the entry that openai/whisper puts into a segment's `words`."""
        return {"word": self.text, "start": self.start_s, "end": self.end_s, "probability": self.probability}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob(_Result):
    """One token of text with its log-probability."""

    _others: ClassVar[Mapping[str, str]] = {"token": "id", **_AS_DICT}

    id: int
    logprob: float  # natural logarithm, under the decoding rules; not divided by a temperature
    bytes: builtins.bytes  # UTF-8; a token may hold part of a character

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"id": self.id, "logprob": self.logprob, "bytes": list(self.bytes)}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Segment(_Brief):
    """A stretch of speech between two timestamps.

    A segment without text or duration stays in the result with empty `text` and `tokens`, as in the
    reference.
    """

    _others: ClassVar[Mapping[str, str]] = {"start": "start_s", "end": "end_s", **_AS_DICT}

    id: int  # 0, 1, 2, ... in one recording
    seek: int  # where its window began, in frames of 10 ms
    start_s: float
    end_s: float
    text: str  # with its leading space
    tokens: tuple[int, ...]  # timestamps included
    temperature: float  # of the try that was kept
    avg_logprob: float  # of the whole window
    compression_ratio: float  # of the whole window's text
    no_speech_prob: float  # of the whole window
    words: tuple[Word, ...] | None = None  # None: word times were not asked for
    #: of its tokens of text; their bytes, joined and decoded, are `text`. None: not asked for
    token_logprobs: tuple[TokenLogprob, ...] | None = None
    language: str | None = None  # code; None: that of the transcript
    flags: tuple[str, ...] = ()  # guards that dropped or changed something beside it (docs/guards.md)

    def to_dict(self) -> dict[str, Any]:
        """Return the segment with openai/whisper's keys, in its order; other keys only where there are any."""
        values: dict[str, Any] = {
            "id": self.id,
            "seek": self.seek,
            "start": self.start_s,
            "end": self.end_s,
            "text": self.text,
            "tokens": list(self.tokens),
            "temperature": self.temperature,
            "avg_logprob": self.avg_logprob,
            "compression_ratio": self.compression_ratio,
            "no_speech_prob": self.no_speech_prob,
        }
        if self.words is not None:
            values["words"] = [word.to_dict() for word in self.words]
        if self.token_logprobs is not None:
            values["token_logprobs"] = [one.to_dict() for one in self.token_logprobs]
        if self.language is not None:
            values["language"] = self.language
        if self.flags:
            values["flags"] = list(self.flags)
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """An action of a guard: what, where, and why (docs/guards.md)."""

    guard: str  # "silence", "tail", "pause", "loop" or "speech"
    start_s: float
    end_s: float
    reason: str
    text: str = ""  # what was dropped

    def __str__(self) -> str:
        """Return a sentence on it, without a full stop."""
        place = f"{self.start_s:.1f}-{self.end_s:.1f} s"
        if self.guard == "speech":
            return f"{place}: goes back, as {self.reason}"
        if self.guard == "pause":
            return f"{place}: decoded again without it, as {self.reason}"
        return (
            f"{place}: dropped {_shown(self.text)}: {self.reason}" if self.text else f"{place}: left out: {self.reason}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"guard": self.guard, "start": self.start_s, "end": self.end_s, "reason": self.reason, "text": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One decoding of a window at one temperature."""

    temperature: float
    avg_logprob: float
    compression_ratio: float
    refused: str | None  # why a try at a higher temperature was needed; None: accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class WordTiming:
    """The time of a word in its window, from attention, before any rule has changed it."""

    text: str  # with its leading space; punctuation stands alone
    tokens: tuple[int, ...]
    start_s: float  # from the window's start
    end_s: float
    probability: float  # mean over its tokens


@dataclass(frozen=True, slots=True)
class Alignment:
    """The times of a window's words."""

    words: tuple[WordTiming, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class WindowResult(_Brief):
    """The result of decoding one window: the last try's values."""

    tokens: tuple[int, ...]  # sampled tokens, without end-of-text
    text: str  # stripped
    avg_logprob: float
    no_speech_prob: float
    temperature: float
    compression_ratio: float
    tries: tuple[Try, ...] = ()
    timings: tuple[WordTiming, ...] | None = None  # None: word times were not asked for, or not yet
    token_logprobs: tuple[float, ...] | None = None  # one for each of `tokens`; None: not asked for


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Window(_Brief):
    """One step of the seek loop: the decoded stretch, and its outcome."""

    seek: int  # first frame, 10 ms each
    n_frames: int  # content frames in the window, at most 3000
    next_seek: int  # where the loop went on
    skipped: bool  # no segment: taken for silence, or its text for invented, or it was decoded again
    result: WindowResult
    left_out: tuple[tuple[int, int], ...] = ()  # frames of pauses inside it that were not decoded, half-open
    #: frames of what was decoded, from its first one on, with speech: quiet speech was amplified
    voices: tuple[tuple[int, int], ...] = ()  # none: no gain (docs/languages.md, docs/guards.md)
    encoded_frames: int | None = None  # with what follows the content; None: 3000

    @property
    def decoded_again(self) -> bool:
        """Whether it was decoded again, as the next window: without its long pauses, without its prompt, or in full."""
        return self.skipped and self.next_seek == self.seek

    @property
    def end(self) -> int:
        """The first frame after it."""
        return self.seek + self.n_frames + sum(end - first for first, end in self.left_out)

    @property
    def frames(self) -> tuple[tuple[int, int], ...]:
        """What was decoded, in frames: half-open stretches."""
        edges = (self.seek, *(frame for pause in self.left_out for frame in pause), self.end)
        return tuple(zip(edges[::2], edges[1::2], strict=True))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LanguageGuess(_Brief):
    """Which language is spoken, with every candidate's probability, most probable first."""

    _others: ClassVar[Mapping[str, str]] = {"language_probability": "probability"}
    _parts = ".language, .probability and .probabilities"

    language: str  # code
    probabilities: dict[str, float]

    def __repr__(self) -> str:
        probability = _shown(self.probabilities.get(self.language))
        return f"LanguageGuess(language={self.language!r}, probability={probability} of {len(self.probabilities)})"

    @property
    def probability(self) -> float:
        """The probability of the language that was taken."""
        return self.probabilities[self.language]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedWindow(_Result):
    """What decoding one window alone gave."""

    _others: ClassVar[Mapping[str, str]] = {
        "language_probs": "language_guess.probabilities",
        **{name: f"result.{name}" for name in ("tokens", "text", "avg_logprob", "no_speech_prob", "temperature")},
        "compression_ratio": "result.compression_ratio",
    }
    _parts = ".result and .language"

    result: WindowResult
    language: str  # code: as given or detected
    language_guess: LanguageGuess | None = None  # None: given, or the model's only one


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Transcript(_Brief):
    """A whole recording's text."""

    _others: ClassVar[Mapping[str, str]] = {
        "duration": "duration_s",
        "language_probability": "language_guess.probability",
        "all_language_probs": "language_guess.probabilities",
        "chunks": "segments",
        "word_segments": "segments",
        **{name: f"stapes.output.{name}(transcript)" for name in ("to_txt", "to_srt", "to_vtt", "to_tsv", "to_json")},
        **dict.fromkeys(("save", "write", "to_file"), "stapes.output.write_files(transcript, ...)"),
        **_AS_DICT,
    }
    _parts = ".segments, .language and .duration_s"

    text: str
    segments: tuple[Segment, ...]
    language: str  # code: as given or detected
    duration_s: float  # of the recording
    language_as_given: str | None = None  # what the caller wrote ("English"); None: nothing
    language_guess: LanguageGuess | None = None  # None: given, the model's only one, or each segment's
    windows: tuple[Window, ...] = ()
    warnings: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()  # what the guards did, in the recording's order

    def to_dict(self) -> dict[str, Any]:
        """Return the dict that openai/whisper's transcribe() returns, key for key; flags only where there are any."""
        values: dict[str, Any] = {
            "text": self.text,
            "segments": [segment.to_dict() for segment in self.segments],
            "language": self.language_as_given or self.language,
        }
        if self.flags:
            values["flags"] = [flag.to_dict() for flag in self.flags]
        return values


def checked(transcript: Any) -> Transcript:
    """Return a transcript. Raises OptionError for anything else, such as the dict of openai/whisper."""
    if not isinstance(transcript, Transcript):
        instead = "; leave .to_dict() out" if isinstance(transcript, Mapping) else ""
        raise OptionError(
            f"transcript must be the Transcript that transcribe() returns, got {type(transcript).__name__}{instead}"
        )
    return transcript
