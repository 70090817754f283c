"""Engines and processes: a forked child works or says why not; errors for pickling say what to do."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest

from stapes.audio.load import load_audio
from stapes.audio.pcm import recording_of_array
from stapes.backends.base import FloatArray, StepAnswers, StepBatch, WindowId
from stapes.backends.native.library import is_built
from stapes.backends.numpy.backend import NumpyBackend
from stapes.checkpoint.base import Checkpoint
from stapes.engine.engine import Engine
from stapes.engine.scheduled_job import JobState
from stapes.engine.thread import _stop_all
from stapes.errors import CancelledError, NotCopiedError, StapesError
from stapes.options import TranscribeOptions
from stapes.runtime.processes import ForkGate
from stapes.testing import ScriptedBackend, noise, random_checkpoint, reciting, scripted_engine, tiny_spec, tone
from stapes.tokenizer import Tokenizer

TALK = noise(32.0, seed=1)
SHORT: dict[str, Any] = {"sample_len": 8, "temperature": 0.0, "language": "en"}

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
calm = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def in_child(call: Callable[[], Any], *, within_s: float = 30) -> Any:
    """Call in a forked child, and give what it returns; what it raises, it returns as its type's name and its text."""
    context = multiprocessing.get_context("fork")
    theirs, ours = context.Pipe(duplex=False)

    def run() -> None:
        try:
            ours.send(call())
        except Exception as error:
            ours.send((type(error).__name__, str(error)))

    child = context.Process(target=run, daemon=True)
    child.start()
    try:
        assert theirs.poll(within_s), "the child hangs"
        return theirs.recv()
    finally:
        child.kill()
        child.join()


class HeldBackend(ScriptedBackend):
    """Stops inside a step, or inside an encoding, of the process that it was made in, until it is let go."""

    def __init__(self, held: str) -> None:
        spec = tiny_spec()
        tokenizer = Tokenizer(spec, random_checkpoint().vocabulary)
        super().__init__(spec, reciting(tokenizer, [" One.", " Two.", " Three."]))
        self._held = held
        self._process = os.getpid()
        self.inside, self.go_on = threading.Event(), threading.Event()

    def _stop(self, where: str) -> None:
        if where == self._held and os.getpid() == self._process:
            self.inside.set()
            assert self.go_on.wait(60)

    def encode(self, mel: FloatArray) -> list[WindowId]:
        self._stop("encode")
        return super().encode(mel)

    def step(self, batch: StepBatch) -> StepAnswers:
        self._stop("step")
        return super().step(batch)


def engine_on(backend: Any) -> Engine:
    checkpoint = Checkpoint(
        name="held", path=None, format="memory", storage="float32", spec=backend.spec, tensors={},
        vocabulary=random_checkpoint().vocabulary,
    )  # fmt: skip
    return Engine(checkpoint, backend)


@pytest.fixture(params=["encode", "step"])
def held(request: pytest.FixtureRequest) -> Iterator[tuple[Engine, Any]]:
    """An engine whose thread is in the middle of a job, and that job."""
    backend = HeldBackend(request.param)
    engine = engine_on(backend)
    job = engine.submit(TALK)
    engine.start()
    assert backend.inside.wait(30)
    yield engine, job
    backend.go_on.set()
    assert [segment.text for segment in job.result().segments] == [" One.", " Two."]
    engine.close()


@forks
@calm
@pytest.mark.parametrize(
    "call",
    [
        lambda engine: engine.transcribe(tone(2.0)).text,
        lambda engine: {"en": " One."}[engine.detect_language(tone(2.0)).language],
        lambda engine: "".join(one.text for one in engine.stream(tone(2.0))),
        lambda engine: asyncio.run(engine.atranscribe(tone(2.0))).text,
        lambda engine: [job := engine.submit(tone(2.0)), engine.run(), job.result().text][-1],
    ],
    ids=["transcribe", "detect_language", "stream", "atranscribe", "run"],
)
def test_a_child_that_is_forked_inside_a_step_works(held: tuple[Engine, Any], call: Callable[[Engine], str]) -> None:
    assert in_child(partial(call, held[0])) == " One."


@forks
@calm
@pytest.mark.parametrize(
    "ask",
    [
        lambda job: job.result(),
        list,
        lambda job: asyncio.run(job.aresult()),
        lambda job: job.when_ended(lambda one: one.raise_error()),
        lambda job: job.raise_error(),
    ],
    ids=["result", "iterate", "aresult", "when_ended", "raise_error"],
)
def test_a_job_stays_with_the_process_that_submitted_it(held: tuple[Engine, Any], ask: Callable[[Any], Any]) -> None:
    engine, job = held
    kind, text = in_child(lambda: ask(job))
    assert kind == CancelledError.__name__
    assert "stays with the process that submitted it" in text
    assert "submit the recording again here" in text
    assert in_child(lambda: (job.state, engine.status().queued + engine.status().running)) == (JobState.CANCELLED, 0)
    assert job.state is not JobState.CANCELLED
    in_child(job.cancel)  # and what the child does there, it does to its copy
    in_child(engine.close)


@forks
@calm
def test_what_was_done_before_the_fork_is_still_there() -> None:
    engine = scripted_engine()
    job = engine.submit(tone(2.0))
    expected = job.result()
    with job._job._changed:  # as another thread may hold it
        assert in_child(job.result) == expected
        assert in_child(lambda: [one.text for one in job]) == [" Hello."]


@forks
@calm
@pytest.mark.parametrize("lock", ["_turn", "_entrance", "_gate"])
def test_a_lock_that_is_held_at_the_fork_holds_no_child_up(lock: str) -> None:
    engine = scripted_engine()
    owner = engine._thread if lock == "_gate" else engine._lock
    with getattr(owner, lock):
        assert in_child(lambda: engine.transcribe(tone(2.0)).text) == " Hello."


@forks
@calm
def test_a_child_ends_though_the_parents_engine_was_beginning_its_thread() -> None:
    engine = scripted_engine()
    engine.transcribe(tone(2.0))
    kept = engine._thread  # as the parent's threads keep it, whose frames stay in the child's memory
    with kept._gate:
        assert in_child(_stop_all) is None


@forks
@calm
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="cached properties have no locks here")
def test_a_cached_property_that_is_computed_at_the_fork_holds_no_child_up() -> None:
    engine = scripted_engine()
    (first, *_) = [one for one in vars(Tokenizer).values() if isinstance(one, cached_property)]
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with first.lock:  # type: ignore[attr-defined]
            inside.set()
            go_on.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(30)
    try:
        assert in_child(lambda: engine.transcribe(tone(2.0)).text) == " Hello."
    finally:
        go_on.set()
        thread.join()


@forks
@calm
def test_a_sink_may_fork() -> None:
    engine = scripted_engine()
    texts: list[Any] = []
    engine.transcribe(
        tone(2.0), on_progress=lambda _: texts.append(in_child(lambda: engine.transcribe(tone(2.0)).text))
    )
    assert texts
    assert set(texts) == {" Hello."}


@forks
@calm
def test_a_closed_engine_says_so_in_a_child_too() -> None:
    engine = scripted_engine()
    engine.close()
    assert in_child(lambda: engine.transcribe(tone(2.0))) == ("BackendError", "this engine is closed; load another")


@contextmanager
def at_work(engine: Engine) -> Iterator[None]:
    """Have another thread transcribe without end."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            engine.transcribe(TALK, **SHORT)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@forks
@calm
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_children_of_any_moment_give_what_the_parent_gives(backend: str, threads: int) -> None:
    if backend == "native" and not is_built():
        pytest.skip("the native library was not built")
    checkpoint = random_checkpoint()
    if backend == "native":
        from stapes.backends.native.backend import NativeBackend  # noqa: PLC0415 (where it is built)

        engine = Engine(checkpoint, NativeBackend(checkpoint, threads=threads))
    else:
        engine = Engine(checkpoint, NumpyBackend(checkpoint, threads=threads))
    expected = engine.transcribe(TALK, **SHORT)
    assert in_child(lambda: engine.transcribe(TALK, **SHORT)) == expected  # no thread works
    with at_work(engine):
        for number in range(4):
            time.sleep(0.013 * number)
            assert in_child(lambda: engine.transcribe(TALK, **SHORT)) == expected
        grandchild = in_child(lambda: in_child(lambda: engine.transcribe(TALK, **SHORT)) == expected)
        assert grandchild == ("AssertionError", "daemonic processes are not allowed to have children")
    assert engine.transcribe(TALK, **SHORT) == expected
    engine.close()


@forks
@calm
def test_a_fork_waits_for_what_it_must_not_cut_in_two() -> None:
    """OpenBLAS's locks stay locked in a child that is forked in the middle of a product."""
    gate, inside, done = ForkGate(), threading.Event(), []

    def work() -> None:
        with gate.held():
            inside.set()
            time.sleep(0.2)
            done.append(1)

    def look() -> list[int]:
        with gate.held():
            return list(done)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(30)
    assert in_child(look) == [1]
    with gate.held():  # as a signal's handler finds it
        assert in_child(look) == [1]
    thread.join()
    checkpoint = random_checkpoint()
    backend = NumpyBackend(checkpoint, threads=1)
    seen: list[bool] = []

    def limit(**_: Any) -> Any:
        seen.append(backend._gate._lock._is_owned())  # type: ignore[attr-defined]
        return nullcontext()

    backend._blas.limit = limit
    backend.encode(np.zeros((1, backend.spec.n_mels, 3000), np.float32))
    assert seen == [True]


@forks
@calm
def test_workers_of_a_server_share_what_was_loaded_before_they_were_forked() -> None:
    engine = Engine(checkpoint := random_checkpoint(), NumpyBackend(checkpoint, threads=2))
    expected = engine.transcribe(TALK, **SHORT)
    global transcribe  # noqa: PLW0603 (what a pool calls has a name of its module)
    transcribe = partial(engine.transcribe, TALK, **SHORT)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.starmap_async(call_transcribe, [()] * 4).get(60) == [expected] * 4
    assert engine.transcribe(TALK, **SHORT) == expected


transcribe: Callable[[], Any] = print


def call_transcribe() -> Any:
    return transcribe()


# Pickling.


def of_a_long_file() -> Any:
    return load_audio(wav_bytes(), memory_limit_bytes=1000)


def wav_bytes() -> bytes:
    samples = (tone(1.0) * 32767).astype("<i2").tobytes()
    head = b"RIFF" + (36 + len(samples)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    head += (1).to_bytes(2, "little") * 2 + (16000).to_bytes(4, "little") + (32000).to_bytes(4, "little")
    return (
        head
        + (2).to_bytes(2, "little")
        + (16).to_bytes(2, "little")
        + b"data"
        + len(samples).to_bytes(4, "little")
        + samples
    )


BOUND: dict[str, tuple[Callable[[], Any], str]] = {
    "engine": (scripted_engine, "Call stapes.load() in the other process"),
    "method": (lambda: scripted_engine().transcribe, "Call stapes.load() in the other process"),
    "job": (lambda: scripted_engine().submit(tone(1.0)), "Send its result() instead"),
    "stream": (lambda: scripted_engine().stream(tone(1.0)), "Send its segments instead"),
    "recording": (lambda: recording_of_array("talk", tone(1.0)), "Send the path, the bytes or the array"),
    "recording in a file": (of_a_long_file, "Send the path, the bytes or the array"),
}
WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": pickle.dumps,
    "old pickle": lambda one: pickle.dumps(one, 0),
    "in a list": lambda one: pickle.dumps([one]),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "multiprocessing": ForkingPickler.dumps,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BOUND)
def test_what_belongs_to_a_process_is_not_pickled_and_says_what_to_do_instead(name: str, way: str) -> None:
    make, instead = BOUND[name]
    if name == "method" and way == "copy":
        return  # copies the method, which still has its engine
    with pytest.raises(NotCopiedError) as caught:
        WAYS[way](made := make())
    assert "cannot be pickled or copied" in str(caught.value)
    assert instead in str(caught.value)
    assert isinstance(caught.value, (StapesError, TypeError))
    del made


def test_a_process_that_is_spawned_with_an_engine_says_so_before_it_begins() -> None:
    context = multiprocessing.get_context("spawn")
    with pytest.raises(NotCopiedError, match="an engine cannot be pickled"):
        context.Process(target=print, args=(scripted_engine(),)).start()


def test_values_are_pickled_and_copied() -> None:
    engine = scripted_engine()
    transcript = engine.transcribe(tone(2.0), language=np.str_("en"))
    for value in (
        transcript,
        transcript.segments[0],
        engine.info,
        engine.capabilities,
        engine.status(),
        TranscribeOptions.from_keywords({"beam_size": np.int64(5)}),
        engine.detect_language(tone(2.0)),
    ):
        assert pickle.loads(pickle.dumps(value)) == value
        assert copy.deepcopy(value) == value
