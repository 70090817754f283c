"""Guard state of one recording: VAD results of the window, actions taken. Imports no guard."""

from __future__ import annotations

from dataclasses import replace

from stapes.options import Guards
from stapes.recording.guards.rules import Dropped
from stapes.recording.requests import DetectSpeech
from stapes.recording.segments import WindowSpan
from stapes.recording.time_map import Timeline
from stapes.results import Flag
from stapes.tokenizer import Tokenizer
from stapes.vad.spans import SpeechMap


class GuardState:
    """What the guards of one recording share. Frames are the timeline's; flags have the recording's times."""

    def __init__(self, on: Guards, tokenizer: Tokenizer, timeline: Timeline, *, has_vad: bool) -> None:
        """on: which guards are switched on.   has_vad: whether `DetectSpeech` has an answer; some guards need it."""
        self.on = on
        self.tokenizer = tokenizer
        self.eot = tokenizer.special.eot
        self.timeline = timeline
        self.has_vad = has_vad
        self.flags: list[Flag] = []
        self.speech: SpeechMap | None = None  # in the window; None: not asked
        self.opening: SpeechMap | None = None  # in its beginning alone
        self.without_pauses = False  # whether the window is decoded without its long pauses
        self.was_silent = False  # whether no speech was found in the last window
        self.had_loop = False  # a loop was dropped in the last window, and no sound was skipped for it

    @property
    def is_silent(self) -> bool:
        """Whether the VAD found no speech in the window."""
        return self.speech is not None and not self.speech.spans

    def question(self, seek: int, n_frames: int) -> DetectSpeech:
        """Return the request for speech in the window, if it is not known."""
        return DetectSpeech(seek, n_frames, self.timeline.frames(seek, seek + n_frames))

    def flag(self, guard: str, start_s: float, end_s: float, reason: str, text: str = "") -> Flag:
        """Describe what a guard did; times are the timeline's here, and the recording's in the flag."""
        return self.timeline.flag(Flag(guard=guard, start_s=start_s, end_s=end_s, reason=reason, text=text))

    def add(self, flag: Flag, *, extends_last: bool = False) -> None:
        """Note a flag, or let it extend the last one."""
        if extends_last:
            self.flags[-1] = replace(self.flags[-1], end_s=flag.end_s)
        else:
            self.flags.append(flag)

    def add_dropped(self, one: Dropped, window: WindowSpan) -> None:
        """Note text that a guard took out."""
        end_s = max(one.start_s, min(one.end_s, window.end_s))  # invented times may be after the sound
        self.add(self.flag(one.guard, one.start_s, end_s, one.reason, self.tokenizer.decode(one.tokens).strip()))

    def end_window(self) -> None:
        """Forget the window."""
        self.was_silent, self.without_pauses = self.is_silent, False
        self.speech = self.opening = None
