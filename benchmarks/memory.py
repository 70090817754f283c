"""Memory does not grow with the recording: the peak of two hours against that of one minute.

python -m benchmarks.memory [--minutes 1 120] [--output FILE]

The network is the scripted one of `stapes.testing`, so that only the engine's own buffers count: decoded
audio, log-mel, segments. Each recording is transcribed by a fresh process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import numpy as np

from benchmarks.machine import facts, peak_memory_mb
from benchmarks.results import FORMAT, write

SAMPLE_RATE = 16000
LIMIT_MB = 64.0


def main() -> int:
    """Compare and print; exit 1 above the limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--minutes", type=int, nargs=2, default=[1, 120], metavar=("SHORT", "LONG"))
    parser.add_argument("--output", type=Path, help="write the result as JSON too")
    parser.add_argument("--transcribe", type=Path, help=argparse.SUPPRESS)  # what the child processes do
    arguments = parser.parse_args()
    if arguments.transcribe is not None:
        return _transcribe(arguments.transcribe)
    with tempfile.TemporaryDirectory() as folder:
        peaks = {minutes: _peak_mb(minutes, Path(folder)) for minutes in arguments.minutes}
    for minutes, (peak_mb, segments) in peaks.items():
        sys.stdout.write(f"{minutes:4} min: {peak_mb:7.1f} MB at most, {segments} segments\n")
    short, long = (peaks[minutes][0] for minutes in arguments.minutes)
    sys.stdout.write(f"difference: {long - short:.1f} MB; the limit is {LIMIT_MB:.0f} MB\n")
    if arguments.output is not None:
        peaks_mb = {str(minutes): peak_mb for minutes, (peak_mb, _) in peaks.items()}
        result = {
            "format": FORMAT,
            "kind": "memory",
            "machine": facts(),
            "peaks_mb": peaks_mb,
            "limit_mb": LIMIT_MB,
        }
        write(result, arguments.output, "memory")
    return 0 if long - short < LIMIT_MB else 1


def _peak_mb(minutes: int, folder: Path) -> tuple[float, int]:
    """Give the peak memory of a process that transcribes so many minutes, and how many segments it found."""
    path = folder / f"{minutes}.wav"
    _write_tones(path, minutes)
    command = [sys.executable, "-m", "benchmarks.memory", "--transcribe", str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    path.unlink()
    peak_mb, segments = done.stdout.split()
    return float(peak_mb), int(segments)


def _write_tones(path: Path, minutes: int) -> None:
    """Write a 16 kHz mono WAV of tones that change every second, a minute at a time."""
    time_s = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        for second in range(60 * minutes):
            tone = np.sin(2 * np.pi * (200 + 37 * (second % 50)) * time_s)
            file.writeframes((8000 * tone).astype("<i2").tobytes())


def _transcribe(path: Path) -> int:
    """Transcribe with the scripted network; prints the peak and the number of segments."""
    from stapes.testing import scripted_engine  # noqa: PLC0415 (only the child processes need it)

    segments = sum(1 for _ in scripted_engine().stream(path))
    sys.stdout.write(f"{peak_memory_mb()} {segments}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
