"""For any transcript: readable subtitles keep their limits, and other formats read back."""

from __future__ import annotations

import csv
import html
import io
import math
import re
import unicodedata
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pysubs2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from stapes.output.ass import to_ass
from stapes.output.line_breaks import columns, pieces, visible
from stapes.output.lrc import to_lrc
from stapes.output.readable import Limits, readable_cues
from stapes.output.subtitles import Layout, cues
from stapes.output.writers import SUBTITLE_WRITERS, to_csv, to_srt, to_vtt
from stapes.results import Segment, Transcript, Word
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
    *("{\\k5}", "\\N", "[00:01.00]", "<00:01>", "=1+1", '"', "-->", "\uffff", "a\ufffe"),
]
TEXT = st.text(max_size=12) | st.sampled_from(ODD) | st.text("ab .,-猫が ", max_size=30)
TIME = st.floats(0, 30) | st.sampled_from([0.0, 1e-9, 5.0, 3599.9996, 1e9, 1e15])


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Draw any transcript: words in and out of order, without text, without duration, without end; some have none."""
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
    """Return a text without white space, control characters, and invisible words."""
    return "".join(part for part in visible(text).split() if any(unicodedata.category(one) != "Cf" for one in part))


def slack(time_s: float) -> float:
    """Return how far two sums of times may be apart: a few steps of a float."""
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
def test_another_librarys_reader_finds_the_same_subtitles(transcript: Transcript, layout: Layout) -> None:
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


# Nothing as short as nothing.

#: times of a recording: beyond some years a float knows no milliseconds
SOON = st.integers(0, 400).map(lambda n: n * 0.02) | st.floats(0, 30) | st.sampled_from([0.0, 1e-9, 5.0, 3599.9996])


@st.composite
def collapsed(draw: st.DrawFn) -> Transcript:
    """Draw what word times that went wrong look like: many words at one instant, segments as short as nothing."""
    segments, now_s = [], draw(SOON)
    worded = draw(st.sampled_from(["all", "some", "none"]))
    for number in range(draw(st.integers(0, 4))):
        start_s, words = now_s, []
        for text in draw(st.lists(TEXT, max_size=12)):
            begin_s = now_s + draw(st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.02, 2.0]))
            now_s = begin_s + draw(st.sampled_from([0.0, 0.0, 0.0, 0.0004, 0.01, 0.02, 0.5]))
            words.append(Word(text=text, start_s=begin_s, end_s=now_s, probability=0.5))
        now_s += draw(st.sampled_from([0.0, 0.0, 1.0]))
        has_words = worded == "all" or (worded == "some" and draw(st.booleans()))
        segments.append(
            Segment(
                id=number, seek=0, start_s=start_s, end_s=now_s, text=draw(TEXT), tokens=(1,), temperature=0.0,
                avg_logprob=0.0, compression_ratio=1.0, no_speech_prob=0.0, words=tuple(words) if has_words else None,
            )
        )  # fmt: skip
    return Transcript(text="", segments=tuple(segments), language="en", duration_s=now_s)


def spans_of(format_name: str, text: str) -> list[tuple[int, int]]:
    """Read when each subtitle begins and ends, in the steps of the format, straight from the file."""
    if format_name == "ass":
        fields = [line.split(",", 9) for line in text.split("\n") if line.startswith("Dialogue: ")]
        return [(centiseconds(start), centiseconds(end)) for _, start, end, *_ in fields]
    clock = r"(?:(\d+):)?(\d\d):(\d\d)[.,](\d\d\d)"
    found = re.findall(rf"^{clock} --> {clock}$", text, re.M)
    times = [tuple(int(part or 0) for part in one) for one in found]
    return [tuple(((t[i] * 60 + t[i + 1]) * 60 + t[i + 2]) * 1000 + t[i + 3] for i in (0, 4)) for t in times]  # type: ignore[misc]


def lrc_times(text: str) -> list[list[int]]:
    """Return the times in each line, in hundredths of a second."""
    lines = re.findall(r"^\[\d+:\d\d\.\d\d\].*$", text, re.M)
    times = [re.findall(r"[\[<](\d+):(\d\d)\.(\d\d)[\]>]", line) for line in lines]
    return [[(int(m) * 60 + int(s)) * 100 + int(h) for m, s, h in one] for one in times]


@CALM
@given(collapsed() | transcripts().filter(lambda one: all(s.end_s < 1e9 for s in one.segments)), layouts)
def test_no_subtitle_of_our_layouts_is_as_short_as_nothing(transcript: Transcript, layout: Layout) -> None:
    if any(word.end_s > 1e6 for segment in transcript.segments for word in segment.words or ()):
        return
    written = {"ass": to_ass(transcript, layout)}
    if layout.cue_style == "readable":
        written |= {"srt": to_srt(transcript, layout), "vtt": to_vtt(transcript, layout)}
    for name, text in written.items():
        spans = spans_of(name, text)
        assert all(start < end for start, end in spans), name
        assert all(one[1] <= other[0] for one, other in pairwise(spans)), name
        if name == "ass" or not layout.highlight_words:
            assert len(spans) == len(list(cues(transcript, layout)))
    lines = lrc_times(to_lrc(transcript, layout))
    starts = [line[0] for line in lines]
    assert all(one < other for one, other in pairwise(starts)), starts
    assert all(line == sorted(line) for line in lines)
    for cue in cues(transcript, layout):
        assert re.sub(r"\s", "", cue.text)


@CALM
@given(collapsed())
def test_words_keep_their_order_and_each_lasts(transcript: Transcript) -> None:
    for layout in (Layout(), Layout(cue_style="readable")):
        words = [word for cue in cues(transcript, layout) for word in cue.words]
        assert all(word.end_s - word.start_s > 0.0197 for word in words)
        assert all(one.end_s <= other.start_s for one, other in pairwise(words))


@CALM
@given(sentences(), st.data())
def test_what_is_free_around_an_instant_is_shared_and_no_other_word_is_moved(
    transcript: Transcript, data: st.DataObject
) -> None:
    words = list(transcript.segments[0].words or ())
    first = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(first + 1, len(words)))
    begun_s, ended_s = words[first].start_s, words[end - 1].end_s
    instant_s = data.draw(st.sampled_from([begun_s, ended_s]))
    squeezed = [
        replace(word, start_s=instant_s, end_s=instant_s) if first <= place < end else word
        for place, word in enumerate(words)
    ]
    segment = replace(transcript.segments[0], words=tuple(squeezed))
    found = [word for cue in cues(replace(transcript, segments=(segment,)), Layout()) for word in cue.words]
    for place, (word, before) in enumerate(zip(found, words, strict=True)):
        if not first <= place < end:
            assert (word.start_s, word.end_s) == (before.start_s, before.end_s)
    mine = found[first:end]
    free_s = (words[end].start_s if end < len(words) else ended_s) - (words[first - 1].end_s if first else 0.0)
    wanted_s = sum(max(0.02, len(word.text.strip()) / 17) for word in mine)
    assert mine[-1].end_s - mine[0].start_s == pytest.approx(min(free_s, wanted_s), abs=1e-6)
    assert all(one.end_s == other.start_s for one, other in pairwise(mine))


MARKUP = [
    *("<b>", "</i>", "<00:01.000>", "&amp;", "<", ">", "&", "{\\an8}", "{\\pos(1,1)}", "{y:i}", "\\N", "\\h"),
    *(
        "<font color=red>",
        "<c.loud>",
        "<v Bob>",
        "<!-- ",
        "NOTE x",
        "00:01.000 --> 00:02.000",
        "--",
        "\u202ex",
        "a\x07",
    ),
]


@CALM
@given(st.lists(st.sampled_from(MARKUP), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_no_text_is_markup_in_readable_subtitles(parts: list[str], worded: bool, highlight: bool) -> None:
    words = tuple(
        Word(text=f" {part}", start_s=float(n), end_s=n + 1.0, probability=1.0) for n, part in enumerate(parts)
    )
    segment = Segment(
        id=0, seek=0, start_s=0.0, end_s=float(len(parts)), text=" " + " ".join(parts), tokens=(1,), temperature=0.0,
        avg_logprob=0.0, compression_ratio=1.0, no_speech_prob=0.0, words=words if worded else None,
    )  # fmt: skip
    transcript = Transcript(text="", segments=(segment,), language="en", duration_s=float(len(parts)))
    layout = Layout(cue_style="readable", highlight_words=highlight and worded)
    said = "".join(re.sub("--+>", "->", " ".join(parts)).split())
    for name, text in (("vtt", to_vtt(transcript, layout)), ("srt", to_srt(transcript, layout))):
        body = "\n".join(
            re.sub(r"</?u>", "", line)
            for line in text.removeprefix("WEBVTT").split("\n")
            if " --> " not in line and not re.fullmatch(r"\d+", line)
        )
        assert "-->" not in body
        if name == "vtt":
            assert not set(body) & set("<>")
            read = html.unescape(body)
            assert not re.search(r"&(?!amp;|lt;|gt;)", body)
        else:
            assert not set(body) & set("{}")
            assert not re.search("<(?!\u2060)|\\\\(?!\u2060)", body)
            read = body.replace("\u2060", "").replace("｛", "{").replace("｝", "}")
        if not layout.highlight_words:
            assert "".join(read.split()) == said.replace("\x07", "")
    for event in read_back(to_srt(transcript, layout), "srt"):
        assert not re.search(r"\{(?!\\u[01]\})", event.text)
