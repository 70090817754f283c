"""The table of benchmarks.gpu: its figures beside their targets, the device by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.page import table

NOTE = (
    "The targets were derived from the best public figures, of vLLM with turbo on one H100 (240 and 1740 times real "
    "time) and from that device's peaks. This device is another one: an H200 has the arithmetic of an H100 and reads "
    "memory 1.4 times as fast, so a target reached here does not mean that an H100 reaches it."
)


@dataclass(frozen=True, slots=True)
class Target:
    """Times real time that a shape has to reach with so many windows at once."""

    shape: str
    windows: int
    must: float
    aim: float

    def verdict(self, times_real_time: float) -> str:
        """Say what is reached."""
        if times_real_time >= self.aim:
            return f"reaches the aim of {self.aim:g}"
        reached = f"reaches {self.must:g}" if times_real_time >= self.must else f"misses {self.must:g}"
        return f"{reached}, aim {self.aim:g}"


TARGETS = (
    Target("turbo", 1, 240, 600),
    Target("turbo", 128, 1740, 3000),
    Target("large-v3", 64, 1000, 1400),
)

HEAD = (
    "shape", "windows", "encode", "with log-mel", "step", "windows a s", "times real time", "without log-mel",
    "encoder's roofline", "step's roofline", "memory MB", "target",
)  # fmt: skip


def rows_of(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the table's rows: of each shape and number of windows, and of base end to end."""
    rows = []
    judged = found["device"]["device"] != "CPU"
    for name, shape in found["shapes"].items():
        if "not_run" in shape:
            rows.append(_not_run(name, "", shape))
        for point in shape.get("points", ()):
            rows.append(_row(name, point, judged=judged))
    base, name = found["base"], "tiny" if "tiny" in found["shapes"] else "base"
    for way in ("samples", "files"):
        if way in base:
            speed = f"{base[way]['times_real_time']:.1f}"
            rows.append((f"{name}, from {way}", "", *[""] * 4, speed, *[""] * 4, base[way].get("cut_short", "")))
    if "not_run" in base:
        rows.append(_not_run(f"{name}, end to end", "", base))
    return rows


def _not_run(name: str, windows: str, why: Mapping[str, Any]) -> tuple[str, ...]:
    return (name, windows, *[""] * (len(HEAD) - 3), f"not run: {why['not_run']}")


def _row(name: str, point: Mapping[str, Any], *, judged: bool) -> tuple[str, ...]:
    windows = str(point["windows"])
    if "not_run" in point:
        return _not_run(name, windows, point)
    target = next((one for one in TARGETS if (one.shape, one.windows) == (name, point["windows"])), None)
    shares = point.get("roofline") or {}
    return (
        name,
        windows,
        f"{point['encode_s'] * 1000:.1f} ms",
        f"{point['encode_from_samples_s'] * 1000:.1f} ms",
        f"{point['step_s'] * 1000:.3f} ms",
        f"{point['windows_per_s']:.1f}",
        f"{point['times_real_time']:.0f}",
        f"{point['times_without_log_mel']:.0f}",
        *(f"{shares[part]:.0%}" if part in shares else "" for part in ("encode", "step")),
        f"{point['used_mb']:.0f}",
        target.verdict(point["times_real_time"]) if target and judged else "",
    )


def report_of(found: Mapping[str, Any], precision: str) -> str:
    """Return the table with what has to be known of it: the device by name, its peaks, and the note on targets."""
    device, peaks = found["device"], found.get("peaks")
    name = device["device"]
    lines = [f"{name}, torch {device['torch']}, {precision}; {found['tokens']} tokens a window of 30 s; log-mel: "]
    lines[0] += found["log_mel"]
    if peaks:
        lines.append(
            f"measured peaks: {peaks['tera_operations']:g} * 10^12 operations a second ({precision} product), "
            f"{peaks['gigabytes']:g} * 10^9 bytes a second (copy, read and written)"
        )
    for shape_name, shape in found["shapes"].items():
        if (graphs := shape.get("captures")) and graphs["graphs"]:
            lines.append(
                f"{shape_name}: {graphs['graphs']} graphs captured in {graphs['seconds']:g} s, "
                f"{graphs['megabytes']:g} MB"
            )
        if any(point.get("finite") is False for point in shape.get("points", ())):
            lines.append(f"{shape_name}: SOME LOG-PROBABILITIES ARE NOT FINITE")
    if name != "CPU" and "H100" not in name:
        lines.append(NOTE)
    return "\n".join([*lines, "", aligned_table(HEAD, rows_of(found))])


def aligned_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns, but for the last, are aligned, for a terminal."""
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head) - 1)]
    padded = [[cell.ljust(width) for cell, width in zip(line, (*widths, 0), strict=True)] for line in (head, *rows)]
    return table(padded[0], padded[1:])
