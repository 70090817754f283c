"""Renders events for people: lines on standard error."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import PurePath
from traceback import format_exception
from typing import Final

from stapes.cli import events
from stapes.cli.events import Recording
from stapes.cli.output import Around, our_line, shown_name, write_error_line
from stapes.cli.progress import clock, is_terminal
from stapes.errors import StapesError
from stapes.results import Transcript

#: recordings named in one line
_MOST_NAMED: Final = 3
#: failed ones, which are to be looked at
_MOST_FAILED: Final = 20
_SKIPPED: Final = {
    events.EXISTS: "skipped, as the files are there",
    events.DONE_BEFORE: "done before the run was interrupted",
}
_COUNTED: Final = {events.EXISTS: "skipped", events.DONE_BEFORE: "done before"}


class Terminal:
    """Writes lines for people.

    around: a context that makes room on the screen, where it has progress bars.
    quiet: whether a terminal, too, gets no line for what goes well.
    """

    def __init__(self, around: Around = nullcontext, *, quiet: bool = False) -> None:
        self._around = around
        self._quiet = quiet
        self._failed: list[str] = []
        self._skipped: dict[str, list[str]] = {}  # reason -> names

    def __call__(self, event: events.Event) -> None:
        """Write an event's lines, if it has any."""
        match event:
            case events.CommandFailed(message) | events.Noted(message):
                self._write(our_line(message))
            case events.Warned(message, recording):
                message = message if recording is None else _renamed(message, recording.source)
                self._write(our_line(f"warning: {message}"))
            case events.Resumed(recording, known_s, duration_s):
                at = f"{clock(known_s)} of {clock(duration_s)}"
                known = "earlier windows are known from an interrupted run"
                self._write(our_line(f"{recording.name}: goes on at {at}; {known}"))
            case events.Done(recording, outputs, transcript):
                self._write(*_dropped(recording, transcript), *self._if_shown(_written(outputs)))
            case events.Failed(source, error):
                self._failed.append(shown_name(source))
                self._write(*_failure(source, error))
            case events.Skipped(recording, reason):
                self._skipped.setdefault(reason, []).append(recording.name)
            case events.Summary():
                self._write(*(our_line(f"{_SKIPPED[one]}: {_some(names)}") for one, names in self._skipped.items()))
                self._write(*self._if_shown(self._closing(event)))

    def _if_shown(self, lines: list[str]) -> list[str]:
        """Return lines about what goes well, where a person sees them."""
        return lines if is_terminal(sys.stderr) and not self._quiet else []

    def _closing(self, summary: events.Summary) -> list[str]:
        """Return lines on what became of several recordings."""
        counts = {
            "done": summary.done,
            "failed": summary.failed,
            **{_COUNTED[reason]: len(names) for reason, names in self._skipped.items()},
            "not finished": summary.files - summary.done - summary.failed - summary.skipped,
        }
        shown = ", ".join(f"{count} {what}" for what, count in counts.items() if count or what == "done")
        times = f" ({clock(summary.audio_s)} in {clock(summary.elapsed_s)})" if summary.done else ""
        failed = [our_line(f"failed: {_some(self._failed, _MOST_FAILED)}")] if self._failed else []
        return [our_line(f"{shown}{times}"), *failed] if summary.files > 1 else []

    def _write(self, *lines: str) -> None:
        if lines:
            with self._around():
                for line in lines:
                    write_error_line(line)


def _some(names: list[str], most: int = _MOST_NAMED) -> str:
    others = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + others


def _renamed(message: str, source: str) -> str:
    """Replace a recording's path in a message by its shown name."""
    return message if source == "-" else message.replace(source, shown_name(source))


def _dropped(recording: Recording, transcript: Transcript) -> list[str]:
    """Return lines on text that guards dropped."""
    dropped = [flag for flag in transcript.flags if flag.text]
    more = f" and {len(dropped) - 1} more" if len(dropped) > 1 else ""
    return [our_line(f"{recording.name}: {flag}{more} (--mode reference keeps it)") for flag in dropped[:1]]


def _written(outputs: tuple[str, ...]) -> list[str]:
    if not outputs:
        return []
    return [our_line(f"wrote {', '.join([outputs[0], *(PurePath(one).suffix for one in outputs[1:])])}")]


def _failure(source: str, error: BaseException) -> list[str]:
    """Return lines on a failed recording; an error of stapes itself has its traceback."""
    lines, text, name = [], _renamed(str(error), source), shown_name(source)
    if not isinstance(error, StapesError):
        lines = "".join(format_exception(error)).splitlines()
        text = f"{type(error).__name__}: a fault in stapes; please report the lines above"
    return [*lines, our_line(text if not name or text.startswith(f"{name}: ") else f"{name}: {text}")]
