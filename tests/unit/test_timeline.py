"""The seek loop's timeline, against a plain list of the frames that are left."""

from __future__ import annotations

import bisect
import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stapes.recording.time_map import Seam, Timeline
from stapes.results import Flag, Segment, Window, WindowResult

N_FRAMES = 4000


@st.composite
def cuts(draw: st.DrawFn) -> list[list[tuple[int, int]]]:
    """Pauses that are left out one set after the other, each in the time that the ones before it left."""
    found, left = [], N_FRAMES
    for _ in range(draw(st.integers(1, 4))):
        edges = sorted(draw(st.sets(st.integers(0, left), min_size=2, max_size=6)))
        pauses = list(zip(edges[::2], edges[1::2], strict=False))
        if sum(end - first for first, end in pauses) == left:
            break
        found.append(pauses)
        left -= sum(end - first for first, end in pauses)
    return found


def left_of(sets: list[list[tuple[int, int]]]) -> tuple[Timeline, list[int]]:
    timeline, frames = Timeline(N_FRAMES), list(range(N_FRAMES))
    for pauses in sets:
        timeline.leave_out(iter(pauses))
        for first, end in reversed(pauses):
            del frames[first:end]
    return timeline, frames


@given(cuts(), st.integers(0, N_FRAMES), st.integers(0, N_FRAMES))
def test_frames_are_those_that_are_left(sets: list[list[tuple[int, int]]], first: int, end: int) -> None:
    timeline, frames = left_of(sets)
    assert timeline.n_frames == len(frames)
    first, end = sorted((min(first, len(frames)), min(end, len(frames))))
    stretches = timeline.frames(first, end)
    assert [frame for start, stop in stretches for frame in range(start, stop)] == frames[first:end]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(stretches))
    assert timeline.frame(end) == (frames[end] if end < len(frames) else N_FRAMES)


@given(cuts(), st.sets(st.integers(1, N_FRAMES - 1), max_size=8), st.integers(0, 100))
def test_seams_are_where_frames_that_were_apart_meet(
    sets: list[list[tuple[int, int]]], spliced_at: set[int], quiet: int
) -> None:
    _, frames = left_of(sets)
    timeline = Timeline(N_FRAMES, [Seam(at, (max(0, at - quiet), at)) for at in sorted(spliced_at)])
    assert [one.at for one in timeline.seams(0, N_FRAMES)] == sorted(spliced_at)
    for pauses in sets:
        timeline.leave_out(pauses)
    apart = {at for at, (before, after) in enumerate(itertools.pairwise(frames), 1) if after != before + 1}
    meet = {bisect.bisect_left(frames, at) for at in spliced_at}
    seams = timeline.seams(0, N_FRAMES)
    ends = {0, len(frames)}  # what is cut off there has nothing on the other side
    assert {one.at for one in seams} - ends == (apart | meet) - ends
    assert [one.at for one in seams] == sorted(one.at for one in seams)
    assert set(timeline.left_out_before) - ends == apart
    for one in seams:
        assert one.quiet[0] <= one.at == one.quiet[1]
    (some,) = timeline.seams(seams[0].at, seams[0].at)[:1] if seams else (None,)
    assert some == (seams[0] if seams else None)


@given(cuts(), st.integers(0, N_FRAMES - 1), st.integers(1, 3000))
def test_segments_and_flags_have_the_recordings_time(sets: list[list[tuple[int, int]]], at: int, length: int) -> None:
    timeline, frames = left_of(sets)
    first = min(at, len(frames) - 1)
    end = min(first + length, len(frames))
    times: dict[str, Any] = {"start_s": first / 100, "end_s": end / 100}
    scores: dict[str, Any] = dict.fromkeys(("temperature", "avg_logprob", "compression_ratio", "no_speech_prob"), 0.0)
    (mapped,) = timeline.segments([Segment(id=0, seek=first, text="x", tokens=(1,), **times, **scores)])
    assert (mapped.start_s, mapped.end_s) == (frames[first] / 100, (frames[end - 1] + 1) / 100)
    flag = timeline.flag(Flag(guard="loop", reason="", **times))
    assert (flag.start_s, flag.end_s) == (mapped.start_s, mapped.end_s)
    result = WindowResult(tokens=(), text="", **scores)
    one = timeline.window(Window(seek=first, n_frames=end - first, next_seek=end, skipped=False, result=result))
    assert [frame for start, stop in one.frames for frame in range(start, stop)] == frames[first:end]
    timeline.put_back()
    assert (timeline.n_frames, timeline.frames(at, N_FRAMES)) == (N_FRAMES, ((at, N_FRAMES),))
