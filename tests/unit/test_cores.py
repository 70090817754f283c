"""How many cores a process may use, from files as in /sys."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from stapes.backends import resources as cores
from stapes.backends.resources import cgroup_quota, physical_cores, usable_cores


def processors(folder: Path, siblings: Iterable[str]) -> Path:
    """Write what the system says of each logical processor: which ones share its core."""
    for cpu, text in enumerate(siblings):
        topology = folder / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{text}\n")
    return folder


def test_two_threads_of_one_core_count_once(tmp_path: Path) -> None:
    folder = processors(tmp_path, ["0,4", "1,5", "2,6", "3,7"] * 2)
    assert physical_cores(range(8), folder) == 4
    assert physical_cores({0, 4, 1}, folder) == 2
    assert physical_cores({0, 1, 2}, folder) == 3
    assert physical_cores(range(2), processors(tmp_path / "one", ["0-1", "0-1"])) == 1


def test_processors_that_nothing_is_said_of_count_each(tmp_path: Path) -> None:
    assert physical_cores({0, 3, 9}, tmp_path) == 3
    assert physical_cores({0, 1, 9}, processors(tmp_path, ["0-1", "0-1"])) == 2


@pytest.mark.parametrize(
    ("text", "share"), [("200000 100000\n", 2.0), ("150000 100000\n", 1.5), ("max 100000\n", None), ("max\n", None)]
)
def test_a_container_s_share(tmp_path: Path, text: str, share: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert cgroup_quota(tmp_path) == share


@pytest.mark.parametrize(("quota", "share"), [("250000\n", 2.5), ("-1\n", None), ("0\n", None), ("", None)])
def test_an_older_container_s_share(tmp_path: Path, quota: str, share: float | None) -> None:
    folder = tmp_path / "cpu"
    folder.mkdir()
    (folder / "cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert cgroup_quota(tmp_path) == share


def test_no_container_no_share(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("100000 0\n")
    assert cgroup_quota(tmp_path) is None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
@pytest.mark.parametrize(
    ("share", "expected"), [("max 100000", 4), ("800000 100000", 4), ("150000 100000", 2), ("1000 100000", 1)]
)
def test_cores_within_the_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, share: str, expected: int) -> None:
    """A share of a core and a half needs two, and never is there less than one."""
    folder = processors(tmp_path / "cpus", ["0-1", "0-1", "2-3", "2-3", "4-5", "4-5", "6-7", "6-7"])
    (tmp_path / "cpu.max").write_text(share)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "_CPU_FOLDER", folder)
    monkeypatch.setattr(cores, "_CGROUP_FOLDER", tmp_path)
    assert usable_cores() == expected


def test_a_system_without_affinity_counts_processors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(cores, "_CGROUP_FOLDER", tmp_path)
    for found, expected in ((6, 6), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda found=found: found)
        assert usable_cores() == expected
