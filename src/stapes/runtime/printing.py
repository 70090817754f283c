"""Text to standard output or standard error, whatever characters the stream knows."""

from __future__ import annotations

import logging
import sys
from typing import Any

_log = logging.getLogger("stapes")


def write_text(stream: Any, text: str, errors: str = "replace") -> None:
    """Write a text to a stream; characters that its encoding lacks become "?", as the `whisper` command shows them.

    errors: another of Python's ways to write what an encoding lacks.
    """
    try:
        stream.write(text)
    except UnicodeEncodeError:  # raised before anything of it is written
        encoding: Any = getattr(stream, "encoding", None)
        try:
            known = text.encode(encoding, errors).decode(encoding)
        except (LookupError, TypeError):  # a stand-in that names no encoding, or none that there is
            known = text.encode("ascii", errors).decode("ascii")
        stream.write(known)


class Printer:
    """Prints lines to standard output as far as it takes them: it never raises, and gives up after a failure."""

    def __init__(self) -> None:
        self._open = True

    def line(self, text: str) -> None:
        """Print a line, if there is a standard output; log once (logger `stapes`) if it fails."""
        if not self._open or sys.stdout is None:  # None: a program without a console
            return
        try:
            write_text(sys.stdout, f"{text}\n")
        except Exception as error:  # closed, full, or a stand-in that raises any error: results go on
            self._open = False
            _log.warning("standard output takes no more text, so that verbose prints nothing: %s", error)
