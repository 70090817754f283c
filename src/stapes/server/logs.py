"""Logs of the server: a line or a JSON object for each request. No transcript, no query string, no key."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from typing import Final

from stapes.errors import StapesWarning

LOGGER: Final = logging.getLogger("stapes.server")
#: attributes of a record that are shown beside its message
_SHOWN: Final = (
    "request_id",
    "job",
    "state",
    "method",
    "path",
    "status",
    "seconds",
    "key",
    "client",
    "model",
    "audio_s",
    "warnings",
    "error",
)


class TextFormatter(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with what is known beside the message as name=value."""
        shown = " ".join(f"{name}={_plain(value)}" for name, value in _values(record).items())
        line = super().format(record)
        first, newline, rest = line.partition("\n")  # a traceback stays below
        return f"{first} {shown}{newline}{rest}" if shown else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        values: dict[str, object] = {"time": f"{when}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        values |= {"logger": record.name, "message": record.getMessage()} | _values(record)
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return json.dumps(values)


def set_up(*, as_json: bool) -> None:
    """Send the logs of the server, of uvicorn's errors and of Python's warnings to standard error.

    Warnings on requests are left out: they quote what clients sent, and Python remembers each text that it has shown.
    """
    warnings.filterwarnings("ignore", category=StapesWarning)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logging.captureWarnings(True)
    for name, level in (("stapes.server", "INFO"), ("uvicorn", "WARNING"), ("py.warnings", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def _values(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name in _SHOWN if (value := getattr(record, name, None)) is not None}


def _plain(value: object) -> str:
    """Write a value on one line, in quotation marks where it has spaces."""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return json.dumps(text) if not text.isprintable() or " " in text else text
