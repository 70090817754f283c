"""Renders events for programs: one JSON object a line on standard error. docs/command.md lists the fields."""

from __future__ import annotations

import json
import math
from traceback import format_exception
from typing import Any, Final

from stapes.cli import events
from stapes.cli.output import write_error_line
from stapes.errors import StapesError
from stapes.results import Window

#: frames of 10 ms
_FRAMES_PER_SECOND: Final = 100


def write_json_line(event: events.Event) -> None:
    """Write an event that is for programs; ignore the others."""
    match event:
        case events.Started(file):
            values = _values(event, "duration_s", "resumed_windows")
            write_event("file_start", file=file.source, index=file.number, count=file.count, **values)
        case events.WindowDone(file, window):
            write_event("window", file=file.source, **_window(window), resumed=event.resumed)
        case events.SegmentDone(file, segment):
            values = _values(segment, "id", "start_s", "end_s", "text", "language")
            write_event("segment", file=file.source, **values, resumed=event.resumed)
        case events.GuardActed(file, flag):
            values = _values(flag, "guard", "start_s", "end_s", "reason", "text")
            write_event("guard", file=file.source, **values, resumed=event.resumed)
        case events.Done(file, outputs, transcript):
            values = _values(transcript, "language", "duration_s")
            values |= _values(event, "elapsed_s", "windows", "windows_resumed")
            write_event("file_done", file=file.source, outputs=outputs, **values)
        case events.Failed(source, error):
            trace = {} if isinstance(error, StapesError) else {"traceback": "".join(format_exception(error))}
            write_event("file_failed", file=source, error=str(error), kind=type(error).__name__, **trace)
        case events.Skipped(file, reason, outputs):
            write_event("file_skipped", file=file.source, reason=reason, outputs=outputs)
        case events.Warned(message, about):
            write_event("warning", file=about and about.source, message=message)
        case events.Noted(message):
            write_event("note", message=message)
        case events.CommandFailed(message, kind):
            write_event("error", error=message, kind=kind)
        case events.Summary():
            values = _values(event, "files", "done", "failed", "skipped", "audio_s", "elapsed_s")
            speed = round(event.worked_s / event.elapsed_s, 2) if event.elapsed_s else None
            write_event("summary", **values, times_real_time=speed)


def write_event(event: str, **values: object) -> None:
    """Write one object: the kind of event, and its values."""
    text = json.dumps({"event": event, **values}, allow_nan=False)
    write_error_line(text.replace("\x7f", "\\u007f"))  # the one character that ASCII and JSON leave to terminals


def _window(window: Window) -> dict[str, Any]:
    return {
        "seek_s": window.seek / _FRAMES_PER_SECOND,
        "end_s": window.end / _FRAMES_PER_SECOND,
        "left_out_s": [[frame / _FRAMES_PER_SECOND for frame in pause] for pause in window.left_out],
        "next_s": window.next_seek / _FRAMES_PER_SECOND,
        "skipped": window.skipped,
        **_values(window.result, "temperature", "avg_logprob", "compression_ratio", "no_speech_prob"),
    }


def _values(thing: object, *names: str) -> dict[str, Any]:
    """Return attributes by name; times in milliseconds, as less is noise; None for what is no number."""
    values = {name: getattr(thing, name) for name in names}
    for name, value in values.items():
        if isinstance(value, float):
            values[name] = None if not math.isfinite(value) else round(value, 3) if name.endswith("_s") else value
    return values
