"""The recording that ships with the project, for tests that need speech."""

from __future__ import annotations

from pathlib import Path

from stapes.audio.load import load_audio
from stapes.backends.base import FloatArray

SAMPLE = Path(__file__).parents[1] / "samples" / "stapes.flac"


def spoken() -> FloatArray:
    """Return its samples (n,) at 16 kHz."""
    with load_audio(SAMPLE) as recording:
        return recording.read(0, recording.n_samples)
