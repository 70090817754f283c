"""`stapes batch`: a manifest of recordings, here or on a cluster. The flags and what is shown; `stapes.batch` works."""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final, NoReturn

from stapes.cli.command import checked_device, known_value, transcribe_options
from stapes.cli.flags import DEFAULT_MODEL, DEVICE_HELP, Parser, add_group, boolean, join_spellings, number, whole
from stapes.cli.help import PageFormatter
from stapes.cli.json_lines import write_event
from stapes.cli.output import StoppedError, our_line, say, send, warnings_caught
from stapes.cli.progress import bar_is_possible
from stapes.errors import OptionError
from stapes.options import GROUPS, PRECISIONS, TranscribeOptions, option_fields
from stapes.output.writers import WRITERS, format_names

if TYPE_CHECKING:
    from stapes.batch.driver import BatchRequest
    from stapes.batch.progress import Counts, Event
    from stapes.batch.status import Status

_USAGE: Final = """\
stapes batch MANIFEST -o OUT [flags]
       stapes batch status OUT [--json]"""
_DESCRIPTION: Final = """\
Transcribes a manifest of recordings: on this machine, or on a cluster of Ray,
Dask or Spark. The same command again goes on where it was.

Examples:
  stapes batch talks.txt -o texts              a path or an address on each line
  stapes batch calls.csv -o texts -f srt,json  options of each row in columns
  find . -name '*.mp3' | stapes batch - -o texts
  stapes batch s3://bucket/list.jsonl -o s3://bucket/texts -f parquet
  stapes batch list.csv -o texts --engine ray --address auto
  stapes batch status texts                    what is done, what has failed

docs/scale.md has the rest: kinds of manifests, what is in OUT, tries, clusters.
"""
_ENGINES: Final = ("local", "ray", "dask", "spark")
_KINDS: Final = ("lines", "csv", "tsv", "jsonl", "parquet")
_PROGRESS: Final = ("auto", "bar", "json", "none")
_MOST_SHOWN: Final = 20  # failed rows, and refused lines
_EXIT_FAILED: Final = 2
_EXIT_STOPPED: Final = 130
_EXIT_TERMINATED: Final = 143
_HOUR_S: Final = 3600.0


def run_batch_command(words: Sequence[str]) -> int:
    """Run `stapes batch ...` and return the exit code. Raises StapesError."""
    if words[:1] == ["status"]:
        return _run_status(words[1:])
    request, progress = read_request(words)
    from stapes.batch.driver import run_batch  # noqa: PLC0415 (NumPy comes with it: not for --help)

    show: _JsonLines | _Lines = _JsonLines() if progress == "json" else _Lines(progress)
    with warnings_caught(show.warn), _sigterm_stops() as terminated:
        try:
            counts = run_batch(request, show)
        except KeyboardInterrupt:
            raise StoppedError(_EXIT_TERMINATED if terminated.is_set() else _EXIT_STOPPED) from None
    return _EXIT_FAILED if counts.failed or counts.refused else 0


@contextmanager
def _sigterm_stops() -> Iterator[threading.Event]:
    """Treat SIGTERM like Ctrl-C: what is in work is given up in good order."""
    terminated = threading.Event()

    def stop(*_: Any) -> NoReturn:
        terminated.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)


def read_request(words: Sequence[str]) -> tuple[BatchRequest, str]:
    """Return what a command line asks for, and how to show progress. Raises OptionError."""
    values = vars(parser().parse_intermixed_args(join_spellings(words)))
    from stapes.batch.driver import BatchRequest, output_formats  # noqa: PLC0415 (as above)

    if values["output_dir"] is None:
        raise OptionError("give the folder of the outputs: stapes batch MANIFEST -o OUT")
    formats = tuple(one.strip().lower() for one in values["output_format"].split(","))
    formats = output_formats(formats if "parquet" in formats else format_names(values["output_format"]))
    for name in ("workers", "threads", "batch_size", "tries", "concurrency"):
        if values[name] is not None and values[name] < 1:
            raise OptionError(f"--{name} must be at least 1, got {values[name]}")
    for name in ("fetch_timeout", "max_duration", "price_per_hour"):
        if values[name] is not None and not values[name] > 0:
            raise OptionError(f"--{name} must be more than 0, got {values[name]:g}")
    request = BatchRequest(
        **{name: values[name] for name in (
            "manifest", "engine", "address", "insecure_cluster", "workers", "threads", "model", "retry_failed",
            "concurrency", "price_per_hour",
        )},
        out=values["output_dir"], kind=values["manifest_format"], formats=formats, chunk_rows=values["batch_size"],
        precision=known_value("precision", values["precision"], ("auto", *PRECISIONS)),
        device=checked_device(values["device"]), options=json_options(transcribe_options(values)),
        most_tries=values["tries"], fetch_timeout_s=values["fetch_timeout"], max_duration_s=values["max_duration"],
    )  # fmt: skip
    return request, values["progress"]


def json_options(options: TranscribeOptions) -> dict[str, Any]:
    """Return the keywords that give these options, as JSON has them: those that are not at their defaults."""
    plain = TranscribeOptions()
    keywords: dict[str, Any] = {}
    for group, item in option_fields():
        value = getattr(getattr(options, group), item.name)
        if value != getattr(getattr(plain, group), item.name):
            keywords[item.name] = value
    keywords = dict(json.loads(json.dumps(keywords)))
    assert TranscribeOptions.from_keywords(keywords) == options
    return keywords


class _JsonLines:
    """Writes events as JSON, one object a line, to standard error."""

    def __call__(self, event: Event) -> None:
        from stapes.batch import progress  # noqa: PLC0415 (as above)

        match event:
            case progress.Began():
                write_event("batch_start", **asdict(event))
            case progress.RowFailed():
                write_event("row_failed", **asdict(event))
            case progress.Refused():
                write_event("line_refused", **asdict(event))
            case progress.Noted(message=message, is_warning=is_warning):
                write_event("warning" if is_warning else "note", message=message)
            case progress.Counts():
                write_event("batch_summary" if event.is_last else "progress", **_counts(event))

    def warn(self, message: str) -> None:
        """Write a warning."""
        write_event("warning", message=message)


def _counts(counts: Counts) -> dict[str, Any]:
    names = ("rows", "done", "failed", "refused", "duplicates")
    values: dict[str, Any] = {name: getattr(counts, name) for name in names}
    values["audio_hours"] = round(counts.audio_s / _HOUR_S, 4)
    values["times_real_time"] = round(counts.times_real_time, 2)
    values["elapsed_s"] = round(counts.elapsed_s, 3)
    if counts.is_last:
        values |= {
            "audio_hours_now": round(counts.audio_now_s / _HOUR_S, 4),
            "failures": dict(counts.reasons.most_common()),
            "machines": counts.machines,
            "workers": len(counts.workers),
            "sets": dict(counts.sets),
            "cost": None if counts.cost is None else round(counts.cost, 4),
        }
    return values


class _Lines:
    """Writes events in words to standard error; on a terminal the counts stay on one line."""

    def __init__(self, progress: str) -> None:
        self._quiet = progress == "none"
        self._redraws = progress in ("auto", "bar") and bar_is_possible()
        self._shown = ""
        self._n_failed = self._n_refused = 0

    def __call__(self, event: Event) -> None:
        from stapes.batch import progress  # noqa: PLC0415 (as above)

        match event:
            case progress.Began() if not self._quiet:
                self._say(f"{event.rows:,} recordings, {event.model} in {event.precision}, engine {event.engine}")
            case progress.RowFailed():
                self._n_failed += 1
                self._say_some(self._n_failed, f"{event.id}: {event.error} ({event.reason})", "failures")
            case progress.Refused():
                self._n_refused += 1
                self._say_some(self._n_refused, f"line {event.line} is refused: {event.reason}", "lines")
            case progress.Noted(message=message, is_warning=is_warning):
                if is_warning or not self._quiet:
                    self._say(f"warning: {message}" if is_warning else message)
            case progress.Counts() if event.is_last:
                for line in summary(event):
                    self._say(line)
            case progress.Counts() if self._redraws:
                ended = event.done + event.failed
                text = f"{ended:,} of {event.rows:,} recordings, {event.audio_s / _HOUR_S:,.1f} hours of audio"
                self._redraw(f"{text}, {event.times_real_time:.0f} times real time")

    def warn(self, message: str) -> None:
        """Write a warning."""
        self._say(f"warning: {message}")

    def _say(self, message: str) -> None:
        self._redraw("")
        say(message)

    def _say_some(self, count: int, message: str, what: str) -> None:
        if count <= _MOST_SHOWN:
            self._say(message)
        elif count == _MOST_SHOWN + 1:
            self._say(f"further {what} are in the output folder: 'stapes batch status OUT' counts them")

    def _redraw(self, text: str) -> None:
        """Replace the line of counts."""
        if not self._redraws or text == self._shown:
            return
        import shutil  # noqa: PLC0415 (as above)
        import sys  # noqa: PLC0415 (as above)

        line = our_line(text)[: shutil.get_terminal_size().columns - 1] if text else ""
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
        self._shown = text


def summary(counts: Counts) -> Iterator[str]:
    """Yield what a batch has done, in lines."""
    reasons = ", ".join(f"{name} {count:,}" for name, count in counts.reasons.most_common())
    text = f"{counts.done:,} of {counts.rows:,} recordings done, {counts.failed:,} failed"
    text += f" ({reasons})" if reasons else ""
    text += f", {counts.refused:,} lines refused" if counts.refused else ""
    text += f", {counts.duplicates:,} rows repeat others" if counts.duplicates else ""
    yield text
    here = f"this run: {counts.audio_now_s / _HOUR_S:,.2f} hours of audio in {_duration(counts.elapsed_s)}"
    machines = f"{counts.machines} machine{'s' if counts.machines != 1 else ''}"
    workers = f"{len(counts.workers)} worker{'s' if len(counts.workers) != 1 else ''}"
    yield f"{here}, {counts.times_real_time:.1f} times real time, {workers} on {machines}"
    if counts.cost is not None:
        yield f"cost of this run: {counts.cost:,.2f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _run_status(words: Sequence[str]) -> int:
    made = Parser(prog="stapes batch status", formatter_class=PageFormatter, add_help=False)
    made.add_argument("out", metavar="OUT", help="the output folder of a batch")
    made.add_argument("--json", action="store_true", help="one JSON object")
    made.add_argument("--failures", type=whole, metavar="N", default=20, help="show so many failures (default: 20)")
    made.add_argument("--help", "-h", action="help", help="show this page")
    arguments = made.parse_args(join_spellings(words))
    from stapes.batch.driver import check_packages  # noqa: PLC0415 (as above)
    from stapes.batch.place import Place  # noqa: PLC0415 (as above)
    from stapes.batch.status import read_status  # noqa: PLC0415 (as above)

    check_packages("local")
    status = read_status(Place(arguments.out), arguments.failures)
    if arguments.json:
        values = {item.name: getattr(status, item.name) for item in fields(status)}  # `asdict` copies no Counter
        values |= {"settings": asdict(status.settings), "failures": [asdict(one) for one in status.failures]}
        send(json.dumps(values) + "\n")
    else:
        send("".join(f"{line}\n" for line in _status_lines(status)))
    return 0


def _status_lines(status: Status) -> Iterator[str]:
    settings = status.settings
    yield f"{settings.model} in {settings.precision}, as {', '.join(settings.formats)}, stapes {settings.stapes}"
    counts = [f"{count:,} {state}" for state, count in sorted(status.rows.items()) if count]
    yield f"rows: {', '.join(counts) or 'none yet'}; {status.audio_s / _HOUR_S:,.2f} hours of audio are done"
    if status.refused:
        yield f"refused lines of the manifest: {status.refused:,} (refused.jsonl)"
    if status.reasons:
        yield f"failed: {', '.join(f'{name} {count:,}' for name, count in status.reasons.most_common())}"
    for one in status.failures:
        yield f"  {one.id}: {one.error} ({one.reason})"
    if (left := status.reasons.total() - len(status.failures)) > 0:
        yield f"  and {left:,} more; --failures {status.reasons.total()} shows all"
    if status.driver is not None:
        yield f"in work: {status.driver}, seen {status.seen_s:.0f} s ago"
    elif status.seen_s is not None:
        yield f"the last command on it has ended without a word, {_duration(status.seen_s)} ago; run it again"


def parser() -> argparse.ArgumentParser:
    """Make the parser and its help page."""
    made = Parser(
        prog="stapes batch", usage=_USAGE, description=_DESCRIPTION, formatter_class=PageFormatter, add_help=False
    )
    made.add_argument("manifest", metavar="MANIFEST", help=argparse.SUPPRESS)
    _add_places(made.add_argument_group("Input and output").add_argument)
    _add_workers(made.add_argument_group("Workers").add_argument)
    _add_model(made.add_argument_group("Model").add_argument)
    for name, group in GROUPS.items():
        add_group(made.add_argument_group(name.capitalize(), (group.__doc__ or "").partition("\n")[0]), group)
    made.add_argument_group("Others").add_argument("--help", "-h", action="help", help="show this page")
    return made


Add = Callable[..., Any]


# fmt: off
def _add_places(add: Add) -> None:
    add("--output_dir", "-o", metavar="OUT",
        help="folder or address of the outputs and the ledger; empty, or that of the same batch")
    add("--output_format", "-f", metavar="FORMAT", default="json",
        help=f"one or several of {', '.join(WRITERS)}, with commas between them, or parquet (default: json)")
    add("--manifest_format", choices=_KINDS, metavar="|".join(_KINDS),
        help="kind of the manifest (default: None, by its suffix)")
    add("--progress", choices=_PROGRESS, default=_PROGRESS[0], metavar="|".join(_PROGRESS),
        help="on standard error: counts on a terminal, one JSON object a line, or failures alone (default: auto)")
    add("--retry_failed", action="store_true", help="begin failed rows anew (default: False)")
    add("--tries", type=whole, default=3, metavar="N",
        help="tries of a recording that ends its worker, or cannot be fetched (default: 3)")
    add("--fetch_timeout", type=number, default=60.0, metavar="SECONDS",
        help="give up a fetch that brings no byte for so long (default: 60)")
    add("--max_duration", type=number, metavar="SECONDS", help="refuse longer recordings (default: None)")
    add("--price_per_hour", type=number, metavar="X",
        help="price of one machine, for the cost in the summary (default: None)")


def _add_workers(add: Add) -> None:
    add("--engine", choices=_ENGINES, default=_ENGINES[0], metavar="|".join(_ENGINES),
        help="what carries recordings to workers (default: local)")
    add("--address", metavar="ADDRESS",
        help="a running cluster: auto (Ray), tls://host:8786 (Dask), spark://host:7077 (default: None, this machine)")
    add("--insecure_cluster", action="store_true",
        help="allow a cluster that takes commands without a token or certificate (default: False)")
    add("--workers", type=whole, metavar="N",
        help="processes, each with an engine (default: None, one here, or all that the cluster holds)")
    add("--threads", type=whole, metavar="N", help="cores of one worker (default: None, all, shared by the workers)")
    add("--batch_size", type=whole, metavar="N",
        help="recordings that a worker takes at once (default: None, 32, or fewer where there are few)")
    add("--concurrency", type=whole, metavar="N", help="recordings at once in one engine (default: None, 16 at most)")


def _add_model(add: Add) -> None:
    add("--model", default=DEFAULT_MODEL, metavar="MODEL",
        help=f"a name, a hub id, a path that all machines have, or an address (default: {DEFAULT_MODEL})")
    add("--device", default="auto", metavar="DEVICE", help=f"{DEVICE_HELP} (default: auto)")
    add("--precision", default="auto", metavar="PRECISION",
        help="float32 (exact), float16 (GPUs), bfloat16, int8 (CPUs); auto is resolved once (default: auto)")
    add("--fp16", type=boolean, default=True, metavar="True|False", help="without effect (default: True)")
# fmt: on
