"""How much memory is free, from files as in /proc and /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from stapes.backends import resources
from stapes.backends.resources import check_memory, free_bytes
from stapes.errors import BackendError

MEMINFO = "MemTotal:       16000000 kB\nMemFree:          200000 kB\nMemAvailable:    8000000 kB\nBuffers: 1 kB\n"
AVAILABLE = 8_000_000 * 1024


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text(MEMINFO)
    return path


def container(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_a_machine_says_what_is_available(meminfo: Path, tmp_path: Path) -> None:
    assert free_bytes(meminfo, tmp_path / "none") == AVAILABLE


@pytest.mark.parametrize("text", ["", "MemFree: 12 kB\n", "MemAvailable:\n", "MemAvailable: many kB\n"])
def test_a_machine_that_does_not_say_is_not_asked_again(tmp_path: Path, text: str) -> None:
    path = tmp_path / "meminfo"
    path.write_text(text)
    assert free_bytes(path, tmp_path / "none") is None
    assert free_bytes(tmp_path / "nowhere", tmp_path / "none") is None


def test_a_container_s_limit_counts_where_it_is_tighter(meminfo: Path, tmp_path: Path) -> None:
    files = {"memory_current": "700000\n", "memory_stat": "anon 500000\ninactive_file 200000\nfile 200000\n"}
    tight = container(tmp_path / "tight", memory_max="1000000\n", **files)
    assert free_bytes(meminfo, tight) == 1_000_000 - 700_000 + 200_000
    assert free_bytes(tmp_path / "nowhere", tight) == 500_000
    wide = container(tmp_path / "wide", memory_max=f"{10**15}\n", **files)
    assert free_bytes(meminfo, wide) == AVAILABLE


def test_a_container_without_a_limit_leaves_the_machine_s(meminfo: Path, tmp_path: Path) -> None:
    folder = container(tmp_path / "free", memory_max="max\n", memory_current="5\n", memory_stat="anon 5\n")
    assert free_bytes(meminfo, folder) == AVAILABLE
    assert free_bytes(meminfo, container(tmp_path / "partly", memory_max="1000\n")) == AVAILABLE


def test_a_container_over_its_limit_has_nothing_free(meminfo: Path, tmp_path: Path) -> None:
    folder = container(tmp_path / "full", memory_max="1000\n", memory_current="5000\n", memory_stat="anon 5000\n")
    assert free_bytes(meminfo, folder) == 0


def test_what_does_not_fit_is_refused_with_the_numbers(
    meminfo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "_MEMINFO", meminfo)
    monkeypatch.setattr(resources, "_CGROUP_FOLDER", tmp_path / "none")
    check_memory(AVAILABLE, "a large model")
    with pytest.raises(BackendError, match=r"a large model needs at least 9,000 MB.* 8,192 MB are free"):
        check_memory(9 * 10**9, "a large model")
    monkeypatch.setattr(resources, "_MEMINFO", tmp_path / "nowhere")
    check_memory(10**18, "anything, where the system does not say")


def test_this_machine_has_some() -> None:
    check_memory(1 << 20, "a test")
