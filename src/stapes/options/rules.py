"""Which tokens may come, and what the prompt of a window holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import index
from typing import Any

from stapes.errors import OptionError
from stapes.options.checks import flag, make_plain, number, option, plain_items, require, text, whole

_LONGEST_REGEX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which tokens may come when."""

    suppress_tokens: tuple[int, ...] = option(
        (-1,), "ids that are never chosen; -1 stands for symbols that are never spoken; empty switches this off", "ids"
    )
    suppress_text: tuple[str, ...] = option(
        (), "texts: tokens that contain one of them, in this spelling and case, are never chosen"
    )
    suppress_regex: str | None = option(None, "a regular expression: tokens in whose text it is found are never chosen")
    suppress_numerals: bool = option(
        False, "write numbers as words: tokens with digits, signs of money or per cent are never chosen"
    )
    suppress_blank: bool = option(True, "forbid a window to begin with a blank or to be empty")
    without_timestamps: bool = option(False, "decode text without timestamps: one segment per window")
    max_initial_timestamp: float | None = option(1.0, "latest start of a window's first segment; None: any", "s")
    sample_len: int | None = option(None, "most tokens decoded per window; None: half the context, 224", "tokens")

    def __post_init__(self) -> None:
        make_plain(self)
        object.__setattr__(self, "suppress_tokens", _token_ids(self.suppress_tokens))
        object.__setattr__(self, "suppress_text", _texts(self.suppress_text))
        _check_regex(self.suppress_regex)
        flag("suppress_numerals", self.suppress_numerals)
        flag("suppress_blank", self.suppress_blank)
        flag("without_timestamps", self.without_timestamps)
        number("max_initial_timestamp", self.max_initial_timestamp, low=0, high=30)
        whole("sample_len", self.sample_len, low=0)


def _token_ids(value: Any) -> tuple[int, ...]:
    """Read "-1", "1,2,3", an iterable of ids, "" or None (both: nothing is suppressed)."""
    ids = _ids("suppress_tokens", value, "'-1' or '50,1234'")
    require(all(one >= -1 for one in ids), f"suppress_tokens has an id below -1: {value!r}")
    return ids


def _ids(name: str, value: Any, example: str) -> tuple[int, ...]:
    if value is None:
        return ()
    try:
        parts = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else plain_items(value)
        ids = tuple(int(part) if isinstance(part, str) else index(part) for part in parts)
    except (TypeError, ValueError):
        raise OptionError(f"{name} must be ids such as {example}, got {value!r}") from None
    require(not any(isinstance(part, bool) for part in parts), f"{name} must be ids, got {value!r}")
    return ids


def _prompt_ids(value: Any) -> tuple[int, ...]:
    """Read "1,2,3", an iterable of ids, "" or None (both: none)."""
    ids = _ids("initial_prompt_ids", value, "'50,1234'")
    require(all(one >= 0 for one in ids), f"initial_prompt_ids has an id below 0: {value!r}")
    return ids


def _texts(value: Any) -> tuple[str, ...]:
    """Read "a,b", an iterable of texts, "" or None (both: none)."""
    if value is None:
        return ()
    try:
        texts = tuple([part for part in value.split(",") if part] if isinstance(value, str) else plain_items(value))
    except TypeError:
        raise OptionError(f"suppress_text must be texts, got {value!r}") from None
    for one in texts:
        require(isinstance(one, str) and one != "", f"suppress_text must be texts that are not empty, got {one!r}")
    return texts


def _check_regex(value: Any) -> None:
    text("suppress_regex", value)
    if value is None:
        return
    require(len(value) <= _LONGEST_REGEX, f"suppress_regex has {len(value)} characters; {_LONGEST_REGEX} are allowed")
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise OptionError(f"suppress_regex {value!r} is no regular expression: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A window's prompt."""

    condition_on_previous_text: bool = option(
        True, "give each window the text before it; off: less consistent, but a loop cannot spread"
    )
    initial_prompt: str | None = option(None, "text before the recording: names, jargon, style")
    initial_prompt_ids: tuple[int, ...] = option(
        (), "the same as ids of tokens, for programs that have encoded it already", "ids"
    )
    carry_initial_prompt: bool = option(False, "put initial_prompt before every window, not only before the first")
    hotwords: str | None = option(
        None,
        "words to be recognised, in the prompt of every window: names, jargon; as many as half of its prompt holds",
    )
    prompt_reset_on_temperature: float = option(
        0.5,
        "a window decoded at a temperature above this ends the prompt: later ones have only the text after it",
    )
    prefix: str | None = option(None, "text that every window begins with; it is not part of the result")
    prefix_once: bool = option(False, "give prefix only to the window at the recording's beginning")

    def __post_init__(self) -> None:
        make_plain(self)
        flag("condition_on_previous_text", self.condition_on_previous_text)
        flag("carry_initial_prompt", self.carry_initial_prompt)
        flag("prefix_once", self.prefix_once)
        object.__setattr__(self, "initial_prompt_ids", _prompt_ids(self.initial_prompt_ids))
        require(
            not self.initial_prompt_ids or self.initial_prompt is None,
            "initial_prompt and initial_prompt_ids are the same; give one of them",
        )
        require(self.prompt_reset_on_temperature is not None, "prompt_reset_on_temperature must be a number, got None")
        number("prompt_reset_on_temperature", self.prompt_reset_on_temperature, low=0)
        for name in ("initial_prompt", "hotwords", "prefix"):
            text(name, getattr(self, name))
