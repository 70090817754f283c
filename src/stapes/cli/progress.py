"""Progress bars in audio time on standard error, where that is a terminal; nothing elsewhere.

One bar for each recording at work, and above several of them one for all. rich is loaded when a bar is drawn. It
leaves no trace: it is wiped before every line of a result, and at the end.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, Final

from stapes.cli.output import printable

#: columns for a recording's name, and the least and the most of them in a terminal of any width
_NAME_SHARE, _SHORTEST_NAME, _LONGEST_NAME = 3, 12, 32
#: columns left free: the terminal's own ^C fits there, and moves nothing to the next line
_MARGIN: Final = 3
#: audio from which on time is told in hours
_HOUR_S: Final = 3600


def bar_is_welcome(*, text_goes_to_stdout: bool) -> bool:
    """Tell whether a bar would be seen and spoil nothing.

    Text that flows through a pipe may end on the same screen (`| grep`, `| tee`), where nobody could wipe the
    bar before it: then there is none.
    """
    return bar_is_possible() and not (text_goes_to_stdout and _is_pipe(sys.stdout))


def bar_is_possible() -> bool:
    """Tell whether a bar can be drawn and wiped."""
    return os.environ.get("TERM") not in ("dumb", "unknown") and is_terminal(sys.stderr)


def is_terminal(stream: Any) -> bool:
    """Tell whether someone looks at this stream."""
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


def hours(done_s: float, total_s: float, *, more: bool = False) -> str:
    """Write how much of all audio is done, in hours from the first one on; more: some is not counted yet."""
    mark = "+" if more else ""
    if total_s < _HOUR_S:
        return f"{clock(done_s)}/{clock(total_s)}{mark}"
    return f"{done_s / _HOUR_S:.2f}/{total_s / _HOUR_S:.2f}{mark} h"


def pace(done_s: float, left_s: float, elapsed_s: float) -> tuple[str, str]:
    """Give the speed in times real time, and the time left ("8.4x", "0:42 left"); empty at the start."""
    if done_s <= 0 or elapsed_s <= 0:
        return "", ""
    speed = done_s / elapsed_s
    return f"{speed:.1f}x" if speed < 100 else f"{speed:.0f}x", f"{clock(left_s / speed)} left"


def shortened(name: str, width: int) -> str:
    """Cut the middle out of a name: its end tells parts of a series apart."""
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"


class NoBars:
    """Stands for the bars where none are wanted: does nothing."""

    def open(self, number: int, source: str) -> None:
        """Note that a recording is being read; how long it is, is not known yet."""

    def begin(self, number: int, duration_s: float, known_s: float) -> None:
        """Begin a recording that was opened, of which `known_s` seconds are known from an earlier run."""

    def advance(self, number: int, done_s: float) -> None:
        """Note how far a recording is."""

    def finish(self, number: int) -> None:
        """Note that a recording has ended, whether it was begun or not."""

    def fetch(self, done_bytes: int, total_bytes: int) -> None:
        """Note how far a download is."""

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Make room for a line of text."""
        yield

    def end(self) -> None:
        """Wipe the bars."""


class _Known:
    """A recording that was begun: how long it is, how much of it is done, by this run and by an earlier one."""

    def __init__(self, duration_s: float, known_s: float, began_s: float) -> None:
        self.duration_s = duration_s
        self.known_s = known_s
        self.done_s = known_s
        self.began_s = began_s


class Bars(NoBars):
    """A line for each recording: its name, a bar, done/total; and how fast, and how long still, for all."""

    def __init__(self, count: int = 1, now: Callable[[], float] = time.monotonic) -> None:
        """count: how many recordings there are."""
        from rich.console import Console  # noqa: PLC0415 (50 ms: only where a bar is drawn)
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415
        from rich.table import Column  # noqa: PLC0415

        self._now = now
        self._count = count
        self._n_ended = 0
        self._tasks: dict[int, Any] = {}
        self._known: dict[int, _Known] = {}  # those that were begun
        self._most_bytes = 0
        console = Console(file=sys.stderr)
        self._name_width = max(_SHORTEST_NAME, min(_LONGEST_NAME, console.width // _NAME_SHARE))
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True), markup=False),
            BarColumn(bar_width=None, table_column=Column(min_width=5, ratio=1)),
            TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True), markup=False),
            console=console,
            expand=True,
        )  # lays the lines out; a Live shows them
        self._console = console
        self._live: Any = None
        self._fetching: Any = None
        self._total: Any = None

    def open(self, number: int, source: str) -> None:
        """Draw a bar for a recording."""
        name = "standard input" if source == "-" else printable(PurePath(source).name)
        if self._count > 1 and self._total is None:
            self._total = self._progress.add_task("", total=None, numbers="")
            self._show_total()
        self._tasks[number] = self._progress.add_task(shortened(name, self._name_width), total=None, numbers="")
        self._show()

    def begin(self, number: int, duration_s: float, known_s: float) -> None:
        """Let its bar show how far it is."""
        self._known[number] = _Known(duration_s, known_s, self._now())
        self.advance(number, known_s)

    def advance(self, number: int, done_s: float) -> None:
        """Show how many seconds of a recording are done."""
        known = self._known[number]
        known.done_s = min(done_s, known.duration_s)
        numbers = f"{clock(known.done_s)}/{clock(known.duration_s)}"
        if self._count == 1:
            done_now_s, left_s = known.done_s - known.known_s, known.duration_s - known.done_s
            numbers = _line(numbers, *pace(done_now_s, left_s, self._now() - known.began_s))
        self._progress.update(
            self._tasks[number], completed=known.done_s, total=known.duration_s or None, numbers=numbers
        )
        self._show_total()

    def finish(self, number: int) -> None:
        """Wipe a recording's bar."""
        self._n_ended += 1
        known = self._known.setdefault(number, _Known(0.0, 0.0, self._now()))
        known.duration_s = known.done_s  # what of it was skipped, or failed, is nothing to wait for
        if number in self._tasks:
            self._progress.remove_task(self._tasks.pop(number))
        self._show_total()

    def _show_total(self) -> None:
        if self._total is None:
            return
        known = [one for one in self._known.values() if one.duration_s]
        total_s, done_s = sum(one.duration_s for one in known), sum(one.done_s for one in known)
        n_unknown = self._count - len(self._known)
        left_s = total_s - done_s + n_unknown * total_s / max(1, len(known))  # as long as the others, for all we know
        elapsed_s = self._now() - min((one.began_s for one in known), default=0.0)
        worked_s = done_s - sum(one.known_s for one in known)
        so_far = hours(done_s, total_s, more=n_unknown > 0) if total_s else ""
        numbers = _line(so_far, *pace(worked_s, left_s, elapsed_s))
        self._progress.update(
            self._total,
            description=f"total {self._n_ended}/{self._count}",
            completed=done_s,
            total=total_s or None,
            numbers=numbers,
        )

    def fetch(self, done_bytes: int, total_bytes: int) -> None:
        """Show how many bytes of a download are here."""
        if total_bytes < self._most_bytes:  # a small file beside the weights
            return
        self._most_bytes = total_bytes
        if self._fetching is None:
            self._fetching = self._progress.add_task("fetching", total=None, numbers="")
            self._show()
        numbers = f"{done_bytes / 1e6:.0f}/{total_bytes / 1e6:.0f} MB"
        self._progress.update(self._fetching, completed=done_bytes, total=total_bytes or None, numbers=numbers)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Wipe the bars while a line of text is written."""
        was_shown = self._live is not None
        self.end()
        try:
            yield
        finally:
            if was_shown:
                self._show()

    def end(self) -> None:
        """Wipe the bars."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _drawn(self) -> Any:
        from rich.constrain import Constrain  # noqa: PLC0415 (as above)

        return Constrain(self._progress.get_renderable(), max(1, self._console.width - _MARGIN))

    def _show(self) -> None:
        """Draw the bars below what stands there. A Live is used once: begun again, it would wipe lines above."""
        from rich.live import Live  # noqa: PLC0415 (as above)

        if self._live is None:
            self._live = Live(
                get_renderable=self._drawn,
                console=self._console,
                refresh_per_second=10,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start(refresh=True)


def _line(*parts: str) -> str:
    return "  ".join(filter(None, parts))
