"""A whole batch on Ray whose nodes, actors and driver are killed at random points: every row ends once."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.recordings import check_batch, python_path, write_batch
from tests.cluster.test_kills_of_batch import THOROUGH, start_driver

pytest.importorskip("ray.data")
psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.cluster

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
N_NODES = 3
SLEEP_S = 0.3
#: Three kills of a worker that transcribes one row alone end it, so that rows must end between two kills.
ROWS_BETWEEN_KILLS = 24
CHUNK_ROWS = 8


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch):
    """A head without CPUs, where the driver runs, and three nodes of one CPU."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415 (an optional package)

    monkeypatch.setenv("PYTHONPATH", python_path())
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("STAPES_TEST_SLEEP", str(SLEEP_S))  # which actors have from their node
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    for _ in range(N_NODES):
        cluster.add_node(**NODE)
    yield cluster
    cluster.shutdown()


def kill_a_node(cluster: Any, chance: random.Random) -> None:
    cluster.remove_node(chance.choice(list(cluster.worker_nodes)), allow_graceful=False)
    cluster.add_node(**NODE)


def kill_an_actor(cluster: Any, chance: random.Random) -> bool:
    """Kill one of the processes that transcribe; return whether there was one."""
    raylets = {one.process.pid for node in cluster.list_all_nodes() for one in node.all_processes["raylet"]}
    found = [
        process
        for process in psutil.process_iter(["ppid", "name"])
        if process.info["ppid"] in raylets and process.info["name"].startswith("ray::MapWorker")
    ]
    if not found:
        return False
    chance.choice(sorted(found, key=lambda one: one.pid)).send_signal(signal.SIGKILL)
    return True


def rows_ended(log: Path) -> int:
    """Return how many rows have ended, as the driver has told last."""
    told = [line.split() for line in log.read_text().splitlines() if line.replace(" ", "").isdigit()]
    return sum(map(int, told[-1])) if told else 0


@pytest.mark.parametrize(
    ("n_rows", "n_kills", "pause_s"),
    [
        (300, 6, 3.0),
        pytest.param(
            2000, 20, 8.0, marks=pytest.mark.skipif(not THOROUGH, reason="STAPES_CLUSTER=thorough is not set")
        ),
    ],
)
def test_a_batch_on_ray_survives_kills(cluster, tmp_path: Path, n_rows: int, n_kills: int, pause_s: float) -> None:
    killing = 123
    manifest, bad = write_batch(tmp_path / "in", n_rows, killing=killing)
    out, log, chance = tmp_path / "out", tmp_path / "log", random.Random(6)
    values = {"manifest": str(manifest), "out": str(out), "chunk_rows": CHUNK_ROWS}
    on_ray = {**values, "engine": "ray", "address": cluster.address, "insecure_cluster": True, "threads": 1}
    kills = ["node", "actor", "driver"] * n_kills
    kills = chance.sample(kills[:n_kills], n_kills)
    driver = start_driver(on_ray, SLEEP_S, log)
    next_kill, n_ended = time.monotonic() + chance.uniform(0.5, pause_s), ROWS_BETWEEN_KILLS
    deadline = time.monotonic() + n_rows
    try:
        while driver.poll() is None:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
            if rows_ended(log) < n_ended:
                next_kill = time.monotonic() + chance.uniform(0.5, pause_s)
            elif kills and time.monotonic() >= next_kill:
                kind = kills.pop()
                if kind == "node":
                    kill_a_node(cluster, chance)
                elif kind == "actor":
                    assert kill_an_actor(cluster, chance), "no process transcribes"
                else:
                    driver.kill()
                    driver.wait()
                    driver = start_driver(on_ray, SLEEP_S, log)
                n_ended = rows_ended(log) + ROWS_BETWEEN_KILLS
    finally:
        driver.kill()
        driver.wait()
    assert driver.returncode == 0, log.read_text()
    assert not kills, f"the batch ended before {kills}"
    told = [line for line in log.read_text().splitlines() if not line.replace(" ", "").isdigit()]
    assert not told, "Ray writes into the driver's streams"
    texts = check_batch(out, n_rows, bad, killing)
    here = {**values, "out": str(tmp_path / "here"), "workers": 2}
    assert start_driver(here, 0.0, log).wait(300) == 0, log.read_text()
    assert texts == check_batch(tmp_path / "here", n_rows, bad, killing)
