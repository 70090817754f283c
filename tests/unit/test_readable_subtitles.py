"""Readable subtitles: their breaks in several languages, their durations, and their limits."""

from __future__ import annotations

from typing import Any

import pytest

from stapes.errors import OptionError
from stapes.output.line_breaks import break_cost, columns
from stapes.output.readable import Cue, Limits, readable_cues
from stapes.output.subtitles import Layout
from stapes.output.writers import to_srt, to_vtt
from stapes.results import Segment, Transcript, Word

USUAL = Layout(cue_style="readable")


def segment(text: str, start_s: float, end_s: float, words: tuple[Word, ...] | None = None) -> Segment:
    return Segment(
        id=0, seek=0, start_s=start_s, end_s=end_s, text=text, tokens=(1,), temperature=0.0, avg_logprob=0.0,
        compression_ratio=1.0, no_speech_prob=0.0, words=words,
    )  # fmt: skip


def spoken(text: str, *, start_s: float = 0.0, chars_per_second: float = 14.0, pauses: dict[str, float] | None = None
           ) -> Segment:  # fmt: skip
    """Make a segment of words said one after the other; `pauses` are seconds of silence after words."""
    words, now_s = [], start_s
    for word in text.split():
        end_s = now_s + (len(word) + 1) / chars_per_second
        words.append(Word(text=f" {word}", start_s=now_s, end_s=end_s, probability=1.0))
        now_s = end_s + (pauses or {}).get(word, 0.0)
    return segment(f" {text}", start_s, words[-1].end_s, tuple(words))


def found(*segments: Segment, duration_s: float = 1e6, **layout: Any) -> list[Cue]:
    return list(readable_cues(segments, Layout(cue_style="readable", **layout).limits, duration_s))


def texts(*segments: Segment, **layout: Any) -> list[str]:
    return [cue.text for cue in found(*segments, **layout)]


def test_english_breaks_at_sentences_and_clauses() -> None:
    talk = (
        "If the reader will excuse me, I will say nothing of my antecedents, nor of the circumstances which led me to "
        "leave my native country. The narrative would be tedious to him and painful to myself."
    )
    assert texts(spoken(talk)) == [
        "If the reader will excuse me,\nI will say nothing of my antecedents,",
        "nor of the circumstances\nwhich led me to leave my native country.",
        "The narrative would be tedious to him\nand painful to myself.",
    ]


def test_german_keeps_ordinals_abbreviations_and_hanging_hyphens_together() -> None:
    talk = (
        "Die Bundesregierung hat am 3. Oktober beschlossen, dass die Gesellschaft, die z.B. in Wien seit mehr als "
        "150 Jahren besteht, auf- und ausgebaut werden soll. Dr. Müller sagte: „Das ist ein guter Tag für uns alle.“"
    )
    assert texts(spoken(talk)) == [
        "Die Bundesregierung hat am 3. Oktober\nbeschlossen, dass die Gesellschaft,",
        "die z.B. in Wien seit mehr als 150 Jahren\nbesteht, auf- und ausgebaut werden soll.",
        "Dr. Müller sagte:\n„Das ist ein guter Tag für uns alle.“",
    ]


def test_japanese_breaks_between_phrases_and_counts_two_columns_a_character() -> None:
    text = (
        "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で"
        "ニャーニャー泣いていた事だけは記憶している。"
    )
    assert texts(segment(text, 0.0, 10.0)) == [
        "吾輩は猫である。",
        "名前はまだ無い。\nどこで生れたかとんと見当がつかぬ。",
        "何でも薄暗いじめじめした所でニャーニャー\n泣いていた事だけは記憶している。",
    ]


def test_chinese_lines_do_not_begin_with_a_mark() -> None:
    text = "我们在这里讨论人工智能的发展，特别是语音识别技术，它在过去几年中取得了巨大的进步。"
    for width in range(4, 43):
        lines = [line for cue in texts(segment(text, 0.0, 6.0), max_line_width=width) for line in cue.split("\n")]
        assert "".join(lines) == text
        assert not [line for line in lines if line[0] in "，。"]


def test_segments_of_scripts_without_spaces_are_joined_without_one_and_others_with_one() -> None:
    assert texts(segment("はい。", 0.0, 0.3), segment("猫", 0.3, 0.5)) == ["はい。猫"]
    assert texts(segment("Yes.", 0.0, 0.3), segment("No.", 0.3, 0.5)) == ["Yes. No."]


def test_a_title_is_no_end_of_a_sentence_and_short_words_lean_on_what_follows() -> None:
    good, bad = break_cost(" day,", " and", 0.0), break_cost(" the", " day", 0.0)
    assert break_cost(" over.", " Then", 0.0) == 0.0 < good < break_cost(" red", " house", 0.0) < bad
    assert break_cost(" Mr.", " Hale", 0.0) == break_cost(" J.", " Hale", 0.0) == bad
    assert break_cost(" over.", " then", 0.0) == good
    assert break_cost(" red", " house", 0.6) == break_cost(" red", " house", 0.0) / 2


@pytest.mark.parametrize(
    ("left", "right"),
    [("well", "-known"), ("（", "笑"), ("笑", "）"), ("カ", "ー"), ("ネ", "ット"), (" (", " or"), (" or", " )"),
     (" «", " mot"), ("ที", "่"), ("เ", "รา"), ("ม", "า")],
)  # fmt: skip
def test_what_stays_together(left: str, right: str) -> None:
    assert break_cost(left, right, 5.0) >= 3.0


@pytest.mark.parametrize(
    ("left", "right"),
    [(" uns“", " und"), (" »Hallo«", " sagte"), (" say", " “hello”"), (" over.", " ...and"), (" over.", " —And")],
)
def test_a_mark_is_read_by_where_it_stands(left: str, right: str) -> None:
    assert break_cost(left, right, 0.0) < 1.0


def test_a_long_pause_ends_a_subtitle() -> None:
    one = spoken("this is what we said", pauses={"what": 2.0})
    assert texts(one) == ["this is what", "we said"]


def test_a_subtitle_begins_with_its_first_word_and_stands_until_it_can_be_read() -> None:
    (cue,) = found(spoken("Seventeen letters.", start_s=3.0, chars_per_second=100.0))
    assert (cue.start_s, cue.end_s) == (3.0, 3.0 + 18 / 17)
    (cue,) = found(spoken("Yes.", start_s=3.0, chars_per_second=50.0))
    assert (cue.start_s, cue.end_s) == (3.0, 4.0)  # the shortest duration
    (cue,) = found(spoken("Yes.", start_s=3.0, chars_per_second=50.0), duration_s=3.5)
    assert cue.end_s == 3.5  # not beyond the recording
    (cue,) = found(spoken("Yes.", start_s=3.0, chars_per_second=0.5))
    assert cue.end_s == 10.0  # the longest duration
    slow = found(spoken("We read this line slowly."), max_chars_per_second=5.0)
    assert slow[0].end_s == 5.0


def test_a_subtitle_ends_before_the_next_one_and_a_flicker_between_is_closed() -> None:
    first, second = spoken("One.", chars_per_second=50.0), spoken("Two.", start_s=0.8)
    early, _ = found(first, second, max_line_count=1, max_line_width=4)
    assert early.end_s == 0.8
    close, _ = found(spoken("One.", chars_per_second=5.0), spoken("Two.", start_s=1.05), max_line_width=4,
                     max_line_count=1)  # fmt: skip
    assert close.end_s == 1.05


def test_a_word_wider_than_a_line_is_cut_between_characters() -> None:
    assert texts(segment(" Donaudampfschifffahrt", 0.0, 2.0), max_line_width=10) == ["Donaudampf\nschifffahr", "t"]
    family = "👨\u200d👩\u200d👧"
    assert texts(segment(family * 2, 0.0, 2.0), max_line_width=6, max_line_count=1) == [family, family]
    assert texts(segment("e\u0301" * 4, 0.0, 2.0), max_line_width=2) == ["e\u0301e\u0301\ne\u0301e\u0301"]


def test_columns() -> None:
    assert [columns(text) for text in ("abc", "猫", "e\u0301", "ｱ", "한", "\u200b", "🐈")] == [3, 2, 1, 1, 2, 0, 2]


def test_without_words_a_segments_time_is_shared_by_columns() -> None:
    cues = found(segment(" aaaa bbbb", 1.0, 9.0), max_line_width=4, max_line_count=1, max_chars_per_second=100.0)
    assert [(cue.text, cue.start_s, cue.end_s, cue.words) for cue in cues] == [
        ("aaaa", 1.0, 5.0, ()), ("bbbb", 5.0, 9.0, ()),
    ]  # fmt: skip


def test_words_that_overlap_or_are_not_there_break_nothing() -> None:
    odd = [(" a", 1.0, 3.0), ("", 0.0, 9.0), (" b", 2.0, 2.5), (" \n\0", 2.0, 2.5), (" c", 1.0, 1.0)]
    words = tuple(Word(text=text, start_s=start, end_s=end, probability=1.0) for text, start, end in odd)
    cues = found(segment("", 1.0, 3.0, words), segment(" no words", 3.0, 4.0, ()), segment("", 4.0, 4.0, ()))
    assert " ".join(cue.text for cue in cues) == "a b c no words"
    assert found() == []
    assert found(segment(" \n", 0.0, 1.0)) == []


def test_no_subtitle_ends_before_it_begins_where_times_are_too_large_to_add_up() -> None:
    late_s = 1e15  # floats this large are an eighth of a second apart
    words = [("0 00000\u0e5c", late_s, late_s), ("000", 0.0, 0.0), ("0", late_s, late_s + 2.0)]
    said = tuple(Word(text=text, start_s=start_s, end_s=end_s, probability=0.5) for text, start_s, end_s in words)
    limits = Limits(line_width=2, line_count=1, chars_per_second=0.5, min_duration_s=0.001, max_duration_s=1.0)
    cues = list(readable_cues([segment("", 0.0, 0.0, said)], limits))
    assert len(cues) == 8
    assert all(cue.start_s <= cue.end_s for cue in cues)


def test_srt_and_vtt_write_readable_subtitles_and_underline_words_in_them() -> None:
    whole = Transcript(text="", segments=(spoken("Yes, --> it is.", chars_per_second=50.0),), language="en",
                       duration_s=9.0)  # fmt: skip
    assert to_srt(whole, USUAL) == "1\n00:00:00,000 --> 00:00:01,000\nYes, -> it is.\n\n"
    marked = to_vtt(whole, Layout(cue_style="readable", highlight_words=True, max_line_width=8)).split("\n\n")
    assert marked[1] == "00:00.000 --> 00:00.100\n<u>Yes,</u> -&gt;\nit is."
    assert marked[-2] == "00:00.320 --> 00:01.000\nYes, -&gt;\nit is."


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cue_style": "pretty"}, "cue_style must be plain or readable, got 'pretty'"),
        ({"cue_style": ["plain"]}, "cue_style must be plain or readable"),
        ({"max_cue_duration": 5.0}, "max_cue_duration requires cue_style readable"),
        ({"cue_style": "readable", "max_line_width": 1}, "max_line_width must be at least 2 with cue_style readable"),
        ({"cue_style": "readable", "max_line_count": 0}, "max_line_count must be at least 1 with cue_style readable"),
        ({"cue_style": "readable", "max_words_per_line": 3}, "max_words_per_line does not go with cue_style readable"),
        ({"cue_style": "readable", "max_chars_per_second": 0}, "max_chars_per_second must be a number above 0, got 0"),
        ({"cue_style": "readable", "min_cue_duration": float("nan")}, "min_cue_duration must be a number above 0"),
        ({"cue_style": "readable", "max_cue_duration": None}, "max_cue_duration must be a number above 0, got None"),
        ({"cue_style": "readable", "max_cue_duration": 0.01}, "max_cue_duration must be at least 0.02 s, got 0.01"),
        ({"cue_style": "readable", "max_cue_duration": 0.5}, "min_cue_duration 1 is more than max_cue_duration 0.5"),
    ],
)
def test_layouts_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Layout(**values)


def test_the_limits_are_the_layouts() -> None:
    assert USUAL.limits == Limits(
        line_width=42, line_count=2, chars_per_second=17.0, min_duration_s=1.0, max_duration_s=7.0
    )
