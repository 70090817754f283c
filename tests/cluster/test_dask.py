"""Chunks on Dask: what happens to them where workers die, raise, or the driver stops early."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from stapes.batch.engines.dask import run
from stapes.errors import OptionError, OutputError
from tests.cluster.recordings import python_path
from tests.cluster.stub_worker import chunks_of, lines, stub_work, tries

dask = pytest.importorskip("dask")
pytest.importorskip("distributed")
pytestmark = pytest.mark.cluster


def test_chunks_arrive_though_their_worker_is_killed(tmp_path, capfd):
    uris = ["sleep 0.01"] * 40
    uris[5] = "die 1"
    uris[20] = "die 5"  # more often than Dask allows: the chunk is given up there, and sent again
    results = list(run(stub_work(tmp_path), chunks_of(uris), workers=2))
    assert sorted(result.name for result in results) == sorted(chunk.name for chunk in chunks_of(uris))
    assert tries(tmp_path)["00-00005"] == 2
    assert tries(tmp_path)["00-00020"] == 6
    assert len(lines(tmp_path, "loads")) <= 2 + 6  # once in each process: two, and one for each that was killed
    assert capfd.readouterr().err == ""


def test_an_exception_surfaces_and_is_not_retried(tmp_path, capfd):
    uris = ["ok", "ok", "raise"]
    with pytest.raises(OutputError, match="no space for 00-00002"):
        list(run(stub_work(tmp_path), chunks_of(uris), workers=2))
    assert tries(tmp_path)["00-00002"] == 1
    assert capfd.readouterr().err == ""


def test_chunks_are_taken_as_workers_become_free_and_a_closed_run_ends(tmp_path):
    taken = []

    def endless():
        for chunk in chunks_of(iter(lambda: "sleep 0.02", "")):
            taken.append(chunk.name)
            yield chunk

    running = run(stub_work(tmp_path), endless(), workers=2)
    assert not taken
    for number in range(1, 6):
        next(running)
        assert len(taken) <= number + 4
    running.close()
    assert sum(tries(tmp_path).values()) <= len(taken)


def test_a_run_closes_while_a_chunk_takes_long(tmp_path):
    running = run(stub_work(tmp_path), chunks_of(["ok", "sleep 50"]), workers=2)
    next(running)
    start = time.monotonic()
    running.close()
    assert time.monotonic() - start < 20


@contextmanager
def scheduler_with_a_worker_of_four_threads():
    """Yield the address of a cluster of processes that this test starts."""
    code = (
        "import sys\n"
        "from dask.distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    cluster = LocalCluster(n_workers=1, threads_per_worker=4, host='127.0.0.1', dashboard_address=None)\n"
        "    print(cluster.scheduler_address, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.communicate(timeout=30)


def test_a_cluster_that_runs_already_stays_and_loads_one_engine(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", python_path())
    with scheduler_with_a_worker_of_four_threads() as address:
        for _ in range(2):
            assert len(list(run(stub_work(tmp_path), chunks_of(["sleep 0.2"] * 5), address=address))) == 5
    assert len(lines(tmp_path, "loads")) == 1


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:8786", "10.0.0.1:8786", "ws://scheduler:8786"])
def test_a_scheduler_that_anyone_can_reach_is_refused(tmp_path, address):
    with pytest.raises(OptionError, match="tls://"):
        run(stub_work(tmp_path), chunks_of(["ok"]), address=address)


def test_a_scheduler_that_does_not_answer_is_named(tmp_path):
    with dask.config.set({"distributed.comm.timeouts.connect": 1}), pytest.raises(OptionError, match=r"127\.0\.0\.1:9"):
        list(run(stub_work(tmp_path), chunks_of(["ok"]), address="tcp://127.0.0.1:9"))
