"""The helpers and writers of the openai-whisper interface. tests/reference/test_compat_parts.py compares with it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from stapes import output
from stapes.compat.whisper import utils
from stapes.compat.whisper.utils import (
    ResultWriter,
    SubtitlesWriter,
    WriteSRT,
    WriteTXT,
    WriteVTT,
    get_end,
    get_start,
    get_writer,
)
from tests.transcripts import transcript

BARE = {
    "segments": [{"start": 0, "end": 2.5, "text": " Hello -->\tyou "}, {"start": 3600.0, "end": 3661.0009, "text": "B"}]
}


def segment_of(text: str, start_s: float = 0.0) -> dict[str, Any]:
    """Return a segment of words of 0.4 s, with 0.1 s between them."""
    words = [
        {"word": f" {word}", "start": start_s + 0.5 * i, "end": start_s + 0.5 * i + 0.4, "probability": 0.9}
        for i, word in enumerate(text.split())
    ]
    return {"start": start_s, "end": start_s + 0.5 * len(words), "text": f" {text}", "words": words}


WORDS = {"segments": [segment_of("one two three"), segment_of("four five", 2.0), segment_of("six", 9.0)]}


def written(writer: str, result: dict[str, Any], *more: Any, **options: Any) -> str:
    file = io.StringIO()
    get_writer(writer, "").write_result(result, file, *more, **options)  # type: ignore[attr-defined]
    return file.getvalue()


def subtitles(result: dict[str, Any], *more: Any, **options: Any) -> list[str]:
    return [text for _, _, text in WriteVTT("").iterate_result(result, *more, **options)]


# Helpers.


def test_texts_of_a_command_line_are_read():
    assert [utils.str2bool("True"), utils.str2bool("False")] == [True, False]
    assert [utils.optional_int("None"), utils.optional_int("-3")] == [None, -3]
    assert [utils.optional_float("None"), utils.optional_float("2.5")] == [None, 2.5]
    for read, text in ((utils.str2bool, "true"), (utils.optional_int, "2.5"), (utils.optional_float, "x")):
        with pytest.raises(ValueError, match=text):
            read(text)


def test_numbers():
    assert utils.exact_div(480_000, 160) == 3000
    with pytest.raises(AssertionError, match="7 is no multiple of 2"):
        utils.exact_div(7, 2)
    assert utils.compression_ratio("a" * 1000) > 50 > 1 > utils.compression_ratio("ä")


def test_times():
    assert utils.format_timestamp(3661.0009) == "01:01:01.001"
    assert utils.format_timestamp(0, always_include_hours=True, decimal_marker=",") == "00:00:00,000"
    with pytest.raises(AssertionError):
        utils.format_timestamp(-0.1)


def test_text_is_safe_to_print_in_the_default_encoding(monkeypatch):
    assert utils.make_safe("Grüße") == "Grüße"
    monkeypatch.setattr(utils, "system_encoding", "ascii")
    assert utils.make_safe("Grüße") == "Gr??e"


def test_start_and_end_are_those_of_words_else_of_segments():
    assert (get_start(WORDS["segments"]), get_end(WORDS["segments"])) == (0.0, 9.4)
    empty = [{"start": 1.0, "end": 2.0, "words": []}]
    assert (get_start(empty), get_end(empty)) == (1.0, 2.0)
    assert (get_start([]), get_end([])) == (None, None)


# Formats.


@pytest.mark.parametrize("name", ["txt", "vtt", "srt", "tsv", "json"])
@pytest.mark.parametrize("highlight", [False, True])
def test_a_transcript_is_written_as_stapes_writes_it(name, highlight):
    layout = [output.Layout(highlight_words=highlight)] if name in ("vtt", "srt") else []
    expected = getattr(output, f"to_{name}")(transcript(), *layout)
    assert written(name, transcript().to_dict(), highlight_words=highlight) == expected


def test_segments_need_no_more_than_times_and_text():
    assert written("txt", BARE) == "Hello -->\tyou\nB\n"
    assert written("tsv", BARE) == "start\tend\ttext\n0\t2500\tHello --> you\n3600000\t3661001\tB\n"
    assert written("vtt", BARE) == (
        "WEBVTT\n\n00:00.000 --> 00:02.500\nHello ->\tyou\n\n01:00:00.000 --> 01:01:01.001\nB\n\n"
    )
    assert written("srt", BARE) == (
        "1\n00:00:00,000 --> 00:00:02,500\nHello ->\tyou\n\n2\n01:00:00,000 --> 01:01:01,001\nB\n\n"
    )
    assert json.loads(written("json", BARE)) == BARE


def test_nothing_said():
    nothing: dict[str, Any] = {"segments": []}
    assert [written(name, nothing) for name in ("txt", "vtt", "srt", "tsv")] == [
        "", "WEBVTT\n\n", "", "start\tend\ttext\n"
    ]  # fmt: skip


# Subtitles by words.


def test_without_options_a_segment_is_a_subtitle():
    assert subtitles(WORDS) == ["one two three", "four five", "six"]


def test_lines_and_subtitles_are_limited():
    assert subtitles(WORDS, max_line_width=8) == ["one two\nthree", "four\nfive", "six"]
    assert subtitles(WORDS, max_words_per_line=2) == ["one two", "three", "four five", "six"]
    assert subtitles(WORDS, max_line_width=8, max_line_count=1) == ["one two", "three", "four", "five", "six"]
    both = list(WriteVTT("").iterate_result(WORDS, max_line_width=10, max_line_count=2))
    assert both == [  # on from segment to segment, but not over a pause
        ("00:00.000", "00:02.400", "one two\nthree four"),
        ("00:02.500", "00:02.900", "five"),
        ("00:09.000", "00:09.400", "six"),
    ]
    assert subtitles(WORDS, max_line_count=1) == subtitles(WORDS)  # no effect without a width


def test_options_are_keywords_or_a_dict_and_keywords_win():
    options = {"max_line_width": 8, "max_line_count": None, "highlight_words": False, "max_words_per_line": None}
    assert subtitles(WORDS, options) == subtitles(WORDS, max_line_width=8)
    assert subtitles(WORDS, options, max_line_width=100) == subtitles(WORDS)
    with pytest.raises(TypeError, match="max_lines"):
        subtitles(WORDS, max_lines=1)


def test_words_are_underlined_in_turn():
    assert list(WriteSRT("").iterate_result({"segments": [segment_of("one two")]}, highlight_words=True)) == [
        ("00:00:00,000", "00:00:00,400", "<u>one</u> two"),
        ("00:00:00,400", "00:00:00,500", "one two"),
        ("00:00:00,500", "00:00:00,900", "one <u>two</u>"),
    ]


def test_the_result_is_left_as_it_is():
    before = json.dumps(WORDS)
    subtitles(WORDS, max_line_width=5, max_line_count=1, highlight_words=True)
    assert json.dumps(WORDS) == before


# Writers, and classes of other programs.


def test_files_are_named_after_the_recording(tmp_path):
    get_writer("all", str(tmp_path))(BARE, "calls/talk.new.mp3", {"highlight_words": True})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"talk.new.{name}" for name in ("json", "srt", "tsv", "txt", "vtt")
    ]
    get_writer("txt", str(tmp_path))(BARE, "talk.", max_line_width=3)
    assert (tmp_path / "talk.txt").read_text(encoding="utf-8") == written("txt", BARE)


def test_unknown_formats_are_refused():
    with pytest.raises(KeyError, match="ass"):
        get_writer("ass", "")
    with pytest.raises(NotImplementedError):
        ResultWriter("").write_result(BARE, io.StringIO())


def test_a_folder_is_not_needed_to_write_into_an_open_file():
    file = io.StringIO()
    WriteSRT(ResultWriter).write_result(BARE, file=file, options={"max_line_width": 1000})  # type: ignore[arg-type]
    assert file.getvalue() == written("srt", BARE)


def test_other_programs_formats_work(tmp_path):
    class Shouted(WriteTXT):
        extension = "loud"

        def write_result(self, result, file, options=None, **kwargs):
            file.write(f"{kwargs}{options}\n")
            super().write_result({"segments": [{"text": one["text"].upper()} for one in result["segments"]]}, file)

    class Frames(SubtitlesWriter):
        def format_timestamp(self, seconds):
            return f"{seconds * 25:.0f}"

    Shouted(str(tmp_path))(BARE, "talk.mp3", {"a": 1}, b=2)
    assert (tmp_path / "talk.loud").read_text(encoding="utf-8") == "{'b': 2}{'a': 1}\nHELLO -->\tYOU\nB\n"
    assert list(Frames("").iterate_result(WORDS))[1] == ("50", "72", "four five")
