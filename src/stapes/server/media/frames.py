"""What goes between the server and a media process: frames of a letter, a length, and so many bytes."""

from __future__ import annotations

import json
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any, Final

from stapes.errors import AudioError, StapesError

_HEAD: Final = struct.Struct("!cI")
MAX_FRAME_BYTES: Final = 1 << 20
#: of a child: ready, samples (int16), an error of the file, the end with notes, the result of a test of its limits
READY, SAMPLES, REFUSED, DONE, TESTED = b"R", b"S", b"E", b"D", b"T"
MAX_NOTES, MAX_NOTE_LENGTH = 100, 2000


class FrameError(Exception):
    """What came is no frame; the other side is not to be trusted any more."""


def send(connection: socket.socket, kind: bytes, body: bytes | bytearray = b"") -> None:
    """Send a frame, or several of its kind where it is large."""
    data = bytes(body)
    for start in range(0, max(len(data), 1), MAX_FRAME_BYTES):
        part = data[start : start + MAX_FRAME_BYTES]
        connection.sendall(_HEAD.pack(kind, len(part)) + part)


def receive(connection: socket.socket, timeout_s: float) -> tuple[bytes, bytes]:
    """Receive a whole frame within so many seconds: its kind and its body.

    Raises FrameError, EOFError, TimeoutError, OSError.
    """
    ends_at = time.monotonic() + timeout_s
    kind, length = _HEAD.unpack(_exactly(connection, _HEAD.size, ends_at))
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {length} bytes")
    return kind, _exactly(connection, length, ends_at)


def _exactly(connection: socket.socket, size: int, ends_at: float) -> bytes:
    data = bytearray()
    while len(data) < size:
        connection.settimeout(
            max(ends_at - time.monotonic(), 0.001)
        )  # 0 would not wait at all, and raise another error
        if not (part := connection.recv(min(size - len(data), 1 << 18))):
            raise EOFError
        data += part
    return bytes(data)


@dataclass(frozen=True, slots=True)
class Notes:
    """What a decoded file was like: warnings, and the pieces of its container's time, in samples."""

    warnings: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]

    def to_bytes(self) -> bytes:
        """Return them as JSON."""
        shown = [one[:MAX_NOTE_LENGTH] for one in self.warnings[:MAX_NOTES]]
        return json.dumps({"warnings": shown, "spans": self.spans}).encode()

    @classmethod
    def of(cls, body: bytes, n_samples: int) -> Notes:
        """Read and check them. Raises FrameError."""
        try:
            values: Any = json.loads(body)
            warnings = tuple(values["warnings"])
            spans = tuple((int(start), int(end)) for start, end in values["spans"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise FrameError("notes that cannot be read") from error
        are_texts = len(warnings) <= MAX_NOTES and all(isinstance(one, str) for one in warnings)
        edges = [0, *(edge for span in spans for edge in span)]
        are_in_order = edges == sorted(edges) and all(start < end for start, end in spans)
        if not (are_texts and are_in_order) or (spans and sum(end - start for start, end in spans) != n_samples):
            raise FrameError("notes that do not fit the samples")
        return cls(warnings, spans)


class MediaUnavailableError(StapesError):
    """No media process could be started: not the file's fault."""

    http_status = 503


class MediaFaultError(AudioError):
    """The decoder stopped, or did what it may not."""
