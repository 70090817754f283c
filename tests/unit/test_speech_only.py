"""Speech alone (`vad=True`): samples are the recording's, and so are times after mapping back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.audio.intervals import Interval
from stapes.audio.pcm import recording_of_array
from stapes.recording.speech_only import whole_frames, within
from stapes.recording.time_map import Seam, TimeMap
from stapes.results import Flag, Segment, Word

N = 160 * 10_000  # 100 s

spans = st.lists(st.integers(0, N), min_size=0, max_size=12).map(
    lambda bounds: whole_frames([(a, b) for a, b in zip(*[iter(sorted(bounds))] * 2, strict=False) if a < b], N)
)


def segment(start_s: float, end_s: float, *words: tuple[float, float]) -> Segment:
    return Segment(
        id=0, seek=round(start_s * 100), start_s=start_s, end_s=end_s, text="x", tokens=(1,), temperature=0.0,
        avg_logprob=0.0, compression_ratio=1.0, no_speech_prob=0.0,
        words=tuple(Word(text="x", start_s=a, end_s=b, probability=1.0) for a, b in words) or None,
    )  # fmt: skip


@given(spans, st.data())
def test_samples_of_speech_alone_are_those_of_the_spans(parts: tuple[Interval, ...], data: st.DataObject) -> None:
    samples = np.arange(N, dtype=np.float32)
    wanted = np.concatenate([samples[:0], *(samples[one[0] : one[1]] for one in parts)])
    spliced = recording_of_array("it", samples).spliced([(one[0], one[1]) for one in parts])
    start = data.draw(st.integers(0, len(wanted)))
    stop = data.draw(st.integers(start, len(wanted) + 100))
    assert spliced.n_samples == len(wanted)
    assert np.array_equal(spliced.read(start, stop), wanted[start:stop])


@given(spans.filter(bool), st.data())
def test_times_are_those_of_the_recording(parts: tuple[Interval, ...], data: st.DataObject) -> None:
    """Whatever begins inside a span begins there in the recording, to the millisecond."""
    time_map, at = TimeMap(parts, N), 0.0
    for one in parts:
        length_s = (one[1] - one[0]) / 16000
        offset_s = data.draw(st.integers(0, max(0, round(length_s * 100) - 1))) / 100
        assert time_map.start(at + offset_s) == pytest.approx(one[0] / 16000 + offset_s, abs=1e-3)
        assert time_map.end(at + length_s) == pytest.approx(one[1] / 16000, abs=1e-3)
        at += length_s


@given(spans, st.lists(st.floats(0, 120), min_size=2, max_size=30).map(sorted))
def test_what_is_in_order_stays_in_order_inside_the_recording(parts: tuple[Interval, ...], times: list[float]) -> None:
    time_map = TimeMap(parts, N)
    words = list(zip(times[::2], times[1::2], strict=False))
    mapped = time_map.segment(segment(times[0], times[-1], *words))
    found = [time for word in mapped.words or () for time in (word.start_s, word.end_s)]
    assert found == sorted(found)
    assert 0 <= mapped.start_s <= mapped.end_s <= N / 16000
    assert not found or mapped.start_s <= found[0] <= found[-1] <= mapped.end_s
    flag = time_map.flag(Flag(guard="loop", start_s=times[0], end_s=times[-1], reason=""))
    assert flag.start_s <= flag.end_s


def test_a_word_is_not_stretched_over_a_cut() -> None:
    time_map = TimeMap([(16000, 32000), (160_000, 320_000)], N)  # 1 to 2 s, 10 to 20 s
    mapped = time_map.segment(segment(0.5, 3.0, (0.5, 0.9), (0.9, 1.4), (1.4, 3.0)))
    assert mapped.words is not None
    assert [(one.start_s, one.end_s) for one in mapped.words] == [(1.5, 1.9), (10.0, 10.4), (10.4, 12.0)]
    assert (mapped.start_s, mapped.end_s, mapped.seek) == (1.5, 12.0, 150)


@given(spans, spans)
def test_seams_know_what_is_quiet_around_them(parts: tuple[Interval, ...], speech: tuple[Interval, ...]) -> None:
    frames = {frame for one in speech for frame in range(one[0] // 160, one[1] // 160)}
    left = [frame in frames for one in parts for frame in range(one[0] // 160, one[1] // 160)]
    at, wanted = 0, []
    for before, after in itertools.pairwise(parts):
        first = at
        at = end = at + (before[1] - before[0]) // 160
        start = at
        while start > first and not left[start - 1]:
            start -= 1
        while end < at + (after[1] - after[0]) // 160 and not left[end]:
            end += 1
        wanted.append(Seam(at, (start, end)))
    assert TimeMap(parts, N, speech).seams == tuple(wanted)
    assert [one.quiet for one in TimeMap(parts, N).seams] == [(one.at, one.at) for one in wanted]


def test_spans_in_clips() -> None:
    spans = [(0, 1600), (3200, 16000)]
    assert within(spans, [(50, 100), (5, 30)]) == ((800, 1600), (3200, 4800), (8000, 16000))
    assert whole_frames([(10, 150), (170, 200), (900, 1000)], 1000) == ((0, 320), (800, 1000))


def test_clips_that_overlap_lose_no_speech() -> None:
    """A clip inside another one ended the speech of both."""
    speech = within([(0, 16_000)], [(0, 100), (0, 50)])
    assert whole_frames(speech, 32_000) == ((0, 16_000),)
