"""Long recordings of real speech: those of longform-libri-chapter, one after another, repeated."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from benchmarks.corpus import benchmark_list
from benchmarks.throughput import LONG_S
from stapes.audio.load import load_audio
from stapes.audio.pcm import SAMPLE_RATE


def write_joined(path: Path, minutes: float) -> None:
    """Write so many minutes as a 16-bit WAV file; the last recording is cut short."""
    blocks = []
    for recording in benchmark_list():
        if recording.duration_s >= LONG_S:
            with load_audio(recording.path) as loaded:
                samples = loaded.read(0, loaded.n_samples)
            blocks.append((samples * np.float32(32768)).astype("<i2").tobytes())
    rest = round(minutes * 60 * SAMPLE_RATE) * 2
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        while rest:
            for block in blocks:
                file.writeframes(block[:rest])
                rest -= len(block[:rest])
