"""Subtitles from words: lines, breaks, pauses, underlining, and text that must not be in a subtitle."""

from __future__ import annotations

from typing import Any

import pytest

from stapes.errors import OptionError
from stapes.output.subtitles import Layout
from stapes.output.writers import to_srt, to_vtt, write_files
from stapes.results import Segment, Transcript, Word


def transcript(*segments: list[tuple[str, float, float]]) -> Transcript:
    made = tuple(
        Segment(
            id=number, seek=0, start_s=words[0][1], end_s=words[-1][2], text="".join(word[0] for word in words),
            tokens=(1,), temperature=0.0, avg_logprob=0.0, compression_ratio=1.0, no_speech_prob=0.0,
            words=tuple(Word(text=text, start_s=start, end_s=end, probability=1.0) for text, start, end in words),
        )
        for number, words in enumerate(segments)
    )  # fmt: skip
    return Transcript(text="".join(one.text for one in made), segments=made, language="en", duration_s=99.0)


TALK = transcript(
    [(" One", 0.0, 0.5), (" two", 0.5, 1.0), (" three.", 1.0, 1.5)],
    [(" Four", 2.0, 2.5), (" five.", 2.5, 3.0)],
    [(" Six.", 9.0, 9.5)],
)


def cues(**layout: Any) -> list[str]:
    """Return each subtitle as "start-end text" in seconds."""
    blocks = to_vtt(TALK, Layout(**layout)).removeprefix("WEBVTT\n\n").split("\n\n")[:-1]
    found = []
    for block in blocks:
        times, _, text = block.partition("\n")
        start, end = (float(time.split(":")[1]) for time in times.split(" --> "))
        found.append(f"{start:g}-{end:g} {text}")
    return found


def test_every_segment_is_a_subtitle_unless_something_else_is_asked_for() -> None:
    assert cues() == ["0-1.5 One two three.", "2-3 Four five.", "9-9.5 Six."]


def test_words_are_counted() -> None:
    assert cues(max_words_per_line=2) == ["0-1 One two", "1-1.5 three.", "2-3 Four five.", "9-9.5 Six."]


def test_lines_break_where_they_are_full() -> None:
    assert cues(max_line_width=8) == ["0-1.5 One two\nthree.", "2-3 Four\nfive.", "9-9.5 Six."]


def test_subtitles_go_on_from_segment_to_segment_where_lines_are_counted_and_end_at_a_long_pause() -> None:
    assert cues(max_line_width=20, max_line_count=2) == ["0-3 One two three. Four\nfive.", "9-9.5 Six."]
    assert cues(max_line_width=8, max_line_count=1) == [
        "0-1 One two", "1-1.5 three.", "2-2.5 Four", "2.5-3 five.", "9-9.5 Six.",
    ]  # fmt: skip


def test_each_word_is_underlined_while_it_is_spoken() -> None:
    assert cues(highlight_words=True, max_words_per_line=2)[:3] == [
        "0-0.5 <u>One</u> two", "0.5-1 One <u>two</u>", "1-1.5 <u>three.</u>",
    ]  # fmt: skip
    with_pause = transcript([(" a", 0.0, 0.5), (" b", 1.0, 1.5)])
    assert to_srt(with_pause, Layout(highlight_words=True)).split("\n")[4:7] == [
        "2", "00:00:00,500 --> 00:00:01,000", "a b",
    ]  # fmt: skip


def test_a_word_with_an_arrow_or_a_line_break_breaks_no_subtitle() -> None:
    odd = transcript([(" a\n\nb", 0.0, 0.5), (" --", 0.5, 1.0), (">", 1.0, 1.5)])
    assert to_srt(odd) == "1\n00:00:00,000 --> 00:00:01,500\na b ->\n\n"


def test_segments_that_lost_their_words_stay_out(tmp_path: Any) -> None:
    empty = transcript()
    assert to_vtt(empty, Layout(max_line_width=5)) == "WEBVTT\n\n"
    (path,) = write_files(TALK, "srt", tmp_path, "talk", Layout(max_words_per_line=1))
    assert path.read_text(encoding="utf-8").count(" --> ") == 6


@pytest.mark.parametrize("value", [-1, 2.5, True, "3"])
def test_layouts_that_cannot_be_are_refused(value: Any) -> None:
    with pytest.raises(OptionError, match="max_line_width must be a whole number"):
        Layout(max_line_width=value)
