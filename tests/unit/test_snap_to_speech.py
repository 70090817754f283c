"""Words that DTW placed in a pause move to their speech; all others keep their times."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.recording.time_map import Seam
from stapes.recording.words.snap_to_speech import has_hole, lies_in_pause, out_of_pauses
from stapes.results import Segment, Word, WordTiming
from stapes.vad.spans import SpeechMap


def segment(*words: tuple[float, float]) -> Segment:
    return Segment(
        id=0, seek=0, start_s=words[0][0], end_s=words[-1][1], text="x", tokens=(1,), temperature=0.0, avg_logprob=0.0,
        compression_ratio=1.0, no_speech_prob=0.0,
        words=tuple(Word(text="x", start_s=a, end_s=b, probability=1.0) for a, b in words),
    )  # fmt: skip


def times(segments: list[Segment]) -> list[tuple[float, float]]:
    return [(word.start_s, word.end_s) for one in segments for word in one.words or ()]


#: speech from 1 to 5 s and from 15 to 20 s
SPEECH = SpeechMap(((100, 500), (1500, 2000)))


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([(1.0, 2.0), (2.0, 5.0)], [(1.0, 2.0), (2.0, 5.0)]),
        ([(4.0, 14.0), (14.0, 16.0)], [(4.0, 14.0), (14.0, 16.0)]),  # both reach into speech
        ([(13.9, 15.1), (15.1, 15.4)], [(14.95, 15.1), (15.1, 15.4)]),
        ([(14.92, 15.1), (15.1, 15.4)], [(14.92, 15.1), (15.1, 15.4)]),  # not much too early
        ([(14.6, 15.1), (15.1, 15.4)], [(14.95, 15.1), (15.1, 15.4)]),
        ([(13.9, 14.9), (15.1, 15.4)], [(14.95, 15.1), (15.1, 15.4)]),
        ([(13.0, 13.4), (15.3, 15.6)], [(14.95, 15.3), (15.3, 15.6)]),
        ([(4.5, 5.0), (6.0, 6.3)], [(4.5, 5.0), (5.0, 5.05)]),  # nearer to the speech before
        ([(0.1, 0.4)], [(0.1, 0.4)]),  # a pause of a second is left to attention
    ],
)
def test_words_beside_pauses(words: list[tuple[float, float]], wanted: list[tuple[float, float]]) -> None:
    moved = out_of_pauses([segment(*words)], SPEECH, 0, 3000)
    assert times(moved) == [pytest.approx(one, abs=1e-6) for one in wanted]
    assert (moved[0].start_s, moved[0].end_s) == (times(moved)[0][0], times(moved)[-1][1])


def test_attention_is_believed_more_where_a_pause_is_short() -> None:
    speech = SpeechMap(((100, 500), (750, 1200)))
    for start_s, wanted_s in ((6.8, 6.8), (6.4, 7.45)):
        assert times(out_of_pauses([segment((start_s, 7.6))], speech, 0, 3000))[0][0] == pytest.approx(wanted_s)


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ((6.1, 6.75), (6.55, 7.2)),  # too early
        ((6.5, 6.75), (6.5, 6.75)),
        ((4.9, 6.9), (6.55, 6.9)),  # the first word after it, stretched over it
        ((4.0, 6.9), (6.55, 6.9)),  # over what sounds like speech before it, too: it ends after it
        ((4.0, 6.3), (4.0, 5.8)),  # it ends before it
        ((4.9, 6.2), (4.9, 5.8)),  # the last word before it
        ((4.7, 6.59), (6.55, 6.59)),
        ((5.4, 6.9), (6.55, 6.9)),
    ],
)
def test_words_beside_a_pause_that_was_cut_short(word: tuple[float, float], wanted: tuple[float, float]) -> None:
    speech = SpeechMap(((100, 500), (660, 1200)))
    quiet = Seam(580, (500, 660))  # known from elsewhere
    for found, seam in ((speech, Seam(580, (580, 580))), (SpeechMap(((0, 3000),)), quiet), (speech, quiet)):
        assert times(out_of_pauses([segment(word)], found, 0, 3000, [seam])) == [pytest.approx(wanted)]
    for others in ([], [Seam(200, (200, 200))]):
        assert times(out_of_pauses([segment(word)], speech, 0, 3000, others)) == [word]


@pytest.mark.parametrize(
    ("word", "seams", "otherwise", "after_a_clause"),
    [
        ((5.3, 5.8), [], (5.0, 5.05), (6.55, 6.9)),  # in the quiet, nearer to the speech before
        ((4.9, 5.8), [], (4.9, 5.8), (6.55, 6.9)),
        ((5.3, 6.4), [Seam(580, (580, 580))], (6.55, 6.9), (6.55, 6.9)),
        ((5.1, 6.2), [Seam(580, (580, 580))], (5.1, 5.8), (6.55, 6.9)),  # over the seam, and holds no speech
        ((4.5, 6.6), [Seam(580, (580, 580))], (6.55, 6.6), (6.55, 6.6)),  # it ends where the next speech begins
        ((4.5, 6.2), [Seam(580, (580, 580))], (4.5, 5.8), (4.5, 5.8)),
    ],
)
def test_the_pause_is_where_a_clause_ends(
    word: tuple[float, float], seams: list[Seam], otherwise: tuple[float, float], after_a_clause: tuple[float, float]
) -> None:
    speech = SpeechMap(((100, 500), (660, 1200)))
    for text, wanted in ((" books", otherwise), (" books,", after_a_clause)):
        one = segment((3.0, 4.0), word, (6.9, 7.2))
        before, *others = one.words or ()
        one = replace(one, words=(replace(before, text=text), *others))
        moved = times(out_of_pauses([one], speech, 0, 3000, seams))
        assert moved == [(3.0, 4.0), pytest.approx(wanted), (6.9, 7.2)]


def test_a_window_that_begins_or_ends_beside_a_seam() -> None:
    everywhere, seam = SpeechMap(((0, 3000),)), Seam(30, (-10, 70))
    assert times(out_of_pauses([segment((0.1, 0.9))], everywhere, 0, 3000, [seam])) == [(0.65, 0.9)]
    assert times(out_of_pauses([segment((0.1, 0.25))], everywhere, 0, 3000, [seam])) == [pytest.approx((0.65, 0.8))]
    last_seam = Seam(2980, (2940, 3020))
    assert times(out_of_pauses([segment((29.1, 30.0))], everywhere, 0, 3000, [last_seam])) == [(29.1, 29.8)]
    last = out_of_pauses([segment((29.9, 30.0))], everywhere, 0, 3000, [last_seam])
    assert times(last) == [pytest.approx((29.4, 29.45))]


def test_speech_that_was_cut_in_its_middle() -> None:
    cut = [Seam(500, (500, 500))]
    for word, wanted in (
        ((4.0, 5.3), (4.0, 5.0)),
        ((4.8, 5.1), (4.8, 5.0)),
        ((4.8, 5.4), (5.0, 5.4)),
        ((4.8, 5.0), (4.8, 5.0)),
        ((5.0, 5.2), (5.0, 5.2)),
        ((5.1, 5.2), (5.1, 5.2)),
    ):
        assert times(out_of_pauses([segment(word)], SpeechMap(((0, 3000),)), 0, 3000, cut)) == [wanted]


@pytest.mark.parametrize(
    ("time", "wanted"),
    [
        ((4.0, 8.0), (4.0, 8.0)),  # says something on both sides
        ((5.1, 8.0), (5.8, 8.0)),
        ((4.8, 8.0), (5.8, 8.0)),
        ((4.0, 6.5), (4.0, 5.8)),
        ((4.0, 6.7), (4.0, 5.8)),
        ((5.7, 6.5), (5.8, 6.5)),
        ((5.2, 5.9), (5.2, 5.8)),
        ((5.1, 5.6), (5.1, 5.6)),
        ((6.0, 6.6), (6.0, 6.6)),
    ],
)
def test_segments_beside_a_pause_that_was_cut_short(time: tuple[float, float], wanted: tuple[float, float]) -> None:
    one = replace(segment(time), words=None)
    (moved,) = out_of_pauses([one], SpeechMap(((0, 3000),)), 0, 3000, [Seam(580, (500, 660))])
    assert (moved.start_s, moved.end_s) == wanted
    assert out_of_pauses([one], SpeechMap(((100, 500), (660, 1200))), 0, 3000) == [one]


def test_a_moment_too_short_for_a_word_is_no_end_of_a_pause() -> None:
    for length, wanted in ((13, (9.95, 10.05)), (20, (7.2, 7.25))):  # the nearer end of the pause around 7.6 s
        speech = SpeechMap(((100, 500), (700, 700 + length), (1000, 1500)))
        moved = out_of_pauses([segment((7.6, 7.7))], speech, 0, 3000, [Seam(800, (800, 800))])
        assert times(moved) == [pytest.approx(wanted)]


def test_words_stay_where_there_is_no_speech() -> None:
    one = segment((3.0, 4.0))
    assert out_of_pauses([one], SpeechMap(()), 0, 3000) == [one]


def test_before_the_first_and_after_the_last_speech() -> None:
    moved = out_of_pauses([segment((3.0, 4.0), (22.0, 23.0))], SpeechMap(((1000, 2000),)), 0, 3000)
    assert times(moved) == [pytest.approx((9.95, 10.95)), pytest.approx((20.0, 20.05))]


@pytest.mark.parametrize(
    ("words", "invented"),
    [
        ([(8.0, 9.0), (9.0, 12.0)], True),
        ([(14.0, 14.8)], False),  # the first word after a pause, placed in it
        ([(5.2, 6.0)], False),
        ([(8.0, 9.0), (9.0, 15.4)], False),
        ([(2.0, 3.0)], False),
    ],
)
def test_words_far_from_speech_count_as_invented(words: list[tuple[float, float]], invented: bool) -> None:
    assert lies_in_pause(segment(*words).words or (), SPEECH, 0, 3000) is invented
    assert not lies_in_pause((), SPEECH, 0, 3000)


bounds = st.lists(st.integers(0, 3000), max_size=8, unique=True).map(sorted)
moments = st.lists(st.integers(0, 3000).map(lambda one: one / 100), min_size=2, max_size=24).map(sorted)


@st.composite
def seams_of(draw: st.DrawFn) -> list[Seam]:
    """Draw seams with quiet around them, in order and apart."""
    found, end = [], 0
    for at in draw(bounds):
        quiet = max(end, at - draw(st.integers(0, 80))), at + draw(st.integers(0, 80))
        if end <= at:
            found.append(Seam(at, quiet))
            end = quiet[1]
    return found


@given(bounds, moments, st.integers(1, 4), seams_of(), st.booleans())
def test_order_stays_whatever_the_speech(
    edges: list[int], at: list[float], n_segments: int, seams: list[Seam], with_words: bool
) -> None:
    speech = SpeechMap(tuple(zip(edges[::2], edges[1::2], strict=False)) or ((0, 3000),))
    words = list(zip(at[::2], at[1::2], strict=False))
    size = -(-len(words) // n_segments)
    segments = [segment(*words[i : i + size]) for i in range(0, len(words), size)]
    if not with_words:
        segments = [replace(one, words=None) for one in segments]
    moved = out_of_pauses(segments, speech, 0, 3000, seams)
    found = [time for word in times(moved) for time in word]
    assert found == sorted(found)
    assert len(moved) == len(segments)
    for before, after in itertools.pairwise(moved):
        assert before.end_s <= after.start_s
    for one in moved:
        assert one.start_s <= one.end_s
        own = one.words or ()
        if own:
            assert one.start_s <= own[0].start_s <= own[-1].end_s <= one.end_s
    if any(stop - start >= 15 for start, stop in speech.without(seam.quiet for seam in seams).spans):
        assert not any(a < seam.at / 100 < b for a, b in times(moved) for seam in seams)


def test_holes() -> None:
    def timing(start_s: float) -> WordTiming:
        return WordTiming(text="x", tokens=(1,), start_s=start_s, end_s=start_s, probability=1.0)

    assert not has_hole([timing(1.0), timing(2.0)], 3.4)
    assert has_hole([timing(1.0), timing(2.5)], 3.0)
    assert has_hole([timing(1.5)], 2.0)
    assert has_hole([timing(0.5)], 2.0)
