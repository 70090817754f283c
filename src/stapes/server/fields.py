"""The fields of a form -> what is wanted: `AudioRequest`. Pure; raises ApiError with OpenAI's status and codes.

OpenAI's fields are in `FIELDS`, ours are the options of `stapes.options` under their own names. The OpenAPI document is
made from both. Names may have OpenAI's brackets (`include[]`) or not, lists may be repeated, the order is free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from stapes.errors import OptionError
from stapes.options import GROUPS, TranscribeOptions, option_fields, unknown_option
from stapes.options.texts import NotReadError, number, reader_of, whole
from stapes.server.errors import ApiError, invalid_value, unknown_parameter

Endpoint = Literal["transcriptions", "translations"]
FORMATS: Final = ("json", "text", "srt", "verbose_json", "vtt")
STREAMED_FORMATS: Final = ("json", "text")
GRANULARITIES: Final = ("word", "segment")

#: bounds on options: each multiplies the work of a window, or what is kept of a recording
MAX_ROWS, MAX_TEMPERATURES, MAX_CLIPS, MAX_PATIENCE = 8, 6, 1000, 8.0
MAX_PRIORITY: Final = 1_000_000  # and as much below 0; the file of jobs takes 64 bits
MAX_TEXT_BYTES: Final = 4096
#: options that no request may set: an expression of a client's runs over every token
_WITHHELD: Final = frozenset({"suppress_regex"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One of OpenAI's fields."""

    text: str  # for the document
    is_list: bool = False
    endpoints: tuple[Endpoint, ...] = ("transcriptions", "translations")
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


_TRANSCRIPTIONS: Final[tuple[Endpoint, ...]] = ("transcriptions",)
_STRINGS: Final = {"type": "array", "items": {"type": "string"}}
FIELDS: Final[Mapping[str, Field]] = {
    "file": Field(text="The recording, of any usual format.", schema={"type": "string", "contentMediaType": "audio/*"}),
    "model": Field(text="A served model, or one of its other names."),
    "prompt": Field(text="Text before the recording: names, jargon, style. The option initial_prompt."),
    "response_format": Field(text="The answer's form.", schema={"type": "string", "enum": list(FORMATS)}),
    "temperature": Field(
        text="0 rises where a text is refused, as OpenAI's does; above 0 it is fixed; several, with commas, are tried "
        "in turn.",
        schema={"type": "string"},
    ),
    "include": Field(
        text="logprobs: log-probabilities of the tokens, with json.",
        is_list=True,
        endpoints=_TRANSCRIPTIONS,
        schema={"type": "array", "items": {"type": "string", "enum": ["logprobs"]}},
    ),
    "keywords": Field(
        text="Words to be recognised. The option hotwords.", is_list=True, endpoints=_TRANSCRIPTIONS, schema=_STRINGS
    ),
    "timestamp_granularities": Field(
        text="What verbose_json has times of.",
        is_list=True,
        endpoints=_TRANSCRIPTIONS,
        schema={"type": "array", "items": {"type": "string", "enum": list(GRANULARITIES)}},
    ),
    "stream": Field(text="Send events as segments are decoded.", endpoints=_TRANSCRIPTIONS, schema={"type": "boolean"}),
    "chunking_strategy": Field(
        text='"auto", or {"type": "server_vad", ...}: decode only what the voice activity detection finds.',
        endpoints=_TRANSCRIPTIONS,
    ),
    "known_speaker_names": Field(
        text="Not supported: there are no speaker labels.", is_list=True, endpoints=_TRANSCRIPTIONS, schema=_STRINGS
    ),
    "known_speaker_references": Field(
        text="Not supported: there are no speaker labels.", is_list=True, endpoints=_TRANSCRIPTIONS, schema=_STRINGS
    ),
    "priority": Field(
        text="Keys of administrators: higher goes first among requests of one class.",
        schema={"type": "integer", "minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY},
    ),
    "deadline_s": Field(text="Keys of administrators: fail after so many seconds.", schema={"type": "number"}),
}
#: our option -> its type; `temperature` is OpenAI's field too
OPTIONS: Final[Mapping[str, Any]] = {
    item.name: get_type_hints(GROUPS[group])[item.name]
    for group, item in option_fields()
    if item.name not in _WITHHELD and item.name != "temperature"
}
#: OpenAI's field -> our option of the same meaning
_SAME: Final = {"prompt": "initial_prompt", "keywords": "hotwords"}
#: options that hold several values: given once, with commas, or again and again
_LISTS: Final = frozenset(
    {"temperature"}
    | {
        name
        for name, kind in OPTIONS.items()
        if get_origin(kind) is tuple or any(get_origin(one) is tuple for one in get_args(kind))
    }
)
#: key of a VadConfig -> our option
_VAD: Final = {
    "threshold": "vad_threshold",
    "prefix_padding_ms": "vad_speech_pad_ms",
    "silence_duration_ms": "vad_min_silence_duration_ms",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioRequest:
    """What a request asks for, checked."""

    endpoint: Endpoint
    model: str
    response_format: str = "json"
    stream: bool = False
    words: bool = False  # in verbose_json
    segments: bool = True  # in verbose_json
    logprobs: bool = False
    options: TranscribeOptions = field(default_factory=TranscribeOptions)
    priority: int = 0
    deadline_s: float | None = None


def audio_request(fields: Sequence[tuple[str, str]], endpoint: Endpoint, *, is_admin: bool) -> AudioRequest:
    """Read the fields of a form, the file's excepted. is_admin: whether priority and deadline_s are allowed.

    Raises ApiError 400 or 403.
    """
    given = _Given(fields, endpoint)
    for name in ("known_speaker_names", "known_speaker_references"):
        if name in given.values:
            raise invalid_value(name, "This server has no speaker labels; leave it out.")
    model = given.one("model")
    if not model:
        raise ApiError(400, "Missing required parameter: 'model'.", param="model", code="missing_required_parameter")
    response_format = _response_format(given.one("response_format") or "json")
    stream = bool(given.read("stream", _boolean_or_null))
    if stream and response_format not in STREAMED_FORMATS:
        raise invalid_value("stream", f"stream goes with {' and '.join(STREAMED_FORMATS)}, not with {response_format}.")
    granularities = _granularities(given.many("timestamp_granularities"), response_format)
    logprobs = _logprobs(given.many("include"), response_format)
    keywords = _keywords(given)
    if endpoint == "translations":
        keywords["task"] = "translate"
    if "word" in granularities:
        _set(keywords, "word_timestamps", True, "timestamp_granularities")
    if logprobs:
        _set(keywords, "token_logprobs", True, "include")
    priority, deadline_s = _for_admins(given, is_admin=is_admin)
    return AudioRequest(
        endpoint=endpoint,
        model=model,
        response_format=response_format,
        stream=stream,
        words="word" in granularities,
        segments="segment" in granularities,
        logprobs=logprobs,
        options=_options(keywords),
        priority=priority,
        deadline_s=deadline_s,
    )


class _Given:
    """The fields of a form by name, without brackets."""

    def __init__(self, fields: Sequence[tuple[str, str]], endpoint: Endpoint) -> None:
        self.values: dict[str, list[str]] = {}
        self.vad: dict[str, str] = {}  # chunking_strategy[type]=server_vad
        for name, value in fields:
            if len(value.encode()) > MAX_TEXT_BYTES:
                raise invalid_value(_shown(name), f"'{_shown(name)}' is longer than {MAX_TEXT_BYTES} bytes.")
            if "\0" in value:
                raise invalid_value(_shown(name), f"'{_shown(name)}' has a NUL in it.")
            self._take(name, value, endpoint)

    def _take(self, name: str, value: str, endpoint: Endpoint) -> None:
        plain = name.removesuffix("[]")
        known = FIELDS.get(plain)
        if endpoint == "transcriptions" and plain.startswith("chunking_strategy[") and plain.endswith("]"):
            key = plain.removeprefix("chunking_strategy[")[:-1]
            if key in self.vad:
                raise _repeated(plain)
            self.vad[key] = value
            return
        if (known is None or endpoint not in known.endpoints) and plain not in OPTIONS:
            raise unknown_parameter(_shown(name), _hint(plain))
        if plain == "task" and endpoint == "translations":
            raise invalid_value("task", "This path translates; leave task out.")
        is_list = (known is not None and known.is_list) or plain in _LISTS
        if plain in self.values and not is_list:
            raise _repeated(plain)
        self.values.setdefault(plain, []).append(value)

    def one(self, name: str) -> str | None:
        """Return a field's value, or None; of a list that is one text, its items with commas."""
        return ",".join(self.values[name]) if name in self.values else None

    def many(self, name: str) -> list[str]:
        """Return the values of a list."""
        return self.values.get(name, [])

    def read(self, name: str, read: Callable[[str], Any]) -> Any:
        """Return a field's value as `read` gives it, or None."""
        text = self.one(name)
        if text is None:
            return None
        try:
            return read(text)
        except NotReadError as error:
            raise invalid_value(name, f"{name}: {error}.") from None


def _keywords(given: _Given) -> dict[str, Any]:
    """Return the options that a form sets."""
    found = {name: given.read(name, reader_of(name, OPTIONS[name])[0]) for name in given.values if name in OPTIONS}
    for theirs, ours in _SAME.items():
        if theirs in given.values and ours in given.values:
            raise invalid_value(theirs, f"{theirs} and {ours} are the same; give one of them.")
    if prompt := given.one("prompt"):
        found["initial_prompt"] = prompt
    if words := given.many("keywords"):
        found["hotwords"] = ", ".join(map(_keyword, words))
    if found.get("language") == "":  # of forms that send every field
        del found["language"]
    if found.get("language") is not None and found.get("languages") is not None:
        raise invalid_value("languages", "language and languages exclude each other; give one of them.")
    temperatures = _temperatures(given.one("temperature") or "0")
    if temperatures != (0.0,):
        found["temperature"] = temperatures
    for name, value in _vad_options(given).items():
        _set(found, name, value, "chunking_strategy")
    return found


def _set(keywords: dict[str, Any], name: str, value: Any, field_name: str) -> None:
    """Set the option that a field of OpenAI's stands for. Raises ApiError if the form sets it to another value."""
    if keywords.setdefault(name, value) != value:
        raise invalid_value(field_name, f"{field_name} and {name} contradict each other; give one of them.")


def _keyword(word: str) -> str:
    if any(sign in word for sign in "<>\r\n") or not word.strip():
        raise invalid_value("keywords", "A keyword is one line of text without < and >.")
    return word.strip()


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0.0 <= one <= 1.0 for one in found):
        raise invalid_value("temperature", f"temperature must be a number from 0 to 1, got '{text[:40]}'.")
    if len(found) > MAX_TEMPERATURES:
        raise invalid_value("temperature", f"At most {MAX_TEMPERATURES} temperatures, got {len(found)}.")
    return found


def _vad_options(given: _Given) -> dict[str, Any]:
    """Return the options of a chunking strategy: "auto", a JSON text, or nested names."""
    text, nested = given.one("chunking_strategy"), dict[str, Any](given.vad)
    if text is not None and nested:
        raise _repeated("chunking_strategy")
    if text is not None and text not in ("auto", "null", ""):
        try:
            nested = msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):  # RecursionError: thousands of brackets, one in another
            raise invalid_value("chunking_strategy", 'chunking_strategy must be "auto" or an object.') from None
    if not nested:
        return {}
    kind = nested.pop("type", None)
    if kind == "auto" and not nested:
        return {}
    if kind != "server_vad":
        raise invalid_value("chunking_strategy", "chunking_strategy: type must be server_vad.")
    found: dict[str, Any] = {"vad": True}
    for key, value in nested.items():
        if key not in _VAD:
            raise unknown_parameter(f"chunking_strategy.{_shown(key)}")
        try:
            found[_VAD[key]] = value if isinstance(value, int | float) else float(value)
        except (TypeError, ValueError):
            raise invalid_value("chunking_strategy", f"chunking_strategy: {key} must be a number.") from None
    try:
        TranscribeOptions.from_keywords(found)
    except OptionError as error:
        raise invalid_value("chunking_strategy", f"chunking_strategy: {error}") from None
    return found


def _options(keywords: Mapping[str, Any]) -> TranscribeOptions:
    """Check the options. Raises ApiError 400, with the option's name where it is wrong by itself."""
    try:
        options = TranscribeOptions.from_keywords(keywords)
    except OptionError as error:
        names = (name for name, value in keywords.items() if _is_wrong({name: value}))
        raise ApiError(400, str(error), param=next(names, None), code="invalid_value") from None
    search = options.search
    for name, value, most in (
        ("beam_size", search.beam_size, MAX_ROWS),
        ("best_of", search.best_of, MAX_ROWS),
        ("patience", search.patience, MAX_PATIENCE),
        ("clip_timestamps", len(options.clips.clip_timestamps) / 2, MAX_CLIPS),
    ):
        if value is not None and value > most:
            raise invalid_value(name, f"{name}: at most {most:g} on this server.")
    return options


def _is_wrong(keywords: Mapping[str, Any]) -> bool:
    try:
        TranscribeOptions.from_keywords(keywords)
    except OptionError:
        return True
    return False


def _for_admins(given: _Given, *, is_admin: bool) -> tuple[int, float | None]:
    for name in ("priority", "deadline_s"):
        if name in given.values and not is_admin:
            raise ApiError(403, f"{name} is for keys of administrators; leave it out.", param=name, code="admin_only")
    deadline_s = given.read("deadline_s", number)
    if deadline_s is not None and not 0.0 < deadline_s < math.inf:
        raise invalid_value("deadline_s", "deadline_s must be a number above 0.")
    priority = given.read("priority", whole) or 0
    if abs(priority) > MAX_PRIORITY:
        raise invalid_value("priority", f"priority must be from -{MAX_PRIORITY} to {MAX_PRIORITY}.")
    return priority, deadline_s


def _response_format(text: str) -> str:
    if text == "diarized_json":
        raise invalid_value("response_format", "diarized_json: this server has no speaker labels yet.")
    if text not in FORMATS:
        raise invalid_value("response_format", f"response_format must be one of {', '.join(FORMATS)}.")
    return text


def _granularities(given: Sequence[str], response_format: str) -> frozenset[str]:
    for one in given:
        if one not in GRANULARITIES:
            raise invalid_value("timestamp_granularities", "timestamp_granularities are word and segment.")
    if "word" in given and response_format != "verbose_json":
        raise invalid_value(
            "response_format",
            "`response_format` must be `verbose_json` if `timestamp_granularities[]` is provided",
        )
    return frozenset(given or ("segment",))


def _logprobs(given: Sequence[str], response_format: str) -> bool:
    if any(one != "logprobs" for one in given):
        raise invalid_value("include", "include takes logprobs only.")
    if given and response_format != "json":
        raise invalid_value("include", f"logprobs go with response_format json, not with {response_format}.")
    return bool(given)


def _boolean_or_null(text: str) -> bool:
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0", "null", ""):
        return False
    raise NotReadError("give true or false")


def _repeated(name: str) -> ApiError:
    return ApiError(400, f"'{_shown(name)}' is given twice.", param=_shown(name), code="invalid_value")


def _hint(name: str) -> str:
    """Return what to give instead of an unknown field: other programs' names, and misspelt ones."""
    if name in _WITHHELD:
        return "Requests cannot set it on a server."
    if name in FIELDS:
        return "This path does not have it."
    if close := get_close_matches(name[:100], FIELDS, n=1, cutoff=0.8):
        return f"Did you mean '{close[0]}'?"
    hint = unknown_option(name[:100], "request").partition("; ")[2]
    return f"{hint[:1].upper()}{hint[1:]}{'' if hint.endswith('?') else '.'}"


def _shown(name: str) -> str:
    """Return a name as messages show it."""
    return name if len(name) <= 100 and name.isprintable() else repr(name[:100])
