"""docs/trust.md: what the server must hold, what was measured, and the command that measures it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.page import machine_of, prose, table

Row = tuple[str, str, str]  # what, the figure, what it must be

_INTRO = """\
The server is measured as a client sees it: its process beside the client's, on one machine, so that both share its
cores. `latency`, `beside`, `throughput`, `sizing` and `others` use a real model (base), the rest scripted ones. A part
is measured by `python -m benchmarks.server --parts PART`; its figure is from the newest run that has it.
"""
_HELD = (
    (
        "every answer and event has the types of OpenAI's client, strictly",
        "`tests/server/test_official_client.py`, `tests/server/test_answers.py`",
    ),
    (
        "what the OpenAPI document allows, and what it does not, gets a documented answer (schemathesis)",
        "`tests/server/test_document.py`",
    ),
    (
        "slow heads, slow bodies, full queues, clients that go away, pages of other sites",
        "`tests/server/test_defence.py`",
    ),
    ("hostile files: mutated, playlists, too long; processes killed and stopped", "`tests/server/test_media.py`"),
    (
        "a server that is killed goes on with its jobs, each event once (2 kills; 20 with `make random`)",
        "`tests/server/test_jobs.py`",
    ),
)


def trust(newest_first: Sequence[dict[str, Any]]) -> str:
    """Return the page."""
    parts: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for result in newest_first:
        if result["kind"] == "server":
            for name, found in result["parts"].items():
                parts.setdefault(name, (found, result))
    rows = [
        (what, figure, must, f"`{name}`", str(parts[name][1]["machine"]["date"]))
        for name, write in _ROWS.items()
        if name in parts
        for what, figure, must in write(parts[name][0], parts[name][1]["settings"])
    ]
    machines = sorted({machine_of(result["machine"]) for _, result in parts.values()})
    held = f"## Held by tests\n\n{table(('what', 'test'), _HELD)}"
    head = ("what", "measured", "must be", "part", "date")
    sizing = _sizing(parts["sizing"][0]) if "sizing" in parts else ""
    return "\n".join(
        ["# What the server holds\n", _INTRO, *(f"{prose(one)}\n" for one in machines), table(head, rows), sizing, held]
    )


def _sizing(found: dict[str, Any]) -> str:
    """Return the table of requests at once against latency."""
    rows = [
        (clients, f"{one['median_s']} s", f"{one['p95_s']} s", str(one["times_real_time"]))
        for clients, one in found.items()
    ]
    head = ("clients", "median answer", "95th percentile", "audio seconds a second")
    return (
        "## Sizing\n\nClients that each send clips of 10 s, one after another (part `sizing`). A machine that has to "
        "keep an answer\nwithin a time serves as many at once as the table says; more of them wait in the queue.\n\n"
        f"{table(head, rows)}"
    )


def _overload(found: dict[str, Any], _: Any) -> Iterator[Row]:
    yield "100 requests at once, room for 10: accepted", str(found["accepted"]), "10"
    yield "refused with 429", str(found["refused"]), "90"
    yield "from the head to the refusal, 99th percentile", f"{found['refused_p99_ms']} ms", "50 ms at most"
    yield "health meanwhile, slowest", f"{found['health_most_ms']} ms", "100 ms at most"
    yield "the client's share of a core", f"{found['client_cpu_share']:.0%}", ""


def _refused(found: dict[str, Any], _: Any) -> Iterator[Row]:
    yield "1 GB without a key: answer", str(found["status"]), "401"
    yield "sent before the answer", f"{found['sent_before_kb']} KB", "64 KB at most"
    yield "read, and thrown away, before the connection was closed", f"{found['read_mb']} MB", ""


def _bomb(found: dict[str, Any], _: Any) -> Iterator[Row]:
    yield f"8 hours of Opus in {found['body_mb']} MB: answer", f"{found['status']} {found['code']}", "413"
    yield "most memory of a media process meanwhile", f"{found['media_peak_mb']} MB", "bounded"
    yield "memory of the server after it", f"{found['server_grew_mb']:+.1f} MB", "bounded"


def _others(found: dict[str, Any], _: Any) -> Iterator[Row]:
    figure = (
        f"{found['ratio']} times as fast ({found['stapes_times_real_time']} and "
        f"{found['faster_whisper_times_real_time']} times real time)"
    )
    yield "16 requests of 10 s at once: beside faster-whisper (int8, its defaults)", figure, ""


def _latency(found: dict[str, Any], _: Any) -> Iterator[Row]:
    for kind, name in (("real", "a real model"), ("scripted", "no model work")):
        one = found[kind]
        figure = f"{one['added_ms']} ms (the engine alone: {one['engine_ms']} ms)"
        yield f"added to the engine's own time for a clip of 3 s, {name}, median", figure, "15 ms at most"


def _beside(found: dict[str, Any], settings: dict[str, Any]) -> Iterator[Row]:
    what = f"50 clips of 3 s while {settings['hour']:g} minutes are decoded: 95th percentile, in times of one alone"
    yield what, f"{found['p95_times_alone']} ({found['p95_ms']} ms)", "3 at most"


def _throughput(found: dict[str, Any], _: Any) -> Iterator[Row]:
    for name, one in found.items():
        what = f"requests of {name.replace('_', ' ')} at once: rate, of the engine's own batch"
        yield what, f"{one['ratio']:.0%} ({one['server']} times real time)", "88 % at least"


def _gone(found: dict[str, Any], _: Any) -> Iterator[Row]:
    for name in ("threads", "files"):
        yield f"{name} after 1,000 clients that went away", str(found["after"][name]), str(found["before"][name])
    grown = (found["after"]["memory_kb"] - found["before"]["memory_kb"]) / 1024
    yield "memory after them", f"{grown:+.1f} MB", ""


def _soak(found: dict[str, Any], settings: dict[str, Any]) -> Iterator[Row]:
    what = f"{settings['minutes']:g} minutes of mixed load, {found['faults']} faults: unexpected answers"
    figure = f"{sum(found['unexpected'].values())} of {found['requests']}"
    yield what, figure, "0"
    yield "memory after it", f"{found['growth_mb']:+.1f} MB", "64 MB at most"


_ROWS: Mapping[str, Callable[[dict[str, Any], dict[str, Any]], Iterator[Row]]] = {
    "overload": _overload,
    "refused": _refused,
    "bomb": _bomb,
    "latency": _latency,
    "beside": _beside,
    "throughput": _throughput,
    "others": _others,
    "gone": _gone,
    "soak": _soak,
}
