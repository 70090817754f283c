"""How many cores this process may use: what its affinity allows, by whole cores, within its container's share."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

_CPU_FOLDER = Path("/sys/devices/system/cpu")
_CGROUP_FOLDER = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Count physical cores; never below 1."""
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        n_cores = physical_cores(allowed, _CPU_FOLDER)
    else:
        n_cores = os.cpu_count() or 1
    quota = cgroup_quota(_CGROUP_FOLDER)
    return max(1, n_cores if quota is None else min(n_cores, math.ceil(quota)))


def physical_cores(cpus: Iterable[int], folder: Path) -> int:
    """Count the cores that these logical processors lie on; each counts for itself where the system does not say.

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
    """How many cores' worth of time a container may use; None without a limit (version 2, then version 1)."""
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
