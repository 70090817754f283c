"""Media processes: the samples of `load_audio`; hostile files, crashes and limits stay there."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stapes.audio import Recording, load_audio
from stapes.errors import AudioError, AudioTooLongError
from stapes.options import Audio
from stapes.server.errors import api_error_of
from stapes.server.media import frames
from stapes.server.media.frames import FrameError, MediaFaultError, MediaUnavailableError, Notes
from stapes.server.media.pool import Child, MediaLimits, MediaPool
from tests.audio_files import EVERYDAY, encoded
from tests.random_cases import cases

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="media processes need Linux or macOS")


def with_pool(work: Callable[[MediaPool], Awaitable[Any]], **limits: Any) -> Any:
    async def run() -> Any:
        pool = MediaPool(processes=1, limits=MediaLimits(**limits))
        await pool.start()
        try:
            return await work(pool)
        finally:
            await pool.close()

    return asyncio.run(run())


async def decode(pool: MediaPool, path: Path, *, max_duration_s: float = 60.0, audio: Audio | None = None) -> Recording:
    file = os.open(path, os.O_RDONLY)
    try:
        return await pool.decode(file, label=str(path), suffix=path.suffix, max_duration_s=max_duration_s, audio=audio)
    finally:
        os.close(file)


def samples(recording: Recording) -> Any:
    with recording:
        return recording.read(0, recording.n_samples)


def test_samples_and_notes_are_those_of_load_audio(tmp_path: Path) -> None:
    async def work(pool: MediaPool) -> None:
        for kind in EVERYDAY:
            path = tmp_path / f"a.{kind}"
            path.write_bytes(encoded(kind))
            found, wanted = await decode(pool, path), load_audio(path)
            assert (found.warnings, found.spans) == (wanted.warnings, wanted.spans)
            assert np.array_equal(samples(found), samples(wanted)), kind
        clock = Audio(clock="container")
        found = await decode(pool, tmp_path / "a.mkv", audio=clock)
        with load_audio(tmp_path / "a.mkv", clock="container") as wanted:
            assert found.spans == wanted.spans

    with_pool(work)


def test_a_file_that_is_no_audio_is_refused_and_costs_no_process(tmp_path: Path) -> None:
    texts = {
        "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "list.txt": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "page.wav": b"https://example.org/a.wav\n",
        "zeros.mp3": bytes(5000),
        "empty.wav": b"",
    }

    async def work(pool: MediaPool) -> None:
        before = pool._children[0]._process
        for name, text in texts.items():
            (tmp_path / name).write_bytes(text)
            with pytest.raises(AudioError) as caught:
                await decode(pool, tmp_path / name)
            assert not isinstance(caught.value, MediaFaultError)
        assert pool._children[0]._process is before

    with_pool(work)


def test_what_is_too_long_is_stopped_by_counting(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(encoded("mp3", 20.0))

    async def work(pool: MediaPool) -> None:
        with pytest.raises(AudioTooLongError, match="longer than the 2 s"):
            await decode(pool, path, max_duration_s=2.0)
        assert (await decode(pool, path)).duration_s > 19.0

    with_pool(work)


def test_a_process_that_is_killed_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded("wav"))

    async def work(pool: MediaPool) -> None:
        for _ in range(2):
            process = pool._children[0]._process
            assert process is not None
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            (await decode(pool, path)).close()

    with_pool(work)


def test_a_process_is_replaced_after_many_files(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded("wav"))

    async def work(pool: MediaPool) -> set[int]:
        found = set()
        for _ in range(4):
            (await decode(pool, path)).close()
            process = pool._children[0]._process
            assert process is not None
            found.add(process.pid)
        return found

    assert len(with_pool(work, max_files=2)) == 2


def test_a_decoder_that_is_silent_is_a_fault_and_a_cancelled_one_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded("wav"))

    async def work(pool: MediaPool) -> None:
        process = pool._children[0]._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(MediaFaultError, match="took too long"):
            await decode(pool, path)
        (await decode(pool, path)).close()
        process = pool._children[0]._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        task = asyncio.create_task(decode(pool, path))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (await decode(pool, path)).close()
        assert len(await pool.describe()) > 5
        assert len(await pool.describe()) > 5  # a process that was used up is started again

    with_pool(work, silence_timeout_s=0.5)


def test_a_task_that_is_cancelled_twice_frees_its_process_once_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded("wav"))
    decode_slowly, at_work = Child.decode, list[int]()

    def slow(self: Child, *arguments: Any) -> Any:
        at_work.append(1)
        time.sleep(0.2)
        try:
            return decode_slowly(self, *arguments)
        finally:
            at_work.pop()

    monkeypatch.setattr(Child, "decode", slow)

    async def work(pool: MediaPool) -> None:
        task = asyncio.create_task(decode(pool, path))
        for _ in range(2):
            await asyncio.sleep(0.05)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not at_work

    with_pool(work)


def test_no_descriptors_are_left(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded("wav"))

    async def work(pool: MediaPool) -> tuple[int, int]:
        (await decode(pool, path)).close()
        before = len(os.listdir("/dev/fd"))  # noqa: PTH208 (numbers)
        for _ in range(20):
            (await decode(pool, path)).close()
        return before, len(os.listdir("/dev/fd"))  # noqa: PTH208

    before, after = with_pool(work)
    assert before == after


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have fewer protections")
def test_a_process_can_reach_nothing_here() -> None:
    async def work(pool: MediaPool) -> list[str]:
        return await pool.describe()

    lines = with_pool(work)
    assert [line for line in lines if not line.startswith("  ")] == [
        "Limits on the processes that decode audio:",
        "Tried there, and refused:",
    ]
    assert {line.rpartition(": ")[2] for line in lines if line.startswith("  ")} == {"yes"}, lines
    assert len(lines) == 13


def test_a_process_imports_no_engine_and_no_server() -> None:
    program = (
        "import sys; import stapes.server.media.child; "
        "print([one for one in sys.modules if one.startswith(('stapes.engine', 'stapes.server.app', 'starlette', "
        "'uvicorn', 'stapes.backends.n'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_processes_end_with_their_server() -> None:
    program = (
        "import asyncio, time\n"
        "from stapes.server.media.pool import MediaPool\n"
        "async def main():\n"
        "    pool = MediaPool(processes=1)\n"
        "    await pool.start()\n"
        "    print(pool._children[0]._process.pid, flush=True)\n"
        "    time.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    child = int(server.stdout.readline())
    server.kill()
    server.wait()
    server.stdout.close()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or ") Z" in Path(f"/proc/{child}/stat").read_text():
            return
        time.sleep(0.02)
    raise AssertionError("the media process lives on")


def test_what_a_process_sends_is_checked() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"S\xff\xff\xff\xff")
        with pytest.raises(FrameError):
            frames.receive(ours, 5.0)
    for body in (b"{", b"{}", b'{"warnings": [1], "spans": []}', b'{"warnings": [], "spans": [[0, 9]]}',
                 b'{"warnings": [], "spans": [[0, Infinity]]}', b"[" * 100_000,
                 b'{"warnings": [], "spans": [[2, 4], [0, 2]]}'):  # fmt: skip
        with pytest.raises(FrameError):
            Notes.of(body, 4)
    assert Notes.of(json.dumps({"warnings": ["a"], "spans": [[2, 6]]}).encode(), 4) == Notes(("a",), ((2, 6),))


def test_a_process_that_sends_a_byte_now_and_then_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()

    def trickle() -> None:
        with suppress(OSError):
            while True:
                theirs.sendall(b"S")
                time.sleep(0.02)

    sender = threading.Thread(target=trickle)
    with theirs:
        theirs.sendall(b"S\x00\x00\xff\xff")
        sender.start()
        began = time.monotonic()
        with ours, pytest.raises(TimeoutError):
            frames.receive(ours, 0.2)
        assert time.monotonic() - began < 2.0
        sender.join()


def test_a_good_file_outlives_the_end_of_its_process(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded("wav"))

    async def work(pool: MediaPool) -> None:
        for _ in range(3):
            process = pool._children[0]._process
            assert process is not None
            os.kill(process.pid, signal.SIGSTOP)
            task = asyncio.create_task(decode(pool, path))
            await asyncio.sleep(0.1)
            os.kill(process.pid, signal.SIGKILL)
            assert len(samples(await task)) == 16_000

    with_pool(work)


def test_a_process_that_does_not_start_is_not_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded("wav"))

    async def work(pool: MediaPool) -> None:
        (child,) = pool._children
        start, n_starts = Child.start, 0

        def fails_once(one: Child) -> None:
            nonlocal n_starts
            n_starts += 1
            if n_starts == 1:
                raise MediaUnavailableError("killed while it started")
            start(one)

        child.kill()
        with monkeypatch.context() as patched:
            patched.setattr(Child, "start", fails_once)
            (await decode(pool, path)).close()
        monkeypatch.setattr("stapes.server.media.pool._CHILD", "stapes.no_such_module")
        child.kill()
        with pytest.raises(MediaUnavailableError) as caught:
            await decode(pool, path)
        assert api_error_of(caught.value).code == "media_unavailable"

    with_pool(work)


def test_a_process_with_too_much_memory_is_ended_where_the_server_has_to_watch(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded("wav"))

    async def work(pool: MediaPool) -> None:
        (child,) = pool._children
        samples(await decode(pool, path))
        assert child._process is not None
        child.check_memory()
        assert child._process.poll() is None
        child._limits = replace(child._limits, resident_bytes=1 << 20)
        watch = asyncio.create_task(pool.watch_memory())
        while child._process.poll() is None:
            await asyncio.sleep(0.05)
        watch.cancel()

    with_pool(work)


def test_mutated_files_are_decoded_or_refused(tmp_path: Path) -> None:
    chance = random.Random(7)
    kinds = ("wav", "mp3", "flac", "ogg", "m4a", "webm", "aac")
    path = tmp_path / "a.bin"

    async def work(pool: MediaPool) -> int:
        n_decoded = 0
        for number in range(cases(70, 2000)):
            data = bytearray(encoded(kinds[number % len(kinds)]))
            for _ in range(chance.choice((1, 3, 30))):
                data[chance.randrange(len(data))] = chance.randrange(256)
            path.write_bytes(data[: chance.choice((len(data), chance.randrange(1, len(data))))])
            try:
                (await decode(pool, path)).close()
                n_decoded += 1
            except AudioError as error:
                assert not isinstance(error, MediaFaultError), error  # noqa: PT017 (either is right)
        return n_decoded

    assert with_pool(work) > 10
