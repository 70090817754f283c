"""Renderers of a command's events: lines, JSON lines, bars, text on standard output."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from rich.console import Console

from stapes.cli import events
from stapes.cli.bars import Bars, download_bar, shortened
from stapes.cli.flags import parse
from stapes.cli.json_lines import write_json_line
from stapes.cli.runner import Batch
from stapes.cli.terminal import Terminal
from stapes.cli.text import TranscriptText
from stapes.errors import AudioError
from stapes.output.files import InputFiles
from stapes.results import Flag, Segment, Transcript, Window, WindowResult

TALK = events.Recording(number=1, count=2, source="talk.mp3")
OTHER = events.Recording(number=2, count=2, source="-")
DROPPED = Flag(guard="silence", start_s=0.5, end_s=1.25, reason="no speech here", text="Thank you.")


def window(seek: int, next_seek: int, **result: float) -> Window:
    values: dict[str, Any] = {
        "avg_logprob": -0.5,
        "no_speech_prob": 0.0,
        "temperature": 0.0,
        "compression_ratio": 1.0,
        **result,
    }
    found = WindowResult(tokens=(), text="", **values)
    return Window(seek=seek, n_frames=3000, next_seek=next_seek, skipped=False, result=found)


def segment(text: str) -> Segment:
    return Segment(id=0, seek=0, start_s=0.0, end_s=1.0, text=text, tokens=(), temperature=0.0, avg_logprob=0.0,
                   compression_ratio=1.0, no_speech_prob=0.0)  # fmt: skip


def transcript(*texts: str, flags: tuple[Flag, ...] = ()) -> Transcript:
    return Transcript(text="".join(texts), segments=tuple(map(segment, texts)), language="en", duration_s=2.0,
                      language_guess=None, flags=flags)  # fmt: skip


def done(recording: events.Recording, found: Transcript, *outputs: str) -> events.Done:
    return events.Done(recording, outputs, found, audio_s=2.0, elapsed_s=1.23456, windows=3, windows_resumed=1)


def test_events_are_values() -> None:
    assert events.Noted("x") == events.Noted("x")
    with pytest.raises(FrozenInstanceError):
        events.Noted("x").message = "y"  # type: ignore[misc]


def lines_of(event: events.Event, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    write_json_line(event)
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_a_json_line_has_null_for_what_is_no_number_and_times_in_milliseconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    silent = window(0, 2960, avg_logprob=-math.inf, no_speech_prob=math.nan)
    (line,) = lines_of(events.WindowDone(TALK, silent, 29.6, resumed=True), capsys)
    assert (line["avg_logprob"], line["no_speech_prob"], line["next_s"], line["resumed"]) == (None, None, 29.6, True)
    (line,) = lines_of(done(TALK, transcript(" x"), "talk.srt"), capsys)
    assert line == {"event": "file_done", "file": "talk.mp3", "outputs": ["talk.srt"], "language": "en",
                    "duration_s": 2.0, "elapsed_s": 1.235, "windows": 3, "windows_resumed": 1}  # fmt: skip


@pytest.mark.parametrize(
    "event",
    [events.Opened(TALK), events.Resumed(TALK, 1.0, 2.0), events.LanguageKnown(TALK, "en"),
     events.Transcribed(TALK, transcript(" x")), events.Closed(TALK)],
)  # fmt: skip
def test_json_lines_leave_out_events_that_are_in_no_table(
    event: events.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lines_of(event, capsys) == []


def test_a_terminal_gets_a_line_for_each_event_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    names = [replace(TALK, source=f"{number}.mp3") for number in range(5)]
    for event in (
        events.Opened(TALK),
        events.Started(TALK, 60.0, 1),
        events.Resumed(TALK, 61.0, 3700.0),
        events.WindowDone(TALK, window(0, 100), 1.0, resumed=False),
        events.Warned("talk.mp3: odd"),
        done(TALK, transcript(" x", flags=(DROPPED, DROPPED)), "talk.srt"),
        events.Failed("-", AudioError("standard input: is closed")),
        events.Failed("bad\x1b.mp3", AudioError("bad\x1b.mp3: broken")),
        events.Failed("bad.mp3", AudioError("no name in it")),
        *(events.Skipped(one, events.EXISTS, ()) for one in names),
        events.Noted("two\nlines"),
        events.CommandFailed("stopped", kind="stopped"),
        events.Summary(1, 1, 0, 5, 2.0, 2.0, 1.0),
    ):
        terminal(event)
    assert capsys.readouterr().err.splitlines() == [
        "stapes: talk.mp3: goes on at 1:01 of 1:01:40; earlier windows are known from an interrupted run",
        "stapes: warning: talk.mp3: odd",
        f"stapes: talk.mp3: {DROPPED} and 1 more (--mode reference keeps it)",
        "stapes: standard input: is closed",
        r"stapes: bad\x1b.mp3: broken",
        "stapes: bad.mp3: no name in it",
        "stapes: two lines",
        "stapes: stopped",
        "stapes: skipped, as the files are there: 0.mp3, 1.mp3, 2.mp3 and 2 more",
    ]


def test_bars_are_moved_for_lines_and_for_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    made: list[str] = []

    @contextmanager
    def around() -> Iterator[None]:
        made.append("room")
        yield

    terminal, text = Terminal(around), TranscriptText(parse(["talk.mp3"]), around)
    for event in (events.Started(TALK, 2.0, 0), events.WindowDone(TALK, window(0, 100), 1.0, resumed=False),
                  done(TALK, transcript(" x")), events.Closed(TALK)):  # fmt: skip
        terminal(event)
        text(event)
    assert made == []
    terminal(events.Noted("x"))
    text(events.SegmentDone(OTHER, segment(" one"), resumed=False))
    assert made == ["room", "room"]
    assert capsys.readouterr() == ("one\n", "stapes: x\n")


class Screen(io.StringIO):
    """A terminal of some columns."""

    def isatty(self) -> bool:
        return True


def screen(monkeypatch: pytest.MonkeyPatch, columns: int = 60) -> Screen:
    """Put a terminal in the place of standard error; not as a fixture, as pytest replaces it again for the test."""
    made = Screen()
    monkeypatch.setattr("sys.stderr", made)
    for name, value in (("COLUMNS", str(columns)), ("TERM", "xterm"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    return made


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def bars_for(count: int, clock: Clock, n_refused: int = 0) -> Bars:
    bars = Bars(count, n_refused)
    bars._rows.get_time = clock
    return bars


def drawn(bars: Bars, columns: int = 60) -> list[str]:
    console = Console(file=io.StringIO(), width=columns)
    with console.capture() as capture:
        console.print(bars._rows)
    return capture.get().splitlines()


def rows_of(bars: Bars) -> list[str]:
    """Return the rows without their bars, and with single spaces."""
    return [" ".join(re.sub("[━╸╺]+", " ", row).split()) for row in drawn(bars)]


def test_a_bar_counts_speed_and_time_left_from_what_this_run_does(monkeypatch: pytest.MonkeyPatch) -> None:
    screen(monkeypatch)
    bars = bars_for(1, clock := Clock())
    alone = replace(TALK, count=1)
    bars(events.Opened(alone))
    bars(events.Started(alone, 120.0, 1))
    bars(events.WindowDone(alone, window(0, 3000), 30.0, resumed=True))
    assert rows_of(bars) == ["talk.mp3 0:30/2:00"]
    clock.now = 10.0
    bars(events.WindowDone(alone, window(3000, 6000), 30.0, resumed=False))
    assert rows_of(bars) == ["talk.mp3 1:00/2:00 3.0x 00:20 left"]
    bars(events.Closed(alone))
    assert rows_of(bars) == []
    bars(events.Summary(1, 1, 0, 0, 2.0, 2.0, 1.0))
    assert bars._live is None


def test_above_several_bars_stands_one_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    screen(monkeypatch)
    bars = bars_for(4, clock := Clock())
    for recording in (TALK, OTHER):
        bars(events.Opened(recording))
    bars(events.Started(TALK, 120.0, 0))
    clock.now = 10.0
    bars(events.WindowDone(TALK, window(0, 3000), 30.0, resumed=False))
    assert rows_of(bars) == [
        "total 0/4 0:30/~8:00 3.0x 02:30 left", "talk.mp3 0:30/2:00 3.0x 00:30 left", "standard input"
    ]  # fmt: skip
    bars(events.Failed(TALK.source, AudioError("broken")))
    bars(events.Closed(TALK))  # what is left of it is not waited for
    skipped, last = replace(TALK, number=3), replace(TALK, number=4)
    bars(events.Skipped(skipped, events.EXISTS, ()))
    bars(events.Closed(skipped))
    assert rows_of(bars)[0].startswith("total 1/4, 1 failed 0:30/~")
    bars(events.Started(OTHER, 7200.0, 0))
    bars(done(last, transcript(" x")))
    bars(events.Closed(last))
    assert rows_of(bars)[0].startswith("total 2/4, 1 failed 0.01/2.01 h 3.0x")
    bars(events.Closed(OTHER))  # stopped: neither done nor failed
    assert rows_of(bars)[0].startswith("total 2/4, 1 failed")
    bars.end()


@pytest.mark.parametrize("n_sources", [1, 2])
def test_refused_recordings_are_counted_and_are_no_audio_to_come(
    monkeypatch: pytest.MonkeyPatch, n_sources: int
) -> None:
    screen(monkeypatch)
    bars = bars_for(n_sources + 2, Clock(), n_refused=2)
    for name in ("gone.mp3", "none.mp3"):
        bars(events.Failed(name, AudioError("no such file")))
    for recording in (TALK, OTHER)[:n_sources]:
        bars(events.Opened(recording))
        bars(events.Started(recording, 60.0, 0))
    rows = [row for row in rows_of(bars) if row.startswith("total")]
    bars.end()
    assert rows == (["total 0/4, 2 failed 0:00/2:00"] if n_sources == 2 else [])  # one bar alone needs no sum


def test_nothing_is_written_in_the_last_columns_where_the_terminal_shows_ctrl_c(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full row, with spaces at its end too, would move ^C to the next line, and a row would not be wiped."""
    for columns in (30, 60, 100):
        screen(monkeypatch, columns)
        bars = bars_for(2, Clock())
        bars(events.Opened(TALK))
        bars(events.Started(TALK, 60.0, 0))
        assert columns - 5 < max(map(len, drawn(bars, columns))) <= columns - 2
        bars.end()


def on_terminal(monkeypatch: pytest.MonkeyPatch, terminal: Terminal, *shown: events.Event) -> list[str]:
    made = screen(monkeypatch, 200)
    for event in shown:
        terminal(event)
    return made.getvalue().splitlines()


def test_a_line_at_the_end_counts_recordings_and_names_those_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [replace(TALK, source=f"{number}.mp3") for number in range(3)]
    shown = (
        events.Failed("gone\x1b.mp3", AudioError("gone.mp3: no such file")),
        done(TALK, transcript(" x"), "out/talk.vtt", "out/talk.srt"),
        events.Failed("bad.wav", AudioError("bad.wav: broken")),
        events.Skipped(names[0], events.DONE_BEFORE, ()),
        *(events.Skipped(one, events.EXISTS, ()) for one in names[1:]),
        events.Summary(9, 2, 2, 3, 147.0, 30.0, 41.0),
    )
    lines = on_terminal(monkeypatch, Terminal(), *shown)
    assert "stapes: wrote out/talk.vtt, .srt" in lines
    assert lines[-2:] == [
        "stapes: 2 done, 2 failed, 1 done before, 2 skipped, 2 not finished (2:27 in 0:41)",
        r"stapes: failed: gone\x1b.mp3, bad.wav",
    ]
    quiet = on_terminal(monkeypatch, Terminal(quiet=True), *shown)
    assert [line for line in lines if line not in quiet] == ["stapes: wrote out/talk.vtt, .srt", *lines[-2:]]
    assert on_terminal(monkeypatch, Terminal(), events.Summary(3, 3, 0, 0, 9.0, 9.0, 1.0)) == [
        "stapes: 3 done (0:09 in 0:01)"
    ]
    assert on_terminal(monkeypatch, Terminal(), events.Summary(2, 0, 0, 0, 0.0, 0.0, 1.0)) == [
        "stapes: 0 done, 2 not finished"
    ]
    assert on_terminal(monkeypatch, Terminal(), events.Summary(1, 1, 0, 0, 9.0, 9.0, 1.0)) == []
    many = [events.Failed(f"{number}.mp3", AudioError("x")) for number in range(25)]
    assert on_terminal(monkeypatch, Terminal(), *many, events.Summary(25, 0, 25, 0, 0.0, 0.0, 1.0))[-1].endswith(
        "18.mp3, 19.mp3 and 5 more"
    )


@pytest.mark.parametrize("columns", [20, 30, 40, 60, 200])
def test_bars_fit_a_terminal_of_any_width(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    screen(monkeypatch, columns)
    bars = bars_for(2, clock := Clock())
    bars(events.Opened(TALK))
    bars(events.Started(TALK, 360_000.0, 0))
    clock.now = 10.0
    bars(events.WindowDone(TALK, window(0, 3000), 30.0, resumed=False))
    rows = drawn(bars, columns)
    bars.end()
    assert len(rows) == 2
    assert all(len(row.rstrip()) <= columns - 2 * (columns > 20) for row in rows)  # room for ^C
    assert ("3.0x" in rows[0], "left" in rows[0]) == (columns >= 50, columns >= 40)
    assert (rows[0][:5], rows[1][:4]) == ("total", "talk")


def test_a_download_has_a_bar_of_its_largest_file(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = screen(monkeypatch)
    with download_bar() as show:
        show(1, 2)
        show(50_000_000, 100_000_000)
        show(5, 10)
    assert "50.0/100.0 MB" in shown.getvalue()
    assert "5/10 bytes" not in shown.getvalue()


def test_a_long_name_keeps_both_ends() -> None:
    assert shortened("talk.mp3", 12) == "talk.mp3"
    assert shortened("a-very-long-name-1.mp3", 12) == "a-very…1.mp3"


@pytest.mark.parametrize(("n_presses", "n_drawn"), [(0, 1), (1, 1), (2, 1), (3, 0)])
def test_a_second_ctrl_c_does_not_break_off_what_is_drawn_and_a_third_does(n_presses: int, n_drawn: int) -> None:
    drawn: list[events.Event] = []

    def draw(event: events.Event) -> None:
        for _ in range(n_presses):
            batch._interrupt()
        drawn.append(event)

    batch = Batch(
        command=parse(["talk.mp3"]), engine=None, emit=draw, concurrency=1, journal=None, inputs=InputFiles()
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt) if n_presses > 1 else nullcontext():
        batch.emit(events.Noted("x"))
    assert len(drawn) == n_drawn
    if n_presses == 1:  # and between two events the second ends at once
        with pytest.raises(KeyboardInterrupt):
            batch._interrupt()
