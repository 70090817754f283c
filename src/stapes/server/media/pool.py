"""The media processes of a server: started, fed one file at a time each, replaced after a fault or many files.

The server trusts nothing that comes from them: frames are bounded, samples counted, notes checked.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import stapes
from stapes.audio import SAMPLE_RATE, Recording, SampleWriter
from stapes.errors import AudioError, AudioTooLongError, OptionError
from stapes.options import Audio
from stapes.server.media import frames
from stapes.server.media.frames import FrameError, MediaFaultError, MediaUnavailableError

_CHILD: Final = "stapes.server.media.child"
_LONGEST_LABEL, _LONGEST_SUFFIX = 1000, 20
#: whether limits on memory do not hold here
_WATCHES_MEMORY: Final = sys.platform == "darwin"
_MEMORY_LIMIT_BYTES: Final = 32 << 20  # of samples; the rest of a longer recording is in a temporary file


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """The bounds of a media process."""

    max_files: int = 200  # until it is replaced
    start_timeout_s: float = 60.0
    silence_timeout_s: float = 60.0  # without a whole frame
    file_timeout_s: float = 900.0
    cpu_s: int = 600  # of one file
    memory_bytes: int = 512 << 20  # beyond what it takes when it begins
    resident_bytes: int = 768 << 20  # in all, where the server has to watch it


class Child:
    """One media process. Its methods block; one thread at a time."""

    def __init__(self, limits: MediaLimits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._n_files = 0
        self.held: dict[str, bool] = {}

    def start(self) -> None:
        """Start the process, and wait until it is ready. Raises MediaUnavailableError."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", _CHILD, str(theirs.fileno()), str(self._limits.memory_bytes)]
            self._process = subprocess.Popen(  # noqa: S603 (our own module)
                command, pass_fds=[theirs.fileno()], env=_environment(), cwd="/", stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, close_fds=True,
            )  # fmt: skip
        self._connection, self._n_files = ours, 0
        try:
            kind, body = frames.receive(ours, self._limits.start_timeout_s)
            if kind != frames.READY:
                raise FrameError("not ready")
            self.held = json.loads(body)
        except (FrameError, EOFError, OSError, ValueError) as error:
            self.kill()
            raise MediaUnavailableError(f"a media process did not start ({type(error).__name__} {error})") from error

    def decode(
        self, file: int, label: str, suffix: str, audio: Audio, max_duration_s: float, check: Callable[[], None]
    ) -> Recording:
        """Decode an open file. check: called now and then; what it raises ends that.

        A process that ends before it has sent anything, or is killed, may have ended for another reason than the file:
        another one tries once more, also where the first did not start. Raises AudioError, MediaUnavailableError.
        """
        try:
            return self._decode(file, label, suffix, audio, max_duration_s, check)
        except (EndedError, MediaUnavailableError):
            check()
            os.lseek(file, 0, os.SEEK_SET)
        try:
            return self._decode(file, label, suffix, audio, max_duration_s, check)
        except EndedError as error:
            raise MediaFaultError(str(error)) from error

    def _decode(
        self, file: int, label: str, suffix: str, audio: Audio, max_duration_s: float, check: Callable[[], None]
    ) -> Recording:
        """Decode a file with one process. Raises EndedError where that has ended, perhaps not because of the file."""
        if self._process is None or self._process.poll() is not None or self._n_files >= self._limits.max_files:
            self.kill()
            self.start()
        self._n_files += 1
        writer = SampleWriter("i2", memory_limit_bytes=_MEMORY_LIMIT_BYTES)
        try:
            self._limit_cpu()
            request: dict[str, object] = {
                "label": label[:_LONGEST_LABEL],
                "suffix": suffix[:_LONGEST_SUFFIX],
                "audio": asdict(audio),
            }
            self._request(file, request)
            return self._collect(writer, label, max_duration_s, check)
        except frames_end as error:
            n_samples, code = writer.n_samples, self._exit_code()
            self.kill()
            writer.discard()
            what = "took too long" if isinstance(error, TimeoutError) else "stopped"
            message = f"{label}: could not be decoded: the decoder {what}; the file may be damaged"
            if not isinstance(error, TimeoutError) and (not n_samples or code == -signal.SIGKILL):
                raise EndedError(message) from error
            raise MediaFaultError(message) from error
        except RefusedError as refused:
            writer.discard()
            raise AudioError(str(refused)) from None
        except BaseException:  # too long, cancelled, no room on the disk: what it still sends belongs to nothing
            self.kill()
            writer.discard()
            raise

    def _exit_code(self) -> int | None:
        """Return how the process has ended, if it ends at once."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(1.0)
        return None

    def _collect(self, writer: SampleWriter, label: str, max_duration_s: float, check: Callable[[], None]) -> Recording:
        assert self._connection is not None
        ends_at = time.monotonic() + self._limits.file_timeout_s
        while True:
            check()
            if time.monotonic() > ends_at:
                raise TimeoutError
            kind, body = frames.receive(self._connection, self._limits.silence_timeout_s)
            if kind == frames.SAMPLES and len(body) % 2 == 0:
                writer.write(body)
                if writer.n_samples > max_duration_s * SAMPLE_RATE:
                    raise AudioTooLongError(f"{label}: longer than the {max_duration_s:g} s that are allowed")
            elif kind == frames.DONE:
                notes = frames.Notes.of(body, writer.n_samples)
                return writer.finish(label, warnings=notes.warnings, spans=notes.spans)
            elif kind == frames.REFUSED:
                raise RefusedError(body.decode("utf-8", "replace")[: frames.MAX_NOTE_LENGTH])
            else:
                raise FrameError(f"a frame of kind {kind!r}")

    def test(self) -> dict[str, dict[str, bool]]:
        """Have the process try what it may not; return which limits it has, and what was refused.

        Raises MediaFaultError.
        """
        if self._connection is None:
            self.start()
        try:
            assert self._connection is not None
            self._connection.sendall(b'{"test": true}')
            return dict(json.loads(frames.receive(self._connection, self._limits.silence_timeout_s)[1]))
        except (FrameError, EOFError, OSError, ValueError) as error:
            raise MediaFaultError(f"a media process ended in its own test ({type(error).__name__})") from error
        finally:
            self.kill()

    def kill(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def check_memory(self) -> None:
        """End the process if it has taken more than it may: for systems whose limits do not hold (macOS)."""
        process = self._process
        if process is not None and self._n_files and _resident_bytes(process.pid) > self._limits.resident_bytes:
            process.kill()

    def interrupt(self) -> None:
        """End the process from another thread, so that `decode` there ends."""
        process = self._process
        if process is not None:
            process.kill()

    def _request(self, file: int, values: dict[str, object]) -> None:
        assert self._connection is not None
        self._connection.settimeout(self._limits.silence_timeout_s)
        socket.send_fds(self._connection, [json.dumps(values).encode()], [file])

    def _limit_cpu(self) -> None:
        """Allow so much CPU time for a file, from here on: the process cannot change it."""
        import resource  # noqa: PLC0415 (not on Windows)

        if hasattr(resource, "prlimit") and self._process is not None:
            with suppress(OSError, ValueError):
                used_s = _cpu_seconds(self._process.pid)
                resource.prlimit(self._process.pid, resource.RLIMIT_CPU, (used_s + self._limits.cpu_s, -1))


class EndedError(Exception):
    """A process has ended."""


class RefusedError(Exception):
    """The file was refused, with a message."""


#: what a process that stopped or misbehaves looks like
frames_end: Final = (FrameError, EOFError, TimeoutError, ConnectionError, BrokenPipeError)


class MediaPool:
    """Media processes for one event loop."""

    def __init__(self, *, processes: int, limits: MediaLimits | None = None) -> None:
        if sys.platform == "win32":
            raise OptionError("stapes serve needs Linux or macOS: its media processes are given open files")
        self._children = [Child(limits or MediaLimits()) for _ in range(processes)]
        self._executor = ThreadPoolExecutor(processes, thread_name_prefix="stapes-media")
        self._idle: asyncio.Queue[Child] = asyncio.Queue()
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start all processes, side by side. Raises MediaUnavailableError."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self._executor, one.start) for one in self._children))
        for child in self._children:
            self._idle.put_nowait(child)
        if _WATCHES_MEMORY:
            self._watch = asyncio.create_task(self.watch_memory())

    async def watch_memory(self) -> None:
        """Look at the memory of all processes every second."""
        while True:
            await asyncio.sleep(1.0)
            for child in self._children:
                await asyncio.to_thread(child.check_memory)

    async def close(self) -> None:
        """End all processes."""
        if self._watch is not None:
            self._watch.cancel()
        for child in self._children:
            child.interrupt()
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
        for child in self._children:
            child.kill()

    async def decode(
        self, file: int, *, label: str, suffix: str = "", audio: Audio | None = None, max_duration_s: float
    ) -> Recording:
        """Decode an open file, whose descriptor is only read.

        label: its name in messages.   suffix: of its name, such as ".mp3".   audio: which track and channel.
        Raises AudioError, AudioTooLongError; MediaFaultError where the decoder ended. If the task is cancelled, the
        process that decodes is ended.
        """
        child = await self._idle.get()
        try:
            return await self._decoded(child, file, label, suffix, audio or Audio(), max_duration_s)
        finally:
            self._idle.put_nowait(child)

    async def _decoded(
        self, child: Child, file: int, label: str, suffix: str, audio: Audio, max_duration_s: float
    ) -> Recording:
        is_given_up = False

        def check() -> None:
            if is_given_up:
                raise asyncio.CancelledError

        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._executor, child.decode, file, label, suffix, audio, max_duration_s, check)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            is_given_up = True
            child.interrupt()
            while not work.done():  # until then the child is not free, however often this task is cancelled
                with suppress(asyncio.CancelledError, Exception):
                    await asyncio.shield(work)
            with suppress(asyncio.CancelledError, Exception):
                work.result().close()
            raise

    async def describe(self) -> list[str]:
        """Return lines for people: which protections hold here. One process is used up for it."""
        child = await self._idle.get()
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._executor, child.test)
        finally:
            self._idle.put_nowait(child)
        heads = {"limits": "Limits on the processes that decode audio:", "refused": "Tried there, and refused:"}
        lines = []
        for name, head in heads.items():
            lines += [head, *(f"  {what}: {'yes' if holds else 'NO'}" for what, holds in found[name].items())]
        return lines


def _environment() -> dict[str, str]:
    """Return the environment of a media process: what Python needs to start, and one thread for arithmetic."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    home = str(Path(stapes.__file__).parents[1])
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**kept, **threads, "PYTHONPATH": home, "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}


def _resident_bytes(process: int) -> int:
    """Return the memory of a process, as `ps` tells it; 0 where it does not."""
    found = subprocess.run(["ps", "-o", "rss=", "-p", str(process)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return int(found.stdout or 0) << 10 if found.returncode == 0 else 0


def _cpu_seconds(process: int) -> int:
    """Return the CPU time that a process has taken. Raises OSError, ValueError where the system does not say."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(int(fields[11]) + int(fields[12])) // os.sysconf("SC_CLK_TCK")
