"""Whether something fits into memory, asked before it is taken: the machine's free memory, and the container's."""

from __future__ import annotations

from pathlib import Path

from stapes.errors import BackendError

_MEMINFO = Path("/proc/meminfo")
_CGROUP_FOLDER = Path("/sys/fs/cgroup")


def check_room(n_bytes: int, what: str) -> None:
    """Raise BackendError, with the numbers, if `what` needs more bytes than are free; unknown means enough."""
    free = free_bytes(_MEMINFO, _CGROUP_FOLDER)
    if free is not None and n_bytes > free:
        raise BackendError(
            f"{what} needs at least {n_bytes / 1e6:,.0f} MB of memory, and {free / 1e6:,.0f} MB are free; "
            "take a smaller model or precision, or end other programs"
        )


#: What windows and rows take where nobody says otherwise. Sixteen recordings with 4 windows in memory were as fast as
#: with 16 (docs/experiments.md).
_USUAL_BYTES = 256_000_000


def default_max_memory(window_bytes: int) -> int:
    """Say how much windows and rows may take where nobody has: 256 MB, or five windows, the least for five beams."""
    return max(_USUAL_BYTES, 5 * window_bytes)


def free_bytes(meminfo: Path, cgroup_folder: Path) -> int | None:
    """Tell how much memory can still be taken; None where the system does not say."""
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
