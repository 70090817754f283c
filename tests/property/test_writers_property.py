"""For any text, subtitles parse back to the same cues, in order; files equal those of the reference."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from io import StringIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stapes.output.subtitles import Layout
from stapes.output.writers import (
    REFERENCE_FORMATS,
    SUBTITLE_WRITERS,
    WRITERS,
    one_line,
    to_json,
    to_srt,
    to_tsv,
    to_txt,
    to_vtt,
)
from stapes.results import Segment, Transcript, Word
from tests.random_cases import random_cases

TEXT = st.text(max_size=40) | st.text(alphabet="-> \n\r\t\v\x85\u2028a1:,.&<", max_size=20)

# Hypothesis makes its table of characters in the first draw of a fresh checkout: that is slow, and no fault.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def transcripts(draw: st.DrawFn, text: st.SearchStrategy[str] = TEXT) -> Transcript:
    """Draw segments as the loop gives them: times in steps of 20 ms or odd floats, never backwards."""
    segments = []
    time_s = draw(st.sampled_from([0.0, 29.98, 3599.9995]))
    step_s = st.integers(0, 1500).map(lambda n: n * 0.02) | st.floats(0, 40)
    for number in range(draw(st.integers(0, 6))):
        start_s = time_s + draw(step_s)
        time_s = start_s + draw(step_s)
        segments.append(
            Segment(
                id=number,
                seek=0,
                start_s=start_s,
                end_s=time_s,
                text=draw(text),
                tokens=(1, 2),
                temperature=0.0,
                avg_logprob=-0.5,
                compression_ratio=1.0,
                no_speech_prob=0.0,
            )
        )
    whole = "".join(segment.text for segment in segments)
    return Transcript(text=whole, segments=tuple(segments), language="en", duration_s=time_s)


def milliseconds(clock: str) -> int:
    *hours, minutes, seconds, fraction = (int(part) for part in re.split("[:.,]", clock))
    return ((sum(hours) * 60 + minutes) * 60 + seconds) * 1000 + fraction


Cue = tuple[int, int, str]


def parse_cues(body: str) -> list[Cue]:
    """Read subtitles as players do: a line with an arrow opens a cue, a blank line ends it."""
    cues: list[Cue] = []
    lines = iter(re.split("\r\n|\n|\r", body))
    for line in lines:
        if "-->" in line:
            start, end = (milliseconds(clock.strip()) for clock in line.split("-->"))
            text = []
            while next_line := next(lines, ""):
                text.append(next_line)
            cues.append((start, end, "\n".join(text)))
    return cues


def expected_cues(transcript: Transcript) -> list[Cue]:
    return [
        (round(s.start_s * 1000.0), round(s.end_s * 1000.0), re.sub("--+>", "->", one_line(s.text)))
        for s in transcript.segments
    ]


@CALM
@given(transcripts())
def test_subtitles_parse_back_and_never_run_backwards(transcript: Transcript) -> None:
    for body in (to_srt(transcript), to_vtt(transcript)):
        cues = parse_cues(body)
        assert cues == expected_cues(transcript)
        edges = [edge for start, end, _ in cues for edge in (start, end)]
        assert edges == sorted(edges)


@CALM
@given(transcripts())
def test_srt_numbers_count_up(transcript: Transcript) -> None:
    blocks = to_srt(transcript).split("\n\n")
    assert blocks[-1].strip() == ""
    numbers = re.findall(r"(?:^|\n\n)\n?(\d+)\n[\d:,]+ --> ", to_srt(transcript))
    assert [int(number) for number in numbers] == list(range(1, len(transcript.segments) + 1))


@CALM
@given(transcripts())
def test_txt_and_tsv_have_a_line_per_segment(transcript: Transcript) -> None:
    assert to_txt(transcript).splitlines() == [one_line(s.text) for s in transcript.segments]
    rows = [line.split("\t") for line in to_tsv(transcript).split("\n")[1:-1]]
    assert [(int(start), int(end), text) for start, end, text in rows] == [
        (round(1000 * s.start_s), round(1000 * s.end_s), one_line(s.text).replace("\t", " "))
        for s in transcript.segments
    ]


@CALM
@given(transcripts())
def test_json_parses_back(transcript: Transcript) -> None:
    assert to_json(transcript).isascii()
    assert json.loads(to_json(transcript)) == transcript.to_dict()


@CALM
@given(transcripts())
def test_every_format_has_a_utf8_form(transcript: Transcript) -> None:
    for write in WRITERS.values():
        assert write(transcript).encode().decode() == write(transcript)


@st.composite
def worded(draw: st.DrawFn, text: st.SearchStrategy[str] = TEXT) -> Transcript:
    """Draw a transcript whose segments have words, some none."""
    whole = draw(transcripts(text))
    segments = []
    for segment in whole.segments:
        edges = sorted(draw(st.lists(st.floats(segment.start_s, segment.end_s), min_size=2, max_size=14)))
        times = list(zip(edges[::2], edges[1::2], strict=False)) if draw(st.integers(0, 5)) else []
        words = tuple(
            Word(text=draw(st.sampled_from(["", " "])) + draw(text), start_s=start, end_s=end, probability=0.5)
            for start, end in times
        )
        segments.append(replace(segment, words=words))
    return replace(whole, segments=tuple(segments))


layouts = st.builds(
    Layout,
    highlight_words=st.booleans(),
    max_line_width=st.sampled_from([None, 0, 1, 8, 30]),
    max_line_count=st.sampled_from([None, 0, 1, 2]),
    max_words_per_line=st.sampled_from([None, 0, 1, 3]),
)


@CALM
@given(worded(), layouts)
def test_subtitles_of_words_parse_back_and_never_run_backwards(transcript: Transcript, layout: Layout) -> None:
    n_words = sum(len(segment.words or ()) for segment in transcript.segments)
    for body in (to_srt(transcript, layout), to_vtt(transcript, layout)):
        cues = parse_cues(body)
        assert len(cues) <= 2 * n_words
        assert (len(cues) > 0) == (n_words > 0)
        edges = [edge for start, end, _ in cues for edge in (start, end)]
        assert edges == sorted(edges)
        assert not any("-->" in text for _, _, text in cues)


def has_a_line_break(text: str) -> bool:
    return len(text.strip().splitlines()) > 1


@pytest.mark.reference
@random_cases(150, 5000, suppress_health_check=[HealthCheck.too_slow])
@given(transcripts(TEXT.filter(lambda text: not has_a_line_break(text) and "--->" not in text)))
def test_every_file_is_the_references_byte_for_byte(transcript: Transcript) -> None:
    utils = pytest.importorskip("whisper.utils", reason="needs openai-whisper")
    assert sys.getdefaultencoding() == "utf-8"
    for name in REFERENCE_FORMATS:
        file = StringIO(newline="\n")
        utils.get_writer(name, "").write_result(transcript.to_dict(), file)
        assert WRITERS[name](transcript) == file.getvalue(), name


@pytest.mark.reference
@random_cases(150, 5000, suppress_health_check=[HealthCheck.too_slow])
@given(
    worded(
        TEXT.filter(
            lambda text: not text.splitlines()[1:] and not re.search("[->\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", text)
        )
    ),
    layouts,
)
def test_every_layout_is_the_references_byte_for_byte(transcript: Transcript, layout: Layout) -> None:
    utils = pytest.importorskip("whisper.utils", reason="needs openai-whisper")
    of_the_reference = ("highlight_words", "max_line_width", "max_line_count", "max_words_per_line")
    options = {name: getattr(layout, name) for name in of_the_reference}
    for name in ("vtt", "srt"):
        file = StringIO(newline="\n")
        utils.get_writer(name, "").write_result(transcript.to_dict(), file, **options)
        assert SUBTITLE_WRITERS[name](transcript, layout) == file.getvalue(), name
