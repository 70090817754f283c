"""Guards against invented text, and settings of VAD."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from stapes.options.checks import flag, make_plain, number, option, require


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """Guards, which act where the model invents text or leaves speech out; mode "reference" switches all off."""

    silence_guard: bool = option(
        True, "drop doubtful text where there is no speech, and start words where speech starts"
    )
    tail_guard: bool = option(True, "leave out a last, short window without speech")
    pause_guard: bool = option(True, "decode a window again without its long pauses, if its scores are doubtful")
    loop_guard: bool = option(
        True, "try the next temperature where text repeats itself over and over, then drop the repetition"
    )
    speech_guard: bool = option(True, "go back for speech that a window's text leaves out")

    def __post_init__(self) -> None:
        make_plain(self)
        for item in fields(self):
            flag(item.name, getattr(self, item.name))


#: the guards in mode "reference"
NO_GUARDS = Guards(**{item.name: False for item in fields(Guards)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """Decodes speech alone, with Silero's settings."""

    vad: bool = option(False, "find the stretches of speech first and decode only these")
    vad_threshold: float = option(0.5, "probability from which on 32 ms of sound are speech")
    vad_neg_threshold: float | None = option(
        None, "probability below which speech falls quiet; None: 0.15 below vad_threshold"
    )
    vad_min_speech_duration_ms: float = option(250.0, "shorter speech is ignored", "ms")
    vad_max_speech_duration_s: float = option(math.inf, "longer speech is cut, in its last pause if it has one", "s")
    vad_min_silence_duration_ms: float = option(2000.0, "a shorter pause belongs to the speech around it", "ms")
    vad_speech_pad_ms: float = option(
        400.0, "padding before and after each stretch of speech, which is decoded too", "ms"
    )

    def __post_init__(self) -> None:
        make_plain(self)
        flag("vad", self.vad)
        for item in fields(self)[1:]:
            value = getattr(self, item.name)
            require(value is not None or item.default is None, f"{item.name} must be a number, got None")
            number(item.name, value, low=0, high=1 if item.name.endswith("threshold") else math.inf)
