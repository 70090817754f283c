"""The rules of words: punctuation that joins words, pauses in no word, which time is believed, what seems invented."""

from __future__ import annotations

from typing import Any

import pytest

from stapes.options import Words
from stapes.recording.segments import Cut, Piece, WindowSpan
from stapes.recording.words.hallucination import Settled, is_anomaly, settle
from stapes.recording.words.timing import in_order, place_words
from stapes.results import Segment, Word, WordTiming

EOT = 1000
Spoken = tuple[str, float, float]


def timings(*words: Spoken) -> tuple[WordTiming, ...]:
    return tuple(
        WordTiming(text=text, tokens=(number,), start_s=start_s, end_s=end_s, probability=0.9)
        for number, (text, start_s, end_s) in enumerate(words)
    )


def piece(start_s: float, end_s: float, n_tokens: int, *words: Spoken, probability: float = 0.9) -> Piece:
    placed = tuple(Word(text=text, start_s=start, end_s=end, probability=probability) for text, start, end in words)
    return Piece(start_s=start_s, end_s=end_s, tokens=tuple(range(n_tokens)), words=placed)


def placed(pieces: list[Piece], *words: Spoken, offset_s: float = 0.0, last_speech_s: float = 0.0) -> list[Any]:
    found = place_words(pieces, timings(*words), Words(), offset_s=offset_s, last_speech_s=last_speech_s, eot=EOT)
    return [(one.start_s, one.end_s, [(word.text, word.start_s, word.end_s) for word in one.words]) for one in found]


def test_marks_join_their_words_and_keep_the_words_times() -> None:
    found = placed(
        [piece(0.0, 2.0, 6)],
        (" \"", 0.0, 0.1), ("Well", 0.1, 0.5), (",", 0.5, 0.7), (" then", 0.7, 1.2), (".", 1.2, 1.4), ("\"", 1.4, 1.6),
    )  # fmt: skip
    assert found == [(0.1, 1.2, [(' "Well,', 0.1, 0.5), (' then."', 0.7, 1.2)])]


def test_words_fall_to_the_segments_by_their_tokens() -> None:
    found = placed(
        [piece(3.0, 4.0, 2), piece(4.0, 5.0, 1), piece(5.0, 6.0, 0)],
        (" one", 0.0, 0.5), (" two", 0.5, 1.0), (" three", 1.0, 1.5),
        offset_s=3.0, last_speech_s=3.0,
    )  # fmt: skip
    assert found == [
        (3.0, 4.0, [(" one", 3.0, 3.5), (" two", 3.5, 4.0)]),
        (4.0, 4.5, [(" three", 4.0, 4.5)]),
        (5.0, 6.0, []),
    ]


def test_a_pause_between_sentences_is_neither_the_marks_nor_the_next_words() -> None:
    words = [(" a", 0.0, 0.2), (" b", 0.2, 0.4), (".", 0.4, 2.0), (" c", 2.0, 2.2), (" d", 2.2, 2.4)]
    ((_, _, found),) = placed([piece(0.0, 2.4, 5)], *words)
    assert found == [(" a", 0.0, 0.2), (" b.", 0.2, 0.4), (" c", 2.0, 2.2), (" d", 2.2, 2.4)]
    late = [(" a", 0.0, 0.2), (" b", 0.2, 0.4), (".", 0.4, 0.6), (" c", 0.6, 2.2), (" d", 2.2, 2.4)]
    ((_, _, found),) = placed([piece(0.0, 2.4, 5)], *late)
    assert found[2] == (" c", pytest.approx(1.8), 2.2)


def test_a_word_stretched_over_a_pause_is_cut_to_twice_the_median() -> None:
    words = [(" a", 0.0, 5.0), (" b", 5.0, 5.2), (" c", 5.2, 5.4)]
    ((start_s, _, found),) = placed([piece(0.0, 5.4, 3)], *words)
    assert found[0] == (" a", pytest.approx(4.6), 5.0)
    assert start_s == found[0][1]
    # No pause: the same word stays as long as it is, where speech has just ended.
    ((_, _, found),) = placed([piece(10.0, 15.4, 3)], *words, offset_s=10.0, last_speech_s=14.9)
    assert found[0] == (" a", 10.0, 15.0)


def test_a_segments_own_times_are_believed_where_attention_is_far_off() -> None:
    words = [(" a", 0.0, 1.0), (" b", 1.0, 1.2), (" c", 1.2, 1.4), (" d", 1.4, 3.0)]
    found = placed([piece(0.8, 1.8, 4)], *words, last_speech_s=1.0)
    assert found == [(0.8, 1.8, [(" a", pytest.approx(0.4), 1.0), (" b", 1.0, 1.2), (" c", 1.2, 1.4),
                                 (" d", 1.4, pytest.approx(2.0))])]  # fmt: skip


def test_without_words_a_segment_keeps_its_times() -> None:
    assert placed([piece(1.0, 2.0, 3)]) == [(1.0, 2.0, [])]


# What seems invented.


def words_of(*durations_s: float, probability: float = 0.9, text: str = " a") -> tuple[Word, ...]:
    return tuple(Word(text=text, start_s=0.0, end_s=one, probability=probability) for one in durations_s)


@pytest.mark.parametrize(
    ("words", "invented"),
    [
        (words_of(0.3, 0.3), False),
        (words_of(0.3, 0.3, probability=0.1), True),  # all of few are improbable
        (words_of(*[0.3] * 9, probability=0.1), True),
        (words_of(0.0, 0.0, *[0.3] * 6), True),  # 2 x 1.995 is more than 3
        (words_of(5.1, 0.3, 0.3, 0.3), True),  # 3 s too long
        (words_of(*[0.3] * 8, 9.0), False),  # the ninth is not looked at
        (words_of(0.3, text="."), True),  # nothing but marks
    ],
)
def test_anomalies_are_the_improbable_the_short_and_the_long(words: tuple[Word, ...], invented: bool) -> None:
    assert is_anomaly(words) == invented


def settled(*pieces: Piece, threshold_s: float | None = None, closed: bool = False, content: int = 9000) -> Settled:
    """Settle a window of frames 1000 to 4000 whose timestamps lead to 3500."""
    found = Cut(pieces=pieces, advance=2500, closed=closed)
    return settle(found, WindowSpan(1000, 3000), threshold_s, window_frames=3000, content_frames=content)


GOOD = piece(18.8, 20.0, 2, (" a", 18.8, 19.4), (" b", 19.4, 20.0))
BAD = piece(30.0, 31.0, 1, (" you", 30.0, 31.0), probability=0.01)


def test_the_loop_goes_on_after_the_last_word_unless_nothing_follows_it() -> None:
    assert settled(GOOD).next_seek == 2000
    assert settled(GOOD, closed=True).next_seek == 3500
    assert settled(piece(10.0, 10.0, 0)).next_seek == 3500  # no word, and no time
    assert settled(GOOD, threshold_s=2.0).next_seek == 2000
    assert settled(GOOD, threshold_s=25.0).next_seek == 4000  # the rest is too short for a silence


def test_the_loop_never_stands_still() -> None:
    at_once = piece(10.0, 10.004, 1, (" a", 10.0, 10.004))
    assert settled(at_once).next_seek == 1001


def test_invented_text_is_dropped_with_what_follows_it() -> None:
    found = settled(GOOD, BAD, threshold_s=2.0)
    assert found.pieces == (GOOD,)
    assert found.next_seek == 3000  # decoded again from where it began
    assert settled(GOOD, BAD).pieces == (GOOD, BAD)
    assert settled(GOOD, BAD, threshold_s=2.0, content=3200).next_seek == 3200  # it is the recording's end


def test_a_silence_before_invented_text_is_skipped_and_nothing_kept() -> None:
    found = settled(BAD, threshold_s=2.0)
    assert found.pieces is None
    assert found.next_seek == 3000


# Order.


def segment(start_s: float, end_s: float, *words: Spoken) -> Segment:
    own = tuple(Word(text=text, start_s=start, end_s=end, probability=0.9) for text, start, end in words)
    return Segment(id=0, seek=0, start_s=start_s, end_s=end_s, text="x", tokens=(1,), temperature=0.0,
                   avg_logprob=0.0, compression_ratio=1.0, no_speech_prob=0.0, words=own)  # fmt: skip


def test_words_that_overlap_are_put_in_order_and_others_left_alone() -> None:
    fine = [segment(0.0, 1.0, (" a", 0.0, 1.0)), segment(1.0, 2.0, (" b", 1.0, 1.5), (" c", 1.5, 2.0))]
    assert in_order(fine, 0.0) == fine
    empty = segment(0.5, 9.0)
    crossing = [segment(0.0, 1.0, (" a", 0.0, 1.2)), empty, segment(1.1, 2.0, (" b", 1.1, 1.15), (" c", 1.15, 2.0))]
    first, middle, last = in_order(crossing, 0.0)
    assert (first, middle) == (crossing[0], empty)
    assert [(word.start_s, word.end_s) for word in last.words or ()] == [(1.2, 1.2), (1.2, 2.0)]
    assert in_order(crossing[:1], 0.7)[0].words == (Word(text=" a", start_s=0.7, end_s=1.2, probability=0.9),)
