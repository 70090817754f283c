"""Interleaved == alone: whatever company a job has, it gets exactly the transcript that it would get alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.backends.base import FloatArray, LogMelKernel
from stapes.backends.numpy import NumpyBackend
from stapes.engine import Engine
from stapes.errors import CancelledError
from stapes.job import Job
from stapes.results import Transcript
from stapes.scheduled import JobState
from stapes.scheduler import MemoryBound, Scheduler
from stapes.testing import ScriptedBackend, babbling, noise, random_checkpoint, tiny_spec
from stapes.tokenizer import Tokenizer

CHECKPOINT = random_checkpoint(seed=9)
TOKENIZER = Tokenizer(tiny_spec(), CHECKPOINT.vocabulary)

DURATIONS = (0.0, 1.0, 8.5, 29.99, 30.0, 30.01, 45.0, 61.0, 70.0)
POOL: tuple[dict[str, Any], ...] = (
    {},
    {"language": "en", "temperature": 0.0},
    {"language": "German", "temperature": (0.0, 0.6, 1.0), "best_of": 3, "seed": 4},
    {"temperature": 0.8, "best_of": 2, "seed": 1, "no_speech_threshold": None},
    {"language": "en", "temperature": (0.0, 0.4), "beam_size": 3, "best_of": 2},
    {"beam_size": 2, "patience": 2.0, "length_penalty": 0.5, "temperature": 0.0, "compression_ratio_threshold": None},
    {"language": "ja", "task": "translate", "initial_prompt": "names: Ada, Grace", "carry_initial_prompt": True},
    {"initial_prompt": "word " * 80, "temperature": (0.0, 1.0), "condition_on_previous_text": False},
    {"language": "en", "clip_timestamps": "2,9.5,31", "temperature": 0.0},
    {"clip_timestamps": (40.0, 50.0, 3.0, 4.0), "temperature": (0.5,), "best_of": 2},
    {"language": "en", "without_timestamps": True, "prefix": "So", "temperature": (0.0, 0.2)},
    {"suppress_tokens": (), "suppress_blank": False, "max_initial_timestamp": None, "logprob_threshold": None},
    {"word_timestamps": True, "temperature": (0.0, 0.8), "best_of": 2, "no_speech_threshold": None},
    {"word_timestamps": True, "language": "ja", "hallucination_silence_threshold": 1.0, "temperature": 0.0},
    {"word_timestamps": True, "language": "en", "mode": "chunked", "temperature": 0.0, "logprob_threshold": None},
)


class QuickBackend(ScriptedBackend):
    """Babbles, and takes samples for mel bins: other numbers, no less deterministic, a hundred times as quick."""

    def __init__(self) -> None:
        super().__init__(tiny_spec(), babbling(11, TOKENIZER))

    @property
    def log10_mel(self) -> LogMelKernel:
        return quick_mel


def quick_mel(samples: FloatArray, filters: FloatArray) -> FloatArray:
    frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160]
    return np.ascontiguousarray(frames[:, : len(filters)].T)


@cache
def recording(number: int) -> FloatArray:
    return noise(DURATIONS[number], seed=number)


BACKENDS: dict[str, Callable[[], QuickBackend | NumpyBackend]] = {
    "scripted": QuickBackend,
    "numpy": lambda: NumpyBackend(CHECKPOINT, threads=2),
}


Wanted = tuple[int, int, int]  # recording, options, sample_len
wanted_jobs = st.tuples(st.integers(0, len(DURATIONS) - 1), st.integers(0, len(POOL) - 1), st.sampled_from([5, 8, 12]))


def submit(engine: Engine, wanted: Wanted) -> Job:
    number, options, sample_len = wanted
    return engine.submit(recording(number), **POOL[options], sample_len=sample_len)


@cache
def alone(backend_name: str, wanted: Wanted) -> Transcript:
    """Decode it with an engine of its own."""
    backend = BACKENDS[backend_name]()
    engine = Engine(CHECKPOINT, backend)
    result = submit(engine, wanted).result()
    assert len(backend.ledger) == 0
    engine.close()
    return result


def check_company(
    name: str,
    arrivals: list[tuple[int, Wanted]],
    victims: list[tuple[int, int, Wanted]],
    max_windows: int,
) -> None:
    """Run jobs that arrive at steps, among others that are cancelled.

    arrivals: (step, job).   victims: (step, steps until it is cancelled, job).
    """
    backend = BACKENDS[name]()
    engine = Engine(CHECKPOINT, backend)
    engine.scheduler = Scheduler(backend, MemoryBound.of(backend, None, max_windows))
    jobs: list[tuple[Wanted, Job]] = []
    doomed: list[tuple[int, Job]] = []
    last = max([one[0] for one in arrivals] + [one[0] for one in victims])
    step = 0
    working = True
    while working or step <= last:
        jobs += [(wanted, submit(engine, wanted)) for at, wanted in arrivals if at == step]
        doomed += [(step + life, submit(engine, wanted)) for at, life, wanted in victims if at == step]
        for end, job in doomed:
            if end == step:
                job.cancel()
        working = engine.step() or any(end > step for end, _ in doomed)
        step += 1
    for wanted, job in jobs:
        expected = alone(name, wanted)
        found = job.result()
        assert found.to_dict() == expected.to_dict()
        assert found.windows == expected.windows
        assert found == expected
    for _, job in doomed:
        assert job.state.ended
        if job.state is JobState.CANCELLED:
            with pytest.raises(CancelledError):
                job.result()
    assert len(backend.ledger) == 0
    assert engine.scheduler.jobs == []
    engine.close()


arrival_steps = st.integers(0, 60) | st.just(0)


@settings(max_examples=250, deadline=None)
@given(
    arrivals=st.lists(st.tuples(arrival_steps, wanted_jobs), min_size=2, max_size=5),
    victims=st.lists(st.tuples(arrival_steps, st.integers(0, 50), wanted_jobs), max_size=2),
    max_windows=st.integers(1, 6),
)
def test_interleaved_jobs_equal_each_alone(
    arrivals: list[tuple[int, Wanted]], victims: list[tuple[int, int, Wanted]], max_windows: int
) -> None:
    check_company("scripted", arrivals, victims, max_windows)


@pytest.mark.parametrize("max_windows", [1, 3, 16])
def test_every_kind_of_job_at_once_equals_each_alone(max_windows: int) -> None:
    arrivals = [(3 * i, (8 - i % 4, i, 8)) for i in range(len(POOL))]
    check_company("scripted", arrivals, [(1, 9, (7, 4, 12)), (20, 3, (8, 2, 8))], max_windows)


@settings(max_examples=12, deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(st.integers(0, 12), st.tuples(st.integers(1, 6), st.integers(0, len(POOL) - 1), st.just(5))),
        min_size=2,
        max_size=4,
    ),
    victims=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), wanted_jobs), max_size=1),
    max_windows=st.integers(1, 4),
)
def test_interleaved_jobs_equal_each_alone_by_the_numpy_backend_to_the_last_bit(
    arrivals: list[tuple[int, Wanted]], victims: list[tuple[int, int, Wanted]], max_windows: int
) -> None:
    check_company("numpy", arrivals, victims, max_windows)
