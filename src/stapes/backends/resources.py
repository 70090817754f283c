"""Memory and CPU resources: how many cores and how much memory this process may use, within its container's share."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

from stapes.errors import BackendError

_MEMINFO = Path("/proc/meminfo")
#: What windows and rows may take by default. Sixteen recordings with 4 windows in memory were as fast as
#: with 16 (docs/experiments/2026-11-25-gain-of-a-batch.md).
_USUAL_BYTES = 256_000_000

_CPU_FOLDER = Path("/sys/devices/system/cpu")
_CGROUP_FOLDER = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return the number of physical cores that the process may use; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        n_cores = physical_cores(allowed, _CPU_FOLDER)
    else:
        n_cores = os.cpu_count() or 1
    quota = cgroup_quota(_CGROUP_FOLDER)
    return max(1, n_cores if quota is None else min(n_cores, math.ceil(quota)))


def physical_cores(cpus: Iterable[int], folder: Path) -> int:
    """Return how many cores these logical processors are on; each counts as one where the system does not say.
    folder: where the system describes its processors (`cpu0/topology/thread_siblings_list`).
    """
    siblings: set[str] = set()
    for cpu in cpus:
        try:
            siblings.add((folder / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip())
        except OSError:
            siblings.add(f"alone {cpu}")
    return len(siblings)


def cgroup_quota(folder: Path) -> float | None:
    """Return how many cores' worth of time a container may use; None without a limit (version 2, then version 1)."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        share = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return None
    return share if share > 0 else None


def check_memory(n_bytes: int, what: str) -> None:
    """Raise BackendError, with the numbers, if `what` needs more bytes than are free; unknown means enough."""
    free = free_bytes(_MEMINFO, _CGROUP_FOLDER)
    if free is not None and n_bytes > free:
        raise BackendError(
            f"{what} needs at least {n_bytes / 1e6:,.0f} MB of memory, and {free / 1e6:,.0f} MB are free; "
            "take a smaller model or precision, or end other programs"
        )


def default_max_memory(window_bytes: int) -> int:
    """Return how much windows and rows may take by default: 256 MB, or five windows, the least for five beams."""
    return max(_USUAL_BYTES, 5 * window_bytes)


def free_bytes(meminfo: Path, cgroup_folder: Path) -> int | None:
    """Return how much memory can still be taken; None where the system does not say."""
    found = [one for one in (_machine(meminfo), _container(cgroup_folder)) if one is not None]
    return min(found, default=None)


def _machine(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text().splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kilobytes) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _container(folder: Path) -> int | None:
    """What is left of a container's limit; the pages of files that it holds can be taken back."""
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(statistics.get("inactive_file", 0)))
    except (OSError, ValueError):  # no such limit ("max"), or none that we may read
        return None
