"""One chunk in one worker: tries are counted before they begin, and it may be run again after any end."""

from __future__ import annotations

import io
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow import parquet

from stapes.batch import chunk as chunk_module
from stapes.batch.chunk import ChunkRun, _hash_of, output_name
from stapes.batch.ledger import RUNNING, Attempt, attempts_name, part_name, read_attempts, write_attempts
from stapes.batch.place import Place
from stapes.batch.rows import DONE, FAILED, WAITING, Chunk, ChunkResult, Row, Work
from stapes.batch.sources import row_key
from stapes.batch.transcription import options_of
from stapes.batch.worker import open_engine
from stapes.errors import AudioError, CheckpointError, FetchError, OptionError, OutputError
from tests.cluster.engines import SleepingJob
from tests.random_cases import cases

RUN = json.dumps({"run": "mine"}).encode()
TAKEN_OVER = json.dumps({"run": "another"}).encode()


class Killed(BaseException):
    """The worker has ended without a word."""


class Engine:
    """Ends every recording at once. `acts` has what happens for some recordings before."""

    info = SimpleNamespace(
        device="cpu", isa="none", backend="none", threads=1, window_bytes=1, row_bytes=1, precision="float32"
    )

    def __init__(self) -> None:
        self.acts: dict[str, Callable[[], None]] = {}
        self.calls: list[str] = []
        self.n_open = self.most_open = 0

    def submit(self, audio: Any, **_: Any) -> SleepingJob:
        name = Path(audio).stem
        self.calls.append(name)
        self.n_open += 1
        self.most_open = max(self.most_open, self.n_open)
        try:
            self.acts.get(name, lambda: None)()
        finally:
            self.n_open -= 1
        job = SleepingJob(1.0, f"text of {name}")
        job.end()
        return job

    def model_sha256(self) -> str:
        return "0" * 64

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(8):
        (folder / f"{number}.wav").touch()
    return folder


class World:
    """A chunk of rows, an output folder, and workers that run the chunk."""

    def __init__(self, recordings: Path, monkeypatch: pytest.MonkeyPatch, n_rows: int = 8, **keywords: Any) -> None:
        self.place = Place(f"memory://{uuid.uuid4().hex}")
        self.place.write("run.json", RUN)
        self.engine = Engine()
        rows = [Row(row_key(str(number)), str(number), str(recordings / f"{number}.wav")) for number in range(n_rows)]
        self.chunk = Chunk("all-00000", tuple(rows))
        self.work = Work(
            out=self.place.uri, run="mine", model="base", model_sha256="", precision="float32", device="cpu",
            threads=1, **keywords,
        )  # fmt: skip
        self.n_workers = 0
        monkeypatch.setattr(chunk_module, "_PAUSE_S", 0.0)

    def run_once(self, chunk: Chunk | None = None) -> ChunkResult:
        self.n_workers += 1
        assert self.n_workers < 100, "the chunk does not end"
        return ChunkRun(self.work, self.place, self.engine, chunk or self.chunk).run()

    def run(self) -> dict[str, tuple[str, int]]:
        """Run the chunk until a worker comes to its end; return states and tries by id."""
        while True:
            try:
                result = self.run_once()
            except Killed:
                continue
            assert len(result.rows) == len(self.chunk.rows)
            found = {one.key: (one.state, one.tries) for one in result.rows}
            return {row.id: found[row.key] for row in self.chunk.rows}

    def attempts(self) -> dict[str, Attempt]:
        data = self.place.read(attempts_name(self.chunk.name)) or write_attempts([])
        found = {one.key: one for one in read_attempts(data, "")}
        return {row.id: found[row.key] for row in self.chunk.rows if row.key in found}

    def set_attempts(self, **changed: Attempt) -> None:
        self.place.write(attempts_name(self.chunk.name), write_attempts(changed.values()))

    def texts(self) -> dict[str, str]:
        names = {row.id: output_name(row, "json") for row in self.chunk.rows}
        data = {id_: self.place.read(name) for id_, name in names.items()}
        return {id_: json.loads(one)["text"] for id_, one in data.items() if one is not None}

    def part(self) -> list[str]:
        data = self.place.read(part_name(self.chunk.name))
        return [] if data is None else parquet.read_table(io.BytesIO(data)).column("id").to_pylist()

    def attempt(self, number: int, **values: Any) -> Attempt:
        row = self.chunk.rows[number]
        return Attempt(key=row.key, of=_hash_of(row), **{"state": WAITING, "tries": 1, **values})


@pytest.fixture
def world(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    return lambda **keywords: World(recordings, monkeypatch, **keywords)


def failing(error: BaseException, times: int = 99) -> Callable[[], None]:
    left = iter(range(times))

    def act() -> None:
        if next(left, None) is not None:
            raise error

    return act


Make = Callable[..., World]


def test_a_try_is_counted_before_it_begins(world: Make) -> None:
    one = world(n_rows=3)
    seen: list[list[tuple[str, int]]] = []
    one.engine.acts["1"] = lambda: seen.append([(row.state, row.tries) for row in one.attempts().values()])
    assert one.run() == {"0": (DONE, 1), "1": (DONE, 1), "2": (DONE, 1)}
    assert seen == [[(RUNNING, 1)] * 3]
    assert one.texts() == {number: f"text of {number}" for number in "012"}
    assert one.run() == {"0": (DONE, 1), "1": (DONE, 1), "2": (DONE, 1)}
    assert sorted(one.engine.calls) == ["0", "1", "2"], "what is done is left out"


@pytest.mark.parametrize(
    ("error", "times", "expected"),
    [
        (AudioError("is a picture"), 9, (FAILED, 1)),
        (OptionError("cannot be"), 9, (FAILED, 1)),
        (FetchError("not now"), 2, (DONE, 3)),
        (FetchError("never"), 3, (FAILED, 3)),
        (MemoryError(), 1, (DONE, 2)),
        (RuntimeError("a fault"), 9, (FAILED, 3)),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else None,
)
def test_what_another_try_may_mend_is_tried_again(
    world: Make, error: Exception, times: int, expected: tuple[str, int]
) -> None:
    one = world(n_rows=3)
    one.engine.acts["1"] = failing(error, times)
    assert one.run() == {"0": (DONE, 1), "1": expected, "2": (DONE, 1)}
    attempt = one.attempts()["1"]
    assert (attempt.reason, attempt.error) == (
        (type(error).__name__, str(error)) if expected[0] == FAILED else (None, None)
    )


@pytest.mark.parametrize("killers", ["0", "7", "34", "0246"])
def test_recordings_that_end_workers_fail_after_three_tries_and_no_other_row_does(world: Make, killers: str) -> None:
    one = world()
    for name in killers:
        one.engine.acts[name] = failing(Killed())
    found = one.run()
    assert {name for name, (state, _) in found.items() if state == FAILED} == set(killers)
    assert all(found[name] == (FAILED, 3) and one.attempts()[name].reason == "LostWorker" for name in killers)
    assert set(one.texts()) == set("01234567") - set(killers)
    calls = Counter(one.engine.calls)
    assert all(calls[name] <= 3 for name in calls), calls


def test_rows_with_a_try_that_has_not_ended_are_tried_alone_after_the_others(world: Make) -> None:
    one = world(n_rows=5)
    one.set_attempts(a=one.attempt(0, tries=2), b=one.attempt(1, state=RUNNING), c=one.attempt(3))
    running: list[list[str]] = []
    for name in "013":
        one.engine.acts[name] = lambda: running.append(
            [id_ for id_, attempt in one.attempts().items() if attempt.state == RUNNING]
        )
    one.run()
    assert running == [["1"], ["3"], ["0"]]
    assert one.engine.calls == ["2", "4", "1", "3", "0"]


def test_attempts_of_rows_that_are_in_the_chunk_no_more_are_kept(world: Make) -> None:
    one = world(n_rows=3)
    one.set_attempts(a=one.attempt(0, state=DONE, transcript="{}"), b=one.attempt(1, state=FAILED, tries=3))
    one.run_once(Chunk(one.chunk.name, one.chunk.rows[2:]))
    assert {name: (a.state, a.tries, a.transcript) for name, a in one.attempts().items()} == {
        "0": (DONE, 1, "{}"), "1": (FAILED, 3, None), "2": (DONE, 1, None)
    }  # fmt: skip


def test_an_output_folder_that_cannot_be_written_stops_the_chunk(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one, real = world(), Place.write

    def full(self: Place, name: str, data: bytes) -> None:
        if name.startswith("transcripts/"):
            raise OutputError("the disk is full")
        real(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Place, "write", full)
        with pytest.raises(OutputError, match="the disk is full"):
            one.run_once()
    assert {state for state, _ in one.run().values()} == {DONE}


def test_errors_are_short_lines_without_credentials(world: Make) -> None:
    one = world(n_rows=1)
    one.engine.acts["0"] = failing(AudioError("no\n\n  https://me:pw@h/a.wav?X-Amz-Signature=SECRET " + "x" * 999))
    one.run()
    error = one.attempts()["0"].error or ""
    assert error.startswith("no https://h/a.wav xxx")
    assert len(error) == 500


@pytest.mark.parametrize("formats", [("json", "srt"), ("parquet",)], ids=lambda one: one[0])
def test_a_chunk_may_be_run_again_wherever_its_worker_ended(
    world: Make, formats: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers end at any read or write, before or after it; a row in work then has one try left."""
    monkeypatch.setattr(chunk_module, "_SAVE_S", 0.0)
    monkeypatch.setattr(chunk_module, "_SAVE_SHARE", 0.0)
    real = {name: getattr(Place, name) for name in ("read", "write")}
    left = [-1]

    def wrapped(name: str) -> Callable[..., Any]:
        def call(self: Place, *arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            result = real[name](self, *arguments)
            if left[0] == 1:
                left[0] = 0
                raise Killed
            return result

        return call

    for name in real:
        monkeypatch.setattr(Place, name, wrapped(name))
    for seed in range(cases(60, 3000)):
        chance = random.Random(seed)
        one = world(n_rows=5, formats=formats, concurrency=2)
        one.engine.acts["2"] = failing(AudioError("is a picture"))
        deaths = 0
        for _ in range(2):
            left[0] = chance.randint(1, 24)
            try:
                one.run_once()
            except Killed:
                deaths += 1
        left[0] = -1
        found = one.run()
        assert {name for name, (state, _) in found.items() if state == DONE} == set("0134"), (seed, found)
        assert all(1 <= tries <= 1 + deaths for _, tries in found.values()), (seed, found)
        assert (sorted(one.part()) if formats == ("parquet",) else sorted(one.texts())) == list("0134"), seed
        for row in one.chunk.rows if formats != ("parquet",) else ():
            assert (one.place.read(output_name(row, "srt")) is None) == (row.id == "2")


def test_a_part_keeps_what_earlier_runs_have_written(world: Make) -> None:
    one = world(n_rows=4, formats=("parquet",))
    one.engine.acts.update({"1": failing(AudioError("is a picture"), 1), "3": failing(AudioError("as well"))})
    one.run()
    assert sorted(one.part()) == ["0", "2"]
    one.place.delete([attempts_name(one.chunk.name)])
    one.run_once(Chunk(one.chunk.name, (one.chunk.rows[1], one.chunk.rows[3])))  # with --retry-failed
    assert sorted(one.part()) == ["0", "1", "2"]
    one.run()
    assert sorted(one.part()) == ["0", "1", "2"]


def test_a_worker_of_another_driver_stops(world: Make) -> None:
    one = world()
    one.place.write("run.json", TAKEN_OVER)
    with pytest.raises(OutputError, match="taken this batch over"):
        one.run_once()
    assert one.engine.calls == one.place.names("ledger/attempts") == []


# Faults


def test_a_part_has_no_row_that_failed(world: Make) -> None:
    """A worker has ended in the last try, after it kept the transcript and before it noted that the row is done."""
    one = world(n_rows=2, formats=("parquet",))
    transcript = json.dumps({"text": "text", "segments": []})
    one.set_attempts(a=one.attempt(0, state=RUNNING, tries=3, transcript=transcript))
    assert one.run() == {"0": (FAILED, 3), "1": (DONE, 1)}
    assert one.part() == ["1"]


def test_a_part_has_no_row_that_the_attempts_do_not_call_done(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker may end between the two: then the row may still fail, or be changed."""
    one, real = world(n_rows=2, formats=("parquet",)), Place.write
    seen: list[str] = []

    def look(self: Place, name: str, data: bytes) -> None:
        if name == part_name(one.chunk.name):
            seen.extend(attempt.state for attempt in one.attempts().values())
        real(self, name, data)

    monkeypatch.setattr(Place, "write", look)
    one.run()
    assert seen == [DONE, DONE]


def test_a_damaged_part_is_said(world: Make) -> None:
    one = world(n_rows=1, formats=("parquet",))
    one.place.write(part_name(one.chunk.name), b"PAR1 no such")
    with pytest.raises(OutputError):
        one.run_once()


def test_a_worker_stops_in_a_chunk_that_another_driver_has_taken_over(world: Make) -> None:
    """Its attempts would replace those of the worker that the other driver has given the chunk to."""
    one = world(n_rows=3)
    one.engine.acts["1"] = lambda: one.place.write("run.json", TAKEN_OVER)
    with pytest.raises(OutputError, match="taken this batch over"):
        one.run_once()


def test_a_folder_that_replaces_files_in_two_steps_stops_no_worker(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SMB and HDFS: while the driver renews its lease there is no run.json for a moment."""
    one, real = world(n_rows=1), Place.read
    missing = ["run.json"]

    def read(self: Place, name: str) -> bytes | None:
        if name in missing:
            missing.remove(name)
            return None
        return real(self, name)

    monkeypatch.setattr(Place, "read", read)
    assert one.run() == {"0": (DONE, 1)}


@pytest.mark.parametrize("data", [b"", b"{", b"[]"])
def test_a_damaged_lease_is_said(world: Make, data: bytes) -> None:
    one = world(n_rows=1)
    one.place.write("run.json", data)
    with pytest.raises(OutputError):
        one.run_once()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of the worker, which are not waited for."""
    found: list[float] = []
    monkeypatch.setattr(chunk_module, "time", SimpleNamespace(monotonic=time.monotonic, sleep=found.append))
    return found


def test_pauses_before_another_try_are_bounded(
    world: Make, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = world(n_rows=1, most_tries=14)
    monkeypatch.setattr(chunk_module, "_PAUSE_S", 0.25)
    one.engine.acts["0"] = failing(FetchError("not now"))
    assert one.run() == {"0": (FAILED, 14)}
    assert max(pauses) <= 60.0


def test_there_are_pauses_before_a_row_that_is_alone_is_tried_again(world: Make, pauses: list[float]) -> None:
    """Otherwise a server that is busy for a second ends the row."""
    one = world(n_rows=1)
    one.set_attempts(a=one.attempt(0, state=RUNNING, tries=1))
    one.engine.acts["0"] = failing(FetchError("not now"))
    assert one.run() == {"0": (FAILED, 3)}
    assert len(pauses) == 1


def test_a_worker_keeps_few_options_in_memory() -> None:
    """A million rows may have a million prompts."""
    assert options_of.cache_info().maxsize is not None


def test_what_refuses_weights_shows_no_credential(world: Make) -> None:
    work = replace(
        world().work, model="https://h/m.safetensors?X-Amz-Signature=SECRET", model_sha256="1" * 64,
        load="tests.cluster.engines:load",
    )  # fmt: skip
    with pytest.raises(CheckpointError) as error:
        open_engine(work)
    assert "SECRET" not in str(error.value)
