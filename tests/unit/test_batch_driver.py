"""Whole batches with workers in this process: any process may end at any point, and the next command completes it."""

from __future__ import annotations

import errno
import json
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from stapes.batch import chunk as chunk_module
from stapes.batch import lease as lease_module
from stapes.batch.driver import BatchRequest, run_batch
from stapes.batch.engines import local
from stapes.batch.lease import Lease
from stapes.batch.ledger import Entry, read_entries
from stapes.batch.place import Place
from stapes.batch.plan import Plan, Spool
from stapes.batch.progress import Counts, Event
from stapes.batch.rows import DONE, Chunk, ChunkResult, Work
from stapes.batch.settings import read_settings
from stapes.batch.worker import transcribe_rows
from stapes.errors import OptionError, OutputError, StapesError
from tests.cluster.engines import SleepingEngine
from tests.cluster.recordings import check_batch, write_batch, write_wav
from tests.random_cases import cases

LOAD = f"{__name__}:load"
real_run = local.run


class Killed(BaseException):
    """A process has ended without a word."""


class Death:
    """Ends the worker or the driver at one operation on the output folder: all that it does later fails, too."""

    def __init__(self) -> None:
        self.left = 0  # operations until then; 0: never
        self.error: type[BaseException] = Killed
        self.in_worker = False
        self.dead: set[bool] = set()  # in_worker
        self.n_operations = 0

    def operation(self, call: Callable[[], Any]) -> Any:
        if threading.current_thread().name == "stapes lease":
            return call()
        worker = self.in_worker
        if worker in self.dead:
            raise Killed
        self.n_operations += 1
        self.left -= 1
        if self.left == 0:
            self._end(worker)
        result = call()
        if self.left == 1:  # after it: its process does not know that it was done
            self.left = 0
            self._end(worker)
        return result

    def _end(self, worker: bool) -> None:
        if self.error is Killed:
            self.dead.add(worker)
        raise self.error


death = Death()
acts: dict[str, Callable[[], None]] = {}


class Engine(SleepingEngine):
    def submit(self, audio: Any, **keywords: Any) -> Any:
        acts.get(Path(audio).name, lambda: None)()
        return super().submit(audio, **keywords)


def load(work: Work) -> Engine:
    return Engine()


def work_here(work: Work, chunks: Iterator[Chunk], **_: Any) -> Iterator[ChunkResult]:
    """Take two chunks at a time, and run them in a worker in this process until it survives."""
    taken: list[Chunk] = []
    for one in chunks:
        taken.append(one)
        if len(taken) == 2:
            yield run_here(work, taken.pop(0))
    for one in taken:
        yield run_here(work, one)


def run_here(work: Work, chunk: Chunk) -> ChunkResult:
    for _ in range(100):
        death.in_worker = True
        try:
            return next(transcribe_rows(work, [chunk]))
        except Killed:
            death.dead.discard(True)
        finally:
            death.in_worker = False
    raise AssertionError(f"{chunk.name} does not end")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(local, "run", work_here)
    monkeypatch.setattr(chunk_module, "_PAUSE_S", 0.0)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    death.__init__()  # type: ignore[misc]
    acts.clear()
    for name in ("read", "write", "delete", "names"):
        real = getattr(Place, name)

        def wrapped(self: Place, *arguments: Any, real: Any = real) -> Any:
            return death.operation(lambda: real(self, *arguments))

        monkeypatch.setattr(Place, name, wrapped)
    yield
    assert not [one for one in threading.enumerate() if one.name == "stapes lease"]


def run(folder: Path, manifest: Path, tell: Callable[[Event], None] = lambda _: None, **values: Any) -> Counts:
    values = {"chunk_rows": 3, "load": LOAD, "out": str(folder / "out"), **values}
    return run_batch(BatchRequest(manifest=str(manifest), **values), tell)


def entries_of(folder: Path) -> dict[str, Entry]:
    files = sorted((folder / "out" / "ledger").glob("*.parquet"))
    return {one.id: one for path in files for one in read_entries(path.read_bytes(), "")}


def texts_of(folder: Path) -> dict[str, str]:
    return {path.stem: json.loads(path.read_text())["text"] for path in (folder / "out/transcripts").rglob("*.json")}


def part_ids(folder: Path) -> list[str]:
    files = (folder / "out" / "transcripts").glob("*.parquet")
    return sorted(one for path in files for one in parquet.read_table(path).column("id").to_pylist())


def write_rows(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def kill() -> None:
    death.dead.add(True)
    raise Killed


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("formats", [("json",), ("parquet",)], ids=lambda one: one[0])
@pytest.mark.parametrize("killing", [None, 4])
def test_a_batch_is_completed_after_a_death_at_any_operation(
    tmp_path: Path, formats: tuple[str, ...], killing: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One or two deaths: fewer than a row has tries. So no row fails, but the one that ends its worker thrice."""
    monkeypatch.setattr(lease_module, "seems_alive", lambda _: False)
    monkeypatch.setattr(chunk_module, "_SAVE_S", 0.0)
    manifest, bad = write_batch(tmp_path / "in", 8, every=8)
    if killing is not None:
        acts[f"{killing}.wav"] = kill
        bad.add(f"row {killing}")
    run(tmp_path / "whole", manifest, formats=formats)
    n_operations = death.n_operations
    assert n_operations > 30
    for case in range(cases(8, 2000)):
        chance, folder = random.Random(case), tmp_path / str(case)
        for _ in range(1 if killing else 2):
            death.left = chance.randint(1, n_operations + 1)
            try:
                run(folder, manifest, formats=formats)
            except Killed:
                death.dead.clear()
                Lease._held.clear()  # of the process that has ended
        death.left = 0
        counts = run(folder, manifest, formats=formats)
        assert (counts.rows, counts.done, counts.failed) == (8, 8 - len(bad), len(bad)), case
        if formats == ("json",):
            check_batch(folder / "out", 8, bad, killing)
        else:
            assert part_ids(folder) == sorted({f"row {number}" for number in range(8)} - bad)
            assert not list((folder / "out/ledger/attempts").iterdir())


def test_interruptions_at_any_operation_count_as_no_tries(tmp_path: Path) -> None:
    manifest, bad = write_batch(tmp_path / "in", 9, every=9)
    acts["4.wav"] = kill
    death.error = KeyboardInterrupt
    n_stopped = 0
    for case in range(cases(3, 500)):
        chance, folder = random.Random(case), tmp_path / str(case)
        for _ in range(9):  # more often than there are tries
            death.left = chance.randint(8, 45)
            try:
                run(folder, manifest)
            except KeyboardInterrupt:
                n_stopped += 1
            else:
                break
        death.left = 0
        assert run(folder, manifest).done == 7
        check_batch(folder / "out", 9, bad | {"row 4"}, killing=4)
    assert n_stopped >= 6


def test_a_store_has_the_files_of_a_disk(tmp_path: Path) -> None:
    manifest, bad = write_batch(tmp_path / "in", 12, every=6)
    run(tmp_path, manifest)
    out = f"memory://{uuid.uuid4().hex}"
    assert run(tmp_path, manifest, out=out).done == 12 - len(bad)
    place, disk = Place(out), Place(str(tmp_path / "out"))
    for folder in ("", "ledger", "ledger/attempts", *(f"transcripts/{number:02x}" for number in range(256))):
        assert place.names(folder) == disk.names(folder)
        for name in place.names(folder) if folder else ():
            assert place.read(f"{folder}/{name}") == disk.read(f"{folder}/{name}")


def test_rows_that_leave_a_manifest_stay_as_they_are_and_may_come_back(tmp_path: Path) -> None:
    manifest, _ = write_batch(tmp_path / "in", 9, every=0)
    lines = manifest.read_text().splitlines(keepends=True)
    acts["4.wav"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, manifest)
    acts.clear()
    manifest.write_text("".join(lines[:2]))
    counts = run(tmp_path, manifest)
    assert (counts.rows, counts.done) == (2, 2)
    assert len(entries_of(tmp_path)) == 9
    manifest.write_text("".join(lines))
    assert run(tmp_path, manifest).done == 9
    check_batch(tmp_path / "out", 9, set())


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if "/gone" in self.path:
            self.send_error(404, f"not {self.path}")
        elif "/busy" in self.path:
            self.send_error(503, f"not now {self.path}")
        else:
            data = b"not a recording of " + self.path.encode() if "/bad" in self.path else wav
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    do_HEAD = do_GET  # noqa: N815 (the name that http.server calls)

    def log_message(self, *_: Any) -> None:
        pass


wav = b""


def test_queries_of_addresses_are_nowhere_in_the_output_folder(tmp_path: Path) -> None:
    global wav  # noqa: PLW0603 (for the server)
    write_wav(tmp_path / "one.wav", 0.5)
    wav = (tmp_path / "one.wav").read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{server.server_port}"
    query = "?X-Amz-Credential=SECRETUSER%2F2&X-Amz-Signature=SECRETSIGN"
    rows = [{"path": f"http://{host}/{name}.wav{query}"} for name in ("good", "gone", "busy", "bad")]
    rows += [
        {"id": f"http://{host}/named.wav{query}", "path": f"http://SECRETNAME:SECRETWORD@{host}/other.wav{query}"},
        {"id": "gone", "path": f"http://SECRETNAME:SECRETWORD@127.0.0.1:1/gone.wav{query}"},
        {"path": rows[0]["path"], "language": "de"},
    ]
    told: list[Event] = []
    try:
        counts = run(tmp_path, write_rows(tmp_path / "m.jsonl", *rows), told.append, formats=("json", "srt"))
    finally:
        server.shutdown()
        server.server_close()
    assert (counts.done, counts.failed, counts.refused) == (2, 4, 1)
    seen = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for entry in entries_of(tmp_path).values():  # which are compressed in the files
        seen[Path(entry.id)] = repr(entry).encode()
    seen[Path("told")] = repr(told).encode()
    for path, data in seen.items():
        assert b"SECRET" not in data, path
        assert "SECRET" not in path.name


@pytest.mark.parametrize(
    "values",
    [{"host": "elsewhere"}, {"pid": os.getppid()}, {"processes": "those of another container"}],
    ids=lambda one: next(iter(one)),
)
@pytest.mark.parametrize(("age_s", "ended", "is_refused"), [(5, False, True), (70, False, False), (5, True, False)])
def test_a_lease_is_refused_while_its_command_seems_alive(
    tmp_path: Path, values: dict[str, Any], age_s: float, ended: bool, is_refused: bool
) -> None:
    place = Place(str(tmp_path))
    lease = Lease(place)
    lease.take()
    lease.release()
    holder = json.loads(place.read("run.json") or b"")
    assert holder["ended"]
    place.write("run.json", json.dumps({**holder, **values, "at": time.time() - age_s, "ended": ended}).encode())
    other = Lease(place)
    if is_refused:
        with pytest.raises(OutputError, match="works on this batch"):
            other.take()
    else:
        other.take()
        other.release()


def test_most_tries_of_one_is_one_try(tmp_path: Path) -> None:
    manifest, _ = write_batch(tmp_path / "in", 3, every=0)
    acts["1.wav"] = kill
    counts = run(tmp_path, manifest, most_tries=1, chunk_rows=1)
    assert (counts.done, counts.reasons) == (2, {"LostWorker": 1})
    assert entries_of(tmp_path)["row 1"].tries == 1


# Faults


@pytest.mark.parametrize("is_killed", [False, True], ids=["interrupted", "killed"])
@pytest.mark.parametrize("formats", [("json",), ("parquet",)], ids=lambda one: one[0])
def test_a_row_that_changes_after_an_interruption_has_no_other_recordings_transcript(
    tmp_path: Path, is_killed: bool, formats: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row x was done, and this is in the attempts alone. Afterwards it names another recording."""
    monkeypatch.setattr(chunk_module, "_SAVE_S", -1.0)
    monkeypatch.setattr(chunk_module, "_SAVE_SHARE", 0)
    monkeypatch.setattr(lease_module, "seems_alive", lambda _: False)
    for number, name in enumerate("xyz", 1):
        write_wav(tmp_path / f"{name}.wav", float(number))
    rows = [{"id": name, "path": str(tmp_path / f"{name}.wav")} for name in "xz"]  # in the order of their keys
    manifest = write_rows(tmp_path / "m.jsonl", *rows)

    def stop() -> None:
        if is_killed:
            death.dead.update((True, False))
        raise KeyboardInterrupt

    acts["z.wav"] = stop
    with pytest.raises(KeyboardInterrupt if not is_killed else Killed):
        run(tmp_path, manifest, concurrency=1, formats=formats)
    death.dead.clear()
    Lease._held.clear()
    acts.clear()
    write_rows(manifest, {"id": "x", "path": str(tmp_path / "y.wav")}, rows[1])
    try:
        run(tmp_path, manifest, formats=formats)
    except OptionError:
        return  # that it was transcribed before is an answer, too
    entry = entries_of(tmp_path)["x"]
    assert (entry.state, entry.uri, entry.duration_s) == (DONE, str(tmp_path / "y.wav"), 2.0)


def test_a_row_that_failed_and_changes_after_an_interruption_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row x has failed, and this is in the attempts alone. Afterwards its path is corrected."""
    monkeypatch.setattr(chunk_module, "_SAVE_S", -1.0)
    monkeypatch.setattr(chunk_module, "_SAVE_SHARE", 0)
    for name in "yz":
        write_wav(tmp_path / f"{name}.wav", 1.0)
    rows = [{"id": "x", "path": str(tmp_path / "none.wav")}, {"id": "z", "path": str(tmp_path / "z.wav")}]
    manifest = write_rows(tmp_path / "m.jsonl", *rows)
    acts["z.wav"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, manifest, concurrency=1)
    acts.clear()
    write_rows(manifest, {"id": "x", "path": str(tmp_path / "y.wav")}, rows[1])
    assert run(tmp_path, manifest).failed == 0


def test_a_removed_shard_s_rows_are_not_doubled_in_other_chunks(tmp_path: Path) -> None:
    manifest, _ = write_batch(tmp_path / "in", 7, every=0)
    run(tmp_path, manifest, formats=("parquet",), chunk_rows=3)
    (tmp_path / "out/ledger/all.parquet").unlink()
    assert run(tmp_path, manifest, formats=("parquet",), chunk_rows=2).done_now == 7
    parts = sorted((tmp_path / "out/transcripts").glob("*.parquet"))
    assert [len(parquet.read_table(part)) for part in parts] == [2, 2, 2, 1]


def test_a_folder_with_a_run_file_of_another_program_is_refused(tmp_path: Path) -> None:
    manifest, _ = write_batch(tmp_path / "in", 2, every=0)
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text('{"lr": 0.1}')
    (out / "weights.bin").write_bytes(b"mine")
    with pytest.raises(OutputError, match="is not empty"):
        run(tmp_path, manifest)
    assert (out / "run.json").read_text() == '{"lr": 0.1}'


def test_a_driver_that_has_lost_its_lease_writes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker sees it seconds before its lease does."""
    manifest, _ = write_batch(tmp_path / "in", 9, every=0)
    place = Place(str(tmp_path / "out"))
    written: list[str] = []
    acts["8.wav"] = lambda: None
    real_write, real_delete = Place.write, Place.delete
    is_lost: list[bool] = []

    def write(self: Place, name: str, data: bytes) -> None:
        written.extend([name] if is_lost and name.startswith("ledger/") else [])
        real_write(self, name, data)

    def delete(self: Place, names: list[str]) -> None:
        names = list(names)
        written.extend(names if is_lost else [])
        real_delete(self, names)

    real_take = Plan.take

    def take(self: Any, result: ChunkResult) -> Any:
        found = real_take(self, result)
        if not is_lost:
            values = json.loads((tmp_path / "out" / "run.json").read_text())
            place.write("run.json", json.dumps({**values, "run": "another"}).encode())
            is_lost.append(True)
        return found

    monkeypatch.setattr(Plan, "take", take)
    monkeypatch.setattr(Place, "write", write)
    monkeypatch.setattr(Place, "delete", delete)
    with pytest.raises(OutputError, match="taken this batch over"):
        run(tmp_path, manifest)
    assert written == []


def test_a_lease_that_could_not_be_taken_does_not_block_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file was written, and then the answer was lost, or Ctrl-C came."""
    place, real = Place(str(tmp_path)), Place.write

    def write(self: Place, name: str, data: bytes) -> None:
        real(self, name, data)
        raise OutputError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Place, "write", write)
        with pytest.raises(OutputError, match="no answer"):
            Lease(place).take()
    again = Lease(place)
    again.take()
    again.release()


@pytest.mark.parametrize("ahead_s", [8.0, 30.0])
def test_a_lease_of_a_machine_whose_clock_is_ahead_is_respected(tmp_path: Path, ahead_s: float) -> None:
    place = Place(str(tmp_path))
    values = {"run": "another", "host": "elsewhere", "pid": 7, "at": time.time() + ahead_s, "ended": False}
    place.write("run.json", json.dumps(values).encode())
    lease = Lease(place)
    try:
        with pytest.raises(OutputError, match="works on this batch"):
            lease.take()
    finally:
        lease.release()


def test_a_full_disk_counts_as_no_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files find room, a shard and a transcript do not. Rows are not to blame for it."""
    manifest, _ = write_batch(tmp_path / "in", 4, every=0)
    real = Place.write
    written: list[str] = []

    def full(self: Place, name: str, data: bytes) -> None:
        is_small = name.startswith(("ledger/attempts", "run.json", ".tmp")) or "batch.json" in name
        if not is_small and len(written) >= 4:
            raise OutputError(f"{name}: no space left on the disk")
        written.extend([] if is_small else [name])
        real(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Place, "write", full)
        for _ in range(4):
            with pytest.raises(OutputError, match="no space left"):
                run(tmp_path, manifest)
    assert run(tmp_path, manifest).failed == 0


def test_a_full_disk_for_the_manifests_copy_is_an_error_of_stapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, _ = write_batch(tmp_path / "in", 2, every=0)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Spool, "_write", full)
    with pytest.raises(StapesError):
        run(tmp_path, manifest)


def test_a_worker_that_always_ends_outside_of_a_try_ends_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that has too little memory for a chunk's Parquet file: no try is counted there."""
    starts = count()

    class Pool:
        def submit(self, *_: Any) -> None:
            raise BrokenProcessPool

        def shutdown(self, **_: Any) -> None:
            pass

        _processes: Any = None

    def start(self: Any) -> None:
        assert next(starts) < 1000, "the worker is started again without end"
        self._pool = Pool()

    monkeypatch.setattr(local._Worker, "_start", start)
    work = Work(
        out="/none", run="", model="m", model_sha256="", precision="float32", device="cpu", threads=1
    )  # fmt: skip
    with pytest.raises(StapesError):
        list(real_run(work, iter([Chunk("all-00000", ())])))


@pytest.mark.parametrize("change", [{"formats": None}, {"formats": [1]}, {"digits": "x"}, {"options": 1}])
def test_settings_of_wrong_types_are_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    manifest, _ = write_batch(tmp_path / "in", 1, every=0)
    run(tmp_path, manifest)
    place = Place(str(tmp_path / "out"))
    values = json.loads(place.read("batch.json") or b"")
    place.write("batch.json", json.dumps({**values, **change}).encode())
    with pytest.raises(OutputError, match="damaged"):
        read_settings(place)
