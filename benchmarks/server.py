"""The server under load: overload, hostile bodies, latency, throughput, sizing, clients that go away, a soak.

python -m benchmarks.server [--parts overload,refused,bomb,latency,beside,throughput,sizing,gone,soak] [--model base]
        [--minutes 30] [--others PYTHON --checkpoints FOLDER]     (others: has faster-whisper; its folder ct2-base)

Servers run as processes of their own on the loopback, clients in this one; both share the cores. Overload, refused,
bomb, gone and soak use scripted models (benchmarks/scripted_server.py), the others a real one. docs/trust.md is made of
the results.
"""

from __future__ import annotations

import io
import json
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import wave
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median
from typing import IO, Any

import av
import httpx
import numpy as np

import stapes
from benchmarks.corpus import corpus_folder
from benchmarks.joined import write_joined
from benchmarks.running import keep, parser_of, result_of, run
from stapes.audio import SAMPLE_RATE, load_audio
from stapes.server.keys import new_key

TRANSCRIPTIONS = "/v1/audio/transcriptions"
SEED = 22
_CLIENT = httpx.Client(timeout=600)  # made once: that takes longer than a request


@dataclass(frozen=True, slots=True)
class Served:
    """A server's process."""

    process: subprocess.Popen[str]
    port: int
    log: IO[str]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def logged(self) -> list[dict[str, Any]]:
        """Return its log's requests."""
        self.log.seek(0)
        lines = [json.loads(line) for line in self.log if line.startswith("{") and line.endswith("\n")]
        return [one for one in lines if one["message"] == "request"]

    def resources(self) -> dict[str, int]:
        """Return its threads, descriptors, and memory in KB."""
        place = Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
        files = len(list((place / "fd").iterdir()))
        return {"threads": int(status["Threads"]), "files": files, "memory_kb": int(status["VmRSS"].split()[0])}

    def children(self) -> list[int]:
        """Return the process ids of its media processes."""
        found = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(one) for path in found for one in path.read_text().split()]


@contextmanager
def served(*words: str, module: str = "benchmarks.scripted_server") -> Iterator[Served]:
    """Run a server; SIGTERM ends it."""
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", module, "--port", "0", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                raise ValueError(f"the server did not start: {log.read()[-500:]}")
            yield Served(process, int(line), log)
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()
            process.stdout.close()


def main() -> int:
    """Measure, write, and print."""
    parser = parser_of("benchmarks.server", __doc__, "server")
    add = parser.add_argument
    add("--parts", default=",".join(_PARTS), help="which, with commas between them")
    add("--model", default="base")
    add("--minutes", type=float, default=30.0, help="of the soak")
    add("--others", help="a Python that has faster-whisper, for the part `others`")
    add("--checkpoints", help="the folder of its ct2-base")
    add("--hour", type=float, default=60.0, help="minutes of the recording that clips come beside")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for name in arguments.parts.split(","):
        found[name] = (_PARTS | _COMPARED)[name](arguments)
        sys.stdout.write(f"{name}: {json.dumps(found[name])}\n")
        sys.stdout.flush()
    settings = {"model": arguments.model, "minutes": arguments.minutes, "hour": arguments.hour}
    keep(result_of("server", settings, parts=found), arguments.output, "server")
    return 0


# Overload.


def _overload(_: Any) -> dict[str, Any]:
    """Ask a hundred times at once, where there is room for ten."""
    with (
        served("--held", "--max_active", "2", "--max_queue", "8", "--max_connections", "300") as server,
        ExitStack() as all_,
    ):
        sent = _request(clip_bytes(3.0))
        connections = [all_.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(100)]
        used = time.process_time()
        started = time.perf_counter()
        for one in connections:
            one.sendall(sent)
        health = []
        while sum(one["status"] == 429 for one in server.logged()) < 90 and time.perf_counter() - started < 60:
            before = time.perf_counter()
            _CLIENT.get(f"{server.url}/health/live", headers={"connection": "close"}).raise_for_status()
            health.append(time.perf_counter() - before)
        elapsed, used = time.perf_counter() - started, time.process_time() - used
        server.process.send_signal(signal.SIGUSR1)
        statuses = Counter(one.recv(12).split()[1].decode() for one in connections)
        refused = sorted(one["seconds"] for one in server.logged() if one["status"] == 429)
    return {
        "accepted": statuses["200"],
        "refused": statuses["429"],
        "refused_p99_ms": _ms(refused[round(0.99 * (len(refused) - 1))]),
        "health_most_ms": _ms(max(health, default=0.0)),
        "client_cpu_share": round(used / elapsed, 2),
    }


def _request(sound: bytes) -> bytes:
    fields = b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nbase\r\n'
    file = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + sound + b"\r\n--x--\r\n"
    head = (
        f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        f"content-type: multipart/form-data; boundary=x\r\ncontent-length: {len(fields + file)}\r\n\r\n"
    )
    return head.encode() + fields + file


# Hostile bodies.


def _refused(_: Any) -> dict[str, Any]:
    """Send a gigabyte without a key, until the answer comes and the connection is closed."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder, "keys.txt")
        new_key(keys, "client", "")
        with served("--key_file", str(keys)) as server, socket.create_connection(("127.0.0.1", server.port)) as one:
            one.sendall(_request(b"")[:200].split(b"content-length")[0] + b"content-length: 1000000000\r\n\r\n")
            n_sent, n_before, answer = 0, 0, b""
            with suppress(OSError):
                while n_sent < 1_000_000_000:
                    one.sendall(bytes(16_384))
                    n_sent += 16_384
                    if not answer and select.select([one], [], [], 0.002)[0]:
                        n_before, answer = n_sent, one.recv(4096)
    return {"status": int(answer.split()[1]), "sent_before_kb": n_before >> 10, "read_mb": round(n_sent / 2**20, 1)}


def _bomb(_: Any) -> dict[str, Any]:
    """Send eight hours of Opus in few bytes: refused at the limit of two hours, in bounded memory."""
    sound = opus_bytes(8 * 3600)
    with served("--max_body", "64") as server:
        _settle(server)
        before, started = server.resources()["memory_kb"], time.perf_counter()
        answer = _CLIENT.post(
            f"{server.url}{TRANSCRIPTIONS}", data={"model": "base"}, files={"file": ("a.opus", sound)}
        )
        took_s = time.perf_counter() - started
        children = [_peak_kb(one) for one in server.children()]
        own_kb = _peak_kb(server.process.pid) - before
        lives = _CLIENT.get(f"{server.url}/health/live").status_code == 200
    return {
        "body_mb": round(len(sound) / 2**20, 1), "status": answer.status_code, "code": answer.json()["error"]["code"],
        "seconds": round(took_s, 1), "server_grew_mb": round(own_kb / 1024, 1),
        "media_peak_mb": round(max(children, default=0) / 1024, 1), "lives": lives,
    }  # fmt: skip


def _peak_kb(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def opus_bytes(seconds: int) -> bytes:
    """Return so much Opus in an Ogg file; a minute is encoded, and its packets come again and again."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as output:
        stream: Any = output.add_stream("libopus", rate=48_000, options={"frame_duration": "60", "b": "6000"})
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000 * 60), np.int16), format="s16", layout="mono")
        frame.sample_rate = 48_000
        packets = list(stream.encode(frame))
        bodies = [(bytes(one), one.duration or 2880) for one in packets]
        time_ = 0
        while time_ < seconds * 48_000:
            for body, duration in bodies:
                packet = av.Packet(body)
                packet.stream, packet.pts, packet.dts, packet.duration = stream, time_, time_, duration
                packet.time_base = Fraction(1, 48_000)
                output.mux(packet)
                time_ += duration
    return file.getvalue()


# With a real model.


@contextmanager
def _real(arguments: Any, *words: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "stapes", "serve", "--model", arguments.model, "--port", str(port), *words]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health/ready").status_code == 200:
                    break
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _ask(url: str, sound: bytes, *, language: str | None = "en") -> float:
    started = time.perf_counter()
    data = {"model": "whisper-1"} | ({} if language is None else {"language": language})
    answer = _CLIENT.post(f"{url}{TRANSCRIPTIONS}", data=data, files={"file": ("a.wav", sound)})
    answer.raise_for_status()
    return time.perf_counter() - started


def _latency(arguments: Any) -> dict[str, Any]:
    """What the server adds to the engine's own time for a clip of 3 s: with a real model, and with none."""
    found = {}
    with _real(arguments) as url, stapes.load(arguments.model) as engine:
        found["real"] = _added(url, engine, clip_bytes(3.0), 20)
    from stapes.testing import scripted_engine  # noqa: PLC0415 (for this part only)

    with served() as server:
        found["scripted"] = _added(server.url, scripted_engine(" Hello."), clip_bytes(3.0), 60)
    return found


def _added(url: str, engine: stapes.Engine, sound: bytes, times: int) -> dict[str, float]:
    def alone() -> float:
        started = time.perf_counter()
        engine.transcribe(sound, language="en", interactive=True)
        return time.perf_counter() - started

    for _ in range(3):
        _ask(url, sound), alone()
    pairs = [(_ask(url, sound), alone()) for _ in range(times)]
    through, own = (median(one) for one in zip(*pairs, strict=True))
    return {"server_ms": _ms(through), "engine_ms": _ms(own), "added_ms": _ms(through - own)}


def _beside(arguments: Any) -> dict[str, Any]:
    """Fifty clips of 3 s, one after another, while an hour is decoded."""
    clip = clip_bytes(3.0)
    with tempfile.TemporaryDirectory() as folder, _real(arguments) as url:
        long = Path(folder, "long.wav")
        write_joined(long, arguments.hour)
        _ask(url, clip)
        alone = median(_ask(url, clip) for _ in range(15))
        gone = threading.Event()
        thread = threading.Thread(target=_stream_until, args=(url, long, gone))
        thread.start()
        time.sleep(20.0)  # it is uploaded and decoded to samples
        times = sorted(_ask(url, clip) for _ in range(50))
        gone.set()
        thread.join()
    return {
        "alone_ms": _ms(alone),
        "median_ms": _ms(median(times)),
        "p95_ms": _ms(times[47]),
        "p95_times_alone": round(times[47] / alone, 2),
    }


def _stream_until(url: str, path: Path, gone: threading.Event) -> None:
    data = {"model": "whisper-1", "language": "en", "stream": "true"}
    with path.open("rb") as file, httpx.Client(timeout=600) as client, suppress(httpx.HTTPError):
        request = client.build_request("POST", f"{url}{TRANSCRIPTIONS}", data=data, files={"file": file})
        answer = client.send(request, stream=True)
        for _ in answer.iter_raw():
            if gone.is_set():
                break
        answer.close()


def _throughput(arguments: Any) -> dict[str, Any]:
    """Audio seconds a second: the engine's own batch, and as many requests at once."""
    found = {}
    for seconds in (10.0, 3.0):
        clips = [clip_bytes(seconds, start) for start in range(32)]
        with stapes.load(arguments.model) as engine, _real(arguments) as url:
            times = [(_timed(_together, engine, clips), _timed(_at_once, url, clips)) for _ in range(3)]
        own, through = (len(clips) * seconds / median(one) for one in zip(*times, strict=True))
        found[f"{seconds:g}_s"] = {
            "engine": round(own, 2), "server": round(through, 2), "ratio": round(through / own, 3),
        }  # fmt: skip
    return found


def _sizing(arguments: Any) -> dict[str, Any]:
    """Clients that each send clips of 10 s one after another, while more and more of them do."""
    clips = [clip_bytes(10.0, start) for start in range(32)]
    found = {}
    with _real(arguments) as url:
        _at_once(url, clips[:4])
        for n_clients in (1, 2, 4, 8, 16):
            times: list[float] = []
            started = time.perf_counter()
            with ThreadPoolExecutor(n_clients) as pool:
                times = sorted(pool.map(partial(_ask, url), clips))
            wall_s = time.perf_counter() - started
            found[str(n_clients)] = {
                "median_s": round(median(times), 2), "p95_s": round(times[30], 2),
                "times_real_time": round(len(clips) * 10.0 / wall_s, 1),
            }  # fmt: skip
    return found


def _others(arguments: Any) -> dict[str, Any]:
    """Requests of 10 s at once, beside faster-whisper with its defaults: one model, called from many threads."""
    clips = [clip_bytes(10.0, start) for start in range(16)]
    with tempfile.TemporaryDirectory() as folder, _real(arguments) as url:
        paths = [Path(folder, f"{number}.wav") for number in range(len(clips))]
        for path, clip in zip(paths, clips, strict=True):
            path.write_bytes(clip)
        command = [arguments.others, "-c", _FASTER_WHISPER, str(Path(arguments.checkpoints, "ct2-base")), *paths]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            times = []
            for _ in range(4):
                other.stdin.write("go\n")
                other.stdin.flush()
                times.append((float(other.stdout.readline()), _timed(_at_once, url, clips, None)))
            other.stdin.close()
    theirs, ours = (median(one) for one in zip(*times[1:], strict=True))
    return {
        "faster_whisper_times_real_time": round(160 / theirs, 2), "stapes_times_real_time": round(160 / ours, 2),
        "ratio": round(theirs / ours, 2),
    }  # fmt: skip


_FASTER_WHISPER = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from faster_whisper import WhisperModel
model = WhisperModel(sys.argv[1], device="cpu", compute_type="int8")
def work(path):
    return "".join(one.text for one in model.transcribe(path)[0])
for _ in sys.stdin:
    started = time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, sys.argv[2:]))
    print(time.perf_counter() - started, flush=True)
"""


def _together(engine: stapes.Engine, clips: list[bytes]) -> None:
    for job in [engine.submit(one, language="en") for one in clips]:
        job.result()


def _at_once(url: str, clips: list[bytes], language: str | None = "en") -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(partial(_ask, url, language=language), clips))


def _timed(work: Callable[..., None], *arguments: Any) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


# Clients that go away; a soak.


def _gone(_: Any) -> dict[str, Any]:
    """A thousand clients that go away at a random moment."""
    moments = random.Random(SEED)  # noqa: S311 (moments, not secrets)
    sent = _request(clip_bytes(3.0))
    with served("--max_queue", "200") as server:
        _settle(server)
        before = server.resources()
        for _ in range(1000):
            with socket.create_connection(("127.0.0.1", server.port)) as one, suppress(OSError):
                one.sendall(sent[: moments.randrange(len(sent) + 1)])
                time.sleep(moments.choice((0.0, 0.0, 0.005, 0.02)))
        _settle(server)
        after = server.resources()
        left = [one for one in httpx.get(f"{server.url}/metrics").text.splitlines() if one.startswith("stapes_active ")]
    return {"before": before, "after": after, "active": left[0].split()[1]}


def _settle(server: Served) -> None:
    """Ask a few times, and wait until idle connections are closed."""
    for _ in range(20):
        _ask(server.url, clip_bytes(3.0))
    time.sleep(7.0)


def _soak(arguments: Any) -> dict[str, Any]:
    """Mixed load, with a fault every 30 s: a killed media process, a malformed file, a cancelled or a slow client."""
    moments = random.Random(SEED)  # noqa: S311 (as above)
    ends = time.monotonic() + arguments.minutes * 60
    statuses: Counter[str] = Counter()
    with served("--max_active", "4") as server:
        _settle(server)
        before = server.resources()["memory_kb"]
        threads = [threading.Thread(target=_client, args=(server.url, ends, statuses)) for _ in range(3)]
        for one in threads:
            one.start()
        n_faults = 0
        while time.monotonic() < ends:
            time.sleep(min(30.0, arguments.minutes * 60 / 8))
            _FAULTS[n_faults % len(_FAULTS)](server, moments)
            n_faults += 1
        for one in threads:
            one.join()
        _settle(server)
        growth_kb = server.resources()["memory_kb"] - before
        lives = httpx.get(f"{server.url}/health/ready").status_code == 200
    unexpected = {name: n for name, n in statuses.items() if name != "200"}
    return {
        "requests": sum(statuses.values()), "unexpected": unexpected, "faults": n_faults,
        "growth_mb": round(growth_kb / 1024, 1), "ready": lives,
    }  # fmt: skip


def _client(url: str, ends: float, statuses: Counter[str]) -> None:
    sounds = [clip_bytes(seconds) for seconds in (1.0, 3.0, 10.0)]
    moments = random.Random(SEED)  # noqa: S311 (as above)
    with httpx.Client(timeout=60) as client:
        while time.monotonic() < ends:
            fields = {"model": "base", "response_format": moments.choice(("json", "text", "srt", "verbose_json"))}
            try:
                sound = moments.choice(sounds)
                answer = client.post(f"{url}{TRANSCRIPTIONS}", data=fields, files={"file": ("a.wav", sound)})
                is_fault = answer.status_code == 400 and "the decoder stopped" in answer.text
                statuses["200" if is_fault else str(answer.status_code)] += 1  # its media process was killed
            except httpx.HTTPError as error:
                statuses[type(error).__name__] += 1


def _kill_media(server: Served, moments: random.Random) -> None:
    import os  # noqa: PLC0415 (for this fault only)

    with suppress(OSError, IndexError):
        os.kill(moments.choice(server.children()), signal.SIGKILL)


def _send_malformed(server: Served, moments: random.Random) -> None:
    files = {"file": ("a.wav", b"RIFF" + moments.randbytes(5000))}
    answer = httpx.post(f"{server.url}{TRANSCRIPTIONS}", data={"model": "base"}, files=files)
    assert answer.status_code == 400, answer.text


def _cancel(server: Served, _: random.Random) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as one:
        one.sendall(_request(clip_bytes(10.0)))


def _read_slowly(server: Served, _: random.Random) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as one:
        one.sendall(_request(clip_bytes(3.0)))
        for _byte in range(20):
            if not one.recv(1):
                break
            time.sleep(0.05)


_FAULTS = (_kill_media, _send_malformed, _cancel, _read_slowly)


def clip_bytes(seconds: float, start_s: float = 0.0) -> bytes:
    """Return a clip of speech as a wav file; `start_s` counts in the recording, again and again."""
    with load_audio(corpus_folder() / "audio" / "jfk" / "jfk.flac") as recording:
        first = round((start_s % max(recording.duration_s - seconds, 0.1)) * SAMPLE_RATE)
        samples = recording.read(first, first + round(seconds * SAMPLE_RATE))
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


#: needs an environment of its own
_COMPARED = {"others": _others}
_PARTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "overload": _overload,
    "refused": _refused,
    "bomb": _bomb,
    "latency": _latency,
    "beside": _beside,
    "throughput": _throughput,
    "sizing": _sizing,
    "gone": _gone,
    "soak": _soak,
}

if __name__ == "__main__":
    run("benchmarks.server", main)
