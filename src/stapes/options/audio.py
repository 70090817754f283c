"""Which sound of a file is used, and what its times count from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from stapes.options.checks import make_plain, one_of, option, whole

Channel = Literal["mix", "left", "right"]
Clock = Literal["samples", "container"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """Which sound of a file is used, and what its times count from."""

    audio_track: int | None = option(
        None,
        "sound track of a file with several, counted from 1; None: the default one, else the one with most channels",
    )
    channel: Channel = option("mix", "mix: all channels mixed to one; left, right: one channel alone")
    clock: Clock = option(
        "samples",
        "samples: times count the sound from its first sample; container: times are the file's timestamps, as players "
        "show them, where the sound begins later than the picture or has gaps",
    )

    def __post_init__(self) -> None:
        make_plain(self)
        whole("audio_track", self.audio_track)
        one_of("channel", self.channel, get_args(Channel))
        one_of("clock", self.clock, get_args(Clock))
