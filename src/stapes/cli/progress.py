"""When progress bars are drawn, and the format of times. bars.py draws them."""

from __future__ import annotations

import os
import stat
import sys
from typing import Any


def bar_is_welcome(*, text_goes_to_stdout: bool) -> bool:
    """Return whether a bar is visible and overwrites no text.

    Text that flows through a pipe may end on the same screen (`| grep`, `| tee`), where it would be written over the
    bar: then there is none.
    """
    return bar_is_possible() and not (text_goes_to_stdout and _is_pipe(sys.stdout))


def bar_is_possible() -> bool:
    """Return whether a bar can be drawn and wiped."""
    return os.environ.get("TERM") not in ("dumb", "unknown") and is_terminal(sys.stderr)


def is_terminal(stream: Any) -> bool:
    """Return whether a stream is a terminal."""
    try:
        return stream is not None and bool(stream.isatty())
    except ValueError:  # closed
        return False


def _is_pipe(stream: Any) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):  # closed, or a stand-in that is no file
        return False


def clock(seconds: float) -> str:
    """Write a length of time as M:SS or H:MM:SS."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
