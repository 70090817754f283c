"""Chunks on Spark: what happens to them where workers die, raise, or the driver stops early."""

from __future__ import annotations

import sys

import pytest

from stapes.batch.engines.spark import run
from stapes.errors import OptionError, OutputError
from tests.cluster.recordings import python_path
from tests.cluster.stub_worker import chunks_of, lines, stub_work, tries

SparkSession = pytest.importorskip("pyspark.sql").SparkSession
pytestmark = pytest.mark.cluster


@pytest.fixture(autouse=True)
def _path_of_workers(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", python_path())


def test_chunks_arrive_though_their_worker_is_killed(tmp_path):
    uris = ["sleep 0.01"] * 40
    uris[5] = "die 1"
    uris[20] = "die 5"  # more often than Spark allows: the wave is given up there, and run again
    results = list(run(stub_work(tmp_path), chunks_of(uris), workers=2))
    assert sorted(result.name for result in results) == sorted(chunk.name for chunk in chunks_of(uris))
    assert tries(tmp_path)["00-00005"] == 2
    assert tries(tmp_path)["00-00020"] == 6


def test_an_engine_stays_from_wave_to_wave(tmp_path):
    assert len(list(run(stub_work(tmp_path), chunks_of(["sleep 0.02"] * 40), workers=2))) == 40
    assert len(lines(tmp_path, "loads")) == 2
    assert set(tries(tmp_path).values()) == {1}


def test_an_exception_surfaces_and_is_not_retried(tmp_path):
    running = run(stub_work(tmp_path), chunks_of(["ok", "raise", "ok"]), workers=2)
    assert [next(running).name, next(running).name] == ["00-00000", "00-00002"]
    with pytest.raises(OutputError, match="no space for 00-00001"):
        next(running)
    assert tries(tmp_path)["00-00001"] == 1


def test_a_wave_is_taken_at_a_time_and_a_closed_run_ends(tmp_path):
    taken = []

    def endless():
        for chunk in chunks_of(iter(lambda: "ok", "")):
            taken.append(chunk.name)
            yield chunk

    running = run(stub_work(tmp_path), endless(), workers=2)
    assert not taken
    for _ in range(17):
        next(running)
    assert len(taken) == 32
    running.close()
    assert SparkSession.getActiveSession() is None


def test_the_session_of_the_program_is_used_and_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    with pytest.raises(OptionError, match="there is no Spark session"):
        next(run(stub_work(tmp_path), chunks_of(["ok"]), address="active"))
    session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        assert len(list(run(stub_work(tmp_path), chunks_of(["ok"] * 20), address="active"))) == 20
        with pytest.raises(OptionError, match="'active'"):
            next(run(stub_work(tmp_path), chunks_of(["ok"])))
        assert session.range(3).count() == 3
    finally:
        session.stop()


def test_a_master_that_anyone_can_reach_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"spark\.authenticate"):
        next(run(stub_work(tmp_path), chunks_of(["ok"]), address="spark://10.0.0.1:7077,127.0.0.1:7077"))
