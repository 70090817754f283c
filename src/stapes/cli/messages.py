"""What a command tells of its work, on standard error: words and bars for people, JSON lines for programs.

The fields of the JSON lines stand in docs/command.md. Knows nothing of engines, and nothing of standard output.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from stapes.cli.output import complain, say, write_error_line
from stapes.cli.progress import NoBars, clock, is_terminal
from stapes.errors import StapesError

if TYPE_CHECKING:
    from stapes.cli.loading import Ticket
    from stapes.results import Flag, Segment, Transcript, Window

#: frames of 10 ms
_FRAMES_PER_SECOND: Final = 100
#: recordings named in one line
_MOST_NAMED: Final = 3


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of a command's recordings."""

    files: int
    done: int = 0
    failed: int = 0
    skipped: int = 0
    audio_s: float = 0.0  # of recordings that are done
    worked_s: float = 0.0  # of audio that this run has transcribed
    elapsed_s: float = 0.0


class Report:
    """Tells people: a bar where that is welcome, and a line for what they should know."""

    def __init__(self, bars: NoBars | None = None) -> None:
        self._bars = bars or NoBars()
        self._skipped: dict[str, list[str]] = {}

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Make room for a line on standard output."""
        with self._bars.aside():
            yield

    def end(self) -> None:
        """Wipe the bars."""
        self._bars.end()

    def error(self, error: object, *, kind: str) -> None:  # noqa: ARG002 (for programs)
        """Tell of what ends the whole command."""
        with self.aside():
            say(error)

    def note(self, message: str) -> None:
        """Tell of something that people may want to know."""
        with self.aside():
            say(message)

    def warning(self, message: str, ticket: Ticket | None = None) -> None:
        """Tell of something odd that stops nothing."""
        if ticket is not None and ticket.source != "-":
            message = message.replace(ticket.source, ticket.name)
        with self.aside():
            say(f"warning: {message}")

    def file_open(self, ticket: Ticket) -> None:
        """Tell that a recording is being read."""
        self._bars.open(ticket.number, ticket.source)

    def file_start(self, ticket: Ticket) -> None:
        """Tell that a recording is in the engine."""
        known_s = ticket.resumed_s
        if known_s:
            name, at, end = ticket.name, clock(known_s), clock(ticket.duration_s)
            self.note(f"{name}: goes on at {at} of {end}; what is before that is known from a run that was broken off")
        self._bars.begin(ticket.number, ticket.duration_s, known_s)

    def window(self, ticket: Ticket, window: Window, *, resumed: bool) -> None:
        """Tell that a window is done."""
        if not resumed:
            self._bars.advance(ticket.number, window.next_seek / _FRAMES_PER_SECOND)

    def segment(self, ticket: Ticket, segment: Segment, *, resumed: bool) -> None:
        """Tell of a segment."""

    def flag(self, ticket: Ticket, flag: Flag, *, resumed: bool) -> None:
        """Tell what a guard did."""

    def file_done(self, ticket: Ticket, transcript: Transcript, outputs: Sequence[str]) -> None:
        """Tell that a recording is done and its files are written, and that guards kept something out of it."""
        self._bars.finish(ticket.number)
        dropped = [flag for flag in transcript.flags if flag.text]
        if dropped:
            more = "" if len(dropped) == 1 else f" and {len(dropped) - 1} more"
            self.note(f"{ticket.name}: {dropped[0]}{more} (--mode reference keeps it)")
        if outputs and is_terminal(sys.stderr):
            self.note(f"wrote {', '.join([outputs[0], *(PurePath(one).suffix for one in outputs[1:])])}")

    def file_failed(self, source: str, error: BaseException) -> None:
        """Tell why a recording failed; a mistake of ours with all its lines."""
        with self.aside():
            if isinstance(error, StapesError):
                complain(source, error)
            else:
                for line in _traceback(error).splitlines():
                    write_error_line(line)
                complain(source, f"{type(error).__name__}: a fault in stapes; please report the lines above")

    def file_stopped(self, ticket: Ticket) -> None:
        """Tell that nothing more will happen to a recording; where it failed, that is told apart."""
        self._bars.finish(ticket.number)

    def file_skipped(self, ticket: Ticket, reason: str, outputs: Sequence[str]) -> None:  # noqa: ARG002
        """Tell that there is nothing to do for a recording: its files are there. reason: see `SKIPPED`."""
        self._bars.finish(ticket.number)
        self._skipped.setdefault(reason, []).append(ticket.name)

    def summary(self, tally: Tally) -> None:  # noqa: ARG002 (for programs)
        """Tell what became of all recordings."""
        for reason, names in self._skipped.items():
            others = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            self.note(f"{SKIPPED[reason]}: {', '.join(names[:_MOST_NAMED])}{others}")


#: why a recording is skipped, for programs and for people
SKIPPED: Final = {
    "exists": "skipped, as the files are there",
    "done_before": "done before the run was broken off",
}


class JsonReport(Report):
    """Tells programs: one JSON object a line, whatever happens."""

    def error(self, error: object, *, kind: str) -> None:
        """Write an `error` line."""
        self._write("error", error=str(error), kind=kind)

    def note(self, message: str) -> None:
        """Write a `note` line."""
        self._write("note", message=message)

    def warning(self, message: str, ticket: Ticket | None = None) -> None:
        """Write a `warning` line."""
        self._write("warning", file=ticket.source if ticket else None, message=message)

    def file_open(self, ticket: Ticket) -> None:
        """Say nothing: a recording begins when its length is known."""

    def file_start(self, ticket: Ticket) -> None:
        """Write a `file_start` line."""
        self._write(
            "file_start",
            file=ticket.source,
            index=ticket.number,
            count=ticket.count,
            duration_s=_seconds(ticket.duration_s),
            resumed_windows=ticket.n_resumed,
        )

    def window(self, ticket: Ticket, window: Window, *, resumed: bool) -> None:
        """Write a `window` line."""
        result = window.result
        self._write(
            "window",
            file=ticket.source,
            seek_s=window.seek / _FRAMES_PER_SECOND,
            end_s=window.end / _FRAMES_PER_SECOND,
            left_out_s=[[frame / _FRAMES_PER_SECOND for frame in pause] for pause in window.left_out],
            next_s=window.next_seek / _FRAMES_PER_SECOND,
            skipped=window.skipped,
            temperature=result.temperature,
            avg_logprob=_finite(result.avg_logprob),
            compression_ratio=result.compression_ratio,
            no_speech_prob=_finite(result.no_speech_prob),
            resumed=resumed,
        )

    def segment(self, ticket: Ticket, segment: Segment, *, resumed: bool) -> None:
        """Write a `segment` line."""
        self._write(
            "segment",
            file=ticket.source,
            id=segment.id,
            start_s=_seconds(segment.start_s),
            end_s=_seconds(segment.end_s),
            text=segment.text,
            language=segment.language,
            resumed=resumed,
        )

    def flag(self, ticket: Ticket, flag: Flag, *, resumed: bool) -> None:
        """Write a `guard` line."""
        self._write(
            "guard",
            file=ticket.source,
            guard=flag.guard,
            start_s=_seconds(flag.start_s),
            end_s=_seconds(flag.end_s),
            reason=flag.reason,
            text=flag.text,
            resumed=resumed,
        )

    def file_done(self, ticket: Ticket, transcript: Transcript, outputs: Sequence[str]) -> None:
        """Write a `file_done` line."""
        self._write(
            "file_done",
            file=ticket.source,
            outputs=list(outputs),
            language=transcript.language,
            duration_s=_seconds(transcript.duration_s),
            elapsed_s=_seconds(time.monotonic() - ticket.began_s),
            windows=ticket.n_windows,
            windows_resumed=ticket.n_resumed,
        )

    def file_failed(self, source: str, error: BaseException) -> None:
        """Write a `file_failed` line."""
        values: dict[str, Any] = {"file": source, "error": str(error), "kind": type(error).__name__}
        if not isinstance(error, StapesError):
            values["traceback"] = _traceback(error)
        self._write("file_failed", **values)

    def file_stopped(self, ticket: Ticket) -> None:
        """Say nothing: `file_failed` has said it, or the `error` line of the whole."""

    def file_skipped(self, ticket: Ticket, reason: str, outputs: Sequence[str]) -> None:
        """Write a `file_skipped` line."""
        self._write("file_skipped", file=ticket.source, reason=reason, outputs=list(outputs))

    def summary(self, tally: Tally) -> None:
        """Write the `summary` line."""
        self._write(
            "summary",
            files=tally.files,
            done=tally.done,
            failed=tally.failed,
            skipped=tally.skipped,
            audio_s=_seconds(tally.audio_s),
            elapsed_s=_seconds(tally.elapsed_s),
            times_real_time=round(tally.worked_s / tally.elapsed_s, 2) if tally.elapsed_s else None,
        )

    @staticmethod
    def _write(event: str, **values: object) -> None:
        text = json.dumps({"event": event, **values}, allow_nan=False)
        write_error_line(text.replace("\x7f", "\\u007f"))  # the one character that ASCII and JSON leave to terminals


def report_for(words: Sequence[str]) -> Report:
    """Give who tells of a command line that could not be read."""
    text = " ".join(words)
    return JsonReport() if "--progress json" in text or "--progress=json" in text else Report()


def _traceback(error: BaseException) -> str:
    from traceback import format_exception  # noqa: PLC0415 (5 ms, only for mistakes of ours)

    return "".join(format_exception(error))


def _seconds(value: float) -> float:
    """Round to milliseconds: less is noise."""
    return round(value, 3)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
