"""Standard output that is closed, gone or of few characters costs no transcript."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

import pytest

from stapes.results import Transcript
from stapes.runtime.printing import Printer, write_text
from stapes.testing import noise, scripted_engine, tone

TALK = noise(65.0, seed=1)
LINES = (" Zażółć gęślą 日本語.", " “Naïve” 😀…", " Plain.")


class Unknowing:
    """Has no encoding, and knows ASCII only."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        text.encode("ascii")
        self.text += text


class Raising:
    encoding = "utf-8"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def write(self, _: str) -> None:
        raise self._error


def encoded(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS: dict[str, Any] = {
    "ascii": encoded("ascii"),
    "cp1252": encoded("cp1252"),
    "none": None,
    "closed": closed(),
    "broken pipe": Raising(BrokenPipeError()),
    "full": Raising(OSError(28, "No space left on device")),
    "odd": Raising(RuntimeError("odd")),
    "without encoding": Unknowing(),
    "not a stream": object(),
}


def transcribed(way: str, **keywords: Any) -> Transcript:
    engine = scripted_engine(LINES)
    if way == "transcribe":
        return engine.transcribe(TALK, **keywords)
    if way == "stream":
        stream = engine.stream(TALK, **keywords)
        assert len(list(stream)) == 3
        return stream.job.result()
    return engine.submit(TALK, **keywords).result()


@pytest.mark.parametrize("way", ["transcribe", "stream", "submit"])
@pytest.mark.parametrize("name", STREAMS)
def test_no_standard_output_costs_a_result(name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = transcribed(way)
    monkeypatch.setattr(sys, "stdout", STREAMS[name])
    assert transcribed(way, verbose=True) == expected


@pytest.mark.parametrize("way", ["transcribe", "stream", "submit"])
def test_every_way_prints_and_takes_fp16_as_transcribe_does(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (None, False):
        transcribed(way, verbose=verbose, fp16=True)
        assert capsys.readouterr().out == ""
    transcribed(way, verbose=True, fp16=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("]")[2].strip() for line in lines] == [line.strip() for line in LINES]
    assert lines[0].startswith("[00:00.000 --> 00:")


@pytest.mark.parametrize("way", ["atranscribe", "astream", "asubmit"])
def test_asyncios_ways_do_too(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    import asyncio  # noqa: PLC0415 (for this test alone)

    async def run() -> None:
        engine = scripted_engine(" Hello.")
        if way == "astream":
            assert [one.text async for one in engine.astream(tone(2.0), verbose=True, fp16=True)] == [" Hello."]
        elif way == "asubmit":
            await (await engine.asubmit(tone(2.0), verbose=True, fp16=True)).aresult()
        else:
            await engine.atranscribe(tone(2.0), verbose=True, fp16=True)

    asyncio.run(run())
    assert capsys.readouterr().out.count("Hello.") == 1


def test_a_callback_of_the_callers_still_gets_windows(capsys: pytest.CaptureFixture[str]) -> None:
    events: list[Any] = []
    scripted_engine(LINES).transcribe(TALK, verbose=True, on_event=events.append)
    n_printed = capsys.readouterr().out.count("\n")
    assert n_printed == 3
    assert sum(len(getattr(event, "segments", ())) for event in events) == 3


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", "Za???? ?\n"),
        ("cp1252", "Za?ó?? ?\n"),
        ("iso2022_jp", "Za???? 日\n"),
        ("utf-8", "Zażółć 日\n"),
        ("utf-16", "Zażółć 日\n"),
    ],
)
def test_characters_that_are_not_known_become_question_marks(encoding: str, expected: str) -> None:
    stream = encoded(encoding)
    write_text(stream, "Zażółć 日\n")
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) == expected  # type: ignore[attr-defined]


def test_a_name_that_is_no_utf8_is_written_too() -> None:
    stream = encoded("utf-8")
    write_text(stream, "\udcff.mp3")
    stream.flush()
    assert stream.buffer.getvalue() == b"?.mp3"  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", [None, "", "klingon", 7])
def test_a_stand_in_may_name_no_encoding_or_a_wrong_one(encoding: Any) -> None:
    stream = Unknowing()
    stream.encoding = encoding  # type: ignore[attr-defined]
    write_text(stream, "ż\n")
    assert stream.text == "?\n"


def test_a_failure_is_logged_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sys, "stdout", closed())
    printer = Printer()
    with caplog.at_level(logging.WARNING, logger="stapes"):
        for _ in range(3):
            printer.line("text")
    (record,) = caplog.records
    assert record.getMessage().startswith("standard output takes no more text, so that verbose prints nothing: ")
