"""The guards: they act where nobody speaks, where text loops, where speech is left out; and nowhere else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.decoding.repetition import Loop, find_loop
from stapes.options import TranscribeOptions
from stapes.recording.listening import Heard, Listen
from stapes.recording.loop import Decode, SeekLoop
from stapes.results import Transcript, WindowResult
from stapes.testing import small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer

TOKENIZER = Tokenizer(tiny_spec(), small_vocabulary())
BEGIN = TOKENIZER.special.timestamp_begin
Decoder = Callable[[Decode], WindowResult]


def at(seconds: float) -> int:
    return BEGIN + round(seconds * 50)


def said(*parts: float | str, **scores: float) -> WindowResult:
    """A window's result of times in seconds and texts; sure of itself unless told otherwise."""
    tokens = [token for one in parts for token in (TOKENIZER.encode(one) if isinstance(one, str) else [at(one)])]
    values: dict[str, Any] = {
        "avg_logprob": -0.2,
        "no_speech_prob": 0.01,
        "temperature": 0.0,
        "compression_ratio": 1.2,
    } | scores
    return WindowResult(tokens=tuple(tokens), text="", **values)


def run(
    n_frames: int, decode: Decoder, speech: Sequence[tuple[int, int]] = (), **keywords: Any
) -> tuple[Transcript, list[Decode], list[Listen]]:
    """Run a loop over a recording in which somebody speaks in the stretches `speech` (frames)."""
    options = TranscribeOptions.from_keywords({"language": "en", **keywords})
    loop = SeekLoop(content_frames=n_frames, window_frames=3000, n_audio_ctx=1500, n_text_ctx=448,
                    tokenizer=TOKENIZER, options=options, can_listen=True)  # fmt: skip
    decoded, listened = [], []
    while (request := loop.next()) is not None:
        if isinstance(request, Listen):
            listened.append(request)
            loop.accept(Heard(Heard(tuple(speech)).within(request.seek, request.seek + request.n_frames)))
        else:
            assert isinstance(request, Decode)
            decoded.append(request)
            loop.accept(decode(request))
        assert len(decoded) + len(listened) < 200
    return loop.transcript(n_frames / 100), decoded, listened


FLUENT = "a text of many words, as long as what somebody who speaks on and on says in so many seconds of time"


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
def test_doubtful_text_where_nobody_speaks_is_dropped(scores: dict[str, float]) -> None:
    text = FLUENT if scores else "you"  # a word in half a minute is doubtful in itself
    transcript, _, listened = run(3000, lambda _: said(0.0, text, 30.0, **scores))
    assert len(listened) == 1
    assert texts(transcript) == []
    assert transcript.text == ""
    (flag,) = transcript.flags
    assert (flag.guard, flag.text, flag.start_s, flag.end_s) == ("silence", text, 0.0, 30.0)
    told = text if text == "you" else FLUENT[:60].rstrip() + "..."
    assert str(flag) == f"0.0-30.0 s: dropped {told!r}: nobody speaks here"


def test_text_that_somebody_says_stays_however_doubtful() -> None:
    transcript, _, listened = run(3000, lambda _: said(0.0, "you", 2.0, no_speech_prob=0.9), [(190, 210)])
    assert (len(listened), texts(transcript), transcript.flags) == (1, ["you"], ())


def test_text_whose_times_lie_in_a_silence_stays_where_somebody_speaks_later() -> None:
    """Whisper's own times lie there, behind a long silence; only words can tell."""
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


def test_speech_behind_a_silence_is_decoded() -> None:
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


def test_a_short_recording_is_decoded_whatever_is_heard() -> None:
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


def test_speech_behind_the_last_word_is_gone_back_for() -> None:
    answers = {0: said(0.0, "hello there", 3.0), 1950: said(0.0, FLUENT, 10.0)}
    transcript, decoded, _ = run(3000, lambda asked: answers[asked.seek], [(0, 290), (2000, 2950)])
    assert [request.seek for request in decoded] == [0, 1950]
    assert texts(transcript) == ["hello there", FLUENT]
    assert [(flag.guard, flag.start_s, flag.end_s) for flag in transcript.flags] == [("speech", 19.5, 30.0)]


def test_speech_in_a_window_taken_for_silence_is_gone_back_for_once() -> None:
    silent = said(0.0, "you", 2.0, no_speech_prob=0.9, avg_logprob=-2.0)
    transcript, decoded, _ = run(3000, lambda _: silent, [(2000, 2950)], pause_guard=False)
    assert [request.seek for request in decoded] == [0, 1950]
    assert texts(transcript) == []


POOR = {"avg_logprob": -0.8}
#: somebody speaks from 0 to 5 s and from 15 to 24 s
APART = [(0, 500), (1500, 2400)]


def test_poor_text_around_a_long_pause_is_decoded_in_parts() -> None:
    answers = {(0, 3000): said(0.0, FLUENT, 30.0, **POOR), (0, 550): said(0.0, "one side", 5.0, 5.0, "more", 5.4)}
    answers |= {(1450, 1550): said(0.5, "the other side", 9.0)}
    transcript, decoded, listened = run(3000, lambda asked: answers[asked.seek, asked.n_frames], APART)
    assert [(request.seek, request.n_frames) for request in decoded] == list(answers)
    assert texts(transcript) == ["one side", "more", "the other side"]
    assert [request.prompt for request in decoded[:2]] == [(), ()], "refused text is no prompt"
    assert [(window.seek, window.next_seek, window.skipped) for window in transcript.windows] == [
        (0, 0, True), (0, 550, False), (1450, 3000, False)
    ]  # fmt: skip
    (flag,) = transcript.flags
    assert str(flag) == "5.0-15.0 s: decoded again without it, as the text around this pause was poor"
    assert (flag.guard, flag.start_s, flag.end_s, flag.text) == ("pause", 5.0, 15.0, "")
    assert [(one.seek, one.n_frames) for one in listened[:2]] == [(0, 3000), (1450, 1550)]


def test_a_part_that_says_little_at_first_is_decoded_to_its_end() -> None:
    answers = {(0, 3000): said(0.0, FLUENT, 30.0, **POOR), (0, 550): said(0.0, "one", 2.0, 2.0, "unfinished")}
    answers |= {(200, 350): said(0.0, "side", 3.0), (1450, 1550): said(0.5, "the other side", 9.0)}
    transcript, decoded, _ = run(3000, lambda asked: answers[asked.seek, asked.n_frames], APART)
    assert [(request.seek, request.n_frames) for request in decoded] == list(answers)
    assert texts(transcript) == ["one", "side", "the other side"]


def test_a_part_that_is_poor_too_stays_as_it_is() -> None:
    transcript, decoded, _ = run(3000, lambda asked: said(0.0, FLUENT, asked.n_frames / 100, **POOR), [(0, 900)])
    assert [(request.seek, request.n_frames) for request in decoded] == [(0, 3000), (0, 950)]
    assert texts(transcript) == [FLUENT]


def test_a_window_that_begins_in_a_long_pause_begins_anew_where_speech_does() -> None:
    poor, sure = said(0.0, FLUENT, 30.0, **POOR), said(0.0, FLUENT, 30.0)
    answers = {(0, 3000): poor, (1950, 3000): sure, (4950, 1050): sure}
    transcript, decoded, _ = run(6000, lambda asked: answers[asked.seek, asked.n_frames], [(2000, 6000)])
    assert [(request.seek, request.n_frames) for request in decoded] == list(answers)
    assert [(flag.guard, flag.start_s, flag.end_s) for flag in transcript.flags] == [("pause", 0.0, 20.0)]


@pytest.mark.parametrize(
    ("scores", "speech"),
    [
        ({}, APART),  # sparse, but sure of itself
        ({"avg_logprob": -0.9}, [(0, 1000), (1290, 3000)]),  # unsure, but the pause is short
        ({"avg_logprob": -2.0}, [(0, 3000)]),
    ],
)
def test_sure_text_and_speech_without_long_pauses_are_decoded_once(
    scores: dict[str, float], speech: list[tuple[int, int]]
) -> None:
    transcript, decoded, _ = run(3000, lambda _: said(0.0, "a few words", 30.0, **scores), speech)
    assert (len(decoded), "pause" in guards(transcript)) == (1, False)


def test_parts_stay_within_their_clip() -> None:
    asked = []

    def decode(request: Decode) -> WindowResult:
        asked.append((request.seek, request.n_frames))
        return said(0.0, FLUENT, request.n_frames / 100, **POOR)

    run(9000, decode, [(0, 400), (2800, 5000)], clip_timestamps="0,20,60,65")
    assert asked == [(0, 2000), (0, 450), (6000, 500)]


@given(
    lengths=st.lists(st.tuples(st.integers(1, 1500), st.integers(30, 2500)), min_size=1, max_size=8),
    poor=st.lists(st.booleans(), min_size=1, max_size=6),
)
@settings(max_examples=200)
def test_whatever_is_decoded_in_parts_no_speech_is_left_out(lengths: list[tuple[int, int]], poor: list[bool]) -> None:
    """lengths: of the pauses, and of the speech behind each; poor: which windows' scores are, over and over."""
    speech, at = [], 0
    for pause, spoken in lengths:
        speech.append((at + pause, at + pause + spoken))
        at = speech[-1][1]
    moods = itertools.cycle(poor)

    def decode(request: Decode) -> WindowResult:
        return said(0.0, FLUENT, request.n_frames / 100, avg_logprob=-0.8 if next(moods) else -0.2)

    transcript, _, _ = run(at, decode, speech, silence_guard=False, loop_guard=False)
    heard = [Heard(((one.seek, one.seek + one.n_frames),)) for one in transcript.windows if not one.skipped]
    left_out = [span for span in speech if sum(one.frames_within(*span) for one in heard) < span[1] - span[0]]
    assert not left_out


@pytest.mark.parametrize("mode", ["reference", "sequential"])
def test_mode_reference_switches_every_guard_off(mode: str) -> None:
    loop = [part for i in range(0, 30, 2) for part in (float(i), " I am here again.", float(i + 2))]
    transcript, _, listened = run(3400, lambda _: said(*loop, no_speech_prob=0.5), mode=mode)
    assert bool(transcript.flags) == bool(listened) == (mode != "reference")


PARTS = {3000: said(0.0, FLUENT, 30.0, avg_logprob=-0.8), 950: said(0.0, FLUENT, 9.0)}
LEFT_OUT = {0: said(0.0, "hello there", 3.0), 1950: said(0.0, FLUENT, 10.0)}
#: guard -> a recording's length, what is decoded of it, where somebody speaks
OCCASIONS: dict[str, tuple[int, Decoder, list[tuple[int, int]]]] = {
    "silence": (3000, lambda _: said(0.0, "you", 2.0), []),
    "tail": (3400, fluent, [(0, 2990)]),
    "pause": (3000, lambda asked: PARTS[asked.n_frames], [(0, 900)]),
    "loop": (3000, lambda _: said(0.0, " I am here again." * 8, 30.0), [(0, 3000)]),
    "speech": (3000, lambda asked: LEFT_OUT[asked.seek], [(0, 290), (2000, 2950)]),
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
