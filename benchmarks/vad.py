"""The VAD's processor time for 30 s of sound: the native library against NumPy, on one thread.

    python -m benchmarks.vad [--rounds 15] [FILE ...]

Both run in turn, each with a new state. The table has medians and minima of the thread's processor time, as other work
on the machine slows down single rounds. The sound is that of the files, joined and repeated; by default the sample.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.machine import facts
from stapes.audio.load import load_audio
from stapes.backends.base import FloatArray
from stapes.vad.model import VadModel
from stapes.vad.silero_native import SileroNative
from stapes.vad.silero_numpy import SileroNumpy
from stapes.vad.silero_weights import speech_weights

SAMPLE = Path(__file__).parents[1] / "samples" / "stapes.flac"
DURATION_S, SAMPLE_RATE = 30, 16000
Made = TypeVar("Made")


def main() -> int:
    """Measure in turn and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vad", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("files", nargs="*", type=Path, default=[SAMPLE], metavar="FILE")
    arguments = parser.parse_args()
    samples = _sound(arguments.files)
    weights = speech_weights()
    opening, first = _timed(lambda: SileroNative(weights))
    further, _ = _timed(first.afresh)
    with threadpool_limits(1):
        seconds, apart = measure({"native": first, "numpy": SileroNumpy(weights)}, samples, arguments.rounds)
    machine = facts()
    sys.stdout.write(f"{machine['processor']}, load {machine['load_average']}, {DURATION_S} s of sound, one thread\n")
    for name, times in seconds.items():
        sys.stdout.write(f"{name:8} {median(times) * 1e3:7.1f} ms, {min(times) * 1e3:.1f} at least\n")
    ratio = median(numpy / native for native, numpy in zip(seconds["native"], seconds["numpy"], strict=True))
    sys.stdout.write(f"NumPy takes {ratio:.1f} times as long; probabilities differ by {apart:.1e} at most\n")
    sys.stdout.write(f"a first model takes {opening * 1e3:.2f} ms, a further one {further * 1e6:.1f} us\n")
    return 0


def measure(models: dict[str, VadModel], samples: FloatArray, rounds: int) -> tuple[dict[str, list[float]], float]:
    """Return each model's seconds, round by round, and the largest difference of their probabilities."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    found: list[FloatArray] = []
    for turn in range(rounds + 1):
        found = []
        for name, one in models.items():
            model = one.afresh()
            started = time.thread_time()
            found.append(model.probabilities(samples))
            if turn:  # the first turn warms up
                seconds[name].append(time.thread_time() - started)
    return seconds, float(np.abs(found[0] - found[1]).max())


def _sound(files: list[Path]) -> FloatArray:
    parts = []
    for path in files:
        with load_audio(path) as recording:
            parts.append(recording.read(0, recording.n_samples))
    return np.resize(np.concatenate(parts), DURATION_S * SAMPLE_RATE)


def _timed(work: Callable[[], Made]) -> tuple[float, Made]:
    started = time.thread_time()
    made = work()
    return time.thread_time() - started, made


if __name__ == "__main__":
    sys.exit(main())
