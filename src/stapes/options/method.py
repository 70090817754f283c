"""How a recording is gone through, and which times are found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from stapes.errors import OptionError
from stapes.options.checks import flag, make_plain, number, one_of, option, plain_items, require

Mode = Literal["sequential", "reference", "chunked"]
AudioContext = Literal["full", "fit"]
RulesOf = Literal["openai-whisper", "faster-whisper"]
#: the latest time of a clip: 30 years
_LATEST_S = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a recording is gone through."""

    mode: Mode = option(
        "sequential",
        "sequential: each window has the text before it in its prompt, and guards act against invented text; "
        "reference: the same without guards, as openai/whisper does it; chunked: cut at pauses into chunks that are "
        "decoded side by side, without each other's text",
    )
    audio_context: AudioContext = option(
        "full",
        "full: 30 s are encoded of every window, as the model was trained; fit: of a shorter one, as in short "
        "recordings, its sound and 2 s, 8 s at least: faster, but another algorithm, whose text may differ; where the "
        "text is refused, all 30 s are encoded after all",
    )

    chunk_length: float | None = option(
        None,
        "most sound in a window; what is left of its 30 s is silence, and a short one costs as much; None: 30",
        "s",
    )
    rules_of: RulesOf = option(
        "openai-whisper",
        "whose rules count where the two differ, with mode reference: faster-whisper keeps the best try where all "
        "fail, has hotwords beside a full prompt, and gives the prefix back (docs/decoding.md)",
    )

    @property
    def as_faster_whisper(self) -> bool:
        """Whether faster-whisper's rules count."""
        return self.rules_of == "faster-whisper"

    def __post_init__(self) -> None:
        make_plain(self)
        number("chunk_length", self.chunk_length, low=1, high=30)
        if self.mode == "chunked" and self.chunk_length is not None:
            raise OptionError("chunk_length does not go with mode 'chunked', whose chunks are cut at pauses")
        one_of("mode", self.mode, get_args(Mode))
        one_of("audio_context", self.audio_context, get_args(AudioContext))
        one_of("rules_of", self.rules_of, get_args(RulesOf))
        if self.rules_of != "openai-whisper" and self.mode != "reference":
            raise OptionError(f"rules_of {self.rules_of!r} needs mode 'reference', got mode {self.mode!r}")
        if self.mode == "reference" and self.audio_context != "full":
            raise OptionError(
                f"audio_context {self.audio_context!r} does not go with mode 'reference', in which every window is "
                "encoded as openai/whisper does it; leave one of them out"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """Which stretches of the recording are decoded."""

    clip_timestamps: tuple[float, ...] = option(
        (0.0,), "start,end,start,end,... of the stretches to decode; a last start without end runs to the end", "s"
    )

    def __post_init__(self) -> None:
        make_plain(self)
        times = _times(self.clip_timestamps)
        object.__setattr__(self, "clip_timestamps", times)
        for start, end in zip(times[::2], times[1::2], strict=False):
            require(start <= end, f"clip_timestamps: the clip {start:g}-{end:g} s ends before it starts")

    def starting_after(self, duration_s: float) -> tuple[str, ...]:
        """Return the clips that start at the end of a recording of this length, or later, in words: "70-80 s"."""
        times = self.clip_timestamps
        ends = [*times[1::2], None] if len(times) % 2 else times[1::2]
        return tuple(
            f"from {start:g} s on" if end is None else f"{start:g}-{end:g} s"
            for start, end in zip(times[::2], ends, strict=True)
            if start > 0 and start >= duration_s
        )


def _times(value: Any) -> tuple[float, ...]:
    """Read "2.5,20,31" or an iterable of seconds."""
    try:
        parts = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else plain_items(value)
        times = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        raise OptionError(f"clip_timestamps must be seconds such as '0,30.5', got {value!r}") from None
    require(
        all(math.isfinite(time) and time >= 0 for time in times),
        f"clip_timestamps must be finite and not negative, got {value!r}",
    )
    require(all(time <= _LATEST_S for time in times), f"clip_timestamps must be {_LATEST_S:g} s at most, got {value!r}")
    return times


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """When each word was spoken, and how probable each token was."""

    word_timestamps: bool = option(False, "find the time of every word, and place segments and windows by these")
    token_logprobs: bool = option(False, "keep the log-probability and the bytes of every token of text")
    prepend_punctuations: str = option("\"'“¿([{-", "punctuation that joins the word after it")
    append_punctuations: str = option("\"'.。,，!！?？:：”)]}、", "punctuation that joins the word before it")
    hallucination_silence_threshold: float | None = option(
        None, "with word times: skip a silence longer than this where text seems invented", "s"
    )

    def __post_init__(self) -> None:
        make_plain(self)
        flag("word_timestamps", self.word_timestamps)
        flag("token_logprobs", self.token_logprobs)
        for name in ("prepend_punctuations", "append_punctuations"):
            value = getattr(self, name)
            require(isinstance(value, str), f"{name} must be text, got {value!r}")
        number("hallucination_silence_threshold", self.hallucination_silence_threshold, low=0)
