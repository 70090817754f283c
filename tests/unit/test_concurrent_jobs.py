"""Concurrent jobs: threads and tasks share an engine, short jobs overtake, deadlines end jobs, runs are resumed."""

from __future__ import annotations

import asyncio
import gc
import io
import math
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.audio.pcm import recording_of_array
from stapes.backends.base import FloatArray, LogMelKernel
from stapes.engine.engine import Engine
from stapes.engine.job import Job
from stapes.engine.preparation import preparation
from stapes.engine.scheduled_job import JobState
from stapes.engine.scheduler import MemoryBound, Scheduler
from stapes.errors import AudioError, BackendError, CancelledError, DeadlineError, OptionError
from stapes.options import TranscribeOptions
from stapes.recording.events import JobEvent, LanguageDetected, WindowDone
from stapes.recording.requests import Answer
from stapes.recording.words.alignment import alignment_bytes
from stapes.results import LanguageGuess, Transcript, WindowResult
from stapes.testing import babbling, noise, random_checkpoint, reciting, tiny_spec
from stapes.tokenizer import Tokenizer
from tests.quick_backend import QuickBackend, quick_mel
from tests.random_cases import cases, random_cases

CHECKPOINT = random_checkpoint()
TOKENIZER = Tokenizer(tiny_spec(), CHECKPOINT.vocabulary)
BABBLING = babbling(11, TOKENIZER)
BABBLE: dict[str, Any] = {"temperature": (0.0, 0.9), "sample_len": 6, "best_of": 2}
WORDS: dict[str, Any] = {"word_timestamps": True, "no_speech_threshold": None}


def engine_of(backend: QuickBackend | None = None, **keywords: Any) -> tuple[Engine, QuickBackend]:
    backend = backend or QuickBackend(BABBLING)
    return Engine(CHECKPOINT, backend, **keywords), backend


@cache
def alone(duration_s: float, seed: int) -> Transcript:
    return engine_of()[0].transcribe(noise(duration_s, seed), **BABBLE)


# Threads.


def test_many_threads_at_once_each_get_their_own() -> None:
    engine, backend = engine_of()
    wanted = [(20.0 + 9 * (i % 4), i) for i in range(24)]
    expected = [alone(*one) for one in wanted]
    found: list[Transcript | None] = [None] * len(wanted)

    def call(place: int) -> None:
        found[place] = engine.transcribe(noise(*wanted[place]), **BABBLE)

    threads = [threading.Thread(target=call, args=(place,)) for place in range(len(wanted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert found == expected
    assert backend.n_open == 0


def test_waiting_threads_are_one_batch() -> None:
    gate = threading.Event()
    recite = reciting(TOKENIZER, [" One."])

    def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
        assert gate.wait(timeout=60)
        return recite(sound, tokens)

    engine, backend = engine_of(QuickBackend(script))
    keywords: dict[str, Any] = {"language": "en", "temperature": 0.0}
    threads = [threading.Thread(target=engine.transcribe, args=(noise(5.0, i),), kwargs=keywords) for i in range(6)]
    for thread in threads:
        thread.start()
    while engine.status().submitted < 6:
        gate.wait(timeout=0.005)
    gate.set()
    for thread in threads:
        thread.join(timeout=60)
    assert backend.n_encoded == 6
    one_by_one, lone = engine_of(QuickBackend(recite))
    one_by_one.transcribe(noise(5.0), **keywords)
    assert backend.n_steps <= lone.n_steps + 3  # a row or two begin before the others


def test_the_engines_thread_ends_with_the_work() -> None:
    engine, _ = engine_of()
    for seed in range(3):
        engine.transcribe(noise(5.0, seed), **BABBLE)
    for thread in threading.enumerate():
        if thread.name.startswith("stapes "):  # an engine's; a backend's pool lives as long as that
            thread.join(timeout=60)
    assert not [one for one in threading.enumerate() if one.name.startswith("stapes ")]


def test_an_engine_without_references_is_collected() -> None:
    engine, backend = engine_of()
    engine.transcribe(noise(5.0), **BABBLE)
    gone = weakref.ref(engine)
    del engine
    for thread in threading.enumerate():
        if thread.name.startswith("stapes "):  # an engine's; a backend's pool lives as long as that
            thread.join(timeout=60)
    gc.collect()
    assert gone() is None
    assert backend.n_open == 0


def test_start_works_in_the_background_and_calls_back_when_a_job_has_ended() -> None:
    engine, _ = engine_of()
    jobs = [engine.submit(noise(20.0, seed), **BABBLE) for seed in range(3)]
    called: list[Job] = []
    done = threading.Semaphore(0)

    def ended(job: Job) -> None:
        called.append(job)
        done.release()

    for job in jobs:
        job.when_ended(ended)
    engine.start()
    for _ in jobs:
        assert done.acquire(timeout=60)
    assert {id(job) for job in called} == {id(job) for job in jobs}
    jobs[0].when_ended(ended)  # at once
    assert called[-1] is jobs[0]
    assert [job.state for job in jobs] == [JobState.DONE] * 3


def test_a_callback_that_fails_changes_no_job(caplog: pytest.LogCaptureFixture) -> None:
    engine, _ = engine_of()
    job = engine.submit(noise(5.0), **BABBLE)

    def ended(_: Job) -> None:
        raise ValueError("no room")

    job.when_ended(ended)
    assert job.result() == alone(5.0, 0)
    assert engine.transcribe(noise(5.0), **BABBLE) == alone(5.0, 0)
    assert "no room" in caplog.text


def test_a_result_that_takes_too_long_is_a_timeout_and_the_job_goes_on() -> None:
    gate = threading.Event()
    babble = babbling(11, TOKENIZER)

    def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
        assert gate.wait(timeout=60)
        return babble(sound, tokens)

    engine, _ = engine_of(QuickBackend(script))
    job = engine.submit(noise(5.0), **BABBLE)
    with pytest.raises(TimeoutError, match=r"has not ended after 0\.01 s"):
        job.result(timeout_s=0.01)
    gate.set()
    assert job.result(timeout_s=60) == alone(5.0, 0)


def test_what_breaks_in_the_scheduler_ends_all_jobs_instead_of_leaving_them_waiting() -> None:
    engine, backend = engine_of()

    def broken() -> None:
        raise ZeroDivisionError("a mistake of ours")

    jobs = [engine.submit(noise(5.0, seed), **BABBLE) for seed in range(2)]
    engine.scheduler.admit = broken  # type: ignore[method-assign]
    for job in jobs:
        with pytest.raises(ZeroDivisionError):
            job.result()
    assert backend.n_open == 0


def test_a_language_is_detected_while_others_work() -> None:
    engine, _ = engine_of()
    guess = engine.detect_language(noise(5.0))
    jobs = [engine.submit(noise(65.0, seed), **BABBLE) for seed in range(4)]
    engine.start()
    assert [engine.detect_language(noise(5.0)) for _ in range(3)] == [guess] * 3
    assert [job.result() for job in jobs] == [alone(65.0, seed) for seed in range(4)]


# asyncio.


def test_tasks_get_what_threads_get() -> None:
    async def run() -> tuple[list[Transcript], list[Any]]:
        engine, backend = engine_of()
        found = await asyncio.gather(*(engine.atranscribe(noise(65.0, seed), **BABBLE) for seed in range(8)))
        streamed = [segment async for segment in engine.astream(noise(65.0, 1), **BABBLE)]
        job = await engine.asubmit(noise(65.0, 1), **BABBLE)
        assert [segment async for segment in job] == streamed
        assert await job.aresult() == found[1]
        assert [segment async for segment in job] == []
        assert backend.n_open == 0
        return found, streamed

    found, streamed = asyncio.run(run())
    assert found == [alone(65.0, seed) for seed in range(8)]
    assert tuple(streamed) == found[1].segments


def test_a_task_that_is_cancelled_cancels_its_job() -> None:
    gate = threading.Event()
    babble = babbling(11, TOKENIZER)

    def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
        assert gate.wait(timeout=60)
        return babble(sound, tokens)

    async def run() -> None:
        engine, backend = engine_of(QuickBackend(script))
        kept = asyncio.create_task(engine.atranscribe(noise(5.0, 1), **BABBLE))
        task = asyncio.create_task(engine.atranscribe(noise(5.0, 0), **BABBLE))
        while engine.status().submitted < 2:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        assert await kept == alone(5.0, 1)
        assert backend.n_open == 0

    asyncio.run(run())


def test_reading_ends_when_its_task_does() -> None:
    reading, go_on = threading.Event(), threading.Event()

    class SlowBackend(QuickBackend):
        @property
        def log10_mel(self) -> LogMelKernel:
            def slow_mel(samples: FloatArray, filters: FloatArray) -> FloatArray:
                reading.set()
                assert go_on.wait(timeout=60)
                return quick_mel(samples, filters)

            return slow_mel

    async def run() -> None:
        engine, backend = engine_of(SlowBackend(BABBLING))
        task = asyncio.create_task(engine.asubmit(noise(95.0), **BABBLE))
        while not reading.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        preparation.executor(b"").submit(lambda: None).result(timeout=60)  # what came before has ended
        assert engine.status().submitted == 0
        assert backend.n_open == 0

    asyncio.run(run())


def test_recordings_are_prepared_on_one_core_in_an_executor_of_their_own() -> None:
    at_once, most = [0], [0]
    names: set[str] = set()

    class CountingBackend(QuickBackend):
        @property
        def log10_mel(self) -> LogMelKernel:
            def counting_mel(samples: FloatArray, filters: FloatArray) -> FloatArray:
                if threading.current_thread().name.startswith("stapes "):  # a window's, in the engine's thread
                    return quick_mel(samples, filters)
                at_once[0] += 1
                most[0] = max(most[0], at_once[0])
                names.add(threading.current_thread().name)
                found = quick_mel(samples, filters)
                at_once[0] -= 1
                return found

            return counting_mel

    async def run() -> list[Transcript]:
        engine, _ = engine_of(CountingBackend(BABBLING))
        loop = asyncio.get_running_loop()
        gate = threading.Event()
        for _ in range(64):  # asyncio's own executor is full
            loop.run_in_executor(None, gate.wait)
        try:
            return await asyncio.gather(*(engine.atranscribe(noise(65.0, seed), **BABBLE) for seed in range(6)))
        finally:
            gate.set()

    assert asyncio.run(run()) == [alone(65.0, seed) for seed in range(6)]
    assert most[0] == 1
    assert names == {"stapes-prepare_0"}


def test_a_source_that_blocks_holds_no_other_up() -> None:
    gate = threading.Event()

    class Upload(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, _: Any) -> int:
            assert gate.wait(60)
            return 0

    async def run() -> None:
        engine, _ = engine_of()
        uploads: list[Any] = [Upload() for _ in range(3)]
        slow = [asyncio.create_task(engine.atranscribe(upload, **BABBLE)) for upload in uploads]
        await asyncio.sleep(0.05)
        assert await engine.atranscribe(noise(5.0), **BABBLE) == alone(5.0, 0)
        gate.set()
        for one in slow:
            with pytest.raises(AudioError):
                await one

    asyncio.run(run())


def test_a_stream_that_is_closed_cancels_the_rest() -> None:
    async def run() -> None:
        engine, backend = engine_of(QuickBackend(reciting(TOKENIZER, [" One."])))
        stream: AsyncIterator[Any] = engine.astream(noise(650.0), language="en")
        assert (await anext(stream)).text == " One."
        await stream.aclose()  # type: ignore[attr-defined]
        while engine.status().running:
            await asyncio.sleep(0.001)
        assert backend.n_open == 0

    asyncio.run(run())


def test_errors_reach_tasks_as_they_reach_threads() -> None:
    async def run() -> None:
        engine, _ = engine_of()
        with pytest.raises(OptionError, match="beam_sise"):
            await engine.atranscribe(noise(1.0), beam_sise=3)
        with pytest.raises(AudioError):
            await engine.atranscribe(b"")
        with pytest.raises(DeadlineError):
            await engine.atranscribe(noise(5.0), deadline_s=1e-9)
        engine.close()
        with pytest.raises(BackendError, match="closed"):
            await engine.atranscribe(noise(1.0))

    asyncio.run(run())


# Order.


def _note(order: list[str], name: str, _: Job) -> None:
    order.append(name)


def finished_in_order(engine: Engine, jobs: dict[str, Job]) -> list[str]:
    order: list[str] = []
    for name, job in jobs.items():
        job.when_ended(partial(_note, order, name))
    for job in jobs.values():
        job.result()
    return order


@pytest.mark.parametrize("max_windows", [1, 2, 16])
def test_a_short_recording_does_not_wait_for_long_ones(max_windows: int) -> None:
    engine, backend = engine_of(QuickBackend(reciting(TOKENIZER, [" One."])))
    engine.scheduler = Scheduler(backend, MemoryBound.of(backend, None, max_windows))
    options = TranscribeOptions.from_keywords({"language": "en", "temperature": 0.0})
    long = [engine.submit_recording(recording_of_array("long", noise(300.0)), options) for _ in range(3)]
    for _ in range(12):
        engine.step()
    short = engine.submit_recording(recording_of_array("short", noise(3.0)), options)
    before = sum(job.progress.done_s for job in long)
    while not short.state.ended:
        engine.step()
    # it waits for the windows that are being decoded, and then goes before all others; they share its steps until then
    assert sum(job.progress.done_s for job in long) - before <= 30.0 * (2 * max_windows - 1)
    assert not any(job.state.ended for job in long)
    engine.close()


def test_a_stream_of_short_recordings_does_not_hold_a_long_one_up_for_ever() -> None:
    engine, backend = engine_of(QuickBackend(reciting(TOKENIZER, [" One."])))
    engine.scheduler = Scheduler(backend, MemoryBound.of(backend, None, 1))
    options = TranscribeOptions.from_keywords({"language": "en", "temperature": 0.0})
    short = noise(3.0)
    long = engine.submit_recording(recording_of_array("long", noise(90.0)), options)
    n_short = 0
    while not long.state.ended:
        if engine.status().queued < 3:
            n_short += 1
            engine.submit_recording(recording_of_array("short", short), options)
        engine.step()
    assert 3 < n_short < 20
    engine.close()


@pytest.mark.parametrize(("low", "high"), [(-1, 3), (np.int8(-128), np.uint8(200))])
def test_a_higher_priority_goes_first(low: Any, high: Any) -> None:
    engine, backend = engine_of()
    engine.scheduler = Scheduler(backend, MemoryBound.of(backend, None, 1))
    jobs = {name: engine.submit(noise(65.0, seed), priority=priority, **BABBLE)
            for seed, (name, priority) in enumerate([("low", low), ("usual", 0), ("high", high)])}  # fmt: skip
    assert finished_in_order(engine, jobs) == ["high", "usual", "low"]


def test_a_deadline_ends_a_job_and_no_other() -> None:
    engine, backend = engine_of()
    now = [0.0]
    engine.scheduler = Scheduler(backend, clock=lambda: now[0])
    late, other = (engine.submit(noise(95.0, seed), deadline_s=10 + 90 * seed, **BABBLE) for seed in range(2))
    while late.progress.done_s == 0:
        engine.step()
    now[0] = 10.0
    engine.run()
    with pytest.raises(DeadlineError, match=r"of 95\.0 s"):
        late.result()
    assert (late.state, other.result()) == (JobState.FAILED, alone(95.0, 1))
    assert backend.n_open == 0
    wrong: Any
    for wrong in (0, "5", True, [1]):
        with pytest.raises(OptionError, match="deadline_s must be a number above 0"):
            engine.submit(noise(1.0), deadline_s=wrong)


@pytest.mark.parametrize("wrong", ["high", None, [1], True, math.nan])
def test_a_priority_that_is_no_number_is_refused_and_harms_no_other_job(wrong: Any) -> None:
    engine, _ = engine_of()
    other = engine.submit(noise(95.0, 1), **BABBLE)
    with pytest.raises(OptionError, match="priority must be a number"):
        engine.submit(noise(5.0), priority=wrong)
    assert other.result() == alone(95.0, 1)


# Memory.


def test_windows_and_rows_keep_within_max_memory() -> None:
    backend = QuickBackend(BABBLING, window_bytes=1000, row_bytes=100)
    engine, _ = engine_of(backend, max_memory=4900)  # 1,000 and three rows each: two windows fit, not three
    jobs = [engine.submit(noise(65.0, seed), **BABBLE) for seed in range(5)]
    engine.run()
    assert [job.result() for job in jobs] == [alone(65.0, seed) for seed in range(5)]
    assert 1300 < backend.most_bytes <= 4900 - 1200  # what an interactive job may take stays free


@pytest.mark.parametrize(("max_memory", "most_aligned"), [(372_000, 1), (2_000_000, 2)])
def test_the_answers_of_alignments_keep_within_max_memory(max_memory: int, most_aligned: int) -> None:
    recite = reciting(TOKENIZER, [" One."])
    backend = QuickBackend(recite, window_bytes=50_000, row_bytes=5_000)  # an alignment of 4 tokens: 131,664
    engine, _ = engine_of(backend, max_memory=max_memory)
    keywords: dict[str, Any] = {"language": "en", "temperature": 0.0, "sample_len": 8, **WORDS}
    # interactive: all of the memory is for them
    jobs = [engine.submit(noise(65.0, seed), interactive=True, **keywords) for seed in range(5)]
    engine.run()
    expected = engine_of(QuickBackend(recite))[0]
    assert [job.result() for job in jobs] == [expected.transcribe(noise(65.0, seed), **keywords) for seed in range(5)]
    assert backend.most_windows >= 2
    assert backend.most_bytes <= max_memory
    assert backend.most_aligned == most_aligned


def test_a_text_that_is_resumed_is_aligned_however_long_it_is() -> None:
    known: list[JobEvent] = []
    engine, _ = engine_of()
    keywords: dict[str, Any] = {"temperature": 0.0, **WORDS}
    engine.submit(noise(25.0, 3), on_event=known.append, sample_len=60, **keywords).result()
    guess, window = known[:2]
    assert isinstance(guess, LanguageDetected)
    assert isinstance(window, WindowDone)
    enough = 65_000 + alignment_bytes(tiny_spec(), CHECKPOINT.alignment_heads, 2)
    backend = QuickBackend(BABBLING, window_bytes=50_000, row_bytes=5_000)
    engine, _ = engine_of(backend, max_memory=enough)
    answers: list[Answer] = [guess.guess, replace(window.window.result, timings=None)]
    job = engine.submit(noise(25.0, 3), resume=answers, sample_len=2, **keywords)
    assert job.result().windows[0].result.timings == window.window.result.timings
    assert backend.most_bytes > enough


def test_memory_for_less_than_a_window_is_refused() -> None:
    backend = QuickBackend(BABBLING, window_bytes=1_000_000, row_bytes=100_000)
    with pytest.raises(OptionError, match=r"max_memory is 1\.1 MB, and a window with 2 rows takes 1\.2 MB"):
        engine_of(backend, max_memory=1_100_000)
    engine, _ = engine_of(backend, max_memory=1_300_000)
    assert engine.transcribe(noise(5.0), **BABBLE) == alone(5.0, 0)
    with pytest.raises(
        OptionError, match=r"with 6 rows takes .* MB; raise it, or search with fewer beams and samples$"
    ):
        engine.submit(noise(5.0), beam_size=5, temperature=0.0)
    with pytest.raises(OptionError, match=r"with 1 row and the times of its words takes .* MB; raise it$"):
        engine.align(noise(5.0), "Hello.", language="en")
    with pytest.raises(OptionError, match=r"with 2 rows and the times of its words takes 5\.7 MB"):
        engine.submit(noise(5.0), word_timestamps=True, temperature=0.0)


# Events, and going on where a run broke.


def answers_of(events: list[JobEvent]) -> list[Answer]:
    return [event.guess if isinstance(event, LanguageDetected) else event.window.result for event in events]


def test_events_tell_of_language_and_windows_in_order() -> None:
    engine, _ = engine_of()
    events: list[JobEvent] = []
    result = engine.submit(noise(95.0), on_event=events.append, **BABBLE).result()
    assert isinstance(events[0], LanguageDetected)
    assert events[0].guess == result.language_guess
    windows = [event for event in events if isinstance(event, WindowDone)]
    assert tuple(event.window for event in windows) == result.windows
    assert tuple(segment for event in windows for segment in event.segments) == result.segments
    assert not any(event.resumed for event in events)


@random_cases(10, 100)
@given(st.integers(0, 6), st.booleans())
def test_a_broken_run_goes_on_with_the_same_transcript(n_known: int, detects: bool) -> None:
    keywords = {**BABBLE, "language": None if detects else "en"}
    engine, backend = engine_of()
    first: list[JobEvent] = []
    whole = engine.submit(noise(95.0), on_event=first.append, **keywords).result()
    n_encoded = backend.n_encoded
    events: list[JobEvent] = []
    known = answers_of(first)[:n_known]
    job = engine.submit(noise(95.0), on_event=events.append, resume=known, **keywords)
    assert tuple(job) == whole.segments
    assert job.result() == whole
    assert [event.resumed for event in events] == [place < len(known) for place in range(len(first))]
    assert answers_of(events) == answers_of(first)
    assert backend.n_encoded - n_encoded <= n_encoded
    assert (backend.n_encoded - n_encoded == 0) == (len(known) == len(first))
    assert backend.n_open == 0


@random_cases(5, 50)
@given(st.integers(0, 8), st.sampled_from(["sequential", "chunked"]))
def test_a_broken_run_with_words_goes_on_with_the_same_transcript(n_known: int, mode: str) -> None:
    keywords = {**BABBLE, **WORDS, "mode": mode}
    engine, backend = engine_of()
    first: list[JobEvent] = []
    whole = engine.submit(noise(70.0), on_event=first.append, **keywords).result()
    assert any(segment.words for segment in whole.segments)
    n_encoded, n_steps = backend.n_encoded, backend.n_steps
    known = answers_of(first)[:n_known]
    events: list[JobEvent] = []
    assert engine.submit(noise(70.0), on_event=events.append, resume=known, **keywords).result() == whole
    assert answers_of(events) == answers_of(first)
    assert (backend.n_encoded - n_encoded == 0) == (len(known) == len(first))
    assert (backend.n_steps - n_steps == 0) == (len(known) == len(first))
    assert backend.n_open == 0


def test_a_last_window_without_its_words_is_aligned_anew_and_one_before_it_refused() -> None:
    engine, backend = engine_of()
    events: list[JobEvent] = []
    whole = engine.submit(noise(70.0), on_event=events.append, **BABBLE, **WORDS).result()
    results = [answer for answer in answers_of(events) if isinstance(answer, WindowResult)]
    place = next(i for i, result in enumerate(results) if result.timings)
    known: list[Answer] = [answer for answer in answers_of(events) if isinstance(answer, LanguageGuess)]
    known += [*results[:place], replace(results[place], timings=None)]
    assert engine.submit(noise(70.0), resume=known, **BABBLE, **WORDS).result() == whole
    with pytest.raises(OptionError, match="another recording or options"):
        engine.submit(noise(70.0), resume=[*known, results[-1]], **BABBLE, **WORDS)
    assert backend.n_open == 0


@pytest.mark.parametrize("keywords", [{"language": "en"}, {"clip_timestamps": "0,1"}])
def test_answers_to_other_questions_are_refused(keywords: dict[str, Any]) -> None:
    engine, _ = engine_of()
    events: list[JobEvent] = []
    engine.submit(noise(95.0), on_event=events.append, **BABBLE).result()
    with pytest.raises(OptionError, match="another recording or options"):
        engine.submit(noise(95.0), resume=answers_of(events), **{**BABBLE, **keywords})
    assert engine.status().submitted == 1


def test_an_event_sink_that_fails_fails_its_job_alone() -> None:
    engine, backend = engine_of()

    def full(_: JobEvent) -> None:
        raise OSError("the disk is full")

    bad, good = engine.submit(noise(65.0, 0), on_event=full, **BABBLE), engine.submit(noise(65.0, 1), **BABBLE)
    with pytest.raises(OSError, match="the disk is full"):
        bad.result()
    assert good.result() == alone(65.0, 1)
    assert backend.n_open == 0


# Cancelling.


@pytest.fixture
def files_before() -> Iterator[None]:
    """Nothing that a test opens may stay open."""
    gc.collect()
    before = len(list_open_files())
    yield
    gc.collect()
    assert len(list_open_files()) <= before


def list_open_files() -> list[str]:
    folder = Path("/proc/self/fd")
    return [one.name for one in folder.iterdir()] if folder.exists() else []


@pytest.mark.usefixtures("files_before")
@pytest.mark.random
def test_many_cancels_at_random_moments_leave_nothing_open() -> None:
    engine, backend = engine_of()
    random = np.random.default_rng(7)
    n_threads = threading.active_count()
    keeper = engine.submit(noise(65.0, 3), **BABBLE)
    recordings = [noise(duration_s, seed) for seed, duration_s in enumerate((2.0, 5.0, 31.0))]
    expected = [alone(duration_s, seed) for seed, duration_s in enumerate((2.0, 5.0, 31.0))]
    jobs: list[Job] = []
    n_jobs = cases(150, 1000)
    for number in range(n_jobs):
        jobs.append(engine.submit(recordings[number % 3], **BABBLE))
        if number % 7 == 0:
            engine.start()
        jobs[random.integers(max(0, number - 20), number + 1)].cancel()
        if random.random() < 0.3:
            engine.step()
    for number, job in enumerate(jobs):
        job.cancel()
        try:
            assert job.result() == expected[number % 3]  # it was quicker
        except CancelledError:
            assert job.state is JobState.CANCELLED
    assert sum(job.state is JobState.CANCELLED for job in jobs) > n_jobs / 2
    assert keeper.result() == alone(65.0, 3)
    engine.close()
    assert backend.n_open == 0
    assert engine.scheduler.all_jobs == []
    assert threading.active_count() <= n_threads
