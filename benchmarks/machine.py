"""Facts about the machine and the process, without anything that names its owner."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

#: instruction sets that decide how fast a matrix product can be
_EXTENSIONS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
)


def facts() -> dict[str, Any]:
    """Return processor, cores, memory, system and date."""
    model, flags = _processor()
    return {
        "processor": model,
        "extensions": [name for name in _EXTENSIONS if name in flags],
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        # When the run ended. If it is more than the engines' threads, other programs were running.
        "load_average": load_average(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }


def load_average() -> float | None:
    """How many processes wanted a core in the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> tuple[str, frozenset[str]]:
    """Read the processor's name and flags where the system says them."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or "unknown", frozenset()
    values: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        values.setdefault(key.strip(), value.strip())
    flags = values.get("flags", values.get("Features", ""))
    return values.get("model name", platform.processor() or "unknown"), frozenset(flags.split())


def peak_memory_mb() -> float:
    """Return the most memory that this process has held at once.

    Linux: VmHWM, since ru_maxrss there begins with what the parent held when it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, the others KiB
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)
