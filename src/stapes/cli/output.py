"""Where words go: results to standard output, everything else to standard error, one line each.

A reader that goes away (`stapes talk.mp3 | head -1`) and a full disk are told apart, without a traceback.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from stapes.errors import OutputError, StapesError, StapesWarning
from stapes.writers import why_not_written


class ReaderGoneError(StapesError):
    """Whoever read standard output has closed it: nobody wants the rest."""

    exit_code = 0


def say(message: object) -> None:
    """Write one line of our own to standard error."""
    text = " ".join(str(message).splitlines())
    stream = cast("TextIO | None", sys.stderr)
    with suppress(OSError):  # nobody listens: there is no place left to say so
        if stream is not None:  # None: closed before we began
            print(f"stapes: {text}", file=stream, flush=True)


def complain(source: str, error: object) -> None:
    """Say what went wrong with a recording, naming it if the error does not."""
    name = "standard input" if source == "-" else source
    say(error if f"{name}:" in str(error) else f"{name}: {error}")


class ResultsLostError(OutputError):
    """Standard output takes no more: going on would lose every result."""


class ResultLines:
    """Lines on standard output, each sent off at once.

    around: a context that makes room on the screen, where a progress bar shares it.
    only_copy: whether the results go nowhere else. If not, nothing is lost where standard output fails, and the
    work goes on without it.
    """

    def __init__(self, around: Callable[[], Any], *, only_copy: bool = True) -> None:
        self._around = around
        self._only_copy = only_copy
        self._open = True
        reconfigure = getattr(sys.stdout, "reconfigure", None)
        if reconfigure:  # a terminal that knows few characters shows "?" for the others, as the reference does
            reconfigure(errors="replace")

    def write(self, *lines: str) -> None:
        """Write lines. Raises ReaderGoneError if nobody reads, ResultsLostError if they cannot be kept."""
        if not self._open:
            return
        try:
            with self._around(), told_apart():
                self._send(lines)
        except (ReaderGoneError, ResultsLostError):
            if self._only_copy:
                raise
            self._open = False

    @staticmethod
    def _send(lines: Sequence[str]) -> None:
        stream = cast("TextIO | None", sys.stdout)
        if stream is None:
            raise ResultsLostError("standard output: is closed; write files with -f instead")
        for line in lines:
            stream.write(f"{line}\n")
        stream.flush()


@contextmanager
def told_apart() -> Iterator[None]:
    """Turn what can befall standard output into errors of ours."""
    try:
        yield
    except BrokenPipeError as error:
        _let_go_of_stdout()
        raise ReaderGoneError("standard output was closed") from error
    except OSError as error:
        _let_go_of_stdout()
        raise ResultsLostError(f"standard output: {why_not_written(error)}") from error


def _let_go_of_stdout() -> None:
    """Point standard output to nowhere: Python flushes it once more at the end, and would fail again."""
    with suppress(OSError, ValueError):  # ValueError: standard output is no file (a test's, a notebook's)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class Warnings:
    """Shows warnings of stapes as lines of its own, each once per recording; keeps others' to itself.

    around: as for ResultLines.
    """

    def __init__(self, around: Callable[[], Any]) -> None:
        self._around = around
        self._shown: set[str] = set()

    def show(self, message: object) -> None:
        """Say a warning that was not said since the last `forget`."""
        if str(message) not in self._shown:
            self._shown.add(str(message))
            with self._around():
                say(f"warning: {message}")

    def forget(self) -> None:
        """Begin another recording."""
        self._shown.clear()

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Take the warnings raised meanwhile; those of libraries are for developers: python -W shows them."""
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            warnings.simplefilter("always", StapesWarning)
            plain = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *rest: object) -> None:
                if issubclass(category, StapesWarning):
                    self.show(message)
                else:
                    plain(message, category, *rest)  # type: ignore[arg-type]

            warnings.showwarning = show  # type: ignore[assignment]
            yield
