"""Events of a command, as values: one class per event, each passed to every renderer.

A renderer is a callable that matches on the events it shows: terminal.py (words), json_lines.py (for programs),
progress.py (bars), text.py (transcripts on standard output).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stapes.cli.output import shown_name
from stapes.output.files import output_stem

if TYPE_CHECKING:
    from stapes.results import Flag, Segment, Transcript, Window

#: `Skipped.reason`: its files were there when the command began (--skip_existing)
EXISTS: Final = "exists"
#: `Skipped.reason`: the interrupted run has made its files
DONE_BEFORE: Final = "done_before"


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording's place in a command."""

    number: int  # 1, 2, ... in the order of the command line
    count: int
    source: str

    @property
    def name(self) -> str:
        """Its name for messages, without terminal control characters."""
        return shown_name(self.source)

    @property
    def stem(self) -> str:
        """The name of its output files, without suffix."""
        return output_stem(self.source)


@dataclass(frozen=True, slots=True)
class Event:
    """An event."""


@dataclass(frozen=True, slots=True)
class FileEvent(Event):
    """An event of a recording."""

    recording: Recording


class Opened(FileEvent):
    """It is being read; its length is not known yet."""


@dataclass(frozen=True, slots=True)
class Started(FileEvent):
    """It is in the engine."""

    duration_s: float
    resumed_windows: int  # known from an earlier run


@dataclass(frozen=True, slots=True)
class Resumed(FileEvent):
    """All windows known from an earlier run have come; decoding goes on at `known_s`."""

    known_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class LanguageKnown(FileEvent):
    """Its language was detected."""

    language: str  # code


@dataclass(frozen=True, slots=True)
class WindowDone(FileEvent):
    """A window has its result, and `step_s` more seconds of audio are done."""

    window: Window
    step_s: float
    resumed: bool  # known from an earlier run


@dataclass(frozen=True, slots=True)
class SegmentDone(FileEvent):
    """A segment of the window just done."""

    segment: Segment
    resumed: bool


@dataclass(frozen=True, slots=True)
class GuardActed(FileEvent):
    """What a guard did in the window just done."""

    flag: Flag
    resumed: bool


@dataclass(frozen=True, slots=True)
class Transcribed(FileEvent):
    """Its transcript is complete; its files are not written yet."""

    transcript: Transcript


@dataclass(frozen=True, slots=True)
class Done(FileEvent):
    """Its files are written."""

    outputs: tuple[str, ...]  # paths
    transcript: Transcript
    audio_s: float
    elapsed_s: float  # since Started
    windows: int
    windows_resumed: int


@dataclass(frozen=True, slots=True)
class Skipped(FileEvent):
    """There is nothing to do: its files are there."""

    reason: str  # EXISTS or DONE_BEFORE
    outputs: tuple[str, ...]  # names


class Closed(FileEvent):
    """The last event of every recording."""


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """A recording failed, or was refused before any work."""

    source: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something is unusual, and the command goes on."""

    message: str
    recording: Recording | None = None


@dataclass(frozen=True, slots=True)
class Noted(Event):
    """Information."""

    message: str


@dataclass(frozen=True, slots=True)
class CommandFailed(Event):
    """The command ends early."""

    error: str
    kind: str  # the error's class, or "stopped": Ctrl-C


@dataclass(frozen=True, slots=True)
class Summary(Event):
    """The counts of a command's results."""

    files: int
    done: int
    failed: int
    skipped: int
    audio_s: float  # of recordings that are done
    worked_s: float  # of audio that this run has decoded
    elapsed_s: float


Emit = Callable[[Event], None]
