"""A window's first word begins where speech begins; no other word changes, nor any seek."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.options import TranscribeOptions
from stapes.recording.loop import SeekLoop
from stapes.recording.requests import Align, Decode, DetectSpeech
from stapes.recording.words.snap_to_speech import opening, start_at_speech
from stapes.results import Alignment, Segment, Transcript, WindowResult, Word, WordTiming
from stapes.testing import small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer
from stapes.vad.spans import SpeechMap

TOKENIZER = Tokenizer(tiny_spec(), small_vocabulary())
BEGIN = TOKENIZER.special.timestamp_begin
WORDS = [f" {first}{second}" for first in "abcdef" for second in "uvwxyz"] + [" end"]


def segment(*words: tuple[float, float], start_s: float | None = None) -> Segment:
    made = tuple(Word(text="x", start_s=a, end_s=b, probability=1.0) for a, b in words)
    return Segment(
        id=0, seek=0, start_s=words[0][0] if start_s is None else start_s, end_s=words[-1][1], text="x", tokens=(1,),
        temperature=0.0, avg_logprob=0.0, compression_ratio=1.0, no_speech_prob=0.0, words=made,
    )  # fmt: skip


def timing(start_s: float, end_s: float) -> WordTiming:
    return WordTiming(text=" x", tokens=(1,), start_s=start_s, end_s=end_s, probability=1.0)


def test_the_vad_reads_the_first_word_and_a_bit_more() -> None:
    assert opening([timing(0.0, 0.84), timing(0.84, 1.3)]) == 104
    assert opening([timing(0.0, 0.1)]) == opening([]) == 0, "it cannot begin much too early"


@pytest.mark.parametrize(
    ("word", "spans", "begins"),
    [
        ((0.0, 1.3), [(120, 200)], 1.15),
        ((0.0, 1.3), [(120, 130), (140, 200)], 1.15),
        ((0.4, 1.3), [(120, 200)], 1.15),  # a rule has moved it already
        ((0.0, 1.3), [(0, 200)], 0.0),
        ((0.0, 1.3), [(14, 200)], 0.0),  # by less than a tenth of a second
        ((0.0, 1.3), [(135, 200)], 0.0),  # no speech in it: the VAD or the word may be wrong
        ((1.2, 1.3), [(110, 200)], 1.2),  # never earlier
        ((0.0, 1.3), [], 0.0),
    ],
)
def test_where_a_first_word_begins(word: tuple[float, float], spans: list[tuple[int, int]], begins: float) -> None:
    for first in (0, 2417):
        moved_s = first / 100
        start_s, end_s = (round(time_s + moved_s, 2) for time_s in word)
        there = [segment((start_s, end_s), (end_s, end_s + 0.7))]
        speech = SpeechMap(tuple((start + first, stop + first) for start, stop in spans))
        (one,) = start_at_speech(there, speech, first)
        assert one.start_s == one.words[0].start_s == pytest.approx(begins + moved_s)  # type: ignore[index]
        assert replace(one, start_s=there[0].start_s, words=there[0].words) == there[0]


def test_a_segment_that_has_a_time_of_its_own_keeps_it() -> None:
    for start_s in (0.6, 0.95):
        (one,) = start_at_speech([segment((0.0, 1.3), start_s=start_s)], SpeechMap(((90, 200),)), 0)
        assert (one.start_s, one.words) == (start_s, segment((0.85, 1.3)).words)
    assert start_at_speech([], SpeechMap(((90, 200),)), 0) == []


@given(
    starts=st.lists(st.integers(0, 2900), min_size=1, max_size=8, unique=True).map(sorted),
    spans=st.lists(st.integers(0, 3000), max_size=8, unique=True).map(sorted),
)
def test_nothing_but_the_first_start_changes_and_it_stays_inside_its_word(starts: list[int], spans: list[int]) -> None:
    ends = [*starts[1:], starts[-1] + 50]
    there = [segment((start / 100, end / 100)) for start, end in zip(starts, ends, strict=True)]
    speech = SpeechMap(tuple(zip(spans[::2], spans[1::2], strict=False)))
    first, *others = start_at_speech(there, speech, 0)
    assert others == there[1:]
    (word,), (before,) = first.words or (), there[0].words or ()
    assert before.start_s <= word.start_s < word.end_s == before.end_s
    assert start_at_speech([first, *others], speech, 0) == [first, *others], "once is enough"


def run(speech: SpeechMap, **keywords: Any) -> tuple[Transcript, list[DetectSpeech]]:
    """Decode two windows of 37 words without a pause, the first of which lasts 0.9 s and the others 0.8."""
    options = TranscribeOptions.from_keywords({"language": "en", "word_timestamps": True} | keywords)
    loop = SeekLoop(content_frames=5970, window_frames=3000, n_audio_ctx=1500, n_text_ctx=448, tokenizer=TOKENIZER,
                    options=options, has_vad=True)  # fmt: skip
    starts_s = [0.0, *(0.9 + 0.8 * i for i in range(len(WORDS)))]
    listened: list[DetectSpeech] = []
    while (request := loop.next()) is not None:
        if isinstance(request, Decode):
            end = (BEGIN + 1485, BEGIN + 1485) if request.seek == 0 else (BEGIN + 1500,)
            tokens = (BEGIN, *TOKENIZER.encode("".join(WORDS)), *end)
            loop.accept(WindowResult(tokens=tokens, text="", avg_logprob=-0.2, no_speech_prob=0.01, temperature=0.0,
                                     compression_ratio=1.2))  # fmt: skip
        elif isinstance(request, DetectSpeech):
            listened.append(request)
            loop.accept(SpeechMap(speech.within(request.seek, request.seek + request.n_frames)))
        else:
            assert isinstance(request, Align)
            parts = zip(WORDS, starts_s, starts_s[1:], strict=False)
            timings = (WordTiming(text=one, tokens=tuple(TOKENIZER.encode(one)), start_s=start_s, end_s=end_s,
                                  probability=0.9) for one, start_s, end_s in parts)  # fmt: skip
            loop.accept(Alignment(tuple(timings)))
    return loop.transcript(59.7), listened


#: speech begins more than half a second after either window
SPEECH = SpeechMap(((55, 2750), (3050, 5970)))


def test_the_loop_asks_who_speaks_in_a_windows_opening_alone() -> None:
    transcript, listened = run(SPEECH)
    assert [one.seek for one in transcript.windows] == [0, 2970]
    assert listened == [
        DetectSpeech(0, 110, ((0, 110),)),
        DetectSpeech(2970, 110, ((2970, 3080),)),
    ]
    firsts = [one.words[0] for one in transcript.segments if one.words]
    assert [(one.start_s, one.end_s) for one in firsts] == [(0.5, 0.9), (30.45, 30.6)]
    assert [one.start_s for one in transcript.segments] == [0.5, 30.45]
    assert transcript.flags == ()


@pytest.mark.parametrize("keywords", [{"mode": "reference"}, {"silence_guard": False}])
def test_the_references_word_begins_with_its_window(keywords: dict[str, Any]) -> None:
    ours, _ = run(SPEECH)
    theirs, listened = run(SPEECH, **keywords)
    assert listened == []
    assert [one.words[0].start_s for one in theirs.segments if one.words] == [0.0, 29.7]
    assert [one.next_seek for one in theirs.windows] == [one.next_seek for one in ours.windows]
    for mine, other in zip(ours.segments, theirs.segments, strict=True):
        assert (mine.words or ())[1:] == (other.words or ())[1:]
        assert replace(mine, start_s=0.0, words=()) == replace(other, start_s=0.0, words=())
