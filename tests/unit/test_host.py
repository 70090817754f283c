"""Several engines on one host: one thread, one bound, fair by audio; each transcript as from an engine alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stapes
from stapes.backends.base import FloatArray, StepAnswers, StepBatch, WindowId
from stapes.engine.engine import Engine
from stapes.engine.host import Host
from stapes.engine.job import Job
from stapes.engine.scheduled_job import JobState
from stapes.engine.scheduler import MemoryBound, Scheduler
from stapes.errors import BackendError, CancelledError, NotCopiedError, OptionError
from stapes.results import Transcript
from stapes.testing import babbling, noise, random_checkpoint, reciting, tiny_spec
from stapes.tokenizer import Tokenizer
from tests.quick_backend import QuickBackend
from tests.random_cases import random_cases

CHECKPOINT = random_checkpoint()
TOKENIZER = Tokenizer(tiny_spec(), CHECKPOINT.vocabulary)
SEEDS = (5, 6, 7)  # of the models' babble
BABBLE: dict[str, Any] = {"temperature": (0.0, 0.9), "sample_len": 6, "best_of": 2}
GREEDY: dict[str, Any] = {"language": "en", "temperature": 0.0}


class SlowBackend(QuickBackend):
    """Each call moves a common clock on, by so much."""

    def __init__(self, clock: list[float], cost: float, **sizes: int) -> None:
        super().__init__(reciting(TOKENIZER, [" One, two, three."]), **sizes)
        self._clock, self._cost = clock, cost

    def encode(self, mel: FloatArray) -> list[WindowId]:
        self._clock[0] += 10 * self._cost
        return super().encode(mel)

    def step(self, batch: StepBatch) -> StepAnswers:
        self._clock[0] += self._cost
        return super().step(batch)


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as made:
        yield made


def engine_on(host: Host | None, seed: int = 5, **sizes: int) -> tuple[Engine, QuickBackend]:
    backend = QuickBackend(babbling(seed, TOKENIZER), **sizes)
    return Engine(CHECKPOINT, backend, host=host), backend


@cache
def alone(model: int, duration_s: float, seed: int) -> Transcript:
    return engine_on(None, model)[0].transcribe(noise(duration_s, seed), **BABBLE)


def slow_engines(host: Host, *costs: float) -> list[Engine]:
    clock = [0.0]
    engines = []
    for cost in costs:
        backend = SlowBackend(clock, cost)
        engine = Engine(CHECKPOINT, backend, host=host)
        engine.scheduler = Scheduler(backend, MemoryBound.of(backend, None), clock=lambda: clock[0])
        engines.append(engine)
    return engines


def done_s(jobs: list[Job]) -> float:
    return sum(job.progress.done_s for job in jobs)


def test_engines_of_a_host_give_what_each_gives_alone_from_one_thread(host: Host) -> None:
    engines = [engine_on(host, model) for model in SEEDS]
    wanted = [(model, 20.0 + 25 * (i % 3), i) for i, model in enumerate(SEEDS * 3)]
    threads: set[int] = set()
    jobs = [
        engines[SEEDS.index(model)][0].submit(
            noise(duration_s, seed), interactive=seed % 4 == 1, **BABBLE,
            on_progress=lambda _: threads.add(threading.get_ident()),
        )
        for model, duration_s, seed in wanted
    ]  # fmt: skip
    engines[0][0].start()
    assert [job.result(timeout_s=60) for job in jobs] == [alone(*one) for one in wanted]
    assert len(threads) == 1
    assert [backend.n_open for _, backend in engines] == [0, 0, 0]


def test_engines_of_a_host_keep_within_its_bound_together() -> None:
    host = Host(max_memory=6000)
    engines = [engine_on(host, model, window_bytes=1000, row_bytes=100) for model in SEEDS]
    wanted = [(model, 65.0, i) for i, model in enumerate(SEEDS * 2)]
    jobs = [engines[SEEDS.index(model)][0].submit(noise(*one), **BABBLE) for model, *one in wanted]  # type: ignore[arg-type]
    most = 0
    while host.step():
        most = max(most, sum(backend._held_bytes() for _, backend in engines))
    assert [job.result() for job in jobs] == [alone(*one) for one in wanted]
    assert 2600 < most <= 6000
    host.close()


def test_a_window_of_another_engine_gives_way_to_an_interactive_job() -> None:
    with Host(max_memory=3800) as host:
        of_files, small = engine_on(host, 5, window_bytes=1000, row_bytes=100)
        of_clips, big = engine_on(host, 6, window_bytes=1500)
        files = [of_files.submit(noise(65.0, seed), **BABBLE) for seed in range(2)]
        while small.handles.n_windows < 2:
            assert host.step()
        clip = of_clips.submit(noise(5.0, 2), interactive=True, **BABBLE)
        while not big.handles.n_windows:
            assert host.step()
        assert small.handles.n_windows == 1
        assert [file.progress.done_s for file in files] == [0.0, 0.0]
        while host.step():
            assert small._held_bytes() + big._held_bytes() <= 3800
        assert clip.result() == alone(6, 5.0, 2)
        assert [file.result() for file in files] == [alone(5, 65.0, seed) for seed in range(2)]


def test_endless_interactive_load_of_one_engine_ends_a_background_job_of_another() -> None:
    with Host(max_memory=2600) as host:
        clock, engines = [0.0], []
        for _ in range(2):
            backend = SlowBackend(clock, 0.05, window_bytes=1000, row_bytes=100)
            engine = Engine(CHECKPOINT, backend, host=host)
            engine.scheduler = Scheduler(backend, MemoryBound.of(backend, 2600), clock=lambda: clock[0])
            engines.append(engine)
        background = engines[0].submit(noise(65.0, 1), **GREEDY)
        clips: list[Job] = []
        n_clips = 0
        while not background.state.ended:
            clips = [clip for clip in clips if not clip.state.ended]
            while len(clips) < 4:
                clips.append(engines[1].submit(noise(3.0, n_clips % 7), interactive=True, **GREEDY))
                n_clips += 1
            assert host.step()
            assert clock[0] < 600.0
        assert background.state is JobState.DONE
        assert n_clips > 10


def test_engines_get_the_same_seconds_of_audio_whatever_their_models_cost(host: Host) -> None:
    fast, slow = slow_engines(host, 0.01, 0.05)
    of_fast = [fast.submit(noise(900.0, seed), **GREEDY) for seed in range(2)]
    of_slow = [slow.submit(noise(900.0, seed), **GREEDY) for seed in range(2)]
    differences = []
    while not any(job.state.ended for job in (*of_fast, *of_slow)):
        host.step()
        if done_s(of_fast) > 200.0:
            differences.append(abs(done_s(of_fast) - done_s(of_slow)))
    assert max(differences) <= 150.0  # two windows are in flight in each, and end together
    assert sum(differences) / len(differences) < 75.0


def test_an_engine_that_was_idle_does_not_make_up_for_it(host: Host) -> None:
    busy, late = slow_engines(host, 0.01, 0.01)
    of_busy = [busy.submit(noise(1800.0, 1), **GREEDY)]
    while done_s(of_busy) < 900.0:
        host.step()
    of_late = [late.submit(noise(900.0, 2), **GREEDY)]
    while done_s(of_late) < 300.0:
        host.step()
    assert done_s(of_busy) >= 1100.0


def test_an_interactive_job_of_one_engine_goes_before_the_others_of_all(host: Host) -> None:
    first, second = slow_engines(host, 0.01, 0.01)
    files = [first.submit(noise(300.0, seed), **GREEDY) for seed in range(4)]
    for _ in range(50):
        host.step()
    clip = second.submit(noise(3.0), interactive=True, **GREEDY)
    n_units, before = 0, done_s(files)
    while not clip.state.ended:
        host.step()
        n_units += 1
    alone_in = 1 + len(second.transcribe(noise(3.0), **GREEDY).windows[0].result.tokens) + 2
    assert n_units <= alone_in * 10 / 9 + 2
    assert done_s(files) - before <= 120.0


def test_endless_interactive_load_of_one_engine_ends_a_job_of_another(host: Host) -> None:
    first, second = slow_engines(host, 0.001, 0.001)
    background = first.submit(noise(65.0), **GREEDY)
    clips: list[Job] = []
    for _ in range(20_000):
        clips = [clip for clip in clips if not clip.state.ended] or [
            second.submit(noise(3.0), interactive=True, **GREEDY)
        ]
        host.step()
        if background.state.ended:
            break
    assert background.result().text == " One, two, three." * 3


def test_engines_come_and_go_while_others_work(host: Host) -> None:
    engine, backend = engine_on(host)
    jobs = [engine.submit(noise(65.0, seed), **BABBLE) for seed in range(6)]
    engine.start()
    for model in (6, 7, 6, 7):
        other, its_backend = engine_on(host, model)
        left = other.submit(noise(65.0, 9), **BABBLE)
        assert other.transcribe(noise(20.0, 1), **BABBLE) == alone(model, 20.0, 1)
        other.close()
        with nullcontext() if left.error is None else pytest.raises(CancelledError):
            left.result()
        assert its_backend.n_open == 0
        with pytest.raises(BackendError, match="closed"):
            other.step()
    assert [job.result(timeout_s=60) for job in jobs] == [alone(5, 65.0, seed) for seed in range(6)]
    assert backend.n_open == 0
    assert host.engines == (engine,)


def test_a_callback_may_use_another_engine_of_the_host(host: Host) -> None:
    (first, _), (second, _) = engine_on(host, 5), engine_on(host, 6)
    found: list[Transcript] = []

    def ask(_: object) -> None:
        found.append(second.transcribe(noise(20.0, 1), **BABBLE))

    first.transcribe(noise(5.0), on_progress=ask, **BABBLE)
    assert found
    assert all(one == alone(6, 20.0, 1) for one in found)


def test_what_breaks_in_one_engine_s_scheduler_leaves_no_caller_waiting(host: Host) -> None:
    (first, _), (second, _) = engine_on(host, 5), engine_on(host, 6)

    def broken() -> None:
        raise ZeroDivisionError("a mistake of ours")

    jobs = [first.submit(noise(5.0), **BABBLE), second.submit(noise(5.0), **BABBLE)]
    first.scheduler.admit = broken  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        jobs[0].result(timeout_s=60)
    assert jobs[1].result(timeout_s=60) == alone(6, 5.0, 0)


def test_a_closed_host_closes_its_engines_and_takes_no_more() -> None:
    with Host() as host:
        engine, backend = engine_on(host)
        job = engine.submit(noise(65.0), **BABBLE)
        host.step()
        engine.start()
    with pytest.raises(CancelledError):
        job.result()
    assert backend.n_open == 0
    with pytest.raises(BackendError, match="this host is closed; make another"):
        engine_on(host)
    with pytest.raises(BackendError, match="closed"):
        engine.start()
    time.sleep(0)
    assert not any(thread.name == "stapes host" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"threads": 2}, r"threads belongs to the host: give it to stapes.Host\(threads=...\), not to load"),
        ({"max_memory": 10**9}, "max_memory belongs to the host"),
        ({"host": "gpu"}, "host must be a stapes.Host or None, got 'gpu'"),
    ],
)
def test_what_belongs_to_the_host_is_not_given_to_load(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        stapes.load("no such model", **{"host": Host(), **keywords})


@pytest.mark.parametrize("keywords", [{"threads": 0}, {"threads": "two"}, {"max_memory": -1}, {"max_memory": "big"}])
def test_a_host_checks_what_it_is_given(keywords: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(keywords))):
        Host(**keywords)


def test_a_bound_that_holds_no_window_of_a_model_is_refused_and_a_host_is_not_copied() -> None:
    host = Host(max_memory=1100)
    with pytest.raises(OptionError, match=r"max_memory is 0\.0 MB"):
        engine_on(host, window_bytes=1000, row_bytes=100)
    assert host.engines == ()
    with pytest.raises(NotCopiedError, match="a host cannot be pickled"):
        host.__reduce_ex__(4)


jobs_of_engines = st.tuples(
    st.sampled_from(SEEDS), st.sampled_from([5.0, 31.0, 65.0]), st.integers(0, 3), st.booleans(), st.integers(0, 40),
    st.none() | st.integers(0, 60),
)  # fmt: skip


@random_cases(10, 500)
@given(st.lists(jobs_of_engines, min_size=2, max_size=7), st.none() | st.sampled_from([3000, 6000]))
def test_any_mix_of_jobs_and_engines_gives_each_its_own(wanted: list[Any], max_memory: int | None) -> None:
    host = Host(max_memory=max_memory)
    engines = {model: engine_on(host, model, window_bytes=1000, row_bytes=100) for model in SEEDS}
    jobs: list[tuple[Any, Job]] = []
    step, working = 0, True
    while working or step <= 100:
        for one in wanted:
            model, duration_s, seed, interactive, arrival, _ = one
            if arrival == step:
                audio = noise(duration_s, seed)
                jobs.append((one, engines[model][0].submit(audio, interactive=interactive, **BABBLE)))
        for one, job in jobs:
            if one[5] is not None and one[4] + one[5] == step:
                job.cancel()
        working = host.step()
        held = sum(backend._held_bytes() for _, backend in engines.values())
        assert max_memory is None or held <= max_memory
        step += 1
    for (model, duration_s, seed, *_), job in jobs:
        assert job.state.ended
        if job.error is None:
            assert job.result() == alone(model, duration_s, seed)
        else:
            assert isinstance(job.error, CancelledError)
    assert all(backend.n_open == 0 for _, backend in engines.values())
    host.close()
