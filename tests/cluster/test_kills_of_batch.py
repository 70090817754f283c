"""Batches whose driver, workers and nodes are killed at random points: nothing is lost, doubled or half-written."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.recordings import check_batch, python_path, write_batch

psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
#: 2,000 recordings and 20 kills, where there are minutes for it
THOROUGH = os.environ.get("STAPES_CLUSTER") == "thorough"
LOAD = "tests.cluster.engines:load"


def start_driver(values: dict[str, Any], sleep_s: float, log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "STAPES_TEST_SLEEP": str(sleep_s), "RAY_AUTH_MODE": "disabled"}
    environment["PYTHONPATH"] = python_path()
    command = [sys.executable, "-m", "tests.cluster.driver_process", json.dumps({**values, "load": LOAD})]
    with log.open("ab") as file:
        return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=file, stderr=file)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """End a driver and the processes that it has started, as a machine does that loses its power."""
    children = psutil.Process(process.pid).children(recursive=True)
    for one in (psutil.Process(process.pid), *children):
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGKILL)
    process.wait()


def workers_of(process: subprocess.Popen[bytes]) -> list[Any]:
    """The processes of a local driver that transcribe."""
    try:
        children = psutil.Process(process.pid).children()
        return [one for one in children if "spawn_main" in " ".join(one.cmdline())]
    except psutil.NoSuchProcess:
        return []


@pytest.mark.parametrize("formats", [("json",), ("parquet",)], ids=lambda one: one[0])
def test_a_local_batch_survives_kills_of_workers_and_driver(tmp_path: Path, formats: tuple[str, ...]) -> None:
    """Kills are far enough apart that none is likely to hit the same row three times, which would end it."""
    n_rows, killing, n_kills = (2000, 123, 20) if THOROUGH else (300, 123, 5)
    manifest, bad = write_batch(tmp_path / "in", n_rows, killing=killing)
    out, log, chance = tmp_path / "out", tmp_path / "log", random.Random(5)
    values = {"manifest": str(manifest), "out": str(out), "workers": 2, "formats": formats, "chunk_rows": 8}
    driver = start_driver(values, 0.1, log)
    done_kills = 0
    deadline = time.monotonic() + (900 if THOROUGH else 120)
    while driver.poll() is None or driver.returncode:
        assert time.monotonic() < deadline, log.read_text()
        if driver.poll() is not None:
            assert driver.returncode < 0, log.read_text()
            driver = start_driver(values, 0.1, log)
        time.sleep(chance.uniform(1.5, 6.0))
        if driver.poll() is not None or done_kills == n_kills:
            continue
        done_kills += 1
        if done_kills % 2:
            found = workers_of(driver)
            if found:
                chance.choice(found).send_signal(signal.SIGKILL)
        else:
            kill_tree(driver)
    assert done_kills >= n_kills // 2
    if formats == ("json",):
        check_batch(out, n_rows, bad, killing)
    else:
        check_parts(out, n_rows, bad)


def check_parts(out: Path, n_rows: int, bad: set[str]) -> None:
    from pyarrow import parquet  # noqa: PLC0415 (of the extra `batch`)

    ids = [
        one
        for path in sorted((out / "transcripts").glob("*"))
        for one in parquet.read_table(path).column("id").to_pylist()
    ]
    assert len(ids) == len(set(ids)) == n_rows - len(bad)
    assert not set(ids) & bad
