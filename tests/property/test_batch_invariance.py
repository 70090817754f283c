"""Interleaved == alone: whatever the batch, a job gets exactly the transcript that it would get alone.

The batch: jobs that come and go at any step, of any options and mode, class and priority, resumed from any window,
cancelled, out of time, or failed by a callback; with much or little memory. `make random` tries thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.backends.base import FloatArray
from stapes.backends.native.library import PRECISIONS, is_built
from stapes.backends.numpy.backend import NumpyBackend
from stapes.engine.engine import Engine
from stapes.engine.job import Job
from stapes.engine.scheduled_job import JobState
from stapes.engine.scheduler import MemoryBound, Scheduler
from stapes.errors import CancelledError, DeadlineError
from stapes.recording.events import JobEvent, LanguageDetected
from stapes.recording.requests import Answer
from stapes.recording.words.alignment import alignment_bytes
from stapes.results import Transcript
from stapes.testing import babbling, noise, random_checkpoint, tiny_spec
from stapes.tokenizer import Tokenizer
from tests.quick_backend import QuickBackend
from tests.random_cases import random_cases

pytestmark = [
    #: some recordings are shorter than the clips of the options
    pytest.mark.filterwarnings("ignore:.*after the end of the recording:stapes.errors.StapesWarning"),
    #: some bounds hold one window at a time
    pytest.mark.filterwarnings("ignore:this engine holds one window at a time:stapes.errors.StapesWarning"),
]

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
    {"multilingual": True, "temperature": 0.0, "no_speech_threshold": None, "hotwords": "Ada Grace"},
    {"multilingual": True, "languages": "en,de", "word_timestamps": True, "language_detection_threshold": 0.6},
    {"languages": ("en", "de", "ja"), "language_detection_segments": 3, "language_detection_threshold": 0.5},
    {"suppress_numerals": True, "suppress_regex": "[a-f]", "language_detection_segments": 2, "temperature": 0.0},
    {"mode": "sequential", "audio_context": "fit", "word_timestamps": True, "temperature": (0.0, 0.6), "best_of": 2},
    {"mode": "chunked", "audio_context": "fit", "multilingual": True, "no_speech_threshold": None},
)


@cache
def recording(number: int) -> FloatArray:
    return noise(DURATIONS[number], seed=number)


def native(precision: str) -> Any:
    from stapes.backends.native.backend import NativeBackend  # noqa: PLC0415 (it may not be built)

    return NativeBackend(CHECKPOINT, threads=1, precision=precision)


BACKENDS: dict[str, Callable[[], Any]] = {
    "scripted": lambda: QuickBackend(babbling(11, TOKENIZER), window_bytes=1_000_000, row_bytes=100_000),
    "numpy": lambda: NumpyBackend(CHECKPOINT, threads=2),
    "native-float32": lambda: native("float32"),
    "native-bfloat16": lambda: native("bfloat16"),
    "native-int8": lambda: native("int8"),
}
#: rows that no job of the pool exceeds over a window: three beams or samples, and the prompt's
MOST_ROWS = 4


class Wanted(NamedTuple):
    """What is transcribed, and how."""

    recording: int
    options: int
    sample_len: int
    mode: str = "sequential"


class Arrival(NamedTuple):
    """A job whose transcript is compared with that of the job alone."""

    step: int  # at which it comes
    wanted: Wanted
    priority: int = 0
    n_known: int = 0  # answers of an earlier run that it is resumed with
    interactive: bool = False


class Victim(NamedTuple):
    """A job that ends too early: by `fate` "cancel" or "deadline" after `life` steps, by "sink" at that event."""

    step: int
    life: int
    wanted: Wanted
    priority: int = 0
    fate: str = "cancel"
    interactive: bool = False


def answer_of(event: JobEvent) -> Answer:
    return event.guess if isinstance(event, LanguageDetected) else event.window.result


@dataclass
class Followed:
    """A job, and all that its callbacks got."""

    events: list[JobEvent] = field(default_factory=list)
    ends: list[JobState] = field(default_factory=list)

    def submit(self, engine: Engine, wanted: Wanted, fails_at: int | None = None, **keywords: Any) -> Job:
        def sink(event: JobEvent) -> None:
            if len(self.events) == fails_at:
                raise OSError("the disk is full")
            self.events.append(event)

        job = engine.submit(
            recording(wanted.recording),
            **{"mode": wanted.mode, **POOL[wanted.options]},
            sample_len=wanted.sample_len,
            on_event=sink,
            **keywords,
        )
        job.listen(lambda: self.ends.append(job.state) if job.state.ended else None)
        return job


@cache
def alone(backend_name: str, wanted: Wanted) -> tuple[Transcript, tuple[Answer, ...]]:
    """Decode it alone, with a new engine; returns the answers that its windows gave, too."""
    backend = BACKENDS[backend_name]()
    engine = Engine(CHECKPOINT, backend)
    followed = Followed()
    result = followed.submit(engine, wanted).result()
    assert len(backend.handles) == 0
    engine.close()
    return result, tuple(map(answer_of, followed.events))


class Batch:
    """An engine whose steps are counted, for jobs that come and go."""

    def __init__(self, name: str, max_windows: int, memory: float | None) -> None:
        """memory: in windows with all their rows, beside one alignment; None: only their number is bounded."""
        self.name, self.backend, self.step = name, BACKENDS[name](), 0
        window_bytes = self.backend.window_bytes(self.backend.spec.n_audio_ctx)
        whole = window_bytes + MOST_ROWS * self.backend.info.row_bytes
        aligned = alignment_bytes(self.backend.spec, CHECKPOINT.alignment_heads, 30)  # no text here is longer
        self.max_bytes = None if memory is None else int(memory * whole) + aligned
        self.engine = Engine(CHECKPOINT, self.backend)
        bound = MemoryBound.of(self.backend, self.max_bytes, max_windows)
        self.engine.scheduler = Scheduler(self.backend, bound, clock=lambda: float(self.step))

    def run(self, arrivals: Sequence[Arrival], victims: Sequence[Victim]) -> None:
        jobs: list[tuple[Arrival, Followed, Job]] = []
        doomed: list[tuple[Victim, Followed, Job]] = []
        last = max([0, *(one.step for one in arrivals), *(one.step + one.life for one in victims)])
        working = True
        while working or self.step <= last:
            jobs += [(one, *self._arrived(one)) for one in arrivals if one.step == self.step]
            doomed += [(one, *self._begun(one)) for one in victims if one.step == self.step]
            for victim, _, job in doomed:
                if victim.fate == "cancel" and victim.step + victim.life == self.step:
                    job.cancel()
            working = self.engine.step()
            self._check_memory()
            self.step += 1
        for arrival, followed, job in jobs:
            self._check_arrival(arrival, followed, job)
        for victim, followed, job in doomed:
            self._check_victim(victim, followed, job)
        assert len(self.backend.handles) == 0
        assert self.engine.scheduler.jobs == []
        self.engine.close()

    def _arrived(self, one: Arrival) -> tuple[Followed, Job]:
        _, answers = alone(self.name, one.wanted)
        followed = Followed()
        resume = answers[: one.n_known]
        deadline_s = 1e6 if one.priority else None  # some have one that never comes
        keywords: dict[str, Any] = {"priority": one.priority, "interactive": one.interactive, "deadline_s": deadline_s}
        job = followed.submit(self.engine, one.wanted, resume=resume, **keywords)
        return followed, job

    def _begun(self, one: Victim) -> tuple[Followed, Job]:
        followed = Followed()
        deadline_s = one.life + 0.5 if one.fate == "deadline" else None
        fails_at = one.life % 4 if one.fate == "sink" else None
        keywords: dict[str, Any] = {"priority": one.priority, "interactive": one.interactive, "deadline_s": deadline_s}
        job = followed.submit(self.engine, one.wanted, fails_at, **keywords)
        return followed, job

    def _check_memory(self) -> None:
        handles = self.backend.handles
        windows = sum(self.backend.window_bytes(one.positions) for one in handles._windows.values())
        held = windows + handles.n_rows * self.backend.info.row_bytes
        assert self.max_bytes is None or held <= self.max_bytes
        assert handles.n_windows <= self.engine.scheduler.bound.max_windows

    def _check_arrival(self, arrival: Arrival, followed: Followed, job: Job) -> None:
        expected, answers = alone(self.name, arrival.wanted)
        found = job.result()
        assert found.to_dict() == expected.to_dict()
        assert found.windows == expected.windows
        assert found == expected
        assert tuple(job) == expected.segments
        assert tuple(map(answer_of, followed.events)) == answers
        assert [one.resumed for one in followed.events] == [i < arrival.n_known for i in range(len(answers))]
        assert followed.ends == [JobState.DONE]

    def _check_victim(self, victim: Victim, followed: Followed, job: Job) -> None:
        assert followed.ends == [job.state]
        if job.state is JobState.DONE:  # it was quicker
            assert job.result() == alone(self.name, victim.wanted)[0]
            return
        kind: dict[str, type[Exception]] = {"cancel": CancelledError, "deadline": DeadlineError, "sink": OSError}
        with pytest.raises(kind[victim.fate]):
            job.result()
        _, answers = alone(self.name, victim.wanted)
        known = tuple(map(answer_of, followed.events))
        assert known == answers[: len(known)]


modes = st.sampled_from(["sequential", "sequential", "chunked"])
priorities = st.sampled_from([0, 0, 0, -1, 2])
classes = st.sampled_from([False, False, True])
arrival_steps = st.integers(0, 60) | st.just(0)
numbers, pool = st.integers(0, len(DURATIONS) - 1), st.integers(0, len(POOL) - 1)
wanted_jobs = st.builds(Wanted, numbers, pool, st.sampled_from([5, 8, 12]), modes)
arriving = st.builds(Arrival, arrival_steps, wanted_jobs, priorities, st.sampled_from([0, 0, 0, 1, 2, 3, 7]), classes)
fates = st.sampled_from(["cancel", "deadline", "sink"])
doomed_jobs = st.builds(Victim, arrival_steps, st.integers(0, 50), wanted_jobs, priorities, fates, classes)
memories = st.none() | st.sampled_from([1.0, 1.4, 2.0, 3.3, 7.0])

companies = given(
    arrivals=st.lists(arriving, min_size=2, max_size=5),
    victims=st.lists(doomed_jobs, max_size=3),
    max_windows=st.integers(1, 6) | st.just(16),
    memory=memories,
)


@random_cases(15, 5000)
@companies
def test_interleaved_jobs_equal_each_alone(
    arrivals: list[Arrival], victims: list[Victim], max_windows: int, memory: float | None
) -> None:
    Batch("scripted", max_windows, memory).run(arrivals, victims)


@pytest.mark.parametrize("mode", ["sequential", "chunked"])
@pytest.mark.parametrize(
    ("max_windows", "memory"),
    [(1, None), (16, 2.0), *(pytest.param(most, None, marks=pytest.mark.slow) for most in (3, 16))],
)
def test_every_kind_of_job_at_once_equals_each_alone(max_windows: int, memory: float | None, mode: str) -> None:
    arrivals = [Arrival(3 * i, Wanted(8 - i % 4, i, 8, mode), i % 3 - 1, i % 4, i % 3 == 2) for i in range(len(POOL))]
    victims = [Victim(1, 9, Wanted(7, 4, 12, mode)), Victim(20, 3, Wanted(8, 2, 8, mode), 2, "deadline")]
    Batch("scripted", max_windows, memory).run(arrivals, [*victims, Victim(2, 1, Wanted(8, 0, 8, mode), 1, "sink")])


short_arrivals = st.builds(
    Arrival, st.integers(0, 12), st.builds(Wanted, st.integers(1, 6), pool, st.just(5), modes), priorities,
    st.integers(0, 2), classes,
)  # fmt: skip
short_victims = st.builds(Victim, st.integers(0, 9), st.integers(0, 9), wanted_jobs, priorities, fates, classes)
small_companies = given(
    arrivals=st.lists(short_arrivals, min_size=2, max_size=4),
    victims=st.lists(short_victims, max_size=1),
    max_windows=st.integers(1, 4),
    memory=st.none() | st.sampled_from([1.0, 2.5]),
)


@random_cases(3, 100)
@small_companies
def test_interleaved_jobs_equal_each_alone_by_the_numpy_backend_to_the_last_bit(
    arrivals: list[Arrival], victims: list[Victim], max_windows: int, memory: float | None
) -> None:
    Batch("numpy", max_windows, memory).run(arrivals, victims)


@pytest.mark.skipif(not is_built(), reason="the native library was not built")
@pytest.mark.parametrize("precision", PRECISIONS)
@random_cases(4, 100)
@small_companies
def test_interleaved_jobs_equal_each_alone_by_the_native_backend_to_the_last_bit(
    precision: str, arrivals: list[Arrival], victims: list[Victim], max_windows: int, memory: float | None
) -> None:
    Batch(f"native-{precision}", max_windows, memory).run(arrivals, victims)
