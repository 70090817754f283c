"""Many recordings: one bad job fails alone, cancelling leaves nothing open, windows in memory stay within bounds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.audio.pcm import Recording, recording_of_array
from stapes.backends.base import BackendInfo, FloatArray, SchedulingPolicy, WindowId
from stapes.engine.engine import Engine
from stapes.engine.job import Job
from stapes.engine.scheduled_job import JobParams, JobState, Progress
from stapes.engine.scheduler import DecodeBatch, EncodeBatch, MemoryBound, Scheduler
from stapes.errors import BackendError, CancelledError, OptionError, OutOfDeviceMemoryError
from stapes.options import TranscribeOptions
from stapes.recording.events import JobEvent
from stapes.results import Segment, Transcript
from stapes.testing import Script, babbling, noise, random_checkpoint, reciting, tiny_spec
from stapes.tokenizer import Tokenizer
from tests.quick_backend import QuickBackend
from tests.random_cases import random_cases

CHECKPOINT = random_checkpoint()
TOKENIZER = Tokenizer(tiny_spec(), CHECKPOINT.vocabulary)
OPTIONS = TranscribeOptions.from_keywords({"language": "en", "temperature": 0.0})
BABBLE = TranscribeOptions.from_keywords({"language": "en", "temperature": (0.0, 0.9), "sample_len": 6, "best_of": 2})


class WatchingBackend(QuickBackend):
    """Notes how windows were encoded."""

    def __init__(self, script: Script | None = None, policy: SchedulingPolicy | None = None) -> None:
        self._policy = policy or SchedulingPolicy()
        super().__init__(script or reciting(TOKENIZER, [" One."]))
        self.encoded: list[int] = []

    @property
    def info(self) -> BackendInfo:
        return replace(super().info, policy=self._policy)

    def encode(self, mel: FloatArray) -> list[WindowId]:
        ids = super().encode(mel)
        self.encoded.append(len(mel))
        return ids


class BrokenRecording(Recording):
    """A recording whose disk fails at sample `breaks_at`."""

    def __init__(self, samples: FloatArray, breaks_at: int) -> None:
        good = recording_of_array("broken", samples)
        assert good._storage is not None
        super().__init__("broken", good._storage)
        self._breaks_at = breaks_at

    def read(self, start: int, stop: int) -> FloatArray:
        if stop > self._breaks_at:
            raise OSError("the disk is gone")
        return super().read(start, stop)


@cache
def samples(duration_s: float, seed: int = 0) -> FloatArray:
    return noise(duration_s, seed)


def made(max_windows: int | None = None, script: Script | None = None) -> tuple[Engine, WatchingBackend]:
    backend = WatchingBackend(script)
    engine = Engine(CHECKPOINT, backend)
    if max_windows is not None:
        engine.scheduler = Scheduler(backend, MemoryBound.of(backend, None, max_windows))
    return engine, backend


def submit(engine: Engine, duration_s: float = 40.0, seed: int = 0) -> Job:
    recording = recording_of_array("good", samples(duration_s, seed))
    return engine.submit_recording(recording, OPTIONS)


def submit_broken(engine: Engine) -> Job:
    """Submit a recording whose disk fails right after it was read for its maximum; a shorter one is kept from then."""
    recording = BrokenRecording(samples(95.0), 10**9)
    job = engine.submit_recording(recording, OPTIONS)
    recording._breaks_at = 0
    return job


@cache
def alone(duration_s: float = 40.0) -> Transcript:
    return submit(made()[0], duration_s).result()


@cache
def babbled_alone(duration_s: float) -> Transcript:
    recording = recording_of_array("good", samples(duration_s))
    return made(script=babbling(5, TOKENIZER))[0].submit_recording(recording, BABBLE).result()


# One bad job.


def test_audio_that_cannot_be_read_fails_its_job_alone() -> None:
    engine, backend = made()
    jobs = [submit(engine), submit_broken(engine), submit(engine)]
    engine.run()
    assert [job.state for job in jobs] == [JobState.DONE, JobState.FAILED, JobState.DONE]
    assert jobs[0].result() == alone()
    with pytest.raises(OSError, match="the disk is gone"):
        jobs[1].result()
    with pytest.raises(OSError, match="the disk is gone"):
        list(jobs[1])
    assert backend.n_open == 0


def test_audio_that_breaks_in_the_middle_keeps_the_segments_before() -> None:
    engine, backend = made()
    # longer than what is kept from the pass for the maximum, which reads all once
    recording = BrokenRecording(samples(95.0), 10**9)

    def breaks(_: JobEvent) -> None:  # in the thread that steps: before it asks for the next window
        recording._breaks_at = 0

    job = engine.submit_recording(recording, OPTIONS, JobParams(on_event=breaks))
    segments = iter(job)
    assert next(segments).text == " One."
    with pytest.raises(OSError, match="the disk is gone"):
        next(segments)
    assert job.state is JobState.FAILED
    assert backend.n_open == 0


class BreakingStorage:
    """Samples on a disk that fails when `broken` is set."""

    def __init__(self, audio: FloatArray) -> None:
        self._audio = audio
        self.n_samples = len(audio)
        self.broken = False

    def read(self, start: int, stop: int) -> FloatArray:
        if self.broken:
            raise OSError("the disk is gone")
        return self._audio[start:stop]

    def close(self) -> None:
        pass


@pytest.mark.parametrize("n_steps", [0, 1, 2, 3, 4, 5])
def test_chunks_that_cannot_be_read_any_more_end_their_recording_alone(n_steps: int) -> None:
    # before a step its chunks are cut; after some of them have rows, which share a batch with the other job's
    engine, backend = made()
    storage = BreakingStorage(samples(300.0))
    options = TranscribeOptions.from_keywords({"language": "en", "temperature": 0.0, "mode": "chunked"})
    good = submit(engine)
    chunked = engine.submit_recording(Recording("broken", storage), options)
    for _ in range(n_steps):
        engine.step()
    storage.broken = True
    engine.run()
    assert good.result() == alone()
    with pytest.raises(OSError, match="the disk is gone"):
        chunked.result()
    assert backend.n_open == 0


def test_audio_that_cannot_be_read_at_all_is_no_job() -> None:
    engine, backend = made()
    recording = BrokenRecording(samples(40.0), 0)
    with pytest.raises(OSError, match="the disk is gone"):
        engine.submit_recording(recording, OPTIONS)
    assert engine.status().submitted == 0
    assert recording._storage is None
    assert backend.n_open == 0


@pytest.mark.parametrize("n_broken", [1, 3, 4])
def test_run_ends_only_when_no_job_is_left(n_broken: int) -> None:
    engine, _ = made()
    broken = [submit_broken(engine) for _ in range(n_broken)]
    good = submit(engine)
    engine.run()
    assert [job.state for job in broken] == [JobState.FAILED] * n_broken
    assert good.state is JobState.DONE


def test_a_waiting_caller_gets_the_result_however_many_fail_before() -> None:
    engine, _ = made()
    for _ in range(5):
        submit_broken(engine)
    assert submit(engine).result() == alone()


def test_a_sink_that_raises_fails_its_job_alone() -> None:
    engine, backend = made()

    def sink(_: Progress) -> None:
        raise ValueError("full")

    recording = recording_of_array("good", samples(40.0))
    bad = engine.submit_recording(recording, OPTIONS, JobParams(on_progress=sink))
    good = submit(engine)
    engine.run()
    assert (bad.state, good.state) == (JobState.FAILED, JobState.DONE)
    assert [one.text for one in list_until_error(bad)] == [" One."]  # what was decoded is there
    assert backend.n_open == 0


def list_until_error(job: Job) -> list[Segment]:
    found: list[Segment] = []
    try:
        for segment in job:
            found.append(segment)
    except ValueError:
        pass
    return found


def test_a_backend_error_ends_the_jobs_of_its_batch() -> None:
    engine, backend = made()
    jobs = [submit(engine), submit(engine)]
    engine.step()
    engine.step()  # both windows are encoded

    def refuse(_: object) -> list[object]:
        raise BackendError("out of memory")

    backend.step = refuse  # type: ignore[assignment, method-assign]
    engine.step()
    assert [job.state for job in jobs] == [JobState.FAILED] * 2
    assert backend.n_open == 0


class ScarceBackend(WatchingBackend):
    """Has memory for so many windows."""

    def __init__(self, room: int) -> None:
        super().__init__(policy=SchedulingPolicy(windows_per_encode=4))
        self.room = room

    def encode(self, mel: FloatArray) -> list[WindowId]:
        if self.handles.n_windows + len(mel) > self.room:
            raise OutOfDeviceMemoryError("the memory of cuda:0 does not suffice")
        return super().encode(mel)


@pytest.mark.parametrize("room", [1, 2, 3, 6])
def test_windows_that_find_no_memory_wait_for_others_and_fail_only_alone(room: int) -> None:
    backend = ScarceBackend(room)
    engine = Engine(CHECKPOINT, backend)
    jobs = [submit(engine, seed=seed) for seed in range(9)]
    with pytest.warns(match=r"memory does not suffice for \d+ windows at once; going on with at most [1-4]"):
        engine.run()
    assert [job.result() for job in jobs] == [submit(made()[0], seed=seed).result() for seed in range(9)]
    assert backend.n_open == 0
    backend.room = 0
    job = submit(engine)
    engine.run()
    with pytest.raises(BackendError, match="the memory of cuda:0 does not suffice"):
        job.result()


# Bounds.


@pytest.mark.parametrize("max_windows", [1, 2, 3, 5, 16])
def test_no_more_windows_lie_in_memory_than_allowed(max_windows: int) -> None:
    engine, backend = made(max_windows)
    jobs = [submit(engine, duration_s) for duration_s in (5.0, 40.0, 61.0, 5.0, 31.0, 40.0, 5.0)]
    engine.run()
    assert all(job.state is JobState.DONE for job in jobs)
    assert backend.most_windows == min(max(1, max_windows - 1), len(jobs))  # one is kept free for interactive jobs
    assert backend.n_open == 0


def test_jobs_that_came_first_are_served_first() -> None:
    engine, _ = made(1)
    jobs = [submit(engine, seed=seed) for seed in range(3)]
    order = []
    while engine.step():
        order += [job for job in jobs if job.state is JobState.DONE and job not in order]
    assert order == jobs


def test_rows_step_together_and_wait_for_two_windows_at_most() -> None:
    engine, _ = made()
    for seed in range(5):
        submit(engine, seed=seed)
    sizes = []
    for _ in range(9):
        batch = engine.scheduler.next_batch()
        assert batch is not None
        sizes.append((type(batch), len(batch.jobs)))
        engine.scheduler.account(batch, batch.run(engine._backend))
    encode, decode = (EncodeBatch, 1), DecodeBatch
    assert sizes == [encode, encode, (decode, 2), encode, encode, (decode, 4), encode, (decode, 5), (decode, 5)]


@pytest.mark.parametrize(
    ("most", "expected"), [(None, [4, 4, 1]), (7, [4, 2]), (4, [3])], ids=["unbounded", "six fit", "three fit"]
)
def test_a_backend_that_takes_four_windows_at_once_gets_those_of_several_jobs(
    most: int | None, expected: list[int]
) -> None:
    backend = WatchingBackend(policy=SchedulingPolicy(windows_per_encode=4))
    engine = Engine(CHECKPOINT, backend)
    engine.scheduler = Scheduler(backend, MemoryBound.of(backend, None, most))
    jobs = [submit(engine, seed=seed) for seed in range(9)]
    for _ in range(len(expected) + 1):
        engine.step()
    assert backend.encoded[: len(expected)] == expected
    engine.run()
    assert [job.result() for job in jobs] == [submit(made()[0], seed=seed).result() for seed in range(9)]
    assert sum(backend.encoded) == 18
    assert backend.n_open == 0


def test_the_backend_says_how_many_windows_are_in_flight_and_encoded_in_a_row() -> None:
    backend = WatchingBackend(policy=SchedulingPolicy(windows_in_flight=5, encodes_before_rows=4))
    engine = Engine(CHECKPOINT, backend)
    for seed in range(8):
        submit(engine, seed=seed)
    kinds = []
    for _ in range(7):
        batch = engine.scheduler.next_batch()
        assert batch is not None
        kinds.append(type(batch))
        engine.scheduler.account(batch, batch.run(backend))
    assert kinds == [*[EncodeBatch] * 4, *[DecodeBatch] * 3]
    engine.run()
    assert backend.most_windows == 4  # one is kept free for interactive jobs


def test_a_window_that_cannot_be_read_leaves_the_others_of_its_batch() -> None:
    backend = WatchingBackend(policy=SchedulingPolicy(windows_per_encode=4))
    engine = Engine(CHECKPOINT, backend)
    jobs = [submit(engine), submit_broken(engine), submit(engine), submit_broken(engine), submit(engine)]
    engine.run()
    done, failed = JobState.DONE, JobState.FAILED
    assert [job.state for job in jobs] == [done, failed, done, failed, done]
    assert backend.encoded == [3, 3]
    assert backend.n_open == 0


def test_windows_of_a_job_that_fails_with_another_of_the_batch_are_given_back() -> None:
    backend = WatchingBackend(policy=SchedulingPolicy(windows_per_encode=16))
    engine = Engine(CHECKPOINT, backend)
    good = submit(engine)
    options = TranscribeOptions.from_keywords({"language": "en", "temperature": 0.0, "mode": "chunked"})
    chunked = engine.submit_recording(recording_of_array("chunks", samples(300.0)), options)
    batch = engine.scheduler.next_batch()
    assert isinstance(batch, EncodeBatch)
    answer = batch.run(backend)
    assert len(answer) > 3

    def fails() -> None:
        raise OSError("the disk is gone")

    batch.streams[2]._begin = fails  # type: ignore[method-assign]
    engine.scheduler.account(batch, answer)
    assert chunked.state is JobState.FAILED
    assert backend.handles.n_windows == 1
    engine.run()
    assert good.result() == alone()


def test_a_job_without_content_is_done_when_it_comes() -> None:
    engine, backend = made()
    job = engine.submit_recording(recording_of_array("nothing", np.zeros(0, np.float32)), OPTIONS)
    assert engine.scheduler.next_batch() is None
    assert job.state is JobState.DONE
    assert job.result().text == ""
    assert backend.n_encoded == 0


# Cancelling.


@random_cases(20, 400)
@given(st.lists(st.tuples(st.sampled_from([5.0, 40.0, 61.0]), st.none() | st.integers(0, 40)), min_size=1, max_size=5),
       st.integers(1, 4))  # fmt: skip
def test_cancelling_at_any_moment_leaves_nothing_open_and_the_others_alone(
    wanted: list[tuple[float, int | None]], max_windows: int
) -> None:
    engine, backend = made(max_windows, babbling(5, TOKENIZER))
    recordings = [recording_of_array("good", samples(duration_s)) for duration_s, _ in wanted]
    jobs = [engine.submit_recording(recording, BABBLE) for recording in recordings]
    step = 0
    while True:
        for job, (_, moment) in zip(jobs, wanted, strict=True):
            if moment == step:
                before = job.state
                job.cancel()
                assert job.state is (before if before.ended else JobState.CANCELLED)
        if not engine.step():
            break
        step += 1
    for job, (duration_s, moment) in zip(jobs, wanted, strict=True):
        assert job.state.ended
        if job.state is JobState.CANCELLED:
            assert moment is not None
            with pytest.raises(CancelledError):
                job.result()
        else:
            assert job.result() == babbled_alone(duration_s)
    assert backend.n_open == 0
    assert engine.scheduler.jobs == []
    for recording in recordings:  # closed too
        with pytest.raises(ValueError, match="closed"):
            recording.read(0, 1)


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
def test_however_a_job_ends_its_audio_is_closed(end: str) -> None:
    engine, _ = made()
    recording = BrokenRecording(samples(95.0), 10**9)
    job = engine.submit_recording(recording, OPTIONS)
    recording._breaks_at = 0 if end == "failed" else 10**9
    if end == "cancelled":
        engine.step()
        job.cancel()
    engine.run()
    assert job.state.value == end
    recording._breaks_at = 10**9
    with pytest.raises(ValueError, match="closed"):
        recording.read(0, 1)


def test_options_that_do_not_suit_the_model_close_the_audio_too() -> None:
    engine, _ = made()
    recording = recording_of_array("good", samples(5.0))
    with pytest.raises(OptionError):
        engine.submit_recording(recording, TranscribeOptions.from_keywords({"suppress_tokens": [10**6]}))
    with pytest.raises(ValueError, match="closed"):
        recording.read(0, 1)


def test_ended_states_are_the_last_three() -> None:
    assert [state for state in JobState if state.ended] == [JobState.DONE, JobState.FAILED, JobState.CANCELLED]


def test_nothing_to_do_is_no_batch() -> None:
    assert made()[0].scheduler.next_batch() is None
