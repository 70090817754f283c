"""Memory does not grow with the recording: the peak of twelve hours against that of one; and how soon a job ends.

python -m benchmarks.memory [--minutes 60 720] [--output FILE]

The network is the scripted one of `stapes.testing`, so that only the engine's own buffers count: decoded audio,
log-mel, segments. Log-mel is the native library's where it was built (NumPy's takes twenty times as long). Each
recording is a temporary file and its samples in another (115 MB an hour each), and is transcribed by a fresh
process. Then the longest is cancelled at random moments (fixed seed), and its reading interrupted.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import peak_memory_mb
from benchmarks.running import keep, parser_of, result_of, run

SAMPLE_RATE = 16000
LIMIT_MB = 16.0
CANCEL_LIMIT_S = 1.0
WHOLE_MINUTES = [60, 720]
TIMES, SEED = 5, 12


def main() -> int:
    """Compare and print; exit 1 above a limit."""
    parser = parser_of("benchmarks.memory", __doc__)
    parser.add_argument("--minutes", type=int, nargs=2, default=WHOLE_MINUTES, metavar=("SHORT", "LONG"))
    parser.add_argument("--child", choices=sorted(_CHILDREN), help=argparse.SUPPRESS)
    parser.add_argument("--recording", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        sys.stdout.write(json.dumps(_CHILDREN[arguments.child](arguments.recording)) + "\n")
        return 0
    peaks_mb, ends = measure(*arguments.minutes)
    short, long = peaks_mb.values()
    cancel_s, stop_s = max(ends["cancel_s"]), max(ends["stop_reading_s"])
    for minutes, peak_mb in peaks_mb.items():
        sys.stdout.write(f"{minutes:>4} min: {peak_mb:7.1f} MB at most\n")
    sys.stdout.write(
        f"difference: {long - short:.1f} MB; the limit is {LIMIT_MB:.0f} MB\n"
        f"from cancel to the end: {cancel_s * 1000:.1f} ms at most, while reading {stop_s * 1000:.1f} ms; "
        f"the limit is {CANCEL_LIMIT_S:.0f} s\n"
    )
    if arguments.output is not None:
        settings = {"whole": arguments.minutes == WHOLE_MINUTES}
        keep(result_of("memory", settings, peaks_mb=peaks_mb, limit_mb=LIMIT_MB, **ends), arguments.output, "memory")
    return 0 if long - short < LIMIT_MB and max(cancel_s, stop_s) < CANCEL_LIMIT_S else 1


def measure(short: int, long: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return the peaks of two recordings by their minutes, and how soon the longer one ends when it is cancelled."""
    peaks_mb, ends = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for minutes in (short, long):
            path = Path(folder) / f"{minutes}.wav"
            _write_tones(path, minutes)
            answer = _child("transcribe", path)
            if answer["windows"] != 2 * minutes:  # of 30 s
                raise ValueError(f"{minutes} minutes gave {answer['windows']} windows")
            peaks_mb[str(minutes)] = float(answer["peak_mb"])
            if minutes == long:
                ends = _child("end", path)
            path.unlink()
    return peaks_mb, ends


def _child(what: str, path: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", "--child", what, "--recording", str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _write_tones(path: Path, minutes: int) -> None:
    """Write a 16 kHz mono WAV of tones that change every second, a minute at a time."""
    time_s = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tones = [np.sin(2 * np.pi * (200 + 37 * number) * time_s) for number in range(50)]
    blocks = [(8000 * tone).astype("<i2").tobytes() for tone in tones]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        for second in range(60 * minutes):
            file.writeframes(blocks[second % len(blocks)])


# What the child processes do; only they need stapes.


def _engine() -> Any:
    from stapes.backends.base import LogMelKernel  # noqa: PLC0415
    from stapes.backends.select import open_backend  # noqa: PLC0415
    from stapes.engine.engine import Engine  # noqa: PLC0415
    from stapes.testing import ScriptedBackend, random_checkpoint, reciting  # noqa: PLC0415
    from stapes.tokenizer import Tokenizer  # noqa: PLC0415

    checkpoint = random_checkpoint()
    computing = open_backend(checkpoint, name="auto", precision="float32", threads=1)

    class PeriodicBackend(ScriptedBackend):
        @property
        def log10_mel(self) -> LogMelKernel:
            return computing.log10_mel

    script = reciting(Tokenizer(checkpoint.spec, checkpoint.vocabulary), [" Hello."])
    return Engine(checkpoint, PeriodicBackend(checkpoint.spec, script))


def _transcribe(path: Path) -> dict[str, Any]:
    """Transcribe, and take the segments as they come."""
    stream = _engine().stream(path, language="en", temperature=0.0)
    n_segments = sum(1 for _ in stream)
    assert n_segments == len(stream.job.result().segments)
    return {"peak_mb": peak_memory_mb(), "windows": len(stream.job.result().windows)}


def _end(path: Path) -> dict[str, list[float]]:
    """Return the seconds from cancel to the end of a job, and from the request to stop to the end of reading."""
    moments = random.Random(SEED)  # noqa: S311 (moments, not secrets)
    engine = _engine()
    cancel_s, stop_reading_s = [], []
    for _ in range(TIMES):
        stop_reading_s.append(_stop_reading(engine, path, moments.uniform(0.05, 1.0)))
    from stapes.audio.load import load_audio  # noqa: PLC0415

    with load_audio(path) as recording:
        for _ in range(TIMES):
            cancel_s.append(_cancel(engine, recording, moments.uniform(0.0, 0.5)))
    return {"cancel_s": cancel_s, "stop_reading_s": stop_reading_s}


def _stop_reading(engine: Any, path: Path, after_s: float) -> float:
    moment = time.perf_counter() + after_s

    def check() -> None:
        if time.perf_counter() > moment:
            raise InterruptedError

    try:
        engine.submit(path, language="en", temperature=0.0, check=check)
    except InterruptedError:
        return round(time.perf_counter() - moment, 5)
    raise ValueError(f"the recording was read in less than {after_s:.2f} s: take a longer one")


def _cancel(engine: Any, recording: Any, share: float) -> float:
    """Cancel when a share of the recording is done; no segment is taken, and none may delay the end."""
    from stapes.engine.scheduled_job import JobParams  # noqa: PLC0415
    from stapes.options import TranscribeOptions  # noqa: PLC0415

    reached, ended = threading.Event(), threading.Event()

    def measure(progress: Any) -> None:
        if progress.done_s >= share * progress.total_s:
            reached.set()

    options = TranscribeOptions.from_keywords({"language": "en", "temperature": 0.0})
    job = engine.submit_recording(recording.shared(), options, JobParams(on_progress=measure))
    job.when_ended(lambda _: ended.set())
    reached.wait()
    started = time.perf_counter()
    job.cancel()
    ended.wait()
    if job.error is None:
        raise ValueError("the job was done before it was cancelled")
    return round(time.perf_counter() - started, 5)


_CHILDREN: dict[str, Callable[[Path], dict[str, Any]]] = {"transcribe": _transcribe, "end": _end}


if __name__ == "__main__":
    run("benchmarks.memory", main)
