"""What the figures must reach, and whether the newest results do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.page import MACHINES
from benchmarks.throughput import ALONE, BATCHED, FEW, TOGETHER
from benchmarks.word_errors import edits, simple

#: kind of processor -> limit
Limits = Mapping[str, float]
#: kind -> results of that kind, newest first
Results = Mapping[str, Sequence[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Target:
    """One target: how it is measured, and its limit."""

    what: str
    kind: str  # of result
    limit: float | Limits
    unit: str  # "x", "%", "ms", "MB", "errors", "points"
    at_most: bool
    measure: Callable[[dict[str, Any]], float | None]

    def measured(self, results: Results) -> float | None:
        """Return the newest figure; None where it has not been measured."""
        values = (self.measure(result) for result in results.get(self.kind, ()))
        return next((value for value in values if value is not None), None)

    def limit_on(self, machine: str) -> float | None:
        """Return the limit on a kind of processor; None: it is only reported there."""
        return self.limit.get(machine) if isinstance(self.limit, Mapping) else self.limit

    def outcome(self, value: float, machine: str) -> str:
        """Return a figure, and whether it is within the limit on a kind of processor."""
        limit, written = self.limit_on(machine), self.write(value)
        if self.unit == "%" and value > 1.0:
            return f"{written}: more than is possible: a peak was measured too low, or work is left out"
        if limit is None:
            return written
        return f"{written}: {'yes' if (value <= limit if self.at_most else value >= limit) else 'no'}"

    def write_limit(self) -> str:
        """Return the limit, or those of each kind of processor."""
        limits = {"": self.limit} if not isinstance(self.limit, Mapping) else self.limit
        side = "at most" if self.at_most else "at least"
        return f"{side} " + ", ".join(
            f"{self.write(one)} {name and f'on {name}'}".strip() for name, one in limits.items()
        )

    def write(self, value: float) -> str:
        """Return a figure with its unit."""
        if self.unit == "%":
            return f"{value:.1%}"
        digits = {"x": 2, "ms": 2, "MB": 0, "errors": 0, "points": 2}[self.unit]
        return f"{value:.{digits}f}{'x' if self.unit == 'x' else ' ' + self.unit}"


def _row(result: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((row for row in result["engines"] if row["name"] == name), None)


def _faster(
    ours: str,
    theirs: str,
    seconds: Callable[[dict[str, Any]], float],
    same_work: Callable[[dict[str, Any], dict[str, Any]], bool] = lambda own, other: True,  # noqa: ARG005
) -> Callable[[dict[str, Any]], float | None]:
    """How many times faster one engine is than another; None where they have not done the same."""

    def measure(result: dict[str, Any]) -> float | None:
        own, other = _row(result, ours), _row(result, theirs)
        if own is None or other is None or not same_work(own, other):
            return None
        return seconds(other) / seconds(own)

    return measure


def _steps(name: str, precision: str, other: str, limit: float, what: str) -> Target:
    measure = _faster(f"stapes@{precision}", f"faster-whisper@{other}", lambda row: float(row["medians_s"][name]))
    return Target(f"{what}, {precision}, against faster-whisper {other}", "steps", limit, "x", False, measure)


def _as_accurate(own: dict[str, Any], other: dict[str, Any]) -> bool:
    """Nothing failed, and at most 2 points more words are wrong: an engine that writes less has less to do."""
    rates = own["word_error_rate"], other["word_error_rate"]
    return not own["failed"] and not other["failed"] and None not in rates and bool(rates[0] <= rates[1] + 0.02)


def _printed_alike(own: dict[str, Any], other: dict[str, Any]) -> bool:
    """At most a fifth of the words differ."""
    words, others = (simple(row["text"], "en").split() for row in (own, other))
    return edits(others, words) <= len(others) / 5


def _on(avx2: float, avx512: float | None, amx: float) -> Limits:
    """Return the limits of each kind of processor; None: only reported."""
    named = zip(MACHINES, (avx2, avx512, amx), strict=True)
    return {name: limit for name, limit in named if limit is not None}


def _files(ours: str, theirs: str, limit: float | Limits) -> Target:
    measure = _faster(ours, theirs, lambda row: float(row["seconds"]), _as_accurate)
    return Target(f"whole files, {ours} against {theirs}", "engines", limit, "x", False, measure)


def _share(name: str, limit: Limits, what: str) -> Target:
    def measure(result: dict[str, Any]) -> float | None:
        row = _row(result, "stapes@int8")
        shares: dict[str, float] = {} if row is None else row["roofline_shares"]
        return shares.get(name)

    return Target(f"share of the roofline, {what}, int8", "steps", limit, "%", False, measure)


def _log_mel(result: dict[str, Any]) -> float | None:
    row = next((row for row in result["engines"] if row["name"].startswith("stapes")), None)
    return None if row is None else float(row["medians_s"]["log_mel_s"]) * 1000


def _peak_memory(result: dict[str, Any]) -> float | None:
    row = _row(result, "stapes@int8")
    return None if row is None else float(row["peak_memory_mb"])


def _own_gain(part: str, what: str, limit: float) -> Target:
    """Sixteen recordings together against one after another, both in int8: as stapes chose it, or was asked for."""

    def measure(result: dict[str, Any]) -> float | None:
        ours = [row for row in result["engines"] if row["facts"].get("precision") == "int8" and row[part]]
        found = {row["way"]: float(row[part]) for row in ours if row["engine"].startswith("stapes")}
        return found[ALONE] / found[TOGETHER] if {ALONE, TOGETHER} <= found.keys() else None

    return Target(
        f"16 recordings together, against one after another, int8, {what}", "throughput", limit, "x", False, measure
    )


def _throughput(other_way: str, limit: float | Limits) -> Target:
    """Sixteen recordings together against faster-whisper."""
    measure = _faster(f"stapes, {TOGETHER}", f"faster-whisper@int8, {other_way}", lambda row: float(row["seconds"]))
    what = f"16 recordings together, against faster-whisper int8 {other_way}"
    return Target(what, "throughput", limit, "x", False, measure)


def _throughput_errors(result: dict[str, Any]) -> float | None:
    """How many points more words are wrong than faster-whisper has wrong one after another."""
    own, other = _row(result, f"stapes, {TOGETHER}"), _row(result, f"faster-whisper@int8, {ALONE}")
    return None if own is None or other is None else float(own["word_error_rate"] - other["word_error_rate"]) * 100


def _throughput_memory(way: str, limit_mb: float) -> Target:
    def measure(result: dict[str, Any]) -> float | None:
        row = _row(result, f"stapes, {way}")
        return None if row is None else float(row["peak_memory_mb"])

    return Target(f"peak memory, 16 recordings {way}", "throughput", limit_mb, "MB", True, measure)


def _more_for_longer(result: dict[str, Any]) -> float:
    short, *_, long = result["peaks_mb"].values()
    return float(long - short)


TARGETS: tuple[Target, ...] = (
    _steps("encode_s", "int8", "int8", 2.5, "encode one window"),
    _steps("encode_s", "bfloat16", "int8", 1.7, "encode one window"),
    _steps("encode_s", "float32", "float32", 1.3, "encode one window"),
    _steps("step_s", "int8", "int8", 5.0, "one greedy step"),
    _steps("step_8_rows_s", "int8", "int8", 8.0, "8 rows in one step"),
    _files("stapes", "faster-whisper@int8", _on(2.0, 3.3, 5.0)),
    _files("stapes", "whisper.cpp@q8_0", 6.0),
    _files("stapes", "openai-whisper@float32", 7.0),
    _files("stapes@float32", "faster-whisper@float32", _on(1.7, 2.0, 2.7)),
    _files("stapes@float32", "openai-whisper@float32", _on(2.7, 3.5, 3.5)),
    _share("encode_s", _on(0.62, 0.75, 0.22), "encoder"),
    _share("step_s", _on(0.62, 0.65, 0.65), "decoder step"),
    Target("log-mel of 30 s on one core", "steps", 5.0, "ms", True, _log_mel),
    Target(
        "the command as a whole process, against faster-whisper int8",
        "command",
        _on(1.8, 2.3, 2.8),
        "x",
        False,
        _faster("stapes", "faster-whisper@int8", lambda row: float(row["median_s"]), _printed_alike),
    ),
    Target("peak memory of the command, int8, one file", "command", 300.0, "MB", True, _peak_memory),
    _own_gain("seconds", "all", 1.2),
    _own_gain("step_s", "the decoder's steps", 3.0),
    _throughput(ALONE, 4.8),
    _throughput(BATCHED, _on(2.5, None, 5.5)),
    Target(
        f"16 recordings together: more words wrong than faster-whisper int8 has {ALONE}",
        "throughput",
        0.0,
        "points",
        True,
        _throughput_errors,
    ),
    _throughput_memory(TOGETHER, 600.0),
    _throughput_memory(FEW, 450.0),
    Target(
        "a clip of 3 s beside a recording of an hour, against alone, the slowest of ten",
        "fairness",
        3.0,
        "x",
        True,
        lambda result: float(result["ratio_most"]),
    ),
    Target("12 hours: more memory than for one", "memory", 16.0, "MB", True, _more_for_longer),
    Target(
        "12 hours: from cancel to the end",
        "memory",
        1000.0,
        "ms",
        True,
        lambda result: max(result["cancel_s"]) * 1000,
    ),
)
