"""A progress bar in audio time on standard error, where that is a terminal; nothing elsewhere.

rich is loaded when a bar is drawn. It leaves no trace: it is wiped before every line of a result, and
at the end.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any


def bar_is_welcome(*, text_goes_to_stdout: bool) -> bool:
    """Tell whether a bar would be seen and spoil nothing.

    Text that flows through a pipe may end on the same screen (`| grep`, `| tee`), where nobody could wipe the
    bar before it: then there is none.
    """
    if os.environ.get("TERM") in ("dumb", "unknown") or not is_terminal(sys.stderr):
        return False
    return not (text_goes_to_stdout and _is_pipe(sys.stdout))


def is_terminal(stream: Any) -> bool:
    """Tell whether someone looks at this stream."""
    return stream is not None and bool(stream.isatty())


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


def pace(done_s: float, total_s: float, elapsed_s: float) -> tuple[str, str]:
    """Give the speed in times real time, and the time left ("8.4x", "0:42 left"); empty at the start."""
    if done_s <= 0 or elapsed_s <= 0:
        return "", ""
    speed = done_s / elapsed_s
    return f"{speed:.1f}x" if speed < 100 else f"{speed:.0f}x", f"{clock((total_s - done_s) / speed)} left"


class NoBar:
    """Stands for the bar where none is wanted: does nothing."""

    def begin(self, source: str, place: int, count: int) -> None:
        """Begin a recording."""

    def advance(self, done_s: float, total_s: float) -> None:
        """Note how far a recording is."""

    def fetch(self, done_bytes: int, total_bytes: int) -> None:
        """Note how far a download is."""

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Make room for a line of text."""
        yield

    def end(self) -> None:
        """Wipe the bar."""


class Bar(NoBar):
    """One line: which recording, a bar, done/total, times real time, time left."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console  # noqa: PLC0415 (50 ms: only where a bar is drawn)
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415
        from rich.table import Column  # noqa: PLC0415

        self._now = now
        self._began_s = now()
        self._most_bytes = 0
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(max_width=24, no_wrap=True, ratio=2), markup=False),
            BarColumn(bar_width=None, table_column=Column(min_width=5, ratio=3)),
            TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True), markup=False),
            console=Console(file=sys.stderr),
            expand=True,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("", total=None, numbers="")

    def begin(self, source: str, place: int, count: int) -> None:
        """Begin a recording: number `place` of `count`."""
        name = "standard input" if source == "-" else PurePath(source).name
        self._began_s = self._now()
        described = f"{place}/{count} {name}" if count > 1 else name
        self._progress.reset(self._task, description=described, total=None, numbers="")
        self._progress.start()

    def advance(self, done_s: float, total_s: float) -> None:
        """Show how many seconds of the recording are done."""
        times = f"{clock(done_s)}/{clock(total_s)}"
        numbers = "  ".join(filter(None, (times, *pace(done_s, total_s, self._now() - self._began_s))))
        self._progress.update(self._task, completed=done_s, total=total_s, numbers=numbers)

    def fetch(self, done_bytes: int, total_bytes: int) -> None:
        """Show how many bytes of a download are here."""
        if total_bytes < self._most_bytes:  # a small file beside the weights
            return
        self._most_bytes = total_bytes
        if not self._progress.live.is_started:
            self._progress.start()
        numbers = f"{done_bytes / 1e6:.0f}/{total_bytes / 1e6:.0f} MB"
        self._progress.update(
            self._task,
            description="fetching",
            completed=done_bytes,
            total=total_bytes or None,
            numbers=numbers,
        )

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Wipe the bar while a line of text is written."""
        was_shown = self._progress.live.is_started
        self._progress.stop()
        try:
            yield
        finally:
            if was_shown:
                self._progress.start()

    def end(self) -> None:
        """Wipe the bar."""
        self._progress.stop()
