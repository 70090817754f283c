"""The guards: they act where there is no speech, where text loops, where speech is left out; and nowhere else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.audio.intervals import Interval
from stapes.decoding.repetition import Loop, find_loop
from stapes.options import TranscribeOptions
from stapes.recording.loop import SeekLoop
from stapes.recording.requests import Align, Decode, Detect, DetectSpeech
from stapes.results import Alignment, LanguageGuess, Transcript, WindowResult, WordTiming
from stapes.testing import small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer
from stapes.vad.spans import SpeechMap

TOKENIZER = Tokenizer(tiny_spec(), small_vocabulary())
BEGIN = TOKENIZER.special.timestamp_begin
Decoder = Callable[[Decode], WindowResult]


def at(seconds: float) -> int:
    return BEGIN + round(seconds * 50)


def said(*parts: float | str, **scores: float) -> WindowResult:
    """A window's result of times in seconds and texts; with good scores by default."""
    tokens = [token for one in parts for token in (TOKENIZER.encode(one) if isinstance(one, str) else [at(one)])]
    values: dict[str, Any] = {
        "avg_logprob": -0.2,
        "no_speech_prob": 0.01,
        "temperature": 0.0,
        "compression_ratio": 1.2,
    } | scores
    return WindowResult(tokens=tuple(tokens), text="", **values)


def loop_of(n_frames: int, **keywords: Any) -> SeekLoop:
    """Make a loop over a recording of so many frames, with VAD."""
    return SeekLoop(content_frames=n_frames, window_frames=3000, n_audio_ctx=1500, n_text_ctx=448, tokenizer=TOKENIZER,
                    options=TranscribeOptions.from_keywords(keywords), has_vad=True)  # fmt: skip


def run(
    n_frames: int, decode: Decoder, speech: Sequence[tuple[int, int]] = (), **keywords: Any
) -> tuple[Transcript, list[Decode], list[DetectSpeech]]:
    """Run a loop over a recording with speech in the spans `speech` (frames)."""
    loop = loop_of(n_frames, **{"language": "en"} | keywords)
    decoded, detected = [], []
    while (request := loop.next()) is not None:
        if isinstance(request, DetectSpeech):
            detected.append(request)
            loop.accept(speech_in(request, SpeechMap(tuple(speech))))
        else:
            assert isinstance(request, Decode)
            decoded.append(request)
            loop.accept(decode(request))
        assert len(decoded) + len(detected) < 200
    return loop.transcript(n_frames / 100), decoded, detected


def speech_in(request: DetectSpeech, speech: SpeechMap) -> SpeechMap:
    """Answer a request, which counts frames as the loop does."""
    spans, at = [], request.seek
    for first, end in request.frames:
        spans += [(at + start - first, at + stop - first) for start, stop in speech.within(first, end)]
        at += end - first
    return SpeechMap(tuple(spans))


def test_an_answer_of_another_kind_is_refused_and_the_request_stands() -> None:
    loop = loop_of(3000, language="en")
    asked = loop.next()
    assert isinstance(asked, Decode)
    with pytest.raises(TypeError, match="Alignment does not answer Decode"):
        loop.accept(Alignment(()))
    assert loop.next() is asked
    assert [one.text for one in loop.accept(fluent(asked))] == [FLUENT]
    assert loop.next() is None
    with pytest.raises(TypeError, match="Alignment does not answer None"):
        loop.accept(Alignment(()))


def test_requests_carry_what_answers_them() -> None:
    """Where pauses were cut out, a window's frames are in two parts, and the speech in it is counted from its start."""
    loop, asked = loop_of(6000, language="de"), list[Decode]()
    while (request := loop.next()) is not None:
        if isinstance(request, DetectSpeech):
            assert sum(end - first for first, end in request.frames) == request.n_frames
            loop.accept(speech_in(request, SpeechMap(((0, 1000), (2000, 3700)))))
        else:
            assert isinstance(request, Decode)
            asked.append(request)
            poor = {} if len(asked) > 1 else {"avg_logprob": -0.9}
            loop.accept(said(0.0, FLUENT, request.n_frames / 100, **poor))
    first, again, *_ = asked
    assert {one.language for one in asked} == {"de"}
    assert (first.frames, first.voices) == (((0, 3000),), ())
    assert again.frames == ((0, 1080), (1920, 3840))
    assert again.voices == ((0, 1000), (1160, 2860))


FLUENT = "a text of many words, as long as what a person who speaks on and on says in so many seconds of time"


def fluent(request: Decode) -> WindowResult:
    return said(0.0, FLUENT, request.n_frames / 100)


def texts(transcript: Transcript) -> list[str]:
    return [segment.text for segment in transcript.segments]


def guards(transcript: Transcript) -> list[str]:
    return [flag.guard for flag in transcript.flags]


def test_who_speaks_is_not_asked_of_sure_and_dense_text() -> None:
    transcript, decoded, listened = run(3000, fluent)
    assert (len(decoded), listened, transcript.flags) == (1, [], ())
    assert texts(transcript) == [FLUENT]


@pytest.mark.parametrize("scores", [{"no_speech_prob": 0.5}, {"avg_logprob": -0.8}, {"compression_ratio": 2.5}, {}])
def test_doubtful_text_without_speech_is_dropped(scores: dict[str, float]) -> None:
    text = FLUENT if scores else "you"  # a word in half a minute is doubtful in itself
    transcript, _, listened = run(3000, lambda _: said(0.0, text, 30.0, **scores))
    assert len(listened) == 1
    assert texts(transcript) == []
    assert transcript.text == ""
    (flag,) = transcript.flags
    assert (flag.guard, flag.text, flag.start_s, flag.end_s) == ("silence", text, 0.0, 30.0)
    shown = text if text == "you" else FLUENT[:60].rstrip() + "..."
    assert str(flag) == f"0.0-30.0 s: dropped {shown!r}: no speech here"


def test_text_with_speech_stays_however_doubtful() -> None:
    transcript, _, listened = run(
        3000, lambda _: said(0.0, "you", 2.0, no_speech_prob=0.9), [(190, 210)], pause_guard=False
    )
    assert (len(listened), texts(transcript), transcript.flags) == (1, ["you"], ())


def test_text_with_times_in_a_silence_stays_where_speech_follows() -> None:
    """Whisper's own times are there, after a long silence; only word times decide it."""
    transcript, _, _ = run(3000, lambda _: said(0.0, "all nouns begin with a capital letter", 8.0), [(1600, 2400)])
    assert texts(transcript) == ["all nouns begin with a capital letter"]


def test_more_text_than_can_be_said_is_dropped() -> None:
    """What the reference makes of the last breath of a sentence: the sentence again, in a quarter of a second."""
    answers = iter([said(0.0, FLUENT, 30.0), said(0.0, FLUENT, 0.24)])
    transcript, decoded, _ = run(3026, lambda _: next(answers), [(0, 3004)])
    assert len(decoded) == 2
    assert texts(transcript) == [FLUENT]
    assert [flag.reason for flag in transcript.flags] == ["more than is spoken here"]


def test_the_prompt_of_the_next_window_knows_nothing_of_dropped_text() -> None:
    answers = iter([said(0.0, "you", 30.0), said(0.0, FLUENT, 30.0)])
    _, decoded, _ = run(6000, lambda _: next(answers), [(3000, 6000)])
    assert [request.prompt for request in decoded] == [(), ()]


def test_silence_that_goes_on_is_not_decoded() -> None:
    transcript, decoded, listened = run(30_000, lambda _: said(0.0, "you", 30.0))
    assert [request.seek for request in decoded] == [0]
    assert len(listened) == 10
    assert guards(transcript) == ["silence", "silence"]
    assert (transcript.flags[1].start_s, transcript.flags[1].end_s) == (30.0, 300.0)


def test_speech_after_a_silence_is_decoded() -> None:
    answers = {0: said(0.0, "you", 30.0), 6000: said(0.0, FLUENT, 30.0)}
    transcript, decoded, _ = run(9000, lambda asked: answers[asked.seek], [(6100, 8900)])
    assert [request.seek for request in decoded] == [0, 6000]
    assert texts(transcript) == [FLUENT]


def test_a_rest_without_speech_is_left_out() -> None:
    transcript, decoded, _ = run(3400, fluent, [(0, 2990)])
    assert [request.seek for request in decoded] == [0]
    assert [(flag.guard, flag.start_s, flag.end_s) for flag in transcript.flags] == [("tail", 30.0, 34.0)]


def test_a_rest_with_speech_is_decoded() -> None:
    answers = iter([said(0.0, FLUENT, 30.0), said(0.0, "and so on", 4.0)])
    transcript, decoded, _ = run(3400, lambda _: next(answers), [(0, 2990), (3300, 3310)])
    assert [request.seek for request in decoded] == [0, 3000]
    assert transcript.flags == ()


def test_a_short_recording_is_decoded_whatever_the_vad_finds() -> None:
    transcript, decoded, _ = run(100, lambda _: said(0.0, "yes, of course", 1.0))
    assert (len(decoded), texts(transcript)) == (1, ["yes, of course"])


def test_a_loop_in_a_window_is_said_once() -> None:
    phrase = " I am here again."
    transcript, _, _ = run(3000, lambda _: said(0.0, FLUENT, 10.0, 10.0, phrase * 8, 30.0), [(0, 3000)])
    assert texts(transcript) == [FLUENT, phrase]
    (flag,) = transcript.flags
    assert (flag.guard, flag.text) == ("loop", (phrase * 7).strip())
    assert transcript.segments[1].flags == ("loop",)


def test_a_loop_over_segments_is_said_once_and_the_rest_is_decoded_again() -> None:
    loop = [part for i in range(10, 30, 2) for part in (float(i), " I am here again.", float(i + 2))]
    answers = iter([said(0.0, FLUENT, 10.0, *loop), said(0.0, FLUENT, 18.0)])
    transcript, decoded, _ = run(3000, lambda _: next(answers), [(0, 3000)])
    assert texts(transcript) == [FLUENT, " I am here again.", FLUENT]
    assert [(request.seek, request.prompt) for request in decoded[1:]] == [(1200, ())]


def test_a_loop_again_where_one_was_dropped_is_passed_over() -> None:
    loop = [part for i in range(0, 30, 2) for part in (float(i), " I am here again.", float(i + 2))]
    transcript, decoded, _ = run(6000, lambda _: said(*loop), [(0, 6000)])
    assert [request.seek for request in decoded] == [0, 200, 3200, 3400]
    assert guards(transcript).count("loop") == 4


def test_a_loop_over_windows_is_dropped() -> None:
    phrase = " and then I said so."
    transcript, _, _ = run(18_000, lambda _: said(0.0, phrase, 30.0), [(0, 18_000)])
    assert guards(transcript) == ["loop"]
    assert len(texts(transcript)) == 5, "the fourth time it is one, and the prompt forgets it"


def test_the_loop_goes_back_for_speech_after_the_last_word() -> None:
    transcript, decoded, _ = run(3000, lambda asked: LEFT_OUT[asked.seek], AFTER_TEXT)
    assert [request.seek for request in decoded] == [0, 1600]
    assert texts(transcript) == ["hello there", FLUENT]
    assert [(flag.guard, flag.start_s, flag.end_s) for flag in transcript.flags] == [("speech", 16.0, 30.0)]


@pytest.mark.parametrize(
    ("speech", "seeks"),
    [
        pytest.param([(0, 180), (260, 2950)], [0, 210], id="speech after the next pause"),
        pytest.param([(0, 2950)], [0], id="nothing, as all of it was decoded from where it begins"),
    ],
)
def test_speech_after_a_last_word_at_the_very_beginning(speech: list[tuple[int, int]], seeks: list[int]) -> None:
    texts_of = {0: said(0.0, "hello there", 0.8, no_speech_prob=0.4), 210: said(0.0, FLUENT, 27.4)}
    _, decoded, _ = run(3000, lambda asked: texts_of[asked.seek], speech)
    assert [request.seek for request in decoded] == seeks, "a window decoded from where it began gives the same"


def aligned(request: Align, starts_s: Sequence[float], text: str) -> Alignment:
    """Return when each word begins; each ends where the next one begins, the last one a second later."""
    words, tokens = text.split(), [(one,) for one in request.tokens]
    groups = [*tokens[: len(words) - 1], tuple(one for (one,) in tokens[len(words) - 1 :])]
    ends_s = [*starts_s[1:], starts_s[-1] + 1]
    return Alignment(
        tuple(
            WordTiming(text=" " + word, tokens=group, start_s=start_s, end_s=end_s, probability=0.9)
            for word, group, start_s, end_s in zip(words, groups, starts_s, ends_s, strict=True)
        )
    )


@pytest.mark.parametrize(
    ("last", "speech", "went_back"),
    [
        ("three", [(0, 200), (550, 2650)], True),
        ("three", [(0, 200), (550, 640), (2400, 2650)], False),  # a pause, not speech
        ("31415926535897932384626433832795028841971", [(0, 200), (550, 2650)], False),  # takes that long to say
    ],
)
def test_speech_that_is_left_out_between_words_is_gone_back_for(
    last: str, speech: list[tuple[int, int]], went_back: bool
) -> None:
    loop = loop_of(3000, language="en", word_timestamps=True, pause_guard=False)
    seeks = []
    while (request := loop.next()) is not None:
        if isinstance(request, Decode):
            seeks.append(request.seek)
            whole = said(0.0, "one two", 4.0, 4.0, f"so it was {last} four", 30.0)
            loop.accept(whole if request.seek == 0 else said(0.0, FLUENT, 24.0))
        elif isinstance(request, DetectSpeech):
            loop.accept(speech_in(request, SpeechMap(tuple(speech))))
        else:
            assert isinstance(request, Align)
            if request.seek == 0:
                counts = [len(TOKENIZER.encode("one two")), len(request.tokens)]
                first = aligned(replace(request, tokens=request.tokens[: counts[0]]), (0.2, 1.0), "one two")
                rest = replace(request, tokens=request.tokens[counts[0] :])
                loop.accept(
                    Alignment(first.words + aligned(rest, (5.5, 5.7, 5.9, 6.2, 25.0), f"so it was {last} four").words)
                )
            else:
                loop.accept(aligned(request, [i / 2 for i in range(len(FLUENT.split()))], FLUENT))
    transcript = loop.transcript(30.0)
    assert seeks[:2] == ([0, 500] if went_back else [0])
    if went_back:
        assert [str(flag) for flag in transcript.flags][:1] == [
            "5.0-30.0 s: goes back, as the word 'three' holds 18.8 s of speech"
        ]
        assert texts(transcript)[:2] == ["one two", FLUENT]
    else:
        assert (texts(transcript)[:2], guards(transcript)) == (["one two", f"so it was {last} four"], [])


def test_speech_in_a_window_taken_for_silence_is_gone_back_for_once() -> None:
    silent = said(0.0, "you", 2.0, no_speech_prob=0.9, avg_logprob=-2.0)
    transcript, decoded, _ = run(3000, lambda _: silent, [(2000, 2950)], pause_guard=False)
    assert [request.seek for request in decoded] == [0, 1950]
    assert texts(transcript) == []


POOR = {"avg_logprob": -0.8}
#: speech from 0 to 5 s and from 15 to 29 s
APART = [(0, 500), (1500, 2900)]


def test_poor_text_around_a_long_pause_is_decoded_again_without_it() -> None:
    answers = {3000: said(0.0, FLUENT, 30.0, **POOR), 2160: said(0.0, "one side", 5.0, 5.0, "the other side", 20.6)}
    transcript, decoded, listened = run(3000, lambda asked: answers[asked.n_frames], APART)
    assert [(request.seek, request.n_frames) for request in decoded] == [(0, 3000), (0, 2160)]
    assert [(one.text, one.start_s, one.end_s) for one in transcript.segments] == [
        ("one side", 0.0, 5.0), ("the other side", 14.2, 29.0)
    ]  # fmt: skip
    assert [request.prompt for request in decoded] == [(), ()], "refused text is no prompt"
    assert [(one.seek, one.frames, one.next_seek, one.skipped) for one in transcript.windows] == [
        (0, ((0, 3000),), 0, True), (0, ((0, 580), (1420, 3000)), 3000, False)
    ]  # fmt: skip
    assert [one.voices for one in transcript.windows] == [(), ((0, 500), (660, 2060))], (
        "quiet speech gets its gain there"
    )
    (flag,) = transcript.flags
    assert str(flag) == "5.0-15.0 s: decoded again without it, as the text around this pause was doubtful"
    assert (flag.guard, flag.start_s, flag.end_s, flag.text) == ("pause", 5.0, 15.0, "")
    assert [(one.seek, one.n_frames) for one in listened] == [(0, 3000), (0, 2160)]


@pytest.mark.parametrize(("spoken", "again"), [(800, True), (80, False)])
def test_speech_that_is_taken_for_silence_is_read_without_the_text_before_it(spoken: int, again: bool) -> None:
    """A window of text, then one with a long pause: once that is left out, what was said before leads astray."""
    silent = said(0.0, "of the", 2.0, no_speech_prob=0.7, avg_logprob=-1.2)

    def decode(asked: Decode) -> WindowResult:
        if asked.seek == 0:
            return fluent(asked)
        if asked.n_frames == 3000:
            return said(0.0, FLUENT, 4.0, **POOR)
        return silent if asked.prompt else said(0.0, "read", 4.0)

    speech = [(0, 2900), (3000, 3000 + spoken // 2), (5600, 5600 + spoken // 2)]
    transcript, decoded, _ = run(6000, decode, speech, temperature=0.0)
    (first, second, *others) = decoded
    assert (first.seek, second.seek, second.prompt != ()) == (0, 3000, True)
    assert [bool(request.prompt) for request in others if request.seek == 3000] == ([True, False] if again else [True])
    assert texts(transcript) == ([FLUENT, "read"] if again else [FLUENT])
    assert ("speech" in guards(transcript)) == again
    if again:
        flag = transcript.flags[guards(transcript).index("speech")]
        assert str(flag) == "30.0-60.0 s: goes back, as there is speech in what was taken for silence"


def test_a_window_without_its_pause_takes_in_what_follows_without_long_pauses_either() -> None:
    """Two pauses, the second one longer than what comes into the window at once; then a window in the usual time."""
    speech = [(0, 500), (1000, 2600), (7000, 7500), (7600, 9000)]
    answers = iter([said(0.0, FLUENT, 30.0, **POOR), said(0.0, FLUENT, 30.0), said(0.0, FLUENT, 14.2)])
    transcript, _, _ = run(9500, lambda _: next(answers), speech)
    assert [(one.frames, one.skipped) for one in transcript.windows] == [
        (((0, 3000),), True), (((0, 580), (920, 2680), (6920, 7580)), False), (((7580, 9500),), False)
    ]  # fmt: skip
    assert [(flag.start_s, flag.end_s) for flag in transcript.flags] == [(5.0, 10.0), (26.0, 70.0)]
    assert [(one.start_s, one.end_s) for one in transcript.segments] == [(0.0, 75.8), (75.8, 90.0)]


@pytest.mark.parametrize(
    ("before", "after", "frames"),
    [
        pytest.param(500, 9000, ((0, 580), (1420, 2080)), id="it ends in the last pause"),
        pytest.param(500, 8650, ((0, 580), (1420, 2080), (6920, 8680)), id="all is said before its end"),
        pytest.param(100, 9500, ((0, 180), (1420, 1680), (6920, 9480)), id="the last pause is too near its beginning"),
    ],
)
def test_a_window_that_would_break_off_in_speech_ends_in_the_last_pause_that_was_left_out(
    before: int, after: int, frames: tuple[Interval, ...]
) -> None:
    speech = [(0, before), (1500, 1500 + before), (7000, after)]
    answers = iter([said(0.0, FLUENT, 30.0, **POOR), said(0.0, FLUENT, 29.0), *[said(0.0, FLUENT, 30.0)] * 2])
    transcript, _, _ = run(12000, lambda _: next(answers), speech)
    window, *following = [one for one in transcript.windows if not one.skipped]
    assert window.frames == frames
    if window.n_frames < 3000:
        assert transcript.segments[0].end_s == frames[-1][1] / 100, "the network may point past its end"
        assert following[0].seek == 6920, "what is said after the pause is read whole"


def test_text_that_is_poor_without_its_pause_too_stays_as_it_is() -> None:
    transcript, decoded, _ = run(3000, lambda asked: said(0.0, FLUENT, asked.n_frames / 100, **POOR), [(0, 900)])
    assert [(request.seek, request.n_frames) for request in decoded] == [(0, 3000), (0, 1060)]
    assert texts(transcript) == [FLUENT]


def test_a_window_that_begins_in_a_long_pause_begins_anew_where_speech_does() -> None:
    poor, sure = said(0.0, FLUENT, 30.0, **POOR), said(0.0, FLUENT, 30.0)
    answers = iter([poor, sure, sure])
    transcript, _, _ = run(6000, lambda _: next(answers), [(2000, 6000)])
    assert [one.frames for one in transcript.windows] == [((0, 3000),), ((1920, 4920),), ((4920, 6000),)]
    assert [(one.start_s, one.end_s) for one in transcript.segments] == [(19.2, 49.2), (49.2, 60.0)]
    assert [(flag.guard, flag.start_s, flag.end_s) for flag in transcript.flags] == [("pause", 0.0, 20.0)]


@pytest.mark.parametrize(
    ("scores", "speech"),
    [
        ({}, APART),
        ({"avg_logprob": -0.9}, [(0, 1000), (1290, 3000)]),  # unsure, but the pause is short
        ({"avg_logprob": -2.0}, [(0, 3000)]),
    ],
)
def test_sure_text_and_speech_without_long_pauses_are_decoded_once(
    scores: dict[str, float], speech: list[tuple[int, int]]
) -> None:
    transcript, decoded, _ = run(3000, lambda _: said(0.0, FLUENT, 30.0, **scores), speech)
    assert (len(decoded), "pause" in guards(transcript)) == (1, False)


@pytest.mark.parametrize("speech", [(0, 2000), (900, 2900)])
def test_pauses_before_and_after_all_speech_stay_where_text_is_only_sparse(speech: tuple[int, int]) -> None:
    transcript, decoded, listened = run(3000, lambda _: said(speech[0] / 100, "few words", speech[1] / 100), [speech])
    assert (len(decoded), len(listened), transcript.flags) == (1, 1, ())


def test_pauses_are_left_out_of_their_clip_alone() -> None:
    asked = []

    def decode(request: Decode) -> WindowResult:
        asked.append((request.seek, request.n_frames))
        return said(0.0, FLUENT, request.n_frames / 100, **POOR)

    run(9000, decode, [(0, 400), (2800, 5000)], clip_timestamps="0,20,60,65")
    assert asked == [(0, 2000), (0, 560), (6000, 500)]


def test_each_side_of_a_pause_that_is_left_out_keeps_its_language() -> None:
    loop = loop_of(3000, multilingual=True)
    refused = False
    while (request := loop.next()) is not None:
        if isinstance(request, DetectSpeech):
            loop.accept(speech_in(request, SpeechMap(tuple(APART))))
        elif isinstance(request, Detect):
            first, end = request.part or (0, 3000)
            inside = [one for span in request.frames for one in range(*span)][(first + end) // 2]
            code, other = ("en", "de") if inside < 1000 else ("de", "en")
            loop.accept(LanguageGuess(language=code, probabilities={code: 0.9, other: 0.1}))
        else:
            assert isinstance(request, Decode)
            scores = {} if refused else POOR
            loop.accept(said(0.0, FLUENT, request.n_frames / 100, **scores))
            refused = True
    transcript = loop.transcript(30.0)
    assert [(one.frames, one.skipped) for one in transcript.windows] == [
        (((0, 1000),), True), (((0, 580),), False), (((1420, 3000),), False)
    ]  # fmt: skip
    assert [(one.language, one.start_s, one.end_s) for one in transcript.segments] == [
        ("en", 0.0, 5.8), ("de", 14.2, 30.0)
    ]  # fmt: skip


@given(
    lengths=st.lists(st.tuples(st.integers(1, 1500), st.integers(30, 2500)), min_size=1, max_size=8),
    poor=st.lists(st.booleans(), min_size=1, max_size=6),
)
@settings(max_examples=200)
def test_whatever_pauses_are_left_out_no_speech_is(lengths: list[tuple[int, int]], poor: list[bool]) -> None:
    """lengths: of the pauses, and of the speech after each; poor: which windows' scores are, over and over."""
    speech, at = [], 0
    for pause, spoken in lengths:
        speech.append((at + pause, at + pause + spoken))
        at = speech[-1][1]
    moods = itertools.cycle(poor)

    def decode(request: Decode) -> WindowResult:
        return said(0.0, FLUENT, request.n_frames / 100, avg_logprob=-0.8 if next(moods) else -0.2)

    transcript, _, _ = run(at, decode, speech, silence_guard=False, loop_guard=False)
    decoded = [SpeechMap(one.frames) for one in transcript.windows if not one.skipped]
    left_out = [span for span in speech if sum(one.length_within(*span) for one in decoded) < span[1] - span[0]]
    assert not left_out


@pytest.mark.parametrize("mode", ["reference", "sequential"])
def test_mode_reference_switches_every_guard_off(mode: str) -> None:
    loop = [part for i in range(0, 30, 2) for part in (float(i), " I am here again.", float(i + 2))]
    transcript, _, listened = run(3400, lambda _: said(*loop, no_speech_prob=0.5), mode=mode)
    assert bool(transcript.flags) == bool(listened) == (mode != "reference")


PARTS = {3000: said(0.0, FLUENT, 30.0, avg_logprob=-0.8), 1060: said(0.0, FLUENT, 9.0)}
LEFT_OUT = {0: said(0.0, "hello there", 14.0), 1600: said(0.0, FLUENT, 13.5)}
AFTER_TEXT = [(0, 1400), (1650, 2950)]
#: guard -> a recording's length, what is decoded of it, its speech
OCCASIONS: dict[str, tuple[int, Decoder, list[tuple[int, int]]]] = {
    "silence": (3000, lambda _: said(0.0, "you", 2.0), []),
    "tail": (3400, fluent, [(0, 2990)]),
    "pause": (3000, lambda asked: PARTS[asked.n_frames], [(0, 900)]),
    "loop": (3000, lambda _: said(0.0, " I am here again." * 8, 30.0), [(0, 3000)]),
    "speech": (3000, lambda asked: LEFT_OUT[asked.seek], AFTER_TEXT),
}


@pytest.mark.parametrize("name", list(OCCASIONS))
def test_each_guard_can_be_switched_off(name: str) -> None:
    n_frames, decode, speech = OCCASIONS[name]
    assert guards(run(n_frames, decode, speech)[0]) == [name]
    assert guards(run(n_frames, decode, speech, **{f"{name}_guard": False})[0]) == []


# Loops in tokens.


@pytest.mark.parametrize(
    ("tokens", "before", "loop"),
    [
        ([1, 2, 3, 4], [], None),
        ([1, 2] * 3, [], None),  # not often
        ([7, 7, 7, 7, 7], [], None),  # not much
        ([7] * 20, [], Loop(0, 1, 20)),
        ([9, *([1, 2, 3, 4, 5, 6] * 4), 8], [], Loop(1, 6, 25)),
        ([1, 2, 3, 4, 5, 6], [5, *([1, 2, 3, 4, 5, 6] * 3)], Loop(-18, 6, 6)),
        ([1, 2, 3], [1, 2, 3, 4, 5, 6] * 4, None),  # begun again, but not once whole
        ([], [7] * 40, None),
    ],
)
def test_loops_in_tokens(tokens: list[int], before: list[int], loop: Loop | None) -> None:
    assert find_loop(tokens, before) == loop
