"""Chunks on Ray: what happens to them where actors or nodes die, raise, or the driver stops early."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from stapes.batch.engines.ray import _needs, _Pool, _rounds, _size, _Transcriber, run
from stapes.errors import OptionError, OutputError
from tests.cluster.recordings import python_path
from tests.cluster.stub_worker import chunks_of, lines, stub_work, tries

pytest.importorskip("ray.data")
pytestmark = pytest.mark.cluster

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs, where the driver runs, and two nodes of one CPU."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415 (an optional package)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", python_path())
        patch.setenv("RAY_AUTH_MODE", "disabled")
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            cluster.add_node(**NODE)
        yield cluster
        cluster.shutdown()


def started(cluster, folder, chunks, **options):
    return run(stub_work(folder), chunks, address=cluster.address, insecure_cluster=True, **options)


def names(results):
    return sorted(result.name for result in results)


def expected(uris):
    return [chunk.name for chunk in chunks_of(uris)]


def test_chunks_arrive_though_actors_and_a_node_die_and_a_node_joins(cluster, tmp_path, capfd):
    uris = ["sleep 0.1"] * 60
    uris[5] = "die 1"
    uris[20] = "die 3"
    results = []
    node = cluster.add_node(**NODE)
    for result in started(cluster, tmp_path, chunks_of(uris)):
        results.append(result)
        if len(results) == 10:
            cluster.remove_node(node, allow_graceful=False)
        if len(results) == 15:
            cluster.add_node(**NODE)
    assert names(results) == expected(uris)
    assert tries(tmp_path)["00-00020"] == 4
    assert capfd.readouterr().err == ""


def test_chunks_arrive_though_every_process_of_ray_data_is_killed(cluster, tmp_path):
    import psutil  # noqa: PLC0415 (comes with Ray)

    uris = ["sleep 0.1"] * 30
    results = []
    for result in started(cluster, tmp_path, chunks_of(uris)):
        results.append(result)
        if len(results) == 10:
            raylets = {
                process.process.pid for node in cluster.list_all_nodes() for process in node.all_processes["raylet"]
            }
            for process in psutil.process_iter(["ppid", "name"]):
                if process.info["ppid"] in raylets and process.info["name"].startswith(("ray::Map", "ray::_Feed")):
                    os.kill(process.pid, signal.SIGKILL)
    assert names(results) == expected(uris)


def test_an_exception_surfaces_and_is_not_retried(cluster, tmp_path, capfd):
    with pytest.raises(OutputError, match=r"^no space for 00-00002$"):
        list(started(cluster, tmp_path, chunks_of(["ok", "ok", "raise", "ok"])))
    assert tries(tmp_path)["00-00002"] == 1
    assert capfd.readouterr().err == ""


def test_chunks_are_taken_as_results_arrive_and_a_closed_run_ends(cluster, tmp_path):
    taken: list[str] = []

    def endless():
        for chunk in chunks_of(iter(lambda: "sleep 5" if len(taken) > 12 else "ok", "")):
            taken.append(chunk.name)
            yield chunk

    running = started(cluster, tmp_path, endless(), workers=2)
    assert not taken
    for number in range(1, 6):
        next(running)
        assert len(taken) <= number + 4
    time.sleep(1)  # until chunks run that take long
    start = time.monotonic()
    running.close()
    assert time.monotonic() - start < 4
    assert len(lines(tmp_path, "loads")) <= 2


def test_a_cluster_without_a_token_is_refused(cluster, tmp_path):
    with pytest.raises(OptionError, match="without a token"):
        next(run(stub_work(tmp_path), chunks_of(["ok"]), address=cluster.address))


def test_actors_that_no_node_can_hold_are_refused(cluster, tmp_path):
    work = replace(stub_work(tmp_path), threads=64)
    with pytest.raises(OptionError, match="no node"):
        next(run(work, chunks_of(["ok"]), address=cluster.address, insecure_cluster=True))


def test_workers_that_share_a_machine_are_as_many_actors(tmp_path, monkeypatch):
    """The driver gives each of two workers one of two cores; an actor asks for no more."""
    monkeypatch.setattr("stapes.batch.engines.ray._nodes", lambda: [{"Resources": {"CPU": 2.0}}])
    work = stub_work(tmp_path)
    assert _size(_needs(replace(work, threads=1))) == 2
    assert _size(_needs(replace(work, threads=None))) == 1


@pytest.mark.parametrize("address", ["127.0.0.1:9", "head"])
def test_a_cluster_that_does_not_answer_is_named(tmp_path, address):
    with pytest.raises(OptionError, match=address):
        next(run(stub_work(tmp_path), chunks_of(["ok"]), address=address))


def test_a_client_address_is_refused(tmp_path):
    with pytest.raises(OptionError, match="ray://"):
        run(stub_work(tmp_path), chunks_of(["ok"]), address="ray://127.0.0.1:10001")


@pytest.mark.parametrize(
    "start", ["address = None", "address = Cluster(initialize_head=True, head_node_args={'num_cpus': 1}).address"]
)
def test_a_local_cluster_and_one_with_a_token_are_taken(tmp_path, start):
    code = (
        "from pathlib import Path\n"
        "from tests.cluster.stub_worker import chunks_of, stub_work\n"
        "from stapes.batch.engines.ray import run\n"
        f"{'from ray.cluster_utils import Cluster' if 'Cluster' in start else ''}\n{start}\n"
        f"results = run(stub_work(Path({str(tmp_path)!r})), chunks_of(['ok'] * 3), address=address)\n"
        "print(len(list(results)), end='')\n"
    )
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64, "HOME": str(tmp_path)}
    environment = {**os.environ, **token, "PYTHONPATH": python_path()}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("3", 0), ended.stderr
    assert "Cluster" in start or ended.stderr == ""


def test_a_node_with_another_stapes_or_none_is_named(monkeypatch):
    assert "0.0.7 on the driver. Install the same there" in _Transcriber(b"", "0.0.7")._answer(b"chunk")
    monkeypatch.setitem(sys.modules, "stapes", None)
    assert "stapes cannot be imported on" in _Transcriber(b"", "0.0.7")._answer(b"chunk")


@pytest.mark.parametrize("error", [AssertionError("Above ray.get should raise an exception."), "RayError"])
def test_chunks_of_an_execution_that_breaks_go_into_another(monkeypatch, error):
    """Ray Data asserts what does not hold where a process dies at the wrong moment."""
    import ray  # noqa: PLC0415 (an optional package)

    rounds = iter([[b"a"], [], [b"b", b"c"]])

    def one_round(_pool, chunks, waiting):
        left = dict(enumerate(chunks))
        waiting.update(left)
        done = next(rounds)
        for number, chunk in left.items():
            if chunk in done:
                del waiting[number]
                yield chunk
        if waiting:
            raise ray.exceptions.RayError if error == "RayError" else error

    monkeypatch.setattr("stapes.batch.engines.ray._round", one_round)
    assert list(_rounds(_Pool(b"", {}, None), iter([b"a", b"b", b"c"]))) == [b"a", b"b", b"c"]
