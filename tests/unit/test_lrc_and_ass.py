"""LRC, ASS and CSV against text made by hand: times, escapes, and formulas for spreadsheets."""

from __future__ import annotations

from pathlib import Path

import pysubs2
import pytest

from stapes.output.ass import to_ass
from stapes.output.lrc import to_lrc
from stapes.output.subtitles import Layout
from stapes.output.writers import to_csv, to_srt, to_vtt, write_files
from stapes.results import Segment, Transcript, Word


def segment(text: str, start_s: float, end_s: float, *words: tuple[str, float, float]) -> Segment:
    made = tuple(Word(text=word, start_s=start, end_s=end, probability=1.0) for word, start, end in words)
    return Segment(
        id=0, seek=0, start_s=start_s, end_s=end_s, text=text, tokens=(1,), temperature=0.0, avg_logprob=0.0,
        compression_ratio=1.0, no_speech_prob=0.0, words=made or None,
    )  # fmt: skip


def transcript(*segments: Segment) -> Transcript:
    return Transcript(text="", segments=segments, language="en", duration_s=6012.34)


SUNG = transcript(
    segment(" Hello world.", 1.0, 2.5, (" Hello", 1.0, 1.5), (" world.", 1.75, 2.5)),
    segment("你好", 3.0, 4.0, ("你", 3.0, 3.5), ("好", 3.5, 4.0)),
    segment(" End.", 6000.0, 6001.0, (" End.", 6000.0, 6001.0)),
)
PLAIN = transcript(segment(" Hello\nworld.", 1.0, 2.5), segment(" Again.", 2.5, 4.0))


def test_lrc_has_when_each_word_begins_and_clears_the_screen_in_silence() -> None:
    assert to_lrc(SUNG) == (
        "[re:stapes]\n[length:100:12.34]\n"
        "[00:01.00]<00:01.00>Hello <00:01.75>world.<00:02.50>\n"
        "[00:03.00]<00:03.00>你<00:03.50>好<00:04.00>\n"
        "[00:04.00]\n"
        "[100:00.00]<100:00.00>End.<100:01.00>\n"
        "[100:01.00]\n"
    )


def test_lrc_without_words_has_a_time_for_each_line() -> None:
    lines = to_lrc(PLAIN).splitlines()[2:]
    assert lines == ["[00:01.00]Hello world.", "[00:02.50]Again.", "[00:04.00]"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[00:12.00] a", "(00:12.00) a"),
        ("[ar: me]", "(ar: me)"),
        ("a <00:01> b", "a (00:01) b"),
        ("[Music]", "[Music]"),
        ("1 < 2: a > b", "1 < 2: a > b"),
        ("a\0b", "ab"),
    ],
)
def test_text_is_no_tag_in_lrc(text: str, expected: str) -> None:
    assert to_lrc(transcript(segment(text, 0.0, 1.0))).splitlines()[2] == f"[00:00.00]{expected}"


def events(made: str) -> list[str]:
    return [line for line in made.splitlines() if line.startswith("Dialogue:")]


def test_ass_lights_words_up_and_counts_silence() -> None:
    assert events(to_ass(SUNG)) == [
        r"Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,{\k50}Hello{\k25} {\k75}world.",
        r"Dialogue: 0,0:00:03.00,0:00:04.00,Default,,0,0,0,,{\k50}你{\k50}好",
        r"Dialogue: 0,1:40:00.00,1:40:01.00,Default,,0,0,0,,{\k100}End.",
    ]


def test_ass_has_what_players_look_for() -> None:
    head = to_ass(transcript())
    sections = [line for line in head.splitlines() if line.startswith("[")]
    assert sections == ["[Script Info]", "[V4+ Styles]", "[Events]"]
    assert "ScriptType: v4.00+\n" in head
    names = {line.partition(":")[0]: line.count(",") for line in head.splitlines() if "," in line}
    assert names == {"Format": 9, "Style": 22}  # ten fields of an event; twenty-three of a style, as named before it
    assert [line.count(",") for line in head.splitlines() if line.startswith("Format:")] == [22, 9]


def test_ass_without_words_is_plain_and_lines_break_where_the_layout_has_them() -> None:
    assert events(to_ass(PLAIN))[0].endswith(",,Hello world.")
    broken = to_ass(SUNG, Layout(cue_style="readable", max_line_width=6))
    assert events(broken)[0].endswith(r",,{\k50}Hello{\k25}\N{\k75}world.")
    assert events(broken)[0].startswith("Dialogue: 0,0:00:01.00,0:00:02.50,")


@pytest.mark.parametrize(
    ("text", "expected"),
    [(r"{\b1}x", "｛\\\u2060b1｝x"), (r"a\Nb", "a\\\u2060Nb"), ("a\r\nb", "a b"), ("a,b", "a,b"), ("a\0b", "ab")],
)
def test_text_is_no_command_in_ass(text: str, expected: str) -> None:
    for spoken in (segment(text, 0.0, 1.0), segment(text, 0.0, 1.0, (text, 0.0, 1.0))):
        made = events(to_ass(transcript(spoken)))[0].split(",,")[-1]
        assert made.removeprefix(r"{\k100}") == expected


def test_a_length_is_the_difference_of_rounded_times() -> None:
    thirds = transcript(segment(" a b c", 0.0, 1.0, (" a", 0.0, 1 / 3), (" b", 1 / 3, 2 / 3), (" c", 2 / 3, 1.0)))
    assert events(to_ass(thirds))[0].endswith(r"{\k33}a {\k34}b {\k33}c")


def test_csv_has_milliseconds_and_quoted_text() -> None:
    assert to_csv(transcript(segment(' She said, "no".\n', 0.0, 3.28))) == (
        'start,end,text\n0,3280,"She said, ""no""."\n'
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ('=HYPERLINK("x")', '\'=HYPERLINK(""x"")'),
        (" - Hello.", "'- Hello."),
        ("+49", "'+49"),
        ("@home", "'@home"),
        ("＝１", "'＝１"),
        ("\t=1", "'=1"),
        ("'=1", "''=1"),
        ("'Twas", "'Twas"),
        ("a=1", "a=1"),
    ],
)
def test_csv_has_no_formula(text: str, cell: str) -> None:
    assert to_csv(transcript(segment(text, 0.0, 1.0))).splitlines()[1] == f'0,1000,"{cell}"'


def test_files_are_written_as_their_formats_are_laid_out(tmp_path: Path) -> None:
    layout = Layout(cue_style="readable", max_line_width=6, max_line_count=1)
    paths = write_files(SUNG, "csv,lrc,ass", tmp_path, "song", layout)
    assert [path.name for path in paths] == ["song.csv", "song.lrc", "song.ass"]
    assert paths[0].read_text(encoding="utf-8") == to_csv(SUNG)
    assert paths[1].read_text(encoding="utf-8") == to_lrc(SUNG, layout)
    assert len(events(paths[2].read_text(encoding="utf-8"))) == 4


AT_ONCE = transcript(
    segment(
        " One two three four.",
        0.0,
        4.0,
        (" One", 0.0, 1.0),
        (" two", 1.0, 1.0),
        (" three", 1.0, 1.0),
        (" four.", 3.0, 4.0),
    ),
    segment(" Five.", 4.0, 4.0, (" Five.", 4.0, 4.0)),
    segment(" Six.", 4.0, 5.0, (" Six.", 4.0, 5.0)),
)


def test_words_at_one_instant_share_the_time_after_it() -> None:
    first, second, third = events(to_ass(AT_ONCE))
    assert first.endswith(r",,{\k100}One {\k18}two {\k29}three{\k153} {\k98}four.")
    assert first.startswith("Dialogue: 0,0:00:00.00,0:00:03.98,")  # gives two hundredths to the next
    assert second.startswith("Dialogue: 0,0:00:03.98,0:00:04.00,")
    assert third.startswith("Dialogue: 0,0:00:04.00,0:00:05.00,")
    assert to_lrc(AT_ONCE).splitlines()[2:5] == [
        "[00:00.00]<00:00.00>One <00:01.00>two <00:01.18>three <00:03.00>four.<00:03.98>",
        "[00:03.98]<00:03.98>Five.<00:04.00>",
        "[00:04.00]<00:04.00>Six.<00:05.00>",
    ]


def test_segments_at_one_instant_share_the_time_too_and_empty_ones_are_no_subtitles() -> None:
    made = transcript(
        segment(" Yes.", 1.0, 1.0), segment("", 2.0, 2.0), segment(" No.", 3.0, 3.0), segment(" ", 3.0, 3.0)
    )
    assert [line.split(",")[1:3] for line in events(to_ass(made))] == [
        ["0:00:01.00", "0:00:01.24"], ["0:00:02.82", "0:00:03.00"],
    ]  # fmt: skip
    assert to_lrc(made).splitlines()[2:] == [
        "[00:01.00]Yes.", "[00:01.24]", "[00:02.82]No.", "[00:03.00]",
    ]  # fmt: skip


def test_plain_srt_and_vtt_keep_the_reference_s_bytes() -> None:
    assert to_srt(AT_ONCE, Layout(max_words_per_line=1)).splitlines()[5] == "00:00:01,000 --> 00:00:01,000"
    tagged = transcript(segment(" <b>a</b> & {\\an8}", 0.0, 1.0))
    assert to_srt(tagged) == "1\n00:00:00,000 --> 00:00:01,000\n<b>a</b> & {\\an8}\n\n"
    assert to_vtt(tagged) == "WEBVTT\n\n00:00.000 --> 00:01.000\n<b>a</b> & {\\an8}\n\n"


def test_readable_srt_and_vtt_have_no_markup_of_the_text() -> None:
    readable = Layout(cue_style="readable")
    tagged = transcript(segment(" <b>a</b> & {\\an8}", 0.0, 5.0))
    assert to_srt(tagged, readable).splitlines()[2] == "<\u2060b>a<\u2060/b> & ｛\\\u2060an8｝"
    assert to_vtt(tagged, readable).splitlines()[3] == "&lt;b&gt;a&lt;/b&gt; &amp; {\\an8}"
    ((event,), (other,)) = (
        list(pysubs2.SSAFile.from_string(write(tagged, readable), format_=name))
        for name, write in (("srt", to_srt), ("ass", to_ass))
    )
    assert "an8" in event.plaintext
    assert "an8" in other.plaintext


def test_two_readable_subtitles_at_one_instant_share_the_time() -> None:
    texts = [f" Word{i}, word{i} word." for i in range(4)]
    words = [(text, 2.0, 2.0) for text in texts]
    made = transcript(
        segment("".join(texts), 0.0, 2.0, (" Zero.", 0.0, 1.0), *words),
        segment(" Last.", 2.0, 4.0, (" Last.", 2.0, 4.0)),
    )
    for write in (to_srt, to_vtt):
        times = [
            line
            for line in write(made, Layout(cue_style="readable", max_line_count=1, max_line_width=14)).splitlines()
            if "-->" in line
        ]
        assert len(times) > 3
        assert all(start != end for start, end in (one.split(" --> ") for one in times))
