"""Output: results to standard output, everything else to standard error, one line each.

A closed pipe (`stapes talk.mp3 | head -1`) and a full disk are different errors, each without a traceback.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Final, TextIO, cast

from stapes.audio.source import shown_address
from stapes.errors import OutputError, StapesError, StapesWarning
from stapes.output.files import why_not_written
from stapes.runtime.printing import write_text

#: makes room on the screen for lines, where progress bars share it
Around = Callable[[], AbstractContextManager[object]]
#: C0 and C1 controls, marks and overrides of direction, line and paragraph separators, surrogates
_ODD: Final = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: Python's code points for bytes of names that are not UTF-8 (PEP 383)
_BYTES_FROM: Final = 0xDC00


class StoppedError(Exception):
    """Ctrl-C, or another signal: what was done is kept, and the same command goes on there."""

    def __init__(self, exit_code: int = 130) -> None:
        """exit_code: 128 and the signal's number."""
        super().__init__()
        self.exit_code = exit_code


class ReaderGoneError(StapesError):
    """The reader of standard output has closed it: the rest has no reader."""

    exit_code = 0


def printable(text: str) -> str:
    r"""Escape what a terminal would act on or cannot show: control characters, direction marks, lone surrogates.

    A byte of a file's name that is no UTF-8 is shown as its number: talk\xff.mp3.
    """
    return _ODD.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0]) - _BYTES_FROM
    return f"\\x{code:02x}" if 0x80 <= code <= 0xFF else repr(found[0])[1:-1]


def our_line(message: object) -> str:
    """Return a message as one line of ours for standard error."""
    return f"stapes: {' '.join(str(message).splitlines())}"


def say(message: object) -> None:
    """Write one line of ours to standard error."""
    write_error_line(our_line(message))


def write_error_line(text: str) -> None:
    """Write a line to standard error, whatever is in it, and whatever standard error can take."""
    stream = cast("TextIO | None", sys.stderr)
    with suppress(OSError, ValueError):  # closed: there is no stream for a message
        if stream is not None:  # None: closed before we began
            write_text(stream, f"{printable(text)}\n", errors="backslashreplace")
            stream.flush()


def shown_name(source: str) -> str:
    """Return the name of a recording for messages, without terminal control characters."""
    return "standard input" if source == "-" else printable(shown_address(source))


class ResultsLostError(OutputError):
    """Standard output fails, and the results have no other place."""


class ResultLines:
    """Lines on standard output, each sent off at once.

    around: a context that makes room on the screen, where a progress bar shares it.
    only_copy: whether the results go nowhere else. If not, nothing is lost where standard output fails, and the
    work goes on without it.
    """

    def __init__(self, around: Around = nullcontext, *, only_copy: bool = True) -> None:
        self._around = around
        self._only_copy = only_copy
        self._open = True

    def write(self, *lines: str) -> None:
        """Write lines. Raises ReaderGoneError if the reader is gone, ResultsLostError if they cannot be kept."""
        if not self._open:
            return
        try:
            with self._around():
                send("".join(f"{line}\n" for line in lines))
        except (ReaderGoneError, ResultsLostError):
            if self._only_copy:
                raise
            self._open = False


def send(text: str) -> None:
    """Write to standard output, at once.

    Raises ReaderGoneError if the reader is gone, ResultsLostError if it cannot be kept.
    """
    stream = cast("TextIO | None", sys.stdout)
    if stream is None or getattr(stream, "closed", False):
        raise ResultsLostError("standard output: is closed; redirect it into a file, or write files with -f")
    try:
        write_text(stream, text)
        stream.flush()
    except BrokenPipeError as error:
        _discard_stdout()
        raise ReaderGoneError("standard output was closed") from error
    except OSError as error:
        _discard_stdout()
        raise ResultsLostError(f"standard output: {why_not_written(error)}") from error


def _discard_stdout() -> None:
    """Redirect standard output to nothing: Python flushes it once more at the end, and would fail again."""
    with suppress(OSError, ValueError):  # ValueError: standard output is no file (a test's, a notebook's)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def warnings_caught(show: Callable[[str], None]) -> Iterator[None]:
    """While entered, pass on warnings of stapes, in the thread that raised them.

    Those of libraries are for developers: python -W shows them.
    """
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", StapesWarning)
        plain = warnings.showwarning

        def show_ours(message: Warning | str, category: type[Warning], *rest: object) -> None:
            if issubclass(category, StapesWarning):
                show(str(message))
            else:
                plain(message, category, *rest)  # type: ignore[arg-type]

        warnings.showwarning = show_ours  # type: ignore[assignment]
        yield
