"""Interactive jobs go first: how long background jobs hold them up, and that those end all the same."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from stapes.audio.pcm import recording_of_array
from stapes.backends.base import BackendInfo, FloatArray, SchedulingPolicy, StepAnswers, StepBatch, WindowId
from stapes.engine.engine import Engine
from stapes.engine.job import Job
from stapes.engine.scheduled_job import JobParams, JobState
from stapes.engine.scheduler import Batch, DecodeBatch, EncodeBatch, MemoryBound, Scheduler
from stapes.engine.turns import BackgroundTurns
from stapes.errors import OptionError, StapesWarning
from stapes.options import TranscribeOptions
from stapes.results import Transcript
from stapes.testing import Script, babbling, noise, random_checkpoint, reciting, tiny_spec
from stapes.tokenizer import Tokenizer
from tests.quick_backend import QuickBackend
from tests.random_cases import slowly

CHECKPOINT = random_checkpoint()
TOKENIZER = Tokenizer(tiny_spec(), CHECKPOINT.vocabulary)
TALK = " One, two, three, four, five, six, seven."
GREEDY = TranscribeOptions.from_keywords({"language": "en", "temperature": 0.0})
BEAMS = TranscribeOptions.from_keywords({"language": "en", "temperature": 0.0, "beam_size": 5})
BABBLE: dict[str, Any] = {"temperature": (0.0, 0.9), "sample_len": 7, "best_of": 2, "no_speech_threshold": None}
WORDS: dict[str, Any] = {**BABBLE, "word_timestamps": True}
ENCODE_S, STEP_S, ROW_S, TOKEN_S = 0.3, 0.004, 0.002, 0.001


class ClockedBackend(QuickBackend):
    """Each call moves a clock on."""

    def __init__(self, script: Script | None = None, **policy: int) -> None:
        self.now = 0.0
        self._policy = SchedulingPolicy(**policy)
        super().__init__(script or reciting(TOKENIZER, [TALK]))

    @property
    def info(self) -> BackendInfo:
        return replace(super().info, policy=self._policy)

    def encode(self, mel: FloatArray) -> list[WindowId]:
        self.now += ENCODE_S * len(mel)
        return super().encode(mel)

    def step(self, batch: StepBatch) -> StepAnswers:
        counts = np.diff(batch.token_ends, prepend=0)
        self.now += float(STEP_S + ROW_S * (counts == 1).sum() + TOKEN_S * counts[counts > 1].sum())
        return super().step(batch)


class Unit(NamedTuple):
    """One unit of work."""

    batch: Batch
    seconds: float
    counts: tuple[int, ...]  # rows of each stream

    @property
    def is_interactive(self) -> bool:
        return any(job.params.interactive for job in self.batch.jobs)


class House:
    """An engine whose units are noted."""

    def __init__(self, script: Script | None = None, max_windows: int | None = None, **policy: int) -> None:
        self.backend = ClockedBackend(script, **policy)
        self.engine = Engine(CHECKPOINT, self.backend)
        bound = MemoryBound.of(self.backend, None, max_windows)
        self.engine.scheduler = Scheduler(self.backend, bound, clock=lambda: self.backend.now)
        self.units: list[Unit] = []

    def submit(self, duration_s: float = 3.0, seed: int = 0, options: TranscribeOptions = GREEDY, **params: Any) -> Job:
        recording = recording_of_array("noise", noise(duration_s, seed))
        return self.engine.submit_recording(recording, options, JobParams(**params))

    def step(self) -> bool:
        scheduler = self.engine.scheduler
        batch = scheduler.next_batch()
        if batch is None:
            return False
        counts = tuple(one.load().rows for one in batch.streams) if isinstance(batch, DecodeBatch) else ()
        before = self.backend.now
        answer = batch.run(self.backend)
        seconds = self.backend.now - before
        scheduler.account(batch, answer, seconds)
        self.units.append(Unit(batch, seconds, counts))
        return True

    def run_until(self, is_over: Callable[[], bool], most: int = 100_000) -> None:
        for _ in range(most):
            if is_over() or not self.step():
                return
        raise AssertionError("it goes on without end")


@cache
def time_alone(options: TranscribeOptions = GREEDY, duration_s: float = 3.0) -> float:
    house = House()
    job = house.submit(duration_s, options=options)
    house.run_until(lambda: job.state.ended)
    return house.backend.now


@cache
def alone(duration_s: float, seed: int, words: bool = False) -> Transcript:
    engine = Engine(CHECKPOINT, QuickBackend(babbling(5, TOKENIZER)))
    return engine.transcribe(noise(duration_s, seed), **(WORDS if words else BABBLE))


def files(house: House, n: int = 16, duration_s: float = 300.0, options: TranscribeOptions = BEAMS) -> list[Job]:
    return [house.submit(duration_s, seed=seed % 3, options=options) for seed in range(n)]


# How long background jobs hold one up.


@pytest.mark.parametrize("n_steps", [0, 2, 41, 160, *slowly(1, 3, 17, 40, 42, 301)])
def test_sixteen_files_of_five_beams_hold_a_clip_up_by_one_encode_and_a_quarter(n_steps: int) -> None:
    house = House()
    files(house)
    for _ in range(n_steps):
        house.step()
    began, n_before = house.backend.now, len(house.units)
    clip = house.submit(3.0, seed=9, interactive=True)
    house.run_until(lambda: clip.state.ended)
    units = house.units[n_before:]
    assert units[0].is_interactive or units[1].is_interactive
    held_up = [not one.is_interactive for one in units]
    assert not any(one and other for one, other in itertools.pairwise(held_up))
    assert sum(held_up) <= 1 + len(units) // 10
    # a unit that has begun is over before the clip comes here: it would add one encode or one step
    took_s = house.backend.now - began
    assert took_s <= 1.25 * time_alone() + ENCODE_S, [(one.is_interactive, one.seconds) for one in units]
    clip.result()


def test_a_step_with_interactive_rows_takes_others_for_a_quarter_of_its_cost_at_most() -> None:
    house = House()
    files(house, 8, options=GREEDY)
    dear_jobs = [job._job for job in files(house, 4)]
    for _ in range(60):
        house.step()
    clip = house.submit(3.0, seed=9, interactive=True)
    n_before = len(house.units)
    house.run_until(lambda: clip.state.ended)
    steps = [one for one in house.units[n_before:] if isinstance(one.batch, DecodeBatch) and one.is_interactive]
    shared = [one for one in steps if len(one.batch.jobs) > 1]
    dear = [one for one in steps if one.seconds > 1.25 * (STEP_S + ROW_S) + 1e-9 and not one.batch.n_tokens]  # type: ignore[union-attr]
    assert len(dear) <= len(steps) / 9  # in the turn of the others
    assert shared
    for one in shared:  # all rows of a window or none
        batch = one.batch
        assert isinstance(batch, DecodeBatch)
        for job, count in zip(batch.owners, one.counts, strict=True):
            assert count in ({1, 5} if job in dear_jobs else {1})


def test_rows_of_others_join_where_they_cost_next_to_nothing() -> None:
    house = House()
    background = files(house, 4, options=GREEDY)
    for _ in range(40):
        house.step()
    clip = house.submit(3.0, seed=9, interactive=True, options=BEAMS)  # five rows: a quarter is a row or more
    n_before = len(house.units)
    house.run_until(lambda: clip.state.ended)
    steps = [one.batch for one in house.units[n_before:] if isinstance(one.batch, DecodeBatch) and one.is_interactive]
    assert any(job._job in batch.jobs for batch in steps for job in background)


def test_the_first_interactive_window_finds_room_though_others_want_all_of_it() -> None:
    house = House(max_windows=3)
    files(house, 6)
    for _ in range(30):
        house.step()
    assert house.backend.handles.n_windows == 2
    clip = house.submit(interactive=True)
    house.step()
    assert house.units[-1].is_interactive
    assert house.backend.handles.n_windows == 3
    clip.result()


# Giving way.


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("n_steps", [3, 6, 9, 12, 15, 20, 27])
def test_a_window_that_gives_way_is_decoded_again_to_the_same_result(n_steps: int, words: bool) -> None:
    house = House(babbling(5, TOKENIZER), max_windows=2)
    options = TranscribeOptions.from_keywords(WORDS if words else BABBLE)
    long = house.submit(65.0, 1, options)
    for _ in range(n_steps):
        house.step()
    house.run_until(lambda: long._job.streams()[0].holds_window)
    clips = [house.submit(5.0, seed, options, interactive=True) for seed in (2, 3, 4)]
    gave_way: list[int] = []

    def is_over() -> bool:
        gave_way.append(len(house.engine.scheduler._gave_way))
        return all(one.state.ended for one in clips)

    house.run_until(is_over)
    assert max(gave_way) == 1
    house.run_until(lambda: False)
    assert long.result() == alone(65.0, 1, words)
    assert [clip.result() for clip in clips] == [alone(5.0, seed, words) for seed in (2, 3, 4)]
    assert house.backend.most_windows <= 2
    assert house.backend.n_open == 0
    assert not house.engine.scheduler._gave_way


def test_the_least_urgent_window_gives_way() -> None:
    house = House(max_windows=4)
    low, high, usual = (house.submit(300.0, seed, priority=priority) for seed, priority in enumerate((-1, 5, 0)))
    for _ in range(20):
        house.step()
    for seed in range(2):
        house.submit(3.0, seed, interactive=True)
    house.step()
    house.step()
    holding = [job for job in (low, high, usual) if any(one.holds_window for one in job._job.streams())]
    assert holding == [high, usual]


def test_a_bound_that_holds_one_window_says_so_and_all_jobs_end() -> None:
    engine = Engine(CHECKPOINT, QuickBackend(babbling(5, TOKENIZER), window_bytes=1000, row_bytes=100), max_memory=2399)
    long = engine.submit(noise(65.0, 1), **BABBLE)
    engine.step()
    with pytest.warns(StapesWarning, match="holds one window at a time, so that no room is kept") as caught:
        clip = engine.submit(noise(5.0, 2), interactive=True, **BABBLE)
    assert len(caught) == 1
    assert engine.scheduler.jobs[0] is long._job
    engine.run()
    assert (long.result(), clip.result()) == (alone(65.0, 1), alone(5.0, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        roomy = Engine(CHECKPOINT, QuickBackend(babbling(5, TOKENIZER), window_bytes=1000, row_bytes=100),
                       max_memory=2600)  # fmt: skip
        assert roomy.transcribe(noise(5.0, 2), interactive=True, **BABBLE) == alone(5.0, 2)


# Endless interactive load.


@pytest.mark.parametrize(
    ("max_windows", "at_once"), [(2, 20), (3, 3), (16, 1), *slowly((2, 1), (2, 3), (3, 1), (3, 20), (16, 3), (16, 20))]
)
def test_endless_interactive_load_ends_a_background_job(max_windows: int, at_once: int) -> None:
    house = House(max_windows=max_windows)
    background = house.submit(65.0, options=BEAMS)
    clips: list[Job] = []
    n_clips = 0
    while not background.state.ended:
        clips = [clip for clip in clips if not clip.state.ended]
        while len(clips) < at_once:
            clips.append(house.submit(3.0, n_clips % 7, interactive=True))
            n_clips += 1
        assert house.step()
        assert house.backend.now < 600.0
    assert n_clips > 10
    assert background.state is JobState.DONE
    of_background = [one for one in house.units if background._job in one.batch.jobs]
    assert len(of_background) >= len(house.units) / 11


def test_background_jobs_have_one_unit_in_ten_and_an_encode_every_two_seconds() -> None:
    turns = BackgroundTurns(0.0, 0.0)
    assert not turns.is_due(1.9)
    assert turns.is_due(2.0)
    turns.restart(2.0, encodes=False)
    assert turns.encode_is_due(2.0)
    turns.restart(2.0, encodes=True)
    assert not turns.is_due(2.5)
    turns.n_urgent = 9
    assert turns.is_due(2.5)
    assert not turns.encode_is_due(2.5)


def test_windows_of_background_jobs_are_encoded_every_two_seconds_while_a_person_waits() -> None:
    house = House()
    files(house, 4)
    house.step()
    clips: list[Job] = []
    began = house.backend.now
    while house.backend.now - began < 12.0:
        clips = [clip for clip in clips if not clip.state.ended] or [house.submit(3.0, interactive=True)]
        house.step()
    encodes = [one for one in house.units if isinstance(one.batch, EncodeBatch) and not one.is_interactive]
    assert 3 <= len(encodes) <= 8


# What may be asked.


@pytest.mark.parametrize("wrong", ["yes", 1, None])
def test_a_class_that_is_no_truth_value_is_refused(wrong: Any) -> None:
    engine = Engine(CHECKPOINT, QuickBackend(babbling(5, TOKENIZER)))
    with pytest.raises(OptionError, match="interactive must be True or False"):
        engine.submit(noise(1.0), interactive=wrong)


@pytest.mark.filterwarnings("ignore:this engine holds one window at a time:stapes.errors.StapesWarning")
def test_class_comes_before_priority() -> None:
    house = House(max_windows=1)
    last = house.submit(3.0, 1, priority=9)
    second = house.submit(3.0, 2, interactive=True, priority=-5)
    first = house.submit(3.0, 3, interactive=True)
    order: list[Job] = []
    while house.step():
        order += [job for job in (last, second, first) if job.state.ended and job not in order]
    assert order == [first, second, last]
