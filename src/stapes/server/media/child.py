"""A media process: receives open files, sends their samples. Imports the audio package only.

It decodes a little of each usual format first, so that all libraries are loaded; then it gives up its rights: no file
and no connection can be opened any more, no process started, and memory is bounded.
"""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, Final

import av
import numpy as np

from stapes.audio.load import decode_into
from stapes.audio.source import ByteSource
from stapes.errors import StapesError
from stapes.options import Audio
from stapes.server.media import frames, seccomp

_PR_SET_PDEATHSIG: Final = 1
#: memory beyond what is taken when it is ready
_MORE_MEMORY_BYTES: Final = 512 << 20
_MAX_REQUEST_BYTES: Final = 16 << 10
_SENT_BYTES: Final = 64 << 10
#: format, encoder, sampling rate
_WARM: Final = (
    ("wav", "pcm_s16le", 16_000), ("mp3", "libmp3lame", 44_100), ("flac", "flac", 44_100), ("ogg", "libopus", 48_000),
    ("ogg", "libvorbis", 44_100), ("mp4", "aac", 44_100), ("webm", "libopus", 48_000),
)  # fmt: skip


def main(descriptor: int, max_memory_bytes: int = _MORE_MEMORY_BYTES) -> None:
    """Work until the server closes the connection."""
    connection = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    if sys.platform.startswith("linux"):
        seccomp.set_process_property(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for container, codec, rate in _WARM:
        with suppress(Exception):  # an encoder that this build of FFmpeg lacks; its decoder is loaded later, or refused
            decode_into(ByteSource(io.BytesIO(_tone(container, codec, rate)), "warm"), Audio(), lambda _: None)
    gc.collect()
    held = give_up_rights(max_memory_bytes)
    frames.send(connection, frames.READY, json.dumps(held).encode())
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            _serve(connection, held)


def _serve(connection: socket.socket, held: dict[str, bool]) -> None:
    """Receive a file, and send its samples."""
    body, files, _, _ = socket.recv_fds(connection, _MAX_REQUEST_BYTES, 1)
    if not body:
        raise EOFError
    request = json.loads(body)
    if request.get("test"):
        frames.send(connection, frames.TESTED, json.dumps({"limits": held, "refused": tried()}).encode())
        return
    waiting = bytearray()  # many blocks are small

    def write(block: memoryview) -> None:
        waiting.extend(block)
        if len(waiting) >= _SENT_BYTES:
            frames.send(connection, frames.SAMPLES, waiting)
            waiting.clear()

    with os.fdopen(files[0], "rb") as file:
        source = ByteSource(file, request["label"], suffix=request["suffix"])
        try:
            source.refuse_empty()
            warnings, spans = decode_into(source, Audio(**request["audio"]), write)
        except StapesError as error:
            frames.send(connection, frames.REFUSED, str(error)[: frames.MAX_NOTE_LENGTH].encode("utf-8", "replace"))
            return
    frames.send(connection, frames.SAMPLES, waiting)
    frames.send(connection, frames.DONE, frames.Notes(tuple(warnings), tuple(spans)).to_bytes())


def give_up_rights(max_memory_bytes: int) -> dict[str, bool]:
    """Bound what this process can do; return what holds here. Cannot be undone."""
    import resource  # noqa: PLC0415 (not on Windows)

    held = {}
    os.nice(10)
    highest = max(int(name) for name in os.listdir("/dev/fd")) + 1  # noqa: PTH208 (numbers)
    limits = {
        "open files": (resource.RLIMIT_NOFILE, highest + 2),
        "file size": (resource.RLIMIT_FSIZE, 0),
        "core dumps": (resource.RLIMIT_CORE, 0),
        "memory": (resource.RLIMIT_DATA, _data_bytes() + max_memory_bytes),
    }
    if hasattr(resource, "RLIMIT_NPROC"):
        limits["processes"] = (resource.RLIMIT_NPROC, 0)
    for name, (which, most) in limits.items():
        try:
            resource.setrlimit(which, (most, most))
            held[name] = True
        except (OSError, ValueError):
            held[name] = False
    held["system calls (seccomp)"] = seccomp.install()
    return held


def _data_bytes() -> int:
    """Return what this process has of private memory, where the system says so."""
    with suppress(OSError, IndexError, ValueError), open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    return 256 << 20


def tried() -> dict[str, bool]:
    """Try what must be refused; return for each whether it was."""

    def is_refused(what: Any) -> bool:
        try:
            what()
        except (OSError, MemoryError):
            return True
        return False

    return {
        "opening a file": is_refused(lambda: open(sys.executable, "rb")),  # noqa: PTH123
        "writing a file": is_refused(lambda: open("stapes-test", "wb")),  # noqa: PTH123
        "opening a connection": is_refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
        "starting a process": is_refused(lambda: os._exit(0) if os.fork() == 0 else None),
        "taking 1 GiB of memory": is_refused(lambda: np.ones(1 << 30, np.uint8)),
    }


def _tone(container: str, codec: str, rate: int) -> bytes:
    """Return a tenth of a second of sound in this format."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=rate)
        stream.layout = "mono"
        samples = (3000 * np.sin(np.arange(rate // 10) * 0.05)).astype(np.int16)[np.newaxis]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    return file.getvalue()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
