"""Readable WebVTT as a browser's <track> reads it: every subtitle, its times, its text, and no markup."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stapes.output.subtitles import Layout, cues, without_arrows
from stapes.output.writers import to_vtt
from stapes.results import Transcript, Word
from tests.browser.chromium import Browser, needs_chromium
from tests.transcripts import segment

pytestmark = needs_chromium
#: reads a file as a <track> does, and gives [start, end, text without markup] of its subtitles
READ = """async (data) => {
  const video = document.createElement("video"), track = document.createElement("track");
  track.src = "data:text/vtt;base64," + data;
  video.append(track);
  document.body.append(video);
  track.track.mode = "hidden";
  await new Promise((done, failed) => { track.onload = done; track.onerror = failed; });
  return [...track.track.cues].map((cue) => [cue.startTime, cue.endTime, cue.getCueAsHTML().textContent]);
}"""
#: what might end a subtitle, a tag or a file, each said at the instant at which the one before it was
HOSTILE = (
    *(" <b>", " <00:01.000>", " <v Bob>", " <c.loud", " &amp;", " &lt", " &nbsp;", " &", "<", " >", " -->", " <!--"),
    *("\n\n", " WEBVTT", " NOTE x", " 00:01.000 --> 00:02.000", "\r\n\r\n", "\u2028\u2029", "\x85", "\0", "\x1b[31m"),
    *(
        "\uffff",
        " after\ufffe",
        " \U0001ffff",
        "\u202e",
        " \u2066שלום",
        "\ud800",
        "\ufeff",
        " 猫。",
        " " + "w" * 90,
        "",
    ),
)


STYLES: tuple[dict[str, Any], ...] = (
    {}, {"max_line_width": 8, "max_line_count": 1}, {"max_cue_duration": 0.05, "min_cue_duration": 0.02}
)  # fmt: skip


def test_a_track_has_every_readable_subtitle(tmp_path: Path) -> None:
    (tmp_path / "empty.html").write_text("<!DOCTYPE html><title>empty</title>", encoding="utf-8")
    with Browser(tmp_path / "profile") as browser:
        browser.open(tmp_path / "empty.html")
        for style in STYLES:
            for lasting_s in (0.0, 0.5):
                _check(browser, said(lasting_s), Layout(cue_style="readable", **style))


def said(lasting_s: float) -> Transcript:
    words = tuple(
        Word(text=text, start_s=number * lasting_s, end_s=(number + 1) * lasting_s, probability=1.0)
        for number, text in enumerate(HOSTILE * 2)
    )
    one = replace(segment(0, "x", seek=0, start_s=0.0, probabilities=(1.0,)), words=words)
    return Transcript(text="", segments=(one,), language="en", duration_s=40.0)


def _check(browser: Browser, transcript: Transcript, layout: Layout) -> None:
    written = to_vtt(transcript, layout).encode("utf-8", errors="replace")
    read = browser.value(f"({READ})({json.dumps(base64.b64encode(written).decode())})")
    wanted = list(cues(transcript, layout))
    assert [text for _, _, text in read] == [without_arrows(cue.text).replace("\ud800", "?") for cue in wanted]
    assert [time for start, end, _ in read for time in (start, end)] == pytest.approx(
        [time for cue in wanted for time in (cue.start_s, cue.end_s)], abs=0.00051
    )
    assert all(start < end for start, end, _ in read)
    shown = "".join("".join(text for _, _, text in read).split())
    assert all(text in shown for text in ("<v", "&nbsp;", "after", "<!--", "w" * 90))
