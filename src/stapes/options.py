"""Every option of a transcription: its type, unit, default and one line of help, written once.

Options come in frozen groups, checked when they are made. The command line's flags and the documentation are made
from the groups' fields; `TranscribeOptions.from_keywords` takes the keywords of openai/whisper's transcribe().
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from operator import index
from typing import Any, ClassVar, Literal, get_args

from stapes.errors import OptionError
from stapes.languages import language_code

Task = Literal["transcribe", "translate"]
Mode = Literal["sequential", "chunked"]
#: what a model can be computed in; only the first is exact (docs/native.md)
PRECISIONS = ("float32", "bfloat16", "int8")

#: far beyond what makes sense; above them numbers overflow
_HOTTEST, _MOST_PATIENCE = 1e6, 1e6
#: a ladder of temperatures: each is tried when the one before it failed
LADDER = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def option(default: Any, help_text: str, unit: str = "") -> Any:
    """Make a field that carries its help and its unit ("s", "tokens", "ids", "")."""
    return field(default=default, metadata={"help": help_text, "unit": unit})


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise OptionError(message)


def _number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> None:
    if value is None:
        return
    _require(
        isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high,
        f"{name} must be a number{_between(low, high)}, got {value!r}",
    )


def _between(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return ""
    return f" of at least {low:g}" if math.isinf(high) else f" from {low:g} to {high:g}"


def _whole(name: str, value: Any, low: int = 1) -> None:
    if value is not None:
        whole = isinstance(value, int) and not isinstance(value, bool)
        _require(whole and value >= low, f"{name} must be a whole number of at least {low}, got {value!r}")


def _flag(name: str, value: Any) -> None:
    _require(isinstance(value, bool), f"{name} must be True or False, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """What is spoken, and what is wanted of it."""

    task: Task = option(
        "transcribe", "transcribe: text in the spoken language; translate: text in English, whatever is spoken"
    )
    language: str | None = option(None, "spoken language, as a code or a name; None detects it from the first 30 s")

    def __post_init__(self) -> None:
        _require(self.task in get_args(Task), f"task must be 'transcribe' or 'translate', got {self.task!r}")
        if self.language is not None:
            _require(isinstance(self.language, str), f"language must be text or None, got {self.language!r}")
            language_code(self.language)

    @property
    def language_code(self) -> str | None:
        """The code of the language given, or None."""
        return None if self.language is None else language_code(self.language)


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy:
    """One row, always the most probable token."""

    temperature: ClassVar[float] = 0.0
    length_penalty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Rows that draw their tokens; the best by the ranking wins."""

    temperature: float
    n_rows: int = 1
    length_penalty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """Beam search: the best `size` rows go on (patience: arXiv:2204.05424)."""

    temperature: ClassVar[float] = 0.0
    size: int
    patience: float = 1.0
    length_penalty: float | None = None

    @property
    def max_finished(self) -> int:
        """The search ends when so many rows have finished."""
        return round(self.size * self.patience)


Strategy = Greedy | Sample | Beam


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How tokens are searched: greedy, beam search at temperature 0, sampling above it."""

    temperature: tuple[float, ...] = option(
        LADDER, "sampling temperature; several are tried in turn while a window fails the thresholds"
    )
    beam_size: int | None = option(None, "rows of the beam search at temperature 0; None searches greedily", "rows")
    patience: float | None = option(
        None, "the beam search ends when beam_size * patience rows have finished; None is 1.0 (arXiv:2204.05424)"
    )
    best_of: int | None = option(None, "samples at a temperature above 0, of which the best is kept", "rows")
    length_penalty: float | None = option(
        None, "exponent of the length penalty when rows are ranked (arXiv:1609.08144); None divides by the length"
    )
    seed: int = option(0, "seed of the sampling above temperature 0; a job's draws depend on nothing else")

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperature", _temperatures(self.temperature))
        _whole("beam_size", self.beam_size)
        _whole("best_of", self.best_of)
        _whole("seed", self.seed, low=0)
        _number("patience", self.patience, low=0, high=_MOST_PATIENCE)
        _number("length_penalty", self.length_penalty, low=0, high=1)
        if self.patience is not None and 0.0 in self.temperature:
            _require(self.beam_size is not None, "patience needs a beam search: give beam_size too")
        if self.beam_size is not None:
            beams = Beam(size=self.beam_size, patience=self.patience or 1.0)
            _require(
                beams.max_finished > 0,
                f"beam_size {self.beam_size} with patience {self.patience:g} ends before any row has finished"
                if self.patience
                else "",
            )

    @property
    def most_rows(self) -> int:
        """How many rows a try holds at most."""
        sampled = self.best_of or 1 if any(self.temperature) else 1
        return max(sampled, (self.beam_size or 1) if 0.0 in self.temperature else 1)

    def at(self, temperature: float) -> Strategy:
        """Give the strategy for one try: beams only at temperature 0, samples only above it."""
        if temperature > 0:
            return Sample(temperature=temperature, n_rows=self.best_of or 1, length_penalty=self.length_penalty)
        if self.beam_size is None:
            return Greedy(length_penalty=self.length_penalty)
        return Beam(size=self.beam_size, patience=self.patience or 1.0, length_penalty=self.length_penalty)


def _temperatures(value: Any) -> tuple[float, ...]:
    try:
        ladder = (value,) if isinstance(value, (int, float)) else tuple(value)
    except TypeError:
        raise OptionError(f"temperature must be a number or several, got {value!r}") from None
    _require(len(ladder) > 0, "temperature needs at least one value")
    for one in ladder:
        _require(one is not None, "temperature must be a number or several, got None among them")
        _number("temperature", one, low=0, high=_HOTTEST)
    return tuple(float(one) for one in ladder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which tokens may come when."""

    suppress_tokens: tuple[int, ...] = option(
        (-1,), "ids that are never chosen; -1 stands for symbols that nobody speaks; empty switches this off", "ids"
    )
    suppress_blank: bool = option(True, "forbid a window to begin with a blank or to be empty")
    without_timestamps: bool = option(False, "decode text without timestamps: one segment per window")
    max_initial_timestamp: float | None = option(1.0, "latest start of a window's first segment; None: any", "s")
    sample_len: int | None = option(None, "most tokens decoded per window; None: half the context, 224", "tokens")

    def __post_init__(self) -> None:
        object.__setattr__(self, "suppress_tokens", _token_ids(self.suppress_tokens))
        _flag("suppress_blank", self.suppress_blank)
        _flag("without_timestamps", self.without_timestamps)
        _number("max_initial_timestamp", self.max_initial_timestamp, low=0, high=30)
        _whole("sample_len", self.sample_len, low=0)


def _token_ids(value: Any) -> tuple[int, ...]:
    """Read "-1", "1,2,3", an iterable of ids, "" or None (both: nothing is suppressed)."""
    if value is None:
        return ()
    try:
        parts = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else list(value)
        ids = tuple(int(part) if isinstance(part, str) else index(part) for part in parts)
    except (TypeError, ValueError):
        raise OptionError(f"suppress_tokens must be ids such as '-1' or '50,1234', got {value!r}") from None
    _require(all(one >= -1 for one in ids), f"suppress_tokens has an id below -1: {value!r}")
    return ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a window is told of the text before it."""

    condition_on_previous_text: bool = option(
        True, "give each window the text before it; off: less consistent, but a loop cannot spread"
    )
    initial_prompt: str | None = option(None, "text before the recording: names, jargon, style")
    carry_initial_prompt: bool = option(False, "put initial_prompt before every window, not only before the first")
    prefix: str | None = option(None, "text that every window begins with; it is not part of the result")

    def __post_init__(self) -> None:
        _flag("condition_on_previous_text", self.condition_on_previous_text)
        _flag("carry_initial_prompt", self.carry_initial_prompt)
        for name in ("initial_prompt", "prefix"):
            value = getattr(self, name)
            _require(value is None or isinstance(value, str), f"{name} must be text or None, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When a window is decoded again at a higher temperature, and when it is taken for silence."""

    compression_ratio_threshold: float | None = option(
        2.4, "decode again if the text compresses better than this: it repeats itself"
    )
    logprob_threshold: float | None = option(
        -1.0, "decode again if the average log-probability of the tokens is below this"
    )
    no_speech_threshold: float | None = option(
        0.6, "take a window for silence if its no-speech probability exceeds this and logprob_threshold failed too"
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            _number(item.name, getattr(self, item.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a recording is gone through."""

    mode: Mode = option(
        "sequential",
        "sequential: the reference's way, each window knows the text before it; chunked: cut at pauses into chunks "
        "that are decoded side by side, none knowing another's text",
    )

    def __post_init__(self) -> None:
        _require(self.mode in get_args(Mode), f"mode must be 'sequential' or 'chunked', got {self.mode!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """Which stretches of the recording are decoded."""

    clip_timestamps: tuple[float, ...] = option(
        (0.0,), "start,end,start,end,... of the stretches to decode; a last start without end runs to the end", "s"
    )

    def __post_init__(self) -> None:
        times = _times(self.clip_timestamps)
        object.__setattr__(self, "clip_timestamps", times)
        for start, end in zip(times[::2], times[1::2], strict=False):
            _require(start <= end, f"clip_timestamps: the clip {start:g}-{end:g} s ends before it starts")


def _times(value: Any) -> tuple[float, ...]:
    """Read "2.5,20,31" or an iterable of seconds."""
    try:
        parts = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else list(value)
        times = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        raise OptionError(f"clip_timestamps must be seconds such as '0,30.5', got {value!r}") from None
    _require(
        all(math.isfinite(time) and time >= 0 for time in times),
        f"clip_timestamps must be finite and not negative, got {value!r}",
    )
    return times


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """When each word was spoken."""

    word_timestamps: bool = option(False, "find the time of every word, and place segments and windows by them")
    prepend_punctuations: str = option("\"'“¿([{-", "marks that join the word after them")
    append_punctuations: str = option("\"'.。,，!！?？:：”)]}、", "marks that join the word before them")
    hallucination_silence_threshold: float | None = option(
        None, "with word times: skip a silence longer than this where text seems invented", "s"
    )

    def __post_init__(self) -> None:
        _flag("word_timestamps", self.word_timestamps)
        for name in ("prepend_punctuations", "append_punctuations"):
            value = getattr(self, name)
            _require(isinstance(value, str), f"{name} must be text, got {value!r}")
        _number("hallucination_silence_threshold", self.hallucination_silence_threshold, low=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscribeOptions:
    """All options of one transcription; defaults are those of openai/whisper's transcribe()."""

    speech: Speech = field(default_factory=Speech)
    search: Search = field(default_factory=Search)
    rules: Rules = field(default_factory=Rules)
    context: Context = field(default_factory=Context)
    thresholds: Thresholds = field(default_factory=Thresholds)
    clips: Clips = field(default_factory=Clips)
    words: Words = field(default_factory=Words)
    method: Method = field(default_factory=Method)

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> TranscribeOptions:
        """Build the groups from flat keywords, as whisper.transcribe() takes them.

        Raises OptionError for an unknown keyword or a value that cannot be.
        """
        left = dict(keywords)
        groups = {
            name: group(**{item.name: left.pop(item.name) for item in fields(group) if item.name in left})
            for name, group in GROUPS.items()
        }
        if left:
            raise OptionError(_unknown(next(iter(left))))
        return cls(**groups)


#: name in TranscribeOptions -> class of the group, in the order of the help page
GROUPS: dict[str, Any] = {
    "speech": Speech,
    "search": Search,
    "rules": Rules,
    "context": Context,
    "thresholds": Thresholds,
    "clips": Clips,
    "words": Words,
    "method": Method,
}

#: What `whisper.transcribe()` has and the window loop sets itself.
_SET_BY_LOOP = {"prompt": "the prompt of each window is made by the loop; give initial_prompt instead"}


def option_fields() -> Iterable[tuple[str, Field[Any]]]:
    """Give (group, field) for every option, for whoever makes flags or documentation of them."""
    for name, group in GROUPS.items():
        for item in fields(group):
            yield name, item


def default_of(name: str) -> Any:
    """Give an option's default."""
    for _, item in option_fields():
        if item.name == name and item.default is not MISSING:
            return item.default
    raise KeyError(name)


def _unknown(name: str) -> str:
    if name in _SET_BY_LOOP:
        return f"{name}: {_SET_BY_LOOP[name]}"
    from difflib import get_close_matches  # noqa: PLC0415 (only on this path)

    close = get_close_matches(name, [item.name for _, item in option_fields()], n=1)
    return f"unknown option {name!r}" + (f"; did you mean {close[0]!r}?" if close else "; see stapes --help")


#: What the `stapes` command sets otherwise than the library, as the `whisper` command does.
COMMAND_PRESET: Mapping[str, Any] = {"beam_size": 5, "best_of": 5}
