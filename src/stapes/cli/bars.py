"""Renders events as progress bars in audio time on standard error; and the bar of a download. Loads rich.

One bar for each recording in work, and one for all above several of them. The bars are wiped for every line of text,
and at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from stapes.cli import events
from stapes.cli.events import Recording
from stapes.cli.inputs import STDIN
from stapes.cli.output import printable
from stapes.cli.progress import clock

#: columns for a recording's name: a share of the terminal's width, the least and the most of them
_NAME_SHARE, _SHORTEST_NAME, _LONGEST_NAME = 3, 12, 32
#: columns left free, without spaces: the terminal's own ^C fits there, and moves nothing to the next line
_MARGIN: Final = 2
_NARROW: Final = 30  # below this, rows need every column
#: from this width on the speed, and how many have failed, are shown
_WIDE: Final = 50
_HOUR_S: Final = 3600


class AudioColumn(ProgressColumn):
    """Audio done and in all, as clock times; that of all recordings in hours from the first one on."""

    def render(self, task: Task) -> Text:
        """Return the text of one row; empty while the length is not known."""
        if task.total is None:
            return Text()
        about = "~" if task.fields.get("is_estimate") else ""
        if task.fields.get("is_sum") and task.total >= _HOUR_S:
            return Text(f"{task.completed / _HOUR_S:.2f}/{about}{task.total / _HOUR_S:.2f} h")
        return Text(f"{clock(task.completed)}/{about}{clock(task.total)}")


class SpeedColumn(ProgressColumn):
    """Speed in times real time."""

    def render(self, task: Task) -> Text:
        """Return the text of one row; empty until a window is done."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.{1 if speed < 100 else 0}f}x" if speed else "")


class TimeLeftColumn(TimeRemainingColumn):
    """rich's time remaining, named, and empty until a window is done."""

    def render(self, task: Task) -> Text:
        """Return the text of one row."""
        return Text.assemble(super().render(task), " left") if task.speed and task.total else Text()


def shortened(name: str, width: int) -> str:
    """Return a name without its middle: the end distinguishes parts of a series."""
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"


class _Rows(Progress):
    """rich's rows, narrower than the terminal."""

    def get_renderable(self) -> _Narrowed:
        """Return what is drawn."""
        return _Narrowed(super().get_renderable())


@dataclass(frozen=True)
class _Narrowed:
    """Draws something with a margin in which nothing is written, not even spaces."""

    drawn: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        margin = _MARGIN if options.max_width >= _NARROW else 0
        yield from console.render(self.drawn, options.update(width=options.max_width - margin))


def _rows(*numbers: tuple[ProgressColumn, int]) -> Progress:
    """Lay out rows: a name, a bar as wide as there is room, and numbers.

    numbers: columns, each with the width of a terminal from which on it is shown.
    """
    name = TextColumn("{task.description}", table_column=Column(no_wrap=True), markup=False)
    bar = BarColumn(bar_width=None, table_column=Column(min_width=5, ratio=1))
    console = Console(file=sys.stderr)
    columns = [column for column, least_width in numbers if console.width >= least_width]
    for column in columns:
        column._table_column = Column(no_wrap=True)
    # The speed is that of a recording so far, however long its windows take: rich keeps the last 1000 of them.
    return _Rows(name, bar, *columns, console=console, expand=True, transient=True, speed_estimate_period=float("inf"))


@contextmanager
def download_bar() -> Iterator[Callable[[int, int], None]]:
    """Show a bar for a download, and yield its callback (bytes done, bytes in all)."""
    with _rows((DownloadColumn(), 0)) as rows:
        row = rows.add_task("fetching", total=None)

        def show(done_bytes: int, total_bytes: int) -> None:
            if total_bytes >= (rows.tasks[0].total or 0):  # not a small file beside the weights
                rows.update(row, completed=done_bytes, total=total_bytes or None)

        yield show


class Bars:
    """A row for each recording in work: its name, a bar, done/total, speed, time left; and one for all."""

    def __init__(self, count: int = 1, n_refused: int = 0) -> None:
        """count: how many recordings there are.   n_refused: how many of them were refused before any work."""
        self._count = count
        self._n_done = 0
        self._n_failed = 0
        self._n_unknown = count - n_refused  # recordings whose length is not known yet
        self._n_known = 0
        self._known_s = 0.0  # their lengths
        self._given_up_s = 0.0  # of recordings that ended early
        self._rows = _rows((AudioColumn(), 0), (SpeedColumn(), _WIDE), (TimeLeftColumn(compact=True), 40))
        self._row_of: dict[int, Task] = {}
        self._sum = self._add_row("", visible=count - n_refused > 1, is_sum=True)
        self._live: Any = None

    def __call__(self, event: events.Event) -> None:
        """Draw what an event changes."""
        match event:
            case events.Opened(recording):
                self._open(recording)
            case events.Started(recording, duration_s):
                self._start(recording, duration_s)
            case events.WindowDone(recording, _, step_s, resumed):
                for row in (self._row_of[recording.number], self._sum):
                    if resumed:  # not through rich: what an earlier run did is no part of the speed
                        row.completed += step_s
                    else:
                        self._rows.advance(row.id, step_s)
            case events.Done() | events.Skipped():
                self._n_done += 1
            case events.Failed():
                self._n_failed += 1
            case events.Closed(recording):
                self._close(recording)
            case events.CommandFailed() | events.Summary():
                self.end()

    def _add_row(self, name: str, **fields: Any) -> Task:
        number = self._rows.add_task(name, total=None, **fields)
        return next(task for task in self._rows.tasks if task.id == number)

    def _open(self, recording: Recording) -> None:
        name = "standard input" if recording.source == STDIN else printable(PurePath(recording.source).name)
        width = max(_SHORTEST_NAME, min(_LONGEST_NAME, self._rows.console.width // _NAME_SHARE))
        self._row_of[recording.number] = self._add_row(shortened(name, width))
        self._update_sum()
        self._show()

    def _start(self, recording: Recording, duration_s: float) -> None:
        row = self._row_of[recording.number]
        row.total = duration_s or None
        self._known_s += duration_s
        self._n_known += 1
        self._n_unknown -= 1
        self._rows.advance(row.id, 0)  # the speed counts from here
        if self._n_known == 1:
            self._rows.advance(self._sum.id, 0)
        self._update_sum()

    def _close(self, recording: Recording) -> None:
        row = self._row_of.pop(recording.number, None)
        if row is not None:
            self._rows.remove_task(row.id)
        if row is None or row.total is None:
            self._n_unknown -= 1
        else:
            self._given_up_s += row.total - row.completed
        self._update_sum()

    def _update_sum(self) -> None:
        """Count recordings of unknown length as long as the others."""
        unknown_s = self._n_unknown * self._known_s / max(1, self._n_known)
        is_shown = self._n_failed and self._rows.console.width >= _WIDE
        failed = f", {self._n_failed} failed" if is_shown else ""
        self._sum.description = f"total {self._n_done}/{self._count}{failed}"
        self._sum.fields["is_estimate"] = self._n_unknown > 0
        # Not through rich, which would restart its estimate of the speed.
        self._sum.total = self._known_s - self._given_up_s + unknown_s or None

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

    def _show(self) -> None:
        """Draw the bars below the present lines. A Live is used once: started again, it would wipe lines above."""
        if self._live is None:
            self._live = Live(
                self._rows,
                console=self._rows.console,
                refresh_per_second=10,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start(refresh=True)
