"""Whatever the transcript, readable subtitles keep their limits; what other writers write can be read back."""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from itertools import pairwise
from typing import Any

import pysubs2
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from stapes.breaks import columns, pieces, visible
from stapes.cues import Limits, readable_cues
from stapes.karaoke import to_ass
from stapes.lyrics import to_lrc
from stapes.results import Segment, Transcript, Word
from stapes.subtitles import Layout, cues
from stapes.writers import SUBTITLE_WRITERS, to_csv, to_srt, to_vtt
from tests.random_cases import random_cases

# Hypothesis makes its table of characters in the first draw of a fresh checkout: that is slow, and no fault.
CALM = random_cases(50, 2000, suppress_health_check=[HealthCheck.too_slow])

ODD = [
    *(
        "",
        " ",
        "\0",
        "\n",
        " a\u2028b",
        "\u0301",
        "\u200d",
        "\u200b",
        "\ud800",
        "👨\u200d👩\u200d👧",
        "🇩🇪",
        "שלום",
        " مرحبا،",
    ),
    *("猫", "。", "」", "ー", "ที่", "x" * 50, "猫" * 30, "\u0301" * 5, " Mr.", " the", " end.", " well-"),
    *("{\\k5}", "\\N", "[00:01.00]", "<00:01>", "=1+1", '"', "-->"),
]
TEXT = st.text(max_size=12) | st.sampled_from(ODD) | st.text("ab .,-猫が ", max_size=30)
TIME = st.floats(0, 30) | st.sampled_from([0.0, 1e-9, 5.0, 3599.9996, 1e9, 1e15])


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Draw any transcript: words in and out of order, without text, as long as nothing, for ever; some have none."""
    segments = []
    worded = draw(st.sampled_from(["all", "some", "none"]))
    for number in range(draw(st.integers(0, 4))):
        start_s, end_s = sorted((draw(TIME), draw(TIME)))
        words = draw(st.lists(st.builds(_word, TEXT, TIME, st.floats(0, 3) | TIME), max_size=12))
        has_words = worded == "all" or (worded == "some" and draw(st.booleans()))
        segments.append(
            Segment(
                id=number, seek=0, start_s=start_s, end_s=end_s, text=draw(TEXT), tokens=(1,), temperature=0.0,
                avg_logprob=0.0, compression_ratio=1.0, no_speech_prob=0.0, words=tuple(words) if has_words else None,
            )
        )  # fmt: skip
    return Transcript(text="", segments=tuple(segments), language="en", duration_s=draw(TIME))


def _word(text: str, start_s: float, length_s: float) -> Word:
    return Word(text=text, start_s=start_s, end_s=start_s + length_s, probability=0.5)


limits = st.builds(
    Limits,
    line_width=st.sampled_from([2, 3, 8, 42]),
    line_count=st.sampled_from([1, 2, 3]),
    chars_per_second=st.sampled_from([0.5, 17.0, 1000.0]),
    min_duration_s=st.sampled_from([0.001, 1.0]),
    max_duration_s=st.sampled_from([1.0, 7.0, 1e6]),
)
layouts = st.builds(
    Layout, cue_style=st.just("readable"), highlight_words=st.booleans(), max_line_width=st.sampled_from([None, 2, 20])
) | st.builds(Layout, max_line_width=st.sampled_from([None, 8]), max_line_count=st.sampled_from([None, 2]))


def shown(text: str) -> str:
    """Give a text without white space, control characters, and words that nobody sees."""
    return "".join(part for part in visible(text).split() if any(unicodedata.category(one) != "Cf" for one in part))


def slack(time_s: float) -> float:
    """Give how far two sums of times may be apart: a few steps of a float."""
    return 8 * math.ulp(max(1.0, abs(time_s)))


@CALM
@given(transcripts(), limits)
def test_what_is_held_for_any_words(transcript: Transcript, limits: Limits) -> None:
    found = list(readable_cues(transcript.segments, limits))
    for cue in found:
        lines = cue.text.split("\n")
        assert len(lines) <= limits.line_count
        for line in lines:
            assert line == line.strip(" ") != ""
            assert columns(line) <= limits.line_width
        assert cue.start_s <= cue.end_s
        assert cue.end_s - cue.start_s <= limits.max_duration_s + slack(cue.end_s)
    assert all(one.end_s <= other.start_s for one, other in pairwise(found))
    said = [word.text for segment in transcript.segments for word in segment.words or [_word(segment.text, 0, 0)]]
    assert "".join(shown(cue.text) for cue in found) == "".join(map(shown, said))


@CALM
@given(transcripts(), limits, TIME)
def test_a_subtitle_stands_as_long_as_it_should_where_the_next_one_and_the_recording_allow(
    transcript: Transcript, limits: Limits, duration_s: float
) -> None:
    found = list(readable_cues(transcript.segments, limits, duration_s))
    starts = {piece.start_s for piece in pieces(transcript.segments, limits.line_width, limits.max_duration_s)}
    for number, cue in enumerate(found, 1):
        following = found[number] if number < len(found) else None
        assert cue.start_s in starts
        width = sum(columns(line) + 1 for line in cue.text.split("\n")) - 1
        wanted_s = cue.start_s + max(limits.min_duration_s, width / limits.chars_per_second)
        allowed_s = min(following.start_s if following else math.inf, cue.start_s + limits.max_duration_s, duration_s)
        assert cue.end_s >= min(wanted_s, allowed_s) - slack(cue.end_s)


@st.composite
def sentences(draw: st.DrawFn) -> Transcript:
    """Draw words as speech has them: each after the other, with text."""
    words, now_s = [], 0.0
    for text in draw(st.lists(st.from_regex(r" [a-z]{1,9}[.,]?", fullmatch=True), min_size=1, max_size=40)):
        start_s = now_s + draw(st.sampled_from([0.0, 0.0, 0.1, 0.7, 4.0]))
        now_s = start_s + draw(st.floats(0.05, 1.0))
        words.append(Word(text=text, start_s=start_s, end_s=now_s, probability=1.0))
    whole = Segment(
        id=0, seek=0, start_s=0.0, end_s=now_s, text="".join(word.text for word in words), tokens=(1,), temperature=0.0,
        avg_logprob=0.0, compression_ratio=1.0, no_speech_prob=0.0, words=tuple(words),
    )  # fmt: skip
    return Transcript(text=whole.text, segments=(whole,), language="en", duration_s=now_s)


@CALM
@given(sentences())
def test_times_are_the_words_and_none_is_hidden_while_it_is_said(transcript: Transcript) -> None:
    words = list(transcript.segments[0].words or ())
    for cue in cues(transcript, Layout(cue_style="readable")):
        mine, words = words[: len(cue.words)], words[len(cue.words) :]
        assert [word.text.strip() for word in cue.words] == [word.text.strip() for word in mine]
        assert cue.start_s == mine[0].start_s
        assert cue.end_s >= mine[-1].end_s
    assert words == []


@CALM
@given(transcripts(), layouts)
def test_every_writer_takes_every_transcript(transcript: Transcript, layout: Layout) -> None:
    for write in SUBTITLE_WRITERS.values():
        write(transcript, layout).encode(errors="replace")


def read_back(text: str, format_name: str) -> list[Any]:
    return list(pysubs2.SSAFile.from_string(text, format_=format_name))


@CALM
@given(transcripts(), layouts)
def test_ass_reads_back_and_its_syllables_last_as_long_as_their_event(transcript: Transcript, layout: Layout) -> None:
    whole = to_ass(transcript, layout)
    events = [line for line in whole.split("\n") if line.startswith("Dialogue: ")]
    found = list(cues(transcript, layout))
    assert len(events) == len(found)
    for line, cue in zip(events, found, strict=True):
        _, start, end, *_, text = line.split(",", 9)
        length = centiseconds(end) - centiseconds(start)
        assert length >= 0
        syllables = [int(digits) for digits in re.findall(r"\{\\k(\d+)\}", text)]
        assert sum(syllables) == (length if cue.words else 0)
        plain = re.sub(r"\{\\k\d+\}", "", text)
        assert not set(plain) & set("{}")
        assert plain.count(r"\N") == cue.text.count("\n")


@CALM
@given(sentences(), layouts)
def test_somebody_elses_reader_finds_the_same_subtitles(transcript: Transcript, layout: Layout) -> None:
    expected = list(cues(transcript, layout))
    assert [plain(event) for event in read_back(to_ass(transcript, layout), "ass")] == [
        (round(100 * cue.start_s) * 10, round(100 * cue.end_s) * 10, cue.text) for cue in expected
    ]
    if not layout.highlight_words:
        for name, write in (("srt", to_srt), ("vtt", to_vtt)):
            found = read_back(write(transcript, layout), name)
            assert [plain(event) for event in found] == [
                (round(1000 * cue.start_s), round(1000 * cue.end_s), cue.text) for cue in expected
            ]


def plain(event: Any) -> tuple[int, int, str]:
    return event.start, event.end, event.plaintext


def centiseconds(clock: str) -> int:
    hours, minutes, seconds = clock.split(":")
    return (int(hours) * 60 + int(minutes)) * 6000 + round(float(seconds) * 100)


@CALM
@given(transcripts(), layouts)
def test_lrc_times_never_run_backwards_and_text_is_no_tag(transcript: Transcript, layout: Layout) -> None:
    head, _, body = to_lrc(transcript, layout).partition("\n")
    assert head == "[re:stapes]"
    found = list(cues(transcript, layout))
    times, n_lines = [], 0
    for line in body.split("\n")[1:-1]:
        match = re.fullmatch(r"\[(\d{2,}):(\d\d)\.(\d\d)\](.*)", line)
        assert match, line
        assert not re.match(r"\[[^\[\]]*:[^\[\]]*\]", match[4])
        times.append(match.groups()[:3])
        times += re.findall(r"<(\d{2,}):(\d\d)\.(\d\d)>", match[4])
        n_lines += bool(match[4]) or not re.sub(r"\s", "", visible(found[n_lines].text) if found[n_lines:] else "x")
    marks = [(int(minutes) * 60 + int(seconds)) * 100 + int(rest) for minutes, seconds, rest in times]
    assert marks == sorted(marks)
    if layout.cue_style == "readable":
        assert n_lines == len(found)


@CALM
@given(transcripts())
def test_csv_reads_back_and_no_cell_is_a_formula(transcript: Transcript) -> None:
    rows = list(csv.reader(io.StringIO(to_csv(transcript), newline=""), strict=True))
    assert rows[0] == ["start", "end", "text"]
    assert len(rows) == len(transcript.segments) + 1
    for (start, end, text), segment in zip(rows[1:], transcript.segments, strict=True):
        assert (int(start), int(end)) == (round(1000 * segment.start_s), round(1000 * segment.end_s))
        assert text[:1] not in tuple("=+-@＝＋－＠")
        original = re.sub("^'(?='*[=+\\-@＝＋－＠])", "", text)
        assert original == " ".join(visible(segment.text).split())
