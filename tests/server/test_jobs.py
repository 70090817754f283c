"""Jobs: kept on the disk, gone on with after a restart, each event once; owners, idempotency, bounds."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.backends.base import FloatArray
from stapes.errors import OutputError
from stapes.server import pipeline
from stapes.server.errors import ApiError
from stapes.server.jobs import runner
from stapes.server.jobs.room import removed_for
from stapes.server.jobs.store import JobSize, JobStore, StoredJob
from stapes.server.keys import new_key
from stapes.testing import reciting, scripted_engine, small_vocabulary, tiny_spec, tone
from stapes.tokenizer import Tokenizer
from tests.audio_files import encoded, wav_bytes
from tests.random_cases import cases
from tests.server.running import HELLO, Running, bounds, running
from tests.server.test_defence import connect, held_server, until

SOUND = wav_bytes(tone(40.0) * 32_000)
TEXT = "Hello, world. How are you?"


@contextmanager
def job_server(folder: Path, **config: Any) -> Iterator[tuple[Running, httpx.Client]]:
    with running(state_dir=folder, **config) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        yield server, client


def post(client: httpx.Client, sound: bytes = SOUND, headers: dict[str, str] | None = None, **fields: str) -> Any:
    data = {"model": "base", **fields}
    return client.post("/v1/jobs", data=data, files={"file": ("talk.wav", sound)}, headers=headers or {})


def waited(client: httpx.Client, job: str) -> dict[str, Any]:
    for _ in range(10):
        found: dict[str, Any] = client.get(f"/v1/jobs/{job}", params={"wait": 10}).json()
        if found["state"] not in ("queued", "running"):
            return found
    raise AssertionError(found)


def events(client: httpx.Client, job: str, after: int = 0) -> list[tuple[int, dict[str, Any]]]:
    body = client.get(f"/v1/jobs/{job}/events", headers={"last-event-id": str(after)}).text
    blocks = [block.splitlines() for block in body.split("\n\n") if block.startswith("id: ")]
    return [(int(block[0][4:]), json.loads(block[1][6:])) for block in blocks]


def test_a_job_from_its_upload_to_its_result(tmp_path: Path) -> None:
    with job_server(tmp_path) as (_, client):
        made = post(client)
        assert made.status_code == 202
        job = made.json()["id"]
        found = waited(client, job)
        assert (found["state"], found["duration_s"], found["filename"]) == ("done", 40.0, "talk.wav")
        assert client.get(f"/v1/jobs/{job}/result").json()["text"] == TEXT
        assert client.get(f"/v1/jobs/{job}/result", params={"response_format": "srt"}).text.startswith(
            "1\n00:00:00,000"
        )
        noted = events(client, job)
        assert "".join(one["text"] for _, one in noted[:-1]).strip() == TEXT
        assert [number for number, _ in noted] == [1, 2, 3]
        assert noted[-1][1] == {"type": "job.done"}
        assert events(client, job, after=1) == noted[1:]
        assert [one["id"] for one in client.get("/v1/jobs").json()["data"]] == [job]
        assert not list((tmp_path / "uploads").iterdir())


def test_a_file_that_is_no_audio_fails_its_job_with_the_reason(tmp_path: Path) -> None:
    with job_server(tmp_path) as (_, client):
        job = post(client, b"no sound").json()["id"]
        found = waited(client, job)
        assert (found["state"], found["error"]["code"], found["error"]["param"]) == ("failed", "invalid_audio", "file")
        refused = client.get(f"/v1/jobs/{job}/result").json()["error"]
        assert refused["code"] == "job_not_done"
        assert refused["message"].startswith("The job failed: The file")
        assert [one["type"] for _, one in events(client, job)] == ["job.failed"]


def test_a_job_tells_of_damaged_audio_and_a_request_does_in_a_header(tmp_path: Path) -> None:
    sound = encoded("flac", duration_s=20.0)
    with job_server(tmp_path) as (server, client):
        found = waited(client, post(client, sound[: len(sound) // 2]).json()["id"])
        assert found["state"] == "done"
        assert any("cut short" in one for one in found["warnings"])
        path, file = f"{server.url}/v1/audio/transcriptions", {"file": ("a.flac", sound[: len(sound) // 2])}
        header = httpx.post(path, data={"model": "base"}, files=file).headers["x-stapes-warning"]
        assert found["warnings"][0] in header


def test_a_query_that_a_path_does_not_have_is_refused(tmp_path: Path) -> None:
    with job_server(tmp_path) as (_, client):
        job = post(client).json()["id"]
        for path in (f"/v1/jobs/{job}?wiat=60", f"/v1/jobs/{job}/result?format=vtt", "/v1/jobs?state=failed"):
            found = client.get(path)
            assert (found.status_code, found.json()["error"]["code"]) == (400, "unknown_parameter")


def test_one_idempotency_key_is_one_job(tmp_path: Path) -> None:
    with job_server(tmp_path) as (_, client):
        header = {"idempotency-key": "abc"}
        first, second = (post(client, headers=header) for _ in range(2))
        assert (first.status_code, second.status_code) == (202, 200)
        assert first.json()["id"] == second.json()["id"]
        other = post(client, headers=header, language="en")
        assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
        assert post(client, headers={"idempotency-key": "a b"}).status_code == 400


def test_a_job_is_its_owners_alone(tmp_path: Path) -> None:
    anna, ben = (new_key(tmp_path / "keys.txt", name, "") for name in ("anna", "ben"))
    with job_server(tmp_path / "state", key_file=tmp_path / "keys.txt") as (_, client):
        client.headers["authorization"] = f"Bearer {anna}"
        job = post(client).json()["id"]
        waited(client, job)
        client.headers["authorization"] = f"Bearer {ben}"
        paths = (f"/v1/jobs/{job}", f"/v1/jobs/{job}/events", f"/v1/jobs/{job}/result")
        assert {client.get(path).status_code for path in paths} == {404}
        assert client.post(f"/v1/jobs/{job}/cancel").status_code == 404
        assert client.get("/v1/jobs").json()["data"] == []


def test_jobs_are_cancelled_while_they_wait_and_while_they_run(tmp_path: Path) -> None:
    limits = bounds(max_running_jobs=1)
    with held_server(state_dir=tmp_path, bounds=limits) as (server, held), httpx.Client(base_url=server.url) as client:
        ids = [post(client).json()["id"] for _ in range(2)]
        while not held.n_steps:
            time.sleep(0.01)
        for job in reversed(ids):
            assert client.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"
        assert not list((tmp_path / "uploads").iterdir())
        held.go.set()


def test_there_is_a_bound_on_jobs_and_on_the_disk(tmp_path: Path) -> None:
    limits = bounds(max_jobs=1, max_running_jobs=1)
    with (
        held_server(state_dir=tmp_path / "a", bounds=limits) as (server, held),
        httpx.Client(base_url=server.url) as client,
    ):
        post(client)
        assert post(client).json()["error"]["code"] == "too_many_jobs"
        held.go.set()
    limits = bounds(max_state_bytes=len(SOUND) + 10_000)
    with job_server(tmp_path / "b", bounds=limits) as (_, client):
        first = post(client).json()["id"]
        waited(client, first)
        assert post(client, SOUND + bytes(20_000)).json()["error"]["code"] == "jobs_full"
        waited(client, post(client, SOUND + bytes(9_000)).json()["id"])
        assert client.get(f"/v1/jobs/{first}").status_code == 404  # the oldest result made room


def test_ended_jobs_are_kept_for_a_while(tmp_path: Path) -> None:
    with job_server(tmp_path, bounds=bounds(job_retention_s=1000.0)) as (_, client):
        job = post(client).json()["id"]
        ended = waited(client, job)["ended"]
    store = JobStore(tmp_path / "jobs.sqlite")
    assert store.ended_before(ended + 1.0) == [job]
    store.update(job, ended=ended - 2000.0)
    store.close()
    with job_server(tmp_path, bounds=bounds(job_retention_s=1000.0)) as (_, client):
        for _ in range(100):
            if client.get(f"/v1/jobs/{job}").status_code == 404:
                break
            time.sleep(0.02)
        assert client.get(f"/v1/jobs/{job}").status_code == 404
        assert not list((tmp_path / "results").iterdir())


def test_without_a_folder_there_are_no_jobs() -> None:
    with running() as server:
        found = httpx.get(f"{server.url}/v1/jobs")
        assert (found.status_code, found.json()["error"]["code"]) == (404, "jobs_off")


def test_a_stopped_server_goes_on_with_its_jobs(tmp_path: Path) -> None:
    with held_server(state_dir=tmp_path) as (server, held), httpx.Client(base_url=server.url) as client:
        job = post(client).json()["id"]
        while not held.n_steps:
            time.sleep(0.01)
        held.go.set()
        server.server.should_exit = True
    with job_server(tmp_path) as (_, client):
        assert waited(client, job)["state"] == "done"
        assert client.get(f"/v1/jobs/{job}/result").json()["text"] == TEXT


def test_windows_that_were_decoded_are_not_decoded_again(tmp_path: Path) -> None:
    """The second server's model would say something else."""
    go, sounds = threading.Event(), list[int]()
    recite = reciting(Tokenizer(tiny_spec(), small_vocabulary()), HELLO)

    def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
        if sound not in sounds:
            sounds.append(sound)
        if sound != sounds[0]:
            go.wait(60)
        return recite(sound, tokens)

    with job_server(tmp_path, load=lambda: scripted_engine(script)) as (server, client):
        job = post(client).json()["id"]
        while not client.get(f"/v1/jobs/{job}").json()["done_s"]:
            time.sleep(0.01)
        server.server.should_exit = True
        threading.Timer(0.5, go.set).start()
    with job_server(tmp_path, load=lambda: scripted_engine(" Something else.")) as (_, client):
        assert waited(client, job)["state"] == "done"
        assert client.get(f"/v1/jobs/{job}/result").json()["text"] == "Hello, world. Something else."
        assert [number for number, _ in events(client, job)][:2] == [1, 2]


def test_a_server_ends_while_clients_wait_for_its_jobs(tmp_path: Path) -> None:
    with held_server(state_dir=tmp_path) as (server, held), httpx.Client(base_url=server.url, timeout=30) as client:
        job = post(client).json()["id"]
        while not held.n_steps:
            time.sleep(0.01)
        with client.stream("GET", f"/v1/jobs/{job}/events") as stream:
            threading.Timer(0.2, setattr, (server.server, "should_exit", True)).start()
            threading.Timer(1.0, held.go.set).start()
            started = time.monotonic()
            assert [line for line in stream.iter_lines() if line.startswith("id:")] == []
            assert time.monotonic() - started < 10.0


PROGRAM = """
import asyncio, sys, time
from pathlib import Path
from stapes.server.config import ServerConfig
from stapes.server.serve import serve
from stapes.testing import reciting, scripted_engine, small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer
recite = reciting(Tokenizer(tiny_spec(), small_vocabulary()), [f" Number {n}." for n in range(20)])
def script(sound, tokens):
    time.sleep(0.004)
    return recite(sound, tokens)
asyncio.run(serve(
    ServerConfig(port=0, media_processes=1, state_dir=Path(sys.argv[1])), load=lambda *_: scripted_engine(script),
    on_ready=lambda server: print(server.address[1], flush=True),
))
"""


def started(folder: Path) -> tuple[subprocess.Popen[str], str]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "src")])}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    process.stdout.close()
    return process, f"http://127.0.0.1:{int(line)}"


@pytest.mark.skipif(sys.platform == "win32", reason="kills processes")
def test_a_killed_server_goes_on_and_doubles_no_event(tmp_path: Path) -> None:
    """Kill it at several moments of one job; every event comes once, and the text is whole."""
    n_kills = cases(2, 20)
    sound = wav_bytes(tone(300.0) * 32_000)
    seen: dict[int, dict[str, Any]] = {}
    process, url = started(tmp_path)
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            job = post(client, sound).json()["id"]
        for number in range(n_kills):
            time.sleep(0.3 + 0.1 * (number % 5))
            process.send_signal(signal.SIGKILL)
            process.wait()
            _forgive(tmp_path, job)
            process, url = started(tmp_path)
        with httpx.Client(base_url=url, timeout=60) as client:
            assert waited(client, job)["state"] == "done"
            for event_id, body in events(client, job):
                assert event_id not in seen
                seen[event_id] = body
            text = client.get(f"/v1/jobs/{job}/result").json()["text"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    *segments, last = (seen[one] for one in sorted(seen))
    assert last == {"type": "job.done"}
    assert "".join(one["text"] for one in segments).strip() == text
    assert [one["id"] for one in segments] == list(range(len(segments)))
    assert "Number 0." in text


def _forgive(folder: Path, job: str) -> None:
    """A job is given up after three crashes; this test makes more."""
    store = JobStore(folder / "jobs.sqlite")
    store.update(job, attempts=0)
    store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="kills processes")
def test_a_job_that_ends_the_server_three_times_is_given_up(tmp_path: Path) -> None:
    with job_server(tmp_path) as (_, client):
        job = post(client).json()["id"]
        waited(client, job)
    store = JobStore(tmp_path / "jobs.sqlite")
    store.update(job, state="running", ended=None, attempts=3)
    store.close()
    (tmp_path / "uploads" / job).write_bytes(SOUND)
    with job_server(tmp_path) as (_, client):
        found = waited(client, job)
        assert (found["state"], found["error"]["code"]) == ("failed", "crashed")


# The store.


def stored(number: int, **values: Any) -> StoredJob:
    return StoredJob(
        id=f"job_{number}", owner="anna", fields=(("model", "base"),), filename="a", sha256="0", size=1,
        fingerprint="f", created=float(number), **values,
    )  # fmt: skip


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "run", "end", "event", "remove", "open"]), st.integers(0, 4)), max_size=12
    )
)
def test_the_store_is_what_was_told_to_it(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("store") / "jobs.sqlite"
    store, model, noted = JobStore(path), dict[str, StoredJob](), dict[str, set[int]]()
    for what, number in steps:
        name = f"job_{number}"
        if what == "add" and name not in model:
            model[name], noted[name] = stored(number), set()
            store.add(model[name])
        elif what == "open":
            store.close()
            store = JobStore(path)
        elif name in model:
            if what == "remove":
                store.remove(name)
                del model[name], noted[name]
            elif what == "event":
                store.update(name, [(number, {"n": number})], done_s=2.0)
                noted[name].add(number)
            elif what != "add":
                store.update(name, state={"run": "running", "end": "done"}[what], ended=9.0 if what == "end" else None)
    assert {one.id for one in store.listed("anna", 100, 1e9)} == model.keys()
    assert {name: {number for number, _ in store.events(name, -1)} for name in model} == noted
    assert not store.listed("ben", 100, 1e9)
    store.close()


def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(OutputError):
        JobStore(path)
    assert path.read_bytes().startswith(b"not a database")


def test_a_damaged_file_is_named_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    store = JobStore(path)
    for number in range(200):
        store.add(stored(number))
    store.close()
    data = bytearray(path.read_bytes())
    data[8192:16384] = bytes(8192)
    path.write_bytes(data)
    with pytest.raises(OutputError, match=r"damaged|malformed"):
        JobStore(path)


def test_a_full_disk_keeps_nothing_half_and_the_store_goes_on_with_room(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite")
    store.add(stored(1, state="running"))
    ((pages,),) = store._connection.execute("PRAGMA page_count")
    store._connection.execute(f"PRAGMA max_page_count={pages}")

    def fill() -> None:
        for number in range(2, 2000):
            store.update("job_1", [(number, {"text": "x" * 1000})], done_s=float(number))

    with pytest.raises(sqlite3.OperationalError, match="full"):
        fill()
    kept = store.get("job_1")
    assert kept is not None
    assert len(store.events("job_1", 0)) == max(0.0, kept.done_s - 1)
    store._connection.execute("PRAGMA max_page_count=1000000")
    store.add(stored(2))
    store.close()


def test_a_full_disk_is_told_and_its_jobs_end_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_FIRST_PAUSE_S", 0.05)
    is_full = True

    def update(self: JobStore, *arguments: Any, **values: Any) -> None:
        if is_full and values.get("state") == "done":
            raise sqlite3.OperationalError("database or disk is full")
        plain_update(self, *arguments, **values)

    def add(self: JobStore, job: StoredJob) -> None:
        if is_full and job.filename == "refused.wav":
            raise sqlite3.OperationalError("database or disk is full")
        plain_add(self, job)

    plain_update, plain_add = JobStore.update, JobStore.add
    monkeypatch.setattr(JobStore, "update", update)
    monkeypatch.setattr(JobStore, "add", add)
    with job_server(tmp_path) as (_, client):
        refused = client.post("/v1/jobs", data={"model": "base"}, files={"file": ("refused.wav", SOUND)})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "jobs_unavailable")
        assert not list((tmp_path / "uploads").iterdir())
        job = post(client).json()["id"]
        time.sleep(0.5)
        assert client.get(f"/v1/jobs/{job}").json()["state"] == "running"
        is_full = False
        assert waited(client, job)["state"] == "done"
        assert client.get(f"/v1/jobs/{job}/result").json()["text"] == TEXT


def test_many_cancels_at_once_end_a_job_once_and_the_next_begins(tmp_path: Path) -> None:
    limits = bounds(max_running_jobs=1)
    with held_server(state_dir=tmp_path, bounds=limits) as (server, held):
        held.go.set()
        with httpx.Client(base_url=server.url, timeout=30) as client, ThreadPoolExecutor(8) as threads:
            for _ in range(cases(4, 300)):
                first, second = (post(client).json()["id"] for _ in range(2))
                found = [threads.submit(client.post, f"/v1/jobs/{first}/cancel") for _ in range(8)]
                states = {one.result().json()["state"] for one in found}
                assert len(states) == 1
                assert states <= {"cancelled", "done"}
                assert waited(client, second)["state"] == "done"
                assert [one["type"] for _, one in events(client, first)][-1:] == [f"job.{states.pop()}"]


def test_cancelling_what_waits_and_what_just_begins_never_fails_it(tmp_path: Path) -> None:
    with (
        job_server(tmp_path, bounds=bounds(max_running_jobs=1, max_jobs=999)) as (_, client),
        ThreadPoolExecutor(4) as threads,
    ):
        ids = [post(client).json()["id"] for _ in range(cases(8, 200))]
        found = list(threads.map(lambda job: client.post(f"/v1/jobs/{job}/cancel").json(), ids))
        assert {one["state"] for one in found} <= {"cancelled", "done"}
        assert {waited(client, job)["state"] for job in ids} <= {"cancelled", "done"}
        assert not list((tmp_path / "uploads").iterdir())


def test_a_retry_with_its_idempotency_key_passes_where_no_other_job_does(tmp_path: Path) -> None:
    with (
        held_server(state_dir=tmp_path, bounds=bounds(max_jobs=1)) as (server, held),
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        header = {"idempotency-key": "abc"}
        first = post(client, headers=header)
        assert (post(client, headers=header).status_code, post(client).status_code) == (200, 429)
        assert post(client, headers=header).json()["id"] == first.json()["id"]
        held.go.set()


def test_no_bound_is_passed_by_jobs_that_come_at_once(tmp_path: Path) -> None:
    with (
        held_server(state_dir=tmp_path, bounds=bounds(max_jobs=3)) as (server, held),
        httpx.Client(base_url=server.url, timeout=30) as client,
        ThreadPoolExecutor(16) as threads,
    ):
        codes = [one.result().status_code for one in [threads.submit(post, client) for _ in range(16)]]
        assert sorted(codes) == [202] * 3 + [429] * 13
        held.go.set()


def test_an_upload_that_cannot_fit_removes_nothing(tmp_path: Path) -> None:
    with job_server(tmp_path, bounds=bounds(max_state_bytes=len(SOUND) + 20_000)) as (_, client):
        done = post(client).json()["id"]
        waited(client, done)
        assert post(client, SOUND + bytes(200_000)).json()["error"]["code"] == "jobs_full"
        assert client.get(f"/v1/jobs/{done}/result").status_code == 200


sizes = st.lists(
    st.builds(JobSize, st.integers(0, 99).map(str), st.sampled_from("abc"), st.booleans(), st.integers(0, 50)),
    max_size=12, unique_by=lambda one: one.id,
)  # fmt: skip


@given(sizes, st.integers(0, 60), st.sampled_from("abc"), st.integers(0, 200))
def test_room_is_made_of_what_has_ended_and_for_a_reason(
    jobs: list[JobSize], n_bytes: int, owner: str, most: int
) -> None:
    found = removed_for(n_bytes, owner, jobs, most)
    by_id = {one.id: one for one in jobs}
    used = sum(one.n_bytes for one in jobs)
    if used + n_bytes <= most:
        assert found == []
    if found is None:  # neither would removing all of the owner's own
        own = sum(one.n_bytes for one in jobs if one.owner == owner and one.has_ended)
        assert used - own + n_bytes > most
        return
    assert all(by_id[name].has_ended for name in found)
    assert used - sum(by_id[name].n_bytes for name in found) + n_bytes <= most
    for name in found:  # owners that take less lose nothing
        victim = by_id[name].owner
        theirs = sum(one.n_bytes for one in jobs if one.owner == victim)
        own = sum(one.n_bytes for one in jobs if one.owner == owner and one.id not in found)
        assert victim == owner or theirs > own + n_bytes


def test_a_client_that_goes_away_does_not_wait_on(tmp_path: Path) -> None:
    with held_server(state_dir=tmp_path) as (server, held), httpx.Client(base_url=server.url, timeout=30) as client:
        job = post(client).json()["id"]
        for path in (f"/v1/jobs/{job}?wait=60", f"/v1/jobs/{job}/events"):
            for _ in range(20):
                with connect(server) as connection:
                    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        until(lambda: not server.service.admission._waits)
        held.go.set()


def test_answers_that_wait_for_jobs_are_bounded(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    header = {"authorization": f"Bearer {new_key(keys, 'anna', '')}"}
    limits = bounds(max_waits=2, max_connections=64)
    with (
        held_server(state_dir=tmp_path / "state", key_file=keys, bounds=limits) as (server, held),
        httpx.Client(base_url=server.url, timeout=30, headers=header) as client,
        ExitStack() as stack,
    ):
        job = post(client).json()["id"]
        for _ in range(2):
            stack.enter_context(client.stream("GET", f"/v1/jobs/{job}/events"))
        refused = client.get(f"/v1/jobs/{job}", params={"wait": 60})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_waits")
        stack.close()
        held.go.set()


def test_a_restart_counts_no_audio_again(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    header = {"authorization": f"Bearer {new_key(keys, 'anna', 'audio_s_per_hour=60')}"}
    values: dict[str, Any] = {"state_dir": tmp_path / "state", "key_file": keys}
    with held_server(**values) as (server, held), httpx.Client(base_url=server.url, headers=header) as client:
        job = post(client).json()["id"]
        while not held.n_steps:
            time.sleep(0.01)
        server.server.should_exit = True
        held.go.set()
    with running(**values) as again, httpx.Client(base_url=again.url, headers=header, timeout=30) as client:
        assert waited(client, job)["state"] == "done"


def test_uploads_without_their_file_of_jobs_are_kept_aside(tmp_path: Path) -> None:
    with held_server(state_dir=tmp_path) as (server, held), httpx.Client(base_url=server.url) as client:
        job = post(client).json()["id"]
        server.server.should_exit = True
        held.go.set()
    if not (tmp_path / "uploads" / job).exists():  # it was done in time
        (tmp_path / "uploads" / job).write_bytes(SOUND)
    for name in ("jobs.sqlite", "jobs.sqlite-wal"):
        (tmp_path / name).unlink(missing_ok=True)
    with job_server(tmp_path) as (_, client):
        assert client.get(f"/v1/jobs/{job}").status_code == 404
        assert (tmp_path / "lost-1" / job).read_bytes() == SOUND


@pytest.mark.parametrize("name", ["uploads", "results"])
def test_a_state_folder_that_cannot_be_used_is_said_so(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a file")
    with pytest.raises(OutputError, match="jobs cannot be kept here"), job_server(tmp_path):
        pass


def test_a_jobs_windows_leave_the_journal_with_it(tmp_path: Path) -> None:
    with job_server(tmp_path) as (server, client):
        jobs = [post(client, temperature=text).json()["id"] for text in ("0", "0.5")]
        for job in jobs:
            waited(client, job)
        cancelled = post(client).json()["id"]
        client.post(f"/v1/jobs/{cancelled}/cancel")
        waited(client, cancelled)
        del server
    journal = tmp_path / ".stapes-journal.sqlite"
    if journal.exists():
        with closing(sqlite3.connect(journal)) as connection:
            assert connection.execute("SELECT count(*) FROM answers").fetchone() == (0,)


def test_a_damaged_row_is_a_failed_job(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite")
    store.add(stored(1))
    store._connection.execute("UPDATE jobs SET fields='[', error='{'")
    found = store.get("job_1")
    assert found is not None
    assert (found.state, found.error and found.error["message"]) == ("failed", "The job's entry is damaged.")
    store.close()
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as connection:
        connection.execute("DROP TABLE events")
    with pytest.raises(OutputError, match="a table is not ours"):
        JobStore(tmp_path / "jobs.sqlite")


def test_a_job_that_waits_after_a_passing_fault_can_be_cancelled_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_FIRST_PAUSE_S", 0.1)
    real, fails = pipeline.decoded, True

    async def decoded(*arguments: Any) -> Any:
        if fails:
            raise ApiError(503, "No process.", code="media_unavailable")
        return await real(*arguments)

    monkeypatch.setattr("stapes.server.jobs.runner.decoded", decoded)
    with job_server(tmp_path) as (_, client):
        first, second = (post(client).json()["id"] for _ in range(2))
        time.sleep(0.3)
        assert client.post(f"/v1/jobs/{first}/cancel").json()["state"] == "cancelled"
        fails = False
        assert waited(client, second)["state"] == "done"
        assert [one["type"] for _, one in events(client, first)] == ["job.cancelled"]
