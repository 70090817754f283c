"""Chunked mode: cuts at pauses, chunks that cover all, and each decoded as it would be alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.audio.pcm import Recording, recording_of_array
from stapes.backends.base import FloatArray
from stapes.engine.engine import Engine
from stapes.engine.scheduler import MemoryBound, Scheduler
from stapes.errors import OptionError
from stapes.recording.chunked import chunk_bounds, levels, quietest_cut
from stapes.recording.events import JobEvent, LanguageDetected, WindowDone
from stapes.results import Transcript
from stapes.testing import babbling, noise, random_checkpoint, tiny_spec, tone
from stapes.tokenizer import Tokenizer
from tests.quick_backend import QuickBackend
from tests.random_cases import random_cases

CHECKPOINT = random_checkpoint()
TOKENIZER = Tokenizer(tiny_spec(), CHECKPOINT.vocabulary)
BABBLE: dict[str, Any] = {"temperature": (0.0, 0.9), "sample_len": 6, "best_of": 2}


def engine_of() -> tuple[Engine, QuickBackend]:
    backend = QuickBackend(babbling(11, TOKENIZER))
    return Engine(CHECKPOINT, backend), backend


def bounds_of(audio: FloatArray, *clips: tuple[int, int]) -> list[tuple[int, int]]:
    recording: Recording = recording_of_array("talk", audio)
    return list(chunk_bounds(recording.read, clips or [(0, len(audio) // 160)]))


# Where cuts lie.


def test_a_cut_lies_in_the_middle_of_a_pause() -> None:
    audio = tone(70.0)
    audio[int(24.0 * 16000) : int(24.4 * 16000)] = 0.0
    audio[int(49.0 * 16000) : int(49.3 * 16000)] *= 0.01
    (first, second, third) = bounds_of(audio)
    assert (first[0], third[1]) == (0, 7000)
    assert 2410 <= first[1] <= 2430
    assert 4905 <= second[1] <= 4925


def test_of_equal_pauses_the_latest_is_taken() -> None:
    audio = tone(40.0)
    for start_s in (19.0, 22.0, 27.0):
        audio[int(start_s * 16000) : int((start_s + 0.5) * 16000)] = 0.0
    ((_, cut), _) = bounds_of(audio)
    assert 2710 <= cut <= 2750


def test_what_fits_into_a_window_is_not_cut() -> None:
    assert bounds_of(noise(30.0)) == [(0, 3000)]
    assert bounds_of(noise(30.0), (100, 100), (5, 6), (6, 3000)) == [(5, 6), (6, 3000)]
    assert bounds_of(noise(0.005)) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 9000)).map(sorted), max_size=3), st.integers(0, 9))
def test_chunks_cover_the_clips_and_none_is_longer_than_a_window(clips: list[list[int]], seed: int) -> None:
    recording = recording_of_array("talk", noise(90.0, seed % 3))
    for first, end in clips:
        chunks = list(chunk_bounds(recording.read, [(first, end)]))
        assert [one[0] for one in chunks] + [end] == [first, *(one[1] for one in chunks)] or first == end
        assert all(0 < stop - start <= 3000 for start, stop in chunks)
        assert all(stop - start >= 1800 for start, stop in chunks[:-1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9))
def test_no_stretch_is_quieter_than_the_one_that_is_cut(seed: int, most: int) -> None:
    level = np.random.default_rng(seed).integers(0, most, 3000).astype(np.float32)
    cut = quietest_cut(level)
    sums = [float(level[start : start + 20].sum()) for start in range(1800, 2981)]
    assert level[cut - 10 : cut + 10].sum() == min(sums)
    assert 1810 <= cut <= 2990


def test_levels_are_mean_squares_of_whole_frames() -> None:
    samples = np.concatenate((np.full(160, 0.5), np.full(160, -0.25), np.ones(100))).astype(np.float32)
    assert levels(samples).tolist() == [0.25, 0.0625]


# What comes of it.


def chunked_by_hand(audio: FloatArray, **keywords: Any) -> list[Transcript]:
    """Decode every chunk as a separate clip, in the reference's way."""
    engine, _ = engine_of()
    language = keywords.pop("language", None) or engine.detect_language(audio).language
    clips = [(start / 100, end / 100) for start, end in bounds_of(audio)]
    return [engine.transcribe(audio, clip_timestamps=clip, language=language, **BABBLE, **keywords) for clip in clips]


@pytest.mark.parametrize("language", [None, "de"])
@pytest.mark.parametrize("max_windows", [1, 3, 16])
def test_every_chunk_is_decoded_as_if_alone(language: str | None, max_windows: int) -> None:
    audio = noise(200.0, seed=4)
    engine, backend = engine_of()
    engine.scheduler = Scheduler(backend, MemoryBound.of(backend, None, max_windows))
    job = engine.submit(audio, mode="chunked", language=language, **BABBLE)
    streamed = tuple(job)
    result = job.result()
    expected = chunked_by_hand(audio, language=language)
    assert result.text == "".join(one.text for one in expected)
    assert result.windows == tuple(window for one in expected for window in one.windows)
    assert [(one.start_s, one.end_s, one.tokens) for one in result.segments] == [
        (one.start_s, one.end_s, one.tokens) for part in expected for one in part.segments
    ]
    assert [one.id for one in result.segments] == list(range(len(result.segments)))
    assert streamed == result.segments
    assert (result.language_guess is None) == (language is not None)
    assert result.to_dict()["language"] == result.language
    assert backend.most_windows == max(1, max_windows - 1) if max_windows < 8 else backend.most_windows > 4
    assert backend.n_open == 0


def test_progress_and_events_run_forward() -> None:
    engine, _ = engine_of()
    seen: list[float] = []
    events: list[JobEvent] = []
    job = engine.submit(
        noise(200.0), mode="chunked", on_progress=lambda one: seen.append(one.done_s), on_event=events.append, **BABBLE
    )
    result = job.result()
    assert seen == sorted(seen)
    assert seen[-1] == 200.0
    assert isinstance(events[0], LanguageDetected)
    windows = [event.window for event in events if isinstance(event, WindowDone)]
    assert tuple(windows) == result.windows
    assert [window.seek for window in windows] == sorted(window.seek for window in windows)


@random_cases(6, 50)
@given(st.integers(0, 14))
def test_a_broken_run_goes_on(n_known: int) -> None:
    engine, backend = engine_of()
    first: list[JobEvent] = []
    whole = engine.submit(noise(120.0), mode="chunked", on_event=first.append, **BABBLE).result()
    answers = [one.guess if isinstance(one, LanguageDetected) else one.window.result for one in first]
    events: list[JobEvent] = []
    job = engine.submit(noise(120.0), mode="chunked", resume=answers[:n_known], on_event=events.append, **BABBLE)
    assert job.result() == whole
    assert [event.resumed for event in events] == [place < n_known for place in range(len(first))]
    assert backend.n_open == 0
    with pytest.raises(OptionError, match="another recording or options"):
        engine.submit(noise(120.0), mode="chunked", resume=[*answers, answers[-1]], **BABBLE)


@pytest.mark.parametrize("n_steps", [0, 1, 5, 20, 60])
def test_a_cancelled_job_gives_everything_back(n_steps: int) -> None:
    engine, backend = engine_of()
    job = engine.submit(noise(120.0), mode="chunked", **BABBLE)
    for _ in range(n_steps):
        engine.step()
    job.cancel()
    assert backend.n_open == 0


@pytest.mark.parametrize("n_samples", [0, 159, 160, 48000])
@pytest.mark.parametrize("language", [None, "en"])
def test_short_recordings_are_one_chunk_or_none(n_samples: int, language: str | None) -> None:
    engine, backend = engine_of()
    audio = noise(3.0)[:n_samples]
    found = engine.transcribe(audio, mode="chunked", language=language, **BABBLE)
    assert found == engine.transcribe(audio, language=language, **BABBLE)
    assert backend.n_open == 0


def test_another_mode_is_refused() -> None:
    with pytest.raises(OptionError, match="sequential, reference, chunked; got 'parallel'"):
        engine_of()[0].transcribe(noise(1.0), mode="parallel")
