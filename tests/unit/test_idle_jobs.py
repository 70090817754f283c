"""An open job without work: threads sleep, no step is made, and what feeds, cancels or ends the job wakes them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest

from stapes.audio.mel import LogMel
from stapes.audio.pcm import Recording, recording_of_array
from stapes.backends.base import FloatArray
from stapes.engine.engine import Engine
from stapes.engine.job import Job
from stapes.engine.scheduled_job import JobParams, JobState
from stapes.engine.thread import EngineThread, WorkSignal
from stapes.errors import BackendError, CancelledError, DeadlineError
from stapes.recording.base import TaskInputs, WindowCost, WindowStream
from stapes.recording.events import JobEvent, LanguageDetected
from stapes.recording.language.question import LanguageQuestion
from stapes.results import LanguageGuess, Transcript
from stapes.testing import noise, random_checkpoint, reciting, tiny_spec
from stapes.tokenizer import Tokenizer
from tests.quick_backend import QuickBackend
from tests.random_cases import cases

CHECKPOINT = random_checkpoint()
TOKENIZER = Tokenizer(tiny_spec(), CHECKPOINT.vocabulary)


class FedTask(WindowStream):
    """Detects the language of each window that it is fed, until it is ended."""

    def __init__(self, recording: Recording, backend: QuickBackend) -> None:
        mel = LogMel(recording, 80, kernel=backend.log10_mel)
        inputs = TaskInputs(recording=recording, mel=mel, backend=backend, tokenizer=TOKENIZER)
        super().__init__(inputs, WindowCost(rows=1))
        self._fed: deque[int] = deque()
        self._ended = False

    # For any thread.

    def feed(self, number: int) -> None:
        self._fed.append(number)
        self.wake()

    def end(self) -> None:
        self._ended = True
        self.wake()

    # For the thread that steps.

    @property
    def _frames_done(self) -> int:
        return 0

    @property
    def done(self) -> bool:
        return self._ended and not self._fed

    @property
    def needs_window(self) -> bool:
        return bool(self._fed) and not self._slot.is_there

    def mel(self) -> FloatArray:
        return np.full((80, 3000), self._fed[0], np.float32)

    def _begin(self) -> None:
        self._slot.begin(LanguageQuestion(self._backend, self._slot.window, TOKENIZER, ("en", "de")))

    def _accept(self, answer: LanguageGuess) -> list[JobEvent]:
        self._slot.release()
        self._fed.popleft()
        return [LanguageDetected(guess=answer, language=answer.language)]

    def result(self) -> Transcript:
        return Transcript(text="", segments=(), language="en", duration_s=0.0)


class Session:
    """An engine with one open job, and what that has answered."""

    def __init__(self, **keywords: Any) -> None:
        self.backend = QuickBackend(reciting(TOKENIZER, [" One."]))
        self.engine = Engine(CHECKPOINT, self.backend)
        self.answers: list[JobEvent] = []
        self.answered = threading.Semaphore(0)
        self.task, self.job = self.open(**keywords)

    def open(self, deadline_s: float | None = None, on_event: Callable[[JobEvent], None] | None = None) -> Any:
        recording = recording_of_array("live", noise(1.0))
        task = FedTask(recording, self.backend)
        deadline = None if deadline_s is None else self.engine.scheduler.clock() + deadline_s
        params = JobParams(on_event=on_event or self._note, deadline=deadline)
        return task, self.engine._schedule(recording, lambda: task, params)

    def _note(self, event: JobEvent) -> None:
        self.answers.append(event)
        self.answered.release()

    def wait_for_answers(self, n: int) -> None:
        for _ in range(n):
            assert self.answered.acquire(timeout=30), "a wake-up was lost"


@pytest.fixture
def session() -> Iterator[Session]:
    made = Session()
    yield made
    made.engine.close()


def asleep(engine: Engine, n_threads: int = 1) -> None:
    """Wait until so many threads wait for work."""
    until = time.monotonic() + 30
    while len(engine._signal._changed._waiters) < n_threads:  # type: ignore[attr-defined]
        assert time.monotonic() < until
        time.sleep(0.002)


def cpu_s(thread: threading.Thread) -> float:
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="a thread's time cannot be read here")
def test_an_open_job_without_work_costs_no_step_and_next_to_no_time(session: Session) -> None:
    session.engine.start()
    session.task.feed(1)
    session.wait_for_answers(1)
    asleep(session.engine)
    thread = session.engine._thread._thread
    assert thread is not None
    looks = []
    session.engine.scheduler.next_batch = lambda: looks.append(1)  # type: ignore[method-assign]
    n_steps, before = session.backend.n_steps, cpu_s(thread)
    time.sleep(3.0)
    assert cpu_s(thread) - before < 0.020 * 3 / 60
    assert (looks, session.backend.n_steps) == ([], n_steps)
    assert thread.is_alive()


def test_what_is_fed_is_worked_on_at_once(session: Session) -> None:
    session.engine.start()
    for number in range(5):
        asleep(session.engine)
        session.task.feed(number)
        session.wait_for_answers(1)
    session.task.end()
    session.job.result(timeout_s=30)
    assert len(session.answers) == 5
    assert session.backend.n_open == 0


@pytest.mark.parametrize("how", ["end", "cancel", "close"])
@pytest.mark.parametrize("sleeper", ["start", "run", "result"])
def test_whatever_ends_a_job_wakes_the_thread_that_sleeps(how: str, sleeper: str) -> None:
    session = Session()
    failed: list[BaseException] = []

    def sleep() -> None:
        try:
            {"start": session.engine.start, "run": session.engine.run, "result": session.job.result}[sleeper]()
        except (CancelledError, BackendError) as error:
            failed.append(error)

    thread = threading.Thread(target=sleep)
    thread.start()
    asleep(session.engine)
    {"end": session.task.end, "cancel": session.job.cancel, "close": session.engine.close}[how]()
    thread.join(30)
    assert not thread.is_alive()
    with nullcontext() if how == "end" else pytest.raises(CancelledError):
        session.job.result(timeout_s=30)
    assert bool(failed) == (sleeper == "result" and how != "end")
    session.engine.close()


def test_a_deadline_ends_an_idle_job_in_time() -> None:
    session = Session(deadline_s=0.2)
    session.engine.start()
    asleep(session.engine)
    with pytest.raises(DeadlineError):
        session.job.result(timeout_s=30)
    session.engine.close()


def test_a_new_job_wakes_the_thread_and_the_idle_one_stays(session: Session) -> None:
    session.engine.start()
    asleep(session.engine)
    assert session.engine.transcribe(noise(5.0), language="en", temperature=0.0).text == " One."
    assert session.job.state is JobState.QUEUED
    session.task.feed(1)
    session.wait_for_answers(1)


def test_every_thread_that_runs_the_engine_returns_when_no_job_is_left(session: Session) -> None:
    threads = [threading.Thread(target=session.engine.run) for _ in range(3)]
    for thread in threads:
        thread.start()
    asleep(session.engine, 3)
    session.task.feed(1)
    session.wait_for_answers(1)
    session.task.end()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_a_callback_that_waits_for_an_idle_job_sleeps_until_that_is_fed() -> None:
    session = Session()
    other, other_job = session.open()
    inside = threading.Event()

    def wait_for_other(_: JobEvent) -> None:
        inside.set()
        other_job.result()

    task, job = session.open(on_event=wait_for_other)
    session.engine.start()
    task.feed(1)
    assert inside.wait(30)
    asleep(session.engine)
    other.feed(2)
    session.wait_for_answers(1)
    other.end()
    task.end()
    job.result(timeout_s=30)
    assert other_job.state is JobState.DONE
    session.engine.close()


# No wake-up is lost.


def test_a_feed_between_the_look_for_work_and_the_wait_is_not_lost(session: Session) -> None:
    signal, fed = session.engine._signal, threading.Event()
    wait = signal.wait

    def late(seen: int, timeout_s: float | None) -> None:
        if not fed.is_set():
            fed.set()
            session.task.feed(1)
        wait(seen, timeout_s)

    signal.wait = late  # type: ignore[method-assign]
    session.engine.start()
    session.wait_for_answers(1)


def test_a_stop_between_the_look_for_work_and_the_wait_is_not_lost() -> None:
    signal = WorkSignal()
    threads: list[EngineThread] = []
    stopping = threading.Event()

    def work(seen: int) -> bool:
        if not stopping.is_set():
            stopper.start()
            while not threads[0]._stopping:
                time.sleep(0.001)
            stopping.set()
        signal.wait(seen, None)
        return True

    threads.append(EngineThread(work, signal, "stapes test"))
    stopper = threading.Thread(target=threads[0].stop)
    threads[0].start()
    assert stopping.wait(30)
    stopper.join(30)
    assert not stopper.is_alive()


def test_a_start_while_the_thread_ends_is_not_lost() -> None:
    signal, left = WorkSignal(), deque[int]()
    done: list[int] = []

    def work(_: int) -> bool:
        if not left:
            return False
        done.append(left.popleft())
        return True

    thread = EngineThread(work, signal, "stapes test")
    n_rounds = cases(300, 5000)
    for number in range(n_rounds):
        left.append(number)
        thread.start()
        if number % 3 == 0:
            time.sleep(0.0002)
    until = time.monotonic() + 30
    while len(done) < n_rounds:
        assert time.monotonic() < until
        time.sleep(0.001)
    thread.stop()
    assert done == list(range(n_rounds))


@pytest.mark.random
def test_feeds_at_random_moments_from_many_threads_are_all_answered(session: Session) -> None:
    random = np.random.default_rng(3)
    n_feeds, n_threads = cases(40, 1000), 3
    pauses = random.choice([0.0, 1e-5, 1e-4, 1e-3, 3e-3], size=(n_threads, n_feeds))
    session.engine.start()

    def feed(mine: FloatArray) -> None:
        for pause in mine:
            time.sleep(pause)
            session.task.feed(1)

    threads = [threading.Thread(target=partial(feed, mine)) for mine in pauses]
    for thread in threads:
        thread.start()
    session.wait_for_answers(n_threads * n_feeds)
    for thread in threads:
        thread.join(30)
    jobs: list[Job] = []
    for _ in range(10):  # and what ends a job, at random moments
        _, job = session.open()
        jobs.append(job)
        session.engine.start()
        time.sleep(float(random.choice([0.0, 1e-4, 2e-3])))
        job.cancel()
    for job in jobs:
        with pytest.raises(CancelledError):
            job.result(timeout_s=30)
    session.task.end()
    session.job.result(timeout_s=30)
    assert session.backend.n_open == 0
