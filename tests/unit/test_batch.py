"""Batches: what the ledger has after any end, and what a manifest may not ask for. Workers are in this process."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stapes.batch import chunk as chunk_module
from stapes.batch.driver import BatchRequest, run_batch
from stapes.batch.engines import local
from stapes.batch.lease import Lease
from stapes.batch.ledger import Entry, read_entries, write_entries
from stapes.batch.place import Place
from stapes.batch.plan import Plan, Spool, digits_for
from stapes.batch.progress import Began, Counts, Event, Refused, RowFailed
from stapes.batch.rows import DONE, FAILED, WAITING, Chunk, ChunkResult, Row, RowResult, Work
from stapes.batch.sources import row_key
from stapes.batch.status import read_status
from stapes.batch.transcription import Transcription
from stapes.batch.worker import transcribe_rows
from stapes.errors import AudioError, CheckpointError, FetchError, OptionError, OutputError
from tests.cluster.engines import SleepingEngine
from tests.cluster.recordings import check_batch, write_batch, write_wav

LOAD = f"{__name__}:load"


class Killed(BaseException):
    """A worker or the driver has ended without a word."""


#: what the engine of these tests does for recordings by their names, beside saying how long they are
acts: dict[str, Callable[[], None]] = {}


class Engine(SleepingEngine):
    def submit(self, audio: Any, **keywords: Any) -> Any:
        act = acts.get(Path(audio).name)
        if act is not None:
            act()
        return super().submit(audio, **keywords)


def load(work: Work) -> Engine:
    return Engine()


def work_here(work: Work, chunks: Iterator[Chunk], **_: Any) -> Iterator[ChunkResult]:
    """Carry chunks to a worker in this process, and again where it is killed."""
    for one in chunks:
        while True:
            try:
                yield next(transcribe_rows(work, [one]))
                break
            except Killed:
                continue


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "run", work_here)
    monkeypatch.setattr(chunk_module, "_PAUSE_S", 0.0)
    acts.clear()


def run(folder: Path, manifest: Path, tell: Callable[[Event], None] = lambda _: None, **values: Any) -> Counts:
    values = {"chunk_rows": 4, "load": LOAD, **values}
    return run_batch(BatchRequest(manifest=str(manifest), out=str(folder / "out"), **values), tell)


def entries_of(folder: Path) -> dict[str, Entry]:
    files = sorted((folder / "out" / "ledger").glob("*.parquet"))
    return {one.id: one for path in files for one in read_entries(path.read_bytes(), "")}


def dying(chance: random.Random, likely: float, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Have any read, write or removal in an output folder be the last of its process; return how many were."""
    deaths = {"n": 0, "most": 12}
    for name in ("read", "write", "delete"):
        real = getattr(Place, name)

        def wrapped(self: Place, what: Any, *rest: Any, real: Any = real) -> Any:
            dies = deaths["n"] < deaths["most"] and chance.random() < likely
            deaths["n"] += dies
            if dies and chance.random() < 0.5:
                raise Killed
            result = real(self, what, *rest)
            if dies:
                raise Killed
            return result

        monkeypatch.setattr(Place, name, wrapped)
    return deaths


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("formats", [("json",), ("parquet",)], ids=lambda one: one[0])
def test_every_row_ends_once_wherever_processes_die(
    tmp_path: Path, seed: int, formats: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deaths are of the driver or of a worker; tries are not at stake here."""
    manifest, bad = write_batch(tmp_path / "in", 40, every=9)
    with monkeypatch.context() as patch:
        deaths = dying(random.Random(seed), 0.15, patch)
        ended = False
        while not ended:
            try:
                run(tmp_path, manifest, most_tries=100, formats=formats)
                ended = True
            except Killed:
                continue
    assert deaths["n"] > 3
    counts = run(tmp_path, manifest, most_tries=100, formats=formats)
    assert (counts.done, counts.failed) == (40 - len(bad), len(bad))
    if formats == ("json",):
        check_batch(tmp_path / "out", 40, bad)
        return
    from pyarrow import parquet  # noqa: PLC0415 (slow to import)

    parts = [parquet.read_table(path) for path in (tmp_path / "out" / "transcripts").glob("*.parquet")]
    ids = [one for part in parts for one in part.column("id").to_pylist()]
    assert len(ids) == len(set(ids)) == 40 - len(bad)
    assert parts[0].column("text")[0].as_py().endswith("seconds.")


def kill() -> None:
    raise Killed


def test_a_recording_that_ends_its_worker_fails_after_three_tries_and_no_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, _ = write_batch(tmp_path / "in", 12, every=0)
    tries: list[str] = []
    real = Transcription.run

    def run_or_die(self: Any, rows: list[Row]) -> Any:
        tries.extend(row.id for row in rows)
        if any(row.id == "row 5" for row in rows):
            raise Killed
        return real(self, rows)

    monkeypatch.setattr(Transcription, "run", run_or_die)
    told: list[Event] = []
    counts = run(tmp_path, manifest, told.append, chunk_rows=12)
    assert (counts.done, counts.failed, counts.reasons) == (11, 1, {"LostWorker": 1})
    failed = entries_of(tmp_path)["row 5"]
    assert (failed.state, failed.tries, failed.reason) == (FAILED, 3, "LostWorker")
    assert tries.count("row 5") == 3
    assert [one.id for one in told if isinstance(one, RowFailed)] == ["row 5"]
    monkeypatch.setattr(Transcription, "run", real)
    assert run(tmp_path, manifest).failed == 1, "a failed row stays failed"
    assert run(tmp_path, manifest, retry_failed=True).done == 12


def test_what_could_not_be_fetched_is_tried_again_and_what_is_no_recording_is_not(tmp_path: Path) -> None:
    manifest, _ = write_batch(tmp_path / "in", 6, every=0)
    calls: list[str] = []

    def fail(name: str, error: Exception, times: int) -> Callable[[], None]:
        def act() -> None:
            calls.append(name)
            if calls.count(name) <= times:
                raise error

        return act

    acts.update(
        {
            "1.wav": fail("1", FetchError("not now"), 2),
            "2.wav": fail("2", FetchError("never"), 9),
            "3.wav": fail("3", AudioError("is a picture"), 9),
            "4.wav": fail("4", RuntimeError("a fault"), 1),
        }
    )
    counts = run(tmp_path, manifest)
    assert (counts.done, dict(counts.reasons)) == (4, {"FetchError": 1, "AudioError": 1})
    assert [calls.count(name) for name in "1234"] == [3, 3, 1, 2]
    assert entries_of(tmp_path)["row 2"].error == "never"


def test_interrupted_tries_do_not_count(tmp_path: Path) -> None:
    manifest, _ = write_batch(tmp_path / "in", 8, every=0)

    def interrupt() -> None:
        raise KeyboardInterrupt

    acts["3.wav"] = interrupt
    for _ in range(5):  # more often than there are tries
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, manifest)
    acts.clear()
    assert run(tmp_path, manifest).done == 8
    assert {one.tries for one in entries_of(tmp_path).values()} == {1}


def test_a_full_disk_stops_the_batch_and_the_next_run_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, _ = write_batch(tmp_path / "in", 8, every=0)
    real = Place.write

    def full(self: Place, name: str, data: bytes) -> None:
        if name.endswith(".json") and name.startswith("transcripts"):
            raise OutputError(f"{name}: the disk is full")
        real(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Place, "write", full)
        for _ in range(4):
            with pytest.raises(OutputError, match="disk is full"):
                run(tmp_path, manifest)
    assert run(tmp_path, manifest).done == 8


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_manifest_may_grow_and_its_failed_rows_may_change(tmp_path: Path) -> None:
    for name in "abc":
        write_wav(tmp_path / f"{name}.wav", 0.5)
    good, wrong = {"id": "a", "path": str(tmp_path / "a.wav")}, {"id": "b", "path": str(tmp_path / "none.wav")}
    manifest = lines(tmp_path / "m.jsonl", good, wrong)
    assert run(tmp_path, manifest).done == 1
    manifest = lines(manifest, good, {**wrong, "path": str(tmp_path / "b.wav")}, {"path": str(tmp_path / "c.wav")})
    counts = run(tmp_path, manifest)
    assert (counts.done, counts.done_now, counts.failed) == (3, 2, 0)
    lines(manifest, {**good, "language": "de"})
    with pytest.raises(OptionError, match="line 1: 'a' was transcribed before"):
        run(tmp_path, manifest)


def test_duplicates_are_transcribed_once_and_collisions_are_refused_by_line(tmp_path: Path) -> None:
    for name in "ab":
        write_wav(tmp_path / f"{name}.wav", 0.5)
    a, b = str(tmp_path / "a.wav"), str(tmp_path / "b.wav")
    rows = ({"id": "x", "path": a}, {"id": "x", "path": a}, {"id": "x", "path": b}, {"id": "X", "path": b})
    manifest = lines(tmp_path / "m.jsonl", *rows, {"id": "y", "path": b, "task": "sing"}, {"id": "z"})
    told: list[Event] = []
    counts = run(tmp_path, manifest, told.append)
    assert (counts.rows, counts.done, counts.duplicates, counts.refused) == (1, 1, 1, 4)
    assert sorted(one.line for one in told if isinstance(one, Refused)) == [3, 4, 5, 6]
    refused = [json.loads(line) for line in (tmp_path / "out" / "refused.jsonl").read_text().splitlines()]
    assert {one["line"]: one["reason"] for one in refused}[4].startswith("its files would be those of line 1")


def test_another_run_may_not_change_what_a_batch_was_begun_with(tmp_path: Path) -> None:
    manifest, _ = write_batch(tmp_path / "in", 2, every=0)
    run(tmp_path, manifest)
    for change in ({"formats": ("srt",)}, {"options": {"language": "de"}}, {"precision": "int8"}):
        with pytest.raises(OptionError, match="this batch was begun with"):
            run(tmp_path, manifest, **change)
    settings = json.loads((tmp_path / "out" / "batch.json").read_text())
    (tmp_path / "out" / "batch.json").write_text(json.dumps({**settings, "model_sha256": "1" * 64}))
    write_wav(tmp_path / "new.wav", 0.5)
    manifest.write_text(json.dumps({"path": str(tmp_path / "new.wav")}))
    with pytest.raises(CheckpointError, match="not those that the batch was begun with"):
        run(tmp_path, manifest)


def test_two_commands_do_not_work_on_one_batch(tmp_path: Path) -> None:
    manifest, _ = write_batch(tmp_path / "in", 8, every=0)
    (tmp_path / "out").mkdir()
    place = Place(str(tmp_path / "out"))
    first = Lease(place)
    first.take()
    with pytest.raises(OutputError, match="works on this batch"):
        run(tmp_path, manifest)
    first.release()

    def take_over(event: Event) -> None:
        if isinstance(event, Began):
            values = json.loads((tmp_path / "out" / "run.json").read_text())
            place.write("run.json", json.dumps({**values, "run": "another"}).encode())

    with pytest.raises(OutputError, match="taken this batch over"):
        run(tmp_path, manifest, take_over)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["run"] == "another"


def test_a_folder_of_something_else_and_damaged_files_are_refused(tmp_path: Path) -> None:
    manifest, _ = write_batch(tmp_path / "in", 2, every=0)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        run(tmp_path, manifest)
    (out / "mine.txt").unlink()
    run(tmp_path, manifest)
    for name in ("ledger/all.parquet", "batch.json"):
        whole = (out / name).read_bytes()
        for damaged in (whole[:-9], b"", b"[]", write_entries([])[:40]):
            (out / name).write_bytes(damaged)
            with pytest.raises(OutputError, match="damaged"):
                run(tmp_path, manifest)
        (out / name).write_bytes(whole)
    assert run(tmp_path, manifest).done == 2


def test_a_plan_holds_few_shards_and_forgets_what_is_done(tmp_path: Path) -> None:
    n_rows, place = 20_000, Place(str(tmp_path))
    place.prepare()
    spool = Spool()
    for number in range(n_rows):
        spool.add(number, Row(row_key(str(number)), str(number), f"s3://bucket/{number}.wav"))
    digits = digits_for(n_rows)
    assert [digits_for(count) for count in (1, 8192, 8193, 1_000_000, 100_000_000)] == [0, 0, 1, 2, 4]
    plan = Plan(place, spool, digits=digits, chunk_rows=32)
    seen: set[str] = set()
    most = 0
    for one in plan.chunks():
        keys = {row.key for row in one.rows}
        assert not keys & seen
        seen |= keys
        assert len(one.rows) <= 32
        plan.take(ChunkResult(one.name, tuple(RowResult(key=key, state=DONE, tries=1) for key in keys)))
        most = max(most, len(plan._shards))
    assert len(seen) == n_rows
    assert most == 1
    again = Plan(place, spool, digits=digits, chunk_rows=32)
    assert list(again.chunks()) == []
    assert again.before == {DONE: n_rows}
    for path in (tmp_path / "ledger").glob("*.parquet"):
        keys_in_order = [one.key for one in read_entries(path.read_bytes(), "")]
        assert keys_in_order == sorted(keys_in_order)
        assert all(key.startswith(path.stem) for key in keys_in_order)
    spool.close()


def test_the_status_counts_rows_that_are_in_work(tmp_path: Path) -> None:
    manifest, bad = write_batch(tmp_path / "in", 30, every=7)
    place = Place(str(tmp_path / "out"))
    seen: list[Any] = []

    def look(event: Event) -> None:
        if isinstance(event, RowFailed):
            seen.append(read_status(place))

    with pytest.raises(OutputError, match="no batch was begun here"):
        read_status(place)
    run(tmp_path, manifest, look)
    assert seen[0].seen_s is not None
    assert seen[0].rows[DONE] > 0
    assert seen[0].rows[WAITING] > 0
    status = read_status(place)
    assert status.rows[DONE] == 30 - len(bad)
    assert status.rows[FAILED] == status.reasons["AudioError"] == len(bad)
    assert (status.driver, status.seen_s) == (None, None)
